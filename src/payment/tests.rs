use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::*;
use crate::{
    action::Action,
    call::Call,
    config::{AssetConfig, SpendingConfig},
    policy::{Client, Permit},
    types::{Address, BaseUnits, ClientId, Signature},
};

const URL: &str = "https://www.agentpmt.com/api/external/credits/purchase";
const USDC: &str = "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913";
const PAYEE: Address = Address::new([0x11; 20]);
const OWN: ClientId = ClientId::new(1);
const OTHER: ClientId = ClientId::new(2);

fn payer() -> Address {
    "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025".parse().unwrap()
}

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000 - 240).unwrap()
}

/// At most 5 a call, 8 a day, 20 a month.
fn config() -> SpendingConfig {
    SpendingConfig {
        wallet: Some(payer()),
        networks: vec!["eip155:8453".parse().unwrap()],
        payees: vec![PAYEE],
        resources: vec![URL.to_owned()],
        max_per_call: Some("5".parse().unwrap()),
        per_day: Some("8".parse().unwrap()),
        per_month: Some("20".parse().unwrap()),
        approve_above: None,
        assets: vec![AssetConfig {
            address: USDC.parse().unwrap(),
            decimals: 6,
            name: "USD Coin".to_owned(),
            version: "2".to_owned(),
        }],
    }
}

fn entry() -> Value {
    json!({
        "scheme": "exact",
        "network": "eip155:8453",
        "amount": "5000000",
        "asset": USDC,
        "payTo": PAYEE.to_string(),
        "maxTimeoutSeconds": 300,
        "extra": { "name": "USD Coin", "version": "2" },
        "ours": [1.0, null],
    })
}

fn demand(accepts: &[Value]) -> Value {
    json!({ "x402Version": 2, "resource": { "url": URL, "mimeType": "a" }, "accepts": accepts })
}

fn parsed(demand: &Value) -> Challenge {
    Challenge::parse(demand.to_string().as_bytes()).unwrap()
}

fn permit(wallet: Address) -> Permit {
    let call = Call::new(Action::named("credits_purchase").unwrap(), [], b"").unwrap();
    Client::local().permit(call, wallet, None, now()).unwrap()
}

fn purchase(credits: u64) -> Option<Purchase> {
    Some(Purchase { credits, recipient: payer() })
}

fn fresh(now: Timestamp) -> Fresh {
    Fresh { nonce: AuthorizationNonce::new([0xab; 32]), now }
}

fn spender(spent: &[Spent]) -> Spender<'_> {
    Spender { client: OWN, limit: None, spent, is_approved: false }
}

fn pay_under(config: &SpendingConfig, demand: &Value) -> Result<Payment, Declined> {
    let (spending, permit) = (Spending::of(config).unwrap(), permit(payer()));
    spending.pay(&permit, &parsed(demand), purchase(500), spender(&[]), fresh(now()))
}

fn pay(demand: &Value) -> Result<Payment, Declined> {
    pay_under(&config(), demand)
}

fn paid_after(limit: Option<&str>, spent: &[Spent], units: u128) -> Result<Payment, Declined> {
    let entry = with("amount", json!(units.to_string()));
    let limit = limit.map(|limit| limit.parse().unwrap());
    let spender = Spender { client: OWN, limit, spent, is_approved: false };
    let (spending, permit) = (Spending::of(&config()).unwrap(), permit(payer()));
    spending.pay(&permit, &parsed(&demand(&[entry])), None, spender, fresh(now()))
}

/// The entry with another value in one field.
fn with(field: &str, value: Value) -> Value {
    let mut entry = entry();
    entry[field] = value;
    entry
}

fn ago(client: ClientId, hours: i64, units: u128) -> Spent {
    let at = now() - SignedDuration::from_hours(hours);
    Spent { client, at, amount: BaseUnits::new(units) }
}

#[test]
fn a_payment_has_the_envelope_of_the_protocol() {
    let payment = pay(&demand(&[entry()])).unwrap();
    assert_eq!(payment.sponsor_message(), None);
    let signature = Signature::new([7; 65]);
    let header = payment.header(&signature);
    let value = &header.value;
    assert!(value.is_sensitive());
    assert_eq!(format!("{header:?}"), "PaymentProof([REDACTED])");
    let text = String::from_utf8(STANDARD.decode(value.as_bytes()).unwrap()).unwrap();
    let entry = entry().to_string();
    assert!(text.contains(&format!("\"accepted\":{entry},")), "verbatim: {text}");
    let envelope: Value = serde_json::from_str(&text).unwrap();
    assert_eq!(envelope["resource"], json!({ "url": URL, "mimeType": "a" }));
    assert_eq!(envelope["x402Version"], 2);
    let authorization = json!({
        "from": payer().to_string(),
        "to": PAYEE.to_string(),
        "value": "5000000",
        "validAfter": "0",
        "validBefore": "1790000000",
        "nonce": format!("0x{}", "ab".repeat(32)),
    });
    let payload = json!({ "signature": signature.to_hex(), "authorization": authorization });
    assert_eq!(envelope["payload"], payload);
    assert_eq!(payment.typed_data()["message"], authorization);
}

#[test]
fn a_purchase_for_another_wallet_is_sponsored_with_its_five_lines() {
    let spending = Spending::of(&config()).unwrap();
    let purchase = Purchase { credits: 500, recipient: PAYEE };
    let challenge = parsed(&demand(&[entry()]));
    let permit = permit(payer());
    let payment =
        spending.pay(&permit, &challenge, Some(purchase), spender(&[]), fresh(now())).unwrap();
    let message = payment.sponsor_message().unwrap();
    let text = message.to_string();
    let lines: Vec<_> = text.split('\n').collect();
    let nonce = format!("nonce:0x{}", "ab".repeat(32));
    let recipient = format!("recipient:{PAYEE}");
    let payer = format!("payer:{}", payer());
    assert_eq!(lines, ["agentpmt-external-sponsor", &payer, &recipient, "credits:500", &nonce]);
}

#[test]
fn the_header_and_the_body_of_a_402_hold_the_same_challenge() {
    let json = demand(&[entry()]).to_string();
    let read = Challenge::from_header(STANDARD.encode(&json).as_bytes()).unwrap();
    assert_eq!(format!("{read:?}"), format!("{:?}", Challenge::parse(json.as_bytes()).unwrap()));
    assert_eq!(Challenge::from_header(b"{}").unwrap_err(), InvalidChallenge::Encoding);
}

#[test]
fn a_challenge_of_another_form_is_refused() {
    let one = demand(&[entry()]);
    let without = |field: &str| {
        let mut demand = one.clone();
        demand.as_object_mut().unwrap().remove(field);
        demand.to_string()
    };
    let twice = one.to_string().replacen('{', "{\"accepts\":[],", 1);
    for text in [
        &without("x402Version"),
        &without("resource"),
        &without("accepts"),
        &twice,
        "",
        "{}",
        "[]",
        "null",
        "\"\"",
        "NaN",
        &one.to_string().replace("[{", "[[{").replace("}]", "}"),
        &json!({ "x402Version": 2, "resource": URL, "accepts": [] }).to_string(),
        &json!({ "x402Version": 2, "resource": { "url": "/a" }, "accepts": [] }).to_string(),
        &json!({ "x402Version": "2", "resource": { "url": URL }, "accepts": [] }).to_string(),
    ] {
        assert_eq!(
            Challenge::parse(text.as_bytes()).unwrap_err(),
            InvalidChallenge::Form,
            "{text}"
        );
    }
    let old = one.to_string().replace("\"x402Version\":2", "\"x402Version\":1");
    assert_eq!(Challenge::parse(old.as_bytes()).unwrap_err(), InvalidChallenge::Version);
    let long = demand(&vec![json!({}); 33]).to_string();
    assert_eq!(Challenge::parse(long.as_bytes()).unwrap_err(), InvalidChallenge::Length);
}

#[test]
fn no_part_of_a_challenge_is_longer_than_8_kib() {
    let filled = |mut part: Value, length: usize| {
        part["fill"] = json!("");
        part["fill"] = json!("a".repeat(length - part.to_string().len()));
        part
    };
    let read = |resource: usize, offer: usize| {
        let mut demand = demand(&[entry(), filled(entry(), offer)]);
        demand["resource"] = filled(json!({ "url": URL }), resource);
        Challenge::parse(demand.to_string().as_bytes()).map(drop)
    };
    assert_eq!(read(8192, 8192), Ok(()));
    assert_eq!(read(8193, 8192), Err(InvalidChallenge::Part));
    assert_eq!(read(8192, 8193), Err(InvalidChallenge::Part));
}

/// Each is the allowed entry but for one field.
#[test]
fn nothing_is_paid_for_an_entry_that_differs_from_the_configuration() {
    let sepolia = "0x036cbd53842c5426634e7929541ec2318f3dcf7e";
    let (usdc, base) = (USDC.parse().unwrap(), "eip155:8453".parse().unwrap());
    let extra = |extra: Value| with("extra", extra);
    for (entry, reason) in [
        (with("payTo", json!(USDC)), Unfit::Payee(usdc)),
        (with("payTo", json!("me")), Unfit::Form),
        (with("asset", json!(sepolia)), Unfit::Asset(sepolia.parse().unwrap(), base)),
        (with("network", json!("eip155:1")), Unfit::Network("eip155:1".parse().unwrap())),
        (with("network", json!("eip155:08453")), Unfit::ForeignNetwork),
        (with("network", json!("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp")), Unfit::ForeignNetwork),
        (with("scheme", json!("upto")), Unfit::Scheme),
        (with("scheme", json!("EXACT")), Unfit::Scheme),
        (with("amount", json!("0")), Unfit::Nothing),
        (with("amount", json!("-1")), Unfit::Form),
        (with("amount", json!("5e6")), Unfit::Form),
        (with("amount", json!("0x4c4b40")), Unfit::Form),
        (with("amount", json!(5_000_000)), Unfit::Form),
        (with("amount", json!(5.0)), Unfit::Form),
        (with("maxTimeoutSeconds", json!(0)), Unfit::NoTime),
        (with("maxTimeoutSeconds", json!(-1)), Unfit::Form),
        (with("maxTimeoutSeconds", json!(1.5)), Unfit::Form),
        (with("maxTimeoutSeconds", json!("300")), Unfit::Form),
        (with("extra", json!(null)), Unfit::NoDomain),
        (extra(json!({})), Unfit::NoDomain),
        (extra(json!({ "version": "2" })), Unfit::NoDomain),
        (extra(json!({ "name": "USD Coin" })), Unfit::NoDomain),
        (extra(json!({ "name": "USDC", "version": "2" })), Unfit::Domain(usdc)),
        (extra(json!({ "name": "USD Coin", "version": "1" })), Unfit::Domain(usdc)),
        (
            extra(json!({ "name": "USD Coin", "version": "2", "assetTransferMethod": "permit2" })),
            Unfit::Scheme,
        ),
        (json!("exact"), Unfit::Form),
    ] {
        let declined = pay(&demand(std::slice::from_ref(&entry))).unwrap_err();
        assert_eq!(declined, Declined::NoOffer(vec![reason]), "{entry}");
    }
    let twice = demand(&[entry()]).to_string().replace("\"payTo\"", "\"payTo\":\"0x0\",\"payTo\"");
    let twice = serde_json::value::RawValue::from_string(twice).unwrap();
    let spending = Spending::of(&config()).unwrap();
    let challenge = Challenge::parse(twice.get().as_bytes()).unwrap();
    let declined =
        spending.pay(&permit(payer()), &challenge, None, spender(&[]), fresh(now())).unwrap_err();
    assert_eq!(declined, Declined::NoOffer(vec![Unfit::Form]), "a field that is there twice");
    assert_eq!(pay(&demand(&[])).unwrap_err(), Declined::NoOffer(vec![]));
}

#[test]
fn nothing_is_paid_for_another_url_by_another_wallet_or_above_the_price() {
    let path = "/api/external/credits/purchase";
    let unlisted = format!("https://www.agentpmt.com{path}?x");
    let elsewhere = format!("https://evil.example/{}", "a".repeat(300));
    for (url, says) in [
        (&unlisted, format!("{unlisted} is not in spending.resources")),
        (&elsewhere, format!("which ends in {path}: {}", &elsewhere[..200])),
    ] {
        let mut demand = demand(&[entry()]);
        demand["resource"]["url"] = json!(url);
        let text = pay(&demand).unwrap_err().to_string();
        assert!(text.contains(&says) && text.len() < 400, "{text}");
    }
    let (spending, challenge) = (Spending::of(&config()).unwrap(), parsed(&demand(&[entry()])));
    let pay = |wallet, credits| {
        spending.pay(&permit(wallet), &challenge, purchase(credits), spender(&[]), fresh(now()))
    };
    let other = Address::new([2; 20]);
    let wallet = Declined::Wallet { wallet: other, payer: payer() };
    assert_eq!(pay(other, 500).unwrap_err(), wallet);
    let price = Declined::Price { amount: "5".parse().unwrap(), price: "4.99".parse().unwrap() };
    assert_eq!(pay(payer(), 499).unwrap_err(), price);
}

#[test]
fn a_known_contract_is_paid_on_its_own_network_alone() {
    let mut config = config();
    config.networks.push("eip155:10".parse().unwrap());
    let network = "eip155:10".parse().unwrap();
    let declined = pay_under(&config, &demand(&[with("network", json!("eip155:10"))])).unwrap_err();
    assert_eq!(declined, Declined::NoOffer(vec![Unfit::Asset(USDC.parse().unwrap(), network)]));
}

#[test]
fn the_cheapest_entry_that_is_allowed_is_paid_wherever_it_stands() {
    let cheap = with("amount", json!("7"));
    let foreign = with("payTo", json!(USDC));
    let payment = pay(&demand(&[foreign, entry(), cheap.clone(), entry()])).unwrap();
    assert_eq!(payment.authorization().value, BaseUnits::new(7));
    assert_eq!(payment.accepted.get(), cheap.to_string());
}

#[test]
fn an_authorisation_ends_after_240_seconds_or_sooner() {
    for (most, seconds) in [(1, 1), (239, 239), (241, 240), (u64::MAX, 240)] {
        let entry = with("maxTimeoutSeconds", json!(most));
        let end = pay(&demand(&[entry])).unwrap().authorization().valid_before;
        assert_eq!(end, 1_790_000_000 - 240 + seconds, "{most}");
    }
}

#[test]
fn an_incomplete_configuration_pays_nothing() {
    assert!(Spending::of(&config()).is_some());
    for spending in [
        SpendingConfig { wallet: None, ..config() },
        SpendingConfig { assets: vec![], ..config() },
        SpendingConfig { max_per_call: None, ..config() },
        SpendingConfig { per_day: None, ..config() },
        SpendingConfig { per_month: None, ..config() },
        SpendingConfig { approve_above: Some("0.0000001".parse().unwrap()), ..config() },
    ] {
        assert!(Spending::of(&spending).is_none(), "{spending:?}");
    }
    for spending in [
        SpendingConfig { networks: vec![], ..config() },
        SpendingConfig { payees: vec![], ..config() },
        SpendingConfig { resources: vec![], ..config() },
    ] {
        assert!(pay_under(&spending, &demand(&[entry()])).is_err(), "{spending:?}");
    }
}

#[test]
fn a_limit_is_exact_and_says_what_is_left_and_until_when() {
    let spent = [ago(OTHER, 23, 2_000_000), ago(OTHER, 1, 2_000_000), ago(OWN, 25, 4_000_000)];
    assert!(paid_after(None, &spent, 4_000_000).is_ok());
    let declined = paid_after(None, &spent, 4_000_001).unwrap_err();
    let expected = Declined::LimitReached {
        limit: Limit::PerDay,
        left: "4".parse().unwrap(),
        until: now() + SignedDuration::from_hours(1),
        amount: "4.000001".parse().unwrap(),
    };
    assert_eq!(declined, expected);
    let text = declined.to_string();
    let says = "the upstream demands 4.000001, and spending.per_day leaves 4 until 2026-";
    assert!(text.starts_with(says), "{text}");
}

#[test]
fn a_month_is_summed_like_a_day() {
    let days = |days: i64| ago(OWN, days * 24, 8_000_000);
    let spent = [days(2), days(29), days(31)];
    assert!(paid_after(None, &spent, 4_000_000).is_ok());
    let declined = paid_after(None, &spent, 4_000_001).unwrap_err();
    let until = now() + SignedDuration::from_hours(24);
    assert!(
        matches!(&declined, Declined::LimitReached { limit: Limit::PerMonth, until: end, .. } if *end == until),
        "{declined}"
    );
}

#[test]
fn a_payment_counts_for_the_whole_window_and_from_the_future_too() {
    let at = |seconds: i64| {
        let at = now() - SignedDuration::from_secs(seconds);
        [Spent { client: OWN, at, amount: BaseUnits::new(8_000_000) }]
    };
    assert!(paid_after(None, &at(24 * 60 * 60 - 1), 1).is_err());
    assert!(paid_after(None, &at(24 * 60 * 60), 1).is_ok());
    assert!(paid_after(None, &at(-3600), 1).is_err(), "the clock was set back");
}

#[test]
fn a_client_is_narrower_and_never_wider() {
    let limit_of = |declined: Declined| match declined {
        Declined::LimitReached { limit, .. } | Declined::AboveLimit { limit, .. } => {
            limit.to_string()
        }
        declined => panic!("{declined}"),
    };
    let spent = [ago(OWN, 1, 1_000_000), ago(OTHER, 1, 2_000_000)];
    assert!(paid_after(Some("3/day"), &spent, 2_000_000).is_ok(), "only its own count");
    let declined = paid_after(Some("3/day"), &spent, 2_000_001).unwrap_err();
    assert_eq!(limit_of(declined), "the client's limit of 3/day");
    let declined = paid_after(Some("3/day"), &[], 3_000_001).unwrap_err();
    assert_eq!(limit_of(declined), "the client's limit of 3/day");
    let old = [ago(OWN, 48, 2_000_000)];
    assert!(paid_after(Some("3/month"), &old, 1_000_001).is_err());
    assert!(paid_after(Some("0.0000001/day"), &[], 1).is_err());
    let declined = paid_after(Some("100/day"), &spent, 5_000_001).unwrap_err();
    assert_eq!(limit_of(declined), "spending.max_per_call");
    let declined = paid_after(Some("100/day"), &[ago(OTHER, 1, 4_000_000)], 4_000_001).unwrap_err();
    assert_eq!(limit_of(declined), "spending.per_day");
}

#[test]
fn sums_and_amounts_of_any_size_do_not_overflow() {
    let most = u128::MAX;
    let spent = [ago(OTHER, 1, most), ago(OTHER, 2, most), ago(OTHER, 3, most)];
    assert!(paid_after(None, &spent, 1).is_err());
    assert!(paid_after(None, &[], most).is_err());
}

#[test]
fn more_than_approve_above_is_not_signed() {
    let config = SpendingConfig { approve_above: Some("4.999999".parse().unwrap()), ..config() };
    let declined = pay_under(&config, &demand(&[entry()])).unwrap_err();
    let terms = PaymentTerms {
        resource: URL.to_owned(),
        network: "eip155:8453".parse().unwrap(),
        asset: USDC.parse().unwrap(),
        payee: PAYEE,
        amount: "5".parse().unwrap(),
    };
    let above = "4.999999".parse().unwrap();
    assert_eq!(declined, Declined::Unapproved { above, terms: Box::new(terms) });
    assert!(pay_under(&config, &demand(&[with("amount", json!("4999999"))])).is_ok());
}
