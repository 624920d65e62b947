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
    for (token, more) in [(quote, "1"), (number, number), (escaped, r#""\\u0061\u0062\u0063""#)] {
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
    assert!(text.ends_with(r#""a":"held-by-proxy","b":"held-by-proxy","c":"short"}"#), "{text}");
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
