//! `wallet`: keys that come in, are made, are listed, and never come out.

use std::{
    ffi::OsStr,
    fs,
    os::unix::{ffi::OsStrExt, fs::PermissionsExt},
    process::Stdio,
};

use serde_json::json;

use crate::binary::{Home, KEY_FILE, PASSWORD, WALLET};

/// Long enough for a key file that is cheap to open.
const LONG: &str = "correct horse battery";

/// The private key of [`WALLET`], in hexadecimal.
fn key() -> String {
    "42".repeat(32)
}

/// The names of the key files.
fn names(home: &Home) -> Vec<String> {
    let entries = fs::read_dir(home.path("keys")).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_new_wallet_is_a_file_for_its_owner_alone() {
    let home = Home::new().with_password(PASSWORD);
    let ran = home.run(&["wallet", "new"]);
    ran.keeps(&[PASSWORD]);
    let wallet = ran.stdout.strip_suffix('\n').unwrap();
    assert!(wallet.starts_with("0x") && wallet.len() == 42, "{ran:?}");
    let [name] = &names(&home)[..] else { panic!("one file") };
    assert!(name.ends_with(&wallet[2..]), "{ran:?}");
    let text = ran.told();
    assert!(text.contains(&format!("keys/{name}")) && text.contains("Keep a copy"), "{text}");
    assert!(text.contains("agentpmt-proxy serve"), "{text}");
    assert!(!text.contains("warning"), "{text}");
    let mode = |path: &str| fs::metadata(home.path(path)).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&format!("keys/{name}")), 0o600);
    assert_eq!(mode("keys"), 0o700);
}

#[test]
fn a_key_goes_in_and_signs_and_never_comes_out() {
    let home = Home::new().with_password(PASSWORD);
    let ran = home.run_with_input(&["wallet", "import"], &format!("0x{}\n", key()));
    ran.keeps(&[PASSWORD, &key()]);
    assert_eq!(ran.stdout, format!("{WALLET}\n"));
    let [name] = &names(&home)[..] else { panic!("one file") };
    let file = home.path(&format!("keys/{name}")).display().to_string();
    assert!(ran.told().contains(&file));

    let line = format!("{WALLET}  {file}\n");
    assert_eq!(home.run(&["wallet", "list"]).ok(), line);
    assert_eq!(home.run(&["wallet", "show"]).ok(), line);
    let row = json!({ "wallet": WALLET, "file": file });
    assert_eq!(home.run(&["wallet", "list", "--json"]).json(), json!([row]));
    assert_eq!(home.run(&["wallet", "show", "--json"]).json(), row);

    let server = home.serve(&["serve", "--upstream", "http://127.0.0.1:1"]);
    server.is_ready(WALLET);
    server.signal("TERM").keeps(&[PASSWORD, &key()]);
}

#[test]
fn a_key_file_of_another_program_is_imported_under_its_password() {
    let home = Home::new().with_password(PASSWORD);
    let text = home.run(&["wallet", "import", "--light", KEY_FILE]).result();
    assert!(text.starts_with(WALLET), "{text}");
    let show = home.run(&["wallet", "show"]).ok();
    assert!(show.starts_with(WALLET), "{show}");
}

#[test]
fn a_script_reads_the_address_and_the_file_of_a_wallet_as_json() {
    let home = Home::new().with_password(LONG);
    let made = home.run(&["wallet", "new", "--light", "--json"]).json();
    let wallet = made["wallet"].as_str().unwrap();
    assert_eq!(home.run(&["wallet", "show", "--json"]).json(), made);
    let home = Home::new().with_password(LONG);
    let brought = home.run_with_input(&["wallet", "import", "--light", "--json"], &key()).json();
    assert_eq!(brought["wallet"], WALLET);
    assert_ne!(brought["wallet"], wallet);
    assert_eq!(home.run(&["wallet", "list", "--json"]).json(), json!([brought]));
}

#[test]
fn a_key_file_with_another_password_is_not_imported() {
    let home = Home::new().with_password("incorrect horse");
    let ran = home.run(&["wallet", "import", KEY_FILE]);
    let wrong = "the password does not open it";
    ran.fails(77, &[KEY_FILE, wrong, "came from AGENTPMT_PROXY_PASSWORD"]);
    ran.keeps(&["incorrect horse"]);
    assert!(!home.path("keys").exists());

    let home = Home::new();
    home.write("secret", "incorrect horse\n");
    let ran = home.run(&["wallet", "import", KEY_FILE, "--password-file", "secret"]);
    ran.fails(77, &[KEY_FILE, wrong, "came from secret"]);
}

#[test]
fn what_is_no_key_is_refused_and_not_repeated() {
    let home = Home::new().with_password(PASSWORD);
    for garbage in ["correct-horse-battery-staple", &key()[1..], &format!("{}zz", &key()[2..])] {
        let ran = home.run_with_input(&["wallet", "import"], garbage);
        ran.fails(65, &["64 hexadecimal digits", "wallet import FILE"]);
        ran.keeps(&[garbage, &key()[8..]]);
    }
    assert!(!home.path("keys").exists());
    home.write("f.json", "{}");
    let ran = home.run(&["wallet", "import", "f.json"]);
    ran.fails(65, &["no key file", "run `agentpmt-proxy wallet import` without FILE and paste it"]);
}

#[test]
fn the_next_step_after_a_new_wallet_has_the_same_options() {
    let home = Home::new();
    home.write("my pw", PASSWORD);
    home.write("other.toml", "");
    let new = ["wallet", "new", "--light", "--password-file", "my pw", "--keys", "l/keys"];
    let told = home.run(&[&new[..], &["--config", "other.toml"]].concat()).told();
    let serve = "agentpmt-proxy serve --config other.toml --keys l/keys --password-file 'my pw'\n";
    assert!(told.ends_with(serve), "{told}");
    assert!(home.run(&new).told().contains(" --wallet 0x"), "there are two");
}

#[test]
fn a_short_password_is_warned_of_where_guessing_is_cheap() {
    let home = Home::new();
    home.write("short", &"ö".repeat(15));
    home.write("long", &"ö".repeat(16));
    for (password, warned) in [("short", true), ("long", false)] {
        let ran = home.run(&["wallet", "new", "--light", "--password-file", password]);
        assert_eq!(ran.stderr.contains("fewer than 16 characters"), warned, "{password}: {ran:?}");
        ran.result();
    }
}

#[test]
fn a_key_as_an_argument_is_refused_and_not_repeated() {
    let ran = Home::new().with_password(PASSWORD).run(&["wallet", "import", &key()]);
    ran.fails(2, &["must not be an argument", "wallet import"]);
    ran.keeps(&[&key()]);
}

#[test]
fn an_import_of_nothing_says_what_is_expected() {
    let home = Home::new().with_password(PASSWORD);
    for nothing in ["", "\n"] {
        let ran = home.run_with_input(&["wallet", "import"], nothing);
        ran.fails(66, &["standard input is empty", "wallet import < "]);
    }
    home.run(&["wallet", "import", "none"]).fails(66, &["key file none", "No such file"]);
}

#[test]
fn a_new_key_file_needs_a_password() {
    let home = Home::new().with_password("");
    let empty = "the password from AGENTPMT_PROXY_PASSWORD is empty";
    home.run(&["wallet", "new"]).fails(66, &[empty]);
    home.run_with_input(&["wallet", "import"], &key()).fails(66, &[empty]);
    assert!(!home.path("keys").exists());
}

#[test]
fn a_password_that_is_not_utf_8_is_refused_and_not_repeated() {
    let home = Home::new();
    let mut command = home.command();
    command.args(["wallet", "new"]).env("AGENTPMT_PROXY_PASSWORD", OsStr::from_bytes(b"horse\xff"));
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(65), "{stderr}");
    assert!(stderr.contains("AGENTPMT_PROXY_PASSWORD is not UTF-8"), "{stderr}");
    assert!(!stderr.contains("horse") && !home.path("keys").exists(), "{stderr}");
}

#[test]
fn a_password_file_that_others_may_read_is_used_with_a_warning() {
    let home = Home::new();
    home.write("secret", LONG);
    let args = ["wallet", "new", "--light", "--password-file", "secret"];
    home.set_mode("secret", 0o440);
    assert!(!home.run(&args).told().contains("warning"));
    home.set_mode("secret", 0o444);
    let ran = home.run(&args);
    assert_eq!(ran.code, Some(0), "{ran:?}");
    assert!(ran.stderr.contains("warning") && ran.stderr.contains("chmod 600 secret"), "{ran:?}");
    ran.keeps(&[LONG]);
}

#[test]
fn a_wallet_that_is_there_is_not_replaced() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let before = fs::read(home.path("keys/wallet.json")).unwrap();
    let ran = home.run_with_input(&["wallet", "import"], &key());
    ran.fails(73, &[WALLET, "already", "keys/wallet.json"]);
    ran.keeps(&[&key()]);
    assert_eq!(names(&home), ["wallet.json"]);
    assert_eq!(fs::read(home.path("keys/wallet.json")).unwrap(), before);
}

#[test]
fn a_wallet_that_is_there_is_told_before_the_password_is_asked_for() {
    let home = Home::with_wallet();
    let args = ["wallet", "import", "--password-file", "none"];
    home.run_with_input(&args, &key()).fails(73, &[WALLET, "already"]);
    home.run(&[&args[..], &[KEY_FILE]].concat()).fails(73, &[WALLET, "already"]);
}

#[test]
fn an_empty_list_says_how_to_get_a_wallet() {
    let home = Home::new();
    let ran = home.run(&["wallet", "list"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(0), ""));
    assert!(ran.stderr.contains("wallet new"), "{ran:?}");
    assert_eq!(home.run(&["wallet", "list", "--json"]).json(), json!([]));
    home.run(&["wallet", "show"]).fails(66, &["no wallet", "/keys holds", "wallet new"]);
}

#[test]
fn a_file_that_is_no_key_file_is_told_beside_the_list() {
    let home = Home::with_wallet();
    home.write("keys/notes.txt", "remember the milk");
    let ran = home.run(&["wallet", "list"]);
    assert_eq!((ran.code, ran.stdout.lines().count()), (Some(0), 1), "{ran:?}");
    assert!(ran.stderr.contains("keys/notes.txt") && ran.stderr.lines().count() == 1, "{ran:?}");
    ran.keeps(&["milk"]);
}

#[test]
fn a_key_file_that_is_open_to_others_is_listed_but_not_used() {
    let home = Home::with_wallet();
    home.set_mode("keys/wallet.json", 0o644);
    assert!(home.run(&["wallet", "list"]).ok().starts_with(WALLET));
    home.run(&["wallet", "show"]).fails(77, &["mode 644", "chmod 600 /", "/keys/wallet.json"]);
}

#[test]
fn a_folder_of_keys_that_is_open_to_others_is_listed_but_not_used() {
    let home = Home::with_wallet();
    home.set_mode("keys", 0o755);
    assert!(home.run(&["wallet", "list"]).ok().starts_with(WALLET));
    for command in [&["wallet", "show"], &["serve", "--listen=127.0.0.1:0"]] {
        let ran = home.run(command);
        ran.fails(
            77,
            &["folder", "mode 755", &format!("chmod 700 {}", home.path("keys").display())],
        );
    }
}

#[test]
fn the_folder_of_a_clone_is_closed_by_its_first_key() {
    let home = Home::new().with_password(PASSWORD);
    home.write("keys/.gitignore", "*");
    home.set_mode("keys", 0o775);
    let text = home.run(&["wallet", "new", "--light"]).result();
    home.serve(&["serve"]).is_ready(text.lines().next().unwrap());
}

#[test]
fn a_key_is_not_saved_in_an_open_folder_of_other_things() {
    let home = Home::new().with_password(PASSWORD);
    home.write("notes.txt", "remember the milk");
    home.set_mode("", 0o755);
    home.run(&["wallet", "new", "--keys", "."]).fails(77, &["mode 755", "chmod 700", "`keys`"]);
    assert_eq!(fs::read_dir(home.path("")).unwrap().count(), 1);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let home = Home::with_wallet();
    let mut command = home.command();
    let status = command.args(["wallet", "list"]).stdout(writer).stderr(Stdio::null()).status();
    assert_eq!(status.unwrap().code(), Some(0));
}

#[test]
fn nobody_listening_to_its_errors_is_no_crash() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let home = Home::new();
    let mut command = home.command();
    let status = command.args(["wallet", "show"]).stdout(Stdio::null()).stderr(writer).status();
    assert_eq!(status.unwrap().code(), Some(66));
}
