mod day;

use http::HeaderMap;
use jiff::SignedDuration;

use super::*;

/// Sessions with an upstream that is not there.
fn sessions() -> Arc<Sessions> {
    let upstream = Upstream::on_this_machine(1, Duration::from_secs(1));
    Sessions::new(upstream, Address::new([0; 20]))
}

fn life_of(fields: &str) -> Option<Duration> {
    let body = format!("{{{fields}}}");
    let now = "2026-02-16T00:00:00Z".parse().unwrap();
    life(JsonText::parse(body.as_bytes()).unwrap(), now)
}

#[test]
fn the_life_is_what_the_upstream_says() {
    assert_eq!(life_of(r#""expires_in":900"#), Some(Duration::from_secs(900)));
    assert_eq!(life_of(r#""expires_in":1.5"#), Some(Duration::from_millis(1500)));
    let end = r#""expires_at":"2026-02-16T00:10:00Z""#;
    assert_eq!(life_of(end), Some(Duration::from_secs(600)));
    assert_eq!(life_of(&format!(r#""expires_in":60,{end}"#)), Some(Duration::from_secs(60)));
    for long in ["999999999", "1e300", "1e999"] {
        assert_eq!(life_of(&format!(r#""expires_in":{long}"#)), Some(MAX_LIFE), "{long}");
    }
}

#[test]
fn the_life_ends_by_the_upstreams_clock() {
    let begun = Instant::now();
    for seconds in [-48 * 3600, -125, 0, 125, 14 * 60, 48 * 3600] {
        let clock_ahead = SignedDuration::from_secs(seconds);
        let end = Timestamp::now() - clock_ahead + SignedDuration::from_mins(15);
        let body = format!(r#"{{"session_nonce":"n","expires_at":"{end}"}}"#).into();
        let (status, headers) = (StatusCode::OK, HeaderMap::new());
        let answer = Answer { status, headers, body, clock_ahead };
        let over_at = Session::parse(&answer, begun).unwrap().over_at.unwrap();
        assert!((800..=900).contains(&(over_at - begun).as_secs()), "{seconds}");
    }
}

#[test]
fn an_end_that_makes_no_sense_says_nothing() {
    for fields in [
        "",
        r#""expires_in":null"#,
        r#""expires_in":0"#,
        r#""expires_in":-5"#,
        r#""expires_in":"900""#,
        r#""expires_in":[]"#,
        r#""expires_at":"2020-01-01T00:00:00Z""#,
        r#""expires_at":"soon""#,
        r#""expires_at":7"#,
    ] {
        assert_eq!(life_of(fields), None, "{fields}");
    }
}

#[test]
fn a_session_is_renewed_before_it_is_over_and_over_before_its_end() {
    let begun = Instant::now();
    for (life, renew_at, over_at) in [(900, 840, 895), (100, 80, 95), (20, 16, 19)] {
        let life = Some(Duration::from_secs(life));
        let session = Session::new("n".parse().unwrap(), begun, life);
        let at = |seconds| begun + Duration::from_secs(seconds);
        let before = |seconds| at(seconds) - Duration::from_millis(1);
        assert!(session.is_fresh(before(renew_at)) && !session.is_fresh(at(renew_at)));
        assert!(session.is_usable(before(over_at)) && !session.is_usable(at(over_at)));
    }
    let endless = Session::new("n".parse().unwrap(), begun, None);
    assert!(endless.is_fresh(begun + MAX_LIFE * 365));
}

#[tokio::test]
async fn a_session_near_its_end_serves_while_a_new_one_is_fetched() {
    let sessions = sessions();
    let now = Instant::now();
    let second = Duration::from_secs(1);
    let nonce: SessionNonce = "n".parse().unwrap();
    let near_end = (Some(now - second), Some(now + second * 60));
    let session = Session { nonce: nonce.clone(), renew_at: near_end.0, over_at: near_end.1 };
    sessions.lock().session = Some(session);
    assert!(sessions.nonce(now + second).await.unwrap() == nonce);
    let renewal = sessions.lock().renewal.clone().expect("a renewal");
    assert!(renewal.await.is_err(), "there is no upstream");
    assert!(sessions.nonce(now + second).await.unwrap() == nonce);
    assert!(sessions.lock().renewal.is_none(), "not again at once after a failure");
}

#[tokio::test]
async fn to_forget_a_session_leaves_a_newer_one() {
    let sessions = sessions();
    let second = Duration::from_secs(1);
    let [old, new]: [SessionNonce; 2] = ["old", "new"].map(|nonce| nonce.parse().unwrap());
    let session = Session::new(new.clone(), Instant::now(), None);
    sessions.lock().session = Some(session);
    sessions.forget(&old);
    assert!(sessions.nonce(Instant::now() + second).await.unwrap() == new);
    sessions.forget(&new);
    assert!(sessions.lock().session.is_none());
}
