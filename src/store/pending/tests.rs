use std::collections::HashMap;

use super::*;
use crate::{
    action::Action,
    call::Call,
    policy::Client,
    store::{
        Reservation,
        testing::{Folder, WALLET, at, client, name},
    },
};

fn wallet() -> Address {
    WALLET.parse().unwrap()
}

fn slug(text: &str) -> Slug {
    text.parse().unwrap()
}

fn limited(name: &str, max: u32) -> Client {
    Client { max_reservations: Some(max), ..client(name) }
}

fn permit(client: &Client, job: &str) -> Permit {
    let call = Call::new(Action::named("job_reserve").unwrap(), [job], b"").unwrap();
    client.permit(call, wallet(), None, at(0)).unwrap()
}

async fn open(store: &Store, client: &Client, job: &str, now: i64) -> Opening {
    store.open_reservation(&permit(client, job), &slug(job), at(now)).await.unwrap()
}

async fn opened(store: &Store, client: &Client, job: &str, now: i64) -> Pending {
    match open(store, client, job, now).await {
        Opening::Opened(pending) => pending,
        refused => panic!("{refused:?}"),
    }
}

async fn too_many(store: &Store, client: &Client, job: &str, now: i64) -> (u32, Timestamp) {
    match open(store, client, job, now).await {
        Opening::TooMany { running, until } => (running, until),
        other => panic!("{other:?}"),
    }
}

async fn keep(store: &Store, client: &Client, job: &str, ends: i64) {
    let reservation = Reservation {
        job: slug(job),
        wallet: wallet(),
        client: client.name.to_string(),
        reservation_id: Some("reservation-1".into()),
        ends: at(ends),
        workflow_token: None,
    };
    store.keep_reservation(&reservation, at(0)).await.unwrap();
}

async fn holder(store: &Store, job: &str, now: i64) -> Option<String> {
    let holder = store.holder(wallet(), &slug(job), &name("asking"), at(now)).await.unwrap();
    holder.map(|name| name.to_string())
}

async fn submit(store: &Store, job: &str, now: i64) {
    store.submit_job(wallet(), &slug(job), "boss", Some("r-1"), at(now), at(now)).await.unwrap();
}

const HALF_AN_HOUR: i64 = 30 * 60;

/// Opens one job each from many tasks and several stores; counts what came of it, by client.
async fn race(stores: &[Store], clients: &[Client], tasks: usize) -> HashMap<String, usize> {
    let tasks = (0..tasks).map(|number| {
        let store = stores[number % stores.len()].clone();
        let client = clients[number % clients.len()].clone();
        tokio::spawn(async move {
            let opening = open(&store, &client, &format!("job{number}"), 0).await;
            (client.name.to_string(), matches!(opening, Opening::Opened(_)))
        })
    });
    let mut counts = HashMap::new();
    for task in tasks.collect::<Vec<_>>() {
        let (client, opened) = task.await.unwrap();
        *counts.entry(client).or_default() += usize::from(opened);
    }
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_race_exceeds_the_limit_and_the_count_survives_a_restart() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let clients = [limited("a", 3), limited("b", 5), client("free")];
    let expected = [("a", 3), ("b", 5), ("free", 10)];
    let expected = expected.map(|(name, count)| (name.to_owned(), count)).into();
    assert_eq!(race(&stores, &clients, 32).await, expected);
    drop(stores);
    let store = folder.open();
    assert_eq!(too_many(&store, &clients[0], "more", 0).await, (3, at(HALF_AN_HOUR)));
    assert_eq!(too_many(&store, &clients[1], "more", 0).await, (5, at(HALF_AN_HOUR)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn of_many_clients_one_gets_the_job() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let tasks = (0..32).map(|number| {
        let (store, client) = (stores[number % 2].clone(), client(&format!("c{number}")));
        tokio::spawn(async move { open(&store, &client, "job1", 0).await })
    });
    let (mut opened, mut held) = (0, 0);
    for task in tasks.collect::<Vec<_>>() {
        match task.await.unwrap() {
            Opening::Opened(_) => opened += 1,
            Opening::Held => held += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((opened, held), (1, 31));
}

#[tokio::test]
async fn what_is_kept_counts_until_it_ends_or_its_proof_is_submitted() {
    let folder = Folder::new();
    let store = folder.open();
    let client = limited("ci", 2);
    for (job, ends) in [("job1", 600), ("job2", 900)] {
        let pending = opened(&store, &client, job, 0).await;
        keep(&store, &client, job, ends).await;
        store.drop_pending(pending, at(0)).await.unwrap();
    }
    assert_eq!(too_many(&store, &client, "job3", 0).await, (2, at(600)));
    assert_eq!(too_many(&store, &client, "job3", 599).await, (2, at(600)));
    submit(&store, "job2", 599).await;
    let pending = opened(&store, &client, "job3", 599).await;
    store.drop_pending(pending, at(0)).await.unwrap();
    drop(opened(&store, &client, "job3", 599).await);
    drop(opened(&store, &client, "job4", 600).await);
}

#[tokio::test]
async fn a_reserve_that_made_no_reservation_no_longer_counts() {
    let folder = Folder::new();
    let store = folder.open();
    let client = limited("ci", 1);
    let pending = opened(&store, &client, "job1", 0).await;
    assert_eq!(too_many(&store, &client, "job2", 0).await.0, 1);
    store.drop_pending(pending, at(0)).await.unwrap();
    assert_eq!(holder(&store, "job1", 0).await, None);
    drop(opened(&store, &client, "job2", 0).await);
}

#[tokio::test]
async fn a_reserve_of_unknown_outcome_counts_for_half_an_hour() {
    let folder = Folder::new();
    let client = limited("ci", 1);
    drop(opened(&folder.open(), &client, "job1", 0).await);
    let store = folder.open();
    let last = HALF_AN_HOUR - 1;
    assert_eq!(too_many(&store, &client, "job2", last).await, (1, at(HALF_AN_HOUR)));
    assert_eq!(holder(&store, "job1", last).await.as_deref(), Some("ci"));
    drop(opened(&store, &client, "job2", HALF_AN_HOUR).await);
}

#[tokio::test]
async fn a_reserve_of_unknown_outcome_is_forgotten_with_the_proof_of_its_job() {
    let folder = Folder::new();
    let store = folder.open();
    let client = limited("ci", 1);
    drop(opened(&store, &client, "job1", 0).await);
    assert_eq!(too_many(&store, &client, "job2", 0).await.0, 1);
    submit(&store, "job1", 0).await;
    drop(opened(&store, &client, "job2", 0).await);
}

#[tokio::test]
async fn a_job_counts_once_however_often_it_is_asked_for() {
    let folder = Folder::new();
    let store = folder.open();
    let client = limited("ci", 2);
    keep(&store, &client, "job1", 600).await;
    let first = opened(&store, &client, "job1", 0).await;
    drop(opened(&store, &client, "job1", 0).await);
    let second = opened(&store, &client, "job2", 0).await;
    assert_eq!(too_many(&store, &client, "job3", 0).await, (2, at(HALF_AN_HOUR)));
    drop(opened(&store, &client, "job1", 0).await);
    // The end of one reserve takes nothing from another of the same job, nor what is kept.
    store.drop_pending(first, at(0)).await.unwrap();
    assert_eq!(too_many(&store, &client, "job3", 0).await.0, 2);
    assert!(store.reservation(wallet(), &slug("job1")).await.unwrap().is_some());
    store.drop_pending(second, at(0)).await.unwrap();
    drop(opened(&store, &client, "job3", 0).await);
}

#[tokio::test]
async fn a_job_has_a_holder_from_the_reserve_to_the_end_on_any_clock() {
    let folder = Folder::new();
    let store = folder.open();
    let (ci, other) = (client("ci"), client("other"));
    assert_eq!(holder(&store, "job1", 0).await, None);
    let pending = opened(&store, &ci, "job1", 0).await;
    assert_eq!(holder(&store, "job1", 0).await.as_deref(), Some("ci"));
    keep(&store, &ci, "job1", 600).await;
    store.drop_pending(pending, at(0)).await.unwrap();
    for now in [0, 600, 604] {
        assert_eq!(holder(&store, "job1", now).await.as_deref(), Some("ci"), "{now}");
        assert!(matches!(open(&store, &other, "job1", now).await, Opening::Held), "{now}");
    }
    assert_eq!(holder(&store, "job1", 605).await, None);
    assert_eq!(holder(&store, "job2", 0).await, None);
    let elsewhere = store.holder(Address::new([0; 20]), &slug("job1"), &ci.name, at(0)).await;
    assert_eq!(elsewhere.unwrap(), None);
    // A clock that is wrong takes nothing from who reserved it last.
    let last = store.holder(wallet(), &slug("job1"), &ci.name, at(605)).await.unwrap();
    assert_eq!(last.as_ref(), Some(&ci.name));
    drop(opened(&store, &other, "job1", 605).await);
    assert_eq!(holder(&store, "job1", 605).await.as_deref(), Some("other"));
}

#[tokio::test]
async fn a_submitted_job_stays_its_clients_until_it_is_reserved_again_or_a_month_is_over() {
    const MONTH: i64 = 30 * 24 * 60 * 60;
    let folder = Folder::new();
    let store = folder.open();
    let (ci, other) = (client("ci"), client("other"));
    keep(&store, &ci, "job1", 600).await;
    drop(opened(&store, &ci, "job2", 0).await);
    for (job, of) in [("job1", "ci"), ("job2", "ci"), ("job3", "boss")] {
        submit(&store, job, 0).await;
        assert_eq!(holder(&store, job, MONTH - 1).await.as_deref(), Some(of), "{job}");
    }
    let submission = store.submission(wallet(), &slug("job1")).await.unwrap();
    assert_eq!(submission.unwrap().reservation_id.as_deref(), Some("r-1"));

    // Who tries to reserve it is not told of the submission, as the upstream may refuse.
    let pending = opened(&store, &other, "job1", 0).await;
    assert_eq!(holder(&store, "job1", 0).await.as_deref(), Some("ci"));
    keep(&store, &other, "job1", 600).await;
    store.drop_pending(pending, at(0)).await.unwrap();
    assert_eq!(holder(&store, "job1", 0).await.as_deref(), Some("other"));
    assert_eq!(store.submission(wallet(), &slug("job1")).await.unwrap(), None);

    submit(&store, "job4", MONTH).await;
    assert_eq!(holder(&store, "job2", MONTH).await, None);
}

#[tokio::test]
async fn an_admin_may_reserve_what_another_holds() {
    let folder = Folder::new();
    let store = folder.open();
    keep(&store, &client("ci"), "job1", 600).await;
    for client in [Client { admin: true, ..client("boss") }, Client::local()] {
        let pending = opened(&store, &client, "job1", 0).await;
        store.drop_pending(pending, at(0)).await.unwrap();
    }
    assert_eq!(holder(&store, "job1", 0).await.as_deref(), Some(name("ci").as_str()));
}

#[tokio::test]
async fn a_reserve_that_is_under_way_is_no_reservation() {
    let folder = Folder::new();
    let store = folder.open();
    drop(opened(&store, &client("ci"), "job1", 0).await);
    assert!(store.reservation(wallet(), &slug("job1")).await.unwrap().is_none());
    assert!(store.reservations(at(0)).await.unwrap().is_empty());
}

/// What holds a job, or a client, is found in as many steps when much is held by others.
#[test]
fn nothing_is_searched_from_end_to_end() {
    let folder = Folder::new();
    drop(folder.open());
    let database = folder.db();
    for sql in [HOLDER, RESERVER, RUNNING, PURGE, END_JOB] {
        let steps = database.plan(sql);
        let is_search = |step: &&String| step.starts_with("SEARCH") && step.contains("INDEX");
        assert!(steps.iter().any(|step| is_search(&step)), "{steps:?}");
        let is_scan = |step: &String| {
            step.starts_with("SCAN")
                && (step.contains("reservations") || step.contains("submissions"))
        };
        assert!(!steps.iter().any(is_scan), "{steps:?}");
    }
}
