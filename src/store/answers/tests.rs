use axum::body::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::{
    policy::Client,
    store::{
        Journal, StoredAnswer,
        db::Param,
        testing::{Folder, at, client, entry, holds, key, limit_growth, name},
    },
};

const FINGERPRINT: [u8; 32] = [7; 32];

/// When the upstream is done with what [`sent`] has sent.
const QUIET: i64 = 60;

fn answer(body: impl Into<Bytes>) -> StoredAnswer {
    let headers = HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    )]);
    StoredAnswer { status: StatusCode::OK, headers, body: body.into() }
}

/// Records that a claimed call is being sent.
async fn sent(store: &Store, quiet: i64) -> Result<(), StoreError> {
    store.sign_record(&entry(1), Some(Sending { key: "key", quiet: at(quiet) })).await
}

/// Given up by the run that asks again.
fn interrupted(quiet: i64) -> Claim {
    Claim::Interrupted { quiet: at(quiet), has_died: false, is_other: false }
}

/// Left behind by a run that has died.
fn left_behind(quiet: i64) -> Claim {
    Claim::Interrupted { quiet: at(quiet), has_died: true, is_other: false }
}

async fn claim(store: &Store, seconds: i64) -> Claim {
    store.claim("agent", None, "key", FINGERPRINT, at(seconds)).await.unwrap()
}

#[tokio::test]
async fn the_first_answer_is_given_again() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    assert_eq!(claim(&store, 1).await, Claim::Running);
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer("{}")));
    drop(store);
    assert_eq!(claim(&folder.open(), 3).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn keys_belong_to_clients_and_to_one_call() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    let other = store.claim("agent", None, "key", [8; 32], at(0)).await.unwrap();
    assert_eq!(other, Claim::Mismatch);
    let other = store.claim("another", None, "key", [8; 32], at(0)).await.unwrap();
    assert_eq!(other, Claim::New);
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    let other = store.claim("agent", None, "key", [8; 32], at(0)).await.unwrap();
    assert_eq!(other, Claim::Mismatch);
}

#[tokio::test]
async fn another_call_takes_the_place_of_one_that_was_not_made_and_of_no_other() {
    let folder = Folder::new();
    let store = folder.open();
    let other = || store.claim_in_doubt("agent", None, "key", [8; 32], at(0));
    let is_other = Claim::Interrupted { quiet: at(QUIET), has_died: false, is_other: true };
    assert_eq!(claim(&store, 0).await, Claim::New);
    assert_eq!(other().await.unwrap(), Claim::Running);
    sent(&store, QUIET).await.unwrap();
    store.abandon("agent", "key", None).await.unwrap();
    assert_eq!(claim_other(&store).await, Claim::Mismatch);
    for _ in 0..2 {
        assert_eq!(other().await.unwrap(), is_other);
        store.abandon("agent", "key", None).await.unwrap();
    }
    assert_eq!(claim(&store, 0).await, interrupted(QUIET), "it is still the first one's");
    store.abandon("agent", "key", None).await.unwrap();
    assert_eq!(other().await.unwrap(), is_other);
    store.take_over("agent", "key", [8; 32]).await.unwrap();
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    assert_eq!(other().await.unwrap(), Claim::Done(answer("{}")));
    let first = store.claim_in_doubt("agent", None, "key", FINGERPRINT, at(0)).await.unwrap();
    assert_eq!(first, Claim::Mismatch);
}

async fn claim_other(store: &Store) -> Claim {
    store.claim("agent", None, "key", [8; 32], at(0)).await.unwrap()
}

#[tokio::test]
async fn whose_access_has_ended_claims_nothing_and_all_is_left_as_it_was() {
    let folder = Folder::new();
    let store = folder.open();
    let agent = |expires| Client { expires, ..client("agent") };
    let claim_as_added = || store.claim("agent", Some(at(0)), "key", FINGERPRINT, at(2));
    let (revoke, remove) = (
        || folder.clients().revoke(&name("agent"), at(1)).unwrap(),
        || folder.clients().remove(&name("agent")).unwrap(),
    );
    folder.add(&agent(None));
    assert_eq!(claim_as_added().await.unwrap(), Claim::New);
    revoke();
    assert!(claim_as_added().await.unwrap_err().is_access_ended());
    remove();
    assert_eq!(claim(&store, 2).await, Claim::Running);
    store.abandon("agent", "key", Some(at(QUIET))).await.unwrap();
    folder.add(&agent(Some(at(2))));
    assert!(claim_as_added().await.unwrap_err().is_access_ended());
    revoke();
    remove();
    assert_eq!(claim(&store, 2).await, interrupted(QUIET));
}

#[tokio::test]
async fn of_many_at_once_one_claims() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open(), folder.open()];
    let claims = join_all((0..60).map(|number| claim(&stores[number % 3], 0))).await;
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::New).count(), 1);
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::Running).count(), 59);
}

#[tokio::test]
async fn what_a_dead_run_left_is_taken_over_once() {
    let folder = Folder::new();
    let dead = folder.open();
    assert_eq!(claim(&dead, 0).await, Claim::New);
    sent(&dead, QUIET).await.unwrap();
    drop(dead);
    let stores = [folder.open(), folder.open()];
    let claims = join_all((0..40).map(|number| claim(&stores[number % 2], 1))).await;
    assert_eq!(claims.iter().filter(|claim| **claim == left_behind(QUIET)).count(), 1);
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::Running).count(), 39);
}

#[tokio::test]
async fn what_was_taken_over_is_settled_like_a_new_one() {
    let folder = Folder::new();
    let dead = folder.open();
    claim(&dead, 0).await;
    sent(&dead, QUIET).await.unwrap();
    drop(dead);
    let store = folder.open();
    assert_eq!(claim(&store, 1).await, left_behind(QUIET));
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn what_a_dead_run_had_not_sent_yet_is_new() {
    let folder = Folder::new();
    claim(&folder.open(), 0).await;
    assert_eq!(claim(&folder.open(), 1).await, Claim::New);
}

#[tokio::test]
async fn only_who_has_claimed_may_send_and_only_what_is_recorded_is_sent() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(sent(&store, QUIET).await.unwrap_err().fault(), &Fault::NotClaimed);
    assert_eq!(Journal::open(&folder.path()).unwrap().verify().unwrap().records, 0);
    claim(&store, 0).await;
    limit_growth(&store, 0).await;
    let mut full = Ok(());
    while full.is_ok() {
        full = sent(&store, QUIET).await;
    }
    assert!(full.unwrap_err().is_full());
}

#[tokio::test]
async fn a_released_call_is_new_again() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    store.release("agent", "key").await.unwrap();
    assert_eq!(claim(&store, 1).await, Claim::New);
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    // What is settled stays, whoever releases it.
    store.release("agent", "key").await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn an_abandoned_call_is_taken_over_once() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    sent(&store, QUIET).await.unwrap();
    store.abandon("agent", "key", None).await.unwrap();
    assert_eq!(claim(&store, 1).await, interrupted(QUIET));
    assert_eq!(claim(&store, 1).await, Claim::Running);
}

#[tokio::test]
async fn the_upstream_is_done_at_the_latest_time_that_was_said() {
    let folder = Folder::new();
    let store = folder.open();
    claim(&store, 0).await;
    sent(&store, QUIET).await.unwrap();
    for (said, known) in [(QUIET + 30, QUIET + 30), (QUIET - 30, QUIET + 30)] {
        store.abandon("agent", "key", Some(at(said))).await.unwrap();
        assert_eq!(claim(&store, 1).await, interrupted(known));
    }
    // After a day it is another call.
    let day = 24 * 60 * 60;
    store.abandon("agent", "key", None).await.unwrap();
    assert_eq!(claim(&store, day).await, Claim::New);
    sent(&store, day + 5).await.unwrap();
    store.abandon("agent", "key", None).await.unwrap();
    assert_eq!(claim(&store, day + 1).await, interrupted(day + 5));
}

#[tokio::test]
async fn what_an_earlier_version_kept_without_an_answer_is_looked_up_again() {
    let folder = Folder::new();
    let store = folder.open();
    claim(&store, 0).await;
    sent(&store, QUIET).await.unwrap();
    let inner = store.0.clone();
    let call = CallKey { client: "agent".to_owned(), key: "key".to_owned() };
    let kept = inner.seal.seal(&place(&call), b"took effect\n[null,\"pending_review\"]".to_vec());
    let kept = kept.unwrap();
    let write = move |db: &Db| {
        db.execute("UPDATE answers SET answer = ?1", &[Param::Blob(&kept)])?;
        inner.held.end(&call, inner.held.holder_of(&call));
        Ok(())
    };
    store.write(write).await.unwrap();
    assert_eq!(claim(&store, 1).await, interrupted(QUIET));
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn a_call_whose_answer_cannot_be_written_counts_as_interrupted() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    sent(&store, QUIET).await.unwrap();
    limit_growth(&store, 0).await;
    let large = answer("x".repeat(100_000));
    assert!(store.settle("agent", "key", &large, None).await.unwrap_err().is_full());
    assert_eq!(claim(&store, 1).await, interrupted(QUIET));
    assert_eq!(claim(&store, 1).await, Claim::Running);
    limit_growth(&store, 1000).await;
    store.settle("agent", "key", &large, None).await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(large));
}

#[tokio::test]
async fn the_answer_to_a_reserve_is_not_kept_without_its_reservation() {
    let folder = Folder::new();
    let store = folder.open();
    let reservation = Reservation {
        job: "job1".parse().unwrap(),
        wallet: crate::types::Address::new([1; 20]),
        client: "agent".to_owned(),
        reservation_id: None,
        ends: at(1800),
        workflow_token: Some("t".repeat(100_000).into()),
    };
    claim(&store, 0).await;
    sent(&store, QUIET).await.unwrap();
    limit_growth(&store, 0).await;
    let answer = answer("{}");
    let settle = || store.settle("agent", "key", &answer, Some(&reservation));
    assert!(settle().await.unwrap_err().is_full());
    assert_eq!(claim(&store, 1).await, interrupted(QUIET));
    limit_growth(&store, 1000).await;
    settle().await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer.clone()));
    assert_eq!(store.reservations(at(0)).await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_claim_that_cannot_be_written_is_nobodys() {
    let folder = Folder::new();
    let store = folder.open();
    let key = "k".repeat(10_000);
    limit_growth(&store, 0).await;
    let refused = store.claim("agent", None, &key, FINGERPRINT, at(0)).await.unwrap_err();
    assert!(refused.is_full());
    limit_growth(&store, 1000).await;
    assert_eq!(store.claim("agent", None, &key, FINGERPRINT, at(0)).await.unwrap(), Claim::New);
}

#[tokio::test]
async fn who_has_not_claimed_cannot_settle() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let refused = one.settle("agent", "key", &answer("{}"), None).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::NotClaimed);
    assert_eq!(claim(&one, 0).await, Claim::New);
    other.settle("agent", "key", &answer("{}"), None).await.unwrap_err();
    other.release("agent", "key").await.unwrap();
    assert_eq!(claim(&other, 0).await, Claim::Running);
}

#[tokio::test]
async fn a_clock_that_was_set_between_two_runs_has_no_answer_forgotten() {
    let folder = Folder::new();
    let store = folder.open();
    claim(&store, 0).await;
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    drop(store);
    let store = folder.open();
    let later = 48 * 60 * 60;
    let other = store.claim("agent", None, "other", [8; 32], at(later)).await.unwrap();
    assert_eq!(other, Claim::New);
    assert_eq!(claim(&store, later).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn an_answer_is_forgotten_after_a_day() {
    let folder = Folder::new();
    let store = folder.open();
    let day = 24 * 60 * 60;
    assert_eq!(claim(&store, 0).await, Claim::New);
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    assert_eq!(claim(&store, day - 1).await, Claim::Done(answer("{}")));
    assert_eq!(claim(&store, day).await, Claim::New);
    assert_eq!(claim(&store, day + day - 1).await, Claim::Running);
}

#[tokio::test]
async fn the_oldest_go_when_others_come() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..6 {
        store.claim("agent", None, &number.to_string(), FINGERPRINT, at(number)).await.unwrap();
    }
    let rows = || -> i64 { folder.number("SELECT count(*) FROM answers") };
    assert_eq!(rows(), 6);
    claim(&store, 100_000).await;
    assert_eq!(rows(), 6 - i64::from(PURGED) + 1);
}

#[tokio::test]
async fn answers_are_sealed_and_bound_to_their_key() {
    let folder = Folder::new();
    let store = folder.open();
    for name in ["key", "other"] {
        store.claim("agent", None, name, FINGERPRINT, at(0)).await.unwrap();
        store.settle("agent", name, &answer("the-private-instructions"), None).await.unwrap();
    }
    assert!(!holds(&folder.bytes(), "the-private-instructions"));
    assert!(!holds(&folder.bytes(), "application/json"));
    let exchange = "CREATE TEMP TABLE t AS SELECT * FROM answers;
                    UPDATE answers SET answer = (SELECT answer FROM t WHERE t.key <> answers.key)";
    folder.tamper(exchange);
    let refused = store.claim("agent", None, "key", FINGERPRINT, at(1)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::Sealed(ANSWER));
}

#[tokio::test]
async fn an_answer_of_another_wallet_does_not_open() {
    let folder = Folder::new();
    let store = folder.open();
    claim(&store, 0).await;
    store.settle("agent", "key", &answer("{}"), None).await.unwrap();
    let other = Store::open(&folder.path(), &[key(2)]).unwrap();
    let refused = other.claim("agent", None, "key", FINGERPRINT, at(1)).await.unwrap_err();
    assert!(refused.to_string().contains("sealed for another wallet"), "{refused}");
}
