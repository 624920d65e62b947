//! The clients as they are stored: all SQL about them.

use jiff::Timestamp;

use super::{
    db::{Db, Param, Row},
    error::Fault,
};
use crate::{
    policy::Client,
    types::{CertificateHash, ClientId, ClientName, Credential, CreditAmount, TokenHash},
};

/// A client as it was added.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientRecord {
    /// The client and what it may do.
    pub client: Client,
    /// Its credential; a revoked client has none.
    pub credential: Option<Credential>,
    /// When it was added.
    pub created: Timestamp,
    /// When it was revoked.
    pub revoked: Option<Timestamp>,
    /// When it called the last time, to about a second.
    pub last_used: Option<Timestamp>,
    /// How many credits it has left, if they are limited and that was asked for.
    pub credits_left: Option<CreditAmount>,
    /// The theoretical arrival time of its last call, in nanoseconds.
    pub(super) arrival: Option<i64>,
}

/// The columns of a client, in the order in which they are read here.
const COLUMNS: &str = "id, name, allow, wallet, rate, max_reservations, admin, expires, token_hash, \
                       certificate, uid, created, revoked, last_used, arrival, max_credits, spend";

impl ClientRecord {
    fn stored(row: &Row<'_>) -> Result<Self, Fault> {
        let client = Client {
            id: ClientId::new(row.int(0)?),
            name: row.parsed(1, "name")?,
            allow: row.parsed(2, "allow")?,
            wallet: row.opt_parsed(3, "wallet")?,
            rate: row.opt_parsed(4, "rate")?,
            max_reservations: row.opt_int(5)?,
            max_credits: row.opt_parsed(15, "limit")?,
            spend: row.opt_parsed(16, "limit")?,
            admin: row.flag(6)?,
            expires: row.opt_time(7)?,
        };
        let token = row.opt_hash(8)?.map(|hash| Credential::Token(TokenHash::new(hash)));
        let hash = row.opt_hash(9)?;
        let certificate = hash.map(|hash| Credential::Certificate(CertificateHash::new(hash)));
        let uid = row.opt_int(10)?.map(Credential::Uid);
        Ok(Self {
            client,
            credential: token.or(certificate).or(uid),
            created: row.time(11)?,
            revoked: row.opt_time(12)?,
            last_used: row.opt_time(13)?,
            credits_left: None,
            arrival: row.opt_int(14)?,
        })
    }
}

/// The column in which a credential stands, and how it stands there.
fn stored(credential: &Credential) -> (&'static str, Param<'_>) {
    match credential {
        Credential::Token(hash) => ("token_hash", hash.as_bytes().into()),
        Credential::Certificate(hash) => ("certificate", hash.as_bytes().into()),
        Credential::Uid(uid) => ("uid", (*uid).into()),
    }
}

/// All clients, also those that are revoked, by name.
pub(super) fn all(db: &Db) -> Result<Vec<ClientRecord>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM clients ORDER BY name");
    db.rows(&sql, &[], ClientRecord::stored)
}

/// Whether there is any client, also a revoked one.
pub(super) fn exist(db: &Db) -> Result<bool, Fault> {
    db.one("SELECT EXISTS (SELECT 1 FROM clients)", &[], |row| row.flag(0))
}

/// Another number after every change of who may call or what a client may do, and after every freeze or
/// thaw. It stands alone in its table, as it is asked for again and again.
pub(super) fn version(db: &Db) -> Result<i64, Fault> {
    db.one("SELECT version FROM clients_version", &[], |row| row.int(0))
}

/// The client that has a credential.
///
/// The index compares byte by byte, so timing may reveal a stored hash. It does not reveal the token, which
/// cannot be derived from the hash.
pub(super) fn known_by(db: &Db, credential: &Credential) -> Result<Option<ClientRecord>, Fault> {
    let (column, value) = stored(credential);
    let sql = format!("SELECT {COLUMNS} FROM clients WHERE {column} = ?1");
    db.row(&sql, &[value], ClientRecord::stored)
}

/// The number of a client, and whether it is not revoked.
pub(super) fn named(db: &Db, name: &ClientName) -> Result<Option<(ClientId, bool)>, Fault> {
    let sql = "SELECT id, revoked IS NULL FROM clients WHERE name = ?1";
    db.row(sql, &[name.as_str().into()], |row| Ok((ClientId::new(row.int(0)?), row.flag(1)?)))
}

/// When a client was revoked and when it expires, as far as it was or does.
pub(super) fn ends(db: &Db, client: ClientId) -> Result<Option<[Option<Timestamp>; 2]>, Fault> {
    let sql = "SELECT revoked, expires FROM clients WHERE id = ?1";
    db.row(sql, &[client.number().into()], |row| Ok([row.opt_time(0)?, row.opt_time(1)?]))
}

/// Adds a client, and returns its number.
pub(super) fn insert(
    db: &Db,
    client: &Client,
    credential: &Credential,
    now: Timestamp,
) -> Result<ClientId, Fault> {
    let (column, value) = stored(credential);
    let sql = format!(
        "INSERT INTO clients
         (name, allow, wallet, rate, max_reservations, admin, expires, created, {column}, max_credits,
          spend)
         VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11) RETURNING id"
    );
    let allow = client.allow.to_string();
    let wallet = client.wallet.map(|wallet| wallet.to_string());
    let rate = client.rate.map(|rate| rate.to_string());
    let max_credits = client.max_credits.map(|limit| limit.to_string());
    let spend = client.spend.map(|limit| limit.to_string());
    let row = [
        client.name.as_str().into(),
        allow.as_str().into(),
        wallet.as_deref().into(),
        rate.as_deref().into(),
        client.max_reservations.into(),
        client.admin.into(),
        client.expires.into(),
        now.into(),
        value,
        max_credits.as_deref().into(),
        spend.as_deref().into(),
    ];
    db.one(&sql, &row, |row| row.int(0)).map(ClientId::new)
}

/// Gives a client what another held.
pub(super) fn inherit(db: &Db, from: ClientId, to: ClientId) -> Result<(), Fault> {
    let (from, to) = (from.number(), to.number());
    let sql = "UPDATE reservations SET client = ?1 WHERE client = ?2";
    db.execute(sql, &[to.into(), from.into()])?;
    let sql = "UPDATE payments SET client = ?1 WHERE client = ?2";
    db.execute(sql, &[to.into(), from.into()])?;
    let sql = "UPDATE answers SET owner = ?1, sealed_for = coalesce(sealed_for, owner)
               WHERE owner = ?2";
    let (from, to) = (from.to_string(), to.to_string());
    db.execute(sql, &[to.as_str().into(), from.as_str().into()]).map(drop)
}

/// Revokes a client. Its credential is forgotten, so that another client may have it.
pub(super) fn revoke(db: &Db, client: ClientId, now: Timestamp) -> Result<(), Fault> {
    let sql = "UPDATE clients
               SET revoked = ?2, token_hash = NULL, certificate = NULL, uid = NULL
               WHERE id = ?1";
    db.execute(sql, &[client.number().into(), now.into()]).map(drop)
}

pub(super) fn delete(db: &Db, client: ClientId) -> Result<(), Fault> {
    db.execute("DELETE FROM clients WHERE id = ?1", &[client.number().into()]).map(drop)
}

/// Notes that a client is here.
pub(super) fn set_last_used(db: &Db, client: ClientId, now: Timestamp) -> Result<(), Fault> {
    let sql = "UPDATE clients SET last_used = ?2 WHERE id = ?1";
    db.execute(sql, &[client.number().into(), now.into()]).map(drop)
}

/// The theoretical arrival time of a client's last call, in nanoseconds.
pub(super) fn arrival(db: &Db, client: ClientId) -> Result<Option<i64>, Fault> {
    let sql = "SELECT arrival FROM clients WHERE id = ?1";
    Ok(db.row(sql, &[client.number().into()], |row| row.opt_int(0))?.flatten())
}

/// A client that was removed meanwhile has no row, and its call was allowed before.
pub(super) fn set_arrival(db: &Db, client: ClientId, arrival: i64) -> Result<(), Fault> {
    let sql = "UPDATE clients SET arrival = ?2 WHERE id = ?1";
    db.execute(sql, &[client.number().into(), arrival.into()]).map(drop)
}
