//! What a reserve answer says of the reservation: its id, its end, and the token for the job's
//! workflow calls, which is withheld from clients (protocol §6, §7).

use bytes::Bytes;
use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};
use serde_json::value::RawValue;

use crate::{
    loose,
    store::{CLOCK_DIFFERENCE, Reservation},
    types::{Address, Slug},
};

/// What a client sees in place of a secret that the proxy holds.
pub(crate) const HELD_BY_PROXY: &str = "held-by-proxy";

/// How long a reservation runs if the upstream does not say.
const USUAL: SignedDuration = SignedDuration::from_mins(30);

/// No reservation is taken to run longer, whatever the upstream says.
const LONGEST: SignedDuration = SignedDuration::from_hours(24);

/// A text of this length, in bytes, is no word of an answer by chance.
const UNMISTAKABLE: usize = 16;

/// A reserve answer.
pub(crate) struct Reserved<'a> {
    text: &'a str,
    /// The token as it stands in the text, between its quotes, and as it is meant.
    token: Option<(&'a str, String)>,
    reservation_id: Option<String>,
    reserved_until: Option<Timestamp>,
}

impl<'a> Reserved<'a> {
    /// Reads the body of a good answer.
    pub(crate) fn parse(body: &'a [u8]) -> Option<Self> {
        let answer = loose::parse(body)?;
        let token = top_or_job(answer, &["workflow_access", "access_token"]).and_then(|value| {
            let token = loose::text(value).filter(|token| !token.is_empty())?;
            Some((value.get().trim_matches('"'), token))
        });
        let text = |name: &str| top_or_job(answer, &[name]).and_then(loose::text);
        Some(Self {
            text: answer.get(),
            token,
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
            workflow_token: self.token.as_ref().map(|(_, token)| token.as_str().into()),
        }
    }

    /// An end that lies in the past shows that the clocks differ, so it says nothing.
    fn ends(&self, now: Timestamp) -> Timestamp {
        let end = self.reserved_until.filter(|end| *end > now).unwrap_or(now + USUAL);
        end.min(now + LONGEST)
    }

    /// The body with [`HELD_BY_PROXY`] in place of the token, if there is one.
    ///
    /// A token of some length is replaced wherever it stands, also within a hint on how to use it. A
    /// short one could be a word of the answer, so only the token itself is.
    pub(crate) fn without_token(&self) -> Option<Bytes> {
        let (literal, _) = self.token.as_ref()?;
        if literal.len() >= UNMISTAKABLE {
            return Some(self.text.replace(literal, HELD_BY_PROXY).into());
        }
        let start = literal.as_ptr() as usize - self.text.as_ptr() as usize;
        let (before, rest) = self.text.split_at(start);
        Some(format!("{before}{HELD_BY_PROXY}{}", &rest[literal.len()..]).into())
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
fn top_or_job<'a>(answer: &'a RawValue, path: &[&str]) -> Option<&'a RawValue> {
    loose::at(answer, path).or_else(|| loose::at(loose::field(answer, "job")?, path))
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

    #[test]
    fn a_few_seconds_of_clock_difference_are_allowed_for() {
        let reserved = Reserved::parse(b"{}").unwrap();
        let (job, wallet) = ("j".parse().unwrap(), Address::new([0; 20]));
        let reservation = reserved.reservation(job, wallet, "local".to_owned());
        let after = |seconds| reservation.ends + SignedDuration::from_secs(seconds);
        assert!(!is_over(&reservation, after(5)) && is_over(&reservation, after(6)));
    }
}
