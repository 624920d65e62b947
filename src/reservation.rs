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
mod tests {
    use super::*;
    use crate::{json::CanonicalJson, policy::Client};

    fn minutes_left(reserved_until: &str) -> i64 {
        let body = format!(r#"{{"job":{{"reserved_until":{reserved_until}}}}}"#);
        let now = "2026-02-16T00:00:00Z".parse().unwrap();
        let end = Reserved::parse(body.as_bytes()).ends(now, SignedDuration::ZERO);
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
    fn a_reservation_ends_by_the_upstreams_clock() {
        let body = br#"{"reserved_until":"2026-02-16T00:02:30Z"}"#;
        let upstreams: Timestamp = "2026-02-16T00:00:00Z".parse().unwrap();
        for minutes in [-2880, -29, -2, 0, 2, 29, 2880] {
            let ahead = SignedDuration::from_mins(minutes);
            let now = upstreams + ahead;
            let ends = Reserved::parse(body).ends(now, ahead);
            assert_eq!(ends.duration_since(now).as_secs(), 150, "{minutes}");
        }
        let last = br#"{"reserved_until":"9999-12-30T00:00:00Z"}"#;
        let ends = Reserved::parse(last).ends(upstreams, SignedDuration::from_hours(99));
        assert_eq!(ends.duration_since(upstreams).as_mins(), 30, "it says nothing");
    }

    fn remembered(reserved: &Reserved) -> Reservation {
        let operation = Operation::of(&Client::local(), "job_reserve", "j", "");
        reserved.reservation(&operation, &"j".parse().unwrap(), SignedDuration::ZERO)
    }

    #[test]
    fn the_fields_of_a_reservation_are_found_at_either_depth() {
        for body in [
            r#"{"reservation_id":"r-1","workflow_access":{"access_token":"Bearer t"}}"#,
            r#"{"job":{"reservation_id":"r-1","workflow_access":{"access_token":"t"}}}"#,
        ] {
            let reserved = Reserved::parse(body.as_bytes());
            let reservation = remembered(&reserved);
            assert_eq!(reservation.reservation_id.as_deref(), Some("r-1"));
            assert_eq!(token_header(&reservation).unwrap(), "Bearer t");
        }
        for body in [
            r#"{"reservation_id":"r-1","job":{"reservation_id":"r-2"}}"#,
            r#"{"before":{"reservation_id":"r-0"},"reservation_id":5,"job":{"reservation_id":"r-1"}}"#,
        ] {
            let reservation = remembered(&Reserved::parse(body.as_bytes()));
            assert_eq!(reservation.reservation_id.as_deref(), Some("r-1"), "{body}");
        }
    }

    fn withheld(body: &str) -> String {
        let body = Reserved::parse(body.as_bytes()).without_token.unwrap();
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
            let is_empty = ["null", "\"\""].contains(&above);
            let after = if is_empty { above } else { "\"held-by-proxy\"" };
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
        assert!(JsonText::parse(text.as_bytes()).is_some(), "{text}");
    }

    #[test]
    fn very_many_tokens_are_withheld_with_every_string_that_could_hold_one() {
        let body = |tokens: &[String]| {
            let tokens = tokens.iter().map(|token| format!(r#"{{"access_token":"{token}"}}"#));
            let tokens: Vec<_> = tokens.collect();
            let more = r#""a":"with token-00000000000000","b":"no token is in it","c":"short""#;
            format!(r#"{{"all":[{}],{more}}}"#, tokens.join(","))
        };
        let token = |number| format!("token-{number:014}");
        let many: Vec<_> = (0..4000).map(token).collect();
        let text = withheld(&body(&many));
        assert!(!text.contains("token-") && !text.contains("no token"), "{text}");
        assert!(
            text.ends_with(r#""a":"held-by-proxy","b":"held-by-proxy","c":"short"}"#),
            "{text}"
        );
        assert!(JsonText::parse(text.as_bytes()).is_some(), "{text}");
        // The same one over and over is one.
        let text = withheld(&body(&vec![token(0); 4000]));
        assert!(text.ends_with(r#""a":"with held-by-proxy","b":"no token is in it","c":"short"}"#));
        let page = many.iter().map(|token| format!("access_token={token}\n"));
        assert_eq!(withheld(&page.collect::<String>()), "held-by-proxy");
    }

    #[test]
    fn a_token_that_begins_another_leaves_nothing_of_it() {
        let body = r#"{"access_token":"0123456789abcdef","b":{"access_token":"0123456789abcdefg"},
            "c":"0123456789abcdefg"}"#;
        assert!(withheld(body).ends_with(r#""c":"held-by-proxy"}"#));
    }

    #[test]
    fn a_token_is_withheld_from_any_answer_by_any_spelling_of_its_name() {
        let withheld = |body: &str| {
            let body = without_tokens(body.as_bytes()).unwrap();
            String::from_utf8(body.to_vec()).unwrap()
        };
        let (given, held) = ("\"aaaabbbbccccdddd\"", "\"held-by-proxy\"");
        for name in ["access_token", "accessToken", "Access_Token", r"access\u005ftoken"] {
            for end in ["}", ",NaN}"] {
                let body = |token: &str| format!(r#"{{"error":1,"{name}":{token}{end}"#);
                let after = withheld(&body(given));
                assert!(after.contains("held-by-proxy") && !after.contains("aaaab"), "{after}");
            }
        }
        let nested = |token: &str| {
            let inner = format!(r#"{{"access_token":{token}}}"#);
            format!(r#"{{"data":{}}}"#, CanonicalJson::string(&inner).as_str())
        };
        assert_eq!(withheld(&nested(given)), nested(held));
        for body in [
            "{}",
            r#"{"tokens":1,"a":"\u00e9"}"#,
            r#"{"hint":"the access_token: a word"}"#,
            r#"{"access_token":null}"#,
        ] {
            assert!(without_tokens(body.as_bytes()).is_none(), "{body}");
        }
        assert!(without_tokens(b"\xff oken").is_none());
    }

    #[test]
    fn a_few_seconds_of_clock_difference_are_allowed_for() {
        let reserved = Reserved::parse(b"{}");
        let reservation = remembered(&reserved);
        let after = |seconds| reservation.ends + SignedDuration::from_secs(seconds);
        assert!(!is_over(&reservation, after(5)) && is_over(&reservation, after(6)));
    }
}
