//! Requests that would forge a line of the log, or a member of a problem document.

use std::collections::BTreeSet;

use serde_json::{Map, Value};

use crate::{
    binary::{Home, PASSWORD, Server, until},
    wire::{bytes, exchange},
};

/// The fields that an event of a request may have.
const FIELDS: [&str; 15] = [
    "timestamp",
    "level",
    "message",
    "request_id",
    "client",
    "method",
    "path",
    "action",
    "product",
    "status",
    "microseconds",
    "upstream_microseconds",
    "tries",
    "error",
    "detail",
];

/// Requests that carry a word behind something that may end a line or a string, wherever there
/// is room for it.
fn forgeries() -> Vec<String> {
    let head = "host: $HOST\nconnection: close\n";
    let list = "POST /api/external/jobs/list HTTP/1.1\n";
    let id = "\u{e2}\u{80}\u{a8}";
    let body = r#"{"limit":"\n{\"message\":\"FORGED\"}\u001b[2J"}"#;
    let breaks = ["%0a", "%0d%0a", "%22,%22a%22:%22", "%1b[2J", "%e2%80%a8", "%00", "\",\"a\":\""];
    let mut texts: Vec<String> = breaks
        .iter()
        .flat_map(|text| {
            [
                format!("POST /{text}FORGED HTTP/1.1\n{head}content-length: 0\n\n"),
                format!("GET /api/external/jobs/{text}FORGED/status HTTP/1.1\n{head}\n"),
                format!("POST /api/external/jobs/{text}FORGED/status HTTP/1.1\n{head}content-length: 0\n\n"),
            ]
        })
        .collect();
    texts.extend([
        format!("{list}{head}content-length: {}\n\n{body}", body.len()),
        format!("FORGED|x~ /healthz HTTP/1.1\n{head}content-length: 0\n\n"),
        format!("{list}{head}origin: null\nx-request-id: a FORGED\ncontent-length: 0\n\n"),
        format!("{list}{head}origin: null\nx-request-id: {id}FORGED\ncontent-length: 0\n\n"),
        format!(
            "{list}{head}origin: null\nx-request-id: {}FORGED\ncontent-length: 0\n\n",
            "a".repeat(2_000)
        ),
        format!("{list}{head}origin: null\nx-request-id: a\tFORGED\ncontent-length: 0\n\n"),
        format!(
            "{list}{head}origin: FORGED\nuser-agent: FORGED\nreferer: FORGED\ncontent-length: 0\n\n"
        ),
        format!("{list}host: FORGED\ncontent-length: 0\nconnection: close\n\n"),
        format!("{list}{head}authorization: Bearer apmt_FORGED\ncontent-length: 0\n\n"),
        format!("{list}{head}idempotency-key: FORGED FORGED\ncontent-length: 0\n\n"),
        format!(
            "POST /api/external/jobs/list?FORGED=%0aFORGED HTTP/1.1\n{head}content-length: 0\n\n"
        ),
    ]);
    texts
}

/// A home, which has to outlive the program, whose log has this format.
fn home(format: &str) -> Home {
    let home = Home::with_wallet().with_password(PASSWORD);
    // Nothing listens there.
    let home = home.with("AGENTPMT_PROXY_UPSTREAM__URL", "http://127.0.0.1:9");
    home.with("AGENTPMT_PROXY_LOG__FORMAT", format)
}

/// Sends every forgery; gives the answers to those that were read as requests.
async fn attack(server: &Server) -> Vec<String> {
    let mut answers = Vec::new();
    for text in forgeries() {
        let bytes = bytes(&text, &server.address.to_string());
        answers.push(exchange(server.address, &bytes).await);
    }
    // What is no HTTP has no id and no event.
    answers.retain(|answer| answer.contains("\r\nx-request-id: "));
    assert!(answers.len() > 20, "{answers:?}");
    answers
}

#[tokio::test]
async fn a_log_of_json_has_one_event_a_request_with_the_fields_that_it_has() {
    let home = home("json");
    let server = home.serve(&["serve"]);
    let answers = attack(&server).await;
    until(|| server.log().matches("\"message\":\"request\"").count() >= answers.len());
    let log = server.log();
    let events: Vec<Map<String, Value>> =
        log.lines().map(|line| serde_json::from_str(line).expect(line)).collect();
    let requests = events.iter().filter(|event| event["message"] == "request");
    assert_eq!(requests.clone().count(), answers.len(), "{log}");
    for event in requests {
        let foreign: Vec<_> =
            event.keys().filter(|name| !FIELDS.contains(&name.as_str())).collect();
        assert_eq!(foreign, [""; 0]);
        // As a request has named them: neither a line nor a string ends there.
        for name in ["request_id", "method", "path"] {
            let text = event[name].as_str().unwrap();
            assert!(text.bytes().all(|byte| byte.is_ascii_graphic()), "{name}: {text:?}");
        }
    }
}

#[tokio::test]
async fn a_token_in_the_wrong_place_is_neither_logged_nor_repeated_nor_on_record() {
    const TOKEN: &str = "apmt_000102030405060708090a0b0c0d0e0f1011121314151617cafe0123";
    let home = home("json");
    let server = home.serve(&["serve"]);
    let head = "connection: close\ncontent-length: 0\n";
    let list = "POST /api/external/jobs/list HTTP/1.1\n";
    let requests = [
        format!("POST /api/external/jobs/{TOKEN}/reserve HTTP/1.1\nhost: $HOST\n{head}\n"),
        format!("GET /api/external/jobs/{TOKEN}/reserve HTTP/1.1\nhost: $HOST\n{head}\n"),
        format!("POST /x/{TOKEN}?a={TOKEN} HTTP/1.1\nhost: $HOST\n{head}\n"),
        format!("{list}host: $HOST\nx-request-id: a-{TOKEN}\n{head}\n"),
        format!("{list}host: {TOKEN}.example\n{head}\n"),
        format!("{list}host: $HOST\norigin: http://{TOKEN}\n{head}\n"),
        format!("{list}host: $HOST\ncontent-encoding: {TOKEN}\n{head}\n"),
    ];
    for request in &requests {
        let bytes = bytes(request, &server.address.to_string());
        let answer = exchange(server.address, &bytes).await;
        assert!(answer.starts_with("HTTP/1.1 ") && !answer.contains(&TOKEN[..20]), "{answer}");
    }
    until(|| server.log().matches("\"message\":\"request\"").count() >= requests.len());
    assert!(!server.log().contains(&TOKEN[..20]), "{}", server.log());
    assert_eq!(server.signal("TERM").code, Some(0));
    let journal = home.run(&["journal", "tail", "--json"]);
    assert!(journal.code == Some(0) && !journal.stdout.contains(&TOKEN[..20]), "{journal:?}");
}

#[tokio::test]
async fn a_log_of_text_has_one_line_a_request() {
    let home = home("text");
    let server = home.serve(&["serve"]);
    let answers = attack(&server).await;
    until(|| server.log().matches(" INFO request ").count() >= answers.len());
    let log = server.log();
    let stray = |byte: &u8| *byte != b'\n' && byte.is_ascii_control();
    assert!(!log.as_bytes().iter().any(stray), "{log:?}");
    let requests = log.lines().filter(|line| line.contains(" INFO request "));
    assert_eq!(requests.count(), answers.len(), "{log}");
    for line in log.lines() {
        assert!(line.starts_with("20") && line.split(' ').next().unwrap().ends_with('Z'), "{line}");
    }
}

#[tokio::test]
async fn a_problem_has_the_members_that_it_has_whatever_it_repeats() {
    let home = home("json");
    let server = home.serve(&["serve"]);
    let members = ["code", "detail", "request_id", "retry", "status", "title", "type"];
    for answer in attack(&server).await {
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        if !head.contains("x-agentpmt-proxy-error: ") {
            continue;
        }
        assert!(head.contains("content-type: application/problem+json\r\n"), "{head}");
        let problem: Map<String, Value> = serde_json::from_str(body).expect(body);
        let names: BTreeSet<_> = problem.keys().map(String::as_str).collect();
        assert_eq!(names, BTreeSet::from(members), "{body}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(!detail.contains(char::is_control), "{detail:?}");
        assert!(
            head.contains(&format!(
                "x-request-id: {}\r\n",
                problem["request_id"].as_str().unwrap()
            ))
        );
    }
}
