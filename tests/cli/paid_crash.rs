//! The process killed at random moments while it pays: every call has one authorisation, and all of them
//! together keep the limit to the unit.
//!
//! Forty rounds, or as many as `CRASH_ROUNDS` says. A failure prints its seed; `CRASH_SEED` repeats the
//! moments, though not what the machine does at them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::to_bytes,
    extract::Request,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    binary::{Home, PASSWORD, Server, WALLET},
    common::{client, serve},
    random::Random,
};

/// The calls of a round, each of which costs 1.5 of the 470 that a day allows: so the limit ends some of the
/// last of forty rounds, and all others are paid.
const CALLS: u64 = 8;
const MOST: usize = 313;

/// The latest moment of a kill after the calls set out.
const LATEST: u64 = 150;

/// When a client that has no final answer gives up, which fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

const CONFIG: &str = r#"
    [spending]
    wallet = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"
    networks = "eip155:8453"
    payees = "0x1111111111111111111111111111111111111111"
    resources = "https://a.example/external/credits/purchase"
    max_per_call = "5"
    per_day = "470"
    per_month = "1000"
    [[spending.assets]]
    address = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913"
    decimals = 6
    name = "USD Coin"
    version = "2"
"#;

/// The nonces that came with each body.
type Seen = Arc<Mutex<BTreeMap<String, BTreeSet<String>>>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_pays_no_call_twice_and_keeps_its_limit() {
    let number = |name| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds = number("CRASH_ROUNDS").unwrap_or(40);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("CRASH_SEED").unwrap_or(now.as_secs());
    println!("CRASH_SEED={seed}");
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", CONFIG);
    let seen = Seen::default();
    let upstream = upstream(seen.clone()).await;
    let mut paid = 0;
    for round in 0..rounds {
        let mut random = Random(seed.wrapping_mul(1_000_003).wrapping_add(round) | 1);
        let mut server = start(&home, upstream);
        let (publish, address) = watch::channel(server.address);
        let mut agents = JoinSet::new();
        for call in 0..CALLS {
            let body = json!({ "wallet_address": WALLET, "credits": 500, "request_id": format!("{round}-{call}") })
                .to_string();
            agents.spawn(timeout(PATIENCE, work(body, address.clone())));
        }
        sleep(Duration::from_millis(random.below(LATEST))).await;
        server.kill();
        let server = start(&home, upstream);
        publish.send_replace(server.address);
        let answers = agents.join_all().await;
        paid += answers.into_iter().filter(|answer| *answer.as_ref().unwrap()).count();
    }
    let seen = seen.lock().unwrap();
    for (body, nonces) in &*seen {
        assert_eq!(nonces.len(), 1, "{body} was paid with {nonces:?}");
    }
    assert_eq!(seen.len(), paid);
    let calls = usize::try_from(rounds * CALLS).unwrap();
    assert_eq!(paid, calls.min(MOST), "of {calls} calls");
}

fn start(home: &Home, upstream: SocketAddr) -> Server {
    home.serve(&["serve", "--upstream", &format!("http://{upstream}")])
}

/// Makes a call until it has a final answer; tells whether it was paid.
async fn work(body: String, mut address: watch::Receiver<SocketAddr>) -> bool {
    let (client, key) = (client(), hex::encode(&body));
    loop {
        let server = *address.borrow_and_update();
        let url = format!("http://{server}/api/external/credits/purchase");
        let answer = async {
            let call = client.post(url).header("idempotency-key", format!("\"{key}\""));
            let response = call.body(body.clone()).send().await.ok()?;
            let status = response.status();
            let text = response.text().await.ok()?;
            Some((status, serde_json::from_str::<Value>(&text).unwrap()))
        };
        match answer.await {
            None => address.changed().await.unwrap(),
            Some((StatusCode::OK, _)) => return true,
            Some((_, problem)) if problem["code"] == "spending_limit" => return false,
            // Another one is open, which its own client ends.
            Some((_, problem)) if problem["code"] == "payment_open" => {
                sleep(Duration::from_millis(10)).await;
            }
            Some((_, problem)) => panic!("{body}: {problem}"),
        }
    }
}

/// An upstream that demands 1.5 for every call and takes a while for each request.
async fn upstream(seen: Seen) -> SocketAddr {
    let handle = move |request: Request| {
        let seen = seen.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = String::from_utf8(to_bytes(body, 1 << 20).await.unwrap().to_vec()).unwrap();
            sleep(Duration::from_millis(20)).await;
            let Some(payment) = parts.headers.get("x-payment") else { return demand() };
            let json = STANDARD.decode(payment.as_bytes()).unwrap();
            let payment: Value = serde_json::from_slice(&json).unwrap();
            let nonce = payment["payload"]["authorization"]["nonce"].as_str().unwrap().to_owned();
            seen.lock().unwrap().entry(body).or_default().insert(nonce);
            sleep(Duration::from_millis(20)).await;
            r#"{"success":true}"#.into_response()
        }
    };
    serve(Router::new().fallback(handle)).await
}

fn demand() -> Response {
    let demand = json!({ "x402Version": 2, "resource": { "url": "https://a.example/external/credits/purchase" }, "accepts": [{
        "scheme": "exact",
        "network": "eip155:8453",
        "amount": "1500000",
        "asset": "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
        "payTo": "0x1111111111111111111111111111111111111111",
        "maxTimeoutSeconds": 240,
        "extra": { "name": "USD Coin", "version": "2" },
    }] });
    (StatusCode::PAYMENT_REQUIRED, demand.to_string()).into_response()
}
