//! A client as it is stored.

use std::str::FromStr;

use super::{
    db::{Param, Row},
    error::Fault,
};
use crate::{
    policy::Client,
    types::{CertificateHash, ClientId, Credential, TokenHash},
};

/// The columns of a client, in the order in which they are read here.
pub(super) const COLUMNS: &str =
    "name, allow, wallet, rate, max_reservations, admin, expires, created,
    token_hash, certificate, uid, revoked, last_used, id, arrival";

/// The columns that follow those that are read here.
pub(super) const REVOKED: usize = 11;
pub(super) const LAST_USED: usize = 12;
pub(super) const ARRIVAL: usize = 14;
pub(super) const CREATED: usize = 7;

/// Reads a client.
pub(super) fn client(row: &Row<'_>) -> Result<Client, Fault> {
    Ok(Client {
        id: ClientId::new(row.int(13)?),
        name: parsed(row.text(0)?, "name")?,
        allow: parsed(row.text(1)?, "allow")?,
        wallet: row.opt_text(2)?.map(|text| parsed(text, "wallet")).transpose()?,
        rate: row.opt_text(3)?.map(|text| parsed(text, "rate")).transpose()?,
        max_reservations: row.opt_int(4)?,
        admin: row.flag(5)?,
        expires: row.opt_time(6)?,
    })
}

/// Reads what a client is known by; a revoked one by nothing.
pub(super) fn credential(row: &Row<'_>) -> Result<Option<Credential>, Fault> {
    if let Some(hash) = row.opt_hash(8)? {
        return Ok(Some(Credential::Token(TokenHash::new(hash))));
    }
    if let Some(hash) = row.opt_hash(9)? {
        return Ok(Some(Credential::Certificate(CertificateHash::new(hash))));
    }
    Ok(row.opt_int(10)?.map(Credential::Uid))
}

/// The column in which a credential stands, and how it stands there.
pub(super) fn stored(credential: &Credential) -> (&'static str, Param<'_>) {
    match credential {
        Credential::Token(hash) => ("token_hash", hash.as_bytes().into()),
        Credential::Certificate(hash) => ("certificate", hash.as_bytes().into()),
        Credential::Uid(uid) => ("uid", (*uid).into()),
    }
}

fn parsed<T: FromStr>(text: &str, column: &'static str) -> Result<T, Fault> {
    text.parse().map_err(|_| Fault::Malformed(column))
}
