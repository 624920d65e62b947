use super::*;
use crate::{
    policy::Client,
    store::{
        Journal,
        testing::{Folder, WALLET, at, client, key},
    },
    types::ClientId,
};

fn terms(amount: &str) -> PaymentTerms {
    let address = |digit: &str| format!("0x{}", digit.repeat(40)).parse().unwrap();
    PaymentTerms {
        resource: "https://api.example/credits/purchase".to_owned(),
        network: "eip155:8453".parse().unwrap(),
        asset: address("8"),
        payee: address("1"),
        amount: amount.parse().unwrap(),
    }
}

/// A use of a tool by a client, which differs by a number.
fn call(client: &Client, number: u8) -> Operation {
    Operation::of(client, "invoke", "tool", &format!(r#"{{"parameters":{{"number":{number}}}}}"#))
}

async fn said(
    store: &Store,
    operation: &Operation,
    amount: &str,
    now: i64,
) -> Option<Result<Approval, Denied>> {
    try_to_ask(store, operation, None, amount, now).await.unwrap()
}

async fn try_to_ask(
    store: &Store,
    operation: &Operation,
    purchase: Option<Purchase>,
    amount: &str,
    now: i64,
) -> Result<Option<Result<Approval, Denied>>, StoreError> {
    let (operation, terms, seal) = (operation.clone(), terms(amount), store.0.seal.clone());
    store.write(move |db| ask(db, &seal, &operation, purchase, terms, at(now))).await
}

async fn asked(store: &Store, call: &Operation, amount: &str, now: i64) -> Approval {
    said(store, call, amount, now).await.unwrap().unwrap()
}

fn yes(folder: &Folder, id: ApprovalId, now: i64) -> Result<Approval, String> {
    approve(&folder.path(), id, key(1), at(now)).unwrap().map_err(|error| error.to_string())
}

fn no(folder: &Folder, id: ApprovalId, now: i64) -> Result<Approval, String> {
    deny(&folder.path(), id, at(now)).unwrap().map_err(|error| error.to_string())
}

fn state(approval: &Approval, now: i64) -> &'static str {
    approval.state(at(now)).as_str()
}

#[tokio::test]
async fn a_payment_waits_until_it_is_approved_and_is_then_made_once() {
    let folder = Folder::new();
    let store = folder.open();
    let pay = call(&client("ci"), 1);
    let first = asked(&store, &pay, "5", 0).await;
    assert_eq!(state(&first, 0), "waiting");
    assert_eq!(asked(&store, &pay, "5", 10).await, first, "the same payment is asked for once");
    for (call, amount) in [(&pay, "6"), (&call(&client("ci"), 2), "5")] {
        assert_ne!(asked(&store, call, amount, 10).await.id, first.id, "another payment");
    }
    let approved = yes(&folder, first.id, 20).unwrap();
    assert_eq!((state(&approved, 20), state(&approved, 20 + 3600)), ("approved", "expired"));
    let twice = yes(&folder, first.id, 30).unwrap_err();
    assert!(twice.contains("is approved"), "{twice}");
    assert_eq!(said(&store, &pay, "5", 30).await, None);
    let used = store.approval(first.id).await.unwrap().unwrap();
    assert_eq!(state(&used, 9999), "used");
    assert!(no(&folder, first.id, 35).unwrap_err().contains("is used"));
    assert_ne!(asked(&store, &pay, "5", 40).await.id, first.id, "it is asked for anew");
    Journal::open(&folder.path()).unwrap().verify().unwrap();
}

#[tokio::test]
async fn a_payment_that_is_denied_or_whose_time_is_over_is_not_made() {
    let folder = Folder::new();
    let store = folder.open();
    let [denied, late] = [1, 2].map(|number| call(&client("ci"), number));
    let first = asked(&store, &denied, "5", 0).await;
    let second = asked(&store, &late, "5", 0).await;
    let answer = no(&folder, first.id, 10).unwrap();
    assert_eq!(asked(&store, &denied, "5", 20).await, answer, "the answer counts for an hour");
    assert_ne!(asked(&store, &denied, "5", 3610).await.id, first.id);
    let too_late = yes(&folder, second.id, 3600).unwrap_err();
    assert!(too_late.contains("is expired"), "{too_late}");
    let third = asked(&store, &late, "5", 3600).await;
    yes(&folder, third.id, 3600).unwrap();
    let fourth = asked(&store, &late, "5", 7200).await;
    assert_eq!(state(&fourth, 7200), "waiting", "the approval was not used in time");
    assert!(yes(&folder, ApprovalId::random(), 0).is_err());
    let listed = approvals(&folder.path()).unwrap().len();
    asked(&store, &late, "7", 30 * 3600).await;
    assert_eq!((listed, approvals(&folder.path()).unwrap().len()), (5, 1), "a day later");
}

#[tokio::test]
async fn an_approval_is_taken_back_until_it_is_used() {
    let folder = Folder::new();
    let store = folder.open();
    let pay = call(&client("ci"), 1);
    let first = asked(&store, &pay, "5", 0).await;
    yes(&folder, first.id, 10).unwrap();
    let denied = no(&folder, first.id, 20).unwrap();
    assert_eq!(asked(&store, &pay, "5", 30).await, denied);
    assert!(yes(&folder, first.id, 40).unwrap_err().contains("is denied"));
}

#[tokio::test]
async fn only_the_key_of_the_wallet_approves_and_only_the_payment_and_the_time_that_it_was_for() {
    let folder = Folder::new();
    let store = folder.open();
    let [pay, other] = [1, 2].map(|number| call(&client("ci"), number));
    let first = asked(&store, &pay, "5", 0).await;
    let foreign = approve(&folder.path(), first.id, key(2), at(10)).unwrap();
    assert!(matches!(foreign, Err(ApprovalError::OtherWallet(id)) if id == first.id));
    folder.tamper("UPDATE approvals SET answer = 'approved', answered_by = 'x'");
    let refused = |result: Result<_, StoreError>| result.unwrap_err().fault().clone();
    let sealed = Fault::Sealed("approval");
    assert_eq!(refused(try_to_ask(&store, &pay, None, "5", 10).await), sealed);
    folder.tamper("UPDATE approvals SET answer = NULL");
    yes(&folder, first.id, 20).unwrap();
    let second = asked(&store, &other, "500", 20).await;
    for change in [
        format!(
            "seal = (SELECT seal FROM approvals WHERE id = '{}'), answer = 'approved'",
            first.id
        ),
        "answer = 'approved', ends = ends + 1".to_owned(),
    ] {
        folder.tamper(&format!("UPDATE approvals SET {change}, answered_by = 'x'"));
        let asked = try_to_ask(&store, &other, None, "500", 30).await;
        assert_eq!(refused(asked), sealed, "{change}");
    }
    assert_eq!(refused(try_to_ask(&store, &pay, None, "5", 30).await), sealed, "a longer time");
    assert_eq!(state(&store.approval(second.id).await.unwrap().unwrap(), 30), "approved");
}

#[tokio::test]
async fn a_purchase_is_the_same_one_however_it_is_written() {
    let folder = Folder::new();
    let store = folder.open();
    let purchase = |body: &str| Operation::of(&client("ci"), "credits_purchase", "", body);
    let bought = |credits| Some(Purchase { credits, recipient: WALLET.parse().unwrap() });
    let ask = async |body: &str, credits| {
        let call = purchase(body);
        try_to_ask(&store, &call, bought(credits), "5", 20).await.unwrap().unwrap().unwrap()
    };
    let first = ask(r#"{"credits":500}"#, 500).await;
    let denied = no(&folder, first.id, 20).unwrap();
    for body in [r#"{"credits": 500}"#, r#"{"credits":500,"request_id":"2"}"#] {
        assert_eq!(ask(body, 500).await, denied, "{body}");
    }
    assert_ne!(ask(r#"{"credits":1000}"#, 1000).await.id, first.id);
}

#[tokio::test]
async fn a_client_asks_sixteen_times_an_hour_at_most_whatever_the_answers_are() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..16 {
        let asked = asked(&store, &call(&client("ci"), number), "5", number.into()).await;
        no(&folder, asked.id, number.into()).unwrap();
    }
    let more = call(&client("ci"), 16);
    let denied = Denied::TooManyApprovals { until: at(3600) };
    assert_eq!(said(&store, &more, "5", 20).await, Some(Err(denied)));
    let other = Client { id: ClientId::new(9), ..client("other") };
    asked(&store, &call(&other, 16), "5", 20).await;
    asked(&store, &more, "5", 3600).await;
    let next = Denied::TooManyApprovals { until: at(3601) };
    assert_eq!(said(&store, &call(&client("ci"), 17), "5", 3600).await, Some(Err(next)));
}
