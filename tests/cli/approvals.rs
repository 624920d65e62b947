//! Approving and denying payments by commands.

use std::{sync::Arc, time::Duration};

use agentpmt_proxy::{
    action::Action,
    call::Call,
    operation::Operation,
    policy::Client,
    signer::LocalKey,
    store::{Approval, PaymentTerms, Store},
    trace::Trace,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::time::Instant;

use crate::binary::{Home, WALLET};

/// A payment of this amount that a person is asked about.
async fn asked(store: &Store, amount: &str) -> Approval {
    let operation = Operation {
        call: Call::new(Action::named("credits_purchase").unwrap(), [], b"{}").unwrap(),
        client: Client { name: "ci".parse().unwrap(), ..Client::local() },
        wallet: WALLET.parse().unwrap(),
        key: None,
        price: None,
        known_at: Instant::now(),
        deadline: Instant::now() + Duration::from_secs(60),
        trace: Arc::new(Trace::new("call-1".parse().unwrap())),
    };
    let terms = PaymentTerms {
        resource: "https://api.example/credits/purchase\u{1b}[2J".to_owned(),
        network: "eip155:8453".parse().unwrap(),
        asset: WALLET.parse().unwrap(),
        payee: WALLET.parse().unwrap(),
        amount: amount.parse().unwrap(),
    };
    store.approval_of(&operation, [7; 32], terms, Timestamp::now()).await.unwrap().unwrap()
}

#[tokio::test]
async fn a_person_answers_at_the_command_line_and_that_is_on_record() {
    let home = Home::new();
    home.run(&["approvals"]).fails(66, &["there is no such file"]);
    home.run(&["client", "add", "ci", "--allow", "all"]).result();
    let path = home.path("state/proxy.db");
    let store = Store::open(&path, &[LocalKey::random().seal_key()]).unwrap();
    assert!(home.run(&["approvals"]).told().contains("no payment waits for approval"));
    let (first, second) = (asked(&store, "5").await, asked(&store, "12.5").await);
    let [yes, no] = [&first, &second].map(|approval| approval.id.to_string());
    let list = home.run(&["approvals", "list"]).ok();
    assert_eq!(list.lines().count(), 2);
    for words in [&*yes, "waiting", "ci: credits_purchase pays 12.5 of 0x", "purchase\\u{1b}[2J"] {
        assert!(list.contains(words), "{list}");
    }
    let approved = home.run(&["approvals", "approve", &yes]).told();
    assert!(approved.contains("approved") && approved.contains(&yes), "{approved}");
    assert!(home.run(&["approvals", "deny", &no]).told().contains("denied"));
    home.run(&["approvals", "deny", &yes]).fails(65, &["is approved and takes no other answer"]);
    let unknown = "5ff41667-9cb0-4b43-a080-a7349a6b44ad";
    home.run(&["approvals", "approve", unknown]).fails(66, &["there is no approval 5ff41667"]);
    home.run(&["approvals", "approve", "x"]).fails_at_length(2, &["is a UUID"]);
    let rows = home.run(&["approvals", "--json"]).json();
    let states: Vec<_> = rows.as_array().unwrap().iter().map(|row| &row["state"]).collect();
    assert!(states.contains(&&"approved".into()) && states.contains(&&"denied".into()), "{rows}");

    let lines = home.run(&["journal", "tail", "--json"]).ok();
    let lines = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let user = format!("uid {}", rustix::process::getuid().as_raw());
    let deeds: Vec<_> = lines.filter(|line| line["approval"].is_string()).collect();
    let deed = |line: &Value| [&line["action"], &line["approval"], &line["by"]].map(Value::clone);
    let expected = [["payment_approve", &yes, &user], ["payment_deny", &no, &user]];
    assert_eq!(deeds.iter().map(deed).collect::<Vec<_>>(), expected);
    home.run(&["journal", "verify"]).result();
}
