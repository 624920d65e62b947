use std::os::unix::fs::PermissionsExt;

use tempfile::TempDir;

use super::*;
use crate::signer::keystore::KeyFileError;

const LIGHT: ScryptCost = ScryptCost { n: 2, r: 8, p: 1 };
/// Says its address neither inside nor in its name.
const CAST: &str = include_str!("../../../../tests/vectors/keystore/cast-shaped.json");

fn keys() -> (TempDir, Keys) {
    let dir = tempfile::tempdir().unwrap();
    let keys = Keys::new(dir.path().join("made/keys"));
    (dir, keys)
}

fn saved(keys: &Keys) -> (Address, PathBuf) {
    let signer = Signer::random();
    (signer.address(), keys.save_at_cost(&signer, &"secret".into(), LIGHT).unwrap())
}

fn put(keys: &Keys, name: &str, content: &str) -> PathBuf {
    permissions::create_dir(&keys.dir).unwrap();
    let path = keys.dir.join(name);
    fs::write(&path, content).unwrap();
    set_mode(&path, 0o600);
    path
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn key_42() -> Address {
    Signer::from_hex(&"42".repeat(32)).unwrap().address()
}

#[test]
fn a_saved_key_is_found_and_opens() {
    let (_dir, keys) = keys();
    let signer = Signer::random();
    let path = keys.save(&signer, &"secret".into()).unwrap();
    for choice in [None, Some(signer.address())] {
        let locked = keys.find(choice).unwrap().load().unwrap();
        assert_eq!((locked.path(), locked.wallet()), (&*path, Some(signer.address())));
        assert_eq!(locked.unlock(&"secret".into()).unwrap().address(), signer.address());
    }
}

#[test]
fn a_file_is_named_as_geth_names_it() {
    let (_dir, keys) = keys();
    let (wallet, path) = saved(&keys);
    let name = path.file_name().unwrap().to_str().unwrap();
    let pattern = "UTC--0000-00-00T00-00-00.000000000Z--";
    let (time, address) = name.split_at(pattern.len());
    let digit_to_zero = |c: char| if c.is_ascii_digit() { '0' } else { c };
    assert_eq!(time.chars().map(digit_to_zero).collect::<String>(), pattern);
    assert_eq!(format!("0x{address}"), wallet.to_string());
}

#[test]
fn only_the_owner_can_read_what_is_saved() {
    let (_dir, keys) = keys();
    let (_, path) = saved(&keys);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&keys.dir), 0o700);
    assert_eq!(mode(keys.dir.parent().unwrap()), 0o700);
}

#[test]
fn saving_leaves_no_other_file() {
    let (_dir, keys) = keys();
    let (_, path) = saved(&keys);
    let files: Vec<_> = fs::read_dir(&keys.dir).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files, [path]);
}

#[test]
fn a_wallet_is_not_saved_twice() {
    let (_dir, keys) = keys();
    let signer = Signer::random();
    let first = keys.save_at_cost(&signer, &"one".into(), LIGHT).unwrap();
    let error = keys.save_at_cost(&signer, &"two".into(), LIGHT).unwrap_err();
    assert!(matches!(&error, KeysError::Exists { path, .. } if *path == first));
    assert!(error.to_string().contains(first.to_str().unwrap()));
    assert!(load(&first).unwrap().unlock(&"one".into()).is_ok());
}

#[test]
fn no_file_is_overwritten() {
    let (_dir, keys) = keys();
    let path = put(&keys, "taken", "precious");
    let file = KeyFile::encrypt_with(&Signer::random(), &"secret".into(), LIGHT);
    assert!(keys.write(&path, &file).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(fs::read_dir(&keys.dir).unwrap().count(), 1);
}

#[test]
fn files_are_listed_by_name_with_those_that_are_no_key_files() {
    let (_dir, keys) = keys();
    assert!(keys.list().unwrap().is_empty());
    let (wallet, path) = saved(&keys);
    let note = put(&keys, "README", "hello");
    put(&keys, ".gitignore", "*");
    fs::create_dir(keys.dir.join("backup")).unwrap();
    let [broken, entry] = <[_; 2]>::try_from(keys.list().unwrap()).unwrap();
    let entry = entry.unwrap();
    assert_eq!((entry.path, entry.wallet), (path, Some(wallet)));
    let cause = KeyFileError::Format;
    let error = broken.unwrap_err();
    assert_eq!(error.to_string(), format!("{}: {cause}", note.display()));
    assert_eq!(keys.find(None).unwrap().wallet, Some(wallet));
}

#[test]
fn without_a_key_the_error_says_how_to_get_one() {
    let (_dir, keys) = keys();
    for choice in [None, Some(key_42())] {
        let error = keys.find(choice).unwrap_err();
        assert!(matches!(error, KeysError::Empty { .. }));
        assert!(error.to_string().contains("`agentpmt-proxy wallet new`"));
    }
    put(&keys, "key.txt", &"42".repeat(32));
    for choice in [None, Some(key_42())] {
        let error = keys.find(choice).unwrap_err();
        assert!(matches!(error, KeysError::File { cause: KeyFileError::Format, .. }));
        assert!(!format!("{error} {error:?}").contains("4242"));
    }
}

#[test]
fn of_several_wallets_one_must_be_chosen() {
    let (_dir, keys) = keys();
    let [(one, path), (two, _)] = [(); 2].map(|()| saved(&keys));
    let error = keys.find(None).unwrap_err();
    assert!(matches!(error, KeysError::Several { .. }));
    for part in [one.to_string(), two.to_string(), "`wallet`".to_owned()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
    assert_eq!(keys.find(Some(one)).unwrap().path, path);
    assert!(matches!(keys.find(Some(key_42())), Err(KeysError::Missing { .. })));
}

#[test]
fn a_file_without_address_is_the_chosen_one_if_alone() {
    let (_dir, keys) = keys();
    put(&keys, "main", CAST);
    assert_eq!(keys.find(None).unwrap().wallet, None);
    let locked = keys.find(Some(key_42())).unwrap().load().unwrap();
    assert!(locked.unlock(&"correct horse".into()).is_ok());

    let other = Address::new([1; 20]);
    let locked = keys.find(Some(other)).unwrap().load().unwrap();
    let error = locked.unlock(&"correct horse".into()).unwrap_err();
    let KeysError::File { cause, .. } = error else { panic!("{error}") };
    assert_eq!(cause, KeyFileError::OtherWallet { expected: other, found: key_42() });

    saved(&keys);
    assert!(matches!(keys.find(Some(key_42())), Err(KeysError::Missing { .. })));
}

#[test]
fn a_file_without_address_is_known_by_its_name() {
    let (_dir, keys) = keys();
    saved(&keys);
    let path = put(&keys, &format!("{}.json", key_42()), CAST);
    assert_eq!(keys.find(Some(key_42())).unwrap().path, path);
    let digits = bare_address::digits(key_42()).to_uppercase();
    for name in [digits.clone(), format!("UTC--2016-03-22--{digits}"), format!("a_0x{digits}")] {
        assert_eq!(address_in_name(Path::new(&name)), Some(key_42()), "{name}");
    }
    let longer = format!("a{digits}");
    for name in ["3198bc9c-6672-5ab3-d995-4942343ae5b6.json", &digits[1..], &longer] {
        assert_eq!(address_in_name(Path::new(name)), None, "{name}");
    }
}

#[test]
fn a_file_open_to_others_is_found_but_refused() {
    let (_dir, keys) = keys();
    let (_, path) = saved(&keys);
    for open in [0o604, 0o602, 0o640, 0o620, 0o644, 0o666] {
        set_mode(&path, open);
        let error = keys.find(None).unwrap().load().unwrap_err();
        assert!(matches!(error, KeysError::Exposed { mode, .. } if mode == open));
        let advice = format!("chmod 600 {}", path.display());
        assert!(error.to_string().contains(&advice), "{error}");
    }
    set_mode(&path, 0o400);
    assert!(keys.find(None).unwrap().load().is_ok());
}

#[test]
fn a_file_that_is_too_big_is_not_read_to_its_end() {
    let (_dir, keys) = keys();
    let path = put(&keys, "big", &format!("{}{CAST}", " ".repeat(64 * 1024)));
    let error = load(&path).unwrap_err();
    assert!(matches!(error, KeysError::File { cause: KeyFileError::Format, .. }));
}

#[test]
fn a_missing_file_is_named() {
    let error = load(Path::new("/nowhere/key")).unwrap_err();
    assert!(error.to_string().starts_with("cannot open /nowhere/key: "), "{error}");
}
