//! The records of the journal, and the chain that they form.

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    db::{Db, Statement},
    deed::Deed,
    denial::{Caller, Denial},
    end::End,
    error::Fault,
    event::Event,
};
use crate::{
    call::Call,
    json::{JsonError, Object, ObjectWriter, PayloadHash},
    operation::Operation,
    payment::{AuthorizationNonce, Payment},
    types::RequestId,
};

/// An attempt of an operation that is about to be signed. Its record holds neither signature, nonce nor
/// body.
#[derive(Debug, Clone, Copy)]
pub struct Attempt<'a> {
    /// The operation.
    pub operation: &'a Operation,
    /// The call that is made for it: its own, or one that shows what became of it.
    pub call: &'a Call,
    /// The id under which the call goes upstream.
    pub request_id: &'a RequestId,
    /// The hash of the canonical payload, if the call has one.
    pub payload_hash: Option<PayloadHash>,
    /// The payment of the proxy that it sends.
    pub payment: Option<AuthorizationNonce>,
}

/// The recorded outcome of an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecordedOutcome {
    /// The upstream answered.
    Answered {
        /// The status of its answer.
        status: u16,
        /// How long it took.
        milliseconds: u64,
    },
    /// There was no signature, so nothing was sent.
    NotSigned,
    /// Nothing was sent.
    NotSent,
    /// It was sent, and there was no answer: it may or may not have taken effect.
    Unknown,
}

/// A record without its place in the chain.
pub(super) struct Draft {
    /// The canonical text, without its number.
    text: String,
    /// Where the number belongs.
    seq_at: usize,
}

impl Draft {
    pub(super) fn signed(attempt: &Attempt<'_>, at: Timestamp) -> Self {
        let Attempt { operation, call, request_id, payload_hash, .. } = attempt;
        let mut object = ObjectWriter::new();
        object.string("action", call.action().name);
        object.string("call_id", operation.trace.call_id.as_str());
        object.string("client", operation.client.name.as_str());
        object.string("kind", "signed");
        if let Some(hash) = payload_hash {
            object.plain("payload_hash", hash);
        }
        if let Some(payment) = call.payment() {
            object.string("payment_hash", &hex::encode(payment.hash()));
        }
        if let Some(product) = call.product() {
            object.string("product", product.as_str());
        }
        object.string("request_id", request_id.as_str());
        let seq_at = object.gap(SEQ);
        object.integer("time", milliseconds(at));
        object.plain("wallet", operation.wallet);
        Self { text: object.finish(), seq_at }
    }

    pub(super) fn outcome(request_id: &RequestId, outcome: RecordedOutcome, at: Timestamp) -> Self {
        let (word, answered) = match outcome {
            RecordedOutcome::Answered { status, milliseconds } => {
                ("answered", Some((status, milliseconds)))
            }
            RecordedOutcome::NotSigned => ("not_signed", None),
            RecordedOutcome::NotSent => ("not_sent", None),
            RecordedOutcome::Unknown => ("unknown", None),
        };
        let mut object = ObjectWriter::new();
        object.string("kind", "outcome");
        if let Some((_, milliseconds)) = answered {
            object.integer("milliseconds", milliseconds);
        }
        object.string("outcome", word);
        object.string("request_id", request_id.as_str());
        let seq_at = object.gap(SEQ);
        if let Some((status, _)) = answered {
            object.integer("status", status.into());
        }
        object.integer("time", milliseconds(at));
        Self { text: object.finish(), seq_at }
    }

    /// A call that was denied; if the record stands for several, the last of them.
    pub(super) fn denied(denial: &Denial, times: u64, at: Timestamp) -> Self {
        let mut object = ObjectWriter::new();
        object.string("action", denial.action);
        object.string("call_id", denial.call_id.as_str());
        match &denial.caller {
            Caller::Client(name) => object.string("client", name.as_str()),
            Caller::Unknown(from) => object.string("from", from),
        }
        object.string("kind", "denied");
        if let Some(product) = &denial.product {
            object.string("product", product.as_str());
        }
        object.string("reason", denial.reason);
        let seq_at = object.gap(SEQ);
        object.integer("time", milliseconds(at));
        if times > 1 {
            object.integer("times", times);
        }
        if let Some(wallet) = denial.wallet {
            object.plain("wallet", wallet);
        }
        Self { text: object.finish(), seq_at }
    }

    /// A payment that is about to be signed. It holds no signature.
    pub(super) fn payment(operation: &Operation, payment: &Payment, at: Timestamp) -> Self {
        let (domain, authorization) = (payment.domain(), payment.authorization());
        let mut object = ObjectWriter::new();
        object.string("action", operation.action().name);
        object.string("amount", &authorization.value.to_string());
        object.string("asset", &domain.contract.to_string());
        object.string("call_id", operation.trace.call_id.as_str());
        object.string("client", operation.client.name.as_str());
        object.string("kind", "payment");
        object.string("network", &domain.network.to_string());
        object.string("nonce", &authorization.nonce.to_string());
        object.string("payee", &authorization.to.to_string());
        let seq_at = object.gap(SEQ);
        object.integer("time", milliseconds(at));
        object.integer("valid_before", authorization.valid_before);
        object.string("wallet", &authorization.from.to_string());
        Self { text: object.finish(), seq_at }
    }

    /// An event that clients are told.
    pub(super) fn event(event: &Event, at: Timestamp) -> Self {
        let mut object = ObjectWriter::new();
        if let Some((id, name)) = &event.client {
            object.string("client", name.as_str());
            object.integer("client_id", id.number().unsigned_abs());
        }
        object.string("event", event.kind.as_str());
        object.string("kind", "event");
        if let Some(job) = &event.job {
            object.string("product", job.as_str());
        }
        if let Some(ends) = event.reserved_until {
            object.integer("reserved_until", milliseconds(ends));
        }
        if let Some(credits) = event.reward_credits {
            object.integer("reward_credits", credits);
        }
        let seq_at = object.gap(SEQ);
        object.integer("time", milliseconds(at));
        if let Some(wallet) = event.wallet {
            object.plain("wallet", wallet);
        }
        Self { text: object.finish(), seq_at }
    }

    /// The record of an administrative act, and of its user.
    pub(super) fn admin(deed: Deed<'_>, by: &str, at: Timestamp) -> Self {
        let mut object = ObjectWriter::new();
        object.string("action", deed.name());
        if let Some(approval) = deed.approval() {
            object.string("approval", &approval.to_string());
        }
        if let Some(last) = deed.archived() {
            object.integer("archived", last);
        }
        object.string("by", by);
        if let Some(client) = deed.client() {
            object.string("client", client.as_str());
        }
        object.string("kind", "admin");
        if let Some(job) = deed.job() {
            object.string("product", job.as_str());
        }
        if let Some(nonce) = deed.payment() {
            object.string("nonce", &nonce.to_string());
        }
        let seq_at = object.gap(SEQ);
        object.integer("time", milliseconds(at));
        if let Some(wallet) = deed.wallet() {
            object.plain("wallet", wallet);
        }
        Self { text: object.finish(), seq_at }
    }

    /// The whole text of the record that has this number.
    fn numbered(self, seq: u64) -> String {
        let Self { mut text, seq_at } = self;
        text.insert_str(seq_at, &seq.to_string());
        text
    }
}

/// The name of the field with the number of a record.
const SEQ: &str = "seq";

/// The clock of a machine that thinks it is before 1970 tells nothing.
fn milliseconds(at: Timestamp) -> u64 {
    u64::try_from(at.as_millisecond()).unwrap_or(0)
}

/// The end of the chain, to which records are added.
pub(super) struct Chain<'c> {
    insert: Statement<'c>,
    end: End,
}

impl<'c> Chain<'c> {
    /// Reads where the chain ends. That holds within one transaction, and as long as no other code
    /// adds records in it: another process may have moved the end before.
    pub(super) fn read(db: &'c Db) -> Result<Self, Fault> {
        let sql = "INSERT INTO journal (seq, record, hash) VALUES (?1, ?2, ?3)";
        Ok(Self { insert: db.prepare(sql)?, end: End::read(db)? })
    }

    /// Where it ends by now.
    pub(super) fn end(&self) -> End {
        self.end
    }

    /// Writes a record at the end of the chain.
    pub(super) fn append(&mut self, draft: Draft) -> Result<(), Fault> {
        let seq = self.end.seq + 1;
        let record = draft.numbered(seq);
        let hash = chained(&self.end.hash, &record);
        self.insert.execute(&[seq.into(), record.as_str().into(), (&hash).into()])?;
        self.end = End { seq, hash };
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

    /// When it was written, as far as it tells.
    pub fn time(&self) -> Option<Timestamp> {
        let milliseconds = self.fields().ok()?.field("time")?.as_str().parse().ok()?;
        Timestamp::from_millisecond(milliseconds).ok()
    }

    /// One line of JSON, without the line feed: the record's canonical text and its hash, which is
    /// SHA-256 of the 32 bytes of the hash before it (zeros for the first) followed by that text.
    pub fn to_json_line(&self) -> String {
        format!("{{\"hash\":\"{}\",\"record\":{}}}", hex::encode(self.hash), self.text)
    }

    /// The same for a record of a journal that begins there. Its first record also tells the hash before
    /// it, if that is of another file.
    pub(super) fn to_json_line_after(&self, begin: &End) -> String {
        if begin.seq == 0 || self.seq != begin.seq + 1 {
            return self.to_json_line();
        }
        let (hash, previous) = (hex::encode(self.hash), hex::encode(begin.hash));
        format!("{{\"hash\":\"{hash}\",\"previous\":\"{previous}\",\"record\":{}}}", self.text)
    }

    /// Reads such a line: the record, and the hash before it if it is told.
    pub(super) fn from_json_line(line: &str) -> Option<(Self, Option<[u8; 32]>)> {
        let bytes = |text: &str| <[u8; 32]>::try_from(hex::decode(text).ok()?).ok();
        let (hash, rest) = line.strip_prefix("{\"hash\":\"")?.split_once("\",\"")?;
        let (previous, rest) = match rest.strip_prefix("previous\":\"") {
            Some(rest) => {
                let (previous, rest) = rest.split_once("\",\"")?;
                (Some(bytes(previous)?), rest)
            }
            None => (None, rest),
        };
        let text = rest.strip_prefix("record\":")?.strip_suffix('}')?.to_owned();
        let seq = Object::parse(text.as_bytes()).ok()?.field("seq")?.as_str().parse().ok()?;
        Some((Self { seq, text, hash: bytes(hash)? }, previous))
    }
}

/// Records a change of the state together with it.
pub(super) fn append_deed(db: &Db, deed: Deed<'_>, by: &str) -> Result<(), Fault> {
    Chain::read(db)?.append(Draft::admin(deed, by, Timestamp::now()))
}

#[cfg(test)]
mod tests;
