//! Reserves whose answer was lost, or not written before the process died, and what becomes of them.

use std::{
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    Router,
    body::{Body, Bytes, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::{runtime::Runtime, task::spawn_blocking};

use crate::{
    common::{GENERAL_JOB, TestProxy, WORKFLOW, WORKFLOW_JOB, json, problem, serve, serve_sandbox},
    reservations::{PROOF, held},
};

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
