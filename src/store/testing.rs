//! Shared by the tests of the store.

use std::{fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{Attempt, Claim, Clients, Store, StoreError, db::Db};
use crate::{
    operation::Operation,
    policy::Client,
    types::{ClientName, ClientToken, Credential, RequestId, SealKey},
};

pub(super) const WALLET: &str = "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025";

/// A folder with a database in it.
pub(super) struct Folder(TempDir);

impl Folder {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub(super) fn path(&self) -> PathBuf {
        self.0.path().join("state/proxy.db")
    }

    /// The store, as one more process would open it.
    pub(super) fn open(&self) -> Store {
        Store::open(&self.path(), &[key(1)]).unwrap()
    }

    /// The clients, as a command would open them.
    pub(super) fn clients(&self) -> Clients {
        Clients::create(&self.path()).unwrap()
    }

    /// Adds a client that is known by a token, and returns what it is known by.
    pub(super) fn add(&self, client: &Client) -> Credential {
        let credential = Credential::Token(ClientToken::random().hash());
        self.clients().add(client, &credential, at(0)).unwrap();
        credential
    }

    /// The database, as another process would open it.
    pub(super) fn db(&self) -> Db {
        Db::make(&self.path())
    }

    /// The first column of the first row that a query finds, an integer.
    pub(super) fn number(&self, sql: &str) -> i64 {
        self.db().one(sql, &[], |row| row.int(0)).unwrap()
    }

    /// Changes the database behind the store's back.
    pub(super) fn tamper(&self, sql: &str) {
        self.db().run(sql).unwrap();
    }

    /// How many transactions stand in the write-ahead log: frames that end one carry the size of
    /// the database (SQLite, "WAL Frame Header Format").
    pub(super) fn commits(&self) -> usize {
        let log = fs::read(self.path().with_extension("db-wal")).unwrap();
        if log.is_empty() {
            return 0;
        }
        let number = |at: usize| u32::from_be_bytes(log[at..at + 4].try_into().unwrap());
        let frame = 24 + number(8) as usize;
        (32..log.len()).step_by(frame).filter(|at| number(at + 4) != 0).count()
    }

    /// Every byte of every file, also of those that SQLite puts beside the database.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let files = fs::read_dir(self.path().parent().unwrap()).unwrap();
        files.flat_map(|file| fs::read(file.unwrap().path()).unwrap()).collect()
    }
}

pub(super) fn key(byte: u8) -> SealKey {
    SealKey::new(Zeroizing::new([byte; 32]))
}

pub(super) fn name(text: &str) -> ClientName {
    text.parse().unwrap()
}

/// A client that may make every call and has no limits.
pub(super) fn client(text: &str) -> Client {
    Client { name: name(text), admin: false, ..Client::local() }
}

pub(super) fn id(number: u32) -> RequestId {
    format!("request-{number}").parse().unwrap()
}

/// A call of a client on `job1`.
pub(super) fn operation(client: &Client, action: &str, body: &str) -> Operation {
    Operation::of(client, action, "job1", body)
}

/// An attempt with this number, of a change that is recorded before it is signed, or of a read.
pub(super) async fn sign(
    store: &Store,
    operation: &Operation,
    number: u32,
) -> Result<(), StoreError> {
    let (call, request_id) = (&operation.call, &id(number));
    let attempt = Attempt { operation, call, request_id, payload_hash: None, payment: None };
    store.record_attempt(attempt, &Claim::default(), at(0)).await
}

/// A change on record.
pub(super) async fn record(store: &Store, number: u32) -> Result<(), StoreError> {
    sign(store, &operation(&agent(), "job_complete", ""), number).await
}

/// A read that is recorded in the background.
pub(super) async fn note(store: &Store, number: u32) {
    sign(store, &operation(&agent(), "job_status", ""), number).await.unwrap();
}

/// The client of the calls above, which may call as long as no client is there.
fn agent() -> Client {
    Client { name: name("agent"), ..Client::local() }
}

/// Lets the store grow the database by so many pages and no more, as a full disk would.
pub(super) async fn limit_growth(store: &Store, pages: u32) {
    let limit = move |db: &Db| {
        let now: u32 = db.one("PRAGMA page_count", &[], |row| row.int(0))?;
        db.run(&format!("PRAGMA max_page_count = {}", now + pages))
    };
    store.write(limit).await.unwrap();
}

/// Some moment, and so many seconds later.
pub(super) fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000).unwrap() + SignedDuration::from_secs(seconds)
}

pub(super) fn holds(bytes: &[u8], text: &str) -> bool {
    bytes.windows(text.len()).any(|window| window == text.as_bytes())
}
