//! The local surface: what is let through, what is refused, and that nothing refused goes upstream.

use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::common::{GENERAL_JOB, TestProxy, json, problem};

#[tokio::test]
async fn the_whole_loop_works_without_signing_code() {
    let proxy = TestProxy::start().await;
    let list = proxy.ok("/jobs/list", "").await;
    assert_eq!(list["jobs"].as_array().unwrap().len(), 15);
    assert_eq!((&list["limit"], &list["skip"]), (&50.into(), &0.into()));

    let reserved = proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let reservation = &reserved["job"]["reservation_id"];
    let status = proxy.ok(&format!("/jobs/{GENERAL_JOB}/status"), "{}").await;
    assert_eq!(status["has_active_reservation"], true);

    let proof = serde_json::json!({ "proof_text": "done — ✓", "reservation_id": reservation });
    let done = proxy.ok(&format!("/jobs/{GENERAL_JOB}/complete"), proof.to_string()).await;
    assert_eq!(done["job"]["status"], "submitted");
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn a_whole_envelope_with_a_wrong_signature_works() {
    let proxy = TestProxy::start().await;
    let wallet = proxy.proxy.wallets()[0].to_string().to_uppercase().replacen("0X", "0x", 1);
    let body = r#"{"wallet_address":"0x00","session_nonce":"held-by-proxy","request_id":"x",
        "signature":"0xbad","limit":3,"skip":1}"#;
    let body = &*body.replace("0x00", &wallet);
    assert_eq!(proxy.ok("/jobs/list", body.to_owned()).await["jobs"].as_array().unwrap().len(), 3);
    let reserved = proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), body.to_owned()).await;
    let reservation = reserved["job"]["reservation_id"].as_str().unwrap();
    let body = body.replace("\"limit\":3", &format!("\"reservation_id\":\"{reservation}\""));
    let body = body.replace("\"skip\":1", "\"proof_text\":\"done\"");
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/complete"), body).await;
}

#[tokio::test]
async fn any_content_type_will_do_if_the_body_is_an_object() {
    let proxy = TestProxy::start().await;
    let url = proxy.url("/api/external/jobs/list");
    for media_type in ["text/plain", "application/x-www-form-urlencoded", "application/json"] {
        let request = proxy.client.post(&url).header("content-type", media_type);
        let response = request.body(r#"{"limit":1}"#).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{media_type}");
    }
    for body in ["", " ", "{}", "\n"] {
        proxy.ok("/jobs/list", body).await;
    }
}

#[tokio::test]
async fn a_session_is_answered_here() {
    let proxy = TestProxy::start().await;
    let session = proxy.ok("/auth/session", r#"{"wallet_address":""}"#).await;
    assert_eq!(session["session_nonce"], "held-by-proxy");
    assert!(session["wallet_address"].as_str().unwrap().starts_with("0x"));
    assert_eq!(session["expires_in"], 900);
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn a_wallet_that_is_not_ours_is_refused_with_both_named() {
    let proxy = TestProxy::start().await;
    let own = proxy.proxy.wallets()[0].to_string();
    let other = format!("0x{}", "1".repeat(40));
    let complete = format!("/jobs/{GENERAL_JOB}/complete");
    let status = format!("/jobs/{GENERAL_JOB}/status");
    for path in ["/auth/session", "/jobs/list", &complete, &status] {
        for named in [&*other, &own[..41], "alice.eth"] {
            let body = format!(r#"{{"proof_text":"done","wallet_address":"{named}"}}"#);
            let problem = problem(proxy.post(path, body).await).await;
            assert_eq!(
                (&problem["status"], &problem["code"]),
                (&409.into(), &"other_wallet".into())
            );
            let detail = problem["detail"].as_str().unwrap();
            assert!(detail.contains(&own) && detail.contains(&format!("is {named}, ")), "{detail}");
        }
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn health_and_readiness_do_not_ask_the_upstream() {
    let proxy = TestProxy::start().await;
    for path in ["/healthz", "/readyz"] {
        let response = proxy.client.get(proxy.url(path)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{path}");
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

/// Sends a body to a path, and gives status and code of the problem that comes back.
async fn refused(proxy: &TestProxy, path: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let response = proxy.post(path, body).await;
    let problem = problem(response).await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.len() > 20 && !detail.contains('\n'), "{path}: {detail}");
    let status = u16::try_from(problem["status"].as_u64().unwrap()).unwrap();
    (status, problem["code"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn a_bad_body_is_refused_and_nothing_is_sent() {
    let proxy = TestProxy::start().await;
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    let deep = format!(r#"{{"a":{}1{}}}"#, "[".repeat(128), "]".repeat(128));
    let bodies: [&[u8]; 10] = [
        b"proof_text=done",
        b"[1,2]",
        b"\"text\"",
        b"{\"a\":1e400}",
        b"{\"a\":\"\\ud800\"}",
        b"{\"\\udc00\":1}",
        b"{\"a\":NaN}",
        b"{\"a\":1",
        b"{\"a\":\"\xff\"}",
        deep.as_bytes(),
    ];
    for body in bodies {
        let expected = (400, "invalid_body".to_owned());
        assert_eq!(
            refused(&proxy, &path, body.to_vec()).await,
            expected,
            "{}",
            body.escape_ascii()
        );
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn a_body_in_another_encoding_is_read_or_its_encoding_is_named() {
    let proxy = TestProxy::start().await;
    let marked = |text: &str| format!("\u{feff}{text}");
    let list = proxy.ok("/jobs/list", marked(r#"{"limit":3}"#)).await;
    assert_eq!(list["limit"], 3);
    proxy.ok("/jobs/list", marked("")).await;
    let before = proxy.sandbox.counts().requests;
    let utf16 = |text: &str| text.encode_utf16().flat_map(u16::to_le_bytes).collect::<Vec<u8>>();
    let big_end = |text: &str| text.encode_utf16().flat_map(u16::to_be_bytes).collect::<Vec<u8>>();
    let half = b"{\"a\":\n [\"\\ud83d\\ude00 \\ud83d\"]}".to_vec();
    let digits = |count: usize| format!(r#"{{"a":-{}}}"#, "9".repeat(count)).into_bytes();
    for (body, words) in [
        (utf16("{}"), "UTF-16"),
        (utf16(&marked("{}")), "UTF-16"),
        (big_end(&marked("{}")), "UTF-16"),
        (b"\xff\xfe\0\0{\0\0\0}\0\0\0".to_vec(), "UTF-32"),
        (b"{\"a\":\"caf\xe9\"}".to_vec(), "byte 10 is not UTF-8"),
        (half, "line 2 column 17"),
        (b"{\"a\":{\"\\\\\\udc00\":1}}".to_vec(), "line 1 column 10"),
        (digits(4301), "4300 digits"),
    ] {
        let problem = problem(proxy.post("/jobs/list", body.clone()).await).await;
        assert_eq!(problem["code"], "invalid_body", "{}", body.escape_ascii());
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(words), "{}: {detail}", body.escape_ascii());
    }
    for coding in ["gzip", "identity, gzip", "br"] {
        let request = proxy.client.post(proxy.url("/api/external/jobs/list"));
        let request = request.header("content-encoding", coding).body("\u{1f}");
        let problem = problem(request.send().await.unwrap()).await;
        assert_eq!((&problem["status"], &problem["code"]), (&415.into(), &"content_coding".into()));
        let detail = problem["detail"].as_str().unwrap();
        assert!(detail.contains(&format!("Content-Encoding {coding},")), "{detail}");
    }
    let empty = proxy.client.post(proxy.url("/api/external/jobs/list"));
    let empty = empty.header("content-encoding", "").body("{}").send().await.unwrap();
    let detail = problem(empty).await["detail"].clone();
    assert!(detail.as_str().unwrap().contains("Content-Encoding without a value,"), "{detail}");
    assert_eq!(proxy.sandbox.counts().requests, before);
    proxy.ok("/jobs/list", digits(4300)).await;
    let plain = proxy.client.post(proxy.url("/api/external/jobs/list"));
    let plain = plain.header("content-encoding", "Identity").send().await.unwrap();
    assert_eq!(plain.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_body_over_256_kib_is_refused_and_one_of_256_kib_is_not() {
    let proxy = TestProxy::start().await;
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    let body = |length: usize| format!(r#"{{"x":"{}"}}"#, "a".repeat(length - 8));
    let too_large = (413, "body_too_large".to_owned());
    assert_eq!(refused(&proxy, &path, body(300 * 1024)).await, too_large);
    assert_eq!(refused(&proxy, &path, body(256 * 1024 + 1)).await, too_large);
    assert_eq!(proxy.sandbox.counts().requests, 0);
    let response = proxy.post(&path, body(256 * 1024)).await;
    assert_eq!(response.status(), StatusCode::UNPROCESSABLE_ENTITY, "the upstream's own word");
}

#[tokio::test]
async fn a_field_of_the_wrong_type_is_refused_and_nothing_is_sent() {
    let proxy = TestProxy::start().await;
    for body in [r#"{"limit":0}"#, r#"{"limit":"5"}"#, r#"{"skip":-1}"#, r#"{"skip":0.5}"#] {
        let expected = (400, "invalid_field".to_owned());
        assert_eq!(refused(&proxy, "/jobs/list", body).await, expected, "{body}");
    }
    let expected = (400, "query_not_taken".to_owned());
    assert_eq!(refused(&proxy, "/jobs/list?limit=5", "").await, expected);
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

/// Sends bytes as they are, since a client library would tidy up the path; gives the answer.
async fn raw(proxy: &TestProxy, request: &str) -> String {
    let mut stream = TcpStream::connect(proxy.address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn an_id_that_could_change_the_path_is_refused_and_nothing_is_sent() {
    let proxy = TestProxy::start().await;
    let long = "a".repeat(129);
    for id in
        ["a%2Fb", "%2e%2e", "..", ".", "a%0Ab", "a%00", "a%20b", "%ff", "a;b", "%C3%A9", "", &long]
    {
        let request = format!(
            "POST /api/external/jobs/{id}/status HTTP/1.1\r\nhost: {}\r\nconnection: close\r\n\
             content-length: 0\r\n\r\n",
            proxy.address
        );
        let answer = raw(&proxy, &request).await;
        assert!(answer.starts_with("HTTP/1.1 400 "), "{id}: {answer}");
        assert!(answer.contains("x-agentpmt-proxy-error: invalid_id\r\n"), "{id}: {answer}");
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn an_unknown_path_and_a_wrong_method_are_refused_and_nothing_is_sent() {
    let proxy = TestProxy::start().await;
    for path in ["/jobs", "/jobs/list/", "/credits/gift", "//jobs/list"] {
        assert_eq!(refused(&proxy, path, "").await.0, 404, "{path}");
    }
    let nowhere = proxy.client.get(proxy.url("/metricz")).send().await.unwrap();
    let detail = problem(nowhere).await["detail"].as_str().unwrap().to_owned();
    for path in ["POST /api/external/jobs/list", "GET /healthz", "GET /readyz", "GET /proxy/status"]
    {
        assert!(detail.contains(path), "{detail}");
    }
    assert!(detail.starts_with("there is nothing at /metricz; "), "{detail}");
    for (path, meant) in [
        ("/job/list", "POST /api/external/jobs/list"),
        ("/api/external/jobs/j-1/status/", "POST /api/external/jobs/j-1/status"),
    ] {
        let nowhere = proxy.client.post(proxy.url(path)).send().await.unwrap();
        let detail = problem(nowhere).await["detail"].as_str().unwrap().to_owned();
        assert!(detail.starts_with(&format!("did you mean {meant}? there is")), "{detail}");
    }
    for (method, path, right) in [
        (Method::GET, "/api/external/jobs/list", "POST"),
        (Method::DELETE, "/api/external/jobs/j/workflow/w", "PUT"),
        (Method::GET, "/api/external/auth/session", "POST"),
        (Method::POST, "/healthz", "GET"),
        (Method::PUT, "/proxy/reload", "POST"),
    ] {
        let request = proxy.client.request(method.clone(), proxy.url(path));
        let response = request.send().await.unwrap();
        assert!(response.headers().contains_key("allow"), "{method} {path}");
        let problem = problem(response).await;
        assert_eq!(problem["code"], "wrong_method", "{method} {path}");
        let detail = problem["detail"].as_str().unwrap();
        let curl = format!("with curl: curl -X {right} {}", proxy.url(path));
        assert!(detail.ends_with(&curl), "{detail}");
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn a_page_that_is_refused_is_named_with_the_setting() {
    let proxy = TestProxy::start().await;
    let long = format!("https://{}", "a".repeat(500));
    for (origin, says) in [
        ("https://evil.example", "to allow it, add https://evil.example to allowed_origins"),
        ("https://\"evil", "the web page https://\\\"evil, "),
        (&*long, &format!("the web page {}, ", &long[..200])),
        ("null", "does not say its origin"),
    ] {
        let request = proxy.client.get(proxy.url("/proxy/status")).header("origin", origin);
        let problem = problem(request.send().await.unwrap()).await;
        assert_eq!(problem["code"], "foreign_page");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
    }
}

#[tokio::test]
async fn every_answer_carries_a_request_id_and_a_usable_one_is_kept() {
    let proxy = TestProxy::start().await;
    let send = async |given: &str| {
        let request = proxy.client.get(proxy.url("/healthz")).header("x-request-id", given);
        let response = request.send().await.unwrap();
        response.headers()["x-request-id"].to_str().unwrap().to_owned()
    };
    assert_eq!(send("trace-1").await, "trace-1");
    assert_ne!(send("two words").await, "two words");
    assert_eq!(send("").await.len(), 36);
    assert_eq!(send(&"a".repeat(128)).await, "a".repeat(128));
    assert_eq!(send(&"a".repeat(129)).await.len(), 36, "it would be on record with every call");
}

#[tokio::test]
async fn the_upstreams_refusals_pass_through() {
    let proxy = TestProxy::start().await;
    let response = proxy.post("/jobs/unknown-job/reserve", "").await;
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert!(!response.headers().contains_key("x-agentpmt-proxy-error"));
    assert_eq!(json(response).await["detail"]["code"], "JOB_NOT_FOUND");
}
