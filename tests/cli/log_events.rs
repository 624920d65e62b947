//! One structured event a request, as the real program writes it.

use std::time::Duration;

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use reqwest::Response;
use serde_json::Value;
use tokio::time::sleep;

use crate::{
    binary::{Home, PASSWORD, Server, until},
    common::{self, GENERAL_JOB, serve_sandbox},
};

/// A program that logs as JSON, since its log is no terminal, the sandbox behind it, and the token of
/// the client `ci`, who may call all about jobs.
async fn served(home: &Home) -> (Sandbox, Server, String) {
    let added = home.run(&["client", "add", "ci", "--allow", "jobs"]).result();
    let token = added.lines().next().unwrap().to_owned();
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let server = home.serve(&["serve", "--upstream", &upstream]);
    (sandbox, server, token)
}

fn home() -> Home {
    Home::with_wallet().with_password(PASSWORD)
}

async fn send(server: &Server, token: &str, method: &str, path: &str, id: &str) -> Response {
    let url = format!("{}{path}", server.place);
    let request = common::client().request(method.parse().unwrap(), url);
    request.bearer_auth(token).header("x-request-id", id).send().await.unwrap()
}

/// The one event of a request, with the fields that differ from run to run checked and taken out.
fn event(server: &Server, id: &str) -> Value {
    let of_request = || {
        let log = server.log();
        let lines = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        lines.filter(|event| event["request_id"] == id).collect::<Vec<_>>()
    };
    // It is written after the answer.
    until(|| !of_request().is_empty());
    let events = of_request();
    assert_eq!(events.len(), 1, "{events:?}");
    let mut event = events[0].clone();
    let fields = event.as_object_mut().unwrap();
    assert!(fields.remove("timestamp").unwrap().is_string());
    let all = fields.remove("microseconds").unwrap().as_u64().unwrap();
    if let Some(upstream) = fields.remove("upstream_microseconds") {
        assert!(fields.contains_key("tries") && upstream.as_u64().unwrap() <= all);
    }
    event
}

#[tokio::test]
async fn a_call_is_told_in_one_event_with_all_of_its_fields() {
    let home = home();
    let (_, server, token) = served(&home).await;
    let path = format!("/api/external/jobs/{GENERAL_JOB}/reserve");
    assert_eq!(send(&server, &token, "POST", &path, "r-1").await.status(), 200);
    let expected = serde_json::json!({
        "level": "INFO",
        "message": "request",
        "request_id": "r-1",
        "client": "ci",
        "method": "POST",
        "path": path,
        "action": "job_reserve",
        "product": GENERAL_JOB,
        "status": 200,
        "tries": 1,
    });
    assert_eq!(event(&server, "r-1"), expected);
}

#[tokio::test]
async fn tries_are_counted_and_so_is_a_session_that_is_renewed() {
    let home = home();
    let (sandbox, server, token) = served(&home).await;
    let list = "/api/external/jobs/list";
    for (id, fault, tries) in
        [("r-1", "status_503:job_list:2", 3), ("r-2", "forget_sessions:job_list:1", 2)]
    {
        let mut fault: agentpmt_proxy::sandbox::InjectedFault = fault.parse().unwrap();
        fault.retry_after = 0;
        sandbox.inject(fault);
        assert_eq!(send(&server, &token, "POST", list, id).await.status(), 200);
        let event = event(&server, id);
        assert_eq!((&event["tries"], &event["status"]), (&tries.into(), &200.into()), "{event}");
        assert!(event.get("product").is_none() && event.get("error").is_none(), "{event}");
    }
}

#[tokio::test]
async fn an_error_is_told_by_its_code_and_what_it_says() {
    let home = home();
    let (sandbox, server, token) = served(&home).await;
    let path = format!("/api/external/jobs/{GENERAL_JOB}/complete");
    assert_eq!(send(&server, &token, "POST", &path, "r-1").await.status(), 409);
    let denied = event(&server, "r-1");
    let fields = ["client", "action", "product", "error"].map(|name| denied[name].clone());
    assert_eq!(fields, ["ci", "job_complete", GENERAL_JOB, "not_reserved"].map(Value::from));
    assert!(denied["detail"].as_str().unwrap().contains("reserve it first"), "{denied}");
    assert!(denied.get("tries").is_none(), "it was not sent: {denied}");

    sandbox.inject("cut_after:job_reserve:1".parse().unwrap());
    let path = format!("/api/external/jobs/{GENERAL_JOB}/reserve");
    assert_eq!(send(&server, &token, "POST", &path, "r-2").await.status(), 504);
    let lost = event(&server, "r-2");
    assert_eq!((&lost["error"], &lost["tries"]), (&"outcome_unknown".into(), &2.into()), "{lost}");
    // The upstream's own refusal is no error of the proxy.
    let status = send(&server, &token, "POST", "/api/external/jobs/nowhere/status", "r-3").await;
    assert_eq!(status.status(), 404);
    let refused = event(&server, "r-3");
    assert_eq!(refused["status"], 404);
    assert!(refused.get("error").is_none(), "{refused}");
}

/// The steps of a call, in the order in which they were told, each with its detail.
fn steps(server: &Server, id: &str) -> Vec<String> {
    let is_over = |log: &str| log.contains(r#""message":"request""#);
    until(|| is_over(&server.log()));
    let log = server.log();
    let events = log.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let steps = events.filter(|event| event["level"] == "DEBUG" && event["request_id"] == id);
    let text = |event: &Value, name| event[name].as_str().unwrap_or_default().to_owned();
    let step = |event| format!("{} {}", text(&event, "message"), text(&event, "detail"));
    steps.map(|event| step(event).trim_end().to_owned()).collect()
}

#[tokio::test]
async fn for_debugging_every_step_of_a_call_is_told_and_why_it_was_made_again() {
    let home = home().with("AGENTPMT_PROXY_LOG__LEVEL", "debug");
    let (sandbox, server, token) = served(&home).await;
    sandbox.inject("cut_after:job_reserve:1".parse().unwrap());
    let path = format!("/api/external/jobs/{GENERAL_JOB}/reserve");
    assert_eq!(send(&server, &token, "POST", &path, "r-1").await.status(), 504);
    let mut steps = steps(&server, "r-1");
    let again = steps.remove(4);
    assert!(again.starts_with("again the connection to ") && again.contains(" broke"), "{again}");
    let expected = [
        "admitted",
        "begun",
        "signed",
        "sent job_reserve",
        "signed",
        "sent job_status",
        "settled reserved",
        "signed",
        "sent job_reserve",
        "finished",
    ];
    assert_eq!(steps, expected);
}

#[tokio::test]
async fn of_a_caller_that_is_refused_no_client_is_told() {
    let home = home();
    let (_, server, token) = served(&home).await;
    let unknown = agentpmt_proxy::types::ClientToken::random();
    let list = "/api/external/jobs/list";
    for (id, token, error) in [
        ("r-1", unknown.expose(), "unknown_token"),
        ("r-2", &token[..20], "mistyped_token"),
        ("r-3", "", "unknown_token"),
    ] {
        assert_eq!(send(&server, token, "POST", list, id).await.status(), 401);
        let event = event(&server, id);
        assert_eq!((&event["status"], &event["error"]), (&401.into(), &error.into()));
        assert!(event.get("client").is_none() && event.get("tries").is_none(), "{event}");
    }
    let log = server.log();
    assert!(!log.contains(&token["apmt_".len()..20]) && !log.contains(unknown.expose()), "{log}");
}

#[tokio::test]
async fn what_is_no_call_has_an_event_too() {
    let home = home();
    let (_, server, token) = served(&home).await;
    let rows = [
        ("r-1", "GET", "/healthz", 200, None),
        ("r-2", "GET", "/nowhere", 404, Some("unknown_path")),
        ("r-3", "DELETE", "/api/external/jobs/list", 405, Some("wrong_method")),
        ("r-4", "GET", "/proxy/status", 200, None),
        ("r-5", "POST", "/api/external/jobs/list?limit=1", 400, Some("query_not_taken")),
    ];
    for (id, method, path, status, error) in rows {
        assert_eq!(send(&server, &token, method, path, id).await.status(), status, "{path}");
        let event = event(&server, id);
        assert_eq!((&event["method"], &event["status"]), (&method.into(), &status.into()));
        assert_eq!(event["error"].as_str(), error, "{event}");
        assert!(!event["path"].as_str().unwrap().contains('?'), "{event}");
    }
}

#[tokio::test]
async fn a_request_whose_client_went_away_has_an_event_without_a_status() {
    let home = home();
    let (sandbox, server, token) = served(&home).await;
    let reserve = format!("/api/external/jobs/{GENERAL_JOB}/reserve");
    for (id, path, action) in
        [("r-1", "/api/external/jobs/list", "job_list"), ("r-2", &reserve, "job_reserve")]
    {
        sandbox.inject(format!("hang_before:{action}:1").parse().unwrap());
        let hangs = async {
            while !sandbox.faults().is_empty() {
                sleep(Duration::from_millis(1)).await;
            }
        };
        tokio::select! {
            answer = send(&server, &token, "POST", path, id) => panic!("{answer:?}"),
            () = hangs => {}
        }
        // The connection is closed by a task of this thread.
        while !server.log().contains(id) {
            sleep(Duration::from_millis(1)).await;
        }
        let event = event(&server, id);
        assert_eq!(event["message"], "request whose client went away before its answer");
        let fields = ["client", "action", "path"].map(|name| event[name].clone());
        assert_eq!(fields, ["ci", action, path].map(Value::from));
        assert!(event.get("status").is_none() && event.get("error").is_none(), "{event}");
    }
}

#[tokio::test]
async fn every_request_has_exactly_one_event() {
    let home = home();
    let (_, server, token) = served(&home).await;
    let list = "/api/external/jobs/list";
    let ids: Vec<_> = (0..50).map(|number| format!("r-{number}")).collect();
    let send = |id| send(&server, &token, "POST", list, id);
    futures_util::future::join_all(ids.iter().map(|id| send(id))).await;
    for id in &ids {
        event(&server, id);
    }
    let ran = server.signal("TERM");
    let requests = ran.stderr.lines().filter(|line| line.contains(r#""message":"request""#));
    assert_eq!(requests.count(), ids.len());
}
