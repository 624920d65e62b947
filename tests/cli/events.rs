//! `events`: a thin client that outlives a restart of the proxy.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, ChildStdout, Stdio},
    time::Duration,
};

use serde_json::Value;

use crate::{
    binary::{Home, Server, until},
    common::{GENERAL_JOB, WORKFLOW_JOB},
};

const SOCKET: &str = "p.sock";

/// The command while it runs; it is killed when dropped.
struct Listening {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Listening {
    fn start(home: &Home) -> Self {
        let mut command = home.command();
        command.args(["events", "--json"]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, lines }
    }

    /// The next event about a job.
    fn next_of_job(&mut self) -> Value {
        loop {
            let line = self.lines.next().unwrap().unwrap();
            let event: Value = serde_json::from_str(&line).unwrap();
            if event["job_id"].is_string() {
                return event;
            }
        }
    }
}

impl Drop for Listening {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn home() -> Home {
    Home::new().with("AGENTPMT_PROXY_LISTEN", "unix:p.sock")
}

fn serve(home: &Home) -> Server {
    home.serve_where_told(&["serve", "--sandbox", "--state", "s"])
}

/// Sends a request, and gives what can be read of its answer.
fn send(home: &Home, method: &str, path: &str) -> UnixStream {
    let mut stream = UnixStream::connect(home.path(SOCKET)).unwrap();
    // So that a test fails instead of hanging.
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    stream
}

fn rest(mut stream: UnixStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

fn reserve(home: &Home, job: &str) {
    let answer = rest(send(home, "POST", &format!("/api/external/jobs/{job}/reserve")));
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[test]
fn a_proxy_that_is_killed_and_started_again_loses_and_repeats_no_event() {
    let home = home();
    let mut server = serve(&home);
    let mut events = Listening::start(&home);
    server.logs("/proxy/events");
    reserve(&home, GENERAL_JOB);
    let first = events.next_of_job();
    assert_eq!(first["event"], "reservation_made");
    assert_eq!(first["job_id"], GENERAL_JOB);
    server.kill();
    let server = serve(&home);
    // Perhaps before the command is back.
    reserve(&home, WORKFLOW_JOB);
    let second = events.next_of_job();
    assert_eq!(second["job_id"], WORKFLOW_JOB);
    assert!(second["id"].as_u64() > first["id"].as_u64(), "{first} {second}");
    server.signal("TERM").result();
}

#[test]
fn a_proxy_that_ends_answers_those_who_wait_and_ends_what_they_listen_to() {
    let home = home();
    let server = serve(&home);
    reserve(&home, GENERAL_JOB);
    let listening = send(&home, "GET", "/proxy/events");
    let waits = format!("/api/external/jobs/{GENERAL_JOB}/status?wait=50s");
    let waiting = send(&home, "POST", &waits);
    server.logs("/proxy/events");
    let asked = || home.run(&["journal", "tail", "--state", "s"]).result();
    until(|| asked().contains("job_status"));
    server.signal("TERM").result();
    let (listened, waited) = (rest(listening), rest(waiting));
    assert!(
        listened.contains("text/event-stream") && listened.ends_with("0\r\n\r\n"),
        "{listened}"
    );
    assert!(waited.starts_with("HTTP/1.1 200") && waited.contains("can_submit"), "{waited}");
}

#[test]
fn a_proxy_that_is_not_there_or_refuses_is_told_at_once() {
    let home = home();
    home.run(&["events"]).fails(69, &["unix:", SOCKET, "did not answer", "agentpmt-proxy serve"]);
    home.run(&["events", "--url", "http://proxy.example"]).fails(2, &["--url", "unix:PATH"]);
    let _server = serve(&home);
    home.run(&["client", "add", "ci", "--allow", "jobs", "--state", "s"]).result();
    home.run(&["events"]).fails(77, &["refused", "the caller is not known"]);
    let home = home.with("AGENTPMT_PROXY_TOKEN", "secret-of-another");
    let refused = home.run(&["events"]);
    refused.fails(65, &["AGENTPMT_PROXY_TOKEN", "client add"]);
    refused.keeps(&["secret-of-another"]);
}
