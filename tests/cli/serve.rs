//! `serve` and `sandbox`: what must be there before they start, what they print, how they end.

use std::{
    io::{ErrorKind, Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::PermissionsExt,
};

use crate::binary::{self, Home, PASSWORD, Server, WALLET};

const DOWN: &str = "http://127.0.0.1:1";

#[test]
fn without_a_wallet_it_says_how_to_get_one() {
    let ran = Home::new().with_password(PASSWORD).run(&["serve", "--listen", "127.0.0.1:0"]);
    ran.fails(66, &["no wallet", "wallet new", "wallet import", "serve --sandbox"]);
}

#[test]
fn one_of_several_wallets_has_to_be_chosen() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("keys/other.json", include_str!("../vectors/keystore/wiki-scrypt.json"));
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    home.run(&serve).fails(66, &["several", WALLET, "--wallet"]);
    let unknown = "0x00000000000000000000000000000000000000aa";
    home.run(&[&serve[..], &["--wallet", unknown]].concat()).fails(66, &[unknown, "wallet list"]);
    home.serve(&["serve", "--wallet", WALLET]).is_ready(WALLET);
}

#[test]
fn a_key_file_that_is_open_to_others_is_refused() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.set_mode("keys/wallet.json", 0o640);
    let ran = home.run(&["serve", "--listen", "127.0.0.1:0"]);
    ran.fails(77, &["mode 640", "chmod 600 /", "/keys/wallet.json"]);
}

#[test]
fn a_file_that_is_no_key_file_is_refused() {
    let home = Home::new().with_password(PASSWORD);
    home.write("keys/notes.txt", "remember the milk");
    let ran = home.run(&["serve", "--listen", "127.0.0.1:0"]);
    ran.fails(65, &["keys/notes.txt", "no key file"]);
    ran.keeps(&["milk"]);
}

#[test]
fn a_wrong_password_is_refused_and_not_repeated() {
    for wrong in ["incorrect horse", ""] {
        let home = Home::with_wallet().with_password(wrong);
        let ran = home.run(&["serve", "--listen", "127.0.0.1:0"]);
        ran.fails(77, &["keys/wallet.json", "the password does not open it"]);
        assert_eq!(ran.stderr.contains("empty"), wrong.is_empty(), "{ran:?}");
        ran.keeps(&["incorrect horse"]);
    }
    for text in ["", "\n", "\r\nsecond line"] {
        let home = Home::with_wallet();
        home.write("secret", text);
        let ran = home.run(&["serve", "--listen", "127.0.0.1:0", "--password-file", "secret"]);
        ran.fails(77, &["the password came from secret", "empty"]);
    }
}

#[test]
fn without_password_and_terminal_it_says_where_to_put_one() {
    let ran = Home::with_wallet().run_without_terminal(&["serve", "--listen", "127.0.0.1:0"]);
    let Some(ran) = ran else { return };
    ran.fails(66, &["AGENTPMT_PROXY_PASSWORD", "--password-file"]);
}

#[test]
fn a_password_file_that_is_not_there_is_named() {
    let args = ["serve", "--listen", "127.0.0.1:0", "--password-file", "none"];
    Home::with_wallet().run(&args).fails(66, &["password", "none", "No such file"]);
}

#[test]
fn a_port_in_use_is_told_before_the_password_is_asked_for() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for command in [&["serve"] as &[&str], &["serve", "--sandbox"], &["sandbox"]] {
        let ran = Home::with_wallet().run(&[command, &["--listen", &address]].concat());
        ran.fails(69, &[&address, "in use", "--listen"]);
    }
}

#[test]
fn a_sandbox_with_no_room_for_its_folder_says_where_that_was_to_be() {
    let ran = Home::new().with("TMPDIR", "/nonesuch").run(&["serve", "--sandbox"]);
    ran.fails(
        73,
        &["folder in /nonesuch (TMPDIR): No such file", "set TMPDIR, or name a folder with"],
    );
    ran.keeps(&["agentpmt-sandbox-"]);
}

#[test]
fn it_is_ready_while_the_upstream_is_down() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let home = home.with("AGENTPMT_PROXY_UPSTREAM__TIMEOUT", "1s");
    let mut server = home.serve(&["serve", "--upstream", DOWN]);
    assert!(server.line().ends_with(DOWN));
    assert!(server.line().ends_with(WALLET));
    server.is_ready(WALLET);
    let (status, body) = server.request("POST", "/api/external/jobs/list");
    assert!(status == 502 && body.contains("upstream"), "{status} {body}");
}

#[test]
fn the_password_comes_from_a_file() {
    let home = Home::with_wallet();
    home.write("password", &format!("{PASSWORD}\nnot this line\n"));
    home.serve(&["serve", "--password-file", "password"]).is_ready(WALLET);
}

#[test]
fn a_line_break_at_the_end_of_a_password_is_left_out() {
    for end in ["\n", "\r\n"] {
        let home = Home::with_wallet().with_password(&format!("{PASSWORD}{end}"));
        home.serve(&["serve"]).is_ready(WALLET);
    }
    let home = Home::with_wallet().with_password(&format!("{PASSWORD}\n\n"));
    home.run(&["serve", "--listen", "127.0.0.1:0"]).fails(77, &["does not open"]);
}

#[test]
fn the_password_comes_from_a_systemd_credential() {
    let home = Home::with_wallet();
    home.write("credentials/agentpmt-proxy.password", PASSWORD);
    let credentials = home.path("credentials");
    let home = home.with("CREDENTIALS_DIRECTORY", credentials.to_str().unwrap());
    home.serve(&["serve"]).is_ready(WALLET);
}

#[test]
fn it_ends_well_when_told_to() {
    let home = Home::with_wallet().with_password(PASSWORD);
    for signal in ["TERM", "INT"] {
        for command in [&["serve"] as &[&str], &["serve", "--sandbox"], &["sandbox"]] {
            // Its first line is all that was waited for: the signal must be caught from there on.
            let ran = home.serve(command).signal(signal);
            assert_eq!(ran.code, Some(0), "{command:?} {signal}: {ran:?}");
            ran.keeps(&[PASSWORD]);
        }
    }
}

#[test]
fn the_sandbox_prints_requests_that_work() {
    let mut server = Home::new().serve(&["serve", "--sandbox"]);
    assert!(server.line().contains("nothing leaves this machine"));
    let wallet = server.line();
    let (_, wallet) = wallet.split_once("wallet    ").unwrap();
    server.is_ready(wallet);
    assert_eq!(server.line(), "  callers   every program on this machine");
    let line = server.line();
    let (state, add) = line.strip_prefix("  state     ").unwrap().split_once("  (").unwrap();
    let command = format!("agentpmt-proxy client add NAME --allow jobs --state {state})");
    assert!(state.starts_with('/') && add.ends_with(&command), "{line}");
    assert!(server.line().contains("/sandbox/faults"));
    assert_eq!(server.line(), "");
    assert!(server.line().starts_with("Try it"));
    for _ in 0..3 {
        let line = server.line();
        let url = format!("curl -X POST http://{}", server.address);
        let path = line.trim().strip_prefix(&url).unwrap_or_else(|| panic!("{line}"));
        let (status, body) = server.request("POST", path);
        assert_eq!(status, 200, "{line}: {body}");
        assert!(serde_json::from_str::<serde_json::Value>(&body).is_ok(), "{line}: {body}");
    }
}

#[test]
fn with_clients_the_sandbox_prints_requests_with_a_token() {
    let home = Home::new();
    home.run(&["client", "add", "ci", "--allow", "jobs", "--state", "mine"]).result();
    let mut server = home.serve(&["serve", "--sandbox", "--state", "mine"]);
    let line = std::iter::repeat_with(|| server.line()).find(|line| line.contains("Try it"));
    assert_eq!(line.unwrap(), "Try it from another shell, with the token of a client:");
    let line = server.line();
    assert!(line.starts_with("  curl -H 'Authorization: Bearer TOKEN' -X POST http://"), "{line}");
}

/// The folder that a sandbox prints as that of its state.
fn printed_state(server: &mut Server) -> String {
    let line = std::iter::repeat_with(|| server.line()).find(|line| line.starts_with("  state "));
    line.unwrap().split_whitespace().nth(1).unwrap().to_owned()
}

const LIST: &str = "/api/external/jobs/list";

#[test]
fn the_sandbox_has_the_clients_and_the_journal_of_its_state() {
    let home = Home::new();
    home.write("proxy.toml", "state = 'real'");
    for named in [&["--state", "mine"][..], &[]] {
        let mut server = home.serve(&[&["serve", "--sandbox"], named].concat());
        let state = printed_state(&mut server);
        assert_eq!(server.request("POST", LIST).0, 200);
        let add = ["client", "add", "ci", "--allow", "jobs", "--state", &state];
        let added = home.run(&add);
        assert!(!added.stderr.contains("no running proxy"), "{added:?}");
        let token = added.result();
        assert_eq!(server.request("POST", LIST).0, 401);
        let token = format!("authorization: Bearer {}\r\n", token.trim_end());
        assert_eq!(server.request_with("POST", LIST, &token).0, 200);
        home.run(&["client", "revoke", "ci", "--state", &state]).result();
        assert_eq!(server.request_with("POST", LIST, &token).0, 401);
        let journal = home.run(&["journal", "export", "--state", &state]).ok();
        for client in ["local", "ci"] {
            let record = format!("\"client\":\"{client}\",\"kind\":\"signed\"");
            assert!(journal.contains(&record), "{journal}");
        }
    }
    assert!(!home.path("real").exists(), "that of the configuration is another proxy's");
}

#[test]
fn a_journal_that_shows_nothing_says_why() {
    let home = Home::new();
    let server = home.serve(&["serve", "--sandbox", "--state", "mine"]);
    let tail =
        |more: &[&str]| home.run(&[&["journal", "tail", "--state", "mine"], more].concat()).told();
    assert!(tail(&[]).contains("no call was signed or refused with this state yet"));
    assert_eq!(server.request("POST", LIST).0, 200);
    // A read is on record soon after its answer.
    binary::until(|| tail(&[]).is_empty());
    assert!(tail(&["--client", "ci"]).contains("no record matches --client, --job, --changes or"));
}

#[test]
fn a_sandbox_with_a_state_keeps_its_wallet_and_one_without_leaves_nothing() {
    let home = Home::new();
    let sandbox = || home.serve(&["serve", "--sandbox", "--state", "mine"]);
    let wallet = |server: &Server| server.request("POST", "/api/external/auth/session").1;
    let server = sandbox();
    let before = wallet(&server);
    server.signal("TERM");
    let [key] = &std::fs::read_dir(home.path("mine/sandbox-wallet"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect::<Vec<_>>()[..]
    else {
        panic!("one key")
    };
    assert_eq!(std::fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
    let address = key.to_str().unwrap().rsplit_once("--").unwrap().1;
    assert!(before.contains(address), "{before}");
    assert!(wallet(&sandbox()).contains(address));

    let mut server = home.serve(&["serve", "--sandbox"]);
    let state = printed_state(&mut server);
    assert!(!wallet(&server).contains(address));
    assert_eq!(std::fs::metadata(&state).unwrap().permissions().mode() & 0o777, 0o700);
    server.signal("TERM");
    assert!(!std::fs::exists(&state).unwrap());
}

#[test]
fn a_sandbox_that_requires_no_clients_although_it_was_told_to_says_so() {
    let home = Home::new();
    let said = |config: &str, listen: &[&str]| {
        home.write("proxy.toml", config);
        let server = home.serve(&[&["serve", "--sandbox"], listen].concat());
        assert_eq!(server.request("POST", LIST).0, 200);
        server.signal("TERM").stderr.matches("clients = \"required\" is ignored").count()
    };
    assert_eq!(said("clients = 'required'", &[]), 1);
    assert_eq!(said("clients = 'optional'", &[]), 0);
    // The command line goes before what would be a mistake by itself.
    assert_eq!(said("clients = 'required'\nlisten = '0.0.0.0:0'", &["--listen", "127.0.0.1:0"]), 1);
}

#[test]
fn the_sandbox_by_itself_is_an_upstream() {
    let mut sandbox = Home::new().serve(&["sandbox", "--session", "10s"]);
    let url = format!("http://{}", sandbox.address);
    assert!(sandbox.line().ends_with(&format!("agentpmt-proxy serve --upstream {url}")));
    let home = Home::with_wallet().with_password(PASSWORD);
    let server = home.serve(&["serve", "--upstream", &url]);
    let (status, body) = server.request("POST", "/api/external/jobs/list");
    assert!(status == 200 && body.contains("job_id"), "{status} {body}");
}

#[test]
fn connections_that_ask_for_nothing_make_room_for_those_that_do() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let mut shell = home.wrapped("sh");
    let program = env!("CARGO_BIN_EXE_agentpmt-proxy");
    shell.args(["-c", "ulimit -n 96; exec \"$@\"", "sh", program, "serve"]);
    let server = home.serve_by(&mut shell);
    let connect = |number: usize| {
        let mut stream = TcpStream::connect(server.address).unwrap();
        // Some say nothing, some begin to ask, some asked before. One that had to make room already
        // does not hear it.
        let head = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let _ = stream.write_all(&head[..[0, 5, head.len()][number % 3]]);
        let mut byte = [0];
        while number % 3 == 2 && stream.read(&mut byte).is_ok_and(|read| read > 0 && byte != *b"}")
        {
        }
        stream
    };
    let mut idle: Vec<_> = (0..150).map(connect).collect();
    server.is_ready(WALLET);
    let last = idle.last_mut().unwrap();
    last.set_nonblocking(true).unwrap();
    assert_eq!(last.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock, "it may still ask");
}
