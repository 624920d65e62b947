//! How faults are asked for: as text, as JSON, by the control path, and by flags.

use std::{
    io::{BufRead, BufReader},
    net::SocketAddr,
    process::{Child, Command, Stdio},
    time::Duration,
};

use agentpmt_proxy::{
    action::ACTIONS,
    cli::Cli,
    sandbox::{FaultTarget, InjectedFault, KINDS, Sandbox, Settings},
};
use clap::Parser;
use reqwest::Method;
use serde_json::{Value, json};

use crate::common::{GENERAL_JOB, TestProxy, WORKFLOW_JOB, client, json, serve_sandbox};

/// A sandbox's control path.
struct Control {
    sandbox: Sandbox,
    address: SocketAddr,
}

impl Control {
    async fn start() -> Self {
        let sandbox = Sandbox::new(Settings::default());
        let address = serve_sandbox(&sandbox).await;
        Self { sandbox, address }
    }

    async fn send(&self, method: Method, path: &str, body: impl ToString) -> (u16, Value) {
        let url = format!("http://{}/sandbox/{path}", self.address);
        let answer = client().request(method, url).body(body.to_string()).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        (status, serde_json::from_str(&text).unwrap_or(Value::Null))
    }
}

fn parsed(text: &str) -> InjectedFault {
    text.parse().unwrap()
}

#[test]
fn every_kind_and_action_is_reached_by_text_and_by_json() {
    let actions = ACTIONS.iter().map(|action| action.name).chain(["session", "any"]);
    for (kind, action) in KINDS.iter().flat_map(|kind| actions.clone().map(move |a| (kind, a))) {
        let fault = parsed(&format!("{}:{action}:2", kind.name()));
        let json = json!({"kind": kind.name(), "action": action, "times": 2});
        assert_eq!(serde_json::from_value::<InjectedFault>(json).unwrap(), fault);
        assert_eq!((fault.kind, fault.target.to_string()), (kind, action.to_owned()));
    }
}

#[test]
fn no_two_kinds_share_a_name() {
    for (index, kind) in KINDS.iter().enumerate() {
        assert!(KINDS[..index].iter().all(|other| other.name() != kind.name()), "{kind:?}");
    }
}

#[test]
fn what_is_left_out_is_every_call_always_and_a_second() {
    let fault = parsed("slow");
    assert_eq!((fault.target, fault.times), (FaultTarget::Any, None));
    assert_eq!((fault.delay, fault.retry_after), (Duration::from_secs(1), 1));
    assert_eq!(serde_json::from_str::<InjectedFault>(r#"{"kind": "slow"}"#).unwrap(), fault);
}

#[test]
fn a_text_that_is_no_fault_is_refused_with_what_there_is() {
    let refused = |text: &str| text.parse::<InjectedFault>().unwrap_err().to_string();
    assert!(refused("cut").starts_with("there is no fault cut; the kinds are slow, "));
    let text = refused("slow:complete");
    assert!(text.starts_with("there is no action complete; the actions are any, session, "));
    assert!(text.contains("job_complete"), "{text}");
    for text in ["slow:any:0", "slow:any:-1", "slow:any:x", "slow:any:"] {
        assert!(refused(text).starts_with("times is a whole number"), "{text}");
    }
    assert!(refused("slow:any:1:2").starts_with("a fault is KIND[:ACTION[:TIMES]]"));
}

#[tokio::test]
async fn the_control_path_arms_lists_and_clears() {
    let control = Control::start().await;
    let fault = json!({
        "kind": "slow", "action": "job_list", "times": 3, "delay": "250ms", "retry_after": 1,
    });
    assert_eq!(control.send(Method::POST, "faults", &fault).await, (201, fault.clone()));
    let (status, armed) = control.send(Method::GET, "faults", "").await;
    assert_eq!((status, armed), (200, json!({"faults": [fault]})));
    assert_eq!(control.sandbox.faults()[0].delay, Duration::from_millis(250));

    assert_eq!(control.send(Method::DELETE, "faults", "").await.0, 204);
    assert_eq!(control.send(Method::GET, "faults", "").await.1, json!({"faults": []}));
}

#[tokio::test]
async fn what_is_no_fault_is_a_422_that_says_what_there_is() {
    let control = Control::start().await;
    for (body, says) in [
        (r#"{"kind": "cut"}"#, "cut_in_answer"),
        (r#"{"kind": "slow", "action": "complete"}"#, "job_complete"),
        (r#"{"kind": "slow", "wait": 1}"#, "`retry_after`"),
        (r#"{"kind": "slow", "times": 0}"#, "at least 1"),
        (r#"{"kind": "slow", "delay": "5"}"#, "500ms"),
        (r#"{"kind": "slow", "delay": 3}"#, "a text with its unit, such as \"500ms\" or \"3s\""),
        (r#"{"action": "job_list"}"#, "kind"),
        ("slow", "the body must be JSON such as {\"kind\": \"slow\""),
        ("", "the body must be JSON such as {"),
        ("[]", "this is no fault"),
    ] {
        let (status, answer) = control.send(Method::POST, "faults", body).await;
        assert_eq!(status, 422, "{body}");
        assert!(answer["detail"].as_str().unwrap().contains(says), "{body}: {answer}");
    }
    assert_eq!(control.sandbox.faults(), []);
}

#[tokio::test]
async fn the_counts_tell_what_was_processed_and_what_struck() {
    let control = Control::start().await;
    let proxy = TestProxy::in_front_of(control.sandbox.clone(), control.address, |_| {}).await;
    let job = format!("/jobs/{GENERAL_JOB}");
    let reserved = proxy.ok(&format!("{job}/reserve"), "").await;
    let proof = json!({
        "proof_text": "done", "reservation_id": reserved["job"]["reservation_id"],
    });
    let complete = async |proof: Value| {
        proxy.post(&format!("{job}/complete"), proof.to_string()).await.status()
    };
    assert_eq!(complete(json!({"proof_text": 5})).await, 422);
    control.sandbox.inject(parsed("status_500_after:job_complete:1"));
    assert_eq!(complete(proof).await, 200);
    let (_, counts) = control.send(Method::GET, "counts", "").await;
    assert_eq!((&counts["requests"], &counts["sessions"]), (&5.into(), &1.into()));
    assert_eq!(counts["submissions"][GENERAL_JOB], 2);
    assert_eq!(counts["accepted"][GENERAL_JOB], 1);
    assert_eq!(counts["faults"], json!({"status_500_after": 1}));
    assert_eq!(counts["submissions"][WORKFLOW_JOB], 0, "jobs without any are there");
}

#[tokio::test]
async fn the_proxy_has_no_control_path() {
    let proxy = TestProxy::start().await;
    for path in ["/sandbox/faults", "/sandbox/counts"] {
        let answer = proxy.client.get(proxy.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), 404, "{path}");
    }
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[test]
fn faults_are_checked_and_the_help_lists_them() {
    let parse = |arguments: &[&str]| {
        let all = ["agentpmt-proxy"].iter().chain(arguments);
        Cli::try_parse_from(all).map(drop).map_err(|error| error.to_string())
    };
    assert_eq!(parse(&["serve", "--sandbox", "--fault", "slow", "--fault", "huge:any:1"]), Ok(()));
    assert_eq!(parse(&["sandbox", "--fault", "slow:job_list:2"]), Ok(()));
    assert!(parse(&["sandbox", "--fault", "cut"]).unwrap_err().contains("cut_after"));

    for command in ["serve", "sandbox"] {
        let help = parse(&[command, "--help"]).unwrap_err();
        for kind in KINDS {
            let line = help
                .lines()
                .find(|line| line.trim_start().starts_with(&format!("{} ", kind.name())));
            assert!(line.is_some_and(|line| line.ends_with(kind.about())), "{kind:?} in {help}");
        }
    }
}

/// A running command; it ends with the value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn serve_takes_faults_and_prints_where_the_sandbox_is() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_agentpmt-proxy"))
        .args([
            "serve",
            "--sandbox",
            "--listen",
            "127.0.0.1:0",
            "--fault",
            "malformed_signature:job_list:1",
        ])
        .current_dir(std::env::temp_dir())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let _running = Running(child);
    let mut urls = lines.map_while(Result::ok).filter_map(|line| {
        let url = line.split_whitespace().find(|word| word.starts_with("http://"))?.to_owned();
        Some((line, url))
    });
    let (_, proxy) = urls.next().unwrap();
    let (line, sandbox) = urls.next().unwrap();
    assert_eq!(line, format!("  sandbox   {sandbox}  (faults: POST /sandbox/faults)"));

    let list = async || {
        client().post(format!("{proxy}/api/external/jobs/list")).send().await.unwrap().status()
    };
    assert_eq!((list().await.as_u16(), list().await.as_u16()), (401, 200));
    let body = r#"{"kind": "wrong_signature", "times": 1}"#;
    let armed = client().post(format!("{sandbox}/sandbox/faults")).body(body).send().await.unwrap();
    assert_eq!(json(armed).await["kind"], "wrong_signature");
    assert_eq!((list().await.as_u16(), list().await.as_u16()), (401, 200));
}
