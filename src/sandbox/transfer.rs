//! The typed data of a payment, written a second time: what is signed, and by whom (protocol §9.1).

use sha3::{Digest, Keccak256};

use crate::types::{Address, Signature};

use super::verify::recover;

/// A token in which payments are taken.
pub(super) struct Coin {
    pub(super) network: &'static str,
    chain: u64,
    pub(super) contract: &'static str,
    pub(super) name: &'static str,
    pub(super) version: &'static str,
}

/// USDC on Base, and on the network for tests.
pub(super) static COINS: [Coin; 2] = [
    Coin {
        network: "eip155:8453",
        chain: 8453,
        contract: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
        name: "USD Coin",
        version: "2",
    },
    Coin {
        network: "eip155:84532",
        chain: 84532,
        contract: "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
        name: "USDC",
        version: "2",
    },
];

/// An authorisation as its header has it.
pub(super) struct Transfer {
    pub(super) coin: &'static Coin,
    pub(super) from: Address,
    pub(super) to: Address,
    pub(super) value: u128,
    pub(super) valid_after: u64,
    pub(super) valid_before: u64,
    pub(super) nonce: [u8; 32],
    pub(super) signature: Signature,
}

impl Transfer {
    /// Whether the wallet that pays has signed it.
    pub(super) fn is_signed(&self) -> bool {
        let signer = recover(&self.digest(), self.signature.as_bytes());
        signer.is_ok_and(|signer| signer == self.from)
    }

    /// The digest that is signed: the domain is that of the token, whatever the payment says of it.
    pub(super) fn digest(&self) -> [u8; 32] {
        let contract: Address = self.coin.contract.parse().unwrap_or(Address::new([0; 20]));
        let domain = [
            hash(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)"),
            hash(self.coin.name.as_bytes()),
            hash(self.coin.version.as_bytes()),
            word(&self.coin.chain.to_be_bytes()),
            word(contract.as_bytes()),
        ];
        let transfer = [
            hash(
                b"TransferWithAuthorization(address from,address to,uint256 value,\
                  uint256 validAfter,uint256 validBefore,bytes32 nonce)",
            ),
            word(self.from.as_bytes()),
            word(self.to.as_bytes()),
            word(&self.value.to_be_bytes()),
            word(&self.valid_after.to_be_bytes()),
            word(&self.valid_before.to_be_bytes()),
            self.nonce,
        ];
        let both = [hash(&domain.concat()), hash(&transfer.concat())];
        hash(&[b"\x19\x01".as_slice(), &both.concat()].concat())
    }
}

fn hash(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

/// The bytes at the end of a word of zeros.
fn word(bytes: &[u8]) -> [u8; 32] {
    let mut word = [0; 32];
    word[32 - bytes.len()..].copy_from_slice(bytes);
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vector_of_the_protocol_is_signed_by_its_wallet() {
        let signature = "0x90527efe49906af9fdaef39eec7aca8d22f2b676d08beeca8d42a2f9b3e8b8ee\
                         6a6fe9b70b0618b9a2aef2b913e63ba2e09e64825d25969fd92d1133d31297bb1b";
        let mut transfer = Transfer {
            coin: &COINS[0],
            from: "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025".parse().unwrap(),
            to: Address::new([0x11; 20]),
            value: 5_000_000,
            valid_after: 0,
            valid_before: 1_790_000_000,
            nonce: [0xab; 32],
            signature: signature.parse().unwrap(),
        };
        let digest = "817e57bd94e8b91dd6657d11c90b37501630039e17d321862f65134699320522";
        assert_eq!(hex::encode(transfer.digest()), digest);
        assert!(transfer.is_signed());
        transfer.coin = &COINS[1];
        assert!(!transfer.is_signed(), "for another token");
    }
}
