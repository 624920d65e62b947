//! Reading the configuration again while the program runs.

use std::{fs, os::unix::fs::symlink, process::Command};

use serde_json::Value;

use crate::binary::{Home, PASSWORD, Server, until};

/// A program with this text as its `proxy.toml`.
fn serve(text: &str) -> (Home, Server) {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", text);
    let server = home.serve(&["serve", "--upstream", "http://127.0.0.1:1"]);
    (home, server)
}

fn reload(server: &Server) -> (u16, Value) {
    let (status, body) = server.request("POST", "/proxy/reload");
    (status, serde_json::from_str(&body).unwrap())
}

fn last_reload(server: &Server) -> Value {
    let (status, body) = server.request("GET", "/proxy/status");
    assert_eq!(status, 200, "{body}");
    serde_json::from_str::<Value>(&body).unwrap()["last_reload"].clone()
}

#[test]
fn what_is_logged_changes_at_once() {
    let (home, server) = serve("log.level = 'error'");
    server.request("GET", "/healthz");
    assert_eq!(server.log(), "");
    home.write("proxy.toml", "log.level = 'info'");
    assert_eq!(reload(&server).0, 200);
    server.request("GET", "/healthz");
    server.logs("/healthz");
    assert_eq!(last_reload(&server)["ok"], true);
}

#[test]
fn a_signal_reloads_as_the_call_does() {
    let (home, server) = serve("");
    assert!(last_reload(&server).is_null());
    home.write("proxy.toml", "max_in_flight = 7");
    let hang_up = format!("kill -HUP {}", server.id());
    assert!(Command::new("sh").args(["-c", &hang_up]).status().unwrap().success());
    until(|| !last_reload(&server).is_null());
    assert_eq!(last_reload(&server)["ok"], true);
    server.logs("reloaded");
}

#[test]
fn mistakes_leave_all_as_it_was_and_are_told_in_full() {
    let (home, server) = serve("log.level = 'info'");
    home.write("proxy.toml", "log.level = 'loud'\nmax_in_fligth = 1");
    let (status, problem) = reload(&server);
    assert_eq!((status, &problem["code"]), (422, &"reload_refused".into()));
    let last = last_reload(&server);
    assert_eq!(last["ok"], false);
    let words = ["proxy.toml:1: log.level: ", "proxy.toml:2: max_in_fligth: no such setting"];
    for word in words {
        let [detail, mistakes] =
            [&problem["detail"], &last["mistakes"]].map(|it| it.as_str().unwrap());
        assert!(detail.contains(word) && mistakes.contains(word), "{problem} {last}");
        server.logs(word);
    }
    home.write("proxy.toml", "");
    assert_eq!(reload(&server).0, 200, "and the next one may be good");
    assert_eq!(last_reload(&server)["ok"], true);
}

#[test]
fn what_is_no_regular_file_is_refused_and_the_end_does_not_wait_for_it() {
    let (home, server) = serve("");
    let pipe = |name: &str| {
        let path = home.path(name);
        let _ = fs::remove_file(&path);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    let refused = |name: &str| {
        let (status, problem) = reload(&server);
        let detail = problem["detail"].as_str().unwrap();
        assert_eq!(status, 422, "{detail}");
        assert!(detail.contains(name) && detail.contains("regular file"), "{detail}");
    };
    pipe("proxy.toml");
    refused("proxy.toml");
    fs::remove_file(home.path("proxy.toml")).unwrap();
    symlink("/dev/zero", home.path("proxy.toml")).unwrap();
    refused("proxy.toml");
    assert_eq!(server.signal("TERM").code, Some(0));
    home.run(&["check"]).fails_at_length(78, &["proxy.toml", "regular file"]);
}

#[test]
fn a_certificate_that_is_no_regular_file_is_refused() {
    let home = Home::with_wallet().with_password(PASSWORD);
    for (name, setting) in [("tls.crt", ""), ("ca.crt", "client_ca = 'ca.crt'")] {
        let tls = "[tls]\ncertificate = 'tls.crt'\nkey = 'tls.key'";
        home.write("proxy.toml", &format!("{tls}\n{setting}"));
        assert!(Command::new("mkfifo").arg(home.path(name)).status().unwrap().success());
        home.run(&["check"]).fails(66, &[name, "regular file"]);
    }
}

#[test]
fn a_reload_is_on_record_with_who_asked_for_it() {
    let (home, server) = serve("");
    assert_eq!(reload(&server).0, 200);
    let id = server.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &id]).status().unwrap().success());
    let deeds = || home.run(&["journal", "tail"]).result();
    until(|| deeds().lines().count() == 2);
    let deeds = deeds();
    let by = |line: &str| line.split_whitespace().skip(2).take(2).collect::<Vec<_>>().join(" ");
    let by: Vec<_> = deeds.lines().map(by).collect();
    assert_eq!(by, ["local reload", "SIGHUP reload"]);
}

#[test]
fn what_needs_a_restart_is_named() {
    let (home, server) = serve("");
    home.write(
        "proxy.toml",
        "log.level = 'error'\nkeys = 'k'\nlisten = 'unix:x'\n[socket]\nmode = '0660'",
    );
    let (status, problem) = reload(&server);
    assert_eq!(status, 422);
    // The command line says where it listens, so the file does not matter.
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("need a restart: keys, socket.mode"), "{detail}");
    // The level is as it was.
    server.logs("keys, socket.mode");
}

#[test]
fn what_clients_see_of_a_workflow_token_changes_also_over_a_sandbox() {
    let home = Home::new();
    let server = home.serve(&["serve", "--sandbox"]);
    home.write("proxy.toml", "expose_workflow_token = true");
    assert_eq!(reload(&server).0, 200);
    let job = "/api/external/jobs/68f0a1c27b3e4d5f60718202";
    let (status, body) = server.request("POST", &format!("{job}/reserve"));
    assert_eq!(status, 200, "{body}");
    assert!(body.contains("access_token") && !body.contains("held-by-proxy"), "{body}");
}
