//! Who calls: from the first client on, everyone says who they are, by token.

use std::time::Duration;

use agentpmt_proxy::{policy::Client, types::ClientToken};
use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{sleep, timeout},
};

use crate::{
    agents::{Agent, clients, denials, may, records},
    common::{GENERAL_JOB, TestProxy, problem},
};

/// The problem of a list call with this `Authorization`, or none.
async fn refusal(proxy: &TestProxy, authorization: Option<&str>) -> Value {
    let request = proxy.client.post(proxy.url("/api/external/jobs/list"));
    let request = match authorization {
        Some(value) => request.header("authorization", value),
        None => request,
    };
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), StatusCode::UNAUTHORIZED, "{authorization:?}");
    assert_eq!(response.headers()["www-authenticate"], "Bearer realm=\"agentpmt-proxy\"");
    problem(response).await
}

#[tokio::test]
async fn with_no_client_everyone_on_this_machine_is_the_client_local() {
    let proxy = TestProxy::start().await;
    proxy.ok("/jobs/list", "").await;
    // A program that was written for the upstream may send a token of its own.
    let request = proxy.client.post(proxy.url("/api/external/jobs/list"));
    let response = request.bearer_auth("of-another-server").send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
    let signed = records(&proxy, "signed").await;
    let names: Vec<_> = signed.iter().map(|record| record.text("client").unwrap()).collect();
    assert_eq!(names, ["local", "local"]);
}

#[tokio::test]
async fn from_the_first_client_on_a_token_is_asked_for_everywhere_but_for_health() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "all"));
    assert_eq!(refusal(&proxy, None).await["code"], "unauthenticated");
    for path in ["/proxy/reservations", "/proxy/status", "/proxy/approvals/x"] {
        let response = proxy.client.get(proxy.url(path)).send().await.unwrap();
        assert_eq!(problem(response).await["code"], "unauthenticated", "{path}");
    }
    for path in ["/api/external/auth/session", "/proxy/reload", "/proxy/freeze", "/proxy/thaw"] {
        let response = proxy.client.post(proxy.url(path)).send().await.unwrap();
        assert_eq!(problem(response).await["code"], "unauthenticated", "{path}");
    }
    for path in ["/healthz", "/readyz"] {
        let response = proxy.client.get(proxy.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
    agent.ok("/jobs/list", "").await;
    let signed = records(&proxy, "signed").await;
    assert_eq!(signed[0].text("client").as_deref(), Some("ci"));
}

#[tokio::test]
async fn nothing_points_to_an_authorization_server() {
    let proxy = TestProxy::start().await;
    Agent::add(&proxy, &may("ci", "all"));
    // From the 401, a client would go on to look for one here.
    for path in ["oauth-protected-resource", "oauth-authorization-server", "openid-configuration"] {
        for suffix in ["", "/mcp"] {
            let url = proxy.url(&format!("/.well-known/{path}{suffix}"));
            let response = proxy.client.get(url).send().await.unwrap();
            assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}{suffix}");
            assert!(!response.headers().contains_key("www-authenticate"), "{path}{suffix}");
        }
    }
}

#[tokio::test]
async fn a_token_that_is_not_the_clients_is_refused_with_what_is_wrong_with_it() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "all"));
    let token = agent.token.expose();
    let last = if token.ends_with('0') { "1" } else { "0" };
    let mistyped = format!("Bearer {}{last}", &token[..token.len() - 1]);
    let unknown = format!("Bearer {}", ClientToken::random().expose());
    let twice = format!("Bearer {token}, Bearer {token}");
    for (authorization, code) in [
        (mistyped.as_str(), "mistyped_token"),
        (&unknown, "unknown_token"),
        (&twice, "mistyped_token"),
        ("Bearer ghp_0123456789", "unknown_token"),
        ("Bearer ", "unknown_token"),
        ("Basic Y2k6Y2k=", "unknown_token"),
        (token, "malformed_authorization"),
    ] {
        let problem = refusal(&proxy, Some(authorization)).await;
        assert_eq!(problem["code"], code, "{}", problem["detail"]);
        let secret = &token["apmt_".len()..][..16];
        assert!(!problem.to_string().contains(secret), "{problem}");
    }
    let two = proxy.client.post(proxy.url("/api/external/jobs/list"));
    let two = two.header("authorization", format!("Bearer {token}"));
    let two = two.header("authorization", format!("Bearer {token}")).send().await.unwrap();
    assert_eq!(problem(two).await["code"], "malformed_authorization");
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn the_scheme_of_a_token_has_no_case() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "all"));
    let request = proxy.client.post(proxy.url("/api/external/jobs/list"));
    let request = request.header("authorization", format!("bEARER  {}", agent.token.expose()));
    assert_eq!(request.send().await.unwrap().status(), StatusCode::OK);
}

#[tokio::test]
async fn a_name_that_is_added_again_has_a_new_token_and_its_old_reservations() {
    let proxy = TestProxy::start().await;
    let old = Agent::add(&proxy, &may("ci", "all"));
    assert!(old.reserve(GENERAL_JOB).await.status().is_success());
    clients(&proxy).revoke(&old.name, Timestamp::now()).unwrap();
    let new = Agent::add(&proxy, &may("ci", "all"));
    assert_eq!(old.refused("/jobs/list", "").await.1, "unknown_token");
    assert_eq!(new.held().await, [GENERAL_JOB]);
}

/// Sends a call up to its body, and waits until the proxy asks for that.
async fn begin(agent: &Agent, proxy: &TestProxy, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = format!(
        "POST /api/external{path} HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {}\r\n\
         content-length: {}\r\nexpect: 100-continue\r\nconnection: close\r\n\r\n",
        proxy.address,
        agent.token.expose(),
        body.len()
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    timeout(Duration::from_secs(60), stream.read_exact(&mut asked)).await.unwrap().unwrap();
    assert_eq!(&asked, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// Sends the body of a call, and returns the head and the body of the answer.
async fn end(mut stream: TcpStream, body: &str) -> (String, String) {
    stream.write_all(body.as_bytes()).await.unwrap();
    let mut answer = String::new();
    let read = stream.read_to_string(&mut answer);
    timeout(Duration::from_secs(60), read).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.to_owned(), body.to_owned())
}

#[tokio::test]
async fn who_is_revoked_while_the_body_comes_is_refused() {
    let proxy = TestProxy::start().await;
    for (name, path) in [("reader", "/jobs/list".to_owned()), ("worker", reserve())] {
        let agent = Agent::add(&proxy, &may(name, "all"));
        let call = begin(&agent, &proxy, &path, "{}").await;
        clients(&proxy).revoke(&agent.name, Timestamp::now()).unwrap();
        // A body that takes its time.
        sleep(Duration::from_millis(150)).await;
        let (head, body) = end(call, "{}").await;
        assert!(head.starts_with("HTTP/1.1 403 ") && body.contains("access_ended"), "{head}{body}");
    }
    assert!(records(&proxy, "signed").await.is_empty());
}

#[tokio::test]
async fn a_call_that_began_without_clients_is_nobodys_once_there_is_one() {
    let proxy = TestProxy::start().await;
    let nobody = Agent::add(&proxy, &may("nobody", "all"));
    clients(&proxy).revoke(&nobody.name, Timestamp::now()).unwrap();
    clients(&proxy).remove(&nobody.name).unwrap();
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    let head = format!(
        "POST /api/external/jobs/list HTTP/1.1\r\nhost: {}\r\ncontent-length: 2\r\n\
         expect: 100-continue\r\nconnection: close\r\n\r\n",
        proxy.address
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut asked = [0; 25];
    timeout(Duration::from_secs(60), stream.read_exact(&mut asked)).await.unwrap().unwrap();
    Agent::add(&proxy, &may("first", "all"));
    sleep(Duration::from_millis(150)).await;
    let (head, body) = end(stream, "{}").await;
    assert!(head.starts_with("HTTP/1.1 403 ") && body.contains("access_ended"), "{head}{body}");
    assert!(records(&proxy, "signed").await.is_empty());
}

#[tokio::test]
async fn a_client_whose_time_is_over_is_told_so_and_that_is_on_record() {
    let proxy = TestProxy::start().await;
    let over = Timestamp::from_millisecond(Timestamp::now().as_millisecond()).unwrap();
    let expired = Agent::add(&proxy, &Client { expires: Some(over), ..may("old", "all") });
    let later = Timestamp::now() + SignedDuration::from_hours(1);
    let running = Agent::add(&proxy, &Client { expires: Some(later), ..may("new", "all") });
    let response = expired.reserve(GENERAL_JOB).await;
    assert_eq!(response.status(), StatusCode::FORBIDDEN);
    let problem = problem(response).await;
    assert_eq!(problem["code"], "access_ended");
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("old") && detail.contains(&over.to_string()), "{detail}");
    running.ok("/jobs/list", "").await;
    let denied = denials(&proxy, ["client", "action", "product", "reason"]).await;
    assert_eq!(denied, [["old", "job_reserve", GENERAL_JOB, "access_ended"]]);
}

fn reserve() -> String {
    format!("/jobs/{GENERAL_JOB}/reserve")
}

#[tokio::test]
async fn calls_of_nobody_that_is_known_are_on_record_without_what_they_showed() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "all"));
    let stranger = ClientToken::random();
    let unknown = format!("Bearer {}", stranger.expose());
    let codes = [
        refusal(&proxy, None).await["code"].clone(),
        refusal(&proxy, Some(&unknown)).await["code"].clone(),
        refusal(&proxy, Some(&unknown[..40])).await["code"].clone(),
    ];
    let denied = denials(&proxy, ["client", "from", "action", "reason"]).await;
    let reasons: Vec<_> = denied.iter().map(|row| row[3].as_str()).collect();
    assert_eq!(reasons, codes);
    for row in &denied {
        assert_eq!(row[..3], ["-", "127.0.0.1", "job_list"]);
    }
    let text = format!("{denied:?}");
    assert!(!text.contains("apmt_") && agent.held().await.is_empty(), "{text}");
}

#[tokio::test]
async fn the_session_that_is_answered_here_names_the_clients_wallet() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "read"));
    let session = agent.ok("/auth/session", "").await;
    let wallet = proxy.proxy.wallet_of(&Client::local()).to_string();
    assert_eq!(
        (&session["session_nonce"], &session["wallet_address"]),
        (&"held-by-proxy".into(), &wallet.into())
    );
}
