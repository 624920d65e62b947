//! `wallet passwd` and `wallet export`: a key file under another password.

use std::{fs, os::unix::fs::PermissionsExt, process::Command};

use crate::binary::{Home, KEY_FILE, PASSWORD, Ran, WALLET};

const NEW: &str = "battery staple horse";
/// The private key of [`WALLET`], in hexadecimal, as it must not be printed.
const KEY: &str = "424242";

/// A home with the wallet, its password in `old` and the next one in `new`.
fn home() -> Home {
    let home = Home::with_wallet();
    home.write("old", PASSWORD);
    home.write("new", NEW);
    home
}

/// Exports to a file or, without one, to standard output, with this typed.
fn export(home: &Home, file: &[&str], typed: &str) -> Ran {
    let args = ["wallet", "export", "--password-file", "old", "--new-password-file", "new"];
    home.run_with_input(&[&args, file].concat(), typed)
}

fn mode(home: &Home, name: &str) -> u32 {
    fs::metadata(home.path(name)).unwrap().permissions().mode() & 0o777
}

/// The names of what is in a folder.
fn names(home: &Home, folder: &str) -> Vec<String> {
    let entries = fs::read_dir(home.path(folder)).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn after_passwd_the_new_password_opens_and_the_old_does_not() {
    let home = home();
    let passwd = ["wallet", "passwd", "--light", "--password-file", "old"];
    let ran = home.run(&[&passwd[..], &["--new-password-file", "new"]].concat());
    ran.keeps(&[PASSWORD, NEW, KEY]);
    assert_eq!(ran.stdout, format!("{WALLET}\n"));
    let text = ran.told();
    assert!(text.contains("/keys/wallet.json") && text.contains("with the old one"), "{text}");
    assert_eq!(
        (names(&home, "keys"), mode(&home, "keys/wallet.json")),
        (vec!["wallet.json".into()], 0o600)
    );
    home.run(&["serve", "--listen", "127.0.0.1:0", "--password-file", "old"])
        .fails(77, &["keys/wallet.json", "does not open it", "old"]);
    home.serve(&["serve", "--password-file", "new"]).is_ready(WALLET);
}

#[test]
fn a_passwd_that_fails_leaves_the_file_as_it_was() {
    let home = home();
    home.write("empty", "\n");
    let ask = |old, new| {
        home.run(&["wallet", "passwd", "--password-file", old, "--new-password-file", new])
    };
    ask("new", "new").fails(77, &["does not open it", "came from new"]);
    ask("old", "empty").fails(66, &["the password from empty is empty"]);
    ask("old", "none").fails(66, &["none", "No such file"]);
    let args = ["wallet", "passwd", "--password-file", "old"];
    if let Some(ran) = home.run_without_terminal(&args) {
        ran.fails(66, &["a new password is needed", "--new-password-file"]);
    }
    assert_eq!(fs::read(home.path("keys/wallet.json")).unwrap(), fs::read(KEY_FILE).unwrap());
    assert_eq!(names(&home, "keys"), ["wallet.json"]);
}

#[test]
fn a_disk_that_takes_nothing_leaves_the_file_as_it_was() {
    let home = home();
    // A file of no size is the most that may be written; the signal that says so is not taken.
    let script = "trap '' XFSZ; ulimit -f 0; exec \"$0\" wallet passwd --light \"$@\"";
    let mut command = home.command_of("sh".as_ref());
    command.args(["-c", script, env!("CARGO_BIN_EXE_agentpmt-proxy")]);
    command.args(["--password-file", "old", "--new-password-file", "new"]);
    let output = command.output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(74), "{stderr}");
    assert!(stderr.contains("cannot write /") && stderr.contains("/keys/wallet.json"), "{stderr}");
    assert_eq!(fs::read(home.path("keys/wallet.json")).unwrap(), fs::read(KEY_FILE).unwrap());
    assert_eq!(names(&home, "keys"), ["wallet.json"]);
}

#[test]
fn a_confirmed_export_is_a_key_file_under_its_own_password() {
    let home = home();
    let ran = export(&home, &[], "d025\n");
    ran.keeps(&[PASSWORD, NEW, KEY]);
    home.write("copy.json", &ran.ok());
    let other = Home::new().with_password(NEW);
    let path = home.path("copy.json").display().to_string();
    let text = other.run(&["wallet", "import", "--light", &path]).result();
    assert!(text.starts_with(WALLET), "{text}");
    assert_eq!(fs::read(home.path("keys/wallet.json")).unwrap(), fs::read(KEY_FILE).unwrap());
    // Confirmed too, as the missing password is what comes next.
    for typed in ["BFDB7D025", WALLET] {
        let args = ["wallet", "export", "--password-file", "old", "--new-password-file", "none"];
        home.run_with_input(&args, typed).fails(66, &["none", "No such file"]);
    }
}

#[test]
fn an_export_is_on_record_where_there_is_a_journal() {
    let home = home();
    home.run(&["client", "add", "ci", "--allow", "jobs"]).result();
    export(&home, &["first.json"], "wrong").fails(66, &["last"]);
    export(&home, &["second.json"], "d025").ok();
    let journal = home.run(&["journal", "tail", "--changes"]).ok();
    let lines: Vec<_> = journal.lines().collect();
    assert!(lines.len() == 2 && lines[1].contains("wallet_export"), "{journal}");
    assert!(lines[1].contains(WALLET), "{journal}");
}

#[test]
fn an_export_to_a_file_is_for_its_owner_alone_and_replaces_nothing() {
    let home = home();
    assert_eq!(export(&home, &["copy.json"], "d025").ok(), "");
    assert_eq!(mode(&home, "copy.json"), 0o600);
    assert!(!home.path("state").exists(), "it begins no journal");
    let before = fs::read(home.path("copy.json")).unwrap();
    export(&home, &["copy.json"], "d025")
        .fails(73, &["copy.json is there already", "name a new file"]);
    assert_eq!(fs::read(home.path("copy.json")).unwrap(), before);
    export(&home, &["none/copy.json"], "d025").fails(66, &["none/copy.json", "No such file"]);
}

#[test]
fn an_export_that_is_not_confirmed_gives_nothing() {
    let home = home();
    for typed in ["", "\n", "yes\n", "025\n", "0x17\n", "d025 d025\n"] {
        let ran = export(&home, &["copy.json"], typed);
        ran.fails(66, &["nothing was exported", "last 4 digits", WALLET]);
        ran.keeps(&[PASSWORD, NEW, KEY]);
    }
    assert!(!home.path("copy.json").exists());
}

#[cfg(target_os = "linux")]
#[test]
fn a_person_is_asked_for_the_last_digits() {
    let home = home();
    // A terminal of its own, if there is a program that makes one.
    let Ok(_) = Command::new("script").arg("--version").output() else {
        return eprintln!("not tried: there is no `script`");
    };
    let program = env!("CARGO_BIN_EXE_agentpmt-proxy");
    let line = format!(
        "{program} wallet export copy.json --password-file old --new-password-file new; echo code $?"
    );
    let mut command = home.command_of("script".as_ref());
    let output = command.args(["-qec", &line, "/dev/null"]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("type the last 4 digits of 0x17c5"), "{text}");
    assert!(text.contains("nothing was exported") && text.contains("code 66"), "{text}");
}
