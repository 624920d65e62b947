use futures_util::future::join_all;
use serde_json::json;

use super::*;
use crate::{
    config::{AssetConfig, SpendingConfig},
    json::CanonicalJson,
    policy::Client,
    store::{
        Attempt, Claim,
        testing::{Folder, WALLET, id, operation},
    },
};

const URL: &str = "https://a.example/external/jobs/job1/status";
const PAYEE: Address = Address::new([0x11; 20]);

/// At most 20 a day, in whole units.
fn spending() -> Arc<Spending> {
    let limit = Some("20".parse().unwrap());
    let asset =
        AssetConfig { address: PAYEE, decimals: 0, name: "a".to_owned(), version: "1".to_owned() };
    let spending = Spending::of(&SpendingConfig {
        wallet: Some(WALLET.parse().unwrap()),
        networks: vec!["eip155:1".parse().unwrap()],
        payees: vec![PAYEE],
        resources: vec![URL.to_owned()],
        max_per_call: limit,
        per_day: limit,
        per_month: limit,
        approve_above: None,
        assets: vec![asset],
    });
    Arc::new(spending.unwrap())
}

/// A payment of this amount for the call with this number.
fn request(number: u8, amount: u32, purchase: Option<Purchase>) -> PaymentRequest {
    demanded(number, amount, purchase, 300)
}

/// The same, with the time that the upstream gives it, in seconds.
fn demanded(number: u8, amount: u32, purchase: Option<Purchase>, seconds: u64) -> PaymentRequest {
    let demand = json!({ "x402Version": 2, "resource": { "url": URL }, "accepts": [{
        "scheme": "exact",
        "network": "eip155:1",
        "amount": amount.to_string(),
        "asset": PAYEE.to_string(),
        "payTo": PAYEE.to_string(),
        "maxTimeoutSeconds": seconds,
        "extra": { "name": "a", "version": "1" },
    }] });
    let operation = of_tool();
    let permit = Client::local().permit(operation.call, operation.wallet, None, Timestamp::now());
    PaymentRequest {
        spending: spending(),
        permit: permit.unwrap(),
        challenge: Challenge::parse(demand.to_string().as_bytes()).unwrap(),
        purchase,
        balance: None,
        fingerprint: [number; 32],
    }
}

fn of_tool() -> Operation {
    operation(&Client::local(), "job_status", "")
}

fn nonce(number: u8) -> AuthorizationNonce {
    AuthorizationNonce::new([number; 32])
}

async fn pay(store: &Store, number: u8, amount: u32) -> Result<Payment, Declined> {
    let request = request(number, amount, None);
    recorded(store.record_payment(&of_tool(), request, nonce(number)).await.unwrap())
}

/// A payment that is recorded, or why the policy does not allow it.
fn recorded(decision: PaymentDecision) -> Result<Payment, Declined> {
    match decision {
        PaymentDecision::Recorded(payment) => Ok(*payment),
        PaymentDecision::Declined(declined) => Err(declined),
        other => panic!("{other:?}"),
    }
}

/// Records that a payment is about to be sent.
async fn send(store: &Store, number: u8) -> Result<(), StoreError> {
    let operation = operation(&Client::local(), "job_complete", "");
    let (call, request_id, payment) = (&operation.call, &id(number.into()), Some(nonce(number)));
    let attempt = Attempt { operation: &operation, call, request_id, payload_hash: None, payment };
    store.record_attempt(attempt, &Claim::default(), None).await
}

async fn settle(store: &Store, number: u8) {
    store.write(move |db| payment_rows::settle(db, &[number; 32])).await.unwrap();
}

async fn open(store: &Store, number: u8, now: Timestamp) -> Option<AuthorizationNonce> {
    let wallet = WALLET.parse().unwrap();
    let open = store.open_payment(wallet, [number; 32], now).await.unwrap();
    open.map(|record| record.nonce)
}

#[tokio::test]
async fn a_payment_counts_from_its_record_on_and_not_if_it_was_never_sent() {
    let folder = Folder::new();
    let store = folder.open();
    pay(&store, 1, 15).await.unwrap();
    assert!(matches!(pay(&store, 2, 6).await, Err(Declined::LimitReached { .. })));
    store.end_payment(nonce(1), PaymentEnd::NotSent).await.unwrap();
    pay(&store, 3, 15).await.unwrap();
    settle(&store, 3).await;
    // A payment that is settled stays so.
    store.end_payment(nonce(3), PaymentEnd::NotSent).await.unwrap();
    assert!(pay(&store, 4, 6).await.is_err());
    pay(&store, 5, 5).await.unwrap();
}

#[tokio::test]
async fn a_payment_that_another_process_may_have_sent_is_not_given_back() {
    let folder = Folder::new();
    let (store, other) = (folder.open(), folder.open());
    pay(&store, 1, 15).await.unwrap();
    send(&other, 1).await.unwrap();
    store.end_payment(nonce(1), PaymentEnd::NotSent).await.unwrap();
    assert!(pay(&store, 2, 6).await.is_err(), "it counts");
    assert_eq!(open(&store, 1, Timestamp::now()).await, Some(nonce(1)));
    send(&store, 1).await.unwrap();
    store.end_payment(nonce(1), PaymentEnd::NotLeft).await.unwrap();
    store.end_payment(nonce(1), PaymentEnd::NotSent).await.unwrap();
    assert!(pay(&store, 2, 6).await.is_err(), "only one of the two attempts did not leave");
    other.end_payment(nonce(1), PaymentEnd::NotLeft).await.unwrap();
    other.end_payment(nonce(1), PaymentEnd::NotSent).await.unwrap();
    pay(&store, 2, 6).await.unwrap();
}

#[tokio::test]
async fn a_payment_whose_end_another_process_has_noted_is_not_sent() {
    let folder = Folder::new();
    let (store, other) = (folder.open(), folder.open());
    pay(&store, 1, 1).await.unwrap();
    pay(&store, 2, 1).await.unwrap();
    settle(&other, 1).await;
    other.end_payment(nonce(2), PaymentEnd::NotSent).await.unwrap();
    for number in [1, 2] {
        assert!(send(&store, number).await.unwrap_err().is_payment_over(), "{number}");
    }
}

#[tokio::test]
async fn a_payment_is_open_for_270_seconds_however_soon_its_authorisation_ends() {
    let folder = Folder::new();
    let store = folder.open();
    let request = demanded(1, 1, None, 1);
    let recorded = recorded(store.record_payment(&of_tool(), request, nonce(1)).await.unwrap());
    let made = i64::try_from(recorded.unwrap().authorization().valid_before).unwrap() - 1;
    let at = |seconds: i64| Timestamp::from_second(made + seconds).unwrap();
    assert_eq!(open(&store, 1, at(269)).await, Some(nonce(1)));
    let until = Some(at(270));
    assert!(matches!(pay(&store, 1, 1).await, Err(Declined::Open { until: u, .. }) if u == until));
    assert_eq!(open(&store, 1, at(270)).await, None);
}

#[tokio::test]
async fn a_payment_is_open_until_it_is_settled_or_has_surely_ended() {
    let folder = Folder::new();
    let store = folder.open();
    let end = pay(&store, 1, 1).await.unwrap().authorization().valid_before;
    let at = |seconds: i64| Timestamp::from_second(i64::try_from(end).unwrap() + seconds).unwrap();
    assert_eq!(open(&folder.open(), 1, at(29)).await, Some(nonce(1)), "in every process");
    assert_eq!(open(&store, 1, at(30)).await, None);
    assert_eq!(open(&store, 2, at(0)).await, None, "another call");
    store.end_payment(nonce(1), PaymentEnd::Pending(Some("0xabc".to_owned()))).await.unwrap();
    assert_eq!(open(&store, 1, at(9999)).await, Some(nonce(1)), "as long as it is pending");
    let record = store.open_payment(WALLET.parse().unwrap(), [1; 32], at(0)).await.unwrap();
    assert_eq!(record.unwrap().transaction_hash.as_deref(), Some("0xabc"));
    let declined = pay(&store, 1, 1).await;
    assert!(matches!(declined, Err(Declined::Open { until: None, .. })), "the same call");
    store.end_payment(nonce(1), PaymentEnd::Pending(None)).await.unwrap();
    assert_eq!(open(&store, 1, at(30)).await, None);
    settle(&store, 1).await;
    assert_eq!(open(&store, 1, at(0)).await, None);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_clock_that_is_set_forward_ends_no_payment() {
    let folder = Folder::new();
    let store = folder.open();
    let end = pay(&store, 1, 1).await.unwrap().authorization().valid_before;
    let at = |seconds: i64| Timestamp::from_second(i64::try_from(end).unwrap() + seconds).unwrap();
    // As if it stood there now, set by 1000 seconds since the record.
    folder.tamper("UPDATE payments SET ahead = ahead - 1000000");
    assert_eq!(open(&folder.open(), 1, at(1025)).await, Some(nonce(1)), "in every process");
    assert_eq!(open(&store, 1, at(1035)).await, None);
    folder.tamper("UPDATE payments SET boot = 'another'");
    assert_eq!(open(&store, 1, at(29)).await, Some(nonce(1)));
    assert_eq!(open(&store, 1, at(31)).await, None, "what the clock was then is not known");
}

/// Records a purchase of this amount when its wallet has this balance.
async fn buy_at(
    store: &Store,
    number: u8,
    amount: u32,
    balance: &str,
) -> Result<Payment, Declined> {
    let purchase = Purchase { credits: 2000, recipient: WALLET.parse().unwrap() };
    let balance = Some(balance.to_owned());
    let request = PaymentRequest { balance, ..request(number, amount, Some(purchase)) };
    recorded(store.record_payment(&of_tool(), request, nonce(number)).await.unwrap())
}

#[tokio::test]
async fn a_purchase_that_has_ended_is_given_back_if_the_balance_is_that_of_before() {
    let after = |seconds: i64| {
        format!(
            "UPDATE payments SET valid_before = valid_before - {seconds}, recorded = recorded - {seconds}000"
        )
    };
    let nothing = "UPDATE payments SET amount = amount";
    for (seconds, sql, balance, is_given_back) in [
        (880, nothing, "7", true),
        (860, nothing, "7", false),
        (880, nothing, "8", false),
        (880, "UPDATE payments SET transaction_hash = '0xabc'", "7", false),
        (880, "UPDATE payments SET recipient = payer || '0'", "7", false),
        (880, "UPDATE payments SET state = 'settled'", "7", false),
    ] {
        let folder = Folder::new();
        let store = folder.open();
        buy_at(&store, 1, 20, "7").await.unwrap();
        send(&store, 1).await.unwrap();
        folder.tamper(&after(seconds));
        folder.tamper(sql);
        let again = buy_at(&store, 2, 20, balance).await;
        assert_eq!(again.is_ok(), is_given_back, "{seconds} {sql} {balance}: {again:?}");
        assert!(store.may_be_paid([1; 32]).await.unwrap(), "its key pays no other");
        send(&store, 2).await.unwrap_or_else(|_| assert!(!is_given_back));
        folder.tamper(&after(880));
        assert!(buy_at(&store, 3, 20, "7").await.is_err() || !is_given_back, "once a day");
    }
}

#[tokio::test]
async fn a_purchase_counts_if_another_call_may_have_spent_what_it_brought() {
    let folder = Folder::new();
    let (store, other) = (folder.open(), folder.open());
    buy_at(&store, 1, 20, "7").await.unwrap();
    send(&store, 1).await.unwrap();
    let invoke = operation(&Client::local(), "invoke", r#"{"parameters":{}}"#);
    let (call, request_id) = (&invoke.call, &id(9));
    let attempt =
        Attempt { operation: &invoke, call, request_id, payload_hash: None, payment: None };
    other.record_attempt(attempt, &Claim::default(), None).await.unwrap();
    folder.tamper(
        "UPDATE payments SET valid_before = valid_before - 880, recorded = recorded - 880000",
    );
    assert!(matches!(buy_at(&store, 2, 20, "7").await, Err(Declined::LimitReached { .. })));
}

#[tokio::test]
async fn one_purchase_of_a_wallet_is_open_at_a_time_and_tools_go_on() {
    let folder = Folder::new();
    let store = folder.open();
    let purchase = Purchase { credits: 500, recipient: WALLET.parse().unwrap() };
    let buy = async |number: u8| {
        let request = request(number, 1, Some(purchase));
        recorded(store.record_payment(&of_tool(), request, nonce(number)).await.unwrap())
    };
    buy(1).await.unwrap();
    assert!(matches!(buy(2).await, Err(Declined::Open { .. })));
    pay(&store, 3, 1).await.unwrap();
    settle(&store, 1).await;
    buy(4).await.unwrap();
}

#[tokio::test]
async fn limits_are_exact_for_many_calls_in_several_processes_at_once() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let calls = (0..32).map(|number| pay(&stores[usize::from(number % 2)], number, 3));
    let paid = join_all(calls).await.into_iter().filter(Result::is_ok).count();
    assert_eq!(paid, 6);
    assert_eq!(folder.number("SELECT sum(amount) FROM payments"), 18);
    let sql = "SELECT record FROM journal WHERE record LIKE '%\"payment\"%'";
    let records = folder.db().rows(sql, &[], |row| Ok(row.text(0)?.to_owned())).unwrap();
    assert_eq!(records.len(), 6);
    for record in records {
        assert_eq!(CanonicalJson::parse(record.as_bytes()).unwrap().as_str(), record);
    }
}

#[tokio::test]
async fn old_payments_are_forgotten_and_do_not_count() {
    let folder = Folder::new();
    let store = folder.open();
    pay(&store, 1, 20).await.unwrap();
    assert!(pay(&store, 2, 1).await.is_err());
    folder.tamper("UPDATE payments SET recorded = recorded - 30 * 86400000 - 1");
    pay(&store, 3, 20).await.unwrap();
    assert_eq!(folder.number("SELECT count(*) FROM payments"), 1);
}
