//! A payment that waits for a person, approved and denied by commands.

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use serde_json::Value;
use tokio::task::block_in_place;

use crate::{
    binary::{Home, PASSWORD, Server, WALLET},
    common::{client, json, serve_sandbox},
};

const SPENDING: &str = r#"
[spending]
wallet = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"
networks = ["eip155:8453"]
payees = ["0x1111111111111111111111111111111111111111"]
resources = ["https://www.agentpmt.com/api/external/credits/purchase"]
max_per_call = "5"
per_day = "50"
per_month = "50"
approve_above = "4.99"

[[spending.assets]]
address = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
decimals = 6
name = "USD Coin"
version = "2"
"#;

/// The status and the body of the answer to a purchase of credits for 5.
async fn buy(server: &Server) -> (u16, Value) {
    let request = client().post(format!("{}/api/external/credits/purchase", server.place));
    let body = format!(r#"{{"wallet_address":"{WALLET}","credits":500,"payment_method":"x402"}}"#);
    let response = request.body(body).send().await.unwrap();
    (response.status().as_u16(), json(response).await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_answers_at_the_command_line_also_between_two_runs() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", SPENDING);
    home.run(&["approvals"]).fails(66, &["there is no such file"]);
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let start = || home.serve(&["serve", "--upstream", &upstream]);
    let server = start();
    assert!(home.run(&["approvals"]).told().contains("no payment waits for approval"));
    let (status, waits) = buy(&server).await;
    assert_eq!((status, &waits["state"]), (202, &"waiting".into()), "{waits}");
    let id = waits["id"].as_str().unwrap();
    block_in_place(|| server.signal("TERM"));
    let list = home.run(&["approvals", "list"]).ok();
    for words in [id, "waiting", "local: credits_purchase pays 5 of 0x833589fcd6"] {
        assert!(list.contains(words), "{list}");
    }
    let approved = home.run(&["approvals", "approve", id]).told();
    assert!(approved.contains("approved") && approved.contains(id), "{approved}");
    home.run(&["approvals", "approve", id])
        .fails_at_length(65, &["is approved and takes no other"]);
    let unknown = "5ff41667-9cb0-4b43-a080-a7349a6b44ad";
    home.run(&["approvals", "approve", unknown]).fails(66, &["there is no approval 5ff41667"]);
    home.run(&["approvals", "approve", "x"]).fails_at_length(2, &["is a UUID"]);

    let server = start();
    let (status, bought) = buy(&server).await;
    assert_eq!(status, 200, "{bought}");
    let (status, waits) = buy(&server).await;
    assert_eq!(status, 202, "{waits}");
    let second = waits["id"].as_str().unwrap();
    assert!(home.run(&["approvals", "deny", second]).told().contains("denied"));
    assert_eq!(buy(&server).await.0, 403);
    let rows = home.run(&["approvals", "--json"]).json();
    let states: Vec<_> = rows.as_array().unwrap().iter().map(|row| row["state"].clone()).collect();
    assert_eq!(states, ["denied", "used"]);

    block_in_place(|| server.signal("TERM"));
    let lines = home.run(&["journal", "tail", "--json"]).ok();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let user = format!("uid {}", rustix::process::getuid().as_raw());
    let deeds: Vec<_> = lines.filter(|line| line["approval"].is_string()).collect();
    let deed = |line: &Value| ["action", "approval", "by"].map(|field| line[field].clone());
    let expected = [["payment_approve", id, &user], ["payment_deny", second, &user]];
    assert_eq!(deeds.iter().map(deed).collect::<Vec<_>>(), expected);
    home.run(&["journal", "verify"]).result();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_payment_is_approved_by_the_wallets_password_that_is_given_for_it_alone() {
    let home = Home::with_wallet();
    home.write("secret", PASSWORD);
    home.write("proxy.toml", &format!("password_file = 'secret'\n{SPENDING}"));
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let server = home.serve(&["serve", "--upstream", &upstream]);
    let id = buy(&server).await.1["id"].as_str().unwrap().to_owned();
    let approve = ["approvals", "approve", &id];
    if let Some(ran) = home.run_without_terminal(&approve) {
        ran.fails_at_length(66, &["the wallet's password is needed", "no terminal"]);
    }
    home.write("wrong", "wrong");
    let wrong = home.run(&[&approve[..], &["--password-file", "wrong"]].concat());
    wrong.fails_at_length(77, &["the password does not open it"]);
    // A wallet of one's own does not help.
    let own = ["--keys", "own", "--password-file", "secret"];
    home.run(&[&["wallet", "new"][..], &own].concat()).result();
    let forged = home.run(&[&approve[..], &own].concat());
    forged.fails_at_length(77, &["another wallet"]);
    assert_eq!(buy(&server).await.0, 202);
    home.run(&[&approve[..], &["--password-file", "secret"]].concat()).told();
    assert!(home.run(&["approvals", "deny", &id]).told().contains("denied"), "taken back");
    assert_eq!(buy(&server).await.0, 403);
}

#[test]
fn a_proxy_that_lacks_the_key_that_pays_does_not_start() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let other = format!("0x{}", "22".repeat(20));
    home.write("proxy.toml", &SPENDING.replace(WALLET, &other));
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    for command in [&serve[..], &["check"]] {
        let words = ["spending.wallet is", &other, "[[wallets]]"];
        home.run(command).fails(78, &words);
    }
    let mut server = home.serve(&["serve", "--sandbox"]);
    let mut line = |name: &str| {
        let line = std::iter::repeat_with(|| server.line()).find(|line| line.starts_with(name));
        line.unwrap().trim_start_matches(name).to_owned()
    };
    let wallet = line("  wallet    ");
    let allowed = format!(
        "from {wallet}, at most 5 a call, 50 in 24 hours, 50 in 30 days; above 4.99 only if approved"
    );
    assert_eq!(line("  payments  "), allowed, "the sandbox has a wallet of its own");

    home.write("proxy.toml", &SPENDING.replace("per_month = \"50\"", "per_month = \"4\""));
    let checked = home.run(&["check"]);
    assert!(
        checked.stderr.contains("warning: spending.per_day is 50, and spending.per_month lets")
    );
    let row =
        format!("payments       from {WALLET}, at most 5 a call, 50 in 24 hours, 4 in 30 days");
    assert!(checked.result().contains(&row));
    let mut server = home.serve(&["serve"]);
    server.logs("spending.per_day is 50, and spending.per_month lets no more than 4 be paid");
    let status = server.request("GET", "/proxy/status").1;
    let status: Value = serde_json::from_str(&status).unwrap();
    let spending =
        ["wallet", "max_per_call", "approve_above"].map(|name| &status["spending"][name]);
    assert_eq!(spending, [WALLET, "5", "4.99"]);
    server.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn in_a_sandbox_its_own_wallet_pays_and_a_payment_is_approved_without_a_password() {
    let home = Home::new();
    home.write("proxy.toml", SPENDING);
    let mut server = home.serve(&["serve", "--sandbox", "--state", "mine"]);
    let wallet = std::iter::repeat_with(|| server.line()).find(|line| line.starts_with("  wallet"));
    let wallet = wallet.unwrap().split_whitespace().nth(1).unwrap().to_owned();
    let buy = async || {
        let request = client().post(format!("{}/api/external/credits/purchase", server.place));
        let body =
            format!(r#"{{"wallet_address":"{wallet}","credits":500,"payment_method":"x402"}}"#);
        let response = request.body(body).send().await.unwrap();
        (response.status().as_u16(), json(response).await)
    };
    let (status, waits) = buy().await;
    assert_eq!(status, 202, "{waits}");
    let id = waits["id"].as_str().unwrap();
    home.run(&["approvals", "approve", id, "--state", "mine"]).told();
    let (status, bought) = buy().await;
    assert_eq!(status, 200, "{bought}");
}
