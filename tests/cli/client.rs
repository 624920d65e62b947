//! `client`: who may call, said at the command line.

use std::{
    path::Path,
    process::{Command, Stdio},
};

use agentpmt_proxy::{
    policy::Client,
    signer::LocalKey,
    store::{Clients, Store},
    types::{ClientToken, Credential},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::binary::{self, Home, Ran, WALLET};

/// Made with `openssl req -x509`, and its hash with `openssl x509 -fingerprint -sha256`.
const CERTIFICATE: &str = "\
-----BEGIN CERTIFICATE-----
MIIBcDCCARegAwIBAgIUT9dpTlzs+OhvSXOks/v//W21NrUwCgYIKoZIzj0EAwIw
DTELMAkGA1UEAwwCY2kwIBcNMjYxMTI0MTg1MjUzWhgPMjEyNjEwMzExODUyNTNa
MA0xCzAJBgNVBAMMAmNpMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUIXeHzsn
PPdEBs+7SvxZeCO9CpR8ilUrVU5UN0D+sULuioJjAjhDYpWSoacumgvoTX9nWXOI
kSk/UPeNzK+ZmKNTMFEwHQYDVR0OBBYEFE687Zd0hNoqAeHNLtPIKNvxMSffMB8G
A1UdIwQYMBaAFE687Zd0hNoqAeHNLtPIKNvxMSffMA8GA1UdEwEB/wQFMAMBAf8w
CgYIKoZIzj0EAwIDRwAwRAIgGQEphOS8jDjRt+WokDaNC25B3YePq3fkfB0ZnZZs
yxUCIHKf8clthQC6V8BuIXRZS/TW6MdWA0M3rQtx/di+CvoJ
-----END CERTIFICATE-----
";
const CERTIFICATE_HASH: &str = "654b6c02eb3e33ce940b686993032396ffbdb372ccde680df9414ee211f6779e";

fn add(home: &Home, name: &str, more: &[&str]) -> Ran {
    home.run(&[&["client", "add", name, "--allow", "jobs"], more].concat())
}

/// The token that an output is.
fn token(text: &str) -> ClientToken {
    text.strip_suffix('\n').unwrap().parse().unwrap()
}

/// The row of the list with this name.
fn row(home: &Home, name: &str) -> Value {
    let rows = home.run(&["client", "list", "--json"]).json();
    rows.as_array().unwrap().iter().find(|row| row["name"] == name).unwrap().clone()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().unwrap().parse().unwrap()
}

#[tokio::test]
async fn a_token_is_printed_once_and_is_the_clients() {
    let home = Home::new();
    let ran = add(&home, "ci", &[]);
    let token = token(&ran.stdout);
    let text = ran.told();
    assert!(text.contains("\nAuthorization: Bearer TOKEN\n"), "{text}");
    assert!(!text.contains(token.expose()), "a log of errors may be kept: {text}");
    home.run(&["client", "list"]).keeps(&[token.expose()]);
    home.run(&["client", "list", "--json"]).keeps(&[token.expose()]);
    let store =
        Store::open(&home.path("state/proxy.db"), &[LocalKey::random().seal_key()]).unwrap();
    let credential = Credential::Token(token.hash());
    let found = store.client_by(credential, Timestamp::now()).await.unwrap().unwrap();
    assert_eq!((found.name.as_str(), found.allow.to_string()), ("ci", "jobs".to_owned()));
}

#[test]
fn a_shell_or_a_script_takes_the_token_and_nothing_else() {
    let home = Home::new();
    let mut shell = home.wrapped("sh");
    let program = env!("CARGO_BIN_EXE_agentpmt-proxy");
    let script =
        format!("TOKEN=$({program} client add bot --allow jobs); printf '<%s>' \"$TOKEN\"");
    let output = shell.args(["-c", &script]).output().unwrap();
    let shown = String::from_utf8(output.stdout).unwrap();
    let captured = shown.strip_prefix('<').and_then(|shown| shown.strip_suffix('>')).unwrap();
    captured.parse::<ClientToken>().unwrap();
    let added = serde_json::from_str::<Value>(&add(&home, "ci", &["--json"]).result()).unwrap();
    added["token"].as_str().unwrap().parse::<ClientToken>().unwrap();
    assert_eq!((&added["name"], &added["first"]), (&json!("ci"), &json!(false)));
    let board = add(&home, "board", &["--json", "--uid", "1001"]).result();
    let board = serde_json::from_str::<Value>(&board).unwrap();
    assert_eq!(board, json!({"name": "board", "token": null, "first": false}));
}

#[test]
fn the_first_client_is_told_what_changes_with_it() {
    let home = Home::new();
    let changes = "from now on every caller has to be one";
    assert!(add(&home, "first", &[]).told().contains(changes));
    assert!(!add(&home, "second", &[]).told().contains(changes));
}

#[test]
fn limits_that_have_no_effect_are_told() {
    let home = Home::new();
    let spending = "wallet = '0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025'
        networks = 'eip155:8453'
        payees = '0x1111111111111111111111111111111111111111'
        resources = 'https://www.agentpmt.com/api/external/credits/purchase'
        max_per_call = '5'
        per_day = '20'
        per_month = '100'
        assets = [{ address = '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913', decimals = 6,
                    name = 'USD Coin', version = '2' }]";
    let mut number = 0;
    let mut told = |allow: &str, limit: [&str; 2]| {
        number += 1;
        let name = format!("c{number}");
        let ran = home.run(&[&["client", "add", &name, "--allow", allow][..], &limit].concat());
        let lines =
            ran.stderr.lines().filter(|line| line.contains("warning: ")).collect::<Vec<_>>();
        assert_eq!(ran.code, Some(0), "{ran:?}");
        lines.join("\n")
    };
    for (allow, limit, words) in [
        ("jobs", ["--max-credits", "5/day"], "that spends credits"),
        ("read", ["--max-reservations", "5"], "that reserves a job"),
        ("tools", ["--spend", "5/day"], "without [spending] in this configuration"),
    ] {
        let told = told(allow, limit);
        assert!(told.contains(words), "{allow}: {told}");
    }
    home.write("proxy.toml", &format!("[spending]\n{spending}"));
    for (allow, limit, words) in [
        ("jobs", "5/day", "with --allow the client may make no call that pays"),
        ("tools", "0.0000001/day", "less than the token's smallest unit"),
        ("tools", "21/day", "spending.per_day lets all clients together pay 20"),
        ("tools", "101/month", "spending.per_month lets all clients together pay 100"),
    ] {
        let told = told(allow, ["--spend", limit]);
        assert!(told.contains(words), "{allow} {limit}: {told}");
    }
    for (allow, limit) in [("tools", "5/day"), ("credits_purchase", "21/month")] {
        assert_eq!(told(allow, ["--spend", limit]), "");
    }
    assert_eq!(told("tools", ["--max-credits", "5/day"]), "");
    for option in ["--spend", "--max-credits"] {
        let ran = home.run(&["client", "add", "x", "--allow", "all", option, "-5/day"]);
        ran.fails_at_length(2, &["its period, such as 5"]);
    }
}

#[test]
fn a_client_is_listed_with_its_limits() {
    let home = Home::new();
    let limits = ["--wallet", &WALLET.to_uppercase().replace("0X", "0x"), "--rate", "10/s"];
    let more = ["--max-reservations", "3", "--admin", "--expires", "2999-01-31T00:00:00Z"];
    let more = [&more[..], &["--max-credits", "500/day", "--spend", "2.5/day"]].concat();
    let before = Timestamp::now();
    add(&home, "ci", &[&limits[..], &more].concat()).result();
    let row = row(&home, "ci");
    let created = time(&row["created"]);
    assert!(created >= before - SignedDuration::from_millis(1) && created <= Timestamp::now());
    let expected = json!({
        "name": "ci",
        "access": "active",
        "allow": "jobs",
        "wallet": WALLET,
        "rate": "10/s",
        "max_reservations": 3,
        "max_credits": "500/day",
        "credits_left": "500",
        "spend": "2.5/day",
        "admin": true,
        "known_by": "token",
        "created": row["created"],
        "expires": "2999-01-31T00:00:00Z",
        "revoked": null,
        "last_used": null,
    });
    assert_eq!(row, expected);
    let table = format!(
        "NAME  ACCESS  ALLOW  KNOWN BY  LAST USE  EXPIRES               LIMITS\n\
         ci    active  jobs   token     never     2999-01-31T00:00:00Z  admin; wallet {WALLET}; \
         10/s; at most 3 reservations; 500/day of credits, 500 left; pays 2.5/day\n"
    );
    assert_eq!(home.run(&["client", "list"]).ok(), table);
}

#[test]
fn a_wallet_that_is_configured_does_not_bind_a_client() {
    let home = Home::new().with("AGENTPMT_PROXY_WALLET", WALLET);
    add(&home, "ci", &[]).result();
    assert_eq!(row(&home, "ci")["wallet"], Value::Null);
}

#[test]
fn a_length_of_time_ends_that_much_later() {
    let home = Home::new();
    let days = |days: i64| Timestamp::now() + SignedDuration::from_hours(24 * days);
    let earliest = days(30) - SignedDuration::from_millis(1);
    add(&home, "ci", &["--expires", "30d"]).result();
    let end = time(&row(&home, "ci")["expires"]);
    assert!(earliest <= end && end <= days(30), "{end}");
}

#[test]
fn a_user_id_or_a_certificate_stands_in_for_a_token() {
    let home = Home::new();
    let chain = format!("A comment.\n{CERTIFICATE}{}", CERTIFICATE.replace("MII", "AAA"));
    home.write("ci.pem", &chain);
    let uid = add(&home, "uid", &["--uid", "1001"]);
    let certificate = add(&home, "cert", &["--certificate", "ci.pem"]);
    assert_eq!((&*uid.stdout, &*certificate.stdout), ("", ""), "there is no token");
    assert!(uid.told().contains("user id 1001"));
    assert!(certificate.told().contains("certificate ci.pem"));
    assert_eq!(row(&home, "uid")["known_by"], "uid 1001");
    assert_eq!(row(&home, "cert")["known_by"], format!("certificate {CERTIFICATE_HASH}"));
    let both = add(&home, "both", &["--uid", "7", "--certificate", "ci.pem"]);
    both.fails_at_length(2, &["--uid", "--certificate", "cannot be used with"]);
    add(&home, "other", &["--uid", "1001"]).fails(73, &["client uid", "already"]);
}

#[test]
fn a_file_without_a_certificate_is_refused() {
    let home = Home::new();
    home.write("notes.pem", "-----BEGIN PRIVATE KEY-----\nMAAA\n-----END PRIVATE KEY-----\n");
    let ran = add(&home, "ci", &["--certificate", "notes.pem"]);
    ran.fails(65, &["notes.pem holds no certificate"]);
    add(&home, "ci", &["--certificate", "none.pem"]).fails(66, &["none.pem", "No such file"]);
    assert!(!home.path("state").exists());
}

#[test]
fn nothing_is_allowed_that_is_not_said() {
    let home = Home::new();
    let ran = home.run(&["client", "add", "ci"]);
    ran.fails(2, &["--allow jobs", "job_complete", "read"]);
    let ran = home.run(&["client", "add", "ci", "--allow", "job_lst"]);
    ran.fails_at_length(2, &["job_lst", "did you mean job_list?"]);
    assert!(!home.path("state").exists());
}

#[test]
fn what_makes_no_sense_is_wrong_usage() {
    let home = Home::new();
    for (option, value, words) in [
        ("--rate", "fast", "10/s"),
        ("--rate", "0/s", "10/s"),
        ("--max-reservations", "0", "at least 1"),
        ("--expires", "soon", "30d"),
        ("--expires", "-30d", "30d"),
        ("--expires", "2001-01-01T00:00:00Z", "to come"),
        ("--uid", "root", "whole number"),
    ] {
        let option = format!("{option}={value}");
        add(&home, "ci", &[&option]).fails_at_length(2, &[value, words]);
    }
    add(&home, "a b", &[]).fails_at_length(2, &["1 to 64 of the characters"]);
    add(&home, "local", &[]).fails(2, &["local is the name of"]);
    add(&home, "ci", &["--wallet", "0x12"]).fails_at_length(78, &["--wallet", "40 hexadecimal"]);
}

#[test]
fn a_revoked_client_stays_on_the_list_and_may_be_added_again() {
    let home = Home::new();
    let old = token(&add(&home, "ci", &[]).result());
    add(&home, "ci", &[]).fails(73, &["client ci is there already", "client revoke ci"]);
    let ran = home.run(&["client", "revoke", "ci"]);
    assert!(ran.stdout.is_empty() && ran.told().contains("ci is revoked"));
    home.run(&["client", "revoke", "ci"]).result();
    let list = home.run(&["client", "list"]).ok();
    assert!(list.contains("\nci    REVOKED  jobs   -  "), "{list}");
    assert_eq!(row(&home, "ci")["access"], "revoked");
    assert!(time(&row(&home, "ci")["revoked"]) <= Timestamp::now());
    let ran = add(&home, "ci", &[]);
    assert_ne!(token(&ran.stdout).hash(), old.hash());
    assert!(!ran.told().contains("first client"));
    assert_eq!(row(&home, "ci")["revoked"], Value::Null);
}

#[test]
fn the_last_client_that_is_removed_is_told_what_changes_with_it() {
    let home = Home::new();
    add(&home, "a", &[]).result();
    add(&home, "b", &[]).result();
    home.run(&["client", "remove", "a"]).fails(73, &["may still call", "client revoke a"]);
    for (name, last) in [("a", false), ("b", true)] {
        home.run(&["client", "revoke", name]).result();
        let ran = home.run(&["client", "remove", name]);
        assert_eq!(ran.stdout, "");
        let text = ran.told();
        assert!(text.contains(&format!("{name} is removed")), "{text}");
        assert_eq!(text.contains("may do everything again"), last, "{text}");
    }
    let ran = home.run(&["client", "list"]);
    assert_eq!((ran.code, &*ran.stdout), (Some(0), ""));
    assert!(ran.stderr.contains("client add NAME --allow jobs"), "{ran:?}");
}

#[test]
fn what_is_done_to_clients_is_on_record() {
    let home = Home::new();
    add(&home, "ci", &[]).result();
    add(&home, "ci", &[]).fails(73, &["already"]);
    home.run(&["client", "revoke", "ci"]).result();
    home.run(&["client", "revoke", "ci"]).result();
    home.run(&["client", "remove", "ci"]).result();
    let lines = home.run(&["journal", "tail", "--json"]).ok();
    let lines: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let deeds: Vec<_> = lines.iter().map(|line| line["action"].as_str().unwrap()).collect();
    assert_eq!(
        deeds,
        ["client_add", "client_revoke", "client_remove"],
        "what changed nothing is not"
    );
    let user = format!("uid {}", rustix::process::getuid().as_raw());
    for line in lines {
        assert_eq!((&line["kind"], &line["client"]), (&json!("admin"), &json!("ci")));
        assert_eq!(line["by"], user);
    }
    let text = home.run(&["journal", "tail", "--client", "ci"]).ok();
    assert!(text.lines().next().unwrap().contains(&user), "{text}");
    home.run(&["journal", "verify"]).result();
}

#[test]
fn a_client_whose_time_is_over_is_marked() {
    let home = Home::new();
    let clients = Clients::create(&home.path("state/proxy.db")).unwrap();
    let now = Timestamp::now();
    for (name, expires, uid) in [("old", now, 1), ("new", now + SignedDuration::from_hours(1), 2)] {
        let (name, expires) = (name.parse().unwrap(), Some(expires));
        let client = Client { name, expires, ..Client::local() };
        clients.add(&client, &Credential::Uid(uid), now).unwrap();
    }
    let list = home.run(&["client", "list"]).ok();
    let lines: Vec<_> = list.lines().collect();
    assert!(lines[1].starts_with("new   active "), "{list}");
    assert!(lines[2].starts_with("old   EXPIRED "), "{list}");
    assert_eq!(row(&home, "old")["access"], "expired");
}

#[test]
fn a_client_whose_token_nobody_saw_is_not_there() {
    let home = Home::new();
    let add = |redirect: &str| {
        let mut command = home.wrapped("sh");
        command.args(["-c", &format!("exec \"$@\" {redirect}"), "sh"]);
        command.arg(env!("CARGO_BIN_EXE_agentpmt-proxy"));
        home.run_as(command.args(["client", "add", "ci", "--allow", "jobs"]), Stdio::null())
    };
    for redirect in [">&-", ">/dev/null", ">/dev/full"] {
        if redirect != ">/dev/full" || Path::new("/dev/full").exists() {
            let ran = add(redirect);
            assert_eq!(ran.code, Some(74), "{redirect}: {ran:?}");
            assert!(ran.stderr.contains("standard output"), "{redirect}: {ran:?}");
        }
    }
    // The reader has gone when it is printed.
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = home.command();
    command.args(["client", "add", "ci", "--allow", "jobs"]).stdout(writer);
    assert_eq!(command.stderr(Stdio::null()).status().unwrap().code(), Some(74));
    token(&add("").result());
}

#[test]
fn a_certificate_that_is_no_regular_file_is_refused() {
    let home = Home::new();
    let made = Command::new("mkfifo").arg(home.path("pipe")).status();
    assert!(made.unwrap().success());
    let pipe = home.path("pipe").display().to_string();
    for path in ["/dev/zero", &pipe] {
        add(&home, "ci", &["--certificate", path]).fails(74, &["a regular file is needed"]);
    }
}

#[test]
fn a_client_that_is_not_there_is_told() {
    let home = Home::new();
    for command in ["revoke", "remove"] {
        home.run(&["client", command, "ci"]).fails(66, &["proxy.db: there is no such file"]);
    }
    home.run(&["client", "list"]).fails(66, &["proxy.db: there is no such file"]);
    assert!(!home.path("state").exists());
    add(&home, "ci", &[]).result();
    for command in ["revoke", "remove"] {
        let ran = home.run(&["client", command, "cd"]);
        ran.fails(66, &["there is no client cd", "client list"]);
    }
}

#[test]
fn a_change_of_a_state_that_no_running_proxy_uses_says_so() {
    let home = Home::with_wallet().with_password(binary::PASSWORD);
    let mut server = home.serve(&["serve"]);
    let told = |ran: Ran, state: &str| {
        let text = ran.told();
        let state = home.path(state).display().to_string();
        let line = text.lines().find(|line| line.contains("no running proxy")).unwrap();
        assert!(line.contains(&state) && line.contains("--state"), "{text}");
    };
    told(add(&home, "ci", &["--state", "other"]), "other");
    told(add(&home, "bot", &["--state", "other", "--json"]), "other");
    told(home.run(&["client", "revoke", "ci", "--state", "other"]), "other");
    told(home.run(&["client", "remove", "ci", "--state", "other"]), "other");
    server.kill();
    told(add(&home, "ci", &[]), "state");
}

#[test]
fn a_wallet_without_a_key_is_warned_of() {
    let home = Home::with_wallet();
    let other = "0x00000000000000000000000000000000000000aa";
    let ran = add(&home, "ci", &["--wallet", other]);
    assert!(ran.stderr.contains("warning: ci has no wallet that it may use: "), "{ran:?}");
    assert!(ran.stderr.contains(&format!("no key file of {other}")), "{ran:?}");
    token(&ran.result());
    assert!(!add(&home, "bot", &["--wallet", binary::WALLET]).told().contains("warning"));
    let mut sandbox = home.serve(&["serve", "--sandbox", "--state", "mine"]);
    let line = std::iter::repeat_with(|| sandbox.line()).find(|line| line.contains("wallet"));
    let own = line.unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let ran = add(&home, "bot", &["--wallet", &own, "--state", "mine"]);
    assert!(!ran.stderr.contains("warning"), "{ran:?}");
}

#[test]
fn the_example_of_the_readme_adds_a_client() {
    let readme = include_str!("../../README.md");
    let line = readme.lines().find_map(|line| line.strip_prefix("agentpmt-proxy client add "));
    let words: Vec<_> = ["client", "add"].into_iter().chain(line.unwrap().split(' ')).collect();
    let home = Home::new();
    token(&home.run(&words).result());
}
