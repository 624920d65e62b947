//! How the proxy begins and ends: `wait`, the first signal and the second.

use std::{
    fs,
    io::{BufRead, BufReader, ErrorKind, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    process::{Command, Stdio},
    time::Duration,
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};

use crate::{
    binary::{Home, PASSWORD, Server, WALLET, until},
    common,
};

#[tokio::test(flavor = "multi_thread")]
async fn the_first_signal_lets_a_call_end_and_takes_no_more() {
    let (_home, sandbox, server) = slow_upstream("slow:job_list", Duration::from_secs(3)).await;
    let mut idle = connect(server.address);
    assert_eq!(get(&mut idle, "/readyz"), 200);
    let mut calling = connect(server.address);
    write!(
        calling,
        "POST /api/external/jobs/list HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n",
        server.address
    )
    .unwrap();
    until(|| sandbox.counts().faults.contains_key("slow"));
    signal(server.id(), "TERM");
    until(|| is_refused(server.address));
    // The connection was open before: it is told, or closed, but never told that all is well.
    assert_ne!(get(&mut idle, "/readyz"), 200);
    assert_eq!(status(&mut calling), 200);
    assert_eq!(server.end().code, Some(0));
}

#[test]
fn the_end_drops_a_call_that_could_not_be_sent() {
    // Nobody has the port, and it would be tried for an hour.
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let upstream = format!("http://{}", free.local_addr().unwrap());
    drop(free);
    let home = Home::with_wallet().with_password(PASSWORD);
    let hour = "[upstream]\nconnect_timeout = '1h'\ntimeout = '1h'\nchange_timeout = '1h'";
    home.write("proxy.toml", hour);
    for path in ["list", "68f0a1c27b3e4d5f60718201/reserve"] {
        let server = home.serve(&["serve", "--upstream", &upstream]);
        let mut calling = connect(server.address);
        write!(
            calling,
            "POST /api/external/jobs/{path} HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n",
            server.address
        )
        .unwrap();
        until(|| !upstream_seen(&server)["last_failure"].is_null());
        let address = server.address.to_string();
        let wait = ["wait", "--upstream", "--timeout", "1s", "--listen", &address];
        home.run(&wait).fails(69, &["reached the upstream", "/proxy/status"]);
        signal(server.id(), "INT");
        assert_eq!(status(&mut calling), 502);
        assert_eq!(server.end().code, Some(0));
    }
}

fn upstream_seen(server: &Server) -> serde_json::Value {
    let (_, status) = server.request("GET", "/proxy/status");
    serde_json::from_str::<serde_json::Value>(&status).unwrap()["upstream"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_second_signal_ends_it_at_once() {
    let (_home, sandbox, server) =
        slow_upstream("hang_before:job_list", Duration::from_secs(1)).await;
    let mut calling = connect(server.address);
    write!(
        calling,
        "POST /api/external/jobs/list HTTP/1.1\r\nhost: {}\r\ncontent-length: 0\r\n\r\n",
        server.address
    )
    .unwrap();
    until(|| sandbox.counts().faults.contains_key("hang_before"));
    signal(server.id(), "TERM");
    until(|| is_refused(server.address));
    signal(server.id(), "TERM");
    assert_eq!(server.end().code, Some(0));
    assert_eq!(status(&mut calling), 0, "there was nothing to answer");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_has_not_finished_asking_does_not_delay_the_end() {
    let (_home, _sandbox, server) = slow_upstream("slow", Duration::from_secs(1)).await;
    let mut asking = connect(server.address);
    write!(asking, "POST /api/external/jobs/list HTTP/1.1\r\nhost: p\r\n").unwrap();
    // What was sent is read by the time that another connection is answered.
    let mut other = connect(server.address);
    assert_eq!(get(&mut other, "/healthz"), 200);
    let ended = server.signal("TERM");
    assert_eq!(ended.code, Some(0));
    assert!(!ended.stderr.contains("still running"), "{}", ended.stderr);
    assert_eq!(status(&mut asking), 0, "there was nothing to answer");
}

#[test]
fn signals_without_a_meaning_do_not_end_it() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let server = home.serve(&["serve", "--upstream", "http://127.0.0.1:1"]);
    let of_linux = cfg!(target_os = "linux").then_some("PWR");
    for name in ["USR1", "USR2", "ALRM", "VTALRM", "PROF", "IO"].into_iter().chain(of_linux) {
        signal(server.id(), name);
        server.logs(&format!("ignored SIG{name}"));
    }
    server.is_ready(WALLET);
    assert_eq!(server.signal("TERM").code, Some(0));
}

#[test]
fn closing_the_terminal_ends_it() {
    let home = Home::new();
    let program = env!("CARGO_BIN_EXE_agentpmt-proxy");
    let at_terminal = |line: &str| {
        let mut script = home.wrapped("script");
        script.args(["-qec", line, "/dev/null"]).stdin(Stdio::null()).stdout(Stdio::null());
        script.spawn()
    };
    if at_terminal("true").is_err() {
        return eprintln!("not tried: there is no `script` to make a terminal");
    }
    let socket = home.path("proxy.sock");
    // In use, and only there.
    for streams in ["", "</dev/null >out 2>err"] {
        let line = format!("{program} serve --sandbox --listen unix:proxy.sock {streams}");
        let mut terminal = at_terminal(&line).unwrap();
        home.run(&["wait", "--listen", "unix:proxy.sock"]).ok();
        terminal.kill().unwrap();
        terminal.wait().unwrap();
        until(|| UnixStream::connect(&socket).is_err());
    }
    // One that is to outlive its terminal takes it for a reload.
    let serve = "serve --sandbox --listen unix:proxy.sock </dev/null >out 2>err";
    let line = format!("nohup {program} {serve} & echo $! > pid; wait");
    let mut terminal = at_terminal(&line).unwrap();
    home.run(&["wait", "--listen", "unix:proxy.sock"]).ok();
    terminal.kill().unwrap();
    terminal.wait().unwrap();
    until(|| fs::read_to_string(home.path("err")).unwrap().contains("reloaded"));
    signal(fs::read_to_string(home.path("pid")).unwrap().trim().parse().unwrap(), "TERM");
    until(|| UnixStream::connect(&socket).is_err());
}

#[test]
fn the_log_is_in_colour_on_a_terminal_that_wants_it() {
    for (no_color, colours) in [("", true), ("1", false)] {
        let home = Home::new().with("NO_COLOR", no_color);
        let program = env!("CARGO_BIN_EXE_agentpmt-proxy");
        let line = format!(
            "echo $$ >pid; exec {program} serve --sandbox --listen unix:proxy.sock --state s"
        );
        let mut script = home.wrapped("script");
        script.args(["-qec", &line, "shown"]).stdin(Stdio::null()).stdout(Stdio::null());
        let Ok(mut terminal) = script.spawn() else {
            return eprintln!("not tried: there is no `script` to make a terminal");
        };
        home.run(&["wait", "--listen", "unix:proxy.sock"]).ok();
        signal(fs::read_to_string(home.path("pid")).unwrap().trim().parse().unwrap(), "TERM");
        terminal.wait().unwrap();
        let shown = fs::read_to_string(home.path("shown")).unwrap();
        assert!(shown.contains("ending"), "{shown}");
        assert_eq!(shown.contains('\u{1b}'), colours, "{shown}");
    }
}

#[test]
fn wait_ends_when_the_proxy_is_ready() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let server = home.serve(&["serve", "--upstream", "http://127.0.0.1:1"]);
    home.run(&["wait", "--listen", &server.address.to_string()]).ok();
}

#[test]
fn wait_gives_up_after_its_time() {
    // Whoever has the port says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let ran = Home::new().run(&["wait", "--listen", &address, "--timeout", "200ms"]);
    ran.fails(69, &[&address]);
}

#[test]
fn a_log_that_nobody_reads_stops_neither_calls_nor_the_end() {
    let (server, unread) = Home::new().serve_into_pipe(&["serve", "--sandbox"]);
    let mut calling = connect(server.address);
    // A pipe holds some sixty of their lines.
    for _ in 0..150 {
        assert_eq!(get(&mut calling, "/nowhere"), 404);
    }
    assert_eq!(server.request("POST", "/api/external/jobs/list").0, 200);
    assert_eq!(server.signal("TERM").code, Some(0));
    drop(unread);
}

#[test]
fn lines_that_find_no_room_are_counted_and_the_log_says_how_many() {
    const CALLS: u64 = 2500;
    let (server, unread) = Home::new().serve_into_pipe(&["serve", "--sandbox"]);
    // More than the pipe, what the thread has taken, and the queue hold.
    let path = format!("/{}", "long".repeat(45));
    let mut calling = connect(server.address);
    for _ in 0..CALLS {
        assert_ne!(get(&mut calling, &path), 0);
    }
    let mut lines = BufReader::new(unread).lines().map(|line| line.unwrap());
    let (mut told, mut dropped) = (0, 0);
    let mut count = |line: &str| {
        let event: serde_json::Value = serde_json::from_str(line).unwrap();
        told += u64::from(event["path"] == *path);
        dropped += event["dropped"].as_u64().unwrap_or(0);
        dropped
    };
    while count(&lines.next().unwrap()) == 0 {}
    signal(server.id(), "TERM");
    lines.for_each(|line| {
        count(&line);
    });
    assert_eq!((server.end().code, told + dropped), (Some(0), CALLS));
}

#[test]
fn it_serves_and_ends_though_nobody_reads_what_it_prints() {
    let (unread, writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while (&writer).write(&[b'x'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    let home = Home::new();
    let mut command = home.command();
    command.args(["serve", "--sandbox", "--listen", "unix:proxy.sock"]);
    let mut running = command.stdout(writer).stderr(Stdio::null()).spawn().unwrap();
    home.run(&["wait", "--listen", "unix:proxy.sock"]).ok();
    signal(running.id(), "TERM");
    assert!(running.wait().unwrap().success());
    drop(unread);
}

async fn slow_upstream(fault: &str, delay: Duration) -> (Home, Sandbox, Server) {
    let sandbox = Sandbox::new(Settings::default());
    let mut fault: agentpmt_proxy::sandbox::InjectedFault = fault.parse().unwrap();
    fault.delay = delay;
    sandbox.inject(fault);
    let upstream = common::serve_sandbox(&sandbox).await;
    let home = Home::with_wallet().with_password(PASSWORD);
    let server = home.serve(&["serve", "--upstream", &format!("http://{upstream}")]);
    (home, sandbox, server)
}

fn connect(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    stream
}

fn is_refused(address: SocketAddr) -> bool {
    let refused = |error: std::io::Error| error.kind() == ErrorKind::ConnectionRefused;
    TcpStream::connect(address).is_err_and(refused)
}

fn get(stream: &mut TcpStream, path: &str) -> u16 {
    // In one piece, since the kernel holds the second back. It may be closed already.
    let host = stream.peer_addr().map_or_else(|_| String::new(), |host| host.to_string());
    let _ = stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").as_bytes());
    status(stream)
}

/// The status of the answer that comes next; 0 if the connection ends without one.
fn status(stream: &mut TcpStream) -> u16 {
    let mut answer = [0; 4096];
    let length = stream.read(&mut answer).unwrap_or(0);
    let text = String::from_utf8_lossy(&answer[..length]);
    text.split(' ').nth(1).map_or(0, |status| status.parse().unwrap())
}

fn signal(id: u32, name: &str) {
    assert!(
        Command::new("sh").args(["-c", &format!("kill -{name} {id}")]).status().unwrap().success()
    );
}
