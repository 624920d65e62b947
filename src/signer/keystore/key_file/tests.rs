use serde_json::{Value, json};

use super::*;

const LIGHT: ScryptCost = ScryptCost { n: 2, r: 8, p: 1 };

macro_rules! vector {
    ($name:literal) => {
        include_str!(concat!("../../../../tests/vectors/keystore/", $name, ".json"))
    };
}

fn opened(json: &str, password: &str) -> Result<LocalKey, KeyFileError> {
    KeyFile::from_json(json.as_bytes())?.decrypt(&password.into())
}

/// The light file of the vectors, with one value changed.
fn changed(pointer: &str, value: Value) -> Result<LocalKey, KeyFileError> {
    let mut json: Value = serde_json::from_str(vector!("eth-account-scrypt")).unwrap();
    *json.pointer_mut(pointer).unwrap() = value;
    opened(&json.to_string(), "correct horse")
}

fn key_42() -> LocalKey {
    LocalKey::from_hex(&"42".repeat(32)).unwrap()
}

#[test]
fn the_definitions_vectors_open() {
    let key = "7a28b5ba57c53603b0b07b56bba752f7784bf506fa95edc395f5cf6c7514fe9d";
    let address: Address = "0x008aeeda4d805471df9b2a5b0f38a0c3bcba786b".parse().unwrap();
    for json in [vector!("wiki-scrypt"), vector!("wiki-pbkdf2")] {
        let signer = opened(json, "testpassword").unwrap();
        assert_eq!(hex::encode(signer.to_bytes()), key);
        assert_eq!(signer.address(), address);
    }
}

#[test]
fn files_of_other_programs_open() {
    let files = [
        (vector!("eth-account-scrypt"), "correct horse", true),
        (vector!("eth-account-pbkdf2"), "pässwörd ✓", true),
        (vector!("cast-shaped"), "correct horse", false),
    ];
    for (json, password, says_address) in files {
        let file = KeyFile::from_json(json.as_bytes()).unwrap();
        assert_eq!(file.address().is_some(), says_address);
        assert_eq!(file.decrypt(&password.into()).unwrap().address(), key_42().address());
    }
}

#[test]
fn keys_that_were_written_without_their_leading_zeros_open() {
    let files = [
        (
            vector!("geth-31-byte-key"),
            "00fa7b3db73dc7dfdf8c5fbdb796d741e4488628c41fc4febd9160a866ba0f35",
        ),
        (
            vector!("geth-30-byte-key"),
            "000081c29e8142bb6a81bef5a92bda7a8328a5c85bb2f9542e76f9b0f94fc018",
        ),
    ];
    for (json, key) in files {
        assert_eq!(hex::encode(opened(json, "foo").unwrap().to_bytes()), key);
    }
}

#[test]
fn files_of_geth_open_if_the_address_is_that_of_the_key() {
    for (json, password) in [(vector!("geth-very-light"), ""), (vector!("geth-foobar"), "foobar")] {
        let file = KeyFile::from_json(json.as_bytes()).unwrap();
        assert_eq!(file.decrypt(&password.into()).unwrap().address(), file.address().unwrap());
    }
    let address = "f466859ead1932d743d622cb74fc058882e8648a";
    let zero = vector!("geth-foobar").replace(address, &"0".repeat(40));
    let error = opened(&zero, "foobar").unwrap_err();
    assert!(matches!(error, KeyFileError::OtherWallet { .. }), "{error}");
    let none = vector!("geth-foobar").replace(&format!("\"{address}\""), "null");
    assert!(opened(&none, "foobar").is_ok());
}

#[test]
fn what_is_written_is_read() {
    let signer = LocalKey::random();
    for cost in [LIGHT, ScryptCost::LIGHT] {
        let file = KeyFile::encrypt_with(&signer, &"secret".into(), cost).unwrap();
        let json = serde_json::to_string(&file).unwrap();
        let again = opened(&json, "secret").unwrap();
        assert_eq!(again.to_bytes(), signer.to_bytes());
        assert_eq!(opened(&json, "Secret").unwrap_err(), KeyFileError::WrongPassword);
    }
}

#[test]
fn a_written_file_has_the_shape_that_geth_reads() {
    let file = KeyFile::encrypt_with(&key_42(), &"secret".into(), ScryptCost::STANDARD).unwrap();
    let json = serde_json::to_value(&file).unwrap();
    assert_eq!(json["address"], "17c5185167401ed00cf5f5b2fc97d9bbfdb7d025");
    assert_eq!(json["version"], 3);
    assert_eq!(json["crypto"]["cipher"], "aes-128-ctr");
    assert_eq!(json["crypto"]["kdf"], "scrypt");
    let params = &json["crypto"]["kdfparams"];
    let costs = ["n", "r", "p", "dklen"].map(|name| params[name].as_u64().unwrap());
    assert_eq!(costs, [262_144, 8, 1, 32]);
    assert_eq!(params["salt"].as_str().unwrap().len(), 64);
    assert!(json["id"].as_str().unwrap().parse::<Uuid>().is_ok());
    let again = opened(&json.to_string(), "secret").unwrap();
    assert_eq!(again.to_bytes(), key_42().to_bytes());
}

#[test]
fn salt_and_iv_are_fresh_each_time() {
    let files =
        [(); 2].map(|()| KeyFile::encrypt_with(&key_42(), &"secret".into(), LIGHT).unwrap());
    let [one, two] = files.map(|file| serde_json::to_value(&file).unwrap());
    for pointer in ["/id", "/crypto/kdfparams/salt", "/crypto/cipherparams/iv"] {
        assert_ne!(one.pointer(pointer), two.pointer(pointer), "{pointer}");
    }
}

#[test]
fn spellings_of_other_programs_are_read() {
    let json = vector!("eth-account-scrypt");
    let digits = "17c5185167401eD00cF5F5b2fc97D9BBfDb7D025";
    let old = json.replace("\"crypto\"", "\"Crypto\"");
    let prefixed = json.replace(digits, &format!("0x{}", digits.to_uppercase()));
    let null = json.replace(&format!("\"{digits}\""), "null");
    let more = json.replacen('{', "{\"x-ethers\": {\"client\": \"ethers/6\"},", 1);
    for json in [old, prefixed, null, more] {
        assert!(opened(&json, "correct horse").is_ok(), "{json}");
    }
}

#[test]
fn a_changed_file_does_not_open() {
    let error = changed("/crypto/ciphertext", json!("00".repeat(31))).unwrap_err();
    assert_eq!(error, KeyFileError::WrongPassword);
    let zeros = |bytes: usize| json!("00".repeat(bytes));
    for pointer in ["/crypto/ciphertext", "/crypto/mac", "/crypto/kdfparams/salt"] {
        let error = changed(pointer, zeros(32)).unwrap_err();
        assert_eq!(error, KeyFileError::WrongPassword, "{pointer}");
    }
    // The MAC does not cover the iv; the address betrays the wrong key.
    let error = changed("/crypto/cipherparams/iv", zeros(16)).unwrap_err();
    assert!(matches!(error, KeyFileError::OtherWallet { .. }));
}

#[test]
fn the_address_must_be_the_keys() {
    let error = changed("/address", json!("00".repeat(20))).unwrap_err();
    let (expected, found) = (Address::new([0; 20]), key_42().address());
    assert_eq!(error, KeyFileError::OtherWallet { expected, found });
    assert!(error.to_string().contains(&found.to_string()));

    let file = KeyFile::from_json(vector!("cast-shaped").as_bytes()).unwrap();
    let error = file.expecting(Some(expected)).decrypt(&"correct horse".into()).unwrap_err();
    assert_eq!(error, KeyFileError::OtherWallet { expected, found });
}

#[test]
fn parts_of_a_wrong_form_are_refused() {
    let hex = |bytes: usize| json!("ab".repeat(bytes));
    let wrong = [
        ("/version", json!(4)),
        ("/version", json!(259)),
        ("/version", json!("3")),
        ("/id", json!("not a uuid")),
        ("/address", json!("17c5")),
        ("/crypto", json!("ab")),
        ("/crypto/cipher", json!("aes-128-cbc")),
        ("/crypto/cipherparams/iv", hex(15)),
        ("/crypto/cipherparams/iv", hex(17)),
        ("/crypto/ciphertext", hex(0)),
        ("/crypto/ciphertext", hex(33)),
        ("/crypto/mac", hex(31)),
        ("/crypto/mac", json!("zz".repeat(32))),
        ("/crypto/kdf", json!("argon2id")),
        ("/crypto/kdf", json!("pbkdf2")),
        ("/crypto/kdfparams/salt", json!("abc")),
        ("/crypto/kdfparams/n", json!(-1)),
        ("/crypto/kdfparams/n", json!(1024.5)),
    ];
    for (pointer, value) in wrong {
        let error = changed(pointer, value.clone()).unwrap_err();
        assert_eq!(error, KeyFileError::Format, "{pointer} {value}");
    }
    let other_prf = vector!("eth-account-pbkdf2").replace("hmac-sha256", "hmac-sha512");
    assert_eq!(opened(&other_prf, "").unwrap_err(), KeyFileError::Format);
}

#[test]
fn wild_parameters_are_refused_before_the_password_is_asked_for() {
    let pointers = [("n", 0), ("n", 3), ("n", 1 << 40), ("r", 0), ("p", 0), ("p", u64::MAX)];
    for (name, value) in pointers.into_iter().chain([("dklen", 16), ("dklen", 1 << 31)]) {
        let mut json: Value = serde_json::from_str(vector!("eth-account-scrypt")).unwrap();
        json["crypto"]["kdfparams"][name] = json!(value);
        let error = KeyFile::from_json(json.to_string().as_bytes()).unwrap_err();
        assert!(matches!(error, KeyFileError::Kdf(_)), "{name} {value}");
    }
    // Without a salt it is a file like any other, of another key.
    let error = changed("/crypto/kdfparams/salt", json!("")).unwrap_err();
    assert_eq!(error, KeyFileError::WrongPassword);
}

#[test]
fn a_bare_key_in_the_wrong_place_is_not_repeated() {
    let key = "42".repeat(32);
    let texts = [key.clone(), format!("\"{key}\""), format!("{{\"crypto\":\"{key}\"}}")];
    for text in texts {
        let error = KeyFile::from_json(text.as_bytes()).unwrap_err();
        assert!(!format!("{error} {error:?}").contains("4242"));
    }
}

#[test]
fn debug_leaves_out_what_a_guesser_needs() {
    let file = KeyFile::from_json(vector!("eth-account-scrypt").as_bytes()).unwrap();
    let wallet = key_42().address();
    assert_eq!(format!("{file:?}"), format!("KeyFile {{ address: Some({wallet:?}), .. }}"));
}
