//! The tokens of reserved workflow jobs: kept here for as long as the reservation runs, withheld
//! from clients, and sent on that job's workflow calls only (protocol §7).

use std::{
    borrow::Cow,
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::body::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::types::Slug;

/// What a client sees in place of a secret that the proxy holds.
pub const HELD: &str = "held-by-proxy";

/// How long a reservation runs if the upstream does not say.
const RESERVATION: Duration = Duration::from_secs(30 * 60);

/// A token is never kept longer, whatever the upstream says.
const MAX_RESERVATION: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a token is kept past the stated end, since clocks differ: the upstream decides.
const GRACE: Duration = Duration::from_secs(60);

/// The tokens that are held.
#[derive(Debug, Default)]
pub struct WorkflowTokens(Mutex<HashMap<Slug, Token>>);

#[derive(Debug)]
struct Token {
    /// `Bearer …`, marked as sensitive, so that it does not print.
    header: HeaderValue,
    until: Instant,
}

impl WorkflowTokens {
    /// The header value for a job's workflow calls, if a token is held for it.
    pub fn header(&self, job: &Slug) -> Option<HeaderValue> {
        let now = Instant::now();
        self.lock().get(job).filter(|token| token.until > now).map(|token| token.header.clone())
    }

    /// Keeps the token of a reserve answer. If there is one, returns the body with the token replaced
    /// by [`HELD`] and every other byte as it was.
    pub fn keep(&self, job: &Slug, body: &Bytes) -> Option<Bytes> {
        let reserved = Reserved::parse(body)?;
        match reserved.header() {
            Some(header) => self.insert(job, header, reserved.time_left()),
            None => tracing::error!(%job, "the workflow token cannot be sent in a header"),
        }
        Some(reserved.without_token())
    }

    fn insert(&self, job: &Slug, header: HeaderValue, time_left: Duration) {
        let now = Instant::now();
        let mut tokens = self.lock();
        tokens.retain(|_, token| token.until > now);
        tokens.insert(job.clone(), Token { header, until: now + time_left + GRACE });
    }

    /// No code that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, HashMap<Slug, Token>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A reserve answer that brings a workflow token.
struct Reserved<'a> {
    text: &'a str,
    /// The token as it stands in the text, with its quotes.
    literal: &'a str,
    reserved_until: Option<Timestamp>,
}

impl<'a> Reserved<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let text = std::str::from_utf8(body).ok()?;
        let answer: &RawValue = serde_json::from_str(text).ok()?;
        let access = top_or_job(answer, "workflow_access")?;
        let literal = field(access, "access_token")?.get();
        let token: String = serde_json::from_str(literal).ok()?;
        let reserved_until = top_or_job(answer, "reserved_until");
        let reserved_until = reserved_until.and_then(|raw| serde_json::from_str(raw.get()).ok());
        let reserved_until = reserved_until.and_then(|end: String| end.parse().ok());
        (!token.is_empty()).then_some(Self { text, literal, reserved_until })
    }

    fn header(&self) -> Option<HeaderValue> {
        let token: String = serde_json::from_str(self.literal).ok()?;
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    fn without_token(&self) -> Bytes {
        self.text.replace(self.literal, &format!("\"{HELD}\"")).into()
    }

    /// An end that lies in the past shows that the clocks differ, so it says nothing.
    fn time_left(&self) -> Duration {
        let left = self.reserved_until.map(|end| end.duration_since(Timestamp::now()));
        let left = left.and_then(|left| Duration::try_from(left).ok());
        left.unwrap_or(RESERVATION).min(MAX_RESERVATION)
    }
}

/// The guide does not say at which depth the fields of a reservation stand (protocol §6).
fn top_or_job<'a>(answer: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    field(answer, name).or_else(|| field(field(answer, "job")?, name))
}

/// A field of an object, `null` being as good as absent.
fn field<'a>(object: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    let fields: HashMap<Cow<'_, str>, &RawValue> = serde_json::from_str(object.get()).ok()?;
    fields.get(name).copied().filter(|value| value.get() != "null")
}
