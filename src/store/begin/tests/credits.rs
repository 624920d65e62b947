//! The credits that calls hold against the limit of their client.

use super::*;

/// A call that spends credits, of a client that may spend 100 in a day.
fn spending(client: &Client, price: Option<&str>) -> Operation {
    let limited = Client { max_credits: Some("100/day".parse().unwrap()), ..client.clone() };
    let price = price.map(|price| price.parse().unwrap());
    let call = Operation::of(&limited, "invoke", "tool", r#"{"parameters":{}}"#);
    Operation { price, deadline: Instant::now(), ..call }
}

fn credits(end: CreditEnd) -> Finish {
    Finish { credits: end, ..end_of_nothing() }
}

fn end_of_nothing() -> Finish {
    end(KeyEnd::Free, JobEnd::Unchanged)
}

fn charged(credits: &str) -> CreditEnd {
    CreditEnd::Charged(credits.parse().unwrap())
}

/// The credits that are left, and whether some are held, as a call is told that costs more.
async fn left(store: &Store, client: &Client, now: i64) -> (String, bool) {
    match denied(store, &spending(client, Some("101")), now).await {
        Denied::CreditLimit { left, is_held, .. } => (left.to_string(), is_held),
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn credits_are_held_until_it_is_known_what_was_charged() {
    let folder = Folder::new();
    let store = folder.open();
    let [ci] = added(&folder, &store, [client("ci")]).await;
    let (unpriced, priced) = (spending(&ci, None), spending(&ci, Some("30")));
    for (operation, meanwhile, ends, expected) in [
        (&unpriced, "0", charged("12.5"), "87.5"),
        (&unpriced, "0", CreditEnd::Free, "87.5"),
        (&priced, "57.5", charged("20"), "67.5"),
        (&priced, "37.5", charged("0"), "67.5"),
        (&priced, "37.5", CreditEnd::Free, "67.5"),
    ] {
        let Started { claim, .. } = started(&store, operation, 0).await;
        assert_eq!(left(&store, &ci, 0).await, (meanwhile.to_owned(), true));
        finish(&store, operation, &claim, &credits(ends), 0).await;
        assert_eq!(left(&store, &ci, 0).await, (expected.to_owned(), false), "{ends:?}");
    }
    // Credits in doubt, or held by a process that died, count until the window ends.
    let Started { claim, .. } = started(&store, &priced, 0).await;
    finish(&store, &priced, &claim, &credits(CreditEnd::Held), 0).await;
    drop(started(&store, &priced, 0).await);
    assert_eq!(left(&folder.open(), &ci, DAY - 1).await, ("7.5".to_owned(), true));
    assert_eq!(left(&store, &ci, DAY + 1800).await, ("100".to_owned(), false));
    started(&store, &unpriced, DAY + 1800).await;
    assert_eq!(folder.number("SELECT count(*) FROM credit_charges"), 0, "what ended is forgotten");
}

#[tokio::test]
async fn many_calls_at_once_hold_no_more_than_the_limit() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let [ci, other] = added(&folder, &stores[0], [client("ci"), client("other")]).await;
    for (price, most) in [(Some("30"), 3), (None, 1)] {
        let client = if price.is_some() { &ci } else { &other };
        let operation = spending(client, price);
        let begun = (0..32).map(|number| stores[number % 2].begin(&operation, moment(0)));
        let begun: Vec<_> = join_all(begun).await.into_iter().map(Result::unwrap).collect();
        let started = begun.iter().filter(|begun| matches!(begun, Begun::Started(_))).count();
        assert_eq!(started, most, "{price:?}");
    }
}

#[tokio::test]
async fn a_client_with_a_new_token_has_spent_what_it_had_and_a_new_client_nothing() {
    let folder = Folder::new();
    let store = folder.open();
    let [ci] = added(&folder, &store, [client("ci")]).await;
    let operation = spending(&ci, None);
    let Started { claim, .. } = started(&store, &operation, 0).await;
    finish(&store, &operation, &claim, &credits(charged("40")), 0).await;
    folder.clients().revoke(&name("ci"), at(0)).unwrap();
    let [again] = added(&folder, &store, [client("ci")]).await;
    assert_eq!(left(&store, &again, 0).await.0, "60");
    folder.clients().revoke(&name("ci"), at(0)).unwrap();
    folder.clients().remove(&name("ci")).unwrap();
    let [new] = added(&folder, &store, [client("ci")]).await;
    assert_eq!(left(&store, &new, 0).await.0, "100");
}

#[tokio::test]
async fn a_call_in_doubt_holds_its_credits_once() {
    let folder = Folder::new();
    let store = folder.open();
    let [ci] = added(&folder, &store, [client("ci")]).await;
    let operation = under(spending(&ci, Some("30")), "key");
    let Started { claim, .. } = started(&store, &operation, 0).await;
    send(&store, &operation, &claim, SETTLES).await;
    finish(
        &store,
        &operation,
        &claim,
        &Finish { key: KeyEnd::InDoubt(None), ..credits(CreditEnd::Held) },
        0,
    )
    .await;
    drop(claim);
    let again = started(&store, &operation, 1).await;
    assert!(again.doubt.is_some());
    assert_eq!(left(&store, &ci, 1).await.0, "70");
}
