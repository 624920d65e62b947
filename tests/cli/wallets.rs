//! Several wallets behind one proxy, each with its own session and its own clients.

use std::{collections::BTreeSet, fs};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use reqwest::Response;
use serde_json::Value;

use crate::{
    binary::{Home, PASSWORD, Server, WALLET},
    common::{self, GENERAL_JOB, client, json},
};

/// A second wallet, its key file and its password.
const OTHER: &str = "0xf466859ead1932d743d622cb74fc058882e8648a";
const OTHER_FILE: &str = include_str!("../vectors/keystore/geth-foobar.json");
/// A name that says the address, which the file then does not.
const OTHER_NAME: &str =
    "UTC--2026-01-01T00-00-00.000000000Z--f466859ead1932d743d622cb74fc058882e8648a";
const OTHER_PASSWORD: &str = "foobar";

/// A home with both wallets, of which the second has a password of its own.
fn home() -> Home {
    let home = Home::with_wallet().with_password(PASSWORD);
    let without_address = OTHER_FILE.replace(&format!("\"{}\"", &OTHER[2..]), "null");
    assert_ne!(without_address, OTHER_FILE);
    home.write(&format!("keys/{OTHER_NAME}"), &without_address);
    home.write("other.password", OTHER_PASSWORD);
    let wallets = format!(
        "[[wallets]]\naddress = \"{WALLET}\"\n\n[[wallets]]\naddress = \"{OTHER}\"\n\
         password_file = \"other.password\"\n"
    );
    home.write("proxy.toml", &wallets);
    home
}

/// Adds a client that is bound to a wallet; returns its token.
fn add(home: &Home, name: &str, wallet: &str) -> String {
    let text = home.run(&["client", "add", name, "--allow", "jobs", "--wallet", wallet]).result();
    text.trim_end().to_owned()
}

async fn call(server: &Server, token: &str, path: &str) -> Response {
    let url = format!("http://{}/api/external{path}", server.address);
    client().post(url).bearer_auth(token).send().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn each_client_signs_with_its_wallet_in_a_session_of_that_wallet() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = common::serve_sandbox(&sandbox).await;
    let home = home();
    let server = home.serve(&["serve", "--upstream", &format!("http://{upstream}")]);
    let (one, other) = (add(&home, "one", WALLET), add(&home, "other", OTHER));
    for (token, wallet) in [(&one, WALLET), (&other, OTHER)] {
        let session = json(call(&server, token, "/auth/session").await).await;
        assert_eq!(session["wallet_address"], wallet);
        assert_eq!(call(&server, token, "/jobs/list").await.status(), 200);
    }
    assert_eq!(sandbox.counts().sessions, 2);

    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    assert_eq!(call(&server, &one, &reserve).await.status(), 200);
    let taken = call(&server, &other, &reserve).await;
    assert_eq!(taken.status(), 409, "the upstream's own word: the other wallet has it");
    assert!(!taken.headers().contains_key("x-agentpmt-proxy-error"));

    assert_eq!(server.signal("TERM").code, Some(0));
    let export = home.run(&["journal", "export"]).ok();
    let records = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let signed = records.filter(|line| line["record"]["kind"] == "signed");
    let text = |line: &Value, name: &str| line["record"][name].as_str().unwrap().to_owned();
    let signed: BTreeSet<_> = signed.map(|l| (text(&l, "client"), text(&l, "wallet"))).collect();
    let expected = [("one", WALLET), ("other", OTHER)].map(|(c, w)| (c.to_owned(), w.to_owned()));
    assert_eq!(signed, BTreeSet::from(expected));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_whose_wallet_is_not_held_is_refused() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = common::serve_sandbox(&sandbox).await;
    let home = Home::with_wallet().with_password(PASSWORD);
    let server = home.serve(&["serve", "--upstream", &format!("http://{upstream}")]);
    let token = add(&home, "other", OTHER);
    let refused = common::problem(call(&server, &token, "/jobs/list").await).await;
    assert_eq!((&refused["status"], &refused["code"]), (&403.into(), &"not_allowed".into()));
    assert!(refused["detail"].as_str().unwrap().contains(OTHER), "{refused}");
    assert_eq!(sandbox.counts().requests, 0);
}

#[test]
fn what_serve_would_open_is_checked_and_shown() {
    let text = home().run(&["check"]).ok();
    for words in [&format!("{WALLET}, {OTHER}"), "AGENTPMT_PROXY_PASSWORD, other.password"] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let mut server = home().serve(&["serve"]);
    let lines: Vec<_> = (0..3).map(|_| server.line()).collect();
    assert!(lines[1].contains(WALLET) && lines[2].contains(OTHER), "{lines:?}");
}

#[test]
fn a_wallet_that_is_not_there_or_does_not_open_is_named() {
    let home = home();
    home.write("other.password", "wrong");
    home.run(&["serve", "--listen", "127.0.0.1:0"])
        .fails(77, &[OTHER_NAME, "the password came from other.password"]);
    fs::remove_file(home.path("keys").join(OTHER_NAME)).unwrap();
    home.run(&["serve", "--listen", "127.0.0.1:0"]).fails(66, &[OTHER, "wallet import"]);
}

#[test]
fn the_wallet_of_clients_that_are_bound_to_none_is_the_first_or_the_one_that_is_named() {
    let home = home();
    home.serve(&["serve"]).is_ready(WALLET);
    home.serve(&["serve", "--wallet", OTHER]).is_ready(OTHER);
    for (flags, wallet) in [(&[][..], WALLET), (&["--wallet", OTHER], OTHER)] {
        assert!(home.run(&[&["wallet", "show"], flags].concat()).ok().contains(wallet));
        assert!(home.run(&[&["explain", "job_list"], flags].concat()).ok().contains(wallet));
    }
    home.write("new", "another horse");
    let passwd = ["wallet", "passwd", "--light", "--wallet", OTHER, "--new-password-file", "new"];
    assert!(home.run(&passwd).result().contains(OTHER), "the old one came from its own file");
    let unknown = "0x0000000000000000000000000000000000000001";
    home.run(&["check", "--wallet", unknown]).fails_at_length(78, &["--wallet: ", "[[wallets]]"]);
}
