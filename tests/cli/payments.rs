//! The payments that wait, listed and ended by commands.

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::task::block_in_place;

use crate::{
    binary::{Home, PASSWORD, Server, WALLET},
    common::{client, serve_sandbox},
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
[[spending.assets]]
address = "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"
decimals = 6
name = "USD Coin"
version = "2"
"#;

async fn buy(server: &Server, request_id: &str) -> u16 {
    let request = client().post(format!("{}/api/external/credits/purchase", server.place));
    let body = json!({
        "wallet_address": WALLET, "credits": 500, "payment_method": "x402", "request_id": request_id,
    });
    request.body(body.to_string()).send().await.unwrap().status().as_u16()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_purchase_that_waits_for_its_transaction_is_listed_and_ended_by_hand() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", SPENDING);
    home.run(&["payments"]).fails(66, &["there is no such file"]);
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let server = home.serve(&["serve", "--upstream", &upstream]);
    assert_eq!(buy(&server, "a").await, 200);
    assert!(home.run(&["payments"]).told().contains("no such payment"));
    let all = home.run(&["payments", "--all", "--json"]).json();
    assert_eq!((&all[0]["state"], &all[0]["base_units"]), (&json!("settled"), &json!("5000000")));
    let id = all[0]["id"].as_str().unwrap();

    // As if the API had answered 202.
    let tamper = |sql: &str| {
        let database = Connection::open(home.path("state/proxy.db")).unwrap();
        assert_eq!(database.execute(sql, []), Ok(1));
    };
    tamper("UPDATE payments SET state = 'open', transaction_hash = '0xabc'");
    let list = home.run(&["payments", "list"]).ok();
    for words in [id, "pending", "local paid 5 of 0x833589f", "/credits/purchase"] {
        assert!(list.contains(words), "{list}");
    }
    home.run(&["payments", "end", id]).fails(65, &["can still be cashed"]);
    tamper("UPDATE payments SET valid_before = valid_before - 1000, recorded = recorded - 1000000");
    assert!(home.run(&["payments", "end", id]).told().contains("counts as made"));
    home.run(&["payments", "end", id]).fails(65, &["is settled", "no other payment waits"]);
    let unknown = format!("0x{}", "ab".repeat(32));
    home.run(&["payments", "end", &unknown]).fails(66, &["there is no payment"]);
    home.run(&["payments", "end", "0x1"]).fails_at_length(2, &["64 hexadecimal digits"]);

    // The API does not know the transaction, so the purchase is open only as long as it can be cashed.
    tamper("UPDATE payments SET state = 'open'");
    assert_eq!(buy(&server, "b").await, 200);
    let list = home.run(&["payments", "--json"]).json();
    let shown = ["id", "state", "transaction_hash"].map(|field| list[0][field].clone());
    assert_eq!(shown, [json!(id), json!("unknown"), Value::Null]);

    block_in_place(|| server.signal("TERM"));
    let lines = home.run(&["journal", "tail", "--json"]).ok();
    let ended = lines.lines().find(|line| line.contains("payment_end")).unwrap();
    let ended: Value = serde_json::from_str(ended).unwrap();
    assert_eq!((ended["nonce"].as_str(), &ended["kind"]), (Some(id), &json!("admin")));
    home.run(&["journal", "verify"]).result();
}
