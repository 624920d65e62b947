//! The typed data of a payment (EIP-712, EIP-3009) and its digest.

use std::{fmt, str::FromStr};

use k256::elliptic_curve::Generate;
use serde_json::{Value, json};
use sha3::{Digest, Keccak256};

use crate::types::{Address, BaseUnits, InvalidValue, Network, write_hex};

/// The type of the domain, in the form that is hashed.
const DOMAIN: &str =
    "EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)";

/// The type of an authorisation, in the form that is hashed.
const AUTHORIZATION: &str = "TransferWithAuthorization(address from,address to,uint256 value,\
                             uint256 validAfter,uint256 validBefore,bytes32 nonce)";

/// The contract that an authorisation is good for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Domain {
    /// The token's name, as its contract has it.
    pub name: String,
    /// The version of the token's domain.
    pub version: String,
    /// The chain.
    pub network: Network,
    /// The token.
    pub contract: Address,
}

/// The permission to move an amount once, from zero on until its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authorization {
    /// The wallet that pays.
    pub from: Address,
    /// The payee.
    pub to: Address,
    /// The amount.
    pub value: BaseUnits,
    /// The end, in seconds since 1970.
    pub valid_before: u64,
    /// The number by which the contract takes it once.
    pub nonce: AuthorizationNonce,
}

/// The number of an authorisation.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct AuthorizationNonce([u8; 32]);

impl AuthorizationNonce {
    /// A fresh number, from the operating system's randomness.
    ///
    /// # Panics
    /// When the operating system has no randomness to give.
    pub fn random() -> Self {
        Self(<[u8; 32]>::generate())
    }

    /// The number with these bytes.
    pub const fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }
}

impl FromStr for AuthorizationNonce {
    type Err = InvalidValue;

    fn from_str(text: &str) -> Result<Self, InvalidValue> {
        let mut bytes = [0; 32];
        let digits = text.strip_prefix("0x").unwrap_or_default();
        hex::decode_to_slice(digits, &mut bytes).map_err(|_| InvalidValue::Nonce)?;
        Ok(Self(bytes))
    }
}

impl fmt::Display for AuthorizationNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("0x")?;
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for AuthorizationNonce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Domain {
    fn separator(&self) -> [u8; 32] {
        let parts = [
            keccak(DOMAIN.as_bytes()),
            keccak(self.name.as_bytes()),
            keccak(self.version.as_bytes()),
            number(self.network.chain_id().into()),
            address(&self.contract),
        ];
        keccak(parts.as_flattened())
    }
}

impl Authorization {
    fn hash(&self) -> [u8; 32] {
        let parts = [
            keccak(AUTHORIZATION.as_bytes()),
            address(&self.from),
            address(&self.to),
            number(self.value.number()),
            number(0),
            number(self.valid_before.into()),
            self.nonce.0,
        ];
        keccak(parts.as_flattened())
    }

    /// The fields as x402 writes them: numbers as decimal text.
    pub(super) fn to_json(&self) -> Value {
        json!({
            "from": self.from.to_string(),
            "to": self.to.to_string(),
            "value": self.value.to_string(),
            "validAfter": "0",
            "validBefore": self.valid_before.to_string(),
            "nonce": self.nonce.to_string(),
        })
    }
}

/// The digest that is signed.
pub(super) fn digest(domain: &Domain, authorization: &Authorization) -> [u8; 32] {
    let parts = [domain.separator(), authorization.hash()];
    Keccak256::new_with_prefix(b"\x19\x01").chain_update(parts.as_flattened()).finalize().into()
}

/// The typed data as `eth_signTypedData_v4` takes it.
pub(super) fn to_json(domain: &Domain, authorization: &Authorization) -> Value {
    json!({
        "types": { "EIP712Domain": fields(DOMAIN), "TransferWithAuthorization": fields(AUTHORIZATION) },
        "primaryType": "TransferWithAuthorization",
        "domain": {
            "name": domain.name,
            "version": domain.version,
            "chainId": domain.network.chain_id(),
            "verifyingContract": domain.contract.to_string(),
        },
        "message": authorization.to_json(),
    })
}

/// The fields of a type, from the form that is hashed.
fn fields(text: &str) -> Vec<Value> {
    let fields = text.split_once('(').map_or("", |(_, fields)| fields.trim_end_matches(')'));
    let fields = fields.split(',').filter_map(|field| field.split_once(' '));
    fields.map(|(kind, name)| json!({ "name": name, "type": kind })).collect()
}

fn keccak(bytes: &[u8]) -> [u8; 32] {
    Keccak256::digest(bytes).into()
}

fn number(number: u128) -> [u8; 32] {
    let mut word = [0; 32];
    word[16..].copy_from_slice(&number.to_be_bytes());
    word
}

fn address(address: &Address) -> [u8; 32] {
    let mut word = [0; 32];
    word[12..].copy_from_slice(address.as_bytes());
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_are_those_of_the_vectors() {
        let domain = Domain {
            name: "USD Coin".into(),
            version: "2".into(),
            network: Network::new(8453),
            contract: "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913".parse().unwrap(),
        };
        let authorization = Authorization {
            from: "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025".parse().unwrap(),
            to: Address::new([0x11; 20]),
            value: BaseUnits::new(5_000_000),
            valid_before: 1_790_000_000,
            nonce: AuthorizationNonce::new([0xab; 32]),
        };
        for (step, bytes, expected) in [
            (
                "type",
                keccak(AUTHORIZATION.as_bytes()),
                "7c7c6cdb67a18743f49ec6fa9b35f50d52ed05cbed4cc592e13b44501c1a2267",
            ),
            (
                "domain",
                domain.separator(),
                "02fa7265e7c5d81118673727957699e4d68f74cd74b7db77da710fe8a2c7834f",
            ),
            (
                "digest",
                digest(&domain, &authorization),
                "817e57bd94e8b91dd6657d11c90b37501630039e17d321862f65134699320522",
            ),
        ] {
            assert_eq!(hex::encode(bytes), expected, "{step}");
        }
    }
}
