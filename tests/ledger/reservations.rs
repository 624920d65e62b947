//! Reservations: remembered until their end, over restarts, and put to use.

use std::{
    fs,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use http::{StatusCode, header};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::spawn_blocking};

use crate::{
    agents::{Agent, may},
    common::{
        self, GENERAL_JOB, TestProxy, WORKFLOW, WORKFLOW_JOB, json, problem, serve, serve_sandbox,
    },
};

const PROOF: &str = r#"{"proof_text":"done"}"#;

async fn reserve(proxy: &TestProxy, job: &str) -> String {
    let reserved = proxy.ok(&format!("/jobs/{job}/reserve"), "").await;
    reserved["job"]["reservation_id"].as_str().unwrap().to_owned()
}

/// What is held, as it is listed.
async fn held(proxy: &TestProxy) -> Vec<Value> {
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

/// Gives a job once more to who holds it, as it was given first. Perhaps it loses the answer to the first
/// reserve, and to what is asked about it until the gate is open.
fn losing(router: Router, gate: Arc<AtomicBool>, loses: bool) -> (Router, Arc<Mutex<Vec<String>>>) {
    let (ids, given) =
        (Arc::<Mutex<Vec<String>>>::default(), Arc::<Mutex<Option<Bytes>>>::default());
    let seen = ids.clone();
    let layer = from_fn(move |request: Request, next: Next| {
        let (ids, given, gate) = (ids.clone(), given.clone(), gate.clone());
        async move {
            let path = request.uri().path().to_owned();
            if !path.ends_with("/reserve") {
                let hidden = path.ends_with("/status") && !gate.load(SeqCst);
                let answer = next.run(request).await;
                return if hidden { StatusCode::NOT_FOUND.into_response() } else { answer };
            }
            let (head, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let sent: Value = serde_json::from_slice(&body).unwrap();
            ids.lock().unwrap().push(sent["request_id"].as_str().unwrap().to_owned());
            let answer = next.run(Request::from_parts(head, Body::from(body))).await;
            if !answer.status().is_success() {
                let given = given.lock().unwrap().clone();
                return given.map_or(answer, IntoResponse::into_response);
            }
            let body = to_bytes(answer.into_body(), usize::MAX).await.unwrap();
            *given.lock().unwrap() = Some(body.clone());
            if loses { StatusCode::BAD_GATEWAY.into_response() } else { body.into_response() }
        }
    });
    (router.layer(layer), seen)
}

#[tokio::test]
async fn a_reserve_whose_answer_was_lost_is_made_once_more_for_its_instructions() {
    let sandbox = Sandbox::new(Settings::default());
    let (router, ids) = losing(sandbox.router(), Arc::new(AtomicBool::new(true)), true);
    let upstream = serve(router).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    let reserved = proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    assert!(reserved["job"]["job_instructions"].is_string(), "{reserved}");
    assert_eq!(held(&proxy).await[0]["workflow_token"], "held-by-proxy");
    let ids = ids.lock().unwrap().clone();
    assert!(ids.len() == 2 && ids[0] != ids[1], "a fresh request id: {ids:?}");
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
}

#[tokio::test]
async fn of_a_reservation_without_instructions_the_end_is_told_and_remembered() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    for key in ["k"; 2] {
        proxy.sandbox.inject("cut_after:job_reserve:1".parse().unwrap());
        let url = proxy.url(&format!("/api/external/jobs/{GENERAL_JOB}/reserve"));
        let response = proxy.client.post(url).header("idempotency-key", key).send().await.unwrap();
        let lost = problem(response).await;
        let expected = (&json!("outcome_unknown"), &json!(true), &json!("never"));
        assert_eq!((&lost["code"], &lost["processed"], &lost["retry"]), expected, "{lost}");
        let rows = held(&proxy).await;
        assert_eq!((rows.len(), &rows[0]["job_id"]), (1, &json!(GENERAL_JOB)));
        let end = lost["reserved_until"].as_str().unwrap().parse::<Timestamp>().unwrap();
        let row = rows[0]["reserved_until"].as_str().unwrap().parse::<Timestamp>().unwrap();
        assert!(end.duration_since(row).abs() < SignedDuration::from_millis(1), "{end} {row}");
        assert!(lost["detail"].as_str().unwrap().contains("the reservation ends at"), "{lost}");
        assert!((1700..=1800).contains(&rows[0]["seconds_left"].as_i64().unwrap()), "{rows:?}");
        proxy.sandbox.clear_faults();
    }
}

#[tokio::test]
async fn what_a_dead_process_has_reserved_comes_back_by_a_replay() {
    let sandbox = Sandbox::new(Settings::default());
    let gate = Arc::new(AtomicBool::new(false));
    let (router, _) = losing(sandbox.router(), gate.clone(), true);
    let upstream = serve(router).await;
    let reserve = async |proxy: &TestProxy| {
        let url = proxy.url(&format!("/api/external/jobs/{GENERAL_JOB}/reserve"));
        proxy.client.post(url).header("idempotency-key", "k").send().await.unwrap()
    };
    // A runtime of its own, so that all of it ends.
    let (runtime, behind) = (Runtime::new().unwrap(), sandbox.clone());
    let first = runtime.spawn(async move {
        let first = TestProxy::in_front_of(behind, upstream, |_| {}).await;
        let lost = problem(reserve(&first).await).await;
        assert_eq!((&lost["code"], &lost["processed"]), (&json!("outcome_unknown"), &Value::Null));
        assert!(held(&first).await.is_empty());
        first.folder()
    });
    let folder = first.await.unwrap();
    spawn_blocking(move || drop(runtime)).await.unwrap();
    gate.store(true, SeqCst);
    let second = TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await;
    let complete = async || {
        let url = second.url(&format!("/api/external/jobs/{GENERAL_JOB}/complete"));
        let request = second.client.post(url).header("idempotency-key", "of-completion");
        request.body(PROOF).send().await.unwrap().status()
    };
    assert_eq!(complete().await, StatusCode::UNPROCESSABLE_ENTITY, "it lacks its reservation_id");
    for replayed in [false, true] {
        let response = reserve(&second).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers().contains_key("idempotency-replayed"), replayed);
        assert!(json(response).await["job"]["job_instructions"].is_string());
    }
    // So does the id that the completion lacked.
    assert_eq!(complete().await, StatusCode::OK);
    assert_eq!(second.sandbox.accepted(GENERAL_JOB), 1);
}

#[tokio::test]
async fn a_reservation_that_was_not_written_before_the_process_died_comes_back_by_a_replay() {
    let sandbox = Sandbox::new(Settings::default());
    let (router, ids) = losing(sandbox.router(), Arc::new(AtomicBool::new(true)), false);
    let upstream = serve(router).await;
    let reserve = async |proxy: &TestProxy| {
        let url = proxy.url(&format!("/api/external/jobs/{WORKFLOW_JOB}/reserve"));
        let response = proxy.client.post(url).header("idempotency-key", "k").send().await.unwrap();
        let replayed = response.headers().contains_key("idempotency-replayed");
        assert_eq!(response.status(), StatusCode::OK);
        assert!(json(response).await["job"]["job_instructions"].is_string());
        replayed
    };
    let full = |folder: &Path, sql: &str| {
        Connection::open(folder.join("proxy.db")).unwrap().execute_batch(sql).unwrap();
    };
    // A runtime of its own, so that all of it ends.
    let (runtime, behind) = (Runtime::new().unwrap(), sandbox.clone());
    let first = runtime.spawn(async move {
        let first = TestProxy::in_front_of(behind, upstream, |_| {}).await;
        let sql = "CREATE TRIGGER full BEFORE INSERT ON reservations
                   BEGIN SELECT RAISE(FAIL, 'full'); END";
        full(first.folder().path(), sql);
        assert!(!reserve(&first).await);
        assert_eq!(held(&first).await.len(), 1, "as long as it lives");
        first.folder()
    });
    let folder = first.await.unwrap();
    spawn_blocking(move || drop(runtime)).await.unwrap();
    full(folder.path(), "DROP TRIGGER full");
    let second = TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await;
    assert!(held(&second).await.is_empty());
    for replayed in [false, true] {
        assert_eq!(reserve(&second).await, replayed);
        assert_eq!(held(&second).await[0]["workflow_token"], "held-by-proxy");
    }
    assert_eq!(ids.lock().unwrap().len(), 2);
    second.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
}

/// Keeps a proxy from writing answers, as a full disk does, or no longer.
fn refuse_answers(folder: &tempfile::TempDir, refuse: bool) {
    let sql = match refuse {
        true => {
            "CREATE TRIGGER full BEFORE UPDATE OF answer ON answers
             BEGIN SELECT RAISE(FAIL, 'full'); END"
        }
        false => "DROP TRIGGER full",
    };
    let database = Connection::open(folder.path().join("proxy.db")).unwrap();
    database.execute_batch(sql).unwrap();
}

/// Reserves a job under a key, and tells whether the answer was given before.
async fn reserve_under_key(proxy: &TestProxy) -> bool {
    let url = proxy.url(&format!("/api/external/jobs/{WORKFLOW_JOB}/reserve"));
    let response = proxy.client.post(url).header("idempotency-key", "k").send().await.unwrap();
    let replayed = response.headers().contains_key("idempotency-replayed");
    let answer = json(response).await;
    assert!(answer["job"]["job_instructions"].is_string(), "{answer}");
    assert_eq!(held(proxy).await[0]["workflow_token"], "held-by-proxy");
    replayed
}

#[tokio::test]
async fn an_answer_that_could_not_be_written_is_written_once_it_can_be_and_given_again() {
    let proxy = TestProxy::start().await;
    refuse_answers(&proxy.folder(), true);
    assert!(!reserve_under_key(&proxy).await);
    refuse_answers(&proxy.folder(), false);
    assert!(reserve_under_key(&proxy).await, "the key waits for it");
}

#[tokio::test]
async fn a_reserve_whose_answer_was_never_written_is_made_once_more_after_a_restart() {
    let sandbox = Sandbox::new(Settings::default());
    let (router, ids) = losing(sandbox.router(), Arc::new(AtomicBool::new(true)), false);
    let upstream = serve(router).await;
    // A runtime of its own, so that all of it ends.
    let (runtime, behind) = (Runtime::new().unwrap(), sandbox.clone());
    let first = runtime.spawn(async move {
        let first = TestProxy::in_front_of(behind, upstream, |_| {}).await;
        refuse_answers(&first.folder(), true);
        assert!(!reserve_under_key(&first).await);
        first.folder()
    });
    let folder = first.await.unwrap();
    spawn_blocking(move || drop(runtime)).await.unwrap();
    refuse_answers(&folder, false);
    let second = TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await;
    for (replayed, sent) in [(false, 2), (true, 2)] {
        assert_eq!(reserve_under_key(&second).await, replayed);
        assert_eq!(ids.lock().unwrap().len(), sent);
    }
}
