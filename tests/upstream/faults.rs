//! The sandbox's faults over real sockets: what a client sees, and whether its call was processed.

use std::{net::SocketAddr, num::NonZeroU32, time::Duration};

use agentpmt_proxy::{
    action::{ACTIONS, Action},
    call::Call,
    json::{CanonicalJson, Object},
    message::Message,
    policy,
    sandbox::{InjectedFault, KINDS, Sandbox, Settings},
    signer::LocalKey,
    types::RequestId,
};
use http::StatusCode;
use jiff::Timestamp;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

use crate::common::{GENERAL_JOB, client, json, serve_sandbox};

/// How long nothing must come before it counts as nothing.
const SILENCE: Duration = Duration::from_millis(300);

/// A sandbox, and an agent that signs by itself.
struct Upstream {
    sandbox: Sandbox,
    address: SocketAddr,
    client: Client,
    signer: LocalKey,
    nonce: String,
    reservation: String,
}

/// What a client sees of a call.
#[derive(Debug, PartialEq, Eq)]
enum Seen {
    Answer(u16),
    /// The connection was closed without an answer.
    Closed,
    /// It was closed in the middle of the answer.
    BrokenAnswer,
    Silence,
}

impl Upstream {
    /// One with the general job reserved, and no fault yet.
    async fn start() -> Self {
        let sandbox = Sandbox::new(Settings::default());
        let address = serve_sandbox(&sandbox).await;
        let signer = LocalKey::random();
        let (client, nothing) = (client(), String::new());
        let mut upstream =
            Self { sandbox, address, client, signer, nonce: nothing.clone(), reservation: nothing };
        let session = json(upstream.open_session().await).await;
        upstream.nonce = session["session_nonce"].as_str().unwrap().to_owned();
        let reserved = json(upstream.call("job_reserve").await.unwrap()).await;
        upstream.reservation = reserved["job"]["reservation_id"].as_str().unwrap().to_owned();
        upstream
    }

    fn arm(&self, fault: &str) {
        self.sandbox.inject(fault.parse().unwrap());
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    async fn open_session(&self) -> Response {
        let body = json!({"wallet_address": self.signer.address().to_string()});
        let url = self.url("/api/external/auth/session");
        self.client.post(url).body(body.to_string()).send().await.unwrap()
    }

    /// Makes one call about the general job.
    async fn call(&self, action: &str) -> reqwest::Result<Response> {
        let (path, body) = self.signed(action);
        let action = Action::named(action).unwrap();
        self.client.request(action.method.clone(), self.url(&path)).body(body).send().await
    }

    async fn complete(&self) -> Seen {
        seen(self.call("job_complete").await).await
    }

    /// The path and the signed body of a call.
    fn signed(&self, action: &str) -> (String, String) {
        let action = Action::named(action).unwrap();
        let ids = [GENERAL_JOB, "workflow"].into_iter().take(action.id_names().count());
        let body = json!({"proof_text": "done", "reservation_id": self.reservation}).to_string();
        let body = match action.name {
            "job_complete" => body,
            "tool_invoke" | "invoke" => r#"{"parameters":{}}"#.to_owned(),
            _ => String::new(),
        };
        let call = Call::new(action, ids, body.as_bytes()).unwrap();
        let permit =
            policy::Client::local().permit(call, self.signer.address(), None, Timestamp::now());
        let permit = permit.unwrap();
        let call = permit.call();
        let Some(signed) = permit.signed() else { return (call.path(), "{}".to_owned()) };
        let (nonce, request) = (self.nonce.parse().unwrap(), RequestId::random());
        let message = Message::new(signed, &nonce, &request);
        let mut body: Object = call.body().clone();
        let mut set = |name, value: &str| body.insert(name, CanonicalJson::string(value));
        set("wallet_address", &self.signer.address().to_string());
        set("session_nonce", &self.nonce);
        set("request_id", request.as_str());
        set("signature", &self.signer.sign(&message).to_hex());
        (call.path(), body.to_canonical().into())
    }

    /// The head and the body of a completion, as they go over the wire.
    fn completion(&self) -> (String, String) {
        let (path, body) = self.signed("job_complete");
        let length = body.len();
        (format!("POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n\r\n"), body)
    }

    async fn connect(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    async fn until(&self, holds: impl Fn(&Sandbox) -> bool) {
        while !holds(&self.sandbox) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    fn submissions(&self) -> u64 {
        self.sandbox.submissions(GENERAL_JOB)
    }
}

async fn seen(result: reqwest::Result<Response>) -> Seen {
    let Ok(response) = result else { return Seen::Closed };
    let status = response.status().as_u16();
    response.bytes().await.map_or(Seen::BrokenAnswer, |_| Seen::Answer(status))
}

/// Everything that comes until the other side closes.
async fn rest(stream: &mut TcpStream) -> String {
    let mut bytes = Vec::new();
    // A reset is an end too, where the other side had not read everything.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

/// The kinds that wait for a payment or a challenge; they are tested with these.
const OF_PAYMENTS: [&str; 5] =
    ["paid_then_cut", "settles_late", "challenge_changed", "wrong_domain", "amount_raised"];

/// What a client sees of a completion under a fault, and how often it was processed.
fn expected(kind: &str) -> (Seen, u64) {
    match kind {
        "slow" | "slow_before" | "not_json" | "huge" => (Seen::Answer(200), 1),
        "status_429" => (Seen::Answer(429), 0),
        "status_503" => (Seen::Answer(503), 0),
        "status_500_before" => (Seen::Answer(500), 0),
        "status_502_before" => (Seen::Answer(502), 0),
        "status_500_after" => (Seen::Answer(500), 1),
        "session_detail_code" | "session_error_code" | "session_code" => (Seen::Answer(401), 0),
        "session_invalid_text" | "session_expired_text" => (Seen::Answer(401), 0),
        "forget_sessions" | "wrong_signature" | "malformed_signature" => (Seen::Answer(401), 0),
        "replay" | "replay_text" => (Seen::Answer(409), 0),
        "cut_before_body" | "cut_in_body" | "cut_before" => (Seen::Closed, 0),
        "cut_after" => (Seen::Closed, 1),
        "cut_in_answer" => (Seen::BrokenAnswer, 1),
        "hang_before" => (Seen::Silence, 0),
        "hang_after" => (Seen::Silence, 1),
        _ => panic!("a test is missing for {kind}"),
    }
}

#[tokio::test]
async fn every_kind_does_what_it_says_once() {
    let kinds = KINDS.iter().map(|kind| kind.name()).filter(|kind| !OF_PAYMENTS.contains(kind));
    for kind in kinds {
        let (wanted, processed) = expected(kind);
        let upstream = Upstream::start().await;
        upstream.arm(&format!("{kind}:job_complete:1"));
        let call = upstream.complete();
        let silence = async {
            upstream.until(|sandbox| sandbox.counts().faults.contains_key(kind)).await;
            upstream.until(|sandbox| sandbox.submissions(GENERAL_JOB) == processed).await;
            tokio::time::sleep(SILENCE).await;
        };
        let seen = if wanted == Seen::Silence {
            tokio::select! { seen = call => seen, () = silence => Seen::Silence }
        } else {
            call.await
        };
        assert_eq!((seen, upstream.submissions()), (wanted, processed), "{kind}");
        assert_eq!(upstream.sandbox.accepted(GENERAL_JOB), processed, "{kind}");
        let counts = upstream.sandbox.counts();
        assert_eq!((counts.faults.len(), counts.faults[kind]), (1, 1), "{kind}");
        assert_eq!(counts.requests, 3, "{kind}: a session, a reservation and a completion");
        assert_eq!(upstream.sandbox.faults(), [], "{kind}");
    }
}

#[tokio::test]
async fn a_fault_strikes_only_its_action_and_only_so_often() {
    // Rows of one route are struck together.
    let rows = ACTIONS.iter().filter(|action| !action.is_paid_row(ACTIONS));
    for action in rows.clone().map(|action| action.name) {
        let upstream = Upstream::start().await;
        upstream.arm(&format!("status_503:{action}:2"));
        assert_ne!(upstream.open_session().await.status(), 503);
        for other in rows.clone().filter(|other| other.name != action) {
            let answer = upstream.call(other.name).await.unwrap();
            assert_ne!(answer.status(), 503, "{} under a fault of {action}", other.name);
        }
        for struck in [true, true, false] {
            let answer = upstream.call(action).await.unwrap();
            assert_eq!(answer.status() == 503, struck, "{action}");
        }
    }
}

#[tokio::test]
async fn a_fault_of_any_call_strikes_sessions_too_until_it_is_cleared() {
    let upstream = Upstream::start().await;
    upstream.arm("status_503");
    for _ in 0..3 {
        assert_eq!(upstream.open_session().await.status(), 503);
        assert_eq!(upstream.call("job_list").await.unwrap().status(), 503);
    }
    upstream.sandbox.clear_faults();
    assert_eq!(upstream.open_session().await.status(), 200);

    upstream.arm("status_503:session");
    assert_eq!(upstream.open_session().await.status(), 503);
    assert_eq!(upstream.call("job_list").await.unwrap().status(), 200);
}

#[tokio::test]
async fn counted_faults_strike_in_their_order_and_before_those_that_last() {
    let upstream = Upstream::start().await;
    upstream.arm("status_503:job_list");
    upstream.arm("status_502_before:any:1");
    upstream.arm("status_429:job_list:1");
    for status in [502, 429, 503, 503] {
        assert_eq!(upstream.call("job_list").await.unwrap().status(), status);
    }
}

#[tokio::test]
async fn a_refusal_for_a_time_names_the_seconds() {
    for (kind, status) in [("status_429", 429), ("status_503", 503)] {
        let upstream = Upstream::start().await;
        upstream.arm(&format!("{kind}:any:1"));
        let usual = upstream.call("job_list").await.unwrap();
        assert_eq!(usual.status(), status);
        assert_eq!(usual.headers()["retry-after"], "1");

        let fault: InjectedFault = kind.parse().unwrap();
        upstream.sandbox.inject(InjectedFault { retry_after: 7, ..fault });
        let given = upstream.call("job_list").await.unwrap();
        assert_eq!(given.headers()["retry-after"], "7");
    }
}

#[tokio::test]
async fn the_session_is_refused_in_each_shape_and_only_there() {
    const INVALID: &str = "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID";
    const EXPIRED: &str = "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED";
    for (kind, place, text) in [
        ("session_detail_code", "/detail/code", INVALID),
        ("session_error_code", "/error/code", EXPIRED),
        ("session_code", "/code", INVALID),
        ("session_invalid_text", "/detail", "Invalid session nonce"),
        ("session_expired_text", "/detail", "Session nonce expired"),
        ("replay", "/detail/code", "EXTERNAL_SIGNATURE_REQUEST_REPLAY"),
        ("replay_text", "/detail", "Duplicate request_id for this session_nonce"),
    ] {
        let upstream = Upstream::start().await;
        upstream.arm(kind);
        let mut body = json(upstream.call("job_complete").await.unwrap()).await;
        assert_eq!(*body.pointer(place).unwrap(), *text, "{kind}");
        *body.pointer_mut(place).unwrap() = Value::Null;
        let rest = body.to_string().to_lowercase();
        assert!(!rest.contains("nonce") && !rest.contains("request_id"), "{kind}: {rest}");
    }
}

#[tokio::test]
async fn forgotten_sessions_are_unknown_from_then_on() {
    let upstream = Upstream::start().await;
    upstream.arm("forget_sessions:session:1");
    assert_eq!(upstream.open_session().await.status(), 200);
    let refused = json(upstream.call("job_list").await.unwrap()).await;
    assert_eq!(refused["detail"]["code"], "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID");
}

#[tokio::test]
async fn a_wrong_signature_comes_with_a_message_that_differs_in_one_line() {
    for (kind, code) in [
        ("wrong_signature", "EXTERNAL_SIGNATURE_WALLET_MISMATCH"),
        ("malformed_signature", "EXTERNAL_SIGNATURE_MALFORMED"),
    ] {
        let upstream = Upstream::start().await;
        upstream.arm(kind);
        let (path, body) = upstream.signed("job_complete");
        let request: Value = serde_json::from_str(&body).unwrap();
        let answer = upstream.client.post(upstream.url(&path)).body(body).send().await.unwrap();
        let detail = &json(answer).await["detail"];
        assert_eq!(detail["code"], code);
        let part = |name: &str| request[name].as_str().unwrap();
        let ours = format!(
            "agentpmt-external\nwallet:{}\nsession:{}\nrequest:{}\naction:job_complete\n\
             product:{GENERAL_JOB}\npayload:",
            part("wallet_address"),
            part("session_nonce"),
            part("request_id"),
        );
        let theirs = detail["expected_message"].as_str().unwrap();
        assert_eq!(theirs.strip_prefix(&ours).unwrap().len(), 64, "{theirs}");
    }
}

#[tokio::test]
async fn an_answer_that_is_late_was_processed_at_once() {
    let upstream = Upstream::start().await;
    let delay = Duration::from_secs(3600);
    upstream.sandbox.inject(InjectedFault { delay, .."slow".parse().unwrap() });
    tokio::select! {
        seen = upstream.complete() => panic!("{seen:?} an hour early"),
        () = upstream.until(|sandbox| sandbox.accepted(GENERAL_JOB) == 1) => {}
    }
}

#[tokio::test]
async fn what_is_processed_late_is_processed_though_the_client_has_gone() {
    let upstream = Upstream::start().await;
    for (delay, struck) in [(Duration::from_secs(3600), 1), (Duration::from_millis(50), 2)] {
        let times = NonZeroU32::new(1);
        upstream.sandbox.inject(InjectedFault { delay, times, .."slow_before".parse().unwrap() });
        tokio::select! {
            _ = upstream.complete() => assert_eq!(struck, 2, "an answer an hour early"),
            () = upstream.until(|sandbox| sandbox.counts().faults.get("slow_before") == Some(&struck)) => {}
        }
        if struck == 1 {
            assert_eq!(upstream.submissions(), 0);
        }
    }
    upstream.until(|sandbox| sandbox.accepted(GENERAL_JOB) == 1).await;
}

#[tokio::test]
async fn cuts_before_and_in_the_body_do_not_wait_for_the_rest() {
    let upstream = Upstream::start().await;
    upstream.arm("cut_before_body:job_complete:1");
    let (head, body) = upstream.completion();
    let mut stream = upstream.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");

    upstream.arm("cut_in_body:job_complete:1");
    let mut stream = upstream.connect().await;
    stream.write_all(head.as_bytes()).await.unwrap();
    let silent = tokio::time::timeout(SILENCE, stream.readable()).await;
    assert!(silent.is_err(), "it waits for the first part");
    stream.write_all(&body.as_bytes()[..body.len() / 2]).await.unwrap();
    assert_eq!(rest(&mut stream).await, "");
    assert_eq!(upstream.submissions(), 0);
}

#[tokio::test]
async fn other_cuts_close_the_connection_once_the_body_is_there() {
    for (kind, processed) in [("cut_before", 0), ("cut_after", 1)] {
        let upstream = Upstream::start().await;
        upstream.arm(kind);
        let (head, body) = upstream.completion();
        let mut stream = upstream.connect().await;
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        assert_eq!(rest(&mut stream).await, "", "{kind}");
        assert_eq!(upstream.submissions(), processed, "{kind}");
    }
}

#[tokio::test]
async fn half_an_answer_announces_the_whole() {
    let upstream = Upstream::start().await;
    upstream.arm("cut_in_answer");
    let (head, body) = upstream.completion();
    let mut stream = upstream.connect().await;
    stream.write_all((head + &body).as_bytes()).await.unwrap();
    let answer = rest(&mut stream).await;
    let (head, half) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    let length = head.split("content-length: ").nth(1).unwrap().lines().next().unwrap();
    assert_eq!(half.len(), length.parse::<usize>().unwrap() / 2);
    assert!(half.starts_with('{') && half.len() > 20, "{half}");
}

#[tokio::test]
async fn what_is_no_json_and_what_is_huge_come_as_a_200() {
    let upstream = Upstream::start().await;
    upstream.arm("not_json:any:1");
    let answer = upstream.call("job_complete").await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert!(serde_json::from_str::<Value>(&answer.text().await.unwrap()).is_err());

    upstream.arm("huge:any:1");
    let answer = upstream.call("job_list").await.unwrap();
    assert!(answer.bytes().await.unwrap().len() >= 20 << 20);
}

#[tokio::test]
async fn connections_end_with_the_server_and_its_state_does_not() {
    let sandbox = Sandbox::new(Settings::default());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let served = sandbox.clone();
    let server = tokio::spawn(async move { served.serve(listener).await });
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    stream.readable().await.unwrap();
    server.abort();
    assert!(rest(&mut stream).await.starts_with("HTTP/1.1 404"));

    let again = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move { sandbox.serve(again).await });
    let answer = client().get(format!("http://{address}/sandbox/counts")).send().await.unwrap();
    assert_eq!(json(answer).await["requests"], 1);
}
