use k256::elliptic_curve::ops::Neg;
use serde::Deserialize;
use sha2::Sha256;

use super::*;

/// The keys and tests of Wycheproof; `tests/vectors/wycheproof/README.md` explains them.
#[derive(Deserialize)]
struct Group {
    #[serde(with = "hex::serde")]
    key: Vec<u8>,
    tests: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    id: u32,
    comment: String,
    valid: bool,
    #[serde(with = "hex::serde")]
    msg: Vec<u8>,
    sig: String,
}

/// Valid signatures whose `r` is the remainder of a larger x: `v` would be 29 or 30.
const REDUCED_X: [u32; 2] = [115, 247];

/// Runs a check over every vector, with the address of its key.
fn each(check: impl Fn(&Vector, Address)) {
    let file = include_str!("../../../tests/vectors/wycheproof/ecdsa_secp256k1_sha256_p1363.json");
    let groups: Vec<Group> = serde_json::from_str(file).unwrap();
    assert_eq!(groups.iter().map(|group| group.tests.len()).sum::<usize>(), 252);
    for group in groups {
        let key = VerifyingKey::from_sec1_bytes(&group.key).unwrap();
        group.tests.iter().for_each(|vector| check(vector, address_of(&key)));
    }
}

impl Vector {
    /// `r` and `s`, if they have the length of a signature.
    fn r_and_s(&self) -> Option<[u8; 64]> {
        hex::decode(&self.sig).unwrap().try_into().ok()
    }

    /// Recovers the signer from the digest of the message, with both values of `v`.
    fn recovered(&self, r_and_s: [u8; 64]) -> [Result<Address, ApiError>; 2] {
        let digest = Sha256::digest(&self.msg).into();
        [27, 28].map(|v| {
            let mut signature = [v; 65];
            signature[..64].copy_from_slice(&r_and_s);
            recover(&digest, &signature)
        })
    }

    fn name(&self) -> String {
        format!("{}: {}", self.id, self.comment)
    }
}

/// The same signature with the other value of `s`.
fn with_other_s(r_and_s: [u8; 64]) -> [u8; 64] {
    let signature = EcdsaSignature::from_slice(&r_and_s).unwrap();
    let s = signature.s().neg();
    EcdsaSignature::from_scalars(signature.r().to_bytes(), s.to_bytes()).unwrap().to_bytes().into()
}

fn is_high(r_and_s: [u8; 64]) -> bool {
    let signature = EcdsaSignature::from_slice(&r_and_s).unwrap();
    signature.normalize_s() != signature
}

#[test]
fn a_valid_signature_shows_its_key_with_one_v_and_one_s() {
    each(|vector, address| {
        if !vector.valid {
            return;
        }
        let given = vector.r_and_s().unwrap();
        let other = with_other_s(given);
        let (low, high) = if is_high(given) { (other, given) } else { (given, other) };
        let found = vector.recovered(low).map(|found| found.is_ok_and(|found| found == address));
        let expected = usize::from(!REDUCED_X.contains(&vector.id));
        let count = found.into_iter().filter(|found| *found).count();
        assert_eq!(count, expected, "{}", vector.name());
        for refused in vector.recovered(high) {
            let Err(ApiError::SignatureMalformed(why)) = refused else {
                panic!("{}", vector.name())
            };
            assert_eq!(why, "s is in the upper half of its range", "{}", vector.name());
        }
    });
}

#[test]
fn an_invalid_signature_shows_no_key_or_another() {
    each(|vector, address| {
        let Some(r_and_s) = vector.r_and_s().filter(|_| !vector.valid) else { return };
        for found in vector.recovered(r_and_s) {
            assert!(
                found.is_err() || found.is_ok_and(|found| found != address),
                "{}",
                vector.name()
            );
        }
    });
}

#[test]
fn a_signature_of_another_length_is_none() {
    each(|vector, _| {
        let wire = format!("0x{}1b", vector.sig);
        let fits = vector.r_and_s().is_some();
        assert_eq!(wire.parse::<Signature>().is_ok(), fits, "{}", vector.name());
        assert!(fits || !vector.valid, "{}", vector.name());
    });
}
