//! `events`: a thin client that outlives a restart of the proxy.

use std::{
    io::{BufRead, BufReader, Lines, Read, Write},
    os::unix::net::UnixStream,
    process::{Child, ChildStdout, Stdio},
};

use serde_json::Value;

use crate::{
    binary::{Home, Server},
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

fn reserve(home: &Home, job: &str) {
    let mut stream = UnixStream::connect(home.path(SOCKET)).unwrap();
    write!(
        stream,
        "POST /api/external/jobs/{job}/reserve HTTP/1.1\r\nhost: localhost\r\n\
         content-length: 0\r\nconnection: close\r\n\r\n"
    )
    .unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
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
