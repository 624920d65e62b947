//! The command line: settings, `check`, `explain`, the help, and what wrong use is told.

use std::{iter, net::TcpListener};

use agentpmt_proxy::{
    config::Config,
    manual::{TOPICS, Topic},
};

use crate::binary::{self, Home, PASSWORD, WALLET};

const HASH: &str = "4879729d88891f52ee7d8b54ea2f618e20a75b3817e55e0dbeb84c2bca8f3d93";

/// Every command, as its words.
const COMMANDS: [&[&str]; 38] = [
    &[],
    &["serve"],
    &["sandbox"],
    &["wallet"],
    &["wallet", "new"],
    &["wallet", "import"],
    &["wallet", "list"],
    &["wallet", "show"],
    &["wallet", "passwd"],
    &["wallet", "export"],
    &["explain"],
    &["check"],
    &["approvals"],
    &["approvals", "list"],
    &["approvals", "approve"],
    &["approvals", "deny"],
    &["events"],
    &["mcp"],
    &["mcp", "config"],
    &["payments"],
    &["payments", "list"],
    &["payments", "end"],
    &["freeze"],
    &["thaw"],
    &["backup"],
    &["wait"],
    &["openapi"],
    &["manual"],
    &["journal"],
    &["journal", "tail"],
    &["journal", "verify"],
    &["journal", "export"],
    &["journal", "archive"],
    &["client"],
    &["client", "add"],
    &["client", "list"],
    &["client", "revoke"],
    &["client", "remove"],
];

#[test]
fn every_command_has_help_with_an_example() {
    for command in COMMANDS {
        let help = Home::new().run(&[command, &["--help"]].concat()).ok();
        let (_, example) = help.split_once("\nExample").unwrap_or_else(|| panic!("{help}"));
        assert!(example.contains(&["agentpmt-proxy", &command.join(" ")].join(" ")), "{help}");
    }
}

#[test]
fn every_command_is_among_the_tested_ones() {
    let groups: [(&[&str], usize); 7] = [
        (&[], COMMANDS.len() - 1 - 20),
        (&["wallet"], 6),
        (&["journal"], 4),
        (&["client"], 4),
        (&["approvals"], 3),
        (&["mcp"], 1),
        (&["payments"], 2),
    ];
    for (above, below) in groups {
        let help = Home::new().run(&[above, &["--help"]].concat()).ok();
        let (_, list) = help.split_once("\nCommands:\n").unwrap();
        let (list, _) = list.split_once("\n\n").unwrap();
        let names = list.lines().filter_map(|line| line.split_whitespace().next());
        let names: Vec<_> = names.filter(|name| *name != "help").collect();
        assert_eq!(names.len(), below, "{help}");
        for name in names {
            assert!(COMMANDS.contains(&[above, &[name]].concat().as_slice()), "{name}");
        }
    }
}

#[test]
fn no_command_is_answered_with_the_help() {
    for args in [&[] as &[&str], &["wallet"]] {
        Home::new().run(args).fails_at_length(2, &["Usage:", "Commands:", "Example"]);
    }
}

#[test]
fn the_manual_is_printed_a_topic_at_a_time() {
    let home = Home::new();
    let list = home.run(&["manual"]).ok();
    assert_eq!(list.lines().count(), TOPICS.len());
    for Topic { name, text, .. } in TOPICS {
        let listed = |line: &str| line.split_whitespace().next() == Some(name) && line.len() < 100;
        assert!(list.lines().any(listed), "{list}");
        assert_eq!(home.run(&["manual", name]).ok(), *text);
    }
    home.run(&["manual", "eror"]).fails_at_length(2, &["'eror'", "similar", "'errors'"]);
}

#[test]
fn an_unknown_command_or_option_is_wrong_usage() {
    let home = Home::new();
    home.run(&["server"]).fails_at_length(2, &["'server'", "similar", "'serve'"]);
    home.run(&["frobnicate"]).fails_at_length(2, &["'frobnicate'", "--help"]);
    home.run(&["serve", "--port", "80"]).fails_at_length(2, &["'--port'", "--help"]);
}

#[test]
fn a_sandbox_has_no_other_upstream_and_no_other_wallet() {
    let home = Home::new();
    for option in ["--upstream", "--wallet", "--keys", "--password-file"] {
        let ran = home.run(&["serve", "--sandbox", option, "x"]);
        ran.fails_at_length(2, &["'--sandbox' cannot be used with", option]);
    }
}

#[test]
fn a_fault_without_a_sandbox_is_refused_whatever_else_is_given() {
    let home = Home::with_wallet();
    home.write("pw", PASSWORD);
    let conflicting = [
        ["--password-file", "pw"],
        ["--upstream", "http://127.0.0.1:1"],
        ["--wallet", WALLET],
        ["--keys", "keys"],
    ];
    let says = "--fault needs --sandbox: faults belong to the sandbox, not to a real upstream";
    let all = conflicting.concat();
    for options in conflicting.iter().map(|options| &options[..]).chain([&all[..], &[]]) {
        let serve = ["serve", "--listen", "127.0.0.1:0", "--fault", "slow"];
        home.run(&[&serve, options].concat()).fails(2, &[says]);
    }
}

#[test]
fn a_proxy_that_would_call_itself_is_not_started() {
    let home = Home::with_wallet().with_password(PASSWORD);
    for url in ["http://127.0.0.1:9961", "http://localhost:9961"] {
        for command in ["serve", "check"] {
            let ran = home.run(&[command, "--listen", "127.0.0.1:9961", "--upstream", url]);
            let says = "--upstream: it is one of the addresses that this proxy listens on; set it to the API";
            ran.fails_at_length(78, &[says]);
        }
    }
}

#[test]
fn an_address_that_others_reach_is_refused() {
    let home = Home::with_wallet().with_password(PASSWORD);
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        for command in [&["serve"] as &[&str], &["serve", "--sandbox"], &["check"]] {
            let ran = home.run(&[command, &["--listen", address]].concat());
            let ways = ["tls.certificate and tls.key", "behind_tls_proxy = true", "loopback only"];
            ran.fails_at_length(78, &[&["--listen: ", address], &ways[..]].concat());
        }
        let ran = home.run(&["sandbox", "--listen", address]);
        ran.fails_at_length(2, &["--listen", "loopback only"]);
    }
}

#[test]
fn an_address_that_others_reach_is_refused_without_a_client_even_where_a_proxy_has_tls() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let home = home.with("AGENTPMT_PROXY_BEHIND_TLS_PROXY", "true");
    for command in ["serve", "check"] {
        let ran = home.run(&[command, "--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"]);
        ran.fails(78, &["0.0.0.0:", "no client", "agentpmt-proxy client add NAME --allow jobs"]);
        let ran = home.run(&[command, "--listen", "127.0.0.1:0"]);
        ran.fails(78, &["behind_tls_proxy", "no client", "client add"]);
    }
}

#[test]
fn plain_http_to_another_machine_is_refused() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let ran = home.run(&["serve", "--upstream", "http://example.com"]);
    ran.fails_at_length(78, &["--upstream: ", "use https"]);
}

#[test]
fn an_unknown_setting_is_met_with_its_line_and_the_nearest_one() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", "\nlisten = \"127.0.0.1:0\"\n[upstraem]\n");
    let ran = home.run(&["serve"]);
    ran.fails_at_length(78, &["proxy.toml:3: upstraem: no such setting; did you mean upstream?"]);
}

#[test]
fn every_mistake_of_every_place_is_told_in_one_run() {
    let home = Home::with_wallet().with("AGENTPMT_PROXY_LISTE", "x");
    home.write("other.toml", "lisen = \"x\"\nkeys = 3\nwallet = \"hunter2\"\n");
    let ran = home.run(&["serve", "--config", "other.toml", "--upstream", "http://example.com"]);
    let places = [
        "\nother.toml:1: lisen: ",
        "\nother.toml:2: keys: ",
        "\nother.toml:3: wallet: ",
        "\nAGENTPMT_PROXY_LISTE: no such setting; did you mean AGENTPMT_PROXY_LISTEN?",
        "\n--upstream: ",
    ];
    ran.fails_at_length(78, &places);
    assert_eq!(ran.stderr.lines().count(), 1 + places.len(), "{ran:?}");
    ran.keeps(&["hunter2"]);
}

#[test]
fn a_configuration_that_is_named_must_be_there() {
    let ran = Home::with_wallet().run(&["serve", "--config", "none.toml"]);
    ran.fails_at_length(78, &["none.toml: cannot be read: "]);
    let ran = Home::with_wallet().with("AGENTPMT_PROXY_CONFIG", "none.toml").run(&["check"]);
    ran.fails_at_length(78, &["none.toml: cannot be read: "]);
}

#[test]
fn explain_prints_payload_hash_and_message() {
    let text = Home::with_wallet().run(&["explain", "job_list"]).ok();
    let expected = format!(
        "POST /api/external/jobs/list\n\
         wallet   {WALLET}\n\
         payload  {{\"limit\":50,\"skip\":0}}\n\
         sha-256  {HASH}\n\
         message\n  \
           agentpmt-external\n  \
           wallet:{WALLET}\n  \
           session:<session_nonce>\n  \
           request:<request_id>\n  \
           action:job_list\n  \
           product:-\n  \
           payload:{HASH}\n"
    );
    assert_eq!(text, expected);
}

#[test]
fn explain_takes_ids_and_then_the_body() {
    let args = ["explain", "job_complete", "job-7", "{\"proof_text\": \"done\"}"];
    let text = Home::new().run(&args).ok();
    for line in [
        "POST /api/external/jobs/job-7/complete\n",
        "payload  {\"proof_text\":\"done\"}\n",
        "wallet   not known; zeros stand for its address\n",
        "  wallet:0x0000000000000000000000000000000000000000\n",
        "  action:job_complete\n  product:job-7\n",
    ] {
        assert!(text.contains(line), "{line:?} in {text}");
    }
    let (_, message) = text.split_once("message\n").unwrap();
    assert_eq!(message.lines().count(), 7);
}

#[test]
fn explain_as_json_has_the_same_parts() {
    let explained = Home::with_wallet().run(&["explain", "--json", "job_list"]).json();
    assert_eq!(explained["signed"], true);
    assert_eq!(explained["path"], "/api/external/jobs/list");
    assert_eq!(explained["payload"], r#"{"limit":50,"skip":0}"#);
    assert_eq!(explained["hash"], HASH);
    let message = explained["message"].as_str().unwrap();
    assert_eq!(message.lines().count(), 7);
    assert!(message.ends_with(&format!("payload:{HASH}")), "{message}");
}

#[test]
fn explain_shows_the_typed_data_that_would_pay_a_demand() {
    let home = Home::with_wallet();
    let url = "https://a.example/api/external/tools/a/actions/b/invoke";
    let demand = serde_json::json!({ "x402Version": 2, "resource": { "url": url }, "accepts": [{
        "scheme": "exact",
        "network": "eip155:1",
        "amount": "5",
        "asset": "0x2222222222222222222222222222222222222222",
        "payTo": "0x1111111111111111111111111111111111111111",
        "maxTimeoutSeconds": 60,
        "extra": { "name": "T", "version": "1" },
    }] })
    .to_string();
    let explain = |demand: &str| home.run(&["explain", "tool_pay", "a", "b", "--demand", demand]);
    explain(&demand).fails(78, &["[spending]"]);
    let config = r#"
        [spending]
        wallet = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"
        networks = "eip155:1"
        payees = "0x1111111111111111111111111111111111111111"
        resources = "https://a.example/api/external/tools/a/actions/b/invoke"
        max_per_call = "5"
        per_day = "5"
        per_month = "5"
        [[spending.assets]]
        address = "0x2222222222222222222222222222222222222222"
        decimals = 0
        name = "T"
        version = "1"
    "#;
    home.write("proxy.toml", config);
    let typed_data = explain(&demand).json();
    assert_eq!(typed_data["primaryType"], "TransferWithAuthorization");
    assert_eq!(typed_data["domain"]["chainId"], 1);
    assert_eq!(typed_data["message"]["value"], "5");
    let more = demand.replace("\"5\"", "\"6\"");
    explain(&more).fails(65, &["spending.max_per_call allows 5", "nothing would be paid"]);
    explain("e30=").fails(65, &["a field is missing"]);
}

#[test]
fn explain_says_that_a_workflow_call_is_not_signed() {
    let home = Home::new();
    let text = home.run(&["explain", "job_workflow_create", "job-7"]).ok();
    assert!(text.contains("not signed") && text.contains("workflow token"), "{text}");
    let explained = home.run(&["explain", "job_workflow_create", "job-7", "--json"]).json();
    assert_eq!(explained["signed"], false);
    assert!(explained.get("message").is_none() && explained.get("hash").is_none());
}

#[test]
fn explain_refuses_what_is_no_call() {
    let home = Home::new();
    home.run(&["explain", "job_lst"])
        .fails_at_length(2, &["'job_lst'", "job_reserve", "similar", "'job_list'"]);
    home.run(&["explain", "job_status", "a b"]).fails(65, &["job_id \"a b\" cannot", "1 to 128"]);
    home.run(&["explain", "job_status", ""]).fails(65, &["job_id is empty; an id is"]);
    home.run(&["explain", "job_status"]).fails(2, &["/jobs/{job_id}/status", "not 0"]);
    home.run(&["explain", "job_list", "job-7", "{}"]).fails(2, &["/jobs/list", "takes no id"]);
    home.run(&["explain", "job_list", "{"]).fails(65, &["the body", "not JSON"]);
    home.run(&["explain", "job_list", "{\"limit\": 0}"]).fails(65, &["limit", "at least 1"]);
}

#[test]
fn explain_says_which_id_the_body_stands_in_for() {
    let home = Home::new();
    home.run(&["explain", "job_complete", "{\"proof_text\": \"done\"}"]).fails(
        2,
        &["job_complete needs a job_id before", "as in explain job_complete JOB_ID '{…}'"],
    );
    let update = home.run(&["explain", "job_workflow_update", "job-7", "{}"]);
    update.fails(2, &["needs a job_id and a workflow_id before", "JOB_ID WORKFLOW_ID '{…}'"]);
}

#[test]
fn explain_refuses_a_wallet_as_the_proxy_does() {
    let home = Home::with_wallet();
    let body = |wallet: &str| format!("{{\"wallet_address\": \"{wallet}\"}}");
    home.run(&["explain", "job_list", &body("0x1")])
        .fails(65, &["in the body is 0x1, but", WALLET]);
    home.run(&["explain", "job_complete", "job-7", &body("0x1")]).fails(65, &["0x1", WALLET]);
    let unsigned = home.run(&["explain", "job_workflow_create", "job-7", &body("0x1")]);
    assert!(unsigned.ok().contains("\"wallet_address\":\"0x1\""));
    home.run(&["explain", "job_list", &body(WALLET)]).ok();
}

#[test]
fn check_refuses_what_serve_could_not_write_or_listen_on() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("file", "");
    let listen = ["--listen", "unix:nonesuch/p.sock"];
    let group = ["--config", "group.toml", "--listen", "unix:p.sock"];
    home.write("group.toml", "[socket]\ngroup = 'nonesuch'");
    for (options, code, says) in [
        (&["--state", "file/state"][..], 74, "file/state/proxy.db: cannot"),
        (&["--state", "file"], 74, "file/proxy.db: cannot"),
        (&listen, 73, "the folder nonesuch does not exist; make it, or choose another path"),
        (&["--listen", "unix:file"], 73, "file is not a socket"),
        (&group, 78, "this machine has no group nonesuch"),
    ] {
        for command in ["check", "serve"] {
            let place: &[&str] = match (command, options.contains(&"--listen")) {
                ("serve", false) => &["--listen", "127.0.0.1:0"],
                _ => &[],
            };
            home.run(&[&[command], options, place].concat()).fails(code, &[says]);
        }
    }
    if rustix::process::geteuid().is_root() {
        return eprintln!("not tried: root may write anywhere");
    }
    home.write("closed/file", "");
    home.set_mode("closed", 0o500);
    home.run(&["check", "--state", "closed/state"]).fails(74, &["cannot write to its folder"]);
}

#[test]
fn check_shows_what_serve_would_do() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", "listen = \"127.0.0.1:9000\"\n");
    let text = home.run(&["check"]).ok();
    let words = text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    let words: Vec<_> = words.collect();
    let key_file = home.path("keys/wallet.json");
    let expected: [Vec<&str>; 10] = [
        vec!["configuration", "proxy.toml"],
        vec!["listen", "http://127.0.0.1:9000"],
        vec!["callers", "every", "program", "on", "this", "machine"],
        vec!["state", "state"],
        vec!["upstream", "https://www.agentpmt.com"],
        vec!["wallet", WALLET],
        vec!["key_file", key_file.to_str().unwrap()],
        vec!["unlock_memory", "1", "MiB"],
        vec!["password_from", "AGENTPMT_PROXY_PASSWORD"],
        vec!["payments", "none,", "without", "[spending]"],
    ];
    assert_eq!(words, expected);
    let checked = home.run(&["check", "--json"]).json();
    assert!(checked["payments"].is_null());
    for row in &expected[..9] {
        assert_eq!(checked[row[0]], row[1..].join(" "));
    }
    let listen = ["--listen", "[::1]:0", "--listen", "unix:p,q.sock", "--listen", "systemd"];
    let checked = home.run(&[&["check", "--json"], &listen[..]].concat()).json();
    assert_eq!(checked["listen"], "http://[::1]:0, unix:p,q.sock, systemd");
    let home = home.with("AGENTPMT_PROXY_LISTEN", "['unix:r,s.sock', 'systemd']");
    assert_eq!(home.run(&["check", "--json"]).json()["listen"], "unix:r,s.sock, systemd");
}

#[test]
fn every_option_for_a_setting_is_the_one_in_the_table() {
    let options: Vec<_> = Config::options().collect();
    // No setting with an option takes this.
    let wrong: Vec<_> = options.iter().map(|option| format!("{option}=~x")).collect();
    let args = iter::once("check").chain(wrong.iter().map(String::as_str));
    let ran = Home::new().run(&args.collect::<Vec<_>>());
    let said: Vec<_> = options.iter().map(|option| format!("\n{option}: ")).collect();
    ran.fails_at_length(78, &said.iter().map(String::as_str).collect::<Vec<_>>());
}

#[test]
fn check_leaves_out_of_json_what_is_not_known() {
    let home = Home::new();
    let cast = include_str!("../vectors/keystore/cast-shaped.json");
    home.write("keys/wallet.json", cast);
    let text = home.run(&["check"]).ok();
    assert!(text.contains("no file; defaults") && text.contains("once it is unlocked"), "{text}");
    let checked = home.run(&["check", "--json"]).json();
    assert!(checked["wallet"].is_null() && checked["configuration"].is_null(), "{checked}");
}

#[test]
fn check_listens_on_nothing_and_sends_nothing() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = TcpListener::bind("127.0.0.1:0").unwrap();
    let [listen, url] = [&taken, &upstream].map(|it| it.local_addr().unwrap().to_string());
    let home = Home::with_wallet();
    home.run(&["check", "--listen", &listen, "--upstream", &format!("http://{url}")]).ok();
    upstream.set_nonblocking(true).unwrap();
    assert!(upstream.accept().is_err());
}

#[test]
fn check_fails_where_serve_would() {
    Home::new().run(&["check"]).fails(66, &["no wallet", "wallet new", "wallet import"]);
    let home = Home::with_wallet();
    home.run(&["check", "--password-file", "none"]).fails(66, &["password", "none"]);
    home.run(&["check", "--listen", "8402"]).fails_at_length(78, &["--listen: "]);
    home.set_mode("keys/wallet.json", 0o644);
    home.run(&["check"]).fails(77, &["chmod 600 /", "/keys/wallet.json"]);
    home.write("keys/wallet.json", "{}");
    home.run(&["check"]).fails(65, &["keys/wallet.json", "no key file"]);
}

#[test]
fn a_state_that_others_may_change_is_refused() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let token = home.run(&["client", "add", "ci", "--allow", "jobs"]).result();
    assert!(token.starts_with("apmt_"));
    home.serve(&["serve"]).signal("TERM");
    let commands =
        [&["serve", "--listen", "127.0.0.1:0"] as &[&str], &["client", "list"], &["check"]];
    for (name, mode) in [
        ("state", 0o707),
        ("state", 0o1777),
        ("state/proxy.db", 0o606),
        ("state/proxy.db-wal", 0o602),
        ("state/clients-required", 0o606),
        ("state/journal-head", 0o606),
    ] {
        home.set_mode(name, mode);
        let remedy = if mode == 0o1777 { "a folder inside it" } else { "run: chmod go-w" };
        let mode = format!("mode {:03o}", mode & 0o777);
        for command in commands {
            home.run(command).fails(77, &[name, "may be changed", &mode, remedy]);
        }
        home.set_mode(name, 0o755);
    }
    home.run(&["client", "list"]).ok();
}

#[test]
fn the_variables_of_a_kubernetes_service_are_no_settings() {
    let mut home = Home::with_wallet();
    for (name, value) in [
        ("AGENTPMT_PROXY_PORT", "tcp://10.96.0.17:8402"),
        ("AGENTPMT_PROXY_SERVICE_HOST", "10.96.0.17"),
        ("AGENTPMT_PROXY_SERVICE_PORT", "8402"),
        ("AGENTPMT_PROXY_SERVICE_PORT_HTTP", "8402"),
        ("AGENTPMT_PROXY_PORT_8402_TCP", "tcp://10.96.0.17:8402"),
        ("AGENTPMT_PROXY_PORT_8402_TCP_PROTO", "tcp"),
        ("AGENTPMT_PROXY_PORT_8402_TCP_PORT", "8402"),
        ("AGENTPMT_PROXY_PORT_8402_TCP_ADDR", "10.96.0.17"),
    ] {
        home = home.with(name, value);
    }
    home.run(&["check"]).ok();
    home.with("AGENTPMT_PROXY_PORT", "8402").run(&["check"]).fails_at_length(78, &["no such"]);
}

#[test]
fn a_path_may_begin_at_home() {
    let home = Home::with_wallet();
    let user = home.path("user");
    home.write("user/mine/wallet.json", &std::fs::read_to_string(binary::KEY_FILE).unwrap());
    home.set_mode("user/mine", 0o700);
    home.write("proxy.toml", "keys = '~/mine'\nlisten = 'unix:~/proxy.sock'");
    let home = home.with("HOME", user.to_str().unwrap());
    let text = home.run(&["check"]).ok();
    let [key, socket] = ["mine/wallet.json", "proxy.sock"].map(|name| user.join(name));
    assert!(text.contains(key.to_str().unwrap()), "{text}");
    assert!(text.contains(&format!("unix:{}", socket.display())), "{text}");
    home.run(&["check", "--state=~other/state"]).fails_at_length(78, &["--state", "whole path"]);
    assert!(!home.path("~").exists());
}

#[test]
fn a_number_that_is_none_is_told_what_it_should_be() {
    let home = Home::new();
    let add = ["client", "add", "ci", "--allow", "jobs"];
    for (command, option) in [(&add[..], "--uid"), (&add[..], "--max-reservations")] {
        let ran = home.run(&[command, &[option, "many"]].concat());
        ran.fails_at_length(2, &[option, "expected a whole number"]);
    }
    home.run(&["journal", "tail", "-n", "all"]).fails_at_length(2, &["expected a whole number"]);
}

#[test]
fn settings_that_others_may_change_are_refused() {
    let home = Home::with_wallet();
    home.write("proxy.toml", "");
    home.set_mode("proxy.toml", 0o646);
    let words = ["proxy.toml: it may be changed", "mode 646", "chmod go-w proxy.toml"];
    home.run(&["check"]).fails_at_length(78, &words);
    home.set_mode("proxy.toml", 0o644);
    home.run(&["check"]).ok();
    if !rustix::process::geteuid().is_root() {
        return eprintln!("not tried: only root can give a file away");
    }
    std::os::unix::fs::chown(home.path("proxy.toml"), Some(65534), None).unwrap();
    let words = ["uid 65534", "run: chown 0 proxy.toml"];
    home.run(&["check"]).fails_at_length(78, &words);
}
