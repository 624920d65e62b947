//! The tokens of reserved workflow jobs: kept here for as long as the reservation runs, withheld
//! from clients, and sent on that job's workflow calls only (protocol §7).

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;
use jiff::Timestamp;
use serde_json::value::RawValue;

use crate::{loose, types::Slug};

/// What a client sees in place of a secret that the proxy holds.
pub const HELD_BY_PROXY: &str = "held-by-proxy";

/// How long a reservation runs if the upstream does not say.
const RESERVATION: Duration = Duration::from_secs(30 * 60);

/// A token is never kept longer, whatever the upstream says.
const MAX_RESERVATION: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a token is kept past the stated end, since clocks differ: the upstream decides.
const GRACE: Duration = Duration::from_secs(60);

/// A text of this length, in bytes, is no word of an answer by chance.
const UNMISTAKABLE: usize = 16;

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
    /// by [`HELD_BY_PROXY`] and everything else as it was.
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
    /// The token as it stands in the text, between its quotes.
    literal: &'a str,
    token: String,
    reserved_until: Option<Timestamp>,
}

impl<'a> Reserved<'a> {
    fn parse(body: &'a [u8]) -> Option<Self> {
        let answer = loose::parse(body)?;
        let value = top_or_job(answer, &["workflow_access", "access_token"])?;
        let token = loose::text(value).filter(|token| !token.is_empty())?;
        let end = top_or_job(answer, &["reserved_until"]).and_then(loose::text);
        Some(Self {
            text: answer.get(),
            literal: value.get().trim_matches('"'),
            token,
            reserved_until: end.and_then(|end| end.parse().ok()),
        })
    }

    fn header(&self) -> Option<HeaderValue> {
        let token = self.token.strip_prefix("Bearer ").unwrap_or(&self.token);
        let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
        header.set_sensitive(true);
        Some(header)
    }

    /// A token of some length is replaced wherever it stands, also within a hint on how to use it. A
    /// short one could be a word of the answer, so only the token itself is.
    fn without_token(&self) -> Bytes {
        if self.literal.len() >= UNMISTAKABLE {
            return self.text.replace(self.literal, HELD_BY_PROXY).into();
        }
        let start = self.literal.as_ptr() as usize - self.text.as_ptr() as usize;
        let (before, rest) = self.text.split_at(start);
        format!("{before}{HELD_BY_PROXY}{}", &rest[self.literal.len()..]).into()
    }

    /// An end that lies in the past shows that the clocks differ, so it says nothing.
    fn time_left(&self) -> Duration {
        let left = self.reserved_until.map(|end| end.duration_since(Timestamp::now()));
        let left = left.and_then(|left| Duration::try_from(left).ok());
        left.unwrap_or(RESERVATION).min(MAX_RESERVATION)
    }
}

/// The guide does not say at which depth the fields of a reservation stand (protocol §6).
fn top_or_job<'a>(answer: &'a RawValue, path: &[&str]) -> Option<&'a RawValue> {
    loose::at(answer, path).or_else(|| loose::at(loose::field(answer, "job")?, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds_left(reserved_until: &str) -> u64 {
        let access = r#""workflow_access":{"access_token":"t"}"#;
        let body = format!(r#"{{{access},"job":{{"reserved_until":{reserved_until}}}}}"#);
        Reserved::parse(body.as_bytes()).unwrap().time_left().as_secs()
    }

    #[test]
    fn a_token_is_held_until_the_stated_end() {
        let end = Timestamp::now() + jiff::SignedDuration::from_secs(600);
        assert!((590..=600).contains(&seconds_left(&format!("\"{end}\""))));
    }

    #[test]
    fn without_a_usable_end_a_token_is_held_for_half_an_hour_and_never_longer_than_a_day() {
        for unusable in ["null", "5", "\"soon\"", "\"2001-01-01T00:00:00Z\""] {
            assert_eq!(seconds_left(unusable), 30 * 60, "{unusable}");
        }
        assert_eq!(seconds_left("\"2999-01-01T00:00:00Z\""), 24 * 60 * 60);
    }

    #[test]
    fn a_token_whose_time_is_over_is_not_used() {
        let tokens = WorkflowTokens::default();
        let (job, over): (Slug, Slug) = ("j1".parse().unwrap(), "j2".parse().unwrap());
        let header = HeaderValue::from_static("Bearer t");
        tokens.lock().insert(over.clone(), Token { header: header.clone(), until: Instant::now() });
        assert!(tokens.header(&over).is_none());
        tokens.insert(&job, header, Duration::ZERO);
        assert!(tokens.header(&job).is_some(), "the grace runs");
        assert!(!tokens.lock().contains_key(&over), "what is over is dropped");
    }
}
