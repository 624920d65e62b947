use http::HeaderMap;

use jiff::SignedDuration;

use super::*;
use crate::types::Address;

fn answer(status: u16, retry_after: Option<&str>) -> Outcome {
    let mut headers = HeaderMap::new();
    headers.extend(retry_after.map(|after| (header::RETRY_AFTER, after.parse().unwrap())));
    let status = StatusCode::from_u16(status).unwrap();
    Outcome::Answered(
        Answer { status, headers, body: "{}".into(), clock_ahead: SignedDuration::ZERO },
        None,
    )
}

fn next(changes: bool, outcome: &Outcome) -> Next {
    let now = Instant::now();
    Tries::new(changes, now + Duration::from_secs(60)).next(outcome, now)
}

fn is_again(next: Next) -> bool {
    matches!(next, Next::Again(wait) if wait < Duration::from_millis(300))
}

fn no_answer(why: Unanswered) -> Outcome {
    Outcome::NoAnswer(error(why))
}

fn error(why: Unanswered) -> UpstreamError {
    UpstreamError { url: "http://u".to_owned(), why }
}

fn unreachable() -> UpstreamError {
    error(Unanswered::Unreachable("refused".to_owned()))
}

fn broken_off() -> UpstreamError {
    error(Unanswered::BrokenOff("reset".to_owned()))
}

#[test]
fn what_was_not_sent_is_tried_again_whatever_it_is() {
    for changes in [true, false] {
        assert!(is_again(next(changes, &Outcome::NoAnswer(unreachable()))));
        assert!(is_again(next(changes, &Outcome::NoSession(unreachable().into()))));
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_sent_is_given_up_after_the_patience_and_not_before() {
    let (unsent, patience) = (Outcome::NoAnswer(unreachable()), Duration::from_secs(5));
    let begun = Instant::now();
    for changes in [true, false] {
        let deadline = begun + Duration::from_secs(60);
        let mut tries = Tries::new(changes, deadline).with_patience(patience);
        let mut now = begun;
        while let Next::Again(pause) = tries.next(&unsent, now) {
            now += pause;
        }
        assert_eq!(now, begun + patience);
        // Once the upstream was reached, the time begins anew.
        let Next::Again(pause) = tries.next(&answer(429, Some("9")), now) else { panic!() };
        assert!(matches!(tries.next(&unsent, now + pause), Next::Again(_)));
    }
    let mut tries = Tries::new(true, begun + patience).with_patience(Duration::ZERO);
    assert_eq!(tries.next(&unsent, begun), Next::Return);
}

#[tokio::test(start_paused = true)]
async fn what_fails_is_told_soon_unless_it_is_asked_what_became_of_a_change() {
    let begun = Instant::now();
    let (patience, minute) = (Duration::from_secs(5), Duration::from_secs(60));
    let tried_until = |tries: Tries, outcome: &Outcome| {
        let (mut tries, mut now) = (tries, begun);
        while let Next::Again(pause) = tries.next(outcome, now) {
            now += pause;
        }
        now - begun
    };
    let tries = |changes| Tries::new(changes, begun + minute).with_patience(patience);
    for outcome in [answer(502, None), answer(500, None), Outcome::NoAnswer(broken_off())] {
        assert_eq!(tried_until(tries(false).told_soon(), &outcome), patience);
        assert!(tried_until(tries(false), &outcome) > minute / 2);
        assert_eq!(tries(true).told_soon().next(&outcome, begun), Next::Settle);
    }
    let late = begun + minute / 2;
    let broken = Outcome::NoAnswer(broken_off());
    assert!(is_again(tries(false).told_soon().next(&broken, late)));
    let no_session = Outcome::NoSession(broken_off().into());
    assert_eq!(tried_until(tries(true).told_soon(), &no_session), patience);
    let known = no_answer(Unanswered::Failing("502".to_owned()));
    assert_eq!(tries(true).told_soon().next(&known, begun), Next::Return);
    assert!(tried_until(tries(false), &known) > minute / 2);
}

#[test]
fn what_was_sent_and_lost_is_tried_again_only_if_it_changes_nothing() {
    let lost = no_answer(Unanswered::TimedOut);
    assert_eq!(next(true, &lost), Next::Settle);
    assert!(is_again(next(false, &lost)));
    assert_eq!(next(true, &answer(500, None)), Next::Settle);
    assert_eq!(next(true, &answer(503, None)), Next::Settle);
    let Outcome::Answered(good, _) = answer(200, None) else { panic!("no answer") };
    for (body, on_change) in [
        ("{}", Next::Return),
        ("{\"pay\":NaN}", Next::Return),
        ("<html>", Next::Settle),
        ("", Next::Settle),
        ("{\"pay\":", Next::Settle),
    ] {
        let page = Outcome::Answered(Answer { body: body.into(), ..good.clone() }, None);
        assert_eq!(next(true, &page), on_change, "{body:?}");
        assert_eq!(next(false, &page), Next::Return, "{body:?}");
    }
    assert!(is_again(next(false, &answer(502, None))));
    let large = no_answer(Unanswered::TooLarge);
    assert_eq!(next(true, &large), Next::Settle);
    assert_eq!(next(false, &large), Next::Return);
}

#[test]
fn a_conflict_or_a_wish_to_wait_is_a_verdict_on_a_change_only_in_the_apis_own_form() {
    let told = |status, body: &str| match answer(status, Some("7")) {
        Outcome::Answered(told, _) => {
            Outcome::Answered(Answer { body: body.to_owned().into(), ..told }, None)
        }
        other => other,
    };
    let wait = || Next::Again(Duration::from_secs(7));
    for (status, verdict) in [(409, Next::Return), (429, wait()), (503, wait())] {
        for own in ["{\"detail\":\"x\"}", "[]", "{\"n\":NaN}"] {
            assert_eq!(next(true, &told(status, own)), verdict, "{status} {own}");
        }
        for page in ["", "<html>", "Busy", "{\"detail\":"] {
            assert_eq!(next(true, &told(status, page)), Next::Settle, "{status} {page}");
            assert_ne!(next(false, &told(status, page)), Next::Settle, "{status} {page}");
        }
    }
}

#[test]
fn what_was_not_signed_is_left_to_the_client() {
    let not_signed = Outcome::NotSigned(SignerError::TimedOut(Address::new([0; 20])));
    assert_eq!(next(true, &not_signed), Next::Return);
    assert_eq!(next(false, &not_signed), Next::Return);
}

#[test]
fn a_put_is_made_again_after_a_broken_connection_until_there_is_no_time() {
    let now = Instant::now();
    let broken = Outcome::NoAnswer(broken_off());
    let tries = |method| Tries::new(true, now + Duration::from_secs(60)).of_method(&method);
    assert!(is_again(tries(Method::PUT).next(&broken, now)));
    let late = now + Duration::from_secs(60);
    assert_eq!(tries(Method::PUT).next(&broken, late), Next::Settle);
    assert_eq!(tries(Method::POST).next(&broken, now), Next::Settle);
    let silent = no_answer(Unanswered::TimedOut);
    assert_eq!(tries(Method::PUT).next(&silent, now), Next::Settle);
}

#[test]
fn the_upstreams_wish_to_wait_is_met_if_the_deadline_allows() {
    for changes in [true, false] {
        for status in [429, 503] {
            let wait = Next::Again(Duration::from_secs(7));
            assert_eq!(next(changes, &answer(status, Some("7"))), wait);
            let date = "Wed, 21 Oct 2099 07:28:00 GMT";
            for long in ["60", "99999999999999999", "18446744073709551615", date, "soon"] {
                assert_eq!(next(changes, &answer(status, Some(long))), Next::Return, "{long}");
            }
        }
        assert_eq!(next(changes, &answer(429, None)), Next::Return);
        assert_eq!(next(changes, &answer(402, Some("1"))), Next::Return);
    }
}

#[test]
fn an_upstream_that_wants_to_be_asked_at_once_is_asked_with_pauses() {
    let now = Instant::now();
    let mut tries = Tries::new(true, now + Duration::from_secs(60));
    for wish in ["0", "Wed, 21 Oct 2015 07:28:00 GMT", "0"] {
        let next = tries.next(&answer(429, Some(wish)), now);
        assert!(matches!(next, Next::Again(pause) if pause >= FIRST_PAUSE), "{wish}: {next:?}");
    }
}

#[test]
fn a_wish_is_seconds_or_a_date() {
    let now: Timestamp = "2026-10-21T07:28:00Z".parse().unwrap();
    let wait = |text: &str| wait(&HeaderValue::from_str(text).unwrap(), now);
    assert_eq!(wait(" 7 "), Some(Duration::from_secs(7)));
    assert_eq!(wait("Wed, 21 Oct 2026 07:28:05 GMT"), Some(Duration::from_secs(5)));
    assert_eq!(wait("Wed, 21 Oct 2026 07:27:00 GMT"), Some(Duration::ZERO));
    for unusable in ["", "-1", "1.5", "Wed", "2026-10-21T07:28:05Z"] {
        assert_eq!(wait(unusable), None, "{unusable}");
    }
}

#[test]
fn a_session_that_is_put_off_is_waited_for() {
    let refused = |status, wish: Option<&str>| {
        let retry_after = wish.map(|wish| wish.parse().unwrap());
        let status = StatusCode::from_u16(status).unwrap();
        Outcome::NoSession(SessionError::Refused {
            url: "http://u".to_owned(),
            status,
            retry_after,
            by_proxy: false,
        })
    };
    for status in [429, 503] {
        let wait = Next::Again(Duration::from_secs(7));
        assert_eq!(next(true, &refused(status, Some("7"))), wait);
        assert_eq!(next(true, &refused(status, Some("3600"))), Next::Return);
    }
    assert!(is_again(next(true, &refused(500, Some("7")))));
    assert!(is_again(next(true, &refused(503, None))));
    assert_eq!(next(true, &refused(429, None)), Next::Return);
    assert_eq!(next(true, &refused(403, Some("7"))), Next::Return);
    let mut by_proxy = refused(503, Some("7"));
    if let Outcome::NoSession(SessionError::Refused { by_proxy, .. }) = &mut by_proxy {
        *by_proxy = true;
    }
    assert_eq!(next(true, &by_proxy), Next::Return);
}

#[test]
fn a_session_is_renewed_once_and_a_request_id_changed_once() {
    let now = Instant::now();
    let mut tries = Tries::new(false, now + Duration::from_secs(60));
    let refused = |refusal| match answer(401, None) {
        Outcome::Answered(answer, _) => Outcome::Answered(answer, Some(refusal)),
        other => other,
    };
    assert_eq!(tries.next(&refused(Refusal::SessionOver), now), Next::Renew);
    assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Again(Duration::ZERO));
    assert_eq!(tries.next(&refused(Refusal::SessionOver), now), Next::Return);
    assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Return);
    let wrong = Refusal::WrongSignature { expected_message: None };
    assert_eq!(tries.next(&refused(wrong), now), Next::Return);
    let mut tries = Tries::new(true, now + Duration::from_secs(60));
    assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Settle);
    assert_eq!(tries.next(&refused(Refusal::Replay), now), Next::Return);
}

#[test]
fn nothing_is_tried_again_after_the_deadline() {
    let now = Instant::now();
    let mut tries = Tries::new(false, now);
    assert_eq!(tries.next(&answer(500, None), now), Next::Return);
}

#[test]
fn pauses_grow_and_stay_bounded() {
    let now = Instant::now();
    let mut tries = Tries::new(false, now + Duration::from_secs(3600));
    let pauses: Vec<_> = (0..20)
        .map(|_| match tries.pause(now) {
            Next::Again(pause) => pause,
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(pauses[0] < pauses[4] && pauses.iter().all(|pause| *pause <= LONGEST_PAUSE * 2));
}
