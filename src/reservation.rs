//! What a reserve answer says of the reservation: its id, its end, and the token for the job's
//! workflow calls, which is withheld from clients (protocol §6, §7).

use std::ptr;

use bytes::Bytes;
use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;

use crate::{
    loose,
    store::{CLOCK_DIFFERENCE, Reservation},
    types::{Address, Slug},
    withheld::{self, HELD_BY_PROXY, UNMISTAKABLE},
};

/// How long a reservation runs if the upstream does not say.
const USUAL: SignedDuration = SignedDuration::from_mins(30);

/// No reservation is taken to run longer, whatever the upstream says.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// A reserve answer.
pub(crate) struct Reserved<'a> {
    body: &'a [u8],
    /// The tokens, the one to use first: the guide does not say at which depth it stands.
    tokens: Vec<Token<'a>>,
    reservation_id: Option<String>,
    reserved_until: Option<Timestamp>,
}

struct Token<'a> {
    /// As it stands in the answer, with its quotes.
    literal: &'a str,
    text: String,
}

impl<'a> Reserved<'a> {
    /// Reads the body of a good answer.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let answer = loose::parse(body)?;
        let places = [Some(answer), loose::field(answer, "job")].into_iter().flatten();
        let text = |name: &str| top_or_job(answer, name).and_then(loose::text);
        Some(Self {
            body,
            tokens: places.filter_map(Token::at).collect(),
            reservation_id: text("reservation_id"),
            reserved_until: text("reserved_until").and_then(|end| end.parse().ok()),
        })
    }

    /// What is remembered of it.
    pub(crate) fn reservation(&self, job: Slug, wallet: Address, client: String) -> Reservation {
        Reservation {
            job,
            wallet,
            client,
            reservation_id: self.reservation_id.clone(),
            ends: self.ends(Timestamp::now()),
            workflow_token: self.tokens.first().map(|token| token.text.as_str().into()),
        }
    }

    /// An end that lies in the past shows that the clocks differ, so it says nothing.
    fn ends(&self, now: Timestamp) -> Timestamp {
        let end = self.reserved_until.filter(|end| *end > now).unwrap_or(now + USUAL);
        end.min(now + LONGEST)
    }

    /// The body with [`HELD_BY_PROXY`] in place of the token, if there is one.
    ///
    /// A token of some length is replaced in every string, also within a hint on how to use it. A
    /// short one could be a word of the answer, so only the token itself is.
    pub(crate) fn without_token(&self) -> Option<Bytes> {
        self.tokens.first()?;
        withheld::in_strings(self.body, |literal| self.withheld(literal))
    }

    /// The text that goes in place of a string, if that holds a token.
    fn withheld(&self, literal: &str) -> Option<String> {
        if self.tokens.iter().any(|token| ptr::eq(token.literal, literal)) {
            return Some(HELD_BY_PROXY.to_owned());
        }
        let texts = self.tokens.iter().map(|token| token.text.as_str());
        withheld::in_text(literal, texts.filter(|text| text.len() >= UNMISTAKABLE))
    }
}

impl<'a> Token<'a> {
    /// The token of an answer, or of its job.
    fn at(place: &'a RawValue) -> Option<Self> {
        let value = loose::at(place, &["workflow_access", "access_token"])?;
        let text = loose::text(value).filter(|text| !text.is_empty())?;
        Some(Self { literal: value.get(), text })
    }
}

/// Whether a reservation is over, on any clock.
pub(crate) fn is_over(reservation: &Reservation, now: Timestamp) -> bool {
    reservation.ends + CLOCK_DIFFERENCE < now
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

/// The guide does not say at which depth the fields of a reservation stand (protocol §6).
fn top_or_job<'a>(answer: &'a RawValue, name: &str) -> Option<&'a RawValue> {
    loose::field(answer, name).or_else(|| loose::at(answer, &["job", name]))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minutes_left(reserved_until: &str) -> i64 {
        let body = format!(r#"{{"job":{{"reserved_until":{reserved_until}}}}}"#);
        let now = "2026-02-16T00:00:00Z".parse().unwrap();
        let end = Reserved::parse(body.as_bytes()).unwrap().ends(now);
        end.duration_since(now).as_mins()
    }

    #[test]
    fn a_reservation_runs_until_the_stated_end_or_for_half_an_hour_and_never_longer_than_a_day() {
        assert_eq!(minutes_left(r#""2026-02-16T00:10:00Z""#), 10);
        for unusable in ["null", "5", r#""soon""#, r#""2001-01-01T00:00:00Z""#] {
            assert_eq!(minutes_left(unusable), 30, "{unusable}");
        }
        assert_eq!(minutes_left(r#""2999-01-01T00:00:00Z""#), 24 * 60);
    }

    #[test]
    fn the_fields_of_a_reservation_are_found_at_either_depth() {
        for body in [
            r#"{"reservation_id":"r-1","workflow_access":{"access_token":"Bearer t"}}"#,
            r#"{"job":{"reservation_id":"r-1","workflow_access":{"access_token":"t"}}}"#,
        ] {
            let reserved = Reserved::parse(body.as_bytes()).unwrap();
            let (job, wallet) = ("j".parse().unwrap(), Address::new([0; 20]));
            let reservation = reserved.reservation(job, wallet, "local".to_owned());
            assert_eq!(reservation.reservation_id.as_deref(), Some("r-1"));
            assert_eq!(token_header(&reservation).unwrap(), "Bearer t");
        }
    }

    fn withheld(body: &str) -> String {
        let body = Reserved::parse(body.as_bytes()).unwrap().without_token().unwrap();
        String::from_utf8(body.to_vec()).unwrap()
    }

    #[test]
    fn a_token_is_withheld_at_either_depth_and_at_both() {
        let one = r#"{"workflow_access":{"access_token":"t"}}"#;
        let held = one.replace("\"t\"", "\"held-by-proxy\"");
        assert_eq!(withheld(one), held);
        assert_eq!(withheld(&format!(r#"{{"job":{one}}}"#)), format!(r#"{{"job":{held}}}"#));
        for above in ["\"t\"", "\"u\"", "\"\"", "5", "null"] {
            let both = |above: &str, job: &str| {
                format!(r#"{{"workflow_access": {{"access_token": {above}}}, "job": {job}}}"#)
            };
            let after = if above.contains(['t', 'u']) { "\"held-by-proxy\"" } else { above };
            let after = if above == "null" { above } else { after };
            assert_eq!(withheld(&both(above, one)), both(after, &held), "{above}");
        }
    }

    #[test]
    fn what_is_withheld_from_json_leaves_json() {
        let answer = |token: &str, more: &str| {
            format!(r#"{{"workflow_access":{{"access_token":"{token}"}},"more":{more}}}"#)
        };
        let number = "12345678901234567";
        let (quote, escaped) = (r#"ab\""#, r"\u0061\u0062\u0063");
        for (token, more) in [(quote, "1"), (number, number), (escaped, r#""\\u0061\u0062\u0063""#)]
        {
            assert_eq!(withheld(&answer(token, more)), answer("held-by-proxy", more));
        }
    }

    #[test]
    fn a_long_token_is_withheld_however_it_is_spelled() {
        let body = r#"{"workflow_access":{"access_token":"abcdefghijklmnop"},
            "a":"Bearer abcdefghijklmnop","b":"\u0061bcdefghijklmnop\"","c":"\ud800abcdefghijklmnop"}"#;
        let text = withheld(body);
        assert!(!text.contains("bcdefghijklmnop"), "{text}");
        assert!(text.contains(r#""a":"Bearer held-by-proxy","b":"held-by-proxy\"""#), "{text}");
        assert!(loose::parse(text.as_bytes()).is_some(), "{text}");
    }

    #[test]
    fn a_few_seconds_of_clock_difference_are_allowed_for() {
        let reserved = Reserved::parse(b"{}").unwrap();
        let (job, wallet) = ("j".parse().unwrap(), Address::new([0; 20]));
        let reservation = reserved.reservation(job, wallet, "local".to_owned());
        let after = |seconds| reservation.ends + SignedDuration::from_secs(seconds);
        assert!(!is_over(&reservation, after(5)) && is_over(&reservation, after(6)));
    }
}
