use std::thread::sleep;

use super::*;
use crate::{
    store::{
        Clients, Store,
        testing::{Folder, at, client, name},
    },
    types::ClientToken,
};

fn version(folder: &Folder) -> i64 {
    folder.number("SELECT version FROM clients_version")
}

/// The name of the client that a credential is found to be of.
async fn found(store: &Store, credential: Credential) -> Option<String> {
    let client = store.client_by(credential, at(0)).await.unwrap();
    client.map(|client| client.name.to_string())
}

/// How many clients are known without asking the database.
fn known(store: &Store) -> usize {
    store.0.known.state.read().unwrap().clients.len()
}

/// Has the store know that it may act on what it knows until then.
fn lease_until(store: &Store, until: Instant) {
    store.0.known.state.write().unwrap().lease.as_mut().unwrap().until = until;
}

/// As if the database could not be asked, and what is known may be acted on for as long as it takes.
async fn cut_off(store: &Store) {
    lease_until(store, Instant::now() + Duration::from_hours(1));
    let drop_tables = "DROP TABLE clients; DROP TABLE clients_version";
    store.write(move |db| db.run(drop_tables)).await.unwrap();
}

#[tokio::test]
async fn who_has_called_is_known_without_the_database() {
    let folder = Folder::new();
    let store = folder.open();
    let credentials = [folder.add(&client("a")), folder.add(&client("b"))];
    for credential in credentials {
        found(&store, credential).await.unwrap();
    }
    cut_off(&store).await;
    assert_eq!(found(&store, credentials[0]).await.as_deref(), Some("a"));
    assert_eq!(found(&store, credentials[1]).await.as_deref(), Some("b"));
    assert_eq!(store.has_clients().await.ok(), Some(true));
    let unknown = Credential::Token(ClientToken::random().hash());
    store.client_by(unknown, at(0)).await.unwrap_err();
}

#[tokio::test]
async fn that_there_is_no_client_is_known_without_the_database() {
    let folder = Folder::new();
    let store = folder.open();
    assert_eq!(store.has_clients().await.ok(), Some(false));
    cut_off(&store).await;
    assert_eq!(store.has_clients().await.ok(), Some(false));
    assert_eq!(store.frozen().await.ok(), Some(None));
    assert_eq!(found(&store, Credential::Uid(7)).await, None);
}

#[tokio::test]
async fn nothing_is_acted_on_after_the_lease() {
    let folder = Folder::new();
    let store = folder.open();
    let credential = folder.add(&client("ci"));
    found(&store, credential).await.unwrap();
    cut_off(&store).await;
    lease_until(&store, Instant::now());
    store.client_by(credential, at(0)).await.unwrap_err();
    store.has_clients().await.unwrap_err();
    store.frozen().await.unwrap_err();
}

#[tokio::test]
async fn one_read_renews_the_lease_for_all() {
    let folder = Folder::new();
    let store = folder.open();
    let credentials: Vec<_> = (0..5).map(|n| folder.add(&client(&format!("c{n}")))).collect();
    for credential in &credentials {
        found(&store, *credential).await.unwrap();
    }
    lease_until(&store, Instant::now());
    found(&store, credentials[0]).await.unwrap();
    assert_eq!(known(&store), 5);
    cut_off(&store).await;
    found(&store, credentials[4]).await.unwrap();
}

#[tokio::test]
async fn a_lease_in_use_is_renewed_before_its_end_by_one_read() {
    let folder = Folder::new();
    let store = folder.open();
    let credential = folder.add(&client("ci"));
    found(&store, credential).await.unwrap();
    let renewal = || store.0.known.any().unwrap().renewal;
    assert!(renewal().is_none(), "it has just begun");
    let end = Instant::now() + Duration::from_millis(25);
    lease_until(&store, end);
    let duty = renewal().unwrap();
    assert!(renewal().is_none(), "a renewal is under way");
    drop(duty);
    found(&store, credential).await.unwrap();
    // Reads are done in turn, so the renewal has been made.
    store.reservations(at(0)).await.unwrap();
    assert!(store.0.known.state.read().unwrap().lease.as_ref().unwrap().until > end);
}

#[tokio::test]
async fn a_transaction_that_is_written_anyway_renews_a_lease_that_is_due() {
    let folder = Folder::new();
    let store = folder.open();
    let credential = folder.add(&client("ci"));
    found(&store, credential).await.unwrap();
    let until = || store.0.known.state.read().unwrap().lease.as_ref().unwrap().until;
    let end = Instant::now() + LEASE * 2;
    lease_until(&store, end);
    store.write(|_| Ok(())).await.unwrap();
    assert_eq!(until(), end, "it has just begun");
    let end = Instant::now();
    lease_until(&store, end);
    store.write(|_| Ok(())).await.unwrap();
    assert!(until() > end);
    assert_eq!(known(&store), 1);
    folder.clients().revoke(&name("ci"), at(0)).unwrap();
    store.write(|_| Ok(())).await.unwrap();
    assert_eq!(known(&store), 0, "the version is another");
}

#[tokio::test]
async fn a_change_by_another_process_has_everything_forgotten() {
    let folder = Folder::new();
    let store = folder.open();
    let [a, b] = ["a", "b"].map(|name| folder.add(&client(name)));
    for credential in [a, b] {
        found(&store, credential).await.unwrap();
    }
    folder.clients().revoke(&name("a"), at(0)).unwrap();
    assert_eq!(found(&store, b).await.as_deref(), Some("b"));
    assert_eq!(known(&store), 1);
    assert_eq!(found(&store, a).await, None);
}

#[tokio::test]
async fn every_change_counts_from_the_moment_it_is_acknowledged() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let clients = folder.clients();
    for round in 0..5 {
        for store in &stores {
            assert!(!store.has_clients().await.unwrap(), "round {round}");
        }
        let credential = Credential::Token(ClientToken::random().hash());
        clients.add(&client("ci"), &credential, at(0)).unwrap();
        for store in &stores {
            assert!(store.has_clients().await.unwrap(), "round {round}");
            assert_eq!(found(store, credential).await.as_deref(), Some("ci"), "round {round}");
        }
        clients.revoke(&name("ci"), at(0)).unwrap();
        for store in &stores {
            assert_eq!(found(store, credential).await, None, "round {round}");
        }
        clients.remove(&name("ci")).unwrap();
    }
}

/// Calls go on all the time, so that the lease is renewed at any moment around the revocation.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revocation_counts_at_once_while_the_client_calls() {
    let folder = Folder::new();
    let store = folder.open();
    for round in 0..10 {
        let credential = folder.add(&client(&format!("c{round}")));
        let busy = store.clone();
        let (begun, begins) = tokio::sync::oneshot::channel();
        let calls = tokio::spawn(async move {
            assert!(found(&busy, credential).await.is_some());
            begun.send(()).unwrap();
            while found(&busy, credential).await.is_some() {
                tokio::task::yield_now().await;
            }
        });
        begins.await.unwrap();
        sleep(Duration::from_millis(3 * round));
        let path = folder.path();
        let revoke = move || {
            Clients::open(&path).unwrap().revoke(&name(&format!("c{round}")), at(0)).unwrap();
        };
        tokio::task::spawn_blocking(revoke).await.unwrap();
        assert_eq!(found(&store, credential).await, None, "round {round}");
        calls.await.unwrap();
    }
}

#[tokio::test]
async fn the_version_changes_with_what_a_client_is_and_may_do_and_with_nothing_else() {
    let folder = Folder::new();
    let store = folder.open();
    let mut before = version(&folder);
    let mut has_changed = || {
        let now = version(&folder);
        now != std::mem::replace(&mut before, now)
    };
    let limited = Client { rate: Some("10/s".parse().unwrap()), ..client("ci") };
    let credential = folder.add(&limited);
    assert!(has_changed());
    found(&store, credential).await.unwrap();
    store.count(&limited, false, at(0)).await.unwrap();
    store.flush().await.unwrap();
    assert!(folder.clients().list().unwrap()[0].last_used.is_some());
    assert!(!has_changed(), "a call");
    for change in ["allow = 'read'", "admin = TRUE", "rate = NULL", "expires = 7"] {
        folder.tamper(&format!("UPDATE clients SET {change}"));
        assert!(has_changed(), "{change}");
    }
    folder.clients().revoke(&name("ci"), at(0)).unwrap();
    assert!(has_changed());
    folder.clients().remove(&name("ci")).unwrap();
    assert!(has_changed());
}

#[tokio::test]
async fn a_use_that_could_not_be_noted_is_noted_with_the_next_call() {
    let folder = Folder::new();
    let store = folder.open();
    let credential = folder.add(&client("ci"));
    found(&store, credential).await.unwrap();
    store.flush().await.unwrap();
    // On a busy machine it is forgotten before it is looked at.
    let client = loop {
        found(&store, credential).await.unwrap();
        if let Some(known) = store.0.known.client(&credential) {
            break known.value.unwrap();
        }
    };
    let soon = at(0) + SignedDuration::from_millis(999);
    assert!(!client.is_to_be_noted(soon));
    client.was_not_noted();
    assert!(client.is_to_be_noted(soon));
    assert!(!client.is_to_be_noted(soon), "one caller is enough");
}
