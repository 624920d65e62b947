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
    let attempt = super::super::Attempt { operation, call, request_id, payload_hash: None };
    store.record_attempt(attempt, claim, at(settles)).await.unwrap();
}

fn answer(body: impl Into<Bytes>) -> StoredAnswer {
    let json = http::HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(http::header::CONTENT_TYPE, json)]);
    StoredAnswer { status: StatusCode::OK, headers, body: body.into() }
}

fn end(key: KeyEnd, job: JobEnd) -> Finish {
    Finish { key, job, credits: CreditEnd::Free, is_pending: false, past: at(0) }
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

#[tokio::test]
async fn the_first_answer_is_given_again() {
    let folder = Folder::new();
    let store = folder.open();
    make(&store, &keyed(), with("{}"), 0).await;
    assert_eq!(answered(&store, &keyed(), 2).await, answer("{}"));
    drop(store);
    assert_eq!(answered(&folder.open(), &keyed(), 3).await, answer("{}"));
}

#[tokio::test]
async fn a_key_belongs_to_one_client_and_one_call() {
    let folder = Folder::new();
    let store = folder.open();
    let [one, another] = added(&folder, &store, [client("one"), client("another")]).await;
    let reserve = |client, job| under(Operation::of(client, "job_reserve", job, ""), "key");
    let begun = started(&store, &reserve(&one, "job1"), 0).await;
    drop(begun);
    make(&store, &reserve(&one, "job1"), with("{}"), 0).await;
    let other = store.begin(&reserve(&one, "job2"), moment(0)).await.unwrap();
    assert!(matches!(other, Begun::KeyReused), "{other:?}");
    assert!(started(&store, &reserve(&another, "job2"), 0).await.doubt.is_none());
}

#[tokio::test]
async fn calls_of_one_process_with_one_key_are_made_one_after_the_other() {
    let folder = Folder::new();
    let store = folder.open();
    let first = started(&store, &keyed(), 0).await;
    let second = store.begin(&impatient(keyed()), moment(0)).await.unwrap();
    assert!(matches!(second, Begun::Running), "{second:?}");
    let again = keyed();
    let mut second = Box::pin(store.begin(&again, moment(0)));
    assert!((&mut second).now_or_never().is_none());
    finish(&store, &keyed(), &first.claim, &with("{}"), 0).await;
    drop(first);
    assert!(matches!(second.await.unwrap(), Begun::Answered(_)));
}

#[tokio::test]
async fn of_many_at_once_one_begins() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open(), folder.open()];
    let all = (0..60).map(|number| {
        let store = stores[number % 3].clone();
        async move { store.begin(&impatient(keyed()), moment(0)).await.unwrap() }
    });
    let (running, started): (Vec<_>, Vec<_>) =
        join_all(all).await.into_iter().partition(|begun| matches!(begun, Begun::Running));
    assert!(matches!(&started[..], [Begun::Started(_)]), "{started:?}");
    assert_eq!(running.len(), 59);
}

#[tokio::test]
async fn a_call_of_another_process_with_the_same_key_is_running_until_that_has_died() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let begun = started(&one, &keyed(), 0).await;
    send(&one, &keyed(), &begun.claim, SETTLES).await;
    let running = other.begin(&keyed(), moment(0)).await.unwrap();
    assert!(matches!(running, Begun::Running), "{running:?}");
    drop((begun, one));
    let stores = [other, folder.open()];
    let all = join_all((0..40).map(|number| {
        let store = stores[number % 2].clone();
        async move { store.begin(&impatient(keyed()), moment(1)).await.unwrap() }
    }));
    let (mut taken, mut running) = (Vec::new(), 0);
    for begun in all.await {
        match begun {
            Begun::Started(started) => taken.push(started.doubt),
            Begun::Running => running += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((taken, running), (vec![of_a_dead_run(SETTLES)], 39), "one takes it over");
}

#[tokio::test]
async fn a_claim_that_is_dropped_leaves_its_key_in_doubt_if_it_was_sent_and_free_if_not() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(doubt(&store, &keyed(), 0).await, None);
    assert_eq!(doubt(&store, &keyed(), 0).await, None);
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    drop(begun);
    assert_eq!(doubt(&store, &keyed(), 1).await, of_this_run(SETTLES));
    drop(store);
    // A call that a dead process had not sent is free, too.
    let other = under(keyed(), "other");
    drop(started(&folder.open(), &other, 1).await);
    assert_eq!(doubt(&folder.open(), &other, 1).await, None);
}

#[tokio::test]
async fn a_call_that_was_taken_over_ends_like_a_new_one() {
    let folder = Folder::new();
    let dead = folder.open();
    let begun = started(&dead, &keyed(), 0).await;
    send(&dead, &keyed(), &begun.claim, SETTLES).await;
    drop((begun, dead));
    let store = folder.open();
    let begun = started(&store, &keyed(), 1).await;
    assert_eq!(begun.doubt, of_a_dead_run(SETTLES));
    finish(&store, &keyed(), &begun.claim, &with("{}"), 1).await;
    drop(begun);
    assert_eq!(answered(&store, &keyed(), 2).await, answer("{}"));
}

#[tokio::test]
async fn a_call_settles_at_the_latest_time_that_was_said() {
    let folder = Folder::new();
    let store = folder.open();
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    drop(begun);
    for (said, known) in [(SETTLES + 30, SETTLES + 30), (SETTLES - 30, SETTLES + 30)] {
        let begun = started(&store, &keyed(), 1).await;
        store.prolong(&begun.claim, at(said)).await.unwrap();
        drop(begun);
        assert_eq!(doubt(&store, &keyed(), 1).await, of_this_run(known));
        let begun = started(&store, &keyed(), 1).await;
        let ended = end(KeyEnd::InDoubt(Some(at(said))), JobEnd::Unchanged);
        finish(&store, &keyed(), &begun.claim, &ended, 1).await;
        drop(begun);
        assert_eq!(doubt(&store, &keyed(), 1).await, of_this_run(known));
    }
    // After a day it is another call.
    let begun = started(&store, &keyed(), DAY).await;
    assert_eq!(begun.doubt, None);
    send(&store, &keyed(), &begun.claim, DAY + 5).await;
    drop(begun);
    assert_eq!(doubt(&store, &keyed(), DAY + 1).await, of_this_run(DAY + 5));
}

#[tokio::test]
async fn a_free_key_is_new_and_an_answer_stays_whoever_frees_it() {
    let folder = Folder::new();
    let store = folder.open();
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    let free = end(KeyEnd::Free, JobEnd::Unchanged);
    finish(&store, &keyed(), &begun.claim, &free, 0).await;
    drop(begun);
    let begun = started(&store, &keyed(), 1).await;
    assert_eq!(begun.doubt, None);
    finish(&store, &keyed(), &begun.claim, &with("{}"), 1).await;
    finish(&store, &keyed(), &begun.claim, &free, 1).await;
    drop(begun);
    assert_eq!(answered(&store, &keyed(), 2).await, answer("{}"));
}

#[tokio::test]
async fn an_answer_is_forgotten_after_a_day() {
    let folder = Folder::new();
    let store = folder.open();
    make(&store, &keyed(), with("{}"), 0).await;
    assert_eq!(answered(&store, &keyed(), DAY - 1).await, answer("{}"));
    drop(started(&store, &keyed(), DAY).await);
}

#[tokio::test]
async fn a_clock_that_was_set_between_two_runs_has_no_answer_forgotten() {
    let folder = Folder::new();
    make(&folder.open(), &keyed(), with("{}"), 0).await;
    let store = folder.open();
    drop(started(&store, &under(keyed(), "other"), 2 * DAY).await);
    assert_eq!(answered(&store, &keyed(), 2 * DAY).await, answer("{}"));
}

#[tokio::test]
async fn the_oldest_keys_go_when_others_come() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..6 {
        drop(started(&store, &under(keyed(), &number.to_string()), number).await);
    }
    let rows = || folder.number("SELECT count(*) FROM answers");
    assert_eq!(rows(), 6);
    drop(started(&store, &keyed(), DAY + 100).await);
    assert_eq!(rows(), 6 - 4 + 1);
}

#[tokio::test]
async fn answers_are_sealed_and_bound_to_their_key_and_wallet() {
    let folder = Folder::new();
    let store = folder.open();
    for key in ["key", "other"] {
        make(&store, &under(keyed(), key), with("the-private-instructions"), 0).await;
    }
    assert!(!holds(&folder.bytes(), "the-private-instructions"));
    assert!(!holds(&folder.bytes(), "application/json"));
    let elsewhere = Store::open(&folder.path(), &[key(2)]).unwrap();
    let refused = elsewhere.begin(&keyed(), moment(1)).await.unwrap_err();
    assert!(refused.to_string().contains("sealed for another wallet"), "{refused}");
    folder.tamper(
        "CREATE TEMP TABLE t AS SELECT * FROM answers;
         UPDATE answers SET answer = (SELECT answer FROM t WHERE t.key <> answers.key)",
    );
    let refused = store.begin(&keyed(), moment(1)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::Sealed("answer"));
}

#[tokio::test]
async fn only_who_has_claimed_may_send_or_finish() {
    let folder = Folder::new();
    let (one, other) = (folder.open(), folder.open());
    let begun = started(&one, &keyed(), 0).await;
    let request_id = &"r".parse().unwrap();
    let operation = &keyed();
    let call = &operation.call;
    let attempt = super::super::Attempt { operation, call, request_id, payload_hash: None };
    let refused = other.record_attempt(attempt, &begun.claim, at(SETTLES)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::NotClaimed);
    assert_eq!(Journal::open(&folder.path()).unwrap().verify().unwrap().records, 0);
    let refused = other.finish(operation, &begun.claim, &with("{}"), at(0)).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::NotClaimed);
    let free = end(KeyEnd::Free, JobEnd::Unchanged);
    other.finish(operation, &begun.claim, &free, at(0)).await.unwrap();
    let running = other.begin(&keyed(), moment(0)).await.unwrap();
    assert!(matches!(running, Begun::Running), "{running:?}");
}

#[tokio::test]
async fn a_full_disk_leaves_a_call_that_was_sent_in_doubt_and_begins_none() {
    let folder = Folder::new();
    let store = folder.open();
    let begun = started(&store, &keyed(), 0).await;
    send(&store, &keyed(), &begun.claim, SETTLES).await;
    limit_growth(&store, 0).await;
    let reservation = reservation("job1", &Client::local(), 1800);
    let large = StoredAnswer { body: "x".repeat(100_000).into(), ..answer("") };
    let ended = end(KeyEnd::Answered(large.clone()), JobEnd::Reserved(reservation));
    let refused = store.finish(&keyed(), &begun.claim, &ended, at(0)).await.unwrap_err();
    assert!(refused.is_full(), "{refused}");
    // It is known to this process meanwhile, and to no other: neither is written without the other.
    assert_eq!(store.reservations(at(0)).await.unwrap().len(), 1);
    assert!(folder.open().reservations(at(0)).await.unwrap().is_empty());
    let mut refused = Ok(());
    while refused.is_ok() {
        refused = sign(&store, &keyed(), 1).await;
    }
    assert!(refused.unwrap_err().is_full());
    // The last pages may have room for some.
    let long = |number: u8| under(keyed(), &number.to_string().repeat(1000));
    let mut refused = Ok(());
    for number in 0..10 {
        refused = refused.and(store.begin(&long(number), moment(0)).await.map(drop));
    }
    assert!(refused.unwrap_err().is_full());
    limit_growth(&store, 1000).await;
    drop(begun);
    let begun = started(&store, &keyed(), 1).await;
    assert_eq!(begun.doubt, of_this_run(SETTLES));
    assert!(store.is_to_be_finished(&ended));
    finish(&store, &keyed(), &begun.claim, &ended, 1).await;
    drop(begun);
    assert_eq!(answered(&store, &keyed(), 2).await, large);
    assert_eq!(folder.open().reservations(at(0)).await.unwrap().len(), 1);
    drop(started(&store, &long(9), 1).await);
}

#[tokio::test]
async fn whose_access_has_ended_begins_nothing_and_all_is_left_as_it_was() {
    let folder = Folder::new();
    let store = folder.open();
    let [agent] = added(&folder, &store, [client("agent")]).await;
    let reserve = under(Operation::of(&agent, "job_reserve", "job1", ""), "key");
    drop(started(&store, &reserve, 0).await);
    let rows = || folder.number("SELECT count(*) FROM answers WHERE answer IS NULL");
    assert_eq!(rows(), 1);
    for end in [
        || "UPDATE clients SET expires = 0",
        || "UPDATE clients SET expires = NULL, revoked = 7",
        || "DELETE FROM clients",
    ] {
        folder.tamper(end());
        assert!(store.begin(&reserve, moment(1)).await.unwrap_err().is_access_ended());
        let other = under(reserve.clone(), "other");
        assert!(store.begin(&other, moment(1)).await.unwrap_err().is_access_ended());
        assert_eq!(rows(), 1);
    }
}

#[tokio::test]
async fn a_client_with_a_new_token_keeps_what_it_had_and_another_of_its_name_has_nothing_of_it() {
    let folder = Folder::new();
    let store = folder.open();
    let [agent] = added(&folder, &store, [client("agent")]).await;
    let reserve = |client: &Client| under(Operation::of(client, "job_reserve", "job1", ""), "key");
    let reserved = JobEnd::Reserved(reservation("job1", &agent, 1800));
    let ended = end(KeyEnd::Answered(answer("{}")), reserved);
    make(&store, &reserve(&agent), ended, 0).await;
    let again = async || {
        folder.clients().revoke(&name("agent"), at(1)).unwrap();
        let credential = folder.add(&client("agent"));
        store.client_by(credential, at(1)).await.unwrap().unwrap()
    };
    let renewed = again().await;
    assert_ne!(renewed.id, agent.id);
    assert_eq!(answered(&store, &reserve(&renewed), 1).await, answer("{}"));
    let complete = Operation::of(&renewed, "job_complete", "job1", "{}");
    drop(started(&store, &complete, 1).await);

    folder.clients().revoke(&name("agent"), at(1)).unwrap();
    folder.clients().remove(&name("agent")).unwrap();
    let [other] = added(&folder, &store, [client("agent")]).await;
    let held = |job: &str| Denied::Holder(job.parse().unwrap());
    assert_eq!(denied(&store, &reserve(&other), 1).await, held("job1"));
    let complete = Operation::of(&other, "job_complete", "job1", "{}");
    assert_eq!(denied(&store, &complete, 1).await, held("job1"));
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
    }
}

/// Keeps a reservation, as the reserve of its client does.
async fn reserved(store: &Store, client: &Client, job: &str, ends: i64, now: i64) {
    let reserve = Operation::of(client, "job_reserve", job, "");
    let ended = end(KeyEnd::Free, JobEnd::Reserved(reservation(job, client, ends)));
    make(store, &reserve, ended, now).await;
}

#[tokio::test]
async fn the_proof_for_a_reservation_goes_out_once_whatever_key_it_comes_with() {
    let folder = Folder::new();
    let store = folder.open();
    let boss = Client { admin: true, ..client("boss") };
    let clients = [client("ci"), boss, client("other")];
    let [ci, boss, other] = added(&folder, &store, clients).await;
    reserved(&store, &ci, "job1", 1800, 0).await;
    let complete = |client, body| Operation::of(client, "job_complete", "job1", body);
    let proof = r#"{"proof_text":"done"}"#;
    let begun = started(&store, &under(complete(&ci, proof), "one"), 0).await;
    let id = begun.grant.as_ref().unwrap().reservation_id.as_ref().unwrap();
    assert_eq!(id.as_str(), r#""r-1""#, "the one that it did not name");
    let beside = [under(complete(&ci, proof), "two"), complete(&boss, proof), complete(&ci, "{}")];
    for beside in beside.map(impatient) {
        let running = store.begin(&beside, moment(0)).await.unwrap();
        assert!(matches!(running, Begun::Running), "{running:?}");
    }
    send(&store, &complete(&ci, proof), &begun.claim, SETTLES).await;
    let ended = end(KeyEnd::Answered(answer("{}")), JobEnd::Submitted);
    finish(&store, &complete(&ci, proof), &begun.claim, &ended, 0).await;
    drop(begun);

    let named = r#"{"proof_text":"done","reservation_id":"r-1"}"#;
    for again in [
        under(complete(&ci, proof), "one"),
        under(complete(&ci, proof), "two"),
        under(complete(&ci, proof), "two"),
        complete(&ci, named),
        complete(&boss, proof),
    ] {
        assert_eq!(answered(&store, &again, 1).await, answer("{}"), "{:?}", again.key);
    }
    let job = || "job1".parse().unwrap();
    let submitted = Denied::Submitted(job());
    assert_eq!(denied(&store, &complete(&ci, r#"{"proof_text":"more"}"#), 1).await, submitted);
    assert_eq!(denied(&store, &complete(&other, proof), 1).await, Denied::Holder(job()));
    let later = r#"{"proof_text":"done","reservation_id":"r-2"}"#;
    drop(started(&store, &complete(&ci, later), 1).await);
    // The job is reserved again, and its proof is another one.
    reserved(&store, &ci, "job1", 3600, 2000).await;
    folder.tamper("UPDATE reservations SET reservation_id = 'r-3'");
    assert_eq!(doubt(&store, &complete(&ci, proof), 2000).await, None);
}

#[tokio::test]
async fn a_completion_in_doubt_stays_so_when_its_reservation_is_renewed() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    // The second has ended before its job is reserved again, so that is no renewal.
    for (job, ends, expected) in [("job1", 1800, of_this_run(SETTLES)), ("job2", 5, None)] {
        reserved(&store, &local, job, ends, 0).await;
        let complete = Operation::of(&local, "job_complete", job, r#"{"proof_text":"a"}"#);
        let begun = started(&store, &complete, 0).await;
        send(&store, &complete, &begun.claim, SETTLES).await;
        drop(begun);
        let newer = Reservation {
            reservation_id: Some("r-2".to_owned()),
            ..reservation(&job.to_uppercase(), &local, 3600)
        };
        let reserve = Operation::of(&local, "job_reserve", job, "");
        make(&store, &reserve, end(KeyEnd::Free, JobEnd::Reserved(newer)), 10).await;
        let begun = started(&store, &complete, 10).await;
        let id = begun.grant.as_ref().unwrap().reservation_id.as_ref().unwrap();
        assert_eq!((id.as_str(), begun.doubt), (r#""r-2""#, expected), "{job}");
    }
}

#[tokio::test]
async fn a_completion_that_was_not_made_gives_way_to_another_proof_and_no_other_does() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    let complete = |body| Operation::of(&local, "job_complete", "job1", body);
    let (first, other) = (complete(r#"{"proof_text":"a"}"#), complete(r#"{"proof_text":"b"}"#));
    let begun = started(&store, &first, 0).await;
    send(&store, &first, &begun.claim, SETTLES).await;
    drop(begun);
    let is_other = Some(Doubt { is_other: true, ..of_this_run(SETTLES).unwrap() });
    assert_eq!(doubt(&store, &other, 0).await, is_other);
    assert_eq!(doubt(&store, &first, 0).await, of_this_run(SETTLES), "it is still the first one's");
    // It turns out that the first proof was submitted: the key that came with the other one is free.
    let keyed = under(other.clone(), "k");
    let begun = started(&store, &keyed, 0).await;
    let ended = end(KeyEnd::AnsweredOther(answer("first")), JobEnd::Unchanged);
    finish(&store, &keyed, &begun.claim, &ended, 0).await;
    drop(begun);
    assert_eq!(answered(&store, &first, 0).await, answer("first"));
    for again in [&keyed, &other] {
        assert!(matches!(denied(&store, again, 0).await, Denied::Submitted(_)));
    }
    folder.tamper("UPDATE answers SET answer = NULL");

    let begun = started(&store, &other, 0).await;
    send(&store, &other, &begun.claim, SETTLES).await;
    let ended = end(KeyEnd::Answered(answer("{}")), JobEnd::Submitted);
    finish(&store, &other, &begun.claim, &ended, 0).await;
    drop(begun);
    assert_eq!(answered(&store, &other, 1).await, answer("{}"));
    assert!(matches!(denied(&store, &first, 1).await, Denied::Submitted(_)));
}

#[tokio::test]
async fn an_answer_that_may_be_of_an_earlier_reservation_is_doubted() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    let complete = Operation::of(&local, "job_complete", "job1", "{}");
    make(&store, &complete, end(KeyEnd::Answered(answer("{}")), JobEnd::Submitted), 0).await;
    assert_eq!(answered(&store, &complete, 0).await, answer("{}"));
    let unknown = Reservation { reservation_id: None, ..reservation("job1", &local, 1800) };
    let reserve = Operation::of(&local, "job_reserve", "job1", "");
    make(&store, &reserve, end(KeyEnd::Free, JobEnd::Reserved(unknown)), 0).await;
    assert_eq!(doubt(&store, &complete, 0).await, Some(Doubt::long_ago(false)));
    make(&store, &complete, with("{}"), 0).await;
    let other = Operation::of(&local, "job_complete", "job1", r#"{"proof_text":"better"}"#);
    assert_eq!(doubt(&store, &other, 0).await, Some(Doubt::long_ago(true)));
}

#[tokio::test]
async fn a_submission_that_is_seen_again_keeps_its_reservation_until_the_job_is_reserved_again() {
    let folder = Folder::new();
    let store = folder.open();
    let local = Client::local();
    let body = r#"{"proof_text":"a","reservation_id":"r-1"}"#;
    let submitted = || end(KeyEnd::InDoubt(None), JobEnd::Submitted);
    for body in [body, r#"{"proof_text":"a"}"#] {
        make(&store, &Operation::of(&local, "job_complete", "job1", body), submitted(), 0).await;
    }
    let sql = "SELECT count(*) FROM reservations
               WHERE state = 'submitted' AND reservation_id = 'r-1'";
    assert_eq!(folder.number(sql), 1);
    reserved(&store, &local, "job1", 1800, 0).await;
    assert_eq!(folder.number(sql), 0);
}

fn limited(text: &str, max: u32) -> Client {
    Client { max_reservations: Some(max), ..client(text) }
}

const HALF_AN_HOUR: i64 = 30 * 60;

async fn too_many(store: &Store, client: &Client, job: &str, now: i64) -> (u32, Timestamp) {
    match denied(store, &Operation::of(client, "job_reserve", job, ""), now).await {
        Denied::TooManyReservations { running, until } => (running, until),
        other => panic!("{other:?}"),
    }
}

async fn opened(store: &Store, client: &Client, job: &str, now: i64) -> Claim {
    started(store, &Operation::of(client, "job_reserve", job, ""), now).await.claim
}

async fn closed(store: &Store, client: &Client, job: &str, claim: Claim) {
    let reserve = Operation::of(client, "job_reserve", job, "");
    finish(store, &reserve, &claim, &end(KeyEnd::Free, JobEnd::Unchanged), 0).await;
}

async fn holder(store: &Store, job: &str, asks: &Client, now: i64) -> Option<ClientId> {
    let wallet = crate::store::testing::WALLET.parse().unwrap();
    store.holder(wallet, &job.parse().unwrap(), asks.id, at(now)).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_race_exceeds_the_limit_and_the_count_survives_a_restart() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let clients = [limited("a", 3), limited("b", 5), client("free")];
    let clients = added(&folder, &stores[0], clients).await;
    let tasks = (0..32).map(|number| {
        let (store, client) = (stores[number % 2].clone(), clients[number % 3].clone());
        tokio::spawn(async move {
            let reserve = Operation::of(&client, "job_reserve", &format!("job{number}"), "");
            let begun = store.begin(&reserve, moment(0)).await.unwrap();
            (number % 3, matches!(begun, Begun::Started(_)))
        })
    });
    let mut counts = [0; 3];
    for task in tasks.collect::<Vec<_>>() {
        let (client, started) = task.await.unwrap();
        counts[client] += usize::from(started);
    }
    assert_eq!(counts, [3, 5, 10]);
    drop(stores);
    let store = folder.open();
    assert_eq!(too_many(&store, &clients[0], "more", 0).await, (3, at(HALF_AN_HOUR)));
    assert_eq!(too_many(&store, &clients[1], "more", 0).await, (5, at(HALF_AN_HOUR)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_clients_one_gets_the_job() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let clients = added(&folder, &stores[0], ["a", "b", "c", "d"].map(client)).await;
    let tasks = (0..32).map(|number| {
        let (store, client) = (stores[number % 2].clone(), clients[number % 4].clone());
        tokio::spawn(async move {
            let reserve = Operation::of(&client, "job_reserve", "job1", "");
            (number % 4, store.begin(&reserve, moment(0)).await.unwrap())
        })
    });
    let mut holders = Vec::new();
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            (client, Begun::Started(_)) => holders.push(client),
            (_, Begun::Denied(Denied::Holder(_))) => {}
            other => panic!("{other:?}"),
        }
    }
    holders.dedup();
    assert_eq!(holders.len(), 1, "it may ask for it more than once");
}

#[tokio::test]
async fn a_reservation_counts_until_it_ends_or_its_proof_is_submitted() {
    let folder = Folder::new();
    let store = folder.open();
    let [client] = added(&folder, &store, [limited("ci", 2)]).await;
    reserved(&store, &client, "job1", 600, 0).await;
    reserved(&store, &client, "job2", 900, 0).await;
    assert_eq!(too_many(&store, &client, "job3", 0).await, (2, at(600)));
    assert_eq!(too_many(&store, &client, "job3", 599).await, (2, at(600)));
    let complete = Operation::of(&client, "job_complete", "job2", "{}");
    make(&store, &complete, end(KeyEnd::Free, JobEnd::Submitted), 599).await;
    let claim = opened(&store, &client, "job3", 599).await;
    closed(&store, &client, "job3", claim).await;
    drop(opened(&store, &client, "job3", 599).await);
    drop(opened(&store, &client, "job4", 600).await);
}

#[tokio::test]
async fn a_reserve_counts_until_its_outcome_is_known_or_for_half_an_hour() {
    let folder = Folder::new();
    let store = folder.open();
    let [client, other] = added(&folder, &store, [limited("ci", 1), limited("other", 1)]).await;
    let claim = opened(&store, &client, "job1", 0).await;
    assert_eq!(too_many(&store, &client, "job2", 0).await.0, 1);
    closed(&store, &client, "job1", claim).await;
    assert_eq!(holder(&store, "job1", &other, 0).await, None);
    drop(opened(&store, &client, "job2", 0).await);
    let store = folder.open();
    let last = HALF_AN_HOUR - 1;
    assert_eq!(too_many(&store, &client, "job3", last).await, (1, at(HALF_AN_HOUR)));
    assert_eq!(holder(&store, "job2", &other, last).await, Some(client.id));
    assert!(store.reservations(at(0)).await.unwrap().is_empty(), "it is no reservation");
    let wallet = crate::store::testing::WALLET.parse().unwrap();
    assert!(store.reservation(wallet, &"job2".parse().unwrap()).await.unwrap().is_none());
    drop(opened(&store, &client, "job3", HALF_AN_HOUR).await);
    // One that may have succeeded goes with the proof of its job.
    drop(opened(&store, &other, "job5", 0).await);
    let complete = Operation::of(&other, "job_complete", "job5", "{}");
    make(&store, &complete, end(KeyEnd::Free, JobEnd::Submitted), 0).await;
    drop(opened(&store, &other, "job6", 0).await);
}

#[tokio::test]
async fn a_job_counts_once_however_often_it_is_asked_for() {
    let folder = Folder::new();
    let store = folder.open();
    let [client] = added(&folder, &store, [limited("ci", 2)]).await;
    reserved(&store, &client, "job1", 600, 0).await;
    let first = opened(&store, &client, "job1", 0).await;
    drop(opened(&store, &client, "job1", 0).await);
    let second = opened(&store, &client, "job2", 0).await;
    assert_eq!(too_many(&store, &client, "job3", 0).await, (2, at(HALF_AN_HOUR)));
    drop(opened(&store, &client, "job1", 0).await);
    // The end of one reserve takes nothing from another of the same job, nor from the reservation.
    closed(&store, &client, "job1", first).await;
    assert_eq!(too_many(&store, &client, "job3", 0).await.0, 2);
    assert_eq!(jobs(&store).await, ["job1"]);
    closed(&store, &client, "job2", second).await;
    drop(opened(&store, &client, "job3", 0).await);
}

#[tokio::test]
async fn a_job_has_a_holder_from_the_reserve_to_the_end_on_any_clock() {
    let folder = Folder::new();
    let store = folder.open();
    let [ci, other] = added(&folder, &store, ["ci", "other"].map(client)).await;
    assert_eq!(holder(&store, "job1", &other, 0).await, None);
    reserved(&store, &ci, "job1", 600, 0).await;
    for now in [0, 600, 604] {
        assert_eq!(holder(&store, "JOB1", &other, now).await, Some(ci.id), "{now}");
        let reserve = Operation::of(&other, "job_reserve", "job1", "");
        assert!(matches!(denied(&store, &reserve, now).await, Denied::Holder(_)), "{now}");
    }
    assert_eq!(holder(&store, "job1", &other, 605).await, None);
    assert_eq!(holder(&store, "job2", &other, 0).await, None);
    let elsewhere = crate::types::Address::new([0; 20]);
    let elsewhere = store.holder(elsewhere, &"job1".parse().unwrap(), ci.id, at(0)).await;
    assert_eq!(elsewhere.unwrap(), None);
    // A clock that is wrong takes nothing from who reserved it last.
    assert_eq!(holder(&store, "job1", &ci, 605).await, Some(ci.id));
    drop(opened(&store, &other, "job1", 605).await);
    assert_eq!(holder(&store, "job1", &ci, 605).await, Some(other.id));
}

#[tokio::test]
async fn a_submitted_job_stays_its_clients_until_it_is_reserved_again_or_a_month_is_over() {
    const MONTH: i64 = 30 * DAY;
    let folder = Folder::new();
    let store = folder.open();
    let boss = Client { admin: true, ..client("boss") };
    let [ci, other, boss] = added(&folder, &store, [client("ci"), client("other"), boss]).await;
    let submit = async |client: &Client, job: &str, now: i64| {
        let complete = Operation::of(client, "job_complete", job, "{}");
        let past = at(now);
        let ended = Finish { past, ..end(KeyEnd::Free, JobEnd::Submitted) };
        make(&store, &complete, ended, now).await;
    };
    reserved(&store, &ci, "job1", 600, 0).await;
    drop(opened(&store, &ci, "job2", 0).await);
    for (job, of) in [("job1", &ci), ("job2", &ci), ("job3", &boss)] {
        submit(&boss, job, 0).await;
        assert_eq!(holder(&store, job, &other, MONTH - 1).await, Some(of.id), "{job}");
    }
    // A client that tries to reserve it is not told of the submission: the upstream knows better.
    let claim = opened(&store, &other, "job1", 0).await;
    assert_eq!(holder(&store, "job1", &other, 0).await, Some(ci.id));
    closed(&store, &other, "job1", claim).await;
    reserved(&store, &other, "job1", 600, 0).await;
    assert_eq!(holder(&store, "job1", &ci, 0).await, Some(other.id));
    submit(&boss, "job4", MONTH).await;
    assert_eq!(holder(&store, "job2", &other, MONTH).await, None);
}

#[tokio::test]
async fn an_admin_may_reserve_what_another_holds() {
    let folder = Folder::new();
    let store = folder.open();
    let boss = Client { admin: true, ..client("boss") };
    let [ci, boss] = added(&folder, &store, [client("ci"), boss]).await;
    reserved(&store, &ci, "job1", 600, 0).await;
    let claim = opened(&store, &boss, "job1", 0).await;
    closed(&store, &boss, "job1", claim).await;
    assert_eq!(holder(&store, "job1", &boss, 0).await, Some(ci.id));
    // So may the owner of the process, while there is no client.
    folder.tamper("DELETE FROM clients");
    let _claim = opened(&store, &Client::local(), "job1", 0).await;
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
        include_str!("../reservations.rs"),
    ];
    let texts = sources.iter().flat_map(|source| source.split('"'));
    let statements: Vec<_> = texts
        .filter(|text| ["SELECT ", "DELETE ", "UPDATE "].iter().any(|verb| text.starts_with(verb)))
        // That shows all that run.
        .filter(|sql| !sql.ends_with("ORDER BY ends"))
        .map(|sql| sql.replace("{COLUMNS}", "*").replace("{which}", "TRUE"))
        .collect();
    assert!(statements.len() > 12, "{statements:?}");
    for sql in statements {
        let steps = database.plan(&sql);
        assert!(steps.iter().any(|step| step.starts_with("SEARCH")), "{sql}: {steps:?}");
        assert!(!steps.iter().any(|step| step.starts_with("SCAN")), "{sql}: {steps:?}");
    }
}

async fn jobs(store: &Store) -> Vec<String> {
    let all = store.reservations(at(0)).await.unwrap();
    all.iter().map(|reservation| reservation.job.to_string()).collect()
}

/// A key is text that a client may choose.
#[test]
fn no_key_of_a_client_is_that_of_a_completion() {
    assert!("completion 00".parse::<IdempotencyKey>().is_err());
}

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
