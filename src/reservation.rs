//! The reservation in the answer to a reserve: its id, its end, and the token for the job's
//! workflow calls, which is withheld from clients (protocol §6, §7).

use std::{cmp::Reverse, collections::BTreeSet, ptr};

use bytes::Bytes;
use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use memchr::{memchr2, memmem};
use secrecy::{ExposeSecret, SecretString};

use crate::{
    call::RESERVATION_ID,
    clock,
    json::{Encoding, JsonText, NamedValue, decode, named},
    operation::Operation,
    store::Reservation,
    types::Slug,
    upstream::Answer,
    withheld::{self, HELD_BY_PROXY, UNMISTAKABLE},
};

/// How long a reservation runs if the upstream does not say.
const USUAL: SignedDuration = SignedDuration::from_mins(30);

/// No reservation is taken to run longer, whatever the upstream says.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// More tokens than this are not searched for one by one: that would take time for each in each string.
const MOST_TOKENS: usize = 32;

/// The name of the instructions.
const INSTRUCTIONS: &str = "job_instructions";

/// The name of a token.
const TOKEN: &str = "access_token";

/// A reserve answer. One that the upstream calls good has reserved, whatever its body.
pub(crate) struct Reserved {
    /// The token for the job's workflow calls.
    token: Option<String>,
    job: Option<String>,
    reservation_id: Option<String>,
    reserved_until: Option<Timestamp>,
    /// The body with [`HELD_BY_PROXY`] in place of every token, if there is one.
    pub(crate) without_token: Option<Bytes>,
    /// Whether it is JSON, with its token in a place that is known.
    pub(crate) is_as_expected: bool,
}

impl Reserved {
    /// Reads the body of a good answer.
    pub(crate) fn parse(body: &[u8]) -> Self {
        let (text, encoding) = decode(body);
        let json = JsonText::parse(text.as_bytes());
        let tokens = named(&text, TOKEN);
        let known: Vec<JsonText<'_>> = json.map(known_tokens).unwrap_or_default();
        let is_known = |token: &NamedValue<'_>| {
            known.iter().any(|known| ptr::eq(known.as_str(), token.as_it_stands()))
        };
        // An answer in an envelope has its fields somewhere else.
        let field = |name: &str| {
            let known = json.and_then(|json| top_or_job(json, name));
            known.or_else(|| named(&text, name).into_iter().find_map(NamedValue::text))
        };
        let token = known.iter().find_map(|token| token.text());
        Self {
            token: token.or_else(|| tokens.iter().find_map(|token| token.text())),
            job: field("job_id"),
            reservation_id: field(RESERVATION_ID),
            reserved_until: field("reserved_until").and_then(|end| end.parse().ok()),
            without_token: without(&text, &tokens).map(|text| encoding.encode(&text).into()),
            is_as_expected: encoding == Encoding::Utf8
                && json.is_some()
                && tokens.iter().all(is_known),
        }
    }

    /// The reservation to remember, under the job's id as the upstream spells it. `clock_ahead` is
    /// that of its answer.
    pub(crate) fn reservation(
        &self,
        operation: &Operation,
        job: &Slug,
        clock_ahead: SignedDuration,
    ) -> Reservation {
        let own = self.job.as_ref().filter(|own| job.is_same(own)).and_then(|own| own.parse().ok());
        Reservation {
            job: own.unwrap_or_else(|| job.clone()),
            wallet: operation.wallet,
            client: operation.client.id,
            client_name: operation.client.name.clone(),
            reservation_id: self.reservation_id.clone(),
            ends: self.ends(Timestamp::now(), clock_ahead),
            workflow_token: self.token.as_deref().map(Into::into),
            answer: None,
        }
    }

    /// The end by this machine's clock. One that lies in the past shows that the clocks differ, so it
    /// says nothing.
    fn ends(&self, now: Timestamp, clock_ahead: SignedDuration) -> Timestamp {
        let end = self.reserved_until.and_then(|end| end.checked_add(clock_ahead).ok());
        let end = end.filter(|end| *end > now).unwrap_or(now + USUAL);
        end.min(now + LONGEST)
    }
}

/// The tokens of an answer, and of its job, the one to use first: the guide does not say at which
/// depth it stands.
fn known_tokens<'a>(answer: JsonText<'a>) -> Vec<JsonText<'a>> {
    let places = [Some(answer), answer.field("job")].into_iter().flatten();
    let token = |place: JsonText<'a>| place.at(&["workflow_access", TOKEN]);
    places
        .filter_map(token)
        .filter(|token| token.text().is_some_and(|text| !text.is_empty()))
        .collect()
}

/// The text with each token replaced. A token of at least [`UNMISTAKABLE`] bytes is replaced in every string.
/// A shorter one may be an ordinary word, so only its own value is. Above [`MOST_TOKENS`], every string of
/// that length is withheld.
fn without(text: &str, tokens: &[NamedValue<'_>]) -> Option<String> {
    if tokens.is_empty() && !may_name_one(text.as_bytes()) {
        return None;
    }
    let out = withheld::in_place_of(text, tokens);
    let texts: BTreeSet<String> = tokens.iter().flat_map(|token| token.texts()).collect();
    let long = texts.iter().map(String::as_str).filter(|text| text.len() >= UNMISTAKABLE);
    let mut long: Vec<&str> = long.collect();
    // One may be the beginning of another.
    long.sort_by_key(|text| Reverse(text.len()));
    if long.len() > MOST_TOKENS {
        return Some(without_long_strings(&out));
    }
    let json = withheld::in_strings(out.as_bytes(), |literal| {
        let replaced = |text: String, token: &&str| text.replace(token, HELD_BY_PROXY);
        match within(literal) {
            Some(text) => Some(long.iter().fold(text, replaced)),
            None => withheld::in_text(literal, long.iter().copied()),
        }
    });
    let out = json.unwrap_or_else(|| withheld::in_bytes(out.as_bytes(), &long));
    let out = String::from_utf8_lossy(&out).into_owned();
    (out != text).then_some(out)
}

/// The same for a string that holds JSON itself.
fn within(literal: &str) -> Option<String> {
    if !may_name_one(literal.as_bytes()) {
        return None;
    }
    let text: String = serde_json::from_str(literal).ok()?;
    let is_json =
        text.trim_start().starts_with(['{', '[']) && JsonText::parse(text.as_bytes()).is_some();
    if is_json { without(&text, &named(&text, TOKEN)) } else { None }
}

/// Whether the name of a token may stand in a body: most have none, and are not looked at more closely.
fn may_name_one(body: &[u8]) -> bool {
    // With an escape in it, or in another encoding, it could be there without these letters.
    let has = |body: &[u8], signs: [&[u8]; 2]| {
        signs.into_iter().any(|sign| memmem::find(body, sign).is_some())
    };
    has(body, [b"oken", b"OKEN"])
        || memchr2(b'\\', b'\0', body).is_some_and(|at| has(&body[at..], [b"\\u", b"\0"]))
}

/// The body of any answer without what is named a token in it, if there is one.
pub(crate) fn without_tokens(body: &[u8]) -> Option<Bytes> {
    if !may_name_one(body) {
        return None;
    }
    let (text, encoding) = decode(body);
    let text = without(&text, &named(&text, TOKEN))?;
    Some(encoding.encode(&text).into())
}

/// The text without each string that is long enough for a token of some length; of what is no JSON,
/// nothing is left.
fn without_long_strings(text: &str) -> String {
    let json = withheld::in_strings(text.as_bytes(), |literal| {
        // With its quotes.
        (literal.len() >= UNMISTAKABLE + 2).then(|| HELD_BY_PROXY.to_owned())
    });
    json.map_or_else(
        || HELD_BY_PROXY.to_owned(),
        |json| String::from_utf8_lossy(&json).into_owned(),
    )
}

/// Whether a reserve answer tells the job's private instructions.
pub(crate) fn has_instructions(body: &[u8]) -> bool {
    let (text, _) = decode(body);
    let found = named(&text, INSTRUCTIONS);
    found.iter().any(|value| !["null", "\"\""].contains(&value.as_it_stands()))
}

/// The reservation to remember when its answer was lost: without id and token, but with its end. It was
/// made at `made` or before.
pub(crate) fn unseen(
    operation: &Operation,
    job: &Slug,
    made: Timestamp,
    job_status: Option<&Answer>,
) -> Reservation {
    let (body, clock_ahead) =
        job_status.map(|answer| (&*answer.body, answer.clock_ahead)).unwrap_or_default();
    let ends = Reserved::parse(body).ends(made, clock_ahead);
    let unseen = Reserved::parse(b"").reservation(operation, job, SignedDuration::ZERO);
    Reservation { ends, ..unseen }
}

/// Whether a reservation is over, on any clock.
pub(crate) fn is_over(reservation: &Reservation, now: Timestamp) -> bool {
    reservation.ends + clock::TOLERANCE < now
}

/// The header for a job's workflow calls; it does not print. `None` if the reservation has no token
/// that a header can hold.
pub(crate) fn token_header(reservation: &Reservation) -> Option<HeaderValue> {
    let token = reservation.workflow_token.as_ref().map(SecretString::expose_secret)?;
    let token = token.strip_prefix("Bearer ").unwrap_or(token);
    let mut header = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    header.set_sensitive(true);
    Some(header)
}

/// A text of a reservation, at the top level or else inside the job (protocol §6).
fn top_or_job(answer: JsonText<'_>, name: &str) -> Option<String> {
    [&[name][..], &["job", name]].iter().find_map(|path| answer.at(path).and_then(JsonText::text))
}

#[cfg(test)]
mod tests;
