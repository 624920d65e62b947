//! The reader of key files.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::Path,
    sync::{LazyLock, Mutex, PoisonError},
};

use agentpmt_proxy::signer::keystore::{KdfError, KeyFileError, KeystoreError, LockedKey};
use serde_json::Value;
use tempfile::NamedTempFile;

/// Above this cost a file is only read: unlocking it would hold up the fuzzer.
const CHEAP: u64 = 1 << 10;

/// Key files of the corpus open with it.
const PASSWORD: &str = "correct horse";

/// The file that every input is written to.
static FILE: LazyLock<Mutex<NamedTempFile>> =
    LazyLock::new(|| Mutex::new(NamedTempFile::with_prefix("key-").unwrap()));

/// - A file is a key file or is refused, with one of few fixed texts, so never with what it holds.
/// - A key file's derivation is within the bounds.
/// - One that opens is a private key of the wallet that it says.
pub(crate) fn check(bytes: &[u8]) {
    let file = FILE.lock().unwrap_or_else(PoisonError::into_inner);
    write(file.as_file(), bytes);
    match LockedKey::read(file.path().to_owned()) {
        Ok(key) => check_key(&key, bytes),
        Err(error) => check_error(&error, file.path(), &READING),
    }
}

fn write(file: &File, bytes: &[u8]) {
    file.set_len(0).unwrap();
    file.write_all_at(bytes, 0).unwrap();
}

/// Why a file is refused before its password is asked for.
const READING: [KeyFileError; 5] = [
    KeyFileError::Format,
    KeyFileError::Kdf(KdfError::DerivedLength),
    KeyFileError::Kdf(KdfError::Scrypt),
    KeyFileError::Kdf(KdfError::ScryptCost),
    KeyFileError::Kdf(KdfError::Rounds),
];

/// Why it does not open.
const OPENING: [KeyFileError; 2] = [KeyFileError::WrongPassword, KeyFileError::NoKey];

/// That the error is one of these and says nothing else.
fn check_error(error: &KeystoreError, path: &Path, causes: &[KeyFileError]) {
    let text = (error.to_string(), format!("{error:?}"));
    let fixed = causes.iter().map(|cause| {
        let error = KeystoreError::File { path: path.to_owned(), cause: cause.clone() };
        (format!("{}: {cause}", path.display()), format!("{error:?}"))
    });
    assert!(fixed.into_iter().any(|fixed| fixed == text), "{text:?}");
}

fn check_key(key: &LockedKey, bytes: &[u8]) {
    let Some(cost) = cost(bytes) else { return };
    assert!(cost.memory <= 1 << 30 && cost.work <= 1 << 24, "{cost:?}");
    if cost.work > CHEAP {
        return;
    }
    match (key.unlock(&PASSWORD.into()), key.wallet()) {
        (Ok(signer), wallet) => assert!(wallet.is_none_or(|wallet| wallet == signer.address())),
        (
            Err(KeystoreError::File {
                cause: KeyFileError::OtherWallet { expected, found }, ..
            }),
            wallet,
        ) => {
            assert!(wallet == Some(expected) && expected != found);
        }
        (Err(error), _) => check_error(&error, key.path(), &OPENING),
    }
}

/// What the key derivation of a file costs.
#[derive(Debug)]
struct Cost {
    /// In bytes.
    memory: u64,
    /// In rounds of scrypt's block mix or of PBKDF2.
    work: u64,
}

/// Reads the cost a second time, with other code. `None` if a field that the reader passes over
/// holds half of a surrogate pair; bytes there that are not UTF-8 do not matter.
fn cost(bytes: &[u8]) -> Option<Cost> {
    let file: Value = serde_json::from_str(&String::from_utf8_lossy(bytes)).ok()?;
    let crypto = file.get("crypto").or_else(|| file.get("Crypto"))?;
    let number = |name: &str| crypto["kdfparams"][name].as_u64().unwrap();
    if crypto["kdf"] == "pbkdf2" {
        return Some(Cost { memory: 0, work: number("c") });
    }
    let memory = 128 * number("n") * number("r");
    Some(Cost { memory, work: number("n") * number("r") * number("p") })
}
