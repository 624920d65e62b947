use std::time::Duration;

use tokio::time::Instant;

use super::*;
use crate::{
    policy::Client,
    store::{
        Claim, CreditEnd, Finish, JobEnd, KeyEnd, Store, StoreError,
        testing::{Folder, WALLET, at, client, holds, key, limit_growth},
    },
};

const DAY: i64 = 24 * 60 * 60;

fn reservation(job: &str, ends: i64) -> Reservation {
    let Client { id, name, .. } = client("agent");
    Reservation {
        job: job.parse().unwrap(),
        wallet: WALLET.parse().unwrap(),
        client: id,
        client_name: name,
        reservation_id: Some("reservation-1".into()),
        ends: at(ends),
        workflow_token: Some("the-workflow-token".into()),
        answer: None,
    }
}

fn end(job: JobEnd, now: i64) -> Finish {
    Finish {
        key: KeyEnd::Free,
        job,
        credits: CreditEnd::Free,
        is_pending: false,
        is_settled: false,
        past: at(now),
    }
}

/// A reserve that begins now.
fn reserve(reservation: &Reservation) -> Operation {
    let Reservation { client: id, client_name: name, job, .. } = reservation;
    let client = Client { id: *id, name: name.clone(), ..client("agent") };
    Operation::of(&client, "job_reserve", job.as_str(), "")
}

/// Ends a reserve, which holds nothing else.
async fn end_reserve(
    store: &Store,
    reserve: &Operation,
    reservation: &Reservation,
    now: i64,
) -> Result<(), StoreError> {
    let ended = end(JobEnd::Reserved(reservation.clone()), now);
    store.finish(reserve, &Claim::default(), &ended, at(now)).await
}

async fn keep(store: &Store, reservation: &Reservation, now: i64) -> Result<(), StoreError> {
    end_reserve(store, &reserve(reservation), reservation, now).await
}

/// Ends a completion, which holds nothing else.
async fn submit(store: &Store, job: &str, now: i64) {
    let complete = Operation::of(&client("agent"), "job_complete", job, "{}");
    let ended = end(JobEnd::Submitted, now);
    store.finish(&complete, &Claim::default(), &ended, at(now)).await.unwrap();
}

fn wallet() -> Address {
    WALLET.parse().unwrap()
}

fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

fn jobs(reservations: &[Reservation]) -> Vec<&str> {
    reservations.iter().map(|reservation| reservation.job.as_str()).collect()
}

#[tokio::test]
async fn a_reservation_is_as_it_was_after_a_restart() {
    let folder = Folder::new();
    keep(&folder.open(), &reservation("job1", 1800), 0).await.unwrap();
    let store = folder.open();
    let found = store.reservation(wallet(), &slug("job1")).await.unwrap().unwrap();
    assert_eq!(found.workflow_token.unwrap().expose_secret(), "the-workflow-token");
    assert_eq!((found.job.as_str(), found.wallet), ("job1", wallet()));
    let Client { id, name, .. } = client("agent");
    assert_eq!((found.client, found.client_name, found.ends), (id, name, at(1800)));
    assert_eq!(found.reservation_id.as_deref(), Some("reservation-1"));
    assert!(store.reservation(wallet(), &slug("job2")).await.unwrap().is_none());
}

#[tokio::test]
async fn those_that_run_are_listed_the_first_to_end_first() {
    let folder = Folder::new();
    let store = folder.open();
    for (job, ends) in [("late", 1800), ("early", 900), ("over", 100)] {
        keep(&store, &reservation(job, ends), 0).await.unwrap();
    }
    assert_eq!(jobs(&store.reservations(at(100)).await.unwrap()), ["early", "late"]);
    assert!(store.reservation(wallet(), &slug("over")).await.unwrap().is_some());
    submit(&store, "early", 100).await;
    assert_eq!(jobs(&store.reservations(at(100)).await.unwrap()), ["late"]);
    assert!(store.reservation(wallet(), &slug("early")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_later_reservation_of_a_job_takes_the_place_of_the_earlier() {
    let folder = Folder::new();
    let store = folder.open();
    keep(&store, &reservation("job1", 1800), 0).await.unwrap();
    let again =
        Reservation { reservation_id: None, workflow_token: None, ..reservation("job1", 3600) };
    keep(&store, &again, 5400).await.unwrap();
    let found = store.reservation(wallet(), &slug("job1")).await.unwrap().unwrap();
    assert_eq!((found.ends, found.reservation_id), (at(3600), None));
    assert!(found.workflow_token.is_none());
}

#[tokio::test]
async fn a_renewal_keeps_what_its_answer_does_not_bring_and_gives_a_client_nothing_of_another() {
    let silent =
        || Reservation { reservation_id: None, workflow_token: None, ..reservation("job1", 3600) };
    let newer = Reservation { reservation_id: Some("reservation-2".into()), ..silent() };
    let other = Reservation { client: ClientId::new(8), ..silent() };
    for (later, id, has_token) in [
        (silent(), Some("reservation-1"), true),
        (newer, Some("reservation-2"), true),
        (other, None, false),
    ] {
        let folder = Folder::new();
        let store = folder.open();
        keep(&store, &reservation("JOB1", 1800), 0).await.unwrap();
        keep(&store, &later, 1799).await.unwrap();
        let found = store.reservation(wallet(), &slug("job1")).await.unwrap().unwrap();
        assert_eq!((found.ends, found.reservation_id.as_deref()), (at(3600), id));
        assert_eq!(found.workflow_token.is_some(), has_token, "{id:?}");
    }
}

#[tokio::test]
async fn a_renewal_that_is_answered_after_the_end_or_is_an_admins_keeps_them_too() {
    let silent =
        || Reservation { reservation_id: None, workflow_token: None, ..reservation("job1", 3600) };
    let long_ago = Instant::now().checked_sub(Duration::from_secs(30)).unwrap();
    let slow = || Operation { known_at: long_ago, ..reserve(&silent()) };
    let admin = || {
        let client = Client { id: ClientId::new(8), admin: true, ..client("ops") };
        Operation { client, ..reserve(&silent()) }
    };
    for (renewal, now, keeps) in [
        (reserve(&silent()), 1804, true),
        (reserve(&silent()), 5400, false),
        (slow(), 1834, true),
        (slow(), 5400, false),
        (admin(), 1799, true),
    ] {
        let folder = Folder::new();
        let store = folder.open();
        keep(&store, &reservation("job1", 1800), 0).await.unwrap();
        let later = Reservation { client: renewal.client.id, ..silent() };
        end_reserve(&store, &renewal, &later, now).await.unwrap();
        let found = store.reservation(wallet(), &slug("job1")).await.unwrap().unwrap();
        assert_eq!((found.client, found.ends), (renewal.client.id, at(3600)));
        assert_eq!(
            (found.reservation_id.is_some(), found.workflow_token.is_some()),
            (keeps, keeps)
        );
    }
}

#[tokio::test]
async fn a_renewal_of_what_could_not_be_written_keeps_that() {
    let folder = Folder::new();
    let store = folder.open();
    limit_growth(&store, 0).await;
    let workflow_token = Some("t".repeat(100_000).into());
    let first = Reservation { workflow_token, ..reservation("job1", 1800) };
    assert!(keep(&store, &first, 0).await.unwrap_err().is_full());
    limit_growth(&store, 1000).await;
    let silent =
        Reservation { reservation_id: None, workflow_token: None, ..reservation("job1", 3600) };
    keep(&store, &silent, 0).await.unwrap();
    let found = folder.open().reservation(wallet(), &slug("job1")).await.unwrap().unwrap();
    assert_eq!((found.ends, found.reservation_id.as_deref()), (at(3600), Some("reservation-1")));
    assert!(found.workflow_token.is_some());
}

#[tokio::test]
async fn one_that_ended_a_day_ago_goes_when_another_comes() {
    let folder = Folder::new();
    let store = folder.open();
    keep(&store, &reservation("job1", 0), 0).await.unwrap();
    keep(&store, &reservation("job2", 0), DAY - 1).await.unwrap();
    assert!(store.reservation(wallet(), &slug("job1")).await.unwrap().is_some());
    keep(&store, &reservation("job3", DAY), DAY).await.unwrap();
    assert!(store.reservation(wallet(), &slug("job1")).await.unwrap().is_none());
}

#[tokio::test]
async fn tokens_are_sealed_and_bound_to_their_job() {
    let folder = Folder::new();
    let store = folder.open();
    keep(&store, &reservation("job1", 1800), 0).await.unwrap();
    assert!(holds(&folder.bytes(), "reservation-1"));
    assert!(!holds(&folder.bytes(), "the-workflow-token"));
    folder.tamper("UPDATE reservations SET job = 'job2'");
    let refused = store.reservation(wallet(), &slug("job2")).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::Sealed(TOKEN));
}

#[tokio::test]
async fn another_wallets_reservation_is_listed_without_its_token() {
    let folder = Folder::new();
    keep(&folder.open(), &reservation("job1", 1800), 0).await.unwrap();
    let other = Store::open(&folder.path(), &[key(2)]).unwrap();
    let listed = other.reservations(at(0)).await.unwrap();
    assert_eq!(jobs(&listed), ["job1"]);
    assert!(listed[0].workflow_token.is_none());
    assert!(other.reservation(wallet(), &slug("job1")).await.is_err());
}

#[tokio::test]
async fn a_reservation_is_found_by_either_case_of_its_job() {
    let folder = Folder::new();
    let store = folder.open();
    let (upper, lower) = ("507F1F77BCF8", "507f1f77bcf8");
    keep(&store, &reservation(upper, 1800), 0).await.unwrap();
    // Its token is sealed for the job as it is spelled.
    let found = store.reservation(wallet(), &slug(lower)).await.unwrap().unwrap();
    assert_eq!((found.job.as_str(), found.workflow_token.is_some()), (upper, true));
    keep(&store, &reservation(lower, 3600), 0).await.unwrap();
    assert_eq!(jobs(&store.reservations(at(0)).await.unwrap()), [lower]);
    submit(&store, upper, 0).await;
    assert!(store.reservations(at(0)).await.unwrap().is_empty());
}

#[test]
fn a_reservation_does_not_print_its_token() {
    assert!(!format!("{:?}", reservation("job1", 0)).contains("the-workflow-token"));
}

#[tokio::test]
async fn a_reservation_that_cannot_be_written_is_known_until_the_next_of_its_job_or_its_proof() {
    let folder = Folder::new();
    let store = folder.open();
    keep(&store, &reservation("job1", 900), 0).await.unwrap();
    limit_growth(&store, 0).await;
    let token = || Some("t".repeat(100_000).into());
    let [first, second] = [1800, 3600]
        .map(|ends| Reservation { workflow_token: token(), ..reservation("job1", ends) });
    let [first_end, second_end] =
        [&first, &second].map(|reservation| end(JobEnd::Reserved(reservation.clone()), 0));
    let found = async || store.reservation(wallet(), &slug("JOB1")).await.unwrap();
    assert!(keep(&store, &first, 0).await.unwrap_err().is_full());
    assert_eq!(found().await.unwrap().ends, first.ends);
    assert!(store.is_to_be_finished(&first_end));
    assert!(keep(&store, &second, 0).await.unwrap_err().is_full());
    assert_eq!(found().await.unwrap().ends, second.ends);
    assert!(!store.is_to_be_finished(&first_end) && store.is_to_be_finished(&second_end));
    limit_growth(&store, 1000).await;
    submit(&store, "job1", 0).await;
    assert!(found().await.is_none() && !store.is_to_be_finished(&second_end));
}

#[tokio::test]
async fn the_proof_for_a_reservation_that_could_not_be_written_leaves_the_job_its_holders() {
    let folder = Folder::new();
    let store = folder.open();
    let (ci, other) = (ClientId::new(7), ClientId::new(8));
    limit_growth(&store, 0).await;
    let workflow_token = Some("t".repeat(100_000).into());
    let held = Reservation { client: ci, workflow_token, ..reservation("job1", 1800) };
    assert!(keep(&store, &held, 0).await.unwrap_err().is_full());
    limit_growth(&store, 1000).await;
    submit(&store, "job1", 0).await;
    assert_eq!(store.holder(wallet(), &slug("job1"), other, at(0)).await.unwrap(), Some(ci));
    let sql = "SELECT count(*) FROM reservations WHERE reservation_id = 'reservation-1'";
    assert_eq!(folder.number(sql), 1);
}

#[tokio::test]
async fn a_reservation_that_is_not_on_record_yet_takes_the_place_of_an_earlier_proof() {
    let folder = Folder::new();
    let store = folder.open();
    keep(&store, &reservation("job1", 900), 0).await.unwrap();
    submit(&store, "job1", 0).await;
    let anew = Reservation { reservation_id: None, ..reservation("job1", 1800) };
    let find = move |db: &Db| super::holds(db, wallet(), &slug("job1"), Some(&anew));
    let holds = store.read(find).await.unwrap();
    assert!(holds.submitted().is_none() && holds.reservation_id().is_none());
    assert!(holds.may_be_anew(None));
}
