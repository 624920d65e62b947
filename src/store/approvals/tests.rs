use super::*;
use crate::{
    policy::Client,
    store::{
        Journal,
        testing::{Folder, at, client},
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

/// A call of a client, and the hash that stands for it.
fn call(client: &Client, number: u8) -> (Operation, [u8; 32]) {
    (Operation::of(client, "invoke", "tool", r#"{"parameters":{}}"#), [number; 32])
}

async fn said(
    store: &Store,
    (operation, hash): &(Operation, [u8; 32]),
    amount: &str,
    now: i64,
) -> Option<Result<Approval, Denied>> {
    let (operation, hash, terms) = (operation.clone(), *hash, terms(amount));
    store.write(move |db| ask(db, &operation, &hash, terms, at(now))).await.unwrap()
}

async fn asked(store: &Store, call: &(Operation, [u8; 32]), amount: &str, now: i64) -> Approval {
    said(store, call, amount, now).await.unwrap().unwrap()
}

fn answer(
    folder: &Folder,
    id: ApprovalId,
    word: ApprovalAnswer,
    now: i64,
) -> Result<Approval, String> {
    answer_approval(&folder.path(), id, word, at(now)).unwrap().map_err(|error| error.to_string())
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
    let approved = answer(&folder, first.id, ApprovalAnswer::Approved, 20).unwrap();
    assert_eq!((state(&approved, 20), state(&approved, 20 + 3600)), ("approved", "expired"));
    let twice = answer(&folder, first.id, ApprovalAnswer::Denied, 30).unwrap_err();
    assert!(twice.contains("is approved"), "{twice}");
    assert_eq!(said(&store, &pay, "5", 30).await, None);
    let used = store.approval(first.id).await.unwrap().unwrap();
    assert_eq!(state(&used, 9999), "used");
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
    let no = answer(&folder, first.id, ApprovalAnswer::Denied, 10).unwrap();
    assert_eq!(asked(&store, &denied, "5", 20).await, no, "the answer counts for an hour");
    assert_ne!(asked(&store, &denied, "5", 3610).await.id, first.id);
    let too_late = answer(&folder, second.id, ApprovalAnswer::Approved, 3600).unwrap_err();
    assert!(too_late.contains("is expired"), "{too_late}");
    let third = asked(&store, &late, "5", 3600).await;
    answer(&folder, third.id, ApprovalAnswer::Approved, 3600).unwrap();
    let fourth = asked(&store, &late, "5", 7200).await;
    assert_eq!(state(&fourth, 7200), "waiting", "the approval was not used in time");
    assert!(answer(&folder, ApprovalId::random(), ApprovalAnswer::Approved, 0).is_err());
    let listed = approvals(&folder.path()).unwrap().len();
    asked(&store, &late, "7", 30 * 3600).await;
    assert_eq!((listed, approvals(&folder.path()).unwrap().len()), (5, 1), "a day later");
}

#[tokio::test]
async fn a_client_has_sixteen_payments_that_wait_at_most() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..16 {
        asked(&store, &call(&client("ci"), number), "5", number.into()).await;
    }
    let more = call(&client("ci"), 16);
    let denied = Denied::TooManyApprovals { until: at(3600) };
    assert_eq!(said(&store, &more, "5", 20).await, Some(Err(denied)));
    let other = Client { id: ClientId::new(9), ..client("other") };
    asked(&store, &call(&other, 16), "5", 20).await;
    asked(&store, &more, "5", 3600).await;
}
