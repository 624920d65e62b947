//! What other programs can see of the process while it holds a key. As Linux shows it, in `/proc`.

#![cfg(target_os = "linux")]

use std::{
    fs,
    os::unix::{
        fs::{chown, symlink},
        process::CommandExt,
    },
    process::{Command, Stdio},
};

use rustix::process::geteuid;

use crate::binary::{Home, PASSWORD, Server, WALLET};

/// A user without rights, for tests that run as root.
const NOBODY: u32 = 65534;

/// A file of the process in `/proc`.
fn proc(server: &Server, name: &str) -> String {
    format!("/proc/{}/{name}", server.id())
}

/// Reads the environment of the process, as another program of this user does.
fn environment_for_others(server: &Server) -> (bool, String) {
    let mut cat = Command::new("cat");
    if geteuid().is_root() {
        cat.uid(NOBODY).gid(NOBODY);
    }
    let output = cat.arg(proc(server, "environ")).output().unwrap();
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// A value of `/proc/PID/limits`: the soft and the hard limit.
fn limit(server: &Server, name: &str) -> Vec<String> {
    let limits = fs::read_to_string(proc(server, "limits")).unwrap();
    let values = limits.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    values.split_whitespace().take(2).map(str::to_owned).collect()
}

/// The program for a user without rights, in a folder of that user. For tests that run as root.
fn without_rights(home: &Home) -> Command {
    // It has to find itself and its folder without root's rights.
    let program = home.path("agentpmt-proxy");
    // By another process: what this one writes, a test beside it may hold open while it starts a
    // program, and then nobody can run it.
    let copied =
        Command::new("cp").arg(env!("CARGO_BIN_EXE_agentpmt-proxy")).arg(&program).status();
    assert!(copied.unwrap().success());
    home.set_mode("agentpmt-proxy", 0o755);
    chown(home.path(""), Some(NOBODY), Some(NOBODY)).unwrap();
    let mut command = home.command_of(&program);
    command.uid(NOBODY).gid(NOBODY);
    command
}

#[test]
fn the_password_leaves_the_environment() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let server = home.serve(&["serve", "--upstream", "http://127.0.0.1:1"]);
    server.is_ready(WALLET);
    let arguments = fs::read_to_string(proc(&server, "cmdline")).unwrap();
    let arguments: Vec<_> = arguments.trim_end_matches('\0').split('\0').collect();
    let expected = ["serve", "--upstream", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"];
    assert_eq!(arguments[1..], expected);
    assert_eq!(arguments[0], env!("CARGO_BIN_EXE_agentpmt-proxy"));
    if !geteuid().is_root() {
        return eprintln!("the environment is not looked at: only root can read it");
    }
    let environment = fs::read(proc(&server, "environ")).unwrap();
    let environment = String::from_utf8(environment).unwrap();
    assert!(environment.contains("PATH="), "{environment}");
    assert!(!environment.contains("PASSWORD=") && !environment.contains(PASSWORD), "{environment}");
    let waiting = Command::new("cat").arg(proc(&server, "fd/0")).output().unwrap();
    assert_eq!(waiting.stdout, b"");
}

#[test]
fn the_password_in_the_environment_goes_before_the_file() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("secret", "incorrect horse");
    home.serve(&["serve", "--password-file", "secret"]).is_ready(WALLET);
    let home = Home::with_wallet().with_password("incorrect horse");
    home.write("secret", PASSWORD);
    let args = ["serve", "--listen", "127.0.0.1:0", "--password-file", "secret"];
    home.run(&args).fails(77, &["came from AGENTPMT_PROXY_PASSWORD"]);
}

#[test]
fn a_password_that_no_pipe_holds_is_refused() {
    let home = Home::with_wallet().with_password(&"horse".repeat(20_000));
    let ran = home.run(&["serve", "--listen", "127.0.0.1:0"]);
    ran.fails(65, &["AGENTPMT_PROXY_PASSWORD", "longer than 4096 bytes"]);
    ran.keeps(&["horse"]);
    let home = Home::with_wallet();
    home.write("secret", &"horse".repeat(1000));
    home.run(&["wallet", "new", "--password-file", "secret"]).fails(65, &["secret", "longer"]);
    assert_eq!(fs::read_dir(home.path("keys")).unwrap().count(), 1);
}

#[test]
fn the_longest_password_goes_through() {
    let password = "🐎".repeat(1024);
    let home = Home::new().with_password(&password);
    home.run_with_input(&["wallet", "import", "--light"], &"42".repeat(32)).result();
    home.serve(&["serve"]).is_ready(WALLET);
    let home = home.without_password();
    home.write("secret", &format!("{password}\r\nnot this line"));
    home.serve(&["serve", "--password-file", "secret"]).is_ready(WALLET);
}

#[test]
fn it_leaves_no_core_dump_and_takes_all_descriptors() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let mut command = home.command_of("sh".as_ref());
    command.args(["-c", "ulimit -S -n 64; exec \"$0\" serve \"$@\""]);
    let server = home.serve_by(command.arg(env!("CARGO_BIN_EXE_agentpmt-proxy")));
    assert_eq!(limit(&server, "Max core file size"), ["0", "0"]);
    let files = limit(&server, "Max open files");
    assert!(files[0] == files[1] && files[0] != "64", "{files:?}");
}

#[test]
fn other_programs_of_the_user_cannot_look_into_it() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let mut command = home.command();
    if geteuid().is_root() {
        for name in ["keys", "keys/wallet.json"] {
            chown(home.path(name), Some(NOBODY), Some(NOBODY)).unwrap();
        }
        command = without_rights(&home);
    }
    let server = home.serve_by(command.arg("serve"));
    server.is_ready(WALLET);
    let (read, error) = environment_for_others(&server);
    assert!(!read && error.contains("Permission denied"), "{error}");
}

#[test]
fn without_the_memory_to_unlock_it_says_how_much_that_is() {
    let home = Home::new().with_password(PASSWORD);
    let limited = |args: &[&str]| {
        let mut command = home.wrapped("sh");
        command.args(["-c", "ulimit -v 204800; exec \"$@\"", "sh"]);
        command.arg(env!("CARGO_BIN_EXE_agentpmt-proxy")).args(args);
        command
    };
    let words = ["256 MiB of memory", "ulimit -v", "--light"];
    home.run_as(&mut limited(&["wallet", "new"]), Stdio::null()).fails(69, &words);
    home.run(&["wallet", "new"]).result();
    assert!(home.run(&["check"]).ok().contains("256 MiB"));
    for args in [&["serve", "--listen", "127.0.0.1:0"] as &[&str], &["check"]] {
        home.run_as(&mut limited(args), Stdio::null()).fails(69, &words);
    }
    home.write("new", PASSWORD);
    let lighter = ["wallet", "passwd", "--light", "--new-password-file", "new"];
    let text = home.run(&lighter).result();
    assert!(home.run(&["check"]).ok().contains(" 4 MiB"));
    home.serve_by(&mut limited(&["serve"])).is_ready(text.lines().next().unwrap());
    let keys = ["wallet", "new", "--light", "--keys", "light"];
    assert_eq!(home.run_as(&mut limited(&keys), Stdio::null()).code, Some(0));
}

#[test]
fn secrets_are_taken_as_a_container_mounts_them() {
    if !geteuid().is_root() {
        return eprintln!("not tried: only root can give a file away");
    }
    // Root's, for a group of the process, and behind links.
    let home = Home::with_wallet();
    home.write("secret", PASSWORD);
    fs::create_dir(home.path("keys/..2026")).unwrap();
    fs::rename(home.path("keys/wallet.json"), home.path("keys/..2026/wallet.json")).unwrap();
    symlink("..2026", home.path("keys/..data")).unwrap();
    symlink("..data/wallet.json", home.path("keys/wallet.json")).unwrap();
    fs::create_dir(home.path("state")).unwrap();
    for (name, mode) in [
        ("keys", 0o2775),
        ("keys/..2026", 0o750),
        ("keys/wallet.json", 0o440),
        ("secret", 0o440),
        ("state", 0o2775),
    ] {
        chown(home.path(name), Some(0), Some(NOBODY)).unwrap();
        home.set_mode(name, mode);
    }
    let args = ["serve", "--password-file", "secret", "--upstream", "http://127.0.0.1:1"];
    home.serve_by(without_rights(&home).args(args)).is_ready(WALLET);

    home.set_mode("keys/wallet.json", 0o444);
    let ran = home.run_as(without_rights(&home).arg("check"), Stdio::null());
    ran.fails(77, &["mode 444", "as root, run: chgrp 65534 ", "chmod 640 "]);
    home.set_mode("keys/wallet.json", 0o440);
    home.set_mode("keys", 0o2777);
    let ran = home.run_as(without_rights(&home).arg("check"), Stdio::null());
    ran.fails(77, &["folder", "mode 777", "as root, run: chmod 700 ", "`keys`"]);
    home.set_mode("keys", 0o2775);

    // A volume for every user.
    home.set_mode("state", 0o777);
    let on_any_port = [&args[..], &["--listen", "127.0.0.1:0"]].concat();
    let ran = home.run_as(without_rights(&home).args(on_any_port), Stdio::null());
    ran.fails(77, &["folder", "state", "mode 777", "name a folder inside it"]);
    let inside = [&args[..], &["--state", "state/mine"]].concat();
    home.serve_by(without_rights(&home).args(inside)).is_ready(WALLET);
}

#[test]
fn nobody_is_told_to_change_what_is_mounted_read_only() {
    let home = Home::with_wallet();
    home.write("secret", PASSWORD);
    home.set_mode("keys", 0o1777);
    let check = |mode| {
        home.set_mode("keys/wallet.json", mode);
        let mut command = home.wrapped("unshare");
        let mount = "mount --bind keys keys && mount -o remount,bind,ro keys && exec \"$@\"";
        command.args(["--mount", "sh", "-c", mount, "sh"]);
        command.args([env!("CARGO_BIN_EXE_agentpmt-proxy"), "check", "--password-file", "secret"]);
        home.run_as(&mut command, Stdio::null())
    };
    let ran = check(0o440);
    if !geteuid().is_root() || ran.stderr.contains("unshare:") || ran.stderr.contains("mount:") {
        return eprintln!("not tried: nothing can be mounted here");
    }
    assert!(ran.ok().contains(WALLET));
    let ran = check(0o444);
    ran.fails(77, &["mode 444", "read-only", "mounted"]);
    assert!(!ran.stderr.contains("chmod"), "{ran:?}");
}
