//! Payments that the proxy makes itself, under its policy, to an upstream that demands them.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use agentpmt_proxy::{
    config::{AssetConfig, SpendingConfig},
    payment::Spending,
    policy::Client,
    sandbox::{Sandbox, Settings},
    store::{FreezeOf, approve, deny, freeze},
    types::Address,
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    http::HeaderMap,
    response::{AppendHeaders, IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::STANDARD};
use futures_util::{future::join_all, stream};
use http::StatusCode;
use rusqlite::Connection;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    agents::{Agent, may, records},
    common::{TestProxy, json as body_of, problem, serve},
};

const PURCHASE: &str = "/credits/purchase";
const TOOL: &str = "/tools/writer/actions/check/invoke?pay=x402";
const URL: &str = "https://www.agentpmt.com/api/external/credits/purchase";
const TOOL_URL: &str = "https://www.agentpmt.com/api/external/tools/writer/actions/check/invoke";
const USDC: &str = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913";
const WALLET: &str = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025";
const OTHER_KEY: &str = "4343434343434343434343434343434343434343434343434343434343434343";
const PAYEE: Address = Address::new([0x11; 20]);

/// How the upstream takes the next payment.
#[derive(Debug, Clone, Copy)]
enum Taken {
    /// It is charged and answered.
    Good,
    /// It is charged, and the answer breaks off.
    Lost,
    /// It is charged, and settles after two more looks.
    Late,
    /// The same, and the first look is not to be soon.
    Later,
    /// The same as the first, and everything is frozen before the first look.
    Frozen,
    /// It is not charged, and more is demanded.
    Raised,
    /// It is charged, and the answer is that of a gateway.
    Failed,
    /// It is charged, and the answer repeats the payment.
    Repeated,
    /// It is charged, settles after two more looks, and the last answer repeats the payment.
    Echoed,
    /// It is not charged yet, and the answer is a redirect.
    Moved,
    /// It is charged, and the answer is a web page.
    Page,
}

/// One request to a call that is paid for.
#[derive(Debug, Clone)]
struct Paid {
    body: Bytes,
    /// The envelope of its payment.
    payment: Option<Value>,
}

/// An upstream that demands payments.
#[derive(Clone)]
struct Shop(Arc<Mutex<State>>);

struct State {
    demand: Value,
    taken: VecDeque<Taken>,
    seen: Vec<Paid>,
    /// The nonce of each payment that was charged.
    charged: Vec<String>,
    looks: u32,
    /// The credits of every wallet.
    balance: u64,
    /// What it was sent with a payment, to be repeated.
    echo: Option<Value>,
    /// The date that it gives in place of its own.
    date: Option<String>,
    /// That of the proxy, for an upstream that freezes it.
    database: Option<PathBuf>,
}

impl Shop {
    fn new() -> Self {
        let (demand, seen, charged) = (demand("5000000"), Vec::new(), Vec::new());
        Self(Arc::new(Mutex::new(State {
            demand,
            taken: VecDeque::new(),
            seen,
            charged,
            looks: 0,
            balance: 0,
            echo: None,
            date: None,
            database: None,
        })))
    }

    async fn proxy(&self, folder: Option<Arc<TempDir>>, config: SpendingConfig) -> TestProxy {
        let shop = self.clone();
        let handle = move |request: Request| {
            let shop = shop.clone();
            async move {
                let (parts, body) = request.into_parts();
                if parts.uri.path().ends_with("/auth/session") {
                    return r#"{"session_nonce":"n-1","expires_in":900}"#.into_response();
                }
                if parts.uri.path().ends_with("/credits/balance") {
                    let balance = shop.0.lock().unwrap().balance;
                    return json!({ "balance_credits": balance }).to_string().into_response();
                }
                let body = to_bytes(body, 1 << 20).await.unwrap();
                shop.answer(parts.uri.path(), &parts.headers, body)
            }
        };
        let address = serve(Router::new().fallback(handle)).await;
        let sandbox = Sandbox::new(Settings::default());
        TestProxy::in_front_of(sandbox, address, |options| {
            options.spending = Some(Spending::of(&config).unwrap());
            options.other_key = Some(OTHER_KEY.to_owned());
            if let Some(folder) = folder {
                options.folder = folder;
            }
        })
        .await
    }

    fn answer(&self, path: &str, headers: &HeaderMap, body: Bytes) -> Response {
        let mut state = self.0.lock().unwrap();
        let payment = headers.get("x-payment").map(|header| {
            let json = STANDARD.decode(header.as_bytes()).unwrap();
            serde_json::from_slice::<Value>(&json).unwrap()
        });
        state.seen.push(Paid { body: body.clone(), payment: payment.clone() });
        let Some(payment) = payment else {
            let body: Value = serde_json::from_slice(&body).unwrap();
            if body["transaction_hash"] == "0xabc" {
                state.looks += 1;
                return match (state.looks, &state.echo) {
                    (1, _) => late(),
                    (_, Some(echo)) => echo.to_string().into_response(),
                    _ => good(),
                };
            }
            let mut demand = state.demand.clone();
            if path.contains("/tools/") {
                demand["resource"]["url"] = TOOL_URL.into();
            }
            let date = state.date.iter().map(|date| ("date", date.clone()));
            return (AppendHeaders(date.collect::<Vec<_>>()), demanded(&demand)).into_response();
        };
        let nonce = payment["payload"]["authorization"]["nonce"].as_str().unwrap().to_owned();
        let taken = state.taken.pop_front().unwrap_or(Taken::Good);
        if let Taken::Raised = taken {
            state.demand = demand("6000000");
            return demanded(&state.demand);
        }
        if let Taken::Moved = taken {
            return (StatusCode::PERMANENT_REDIRECT, [("location", "/")]).into_response();
        }
        // A contract takes a nonce once.
        if !state.charged.contains(&nonce) {
            state.charged.push(nonce);
        }
        let sent: Value = serde_json::from_slice(&body).unwrap();
        match taken {
            Taken::Good | Taken::Raised | Taken::Moved => good(),
            Taken::Late => late(),
            Taken::Echoed => {
                state.echo = Some(json!({ "payment": payment, "body": sent }));
                late()
            }
            Taken::Frozen => {
                freeze(state.database.as_ref().unwrap(), FreezeOf::Signatures).unwrap();
                late()
            }
            Taken::Later => ([("retry-after", u64::MAX.to_string())], late()).into_response(),
            Taken::Page => "<html>".into_response(),
            Taken::Failed => StatusCode::SERVICE_UNAVAILABLE.into_response(),
            Taken::Repeated => {
                let header = headers["x-payment"].to_str().unwrap();
                json!({ "header": header, "payment": payment, "body": sent })
                    .to_string()
                    .into_response()
            }
            Taken::Lost => {
                let cut = stream::iter([Err::<Bytes, _>(std::io::Error::other("cut"))]);
                Body::from_stream(cut).into_response()
            }
        }
    }

    fn takes(&self, taken: impl IntoIterator<Item = Taken>) {
        self.0.lock().unwrap().taken.extend(taken);
    }

    fn demands(&self, demand: Value) {
        self.0.lock().unwrap().demand = demand;
    }

    fn seen(&self) -> Vec<Paid> {
        std::mem::take(&mut self.0.lock().unwrap().seen)
    }

    fn charged(&self) -> Vec<String> {
        self.0.lock().unwrap().charged.clone()
    }
}

fn good() -> Response {
    ([("payment-response", "e30=")], r#"{"success":true}"#).into_response()
}

fn late() -> Response {
    let head = [("retry-after", "0")];
    (StatusCode::ACCEPTED, head, r#"{"transaction_hash":"0xabc"}"#).into_response()
}

fn demanded(demand: &Value) -> Response {
    let header = [("payment-required", STANDARD.encode(demand.to_string()))];
    (StatusCode::PAYMENT_REQUIRED, header, r#"{"error":"payment required"}"#).into_response()
}

fn demand(amount: &str) -> Value {
    json!({ "x402Version": 2, "resource": { "url": URL }, "accepts": [{
        "scheme": "exact",
        "network": "eip155:8453",
        "amount": amount,
        "asset": USDC,
        "payTo": PAYEE.to_string(),
        "maxTimeoutSeconds": 300,
        "extra": { "name": "USD Coin", "version": "2" },
    }] })
}

/// At most 6 a call, 20 a day.
fn config() -> SpendingConfig {
    SpendingConfig {
        wallet: Some(WALLET.parse().unwrap()),
        networks: vec!["eip155:8453".parse().unwrap()],
        payees: vec![PAYEE],
        resources: vec![URL.to_owned(), TOOL_URL.to_owned()],
        max_per_call: Some("6".parse().unwrap()),
        per_day: Some("20".parse().unwrap()),
        per_month: Some("100".parse().unwrap()),
        approve_above: None,
        assets: vec![AssetConfig {
            address: USDC.parse().unwrap(),
            decimals: 6,
            name: "USD Coin".to_owned(),
            version: "2".to_owned(),
        }],
    }
}

fn purchase(wallet: &str, credits: u64) -> String {
    format!("{{ \"wallet_address\": \"{wallet}\", \"credits\": {credits} }}")
}

fn nonces(seen: &[Paid]) -> Vec<String> {
    let nonce = |paid: &Paid| {
        let nonce = &paid.payment.as_ref()?["payload"]["authorization"]["nonce"];
        Some(nonce.as_str().unwrap().to_owned())
    };
    seen.iter().filter_map(nonce).collect()
}

#[tokio::test]
async fn the_proxy_pays_a_demand_and_repeats_the_same_body_of_fields_that_it_has_read() {
    let shop = Shop::new();
    let proxy = shop.proxy(None, config()).await;
    let body = format!(
        r#"{{ "wallet_address": "{PAYEE}", "wallet_address": "{WALLET}", "credits": 5.00e2,
            "recipient": "{PAYEE}", "Wallet_Address": "{PAYEE}", "sponsor_signature": "0x",
            "session_nonce": "n", "signature": "0x", "request_id": "mine" }}"#
    );
    let sent =
        json!({ "credits": 500, "request_id": "mine", "wallet_address": WALLET }).to_string();
    let response = proxy.post(PURCHASE, body.clone()).await;
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["payment-response"], "e30=");
    let seen = shop.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen[0].payment.is_none() && seen.iter().all(|paid| paid.body == sent), "{seen:?}");
    let payment = seen[1].payment.as_ref().unwrap();
    assert_eq!(payment["accepted"], demand("5000000")["accepts"][0]);
    assert_eq!(payment["resource"], json!({ "url": URL }));
    let authorization = &payment["payload"]["authorization"];
    assert_eq!(authorization["from"], WALLET);
    assert_eq!(authorization["to"], PAYEE.to_string());
    assert_eq!(authorization["value"], "5000000");

    let recorded = records(&proxy, "payment").await;
    let signed = records(&proxy, "signed").await;
    assert_eq!(recorded[0].text("nonce"), authorization["nonce"].as_str().map(str::to_owned));
    assert_eq!(recorded[0].text("amount").as_deref(), Some("5000000"));
    let number = |record: &agentpmt_proxy::json::Object| -> u64 {
        record.field("seq").unwrap().as_str().parse().unwrap()
    };
    let paid = signed.iter().find(|record| record.text("payment_hash").is_some()).unwrap();
    assert!(number(&recorded[0]) < number(paid), "recorded before it is sent");

    // The first one is settled, so this is another purchase.
    assert_eq!(proxy.post(PURCHASE, body).await.status(), StatusCode::OK);
    assert_eq!(shop.charged().len(), 2);
}

#[tokio::test]
async fn a_payment_that_settles_late_is_followed_by_its_transaction() {
    let shop = Shop::new();
    shop.takes([Taken::Late]);
    let proxy = shop.proxy(None, config()).await;
    let value = proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
    assert_eq!(value, json!({ "success": true }));
    let seen = shop.seen();
    assert_eq!((seen.len(), nonces(&seen).len(), shop.charged().len()), (4, 1, 1));
    for look in &seen[2..] {
        let body: Value = serde_json::from_slice(&look.body).unwrap();
        assert_eq!(body["transaction_hash"], "0xabc");
        assert_eq!(body["credits"], 500);
    }
}

#[tokio::test]
async fn a_purchase_that_is_pending_is_followed_also_after_the_end_of_its_authorisation() {
    let shop = Shop::new();
    shop.takes([Taken::Later]);
    let proxy = shop.proxy(None, config()).await;
    let response = proxy.post(PURCHASE, purchase(WALLET, 500)).await;
    assert_eq!(response.status(), StatusCode::ACCEPTED);
    end_authorisations(&proxy);
    let other = problem(proxy.post(PURCHASE, purchase(WALLET, 1000)).await).await;
    assert_eq!(other["code"], "payment_open");
    shop.0.lock().unwrap().looks = 0;
    let begun = Instant::now();
    proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
    assert!(begun.elapsed() >= Duration::from_secs(1), "it is asked after once a second");
    assert_eq!((nonces(&shop.seen()).len(), shop.charged().len()), (1, 1));
}

#[tokio::test]
async fn a_purchase_that_is_in_the_way_of_another_clients_is_asked_after_and_lets_it_by() {
    let shop = Shop::new();
    shop.takes([Taken::Later]);
    let proxy = shop.proxy(None, config()).await;
    let [first, other] = ["first", "other"].map(|name| Agent::add(&proxy, &may(name, "all")));
    let buy = purchase(WALLET, 500);
    assert_eq!(first.post(PURCHASE, &buy).await.status(), StatusCode::ACCEPTED);
    let refused = problem(other.post(PURCHASE, &buy).await).await;
    assert_eq!((&refused["code"], shop.0.lock().unwrap().looks), (&json!("payment_open"), 1));
    other.ok(PURCHASE, &buy).await;
    assert_eq!((shop.charged().len(), shop.0.lock().unwrap().looks), (2, 2));
    // The call that it belongs to learns it as well, and pays nothing anew.
    first.ok(PURCHASE, &buy).await;
    assert_eq!((shop.charged().len(), shop.0.lock().unwrap().looks), (2, 3));
    first.ok(PURCHASE, &buy).await;
    assert_eq!(shop.charged().len(), 3);
}

#[tokio::test]
async fn a_pending_purchase_that_cannot_be_followed_is_told_as_pending() {
    let shop = Shop::new();
    shop.takes([Taken::Frozen]);
    let proxy = shop.proxy(None, config()).await;
    shop.0.lock().unwrap().database = Some(proxy.folder().path().join("proxy.db"));
    assert_eq!(keyed(&proxy).await.status(), StatusCode::ACCEPTED);
    proxy.proxy.store().thaw("ops").await.unwrap();
    assert_eq!(body_of(keyed(&proxy).await).await, json!({ "success": true }));
    assert_eq!((nonces(&shop.seen()).len(), shop.charged().len()), (1, 1));
}

#[tokio::test]
async fn a_lost_answer_repeats_the_same_authorisation_also_after_a_restart() {
    let shop = Shop::new();
    shop.takes([Taken::Lost, Taken::Lost]);
    let proxy = shop.proxy(None, config()).await;
    let lost = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!((&lost["code"], &lost["processed"]), (&"outcome_unknown".into(), &Value::Null));

    let other = proxy.post(PURCHASE, purchase(WALLET, 1000)).await;
    assert!(other.headers().contains_key("retry-after"));
    assert_eq!(problem(other).await["code"], "payment_open");

    let again = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!(again["code"], "outcome_unknown");
    let folder = proxy.folder();
    proxy.proxy.drained().await;
    let proxy = shop.proxy(Some(folder), config()).await;
    proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
    let sent = nonces(&shop.seen());
    assert_eq!(sent.len(), 3);
    let count = "SELECT sent FROM payments";
    let database = Connection::open(proxy.folder().path().join("proxy.db")).unwrap();
    assert_eq!(database.query_row(count, [], |row| row.get(0)), Ok(3), "each is on record");
    assert!(sent.iter().all(|nonce| *nonce == sent[0]), "{sent:?}");
    assert_eq!(shop.charged().len(), 1);
}

#[tokio::test]
async fn an_answer_that_says_nothing_of_a_payment_leaves_it_open() {
    for taken in [Taken::Failed, Taken::Page] {
        let shop = Shop::new();
        shop.takes([taken]);
        let proxy = shop.proxy(None, config()).await;
        let failed = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
        assert_eq!(failed["code"], "outcome_unknown");
        proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
        assert_eq!((nonces(&shop.seen()).len(), shop.charged().len()), (2, 1));
    }
}

#[tokio::test]
async fn a_payment_that_went_to_a_redirect_counts_and_is_repeated() {
    let shop = Shop::new();
    shop.takes([Taken::Moved, Taken::Moved]);
    let proxy = shop.proxy(None, config()).await;
    for _ in 0..2 {
        let moved = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
        assert_eq!(moved["code"], "outcome_unknown", "{moved}");
    }
    proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
    let sent = nonces(&shop.seen());
    assert!(sent.len() == 3 && sent.iter().all(|nonce| *nonce == sent[0]), "{sent:?}");
}

#[tokio::test]
async fn a_repeated_payment_that_is_refused_may_have_been_cashed_before() {
    let shop = Shop::new();
    shop.takes([Taken::Lost, Taken::Raised]);
    let proxy = shop.proxy(None, config()).await;
    for [before, now] in [[json!(null), json!(null)], [json!(7), json!(507)]] {
        shop.0.lock().unwrap().balance += 7;
        let unknown = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
        shop.0.lock().unwrap().balance = 500;
        assert_eq!(unknown["code"], "outcome_unknown");
        assert_eq!((&unknown["balance_before"], &unknown["balance_now"]), (&before, &now));
        let detail = unknown["detail"].as_str().unwrap();
        assert!(detail.contains("balance"), "{detail}");
        assert_eq!(detail.contains("refused the payment"), !before.is_null(), "{detail}");
    }
    assert_eq!(shop.charged().len(), 1);
}

#[tokio::test]
async fn a_lost_purchase_no_longer_counts_once_the_balance_shows_that_nothing_arrived() {
    for (balance, tool, code) in [
        (0, None, Value::Null),
        (500, None, json!("spending_limit")),
        (0, Some(TOOL.trim_end_matches("?pay=x402")), json!("spending_limit")),
    ] {
        let shop = Shop::new();
        shop.takes([Taken::Moved]);
        let limit = Some("6".parse().unwrap());
        let proxy = shop.proxy(None, SpendingConfig { per_day: limit, ..config() }).await;
        let lost = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
        assert_eq!(lost["code"], "outcome_unknown");
        if let Some(tool) = tool {
            proxy.post(tool, r#"{"parameters":{}}"#).await;
        }
        shop.0.lock().unwrap().balance = balance;
        end_authorisations(&proxy);
        let next = body_of(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
        assert_eq!(next["code"], code, "{balance} {tool:?}: {next}");
    }
}

#[tokio::test]
async fn a_tool_may_speak_of_transactions_of_its_own() {
    let shop = Shop::new();
    shop.takes([Taken::Late]);
    let proxy = shop.proxy(None, config()).await;
    let body = r#"{"transaction_hash":"0x1"}"#;
    assert_eq!(proxy.post(TOOL, body).await.status(), StatusCode::ACCEPTED);
    let seen = shop.seen();
    assert!(seen.len() == 2 && seen.iter().all(|paid| paid.body == body), "{seen:?}");
}

#[tokio::test]
async fn a_payment_that_an_answer_repeats_is_withheld() {
    let shop = Shop::new();
    shop.takes([Taken::Repeated]);
    let proxy = shop.proxy(None, config()).await;
    let value = proxy.ok(TOOL, "{}").await;
    assert_eq!(value["header"], "held-by-proxy");
    assert_eq!(value["payment"]["payload"]["signature"], "held-by-proxy");
    assert_eq!(value["payment"]["payload"]["authorization"]["from"], WALLET);
}

#[tokio::test]
async fn a_payment_of_a_sponsor_is_withheld_from_its_answer_and_from_later_ones() {
    let shop = Shop::new();
    shop.takes([Taken::Repeated, Taken::Echoed]);
    let proxy = shop.proxy(None, config()).await;
    let other = agentpmt_proxy::signer::LocalKey::from_hex(OTHER_KEY).unwrap().address();
    for credits in [500, 501] {
        let body = json!({
            "wallet_address": other.to_string(), "credits": credits, "payer_wallet_address": WALLET,
        });
        let value = proxy.ok(PURCHASE, body.to_string()).await;
        assert_eq!(value["payment"]["payload"]["signature"], "held-by-proxy");
        assert_eq!(value["body"]["sponsor_signature"], "held-by-proxy");
        assert_eq!(value["body"]["credits"], credits);
    }
    assert_eq!(shop.0.lock().unwrap().looks, 2);
}

#[tokio::test]
async fn nothing_is_paid_while_the_clocks_differ() {
    let shop = Shop::new();
    let proxy = shop.proxy(None, config()).await;
    shop.0.lock().unwrap().date = Some("Mon, 16 Feb 2026 11:57:55 GMT".to_owned());
    let refused = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!(refused["code"], "payment_not_allowed");
    assert!(refused["detail"].as_str().unwrap().contains("clocks"), "{refused}");
    assert!(nonces(&shop.seen()).is_empty() && records(&proxy, "payment").await.is_empty());
    shop.0.lock().unwrap().date = None;
    proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
}

#[tokio::test]
async fn a_key_of_a_lost_payment_never_pays_twice() {
    let shop = Shop::new();
    shop.takes([Taken::Lost]);
    let proxy = shop.proxy(None, config()).await;
    assert_eq!(problem(keyed(&proxy).await).await["code"], "outcome_unknown");
    assert_eq!(body_of(keyed(&proxy).await).await, json!({ "success": true }));
    let replayed = keyed(&proxy).await;
    assert_eq!(replayed.headers()["idempotency-replayed"], "true");
    assert_eq!((nonces(&shop.seen()).len(), shop.charged().len()), (2, 1));
}

#[tokio::test]
async fn a_key_of_a_lost_payment_is_in_doubt_whatever_fails_next() {
    let shop = Shop::new();
    shop.takes([Taken::Lost]);
    let proxy = shop.proxy(None, config()).await;
    assert_eq!(problem(keyed(&proxy).await).await["code"], "outcome_unknown");
    proxy.proxy.store().freeze(FreezeOf::Payments, "ops").await.unwrap();
    assert_eq!(problem(keyed(&proxy).await).await["code"], "frozen");
    proxy.proxy.store().thaw("ops").await.unwrap();
    end_authorisations(&proxy);
    assert_eq!(problem(keyed(&proxy).await).await["code"], "outcome_unknown");
    assert_eq!((nonces(&shop.seen()).len(), shop.charged().len()), (1, 1));
}

#[tokio::test]
async fn a_key_of_a_lost_payment_pays_no_other_after_the_same_call_without_a_key() {
    let shop = Shop::new();
    shop.takes([Taken::Lost]);
    let proxy = shop.proxy(None, config()).await;
    assert_eq!(problem(keyed(&proxy).await).await["code"], "outcome_unknown");
    proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
    assert_eq!(problem(keyed(&proxy).await).await["code"], "outcome_unknown");
    assert_eq!(shop.charged().len(), 1);
}

#[tokio::test]
async fn a_key_of_a_lost_payment_of_its_client_is_not_paid_by_the_proxy() {
    let shop = Shop::new();
    shop.takes([Taken::Lost]);
    let proxy = shop.proxy(None, config()).await;
    let url = proxy.url(&format!("/api/external{PURCHASE}"));
    let payment = json!({ "payload": { "authorization": { "nonce": "0x1" } } }).to_string();
    let paid = proxy.client.post(&url).header("idempotency-key", "k");
    let paid = paid.header("x-payment", STANDARD.encode(payment)).body(purchase(WALLET, 500));
    assert_eq!(problem(paid.send().await.unwrap()).await["code"], "outcome_unknown");
    assert_eq!(problem(keyed(&proxy).await).await["code"], "outcome_unknown");
    assert_eq!(shop.charged().len(), 1);
}

#[tokio::test]
async fn a_key_whose_payment_was_refused_pays_no_other() {
    let shop = Shop::new();
    shop.takes([Taken::Raised]);
    let proxy = shop.proxy(None, config()).await;
    assert_eq!(problem(keyed(&proxy).await).await["code"], "payment_refused");
    end_authorisations(&proxy);
    assert_eq!(problem(keyed(&proxy).await).await["code"], "outcome_unknown");
    assert_eq!(nonces(&shop.seen()).len(), 1);
}

/// As if so much time had passed that none can be cashed any more.
fn end_authorisations(proxy: &TestProxy) {
    let database = Connection::open(proxy.folder().path().join("proxy.db")).unwrap();
    let sql =
        "UPDATE payments SET valid_before = valid_before - 1000, recorded = recorded - 1000000";
    database.execute(sql, []).unwrap();
}

/// The same purchase under the same key.
async fn keyed(proxy: &TestProxy) -> reqwest::Response {
    let url = proxy.url(&format!("/api/external{PURCHASE}"));
    let call = proxy.client.post(&url).header("idempotency-key", "k");
    call.body(purchase(WALLET, 500)).send().await.unwrap()
}

#[tokio::test]
async fn a_demand_that_changes_between_tries_gets_the_same_authorisation_or_nothing() {
    let shop = Shop::new();
    shop.takes([Taken::Raised]);
    let proxy = shop.proxy(None, config()).await;
    let refused = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!(refused["code"], "payment_refused");
    proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
    let sent = nonces(&shop.seen());
    assert_eq!(sent.len(), 2);
    assert_eq!(sent[0], sent[1]);
    // What it demands now is more than the credits cost.
    let raised = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!(raised["code"], "payment_not_allowed");
    assert_eq!(shop.charged().len(), 1);
}

#[tokio::test]
async fn nothing_is_signed_for_a_demand_that_is_not_allowed() {
    let shop = Shop::new();
    let proxy = shop.proxy(None, config()).await;
    let with = |field: &str, value: Value| {
        let mut demand = demand("5000000");
        demand["accepts"][0][field] = value;
        demand
    };
    let mut elsewhere = demand("5000000");
    elsewhere["resource"]["url"] = json!("https://www.agentpmt.com/other");
    let mut of_tool = demand("5000000");
    of_tool["resource"]["url"] = json!(TOOL_URL);
    for (demand, code) in [
        (with("payTo", json!(USDC)), "payment_not_allowed"),
        (with("asset", json!(WALLET)), "payment_not_allowed"),
        (with("network", json!("eip155:1")), "payment_not_allowed"),
        (with("amount", json!("5000001")), "payment_not_allowed"),
        (with("scheme", json!("upto")), "payment_not_allowed"),
        (with("maxTimeoutSeconds", json!(0)), "payment_not_allowed"),
        (with("extra", json!({ "version": "2" })), "payment_not_allowed"),
        (with("extra", json!({ "name": "USDC", "version": "2" })), "payment_not_allowed"),
        (elsewhere, "payment_not_allowed"),
        (of_tool, "payment_not_allowed"),
        (json!({ "x402Version": 1, "accepts": [] }), "payment_demand"),
        (json!("challenge"), "payment_demand"),
    ] {
        shop.demands(demand.clone());
        let refused = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
        assert_eq!(refused["code"], code, "{demand}: {refused}");
    }
    shop.demands(demand("5000000"));
    let signed = r#"{"session_nonce":"n","signature":"0x"}"#;
    assert_eq!(problem(proxy.post(TOOL, signed).await).await["code"], "payment_not_allowed");
    assert!(nonces(&shop.seen()).is_empty());
    proxy.proxy.store().freeze(FreezeOf::Payments, "ops").await.unwrap();
    let frozen = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!(frozen["code"], "frozen");
    assert!(nonces(&shop.seen()).is_empty() && records(&proxy, "payment").await.is_empty());
}

#[tokio::test]
async fn credits_are_bought_only_for_wallets_of_this_proxy() {
    let shop = Shop::new();
    let proxy = shop.proxy(None, config()).await;
    let other = agentpmt_proxy::signer::LocalKey::from_hex(OTHER_KEY).unwrap().address();
    let payer = |recipient: &str, payer: &str| {
        json!({ "wallet_address": recipient, "credits": 500, "payer_wallet_address": payer })
            .to_string()
    };
    let (stranger, other) = (PAYEE.to_string(), other.to_string());
    for (body, says) in [
        (purchase(&stranger, 500), "must be a wallet of this proxy"),
        (purchase(&other, 500), "add \"payer_wallet_address\""),
        (payer(&stranger, WALLET), "must be a wallet of this proxy"),
        (payer(&other, &other), "payer_wallet_address must be"),
        (payer(WALLET, &stranger), "payer_wallet_address must be"),
        (r#"{"credits":500}"#.to_owned(), "wallet_address is missing"),
        (purchase(WALLET, 500).replace("500", "500.5"), "credits in the body"),
    ] {
        let refused = problem(proxy.post(PURCHASE, body.clone()).await).await;
        assert_eq!(refused["code"], "payment_not_allowed", "{body}");
        assert!(refused["detail"].as_str().unwrap().contains(says), "{refused}");
    }
    // A client that is bound to a wallet buys for no other.
    let bound = Client { wallet: Some(WALLET.parse().unwrap()), ..may("bound", "all") };
    let bound = Agent::add(&proxy, &bound);
    let ops = Agent::add(&proxy, &may("ops", "all"));
    let refused = problem(bound.post(PURCHASE, &payer(&other, WALLET)).await).await;
    assert!(refused["detail"].as_str().unwrap().contains("the client may use"), "{refused}");
    assert!(shop.seen().is_empty());

    ops.ok(PURCHASE, &payer(&other, WALLET)).await;
    let seen = shop.seen();
    let body: Value = serde_json::from_slice(&seen[1].body).unwrap();
    assert!(body["sponsor_signature"].as_str().unwrap().starts_with("0x"));
    assert_eq!(body["wallet_address"], other);
    let payment = seen[1].payment.as_ref().unwrap();
    assert_eq!(payment["payload"]["authorization"]["from"], WALLET);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn limits_are_exact_under_32_calls_at_once() {
    let shop = Shop::new();
    shop.demands(demand("1500000"));
    let proxy = shop.proxy(None, config()).await;
    let calls = (0..32).map(|number| proxy.post(TOOL, number_of(number)));
    let (mut paid, mut refused) = (0, Vec::new());
    for response in join_all(calls).await {
        match response.status() {
            StatusCode::OK => paid += 1,
            _ => refused.push(problem(response).await),
        }
    }
    // 13 times 1.5 is 19.5 of 20.
    assert_eq!((paid, shop.charged().len(), nonces(&shop.seen()).len()), (13, 13, 13));
    assert_eq!(refused.len(), 19);
    for problem in refused {
        let said = [&problem["code"], &problem["limit"], &problem["left"]];
        assert_eq!(said, [&json!("spending_limit"), &json!("spending.per_day"), &json!("0.5")]);
        assert!(problem["until"].is_string(), "{problem}");
    }
}

#[tokio::test]
async fn a_client_with_a_limit_of_its_own_pays_less() {
    let shop = Shop::new();
    shop.demands(demand("1500000"));
    let proxy = shop.proxy(None, config()).await;
    let limited = Client { spend: Some("2/day".parse().unwrap()), ..may("ci", "all") };
    let (limited, free) = (Agent::add(&proxy, &limited), Agent::add(&proxy, &may("bot", "all")));
    for number in 0..2 {
        free.ok(TOOL, &number_of(number)).await;
    }
    limited.ok(TOOL, "{}").await;
    let refused = problem(limited.post(TOOL, r#"{"a":1}"#).await).await;
    let said = [&refused["code"], &refused["limit"], &refused["left"]];
    let limit = json!("the client's limit of 2/day");
    assert_eq!(said, [&json!("spending_limit"), &limit, &json!("0.5")]);
    assert_eq!(shop.charged().len(), 3);
}

fn number_of(number: u32) -> String {
    json!({ "number": number }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wallet_has_one_purchase_at_a_time() {
    let shop = Shop::new();
    let proxy = shop.proxy(None, config()).await;
    let calls = (0..4).map(|_| proxy.post(PURCHASE, purchase(WALLET, 500)));
    for response in join_all(calls).await {
        assert_eq!(response.status(), StatusCode::OK);
    }
    assert_eq!(shop.charged().len(), 4, "each waits for the one before");
    let refused = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!(refused["code"], "spending_limit");
}

/// How an approval stands, as a client is told.
async fn approval(proxy: &TestProxy, agent: &Agent, id: &str) -> Value {
    let request = proxy.client.get(proxy.url(&format!("/proxy/approvals/{id}")));
    body_of(request.bearer_auth(agent.token.expose()).send().await.unwrap()).await
}

#[tokio::test]
async fn a_large_payment_waits_for_a_person_and_is_made_once_when_it_is_approved() {
    let shop = Shop::new();
    let large = SpendingConfig { approve_above: Some("4.99".parse().unwrap()), ..config() };
    let proxy = shop.proxy(None, large).await;
    let [ci, other] = ["ci", "other"].map(|name| Agent::add(&proxy, &may(name, "all")));
    let ops = Agent::add(&proxy, &Client { admin: true, ..may("ops", "all") });
    let buy = purchase(WALLET, 500);
    let mut ids = Vec::new();
    for _ in 0..2 {
        let response = ci.post(PURCHASE, &buy).await;
        assert_eq!(response.status(), StatusCode::ACCEPTED);
        assert_eq!(response.headers()["x-agentpmt-proxy-answer"], "approval");
        let waits = body_of(response).await;
        let shown = ["state", "amount", "action", "client"].map(|field| waits[field].clone());
        assert_eq!(shown, ["waiting", "5", "credits_purchase", "ci"]);
        ids.push(waits["id"].as_str().unwrap().to_owned());
    }
    let id = &*ids[0];
    assert_eq!(id, ids[1], "it is asked for once");
    for agent in [&ci, &ops] {
        assert_eq!(approval(&proxy, agent, id).await["state"], "waiting");
    }
    for (agent, id) in [(&other, id), (&ci, "5ff41667-9cb0-4b43-a080-a7349a6b44ad"), (&ci, "x")] {
        assert_eq!(approval(&proxy, agent, id).await["code"], "unknown_approval", "{id}");
    }
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        let url = proxy.url(&format!("/proxy/approvals/{id}"));
        let request = proxy.client.request(method.parse().unwrap(), url);
        let response = request.bearer_auth(ops.token.expose()).body(r#"{"state":"approved"}"#);
        assert_eq!(response.send().await.unwrap().status(), 405, "{method}");
    }
    assert!(nonces(&shop.seen()).is_empty() && records(&proxy, "payment").await.is_empty());

    let path = proxy.folder().path().join("proxy.db");
    let key = agentpmt_proxy::signer::LocalKey::from_hex(&"42".repeat(32)).unwrap();
    let now = jiff::Timestamp::now();
    approve(&path, id.parse().unwrap(), key.seal_key(), now).unwrap().unwrap();
    assert_eq!(other.post(PURCHASE, &buy).await.status(), StatusCode::ACCEPTED, "another client's");
    shop.demands(demand("4999999"));
    assert_eq!(ci.post(PURCHASE, &buy).await.status(), StatusCode::ACCEPTED, "another amount");
    shop.demands(demand("5000000"));
    ci.ok(PURCHASE, &buy).await;
    assert_eq!((shop.charged().len(), nonces(&shop.seen()).len()), (1, 1));
    assert_eq!(approval(&proxy, &ci, id).await["state"], "used");

    let again = body_of(ci.post(PURCHASE, &buy).await).await;
    assert_ne!(again["id"], *id);
    deny(&path, again["id"].as_str().unwrap().parse().unwrap(), now).unwrap().unwrap();
    let denied = problem(ci.post(PURCHASE, &buy).await).await;
    assert_eq!(denied["code"], "payment_not_allowed");
    assert!(denied["detail"].as_str().unwrap().contains("denied this payment"), "{denied}");
    let small = SpendingConfig { approve_above: Some("5".parse().unwrap()), ..config() };
    assert_eq!(shop.charged().len(), 1);
    Shop::new().proxy(None, small).await.ok(PURCHASE, buy).await;
}

#[tokio::test]
async fn a_payment_that_is_open_is_not_signed_once_more_while_payments_are_frozen() {
    let shop = Shop::new();
    shop.takes([Taken::Lost]);
    let proxy = shop.proxy(None, config()).await;
    problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
    assert_eq!(nonces(&shop.seen()).len(), 1);
    let store = proxy.proxy.store();
    for of in [FreezeOf::Payments, FreezeOf::Signatures] {
        store.freeze(of, "ops").await.unwrap();
        let frozen = problem(proxy.post(PURCHASE, purchase(WALLET, 500)).await).await;
        assert_eq!(frozen["code"], "frozen");
        store.thaw("ops").await.unwrap();
    }
    assert!(shop.seen().is_empty());
    proxy.ok(PURCHASE, purchase(WALLET, 500)).await;
    assert_eq!(shop.charged().len(), 1);
}
