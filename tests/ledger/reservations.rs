//! Reservations: remembered until their end, over restarts, and put to use.

use std::{
    fs,
    sync::{Arc, Mutex},
};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use serde_json::{Value, json};

use crate::{
    agents::{Agent, may},
    common::{
        self, GENERAL_JOB, TestProxy, WORKFLOW, WORKFLOW_JOB, json, problem, serve, serve_sandbox,
    },
};

pub(crate) const PROOF: &str = r#"{"proof_text":"done"}"#;

async fn reserve(proxy: &TestProxy, job: &str) -> String {
    let reserved = proxy.ok(&format!("/jobs/{job}/reserve"), "").await;
    reserved["job"]["reservation_id"].as_str().unwrap().to_owned()
}

/// What is held, as it is listed.
pub(crate) async fn held(proxy: &TestProxy) -> Vec<Value> {
    let response = proxy.client.get(proxy.url("/proxy/reservations")).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    json(response).await["reservations"].as_array().unwrap().clone()
}

/// Another proxy with the same wallet, folder and sandbox, after the first has ended.
async fn restarted(first: TestProxy) -> TestProxy {
    first.proxy.drained().await;
    let (sandbox, folder) = (first.sandbox.clone(), first.folder());
    drop(first);
    let upstream = serve(sandbox.router()).await;
    TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await
}

#[tokio::test]
async fn a_completion_gets_the_reservation_id_that_it_lacks() {
    let proxy = TestProxy::start().await;
    reserve(&proxy, GENERAL_JOB).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/complete"), PROOF).await;
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 1);
    assert!(held(&proxy).await.is_empty(), "what is completed is held no more");
}

#[tokio::test]
async fn a_reservation_id_that_is_given_is_not_overwritten() {
    let proxy = TestProxy::start().await;
    reserve(&proxy, GENERAL_JOB).await;
    let body = json!({"proof_text": "done", "reservation_id": "of-elsewhere"}).to_string();
    let response = proxy.post(&format!("/jobs/{GENERAL_JOB}/complete"), body).await;
    assert!(response.status().is_client_error());
    assert!(response.headers().get("x-agentpmt-proxy-error").is_none(), "the upstream refused it");
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 0);
    assert_eq!(held(&proxy).await.len(), 1, "what is refused is held still");
}

#[tokio::test]
async fn a_second_reserve_whose_answer_is_lost_takes_nothing_from_the_first() {
    for fault in ["cut_before:job_reserve:1", "cut_after:job_reserve:1"] {
        let sandbox = Sandbox::new(Settings::default());
        let upstream = serve_sandbox(&sandbox).await;
        let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
        reserve(&proxy, WORKFLOW_JOB).await;
        let before = held(&proxy).await;
        proxy.sandbox.inject(fault.parse().unwrap());
        let lost = problem(proxy.post(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await).await;
        assert_eq!(
            (&lost["code"], &lost["processed"], &lost["retry"]),
            (&"outcome_unknown".into(), &Value::Null, &"check_first".into()),
            "the reservation that job_status shows is the first: {lost}"
        );
        assert!(lost["detail"].as_str().unwrap().contains("private instructions"), "{lost}");
        let after = held(&proxy).await;
        assert_eq!(after[0]["reservation_id"], before[0]["reservation_id"], "{fault}");
        proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
    }
}

/// Answers the reserves of one job with these bodies, one after the other, and every completion with what
/// was sent.
fn renewing(answers: Vec<Value>) -> impl FnOnce(Router) -> Router {
    let answers = Arc::new(Mutex::new(answers.into_iter()));
    move |router| {
        router.layer(from_fn(move |request: Request, next: Next| {
            let answers = answers.clone();
            async move {
                let path = request.uri().path();
                if path.ends_with("/reserve") {
                    return answers.lock().unwrap().next().unwrap().to_string().into_response();
                }
                let echoes = path.ends_with("/complete") || path.ends_with("/create");
                if !echoes {
                    return next.run(request).await;
                }
                let token = request.headers().get("x-job-workflow-token").cloned();
                let token = token.map(|token| token.to_str().unwrap().replace("Bearer ", ""));
                let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
                let body: Value = serde_json::from_slice(&body).unwrap();
                json!({"sent": body["reservation_id"], "length": token.map(|token| token.len())})
                    .to_string()
                    .into_response()
            }
        }))
    }
}

#[tokio::test]
async fn to_reserve_a_job_again_renews_its_reservation_and_the_newest_id_counts() {
    let until = |minutes| (Timestamp::now() + SignedDuration::from_mins(minutes)).to_string();
    let answers = vec![
        json!({"job": {"reservation_id": "r-1", "reserved_until": until(5)},
               "workflow_access": {"access_token": "four"}}),
        json!({"reservation_id": "r-2", "job": {"reserved_until": until(35)}}),
        json!({"message": "renewed", "job": {"reserved_until": until(65)}}),
    ];
    let proxy = TestProxy::start_with(Settings::default(), renewing(answers)).await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    for (minutes, id) in [(5, "r-1"), (35, "r-2"), (65, "r-2")] {
        proxy.ok(&format!("{job}/reserve"), "").await;
        let rows = held(&proxy).await;
        assert_eq!((rows.len(), &rows[0]["reservation_id"]), (1, &id.into()));
        let left = rows[0]["seconds_left"].as_i64().unwrap();
        assert!((minutes * 60 - 60..=minutes * 60).contains(&left), "{left}");
        let created = proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
        assert_eq!(created["length"], 4, "the token of the first is used on");
    }
    for _ in 0..2 {
        let done = proxy.ok(&format!("{job}/complete"), PROOF).await;
        assert_eq!(done["sent"], "r-2");
    }
    let refused = problem(proxy.post(&format!("{job}/complete"), r#"{"proof_text":"b"}"#).await);
    assert_eq!(refused.await["code"], "already_submitted");
}

/// Answers the list with what a wallet is shown of two jobs when it holds them.
fn listing(router: Router) -> Router {
    router.layer(from_fn(|request: Request, next: Next| async move {
        if !request.uri().path().ends_with("/jobs/list") {
            return next.run(request).await;
        }
        let job = |id| json!({"job_id": id, "title": "t", "job_instructions": "i", "link": "l"});
        json!({"jobs": [job(GENERAL_JOB), job(WORKFLOW_JOB)], "limit": 50})
            .to_string()
            .into_response()
    }))
}

#[tokio::test]
async fn the_list_shows_a_client_nothing_private_of_the_jobs_that_others_hold() {
    let proxy = TestProxy::start_with(Settings::default(), listing).await;
    let [owner, other] = ["owner", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    let admin = Agent::add(&proxy, &Client { admin: true, ..may("admin", "jobs") });
    let private = async |agent: &Agent| {
        let list = agent.ok("/jobs/list", "").await;
        assert_eq!(list["limit"], 50);
        let jobs = list["jobs"].as_array().unwrap();
        assert!(jobs.iter().all(|job| job["title"] == "t" && job["job_id"].is_string()));
        jobs.iter()
            .map(|job| job["link"] == "l" && job["job_instructions"] == "i")
            .collect::<Vec<_>>()
    };
    assert_eq!(private(&other).await, [true, true], "not held through this proxy");
    owner.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    for _ in 0..2 {
        assert_eq!(private(&other).await, [false, true]);
        assert_eq!(private(&owner).await, [true, true]);
        assert_eq!(private(&admin).await, [true, true]);
        owner.ok(&format!("/jobs/{GENERAL_JOB}/complete"), PROOF).await;
    }
}

#[tokio::test]
async fn what_is_held_is_listed_with_the_time_left_and_without_its_token() {
    let proxy = TestProxy::start().await;
    let ids = [reserve(&proxy, GENERAL_JOB).await, reserve(&proxy, WORKFLOW_JOB).await];
    let rows = held(&proxy).await;
    let wallet = proxy.proxy.wallet_of(&Client::local()).to_string();
    for (row, (job, id)) in rows.iter().zip([GENERAL_JOB, WORKFLOW_JOB].into_iter().zip(ids)) {
        let expected = [("job_id", job), ("reservation_id", &id), ("client", "local")];
        for (name, text) in expected.into_iter().chain([("wallet", wallet.as_str())]) {
            assert_eq!(row[name], text, "{name}");
        }
        assert!((1700..=1800).contains(&row["seconds_left"].as_i64().unwrap()), "{row}");
        assert!(row["reserved_until"].as_str().unwrap().parse::<Timestamp>().is_ok());
    }
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["workflow_token"], Value::Null);
    assert_eq!(rows[1]["workflow_token"], "held-by-proxy");
}

/// Has every reservation end so much earlier, as if the clock had been set since.
fn set_ends_back(proxy: &TestProxy, by: SignedDuration) {
    let database = rusqlite::Connection::open(proxy.folder().path().join("proxy.db")).unwrap();
    let moved =
        database.execute("UPDATE reservations SET ends = ends - ?1", [by.as_millis() as i64]);
    assert!(moved.unwrap() > 0);
}

#[tokio::test]
async fn whether_a_reservation_is_over_the_upstream_decides() {
    let proxy = TestProxy::start().await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    let reservation = reserve(&proxy, WORKFLOW_JOB).await;
    reserve(&proxy, GENERAL_JOB).await;
    // By a clock that is two days fast, they are.
    set_ends_back(&proxy, SignedDuration::from_hours(48));
    assert!(held(&proxy).await.is_empty());
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/complete"), PROOF).await;
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 1);
    let created = proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
    let workflow = created["workflow_id"].as_str().unwrap();
    proxy.ok(&format!("{job}/workflow/{workflow}/publish"), "").await;
    let proof = json!({
        "proof_text": "done", "workflow_id": workflow, "reservation_id": reservation,
    });
    proxy.ok(&format!("{job}/complete"), proof.to_string()).await;
    assert_eq!(proxy.sandbox.accepted(WORKFLOW_JOB), 1);
}

/// A sandbox whose clock is so much behind this machine's, and whose reservations run for 150 seconds.
fn behind(ahead: SignedDuration) -> impl FnOnce(Router) -> Router {
    move |router| {
        router.layer(from_fn(move |request: Request, next: Next| async move {
            let reserves = request.uri().path().ends_with("/reserve");
            let (mut head, body) = next.run(request).await.into_parts();
            let now = Timestamp::now() - ahead;
            let date = rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).unwrap();
            head.headers.insert(header::DATE, date.parse().unwrap());
            if !reserves {
                return Response::from_parts(head, body);
            }
            let answer = to_bytes(body, usize::MAX).await.unwrap();
            let mut answer: Value = serde_json::from_slice(&answer).unwrap();
            let end = now + SignedDuration::from_secs(150);
            answer["job"]["reserved_until"] = end.to_string().into();
            head.headers.remove(header::CONTENT_LENGTH);
            Response::from_parts(head, Body::from(answer.to_string()))
        }))
    }
}

#[tokio::test]
async fn a_reservation_ends_by_the_clock_of_who_gave_it() {
    for seconds in [125, 29 * 60, 48 * 3600, 0, -125, -29 * 60, -48 * 3600] {
        let ahead = SignedDuration::from_secs(seconds);
        let proxy = TestProxy::start_with(Settings::default(), behind(ahead)).await;
        let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
        assert!(one.reserve(GENERAL_JOB).await.status().is_success(), "{seconds}");
        let left = one.reservations().await[0]["seconds_left"].as_i64().unwrap();
        assert!((90..=150).contains(&left), "{left} with a clock that is {seconds} ahead");
        let refused = other.refused(&format!("/jobs/{GENERAL_JOB}/complete"), PROOF).await;
        assert_eq!(refused, (409, "held_by_another".to_owned()), "{seconds}");
        one.ok(&format!("/jobs/{GENERAL_JOB}/complete"), PROOF).await;
    }
}

#[tokio::test]
async fn a_client_may_end_what_it_began_by_whatever_clock() {
    let proxy = TestProxy::start().await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    one.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    set_ends_back(&proxy, SignedDuration::from_hours(48));
    let complete = format!("/jobs/{GENERAL_JOB}/complete");
    assert_eq!(other.refused(&complete, PROOF).await, (409, "not_reserved".to_owned()));
    one.ok(&complete, PROOF).await;
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 1);
}

#[tokio::test]
async fn after_a_restart_everything_is_as_before() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(sandbox.router()).await;
    let first = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    reserve(&first, WORKFLOW_JOB).await;
    let without_time = |mut rows: Vec<Value>| {
        rows.iter_mut().for_each(|row| row["seconds_left"] = Value::Null);
        rows
    };
    let before = without_time(held(&first).await);
    assert_eq!(before.len(), 1);

    let second = restarted(first).await;
    assert_eq!(without_time(held(&second).await), before);
    let job = format!("/jobs/{WORKFLOW_JOB}");
    let created = second.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
    let workflow = created["workflow_id"].as_str().unwrap();
    let url = second.url(&format!("/api/external{job}/workflow/{workflow}"));
    let updated = second.client.put(url).body(WORKFLOW).send().await.unwrap();
    assert_eq!(updated.status(), StatusCode::OK);
    second.ok(&format!("{job}/workflow/{workflow}/publish"), "").await;
    let proof = json!({"proof_text": "done", "workflow_id": workflow}).to_string();
    second.ok(&format!("{job}/complete"), proof).await;
    assert_eq!(second.sandbox.accepted(WORKFLOW_JOB), 1);
    assert!(held(&restarted(second).await).await.is_empty());
}

#[tokio::test]
async fn the_workflow_token_is_not_in_the_files_of_the_store() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(sandbox.router()).await;
    let expose = |options: &mut common::Options| options.expose_workflow_token = true;
    let proxy = TestProxy::in_front_of(sandbox, upstream, expose).await;
    let reserved = proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    let token = reserved["workflow_access"]["access_token"].as_str().unwrap();
    let id = reserved["job"]["reservation_id"].as_str().unwrap();
    proxy.proxy.drained().await;
    let mut found_id = false;
    for file in fs::read_dir(proxy.folder().path()).unwrap() {
        let path = file.unwrap().path();
        let Ok(bytes) = fs::read(&path) else { continue };
        let has = |text: &str| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        assert!(!has(token.trim_start_matches("Bearer ")), "{}", path.display());
        found_id |= has(id);
    }
    assert!(found_id, "the search finds what is there in the clear");
}

/// Bodies of reserve answers that are not JSON to the letter, or hold their token elsewhere.
fn odd_answers() -> Vec<Vec<u8>> {
    let plain = json!({
        "job": {"reservation_id": "r-1"},
        "workflow_access": {"access_token": TOKEN},
        "hint": format!("Bearer {TOKEN}"),
    });
    let text = plain.to_string();
    let with = |what: &str| text.replacen('{', &format!("{{{what},"), 1).into_bytes();
    let utf16 = |unit: fn(u16) -> [u8; 2]| text.encode_utf16().flat_map(unit).collect();
    let mut latin1 = with(r#""name":"caf?""#);
    *latin1.iter_mut().find(|byte| **byte == b'?').unwrap() = 0xe9;
    let quoted = format!("\"{TOKEN}\"");
    let token = |value: &str| text.replacen(&quoted, value, 1).into_bytes();
    vec![
        with(r#""pay":NaN"#),
        with(r#""pay":01"#),
        latin1,
        utf16(u16::to_le_bytes),
        utf16(u16::to_be_bytes),
        token(&format!(r#""other-token-of-some-length","access_token":"{TOKEN}""#)),
        token(&format!(r#"["{TOKEN}"]"#)),
        token(&format!(r#"{{"value":"{TOKEN}"}}"#)),
        json!({"data": plain}).to_string().into_bytes(),
        json!({"data": {"access_token": TOKEN, "reservation_id": "r-1"}}).to_string().into_bytes(),
    ]
}

const TOKEN: &str = "token-0123456789abcdef";

#[tokio::test]
async fn a_good_reserve_answer_leaves_a_reservation_and_shows_no_token_whatever_its_body() {
    for body in odd_answers() {
        let answer = body.clone();
        let layer = from_fn(move |request: Request, next: Next| {
            let answer = answer.clone();
            async move {
                let reserve = request.uri().path().ends_with("/reserve");
                if reserve { answer.into_response() } else { next.run(request).await }
            }
        });
        let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
        let response = proxy.post(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
        let shown = body.escape_ascii();
        assert_eq!(response.status(), StatusCode::OK, "{shown}");
        let bytes = response.bytes().await.unwrap();
        // In UTF-16 every other byte is a zero.
        let seen: Vec<u8> = bytes.iter().copied().filter(|byte| *byte != 0).collect();
        let seen = String::from_utf8_lossy(&seen);
        assert!(!seen.contains(&TOKEN[6..]) && !seen.contains("other-token"), "{shown}: {seen}");
        assert!(seen.contains("held-by-proxy") && seen.contains("r-1"), "{shown}: {seen}");
        let rows = held(&proxy).await;
        assert_eq!(rows.len(), 1, "{shown}");
        assert_eq!(
            (&rows[0]["reservation_id"], &rows[0]["client"]),
            (&"r-1".into(), &"local".into()),
            "{shown}"
        );
    }
}
