mod completions;
mod credits;
mod jobs;
mod keys;

use std::time::Duration;

use axum::body::Bytes;
use futures_util::{FutureExt, future::join_all};
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::*;
use crate::{
    policy::Client,
    store::{
        CreditEnd, Finish, JobEnd, Journal, KeyEnd,
        testing::{Folder, at, client, holds, key, limit_growth, name, sign},
    },
    types::IdempotencyKey,
};

/// When the calls that are sent here settle.
const SETTLES: i64 = 60;

const DAY: i64 = 24 * 60 * 60;

fn moment(seconds: i64) -> Moment {
    Moment { wall: at(seconds), steady: at(seconds) }
}

/// A reserve of the client that is alone on its machine, under the key `key`.
fn keyed() -> Operation {
    under(Operation::of(&Client::local(), "job_reserve", "job1", ""), "key")
}

fn under(operation: Operation, key: &str) -> Operation {
    Operation { key: Some(key.parse().unwrap()), ..operation }
}

/// One that waits for no other call.
fn impatient(operation: Operation) -> Operation {
    Operation { deadline: Instant::now(), ..operation }
}

async fn started(store: &Store, operation: &Operation, now: i64) -> Started {
    match store.begin(operation, moment(now)).await.unwrap() {
        Begun::Started(started) => *started,
        other => panic!("{other:?}"),
    }
}

/// The standing of an earlier call that a new one finds; its claim is dropped.
async fn doubt(store: &Store, operation: &Operation, now: i64) -> Option<Doubt> {
    started(store, operation, now).await.doubt
}

fn of_this_run(settles: i64) -> Option<Doubt> {
    Some(Doubt { settles_at: at(settles), has_died: false, is_other: false })
}

fn of_a_dead_run(settles: i64) -> Option<Doubt> {
    Some(Doubt { settles_at: at(settles), has_died: true, is_other: false })
}

async fn answered(store: &Store, operation: &Operation, now: i64) -> StoredAnswer {
    match store.begin(operation, moment(now)).await.unwrap() {
        Begun::Answered(answer) => answer,
        other => panic!("{other:?}"),
    }
}

async fn denied(store: &Store, operation: &Operation, now: i64) -> Denied {
    match store.begin(operation, moment(now)).await.unwrap() {
        Begun::Denied(denied) => denied,
        other => panic!("{other:?}"),
    }
}

/// Records that a call is sent.
async fn send(store: &Store, operation: &Operation, claim: &Claim, settles: i64) {
    let (call, request_id) = (&operation.call, &"r".parse().unwrap());
    let attempt =
        super::super::Attempt { operation, call, request_id, payload_hash: None, payment: None };
    store.record_attempt(attempt, claim, at(settles)).await.unwrap();
}

fn answer(body: impl Into<Bytes>) -> StoredAnswer {
    let json = http::HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]);
    StoredAnswer { status: StatusCode::OK, headers, body: body.into() }
}

fn end(key: KeyEnd, job: JobEnd) -> Finish {
    Finish { key, job, credits: CreditEnd::Free, is_pending: false, is_settled: false, past: at(0) }
}

fn with(body: impl Into<Bytes>) -> Finish {
    end(KeyEnd::Answered(answer(body)), JobEnd::Unchanged)
}

async fn finish(store: &Store, operation: &Operation, claim: &Claim, finish: &Finish, now: i64) {
    store.finish(operation, claim, finish, at(now)).await.unwrap();
}

/// Makes a call from its beginning to its end.
async fn make(store: &Store, operation: &Operation, ended: Finish, now: i64) {
    let Started { claim, .. } = started(store, operation, now).await;
    send(store, operation, &claim, now + SETTLES).await;
    finish(store, operation, &claim, &ended, now).await;
}

/// Clients with their numbers, as they are found.
async fn added<const N: usize>(
    folder: &Folder,
    store: &Store,
    clients: [Client; N],
) -> [Client; N] {
    let credentials = clients.map(|client| folder.add(&client));
    let mut found = Vec::new();
    for credential in credentials {
        found.push(store.client_by(credential, at(0)).await.unwrap().unwrap());
    }
    found.try_into().unwrap()
}

fn reservation(job: &str, client: &Client, ends: i64) -> Reservation {
    Reservation {
        job: job.parse().unwrap(),
        wallet: crate::store::testing::WALLET.parse().unwrap(),
        client: client.id,
        client_name: client.name.clone(),
        reservation_id: Some("r-1".to_owned()),
        ends: at(ends),
        workflow_token: None,
        answer: None,
    }
}

/// Keeps a reservation, as the reserve of its client does.
async fn reserved(store: &Store, client: &Client, job: &str, ends: i64, now: i64) {
    let reserve = Operation::of(client, "job_reserve", job, "");
    let ended = end(KeyEnd::Free, JobEnd::Reserved(reservation(job, client, ends)));
    make(store, &reserve, ended, now).await;
}

#[tokio::test]
async fn a_change_is_counted_for_all_processes_and_one_that_has_to_wait_when_it_begins_again() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let limited = Client { rate: Some("2/m".parse().unwrap()), ..client("ci") };
    let [limited] = added(&folder, &one, [limited]).await;
    let reserve = |job| under(Operation::of(&limited, "job_reserve", job, ""), "key");
    let begun = started(&one, &reserve("job1"), 0).await;
    let running = other.begin(&reserve("job1"), moment(0)).await.unwrap();
    assert!(matches!(running, Begun::Running), "{running:?}");
    drop(started(&other, &under(reserve("job2"), "second"), 0).await);
    let third = under(reserve("job3"), "third");
    match denied(&one, &third, 0).await {
        Denied::TooFast { wait, .. } => assert_eq!(wait, Duration::from_secs(30)),
        other => panic!("{other:?}"),
    }
    assert!(one.count(&limited, false, at(0)).await.is_err(), "it has learned of the other");
    drop(begun);
}

/// A hold or a key is found in as many steps when there are many others.
#[test]
fn nothing_is_searched_from_end_to_end() {
    let folder = Folder::new();
    drop(folder.open());
    let database = folder.db();
    let sources = [
        include_str!("../callers.rs"),
        include_str!("../keys.rs"),
        include_str!("../release.rs"),
        include_str!("../reservations.rs"),
    ];
    let texts = sources.iter().flat_map(|source| source.split('"'));
    let statements: Vec<_> = texts
        .filter(|text| ["SELECT ", "DELETE ", "UPDATE "].iter().any(|verb| text.starts_with(verb)))
        // That shows all that run.
        .filter(|sql| !sql.ends_with("ORDER BY ends"))
        .map(|sql| sql.replace("{COLUMNS}", "*").replace("{HOLD}", "*").replace("{which}", "TRUE"))
        .collect();
    assert!(statements.len() > 12, "{statements:?}");
    for sql in statements {
        let steps = database.plan(&sql);
        assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{sql}: {steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{sql}: {steps:?}");
    }
}
