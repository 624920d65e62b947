//! A client as it is stored.

use std::str::FromStr;

use jiff::Timestamp;
use rusqlite::{Row, types::Value};

use super::error::Fault;
use crate::{
    policy::Client,
    types::{CertificateHash, Credential, TokenHash},
};

/// Reads a client of a row with all columns.
pub(super) fn client(row: &Row<'_>) -> Result<Client, Fault> {
    Ok(Client {
        name: required(row, "name")?,
        allow: required(row, "allow")?,
        wallet: parsed(row, "wallet")?,
        rate: parsed(row, "rate")?,
        max_reservations: row.get("max_reservations")?,
        admin: row.get("admin")?,
        expires: time(row, "expires")?,
        added: Some(time(row, "created")?.ok_or(Fault::Malformed("created"))?),
    })
}

/// Reads what a client is known by; a revoked one by nothing.
pub(super) fn credential(row: &Row<'_>) -> Result<Option<Credential>, Fault> {
    if let Some(hash) = row.get("token_hash")? {
        return Ok(Some(Credential::Token(TokenHash::new(hash))));
    }
    if let Some(hash) = row.get("certificate")? {
        return Ok(Some(Credential::Certificate(CertificateHash::new(hash))));
    }
    Ok(row.get::<_, Option<u32>>("uid")?.map(Credential::Uid))
}

/// The column in which a credential stands, and how it stands there.
pub(super) fn stored(credential: &Credential) -> (&'static str, Value) {
    match credential {
        Credential::Token(hash) => ("token_hash", Value::Blob(hash.as_bytes().into())),
        Credential::Certificate(hash) => ("certificate", Value::Blob(hash.as_bytes().into())),
        Credential::Uid(uid) => ("uid", Value::Integer((*uid).into())),
    }
}

/// Reads a time of a column, which holds milliseconds.
pub(super) fn time(row: &Row<'_>, column: &'static str) -> Result<Option<Timestamp>, Fault> {
    let milliseconds: Option<i64> = row.get(column)?;
    let time = milliseconds.map(Timestamp::from_millisecond).transpose();
    time.map_err(|_| Fault::Malformed(column))
}

fn required<T: FromStr>(row: &Row<'_>, column: &'static str) -> Result<T, Fault> {
    parsed(row, column)?.ok_or(Fault::Malformed(column))
}

fn parsed<T: FromStr>(row: &Row<'_>, column: &'static str) -> Result<Option<T>, Fault> {
    let text: Option<String> = row.get(column)?;
    let value = text.map(|text| text.parse()).transpose();
    value.map_err(|_| Fault::Malformed(column))
}
