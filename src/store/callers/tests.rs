use jiff::SignedDuration;

use super::*;
use crate::{
    store::{
        Journal, Record,
        testing::{Folder, at, client, name, operation, sign},
    },
    types::{CertificateHash, ClientToken},
};

/// A client with this rate, whose calls begin with a full burst.
fn limited(rate: &str) -> Client {
    Client { rate: Some(rate.parse().unwrap()), ..client("ci") }
}

/// How many of so many reads at one moment are let through, made by as many tasks.
async fn counted(stores: &[Store], client: &Client, now: Timestamp, calls: usize) -> usize {
    let client = Arc::new(client.clone());
    let calls = (0..calls).map(|number| {
        let (store, client) = (stores[number % stores.len()].clone(), client.clone());
        tokio::spawn(async move { store.count(&client, false, now).await.is_ok() })
    });
    let mut counted = 0;
    for call in calls.collect::<Vec<_>>() {
        counted += usize::from(call.await.unwrap());
    }
    counted
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
        let id = ClientId::new(number as i64 + 1);
        assert_eq!(found, Some(Client { id, ..client(&format!("c{number}")) }));
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
async fn a_revoked_client_is_not_found_by_a_credential_that_stayed() {
    let folder = Folder::new();
    let store = folder.open();
    let credential = folder.add(&client("ci"));
    folder.tamper("UPDATE clients SET revoked = 0");
    assert_eq!(store.client_by(credential, at(1)).await.unwrap(), None);
}

#[tokio::test]
async fn a_client_whose_time_is_over_is_found() {
    let folder = Folder::new();
    let ended = Client { expires: Some(at(0)), ..client("ci") };
    let credential = folder.add(&ended);
    let found = folder.open().client_by(credential, at(1)).await.unwrap();
    assert_eq!(found, Some(Client { id: ClientId::new(1), ..ended }));
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
async fn reads_are_counted_without_a_wait_and_known_to_others_and_after_a_restart() {
    let folder = Folder::new();
    let credential = folder.add(&limited("10/s"));
    let found = async |store: &Store| store.client_by(credential, at(0)).await.unwrap().unwrap();
    let store = folder.open();
    let client = found(&store).await;
    assert_eq!(counted(std::slice::from_ref(&store), &client, at(0), 32).await, 10);
    store.flush().await.unwrap();
    let other = [folder.open()];
    assert_eq!(found(&other[0]).await, client);
    assert_eq!(counted(&other, &client, at(0), 32).await, 0);
    assert_eq!(counted(&other, &client, at(1), 32).await, 10);
    other[0].flush().await.unwrap();
    drop((store, other));
    let restarted = [folder.open()];
    found(&restarted[0]).await;
    assert_eq!(counted(&restarted, &client, at(1), 32).await, 0);
    assert_eq!(counted(&restarted, &client, at(1000), 32).await, 10);
}

#[tokio::test]
async fn a_client_that_comes_too_often_is_told_when_to_come_again() {
    let folder = Folder::new();
    let store = folder.open();
    let client = limited("2/m");
    let wait = Err(Duration::from_secs(30));
    for (changes, expected) in [(true, Ok(())), (false, Ok(())), (true, wait), (false, wait)] {
        assert_eq!(store.count(&client, changes, at(0)).await, expected);
    }
}

#[tokio::test]
async fn clients_are_counted_apart_and_one_without_a_rate_not_at_all() {
    let folder = Folder::new();
    let store = folder.open();
    let (one, free) = (limited("5/h"), client("free"));
    let mut found = Vec::new();
    for client in [one.clone(), Client { name: name("other"), ..one }, free] {
        found.push(store.client_by(folder.add(&client), at(0)).await.unwrap().unwrap());
    }
    store.flush().await.unwrap();
    let commits = folder.commits();
    assert_eq!(counted(std::slice::from_ref(&store), &found[2], at(0), 20).await, 20);
    assert_eq!(folder.commits(), commits);
    for client in &found[..2] {
        assert_eq!(counted(std::slice::from_ref(&store), client, at(0), 20).await, 5);
    }
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
    let record = async |number: u32, id| {
        let agent = Client { id, ..client("agent") };
        let recorded = sign(&store, &operation(&agent, "job_complete", ""), number).await;
        recorded.map_err(|error| assert!(error.is_access_ended(), "{error}"))
    };
    let [first, second, third] = [1, 2, 3].map(ClientId::new);
    assert_eq!(record(1, ClientId::LOCAL).await, Ok(()), "there is no client yet");
    add(at(0), later);
    assert_eq!(record(2, ClientId::LOCAL).await, Err(()), "there is one");
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
    assert_eq!(record(8, third).await, Err(()), "its time is over");
    store.flush().await.unwrap();
    let kinds = Journal::open(&folder.path()).unwrap().tail(99).unwrap();
    let kind = |record: &Record| record.fields().unwrap().text("kind").unwrap();
    let kinds: Vec<_> = kinds.iter().map(kind).filter(|kind| kind != "admin").collect();
    assert_eq!(kinds, ["signed"; 3]);
}
