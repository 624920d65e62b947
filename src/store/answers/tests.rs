use axum::body::Bytes;
use futures_util::future::join_all;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::store::testing::{Folder, at, holds, key, limit_growth};

const FINGERPRINT: [u8; 32] = [7; 32];

fn answer(body: &'static str) -> StoredAnswer {
    let headers = HeaderMap::from_iter([(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    )]);
    StoredAnswer { status: StatusCode::OK, headers, body: Bytes::from_static(body.as_bytes()) }
}

async fn claim(store: &Store, seconds: i64) -> Claim {
    store.claim("agent", "key", FINGERPRINT, at(seconds)).await.unwrap()
}

#[tokio::test]
async fn the_first_answer_is_given_again() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    assert_eq!(claim(&store, 1).await, Claim::Running);
    store.settle("agent", "key", &answer("{}")).await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer("{}")));
    drop(store);
    assert_eq!(claim(&folder.open(), 3).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn keys_belong_to_clients_and_to_one_call() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    let other = store.claim("agent", "key", [8; 32], at(0)).await.unwrap();
    assert_eq!(other, Claim::Mismatch);
    let other = store.claim("another", "key", [8; 32], at(0)).await.unwrap();
    assert_eq!(other, Claim::New);
    store.settle("agent", "key", &answer("{}")).await.unwrap();
    let other = store.claim("agent", "key", [8; 32], at(0)).await.unwrap();
    assert_eq!(other, Claim::Mismatch);
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
    drop(dead);
    let stores = [folder.open(), folder.open()];
    let claims = join_all((0..40).map(|number| claim(&stores[number % 2], 1))).await;
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::Interrupted).count(), 1);
    assert_eq!(claims.iter().filter(|claim| **claim == Claim::Running).count(), 39);
}

#[tokio::test]
async fn what_was_taken_over_is_settled_like_a_new_one() {
    let folder = Folder::new();
    drop((claim(&folder.open(), 0).await, ()));
    let store = folder.open();
    assert_eq!(claim(&store, 1).await, Claim::Interrupted);
    store.settle("agent", "key", &answer("{}")).await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn a_released_call_is_new_again() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    store.release("agent", "key").await.unwrap();
    assert_eq!(claim(&store, 1).await, Claim::New);
    store.settle("agent", "key", &answer("{}")).await.unwrap();
    // What is settled stays, whoever releases it.
    store.release("agent", "key").await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(answer("{}")));
}

#[tokio::test]
async fn an_abandoned_call_is_taken_over_once() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    store.abandon("agent", "key");
    assert_eq!(claim(&store, 1).await, Claim::Interrupted);
    assert_eq!(claim(&store, 1).await, Claim::Running);
}

#[tokio::test]
async fn a_call_whose_answer_cannot_be_written_counts_as_interrupted() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(claim(&store, 0).await, Claim::New);
    limit_growth(&store, 0).await;
    let large = StoredAnswer { body: vec![b'x'; 100_000].into(), ..answer("") };
    assert!(store.settle("agent", "key", &large).await.unwrap_err().is_full());
    assert_eq!(claim(&store, 1).await, Claim::Interrupted);
    assert_eq!(claim(&store, 1).await, Claim::Running);
    limit_growth(&store, 1000).await;
    store.settle("agent", "key", &large).await.unwrap();
    assert_eq!(claim(&store, 2).await, Claim::Done(large));
}

#[tokio::test]
async fn a_claim_that_cannot_be_written_is_nobodys() {
    let folder = Folder::new();
    let store = folder.open();
    let key = "k".repeat(10_000);
    limit_growth(&store, 0).await;
    let refused = store.claim("agent", &key, FINGERPRINT, at(0)).await.unwrap_err();
    assert!(refused.is_full());
    limit_growth(&store, 1000).await;
    assert_eq!(store.claim("agent", &key, FINGERPRINT, at(0)).await.unwrap(), Claim::New);
}

#[tokio::test]
async fn who_has_not_claimed_cannot_settle() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let refused = one.settle("agent", "key", &answer("{}")).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::NotClaimed);
    assert_eq!(claim(&one, 0).await, Claim::New);
    other.settle("agent", "key", &answer("{}")).await.unwrap_err();
    other.release("agent", "key").await.unwrap();
    assert_eq!(claim(&other, 0).await, Claim::Running);
}

#[tokio::test]
async fn an_answer_is_forgotten_after_a_day() {
    let folder = Folder::new();
    let store = folder.open();
    let day = 24 * 60 * 60;
    assert_eq!(claim(&store, 0).await, Claim::New);
    store.settle("agent", "key", &answer("{}")).await.unwrap();
    assert_eq!(claim(&store, day - 1).await, Claim::Done(answer("{}")));
    assert_eq!(claim(&store, day).await, Claim::New);
    assert_eq!(claim(&store, day + day - 1).await, Claim::Running);
}

#[tokio::test]
async fn the_oldest_go_when_others_come() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..6 {
        store.claim("agent", &number.to_string(), FINGERPRINT, at(number)).await.unwrap();
    }
    let rows = || -> i64 {
        folder.sqlite().query_row("SELECT count(*) FROM answers", [], |row| row.get(0)).unwrap()
    };
    assert_eq!(rows(), 6);
    claim(&store, 100_000).await;
    assert_eq!(rows(), 6 - i64::from(PURGED) + 1);
}

#[tokio::test]
async fn answers_are_sealed_and_bound_to_their_key() {
    let folder = Folder::new();
    let store = folder.open();
    for name in ["key", "other"] {
        store.claim("agent", name, FINGERPRINT, at(0)).await.unwrap();
        store.settle("agent", name, &answer("the-private-instructions")).await.unwrap();
    }
    assert!(!holds(&folder.bytes(), "the-private-instructions"));
    assert!(!holds(&folder.bytes(), "application/json"));
    let exchange = "CREATE TEMP TABLE t AS SELECT * FROM answers;
                    UPDATE answers SET answer = (SELECT answer FROM t WHERE t.key <> answers.key)";
    folder.tamper(exchange);
    let refused = store.claim("agent", "key", FINGERPRINT, at(1)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::Sealed(ANSWER));
}

#[tokio::test]
async fn an_answer_of_another_wallet_does_not_open() {
    let folder = Folder::new();
    let store = folder.open();
    claim(&store, 0).await;
    store.settle("agent", "key", &answer("{}")).await.unwrap();
    let other = Store::open(&folder.path(), &key(2)).unwrap();
    let refused = other.claim("agent", "key", FINGERPRINT, at(1)).await.unwrap_err();
    assert!(refused.to_string().contains("sealed for another wallet"), "{refused}");
}
