use super::*;
use crate::{
    store::testing::{Folder, WALLET, at, client, holds, name},
    types::{CertificateHash, ClientId, ClientToken},
};

fn token() -> Credential {
    Credential::Token(ClientToken::random().hash())
}

fn numbered(client: Client, number: i64) -> Client {
    Client { id: ClientId::new(number), ..client }
}

/// Each client's name, and whether it is revoked.
fn names(clients: &Clients) -> Vec<(String, bool)> {
    let records = clients.list().unwrap().into_iter();
    records.map(|record| (record.client.name.to_string(), record.revoked.is_some())).collect()
}

#[test]
fn a_client_is_listed_as_it_was_added() {
    let folder = Folder::new();
    let full = Client {
        allow: "read,job_reserve".parse().unwrap(),
        wallet: Some(WALLET.parse().unwrap()),
        rate: Some("10/s".parse().unwrap()),
        max_reservations: Some(3),
        admin: true,
        expires: Some(at(1000)),
        ..client("full")
    };
    let certificate = Credential::Certificate(CertificateHash::of(b"certificate"));
    let clients = folder.clients();
    assert!(clients.add(&full, &token(), at(1)).unwrap());
    assert!(!clients.add(&client("bare"), &Credential::Uid(u32::MAX), at(2)).unwrap());
    assert!(!clients.add(&client("cert"), &certificate, at(3)).unwrap());
    let [bare, cert, listed] = &folder.clients().list().unwrap()[..] else { panic!("three") };
    assert_eq!((&bare.client, bare.created), (&numbered(client("bare"), 2), at(2)));
    assert_eq!(bare.credential, Some(Credential::Uid(u32::MAX)));
    assert_eq!((&cert.client, cert.created), (&numbered(client("cert"), 3), at(3)));
    assert_eq!(cert.credential, Some(certificate));
    assert_eq!((&listed.client, listed.created), (&numbered(full, 1), at(1)));
    assert!(matches!(listed.credential, Some(Credential::Token(_))));
    assert_eq!((listed.revoked, listed.last_used), (None, None));
}

#[test]
fn only_the_hash_of_a_token_is_kept() {
    let folder = Folder::new();
    let token = ClientToken::random();
    let credential = Credential::Token(token.hash());
    folder.clients().add(&client("ci"), &credential, at(0)).unwrap();
    assert!(holds(&folder.bytes(), "ci"));
    assert!(!holds(&folder.bytes(), &token.expose()["apmt_".len()..][..16]));
}

#[test]
fn a_name_and_a_credential_are_of_one_client() {
    let folder = Folder::new();
    let clients = folder.clients();
    clients.add(&client("ci"), &Credential::Uid(7), at(0)).unwrap();
    let again = clients.add(&client("ci"), &token(), at(0)).unwrap_err();
    assert!(matches!(&again, ClientsError::Exists(ci) if *ci == name("ci")), "{again}");
    let taken = clients.add(&client("other"), &Credential::Uid(7), at(0)).unwrap_err();
    assert!(matches!(&taken, ClientsError::Taken(ci) if *ci == name("ci")), "{taken}");
    let local = clients.add(&Client::local(), &token(), at(0)).unwrap_err();
    assert!(matches!(local, ClientsError::Reserved(_)), "{local}");
    assert_eq!(names(&clients), [("ci".to_owned(), false)]);
}

#[test]
fn a_revoked_client_stays_on_the_list_and_makes_room_for_another() {
    let folder = Folder::new();
    let clients = folder.clients();
    clients.add(&client("ci"), &Credential::Uid(7), at(0)).unwrap();
    clients.revoke(&name("ci"), at(5)).unwrap();
    clients.revoke(&name("ci"), at(9)).unwrap();
    let [record] = &clients.list().unwrap()[..] else { panic!("one") };
    assert_eq!((record.revoked, record.credential), (Some(at(5)), None));
    assert!(!clients.add(&client("other"), &Credential::Uid(7), at(9)).unwrap());
    let limited = Client { max_reservations: Some(1), ..client("ci") };
    assert!(!clients.add(&limited, &token(), at(9)).unwrap());
    let [ci, _] = &clients.list().unwrap()[..] else { panic!("two") };
    assert_eq!((&ci.client, ci.revoked), (&numbered(limited, 3), None));
}

#[test]
fn only_a_revoked_client_is_removed_and_the_last_is_told() {
    let folder = Folder::new();
    let clients = folder.clients();
    for name in ["a", "b"] {
        clients.add(&client(name), &token(), at(0)).unwrap();
    }
    assert!(matches!(clients.remove(&name("a")), Err(ClientsError::Active(_))));
    clients.revoke(&name("a"), at(0)).unwrap();
    assert!(!clients.remove(&name("a")).unwrap());
    assert!(matches!(clients.remove(&name("a")), Err(ClientsError::Unknown(_))));
    assert!(matches!(clients.revoke(&name("a"), at(0)), Err(ClientsError::Unknown(_))));
    clients.revoke(&name("b"), at(0)).unwrap();
    assert!(clients.remove(&name("b")).unwrap());
    assert!(clients.add(&client("a"), &token(), at(0)).unwrap());
}

#[test]
fn a_database_that_is_not_there_is_made_for_the_first_client_only() {
    let folder = Folder::new();
    assert!(Clients::open(&folder.path()).unwrap_err().is_missing());
    assert!(!folder.path().exists());
    folder.add(&client("ci"));
    assert_eq!(names(&Clients::open(&folder.path()).unwrap()), [("ci".to_owned(), false)]);
}

#[test]
fn a_row_that_was_altered_is_named() {
    let folder = Folder::new();
    folder.add(&client("ci"));
    folder.tamper("UPDATE clients SET rate = 'often'");
    let refused = folder.clients().list().unwrap_err();
    assert_eq!(refused.fault(), &Fault::Malformed("rate"));
}
