//! The records of the journal, and the chain that they form.

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension, params};
use sha2::{Digest, Sha256};

use super::{denial::Denial, error::Fault};
use crate::{
    canonical::{CanonicalJson, JsonError, Object, PayloadHash},
    types::{Address, RequestId, Slug},
};

/// The hash before the first record.
pub(super) const START: [u8; 32] = [0; 32];

/// A call that is about to be signed. It holds neither signature, nonce nor body.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The id under which the call goes upstream.
    pub request_id: RequestId,
    /// The id of the local request, its `x-request-id`.
    pub call_id: RequestId,
    /// Who called.
    pub client: String,
    /// Whose key signs.
    pub wallet: Address,
    /// The name of the action.
    pub action: &'static str,
    /// What it is done to, if the call names it.
    pub product: Option<Slug>,
    /// The hash of the canonical payload, if the call has one.
    pub payload_hash: Option<PayloadHash>,
}

impl Entry {
    fn fields(&self) -> Object {
        let mut fields = Object::default();
        let mut text = |name: &str, text: &str| fields.insert(name, CanonicalJson::string(text));
        text("kind", "signed");
        text("request_id", self.request_id.as_str());
        text("call_id", self.call_id.as_str());
        text("client", &self.client);
        text("wallet", &self.wallet.to_string());
        text("action", self.action);
        if let Some(product) = &self.product {
            text("product", product.as_str());
        }
        if let Some(hash) = &self.payload_hash {
            text("payload_hash", &hash.to_string());
        }
        fields
    }
}

/// What came of a call that was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The upstream answered.
    Answered {
        /// The status of its answer.
        status: u16,
        /// How long it took.
        milliseconds: u64,
    },
    /// Nothing was sent.
    NotSent,
    /// It was sent, and there was no answer: it may or may not have taken effect.
    Unknown,
}

impl Outcome {
    fn fields(self, request_id: &RequestId) -> Object {
        let mut fields = Object::default();
        let word = match self {
            Self::Answered { status, milliseconds } => {
                fields.insert("status", CanonicalJson::integer(status.into()));
                fields.insert("milliseconds", CanonicalJson::integer(milliseconds));
                "answered"
            }
            Self::NotSent => "not_sent",
            Self::Unknown => "unknown",
        };
        fields.insert("kind", CanonicalJson::string("outcome"));
        fields.insert("request_id", CanonicalJson::string(request_id.as_str()));
        fields.insert("outcome", CanonicalJson::string(word));
        fields
    }
}

/// What is to be recorded, with everything but its place in the chain.
pub(super) struct Draft(Object);

impl Draft {
    pub(super) fn signed(entry: &Entry, at: Timestamp) -> Self {
        Self::new(entry.fields(), at)
    }

    pub(super) fn outcome(request_id: &RequestId, outcome: Outcome, at: Timestamp) -> Self {
        Self::new(outcome.fields(request_id), at)
    }

    pub(super) fn denied(denial: &Denial, at: Timestamp) -> Self {
        Self::new(denial.fields(), at)
    }

    fn new(mut fields: Object, at: Timestamp) -> Self {
        // The clock of a machine that thinks it is before 1970 tells nothing.
        let milliseconds = u64::try_from(at.as_millisecond()).unwrap_or(0);
        fields.insert("time", CanonicalJson::integer(milliseconds));
        Self(fields)
    }

    /// Writes the record at the end of the chain, which is read in the same transaction, since
    /// another process may have moved it.
    pub(super) fn append(mut self, transaction: &Connection) -> Result<(), Fault> {
        let last = transaction
            .prepare_cached("SELECT seq, hash FROM journal ORDER BY seq DESC LIMIT 1")?
            .query_row([], |row| Ok((row.get::<_, u64>(0)?, row.get::<_, [u8; 32]>(1)?)))
            .optional()?;
        let (seq, previous) = last.map_or((1, START), |(seq, hash)| (seq + 1, hash));
        self.0.insert("seq", CanonicalJson::integer(seq));
        let record = self.0.to_canonical();
        let hash = chained(&previous, record.as_str());
        transaction
            .prepare_cached("INSERT INTO journal (seq, record, hash) VALUES (?1, ?2, ?3)")?
            .execute(params![seq, record.as_str(), hash])?;
        Ok(())
    }
}

/// SHA-256 of the hash before a record followed by the record.
pub(super) fn chained(previous: &[u8; 32], record: &str) -> [u8; 32] {
    Sha256::new_with_prefix(previous).chain_update(record).finalize().into()
}

/// A record as it stands in the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Its number, counted from 1.
    pub seq: u64,
    pub(super) text: String,
    pub(super) hash: [u8; 32],
}

impl Record {
    /// The fields.
    ///
    /// # Errors
    /// The record was altered, so that it is no JSON object.
    pub fn fields(&self) -> Result<Object, JsonError> {
        Object::parse(self.text.as_bytes())
    }

    /// One line of JSON, without the line feed: the record's canonical text and its hash, which is
    /// SHA-256 of the 32 bytes of the hash before it (zeros for the first) followed by that text.
    pub fn to_json_line(&self) -> String {
        format!("{{\"hash\":\"{}\",\"record\":{}}}", hex::encode(self.hash), self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_its_canonical_text() {
        let id = |text: &str| text.parse::<RequestId>().unwrap();
        let entry = Entry {
            request_id: id("r-1"),
            call_id: id("c-1"),
            client: "Jürgen".into(),
            wallet: "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025".parse().unwrap(),
            action: "job_complete",
            product: Some("job1".parse().unwrap()),
            payload_hash: Some(CanonicalJson::string("x").hash()),
        };
        let at = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
        let text = |draft: Draft| draft.0.to_canonical().as_str().to_owned();
        let expected = [
            r#"{"action":"job_complete","call_id":"c-1","client":"J\u00fcrgen","kind":"signed","#,
            r#""payload_hash":"ba2df4903a2c14e86dc3bcca58911b44ac1d2514b7227bf6eb08cfb978f55a1b","#,
            r#""product":"job1","request_id":"r-1","time":1700000000123,"#,
            r#""wallet":"0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"}"#,
        ];
        assert_eq!(text(Draft::signed(&entry, at)), expected.concat());
        let outcome = Outcome::Answered { status: 200, milliseconds: 12 };
        let expected = [
            r#"{"kind":"outcome","milliseconds":12,"outcome":"answered","request_id":"r-1","#,
            r#""status":200,"time":1700000000123}"#,
        ];
        assert_eq!(text(Draft::outcome(&id("r-1"), outcome, at)), expected.concat());
    }

    #[test]
    fn the_chain_is_sha_256_of_the_hash_before_and_the_text() {
        // Of Python: hashlib.sha256(bytes(32) + b'{"seq":1}').hexdigest()
        let expected = "ff44e121014845ba9f060b9dd529b57e3706d9dcbf47ce18d6a7e50bea6c7e46";
        assert_eq!(hex::encode(chained(&START, r#"{"seq":1}"#)), expected);
    }
}
