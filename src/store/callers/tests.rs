use jiff::SignedDuration;

use super::*;
use crate::{
    store::{
        Entry, Journal, Record,
        testing::{Folder, added, at, client, entry, name},
    },
    types::{CertificateHash, ClientToken},
};

/// A client with this rate, whose calls begin with a full burst.
fn limited(rate: &str) -> Client {
    Client { rate: Some(rate.parse().unwrap()), ..client("ci") }
}

/// How many of so many calls at one moment are admitted, made by as many tasks.
async fn admitted(stores: &[Store], client: &Client, now: Timestamp, calls: usize) -> usize {
    let client = Arc::new(client.clone());
    let calls = (0..calls).map(|number| {
        let (store, client) = (stores[number % stores.len()].clone(), client.clone());
        tokio::spawn(async move { store.admit(&client, true, now).await.unwrap() })
    });
    let mut admitted = 0;
    for call in calls.collect::<Vec<_>>() {
        admitted += usize::from(call.await.unwrap() == Admission::Admitted);
    }
    admitted
}

fn last_used(folder: &Folder) -> Option<Timestamp> {
    folder.clients().list().unwrap()[0].last_used
}

#[tokio::test]
async fn a_client_is_found_by_what_it_is_known_by_and_nothing_else() {
    let folder = Folder::new();
    let store = folder.open();
    let hash = ClientToken::random().hash();
    let known = [
        Credential::Token(hash),
        Credential::Certificate(CertificateHash::of(b"certificate")),
        Credential::Uid(1000),
    ];
    for (number, credential) in known.iter().enumerate() {
        folder.clients().add(&client(&format!("c{number}")), credential, at(0)).unwrap();
    }
    for (number, credential) in known.into_iter().enumerate() {
        let found = store.client_by(credential, at(0)).await.unwrap();
        assert_eq!(found, Some(added(client(&format!("c{number}")), 0)));
    }
    for unknown in [
        Credential::Token(ClientToken::random().hash()),
        Credential::Certificate(CertificateHash::new(*hash.as_bytes())),
        Credential::Uid(1001),
    ] {
        assert_eq!(store.client_by(unknown, at(0)).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_revocation_is_known_to_a_store_that_is_open() {
    let folder = Folder::new();
    let store = folder.open();
    let credential = folder.add(&client("ci"));
    assert!(store.client_by(credential, at(0)).await.unwrap().is_some());
    folder.clients().revoke(&name("ci"), at(1)).unwrap();
    assert_eq!(store.client_by(credential, at(1)).await.unwrap(), None);
    // Neither is one that still has what it was known by.
    let credential = folder.add(&client("other"));
    folder.tamper("UPDATE clients SET revoked = 0");
    assert_eq!(store.client_by(credential, at(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_whose_time_is_over_is_found() {
    let folder = Folder::new();
    let ended = Client { expires: Some(at(0)), ..client("ci") };
    let credential = folder.add(&ended);
    let found = folder.open().client_by(credential, at(1)).await.unwrap();
    assert_eq!(found, Some(added(ended, 0)));
}

#[tokio::test]
async fn callers_have_to_be_clients_until_the_last_one_is_removed() {
    let folder = Folder::new();
    let store = folder.open();
    assert!(!store.has_clients().await.unwrap());
    folder.add(&client("ci"));
    assert!(store.has_clients().await.unwrap());
    folder.clients().revoke(&name("ci"), at(0)).unwrap();
    assert!(store.has_clients().await.unwrap());
    folder.clients().remove(&name("ci")).unwrap();
    assert!(!store.has_clients().await.unwrap());
}

#[tokio::test]
async fn the_last_use_is_noted_once_a_second() {
    let folder = Folder::new();
    let store = folder.open();
    let credential = folder.add(&client("ci"));
    let at = |ms: i64| at(0) + SignedDuration::from_millis(ms);
    for (now, noted) in [(0, 0), (999, 0), (1000, 1000), (500, 1000), (-500, -500)] {
        store.client_by(credential, at(now)).await.unwrap().unwrap();
        store.flush().await.unwrap();
        assert_eq!(last_used(&folder), Some(at(noted)), "at {now}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_rate_is_counted_once_for_all_and_survives_a_restart() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let client = limited("10/s");
    folder.add(&client);
    assert_eq!(admitted(&stores, &client, at(0), 32).await, 10);
    drop(stores);
    let stores = [folder.open()];
    assert_eq!(admitted(&stores, &client, at(0), 32).await, 0);
    assert_eq!(admitted(&stores, &client, at(1), 32).await, 10);
    assert_eq!(admitted(&stores, &client, at(1000), 32).await, 10);
}

#[tokio::test]
async fn who_comes_too_often_is_told_when_to_come_again() {
    let folder = Folder::new();
    let store = folder.open();
    let client = limited("2/m");
    folder.add(&client);
    for expected in [
        Admission::Admitted,
        Admission::Admitted,
        Admission::Wait(Duration::from_secs(30)),
        Admission::Wait(Duration::from_secs(30)),
    ] {
        assert_eq!(store.admit(&client, true, at(0)).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn calls_that_wait_to_be_counted_on_the_disk_count_already() {
    let folder = Folder::new();
    let store = folder.open();
    let client = limited("2/d");
    folder.add(&client);
    let lock = folder.db();
    lock.begin().unwrap();
    let changes = [(); 2].map(|()| {
        let (store, client) = (store.clone(), client.clone());
        tokio::spawn(async move { store.admit(&client, true, at(0)).await.unwrap() })
    });
    tokio::task::yield_now().await;
    let read = store.admit(&client, false, at(0)).await.unwrap();
    assert!(matches!(read, Admission::Wait(_)), "{read:?}");
    drop(lock);
    for change in changes {
        assert_eq!(change.await.unwrap(), Admission::Admitted);
    }
}

#[tokio::test]
async fn clients_are_counted_apart_and_one_without_a_rate_not_at_all() {
    let folder = Folder::new();
    let stores = [folder.open()];
    let (one, free) = (limited("5/h"), client("free"));
    let other = Client { name: name("other"), ..one.clone() };
    for client in [&one, &other, &free] {
        folder.add(client);
    }
    let commits = folder.commits();
    assert_eq!(admitted(&stores, &free, at(0), 20).await, 20);
    assert_eq!(folder.commits(), commits);
    assert_eq!(admitted(&stores, &one, at(0), 20).await, 5);
    assert_eq!(admitted(&stores, &other, at(0), 20).await, 5);
}

#[tokio::test]
async fn nothing_that_changes_is_recorded_for_a_client_after_its_access() {
    let (folder, now) = (Folder::new(), Timestamp::now());
    let store = folder.open();
    let add = |added, expires| {
        let agent = Client { expires, ..client("agent") };
        folder.clients().add(&agent, &Credential::Uid(7), added).unwrap();
    };
    let later = Some(now + SignedDuration::from_hours(1));
    let record = async |number, client_added| {
        let recorded = store.sign_record(&Entry { client_added, ..entry(number) }, None).await;
        recorded.map_err(|error| assert!(error.is_access_ended(), "{error}"))
    };
    let (first, second) = (Some(at(0)), Some(at(1)));
    assert_eq!(record(1, None).await, Ok(()), "there is no client yet");
    add(at(0), later);
    assert_eq!(record(2, None).await, Err(()), "there is one");
    assert_eq!(record(3, first).await, Ok(()));
    folder.clients().revoke(&name("agent"), now).unwrap();
    assert_eq!(record(4, first).await, Err(()), "it was revoked");
    folder.clients().remove(&name("agent")).unwrap();
    assert_eq!(record(5, first).await, Err(()), "and removed");
    add(at(1), later);
    assert_eq!(record(6, first).await, Err(()), "another one has its name");
    assert_eq!(record(7, second).await, Ok(()));
    folder.clients().revoke(&name("agent"), now).unwrap();
    add(at(2), Some(now));
    assert_eq!(record(8, Some(at(2))).await, Err(()), "its time is over");
    store.flush().await.unwrap();
    let kinds = Journal::open(&folder.path()).unwrap().tail(99).unwrap();
    let kind = |record: &Record| record.fields().unwrap().text("kind").unwrap();
    let kinds: Vec<_> = kinds.iter().map(kind).filter(|kind| kind != "admin").collect();
    let [signed, denied] = ["signed", "denied"];
    assert_eq!(kinds, [signed, denied, signed, denied, denied, denied, signed, denied]);
}
