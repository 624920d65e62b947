use std::{
    os::unix::fs::{PermissionsExt, chown, symlink},
    path::Path,
};

use rustix::process::geteuid;

use tempfile::TempDir;

use super::*;

const LIGHT: ScryptCost = ScryptCost { n: 2, r: 8, p: 1 };
/// Says its address neither inside nor in its name.
const CAST: &str = include_str!("../../../tests/vectors/keystore/cast-shaped.json");

fn keystore() -> (TempDir, Keystore) {
    let dir = tempfile::tempdir().unwrap();
    let keystore = Keystore::new(dir.path().join("made/keys"));
    (dir, keystore)
}

fn saved(keystore: &Keystore) -> (Address, PathBuf) {
    let key = LocalKey::random();
    (key.address(), keystore.save(&key, &"secret".into(), LIGHT).unwrap())
}

fn put(keystore: &Keystore, name: &str, content: &str) -> PathBuf {
    folder::create(&keystore.dir).unwrap();
    let path = keystore.dir.join(name);
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
    LocalKey::from_hex(&"42".repeat(32)).unwrap().address()
}

#[test]
fn a_saved_key_is_found_and_opens() {
    let (_dir, keystore) = keystore();
    let key = LocalKey::random();
    let path = keystore.save(&key, &"secret".into(), LIGHT).unwrap();
    for choice in [None, Some(key.address())] {
        let locked = keystore.find(choice).unwrap();
        assert_eq!((locked.path(), locked.wallet()), (&*path, Some(key.address())));
        assert_eq!(locked.unlock(&"secret".into()).unwrap().address(), key.address());
    }
}

#[test]
fn a_file_is_named_as_geth_names_it() {
    let (_dir, keystore) = keystore();
    let (wallet, path) = saved(&keystore);
    let name = path.file_name().unwrap().to_str().unwrap();
    let pattern = "UTC--0000-00-00T00-00-00.000000000Z--";
    let (time, address) = name.split_at(pattern.len());
    let digit_to_zero = |c: char| if c.is_ascii_digit() { '0' } else { c };
    assert_eq!(time.chars().map(digit_to_zero).collect::<String>(), pattern);
    assert_eq!(format!("0x{address}"), wallet.to_string());
}

#[test]
fn only_the_owner_can_read_what_is_saved() {
    let (_dir, keystore) = keystore();
    let (_, path) = saved(&keystore);
    assert_eq!(mode(&path), 0o600);
    assert_eq!(mode(&keystore.dir), 0o700);
    assert_eq!(mode(keystore.dir.parent().unwrap()), 0o700);
}

#[test]
fn saving_leaves_no_other_file() {
    let (_dir, keystore) = keystore();
    let (_, path) = saved(&keystore);
    let files: Vec<_> = fs::read_dir(&keystore.dir).unwrap().map(|f| f.unwrap().path()).collect();
    assert_eq!(files, [path]);
}

#[test]
fn a_wallet_is_not_saved_twice() {
    let (_dir, keystore) = keystore();
    let key = LocalKey::random();
    let first = keystore.save(&key, &"one".into(), LIGHT).unwrap();
    let error = keystore.save(&key, &"two".into(), LIGHT).unwrap_err();
    assert!(matches!(&error, KeystoreError::Exists { path, .. } if *path == first));
    assert!(error.to_string().contains(first.to_str().unwrap()));
    assert!(LockedKey::read(first).unwrap().unlock(&"one".into()).is_ok());
}

#[test]
fn no_file_is_overwritten() {
    let (_dir, keystore) = keystore();
    let path = put(&keystore, "taken", "precious");
    let file = KeyFile::encrypt_with(&LocalKey::random(), &"secret".into(), LIGHT).unwrap();
    assert!(writing::create(&path, &file).is_err());
    assert_eq!(fs::read_to_string(&path).unwrap(), "precious");
    assert_eq!(fs::read_dir(&keystore.dir).unwrap().count(), 1);
}

#[test]
fn files_are_listed_by_name_with_those_that_are_no_key_files() {
    let (_dir, keystore) = keystore();
    assert!(keystore.list().unwrap().is_empty());
    let (wallet, path) = saved(&keystore);
    let note = put(&keystore, "README", "hello");
    put(&keystore, ".gitignore", "*");
    fs::create_dir(keystore.dir.join("backup")).unwrap();
    let [broken, key] = <[_; 2]>::try_from(keystore.list().unwrap()).unwrap();
    let key = key.unwrap();
    assert_eq!((key.path(), key.wallet()), (&*path, Some(wallet)));
    let cause = KeyFileError::Format;
    let error = broken.unwrap_err();
    assert_eq!(error.to_string(), format!("{}: {cause}", note.display()));
    assert_eq!(keystore.find(None).unwrap().wallet(), Some(wallet));
}

#[test]
fn without_a_key_the_error_says_how_to_get_one() {
    let (_dir, keystore) = keystore();
    for choice in [None, Some(key_42())] {
        let error = keystore.find(choice).unwrap_err();
        assert!(matches!(error, KeystoreError::Empty(_)));
        assert!(error.to_string().contains("`agentpmt-proxy wallet new`"));
    }
    put(&keystore, "key.txt", &"42".repeat(32));
    for choice in [None, Some(key_42())] {
        let error = keystore.find(choice).unwrap_err();
        assert!(matches!(error, KeystoreError::File { cause: KeyFileError::Format, .. }));
        assert!(!format!("{error} {error:?}").contains("4242"));
    }
}

#[test]
fn of_several_wallets_one_must_be_chosen() {
    let (_dir, keystore) = keystore();
    let [(one, path), (two, _)] = [(); 2].map(|()| saved(&keystore));
    let error = keystore.find(None).unwrap_err();
    assert!(matches!(error, KeystoreError::Several { .. }));
    for part in [one.to_string(), two.to_string(), "`wallet`".to_owned()] {
        assert!(error.to_string().contains(&part), "{error}");
    }
    assert_eq!(keystore.find(Some(one)).unwrap().path(), path);
    assert!(matches!(keystore.find(Some(key_42())), Err(KeystoreError::Missing { .. })));
}

#[test]
fn a_file_without_address_is_the_chosen_one_if_alone() {
    let (_dir, keystore) = keystore();
    put(&keystore, "main", CAST);
    assert_eq!(keystore.find(None).unwrap().wallet(), None);
    let locked = keystore.find(Some(key_42())).unwrap();
    assert!(locked.unlock(&"correct horse".into()).is_ok());

    let other = Address::new([1; 20]);
    let locked = keystore.find(Some(other)).unwrap();
    let error = locked.unlock(&"correct horse".into()).unwrap_err();
    let KeystoreError::File { cause, .. } = error else { panic!("{error}") };
    assert_eq!(cause, KeyFileError::OtherWallet { expected: other, found: key_42() });

    saved(&keystore);
    assert!(matches!(keystore.find(Some(key_42())), Err(KeystoreError::Missing { .. })));
}

#[test]
fn a_file_without_address_is_known_by_its_name() {
    let (_dir, keystore) = keystore();
    saved(&keystore);
    let path = put(&keystore, &format!("{}.json", key_42()), CAST);
    assert_eq!(keystore.find(Some(key_42())).unwrap().path(), path);
    let digits = bare_address::digits(key_42()).to_uppercase();
    for name in [digits.clone(), format!("UTC--2016-03-22--{digits}"), format!("a_0x{digits}")] {
        assert_eq!(bare_address::in_name(Path::new(&name)), Some(key_42()), "{name}");
    }
    let longer = format!("a{digits}");
    for name in ["3198bc9c-6672-5ab3-d995-4942343ae5b6.json", &digits[1..], &longer] {
        assert_eq!(bare_address::in_name(Path::new(name)), None, "{name}");
    }
}

#[test]
fn a_file_open_to_others_is_listed_but_refused() {
    let (_dir, keystore) = keystore();
    let (_, path) = saved(&keystore);
    for open in [0o604, 0o602, 0o640, 0o620, 0o644, 0o666] {
        set_mode(&path, open);
        assert!(keystore.list().unwrap()[0].is_ok());
        let error = keystore.find(None).unwrap_err();
        assert!(matches!(error, KeystoreError::Exposed(_)), "{error}");
        let advice = format!("(mode {open:03o}); run: chmod 600 {}", path.display());
        assert!(error.to_string().contains(&advice), "{error}");
    }
    set_mode(&path, 0o400);
    assert!(keystore.find(None).is_ok());
}

#[test]
fn a_file_of_another_user_is_refused() {
    if !geteuid().is_root() {
        return eprintln!("not tried: only root can give a file away");
    }
    let (_dir, keystore) = keystore();
    let (_, path) = saved(&keystore);
    chown(&path, Some(65534), None).unwrap();
    let error = keystore.find(None).unwrap_err();
    assert!(matches!(error, KeystoreError::Exposed(_)) && error.to_string().contains("65534"));
    assert!(error.to_string().contains(path.to_str().unwrap()), "{error}");
    assert!(error.to_string().contains("chown"), "{error}");
}

#[test]
fn a_file_written_anew_keeps_its_name_and_id_and_has_another_password() {
    let (dir, keystore) = keystore();
    put(&keystore, "main", CAST);
    let real = dir.path().join("elsewhere");
    fs::rename(keystore.dir.join("main"), &real).unwrap();
    symlink(&real, keystore.dir.join("main")).unwrap();
    let id = |path: &Path| {
        serde_json::from_slice::<serde_json::Value>(&fs::read(path).unwrap()).unwrap()["id"].clone()
    };
    let before = id(&real);

    let locked = keystore.find(None).unwrap();
    let key = locked.unlock(&"correct horse".into()).unwrap();
    locked.rewrite(&key, &"secret".into(), LIGHT).unwrap();

    let locked = keystore.find(Some(key_42())).unwrap();
    assert!(locked.unlock(&"correct horse".into()).is_err());
    assert_eq!(locked.unlock(&"secret".into()).unwrap().address(), key_42());
    assert_eq!((id(&real), mode(&real)), (before, 0o600));
    assert!(keystore.dir.join("main").is_symlink());
}

#[test]
fn a_directory_open_to_others_is_refused() {
    let (_dir, keystore) = keystore();
    saved(&keystore);
    for open in [0o701, 0o702, 0o704, 0o710, 0o720, 0o740, 0o755, 0o777] {
        set_mode(&keystore.dir, open);
        assert!(keystore.list().unwrap()[0].is_ok());
        let error = keystore.find(None).unwrap_err();
        assert!(matches!(error, KeystoreError::Exposed(_)), "{error}");
        let advice = format!("(mode {open:03o}); run: chmod 700 {}", keystore.dir.display());
        assert!(error.to_string().contains(&advice), "{error}");
    }
    set_mode(&keystore.dir, 0o500);
    assert!(keystore.find(None).is_ok());
    set_mode(&keystore.dir, 0o700);
}

#[test]
fn saving_closes_a_directory_of_keys() {
    let (_dir, keystore) = keystore();
    put(&keystore, ".gitignore", "*");
    for _ in 0..2 {
        set_mode(&keystore.dir, 0o755);
        saved(&keystore);
        assert_eq!(mode(&keystore.dir), 0o700);
    }
}

#[test]
fn saving_leaves_an_open_directory_of_other_things_alone() {
    let things: [fn(&Keystore); 3] = [
        |keystore| drop(put(keystore, "notes.txt", "remember the milk")),
        |keystore| fs::create_dir(keystore.dir.join("photos")).unwrap(),
        |keystore| set_mode(&keystore.dir, 0o1755),
    ];
    for thing in things {
        let (_dir, keystore) = keystore();
        folder::create(&keystore.dir).unwrap();
        set_mode(&keystore.dir, 0o755);
        thing(&keystore);
        let error = keystore.save(&LocalKey::random(), &"secret".into(), LIGHT).unwrap_err();
        assert!(error.to_string().contains("mode 755"), "{error}");
        assert_eq!(mode(&keystore.dir), 0o755);
        assert!(keystore.list().unwrap().iter().all(Result::is_err));
    }
}

#[test]
fn a_file_that_is_too_big_is_not_read_to_its_end() {
    let (_dir, keystore) = keystore();
    let path = put(&keystore, "big", &format!("{}{CAST}", " ".repeat(64 * 1024)));
    let error = LockedKey::read(path).unwrap_err();
    assert!(matches!(error, KeystoreError::File { cause: KeyFileError::Format, .. }));
}

#[test]
fn a_missing_file_is_named() {
    let error = LockedKey::read("/nowhere/key".into()).unwrap_err();
    assert!(error.to_string().starts_with("cannot open the key file /nowhere/key: "), "{error}");
}
