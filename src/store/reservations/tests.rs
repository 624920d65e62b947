use super::*;
use crate::store::testing::{Folder, WALLET, at, holds, key};

const DAY: i64 = 24 * 60 * 60;

fn reservation(job: &str, ends: i64) -> Reservation {
    Reservation {
        job: job.parse().unwrap(),
        wallet: WALLET.parse().unwrap(),
        client: "agent".into(),
        reservation_id: Some("reservation-1".into()),
        ends: at(ends),
        workflow_token: Some("the-workflow-token".into()),
    }
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
    folder.open().keep_reservation(&reservation("job1", 1800), at(0)).await.unwrap();
    let store = folder.open();
    let found = store.reservation(wallet(), &slug("job1")).await.unwrap().unwrap();
    assert_eq!(found.workflow_token.unwrap().expose_secret(), "the-workflow-token");
    assert_eq!((found.job.as_str(), found.wallet), ("job1", wallet()));
    assert_eq!((found.client.as_str(), found.ends), ("agent", at(1800)));
    assert_eq!(found.reservation_id.as_deref(), Some("reservation-1"));
    assert!(store.reservation(wallet(), &slug("job2")).await.unwrap().is_none());
}

#[tokio::test]
async fn those_that_run_are_listed_the_first_to_end_first() {
    let folder = Folder::new();
    let store = folder.open();
    for (job, ends) in [("late", 1800), ("early", 900), ("over", 100)] {
        store.keep_reservation(&reservation(job, ends), at(0)).await.unwrap();
    }
    assert_eq!(jobs(&store.reservations(at(100)).await.unwrap()), ["early", "late"]);
    assert!(store.reservation(wallet(), &slug("over")).await.unwrap().is_some());
    store.submit_job(wallet(), &slug("early"), "ci", None, at(100), at(100)).await.unwrap();
    assert_eq!(jobs(&store.reservations(at(100)).await.unwrap()), ["late"]);
    assert!(store.reservation(wallet(), &slug("early")).await.unwrap().is_none());
}

#[tokio::test]
async fn a_later_reservation_of_a_job_takes_the_place_of_the_earlier() {
    let folder = Folder::new();
    let store = folder.open();
    store.keep_reservation(&reservation("job1", 1800), at(0)).await.unwrap();
    let again =
        Reservation { reservation_id: None, workflow_token: None, ..reservation("job1", 3600) };
    store.keep_reservation(&again, at(1800)).await.unwrap();
    let found = store.reservation(wallet(), &slug("job1")).await.unwrap().unwrap();
    assert_eq!((found.ends, found.reservation_id), (at(3600), None));
    assert!(found.workflow_token.is_none());
}

#[tokio::test]
async fn one_that_ended_a_day_ago_goes_when_another_comes() {
    let folder = Folder::new();
    let store = folder.open();
    store.keep_reservation(&reservation("job1", 0), at(0)).await.unwrap();
    store.keep_reservation(&reservation("job2", 0), at(DAY - 1)).await.unwrap();
    assert!(store.reservation(wallet(), &slug("job1")).await.unwrap().is_some());
    store.keep_reservation(&reservation("job3", DAY), at(DAY)).await.unwrap();
    assert!(store.reservation(wallet(), &slug("job1")).await.unwrap().is_none());
}

#[tokio::test]
async fn tokens_are_sealed_and_bound_to_their_job() {
    let folder = Folder::new();
    let store = folder.open();
    store.keep_reservation(&reservation("job1", 1800), at(0)).await.unwrap();
    assert!(holds(&folder.bytes(), "reservation-1"));
    assert!(!holds(&folder.bytes(), "the-workflow-token"));
    folder.tamper("UPDATE reservations SET job = 'job2'");
    let refused = store.reservation(wallet(), &slug("job2")).await.unwrap_err();
    assert_eq!(refused.fault(), &Fault::Sealed(TOKEN));
}

#[tokio::test]
async fn another_wallets_reservation_is_listed_without_its_token() {
    let folder = Folder::new();
    folder.open().keep_reservation(&reservation("job1", 1800), at(0)).await.unwrap();
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
    store.keep_reservation(&reservation(upper, 1800), at(0)).await.unwrap();
    // Its token is sealed for the job as it is spelled.
    let found = store.reservation(wallet(), &slug(lower)).await.unwrap().unwrap();
    assert_eq!((found.job.as_str(), found.workflow_token.is_some()), (upper, true));
    store.keep_reservation(&reservation(lower, 3600), at(0)).await.unwrap();
    assert_eq!(jobs(&store.reservations(at(0)).await.unwrap()), [lower]);
    store.submit_job(wallet(), &slug(upper), "agent", None, at(0), at(0)).await.unwrap();
    assert!(store.reservations(at(0)).await.unwrap().is_empty());
}

#[test]
fn a_reservation_does_not_print_its_token() {
    assert!(!format!("{:?}", reservation("job1", 0)).contains("the-workflow-token"));
}

#[tokio::test]
async fn a_submission_that_is_seen_again_keeps_its_reservation_until_the_job_is_reserved_again() {
    let folder = Folder::new();
    let store = folder.open();
    let job = slug("job");
    for id in [Some("r-1"), None] {
        store.submit_job(wallet(), &job, "ci", id, at(0), at(0)).await.unwrap();
    }
    let submission = store.submission(wallet(), &job).await.unwrap().unwrap();
    assert_eq!(submission.reservation_id.as_deref(), Some("r-1"));
    store.keep_reservation(&reservation("job", 60), at(0)).await.unwrap();
    assert_eq!(store.submission(wallet(), &job).await.unwrap(), None);
}
