//! What the tests of the store share.

use std::{fs, path::PathBuf};

use jiff::{SignedDuration, Timestamp};
use tempfile::TempDir;
use zeroize::Zeroizing;

use super::{Clients, Entry, Store, db::Db};
use crate::{
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

    /// The database, as somebody else would open it.
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

/// The same, as it was added at some time.
pub(super) fn added(client: Client, seconds: i64) -> Client {
    Client { added: Some(at(seconds)), ..client }
}

pub(super) fn id(number: u32) -> RequestId {
    format!("request-{number}").parse().unwrap()
}

pub(super) fn entry(number: u32) -> Entry {
    Entry {
        request_id: id(number),
        call_id: format!("call-{number}").parse().unwrap(),
        client: "agent".into(),
        client_added: None,
        wallet: WALLET.parse().unwrap(),
        action: "job_complete",
        product: Some("job1".parse().unwrap()),
        payload_hash: None,
    }
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
