//! Where the program listens: several places at once, unix sockets, and what systemd passes.

use std::{
    fs,
    io::{ErrorKind, Read, Write},
    iter,
    net::{TcpListener, TcpStream},
    os::{
        fd::OwnedFd,
        unix::{
            fs::{FileTypeExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use crate::binary::{Home, PASSWORD, Server, WALLET};

fn home() -> Home {
    Home::with_wallet().with_password(PASSWORD)
}

#[test]
fn it_listens_at_several_places_and_says_where() {
    let home = home();
    let places = ["127.0.0.1:0", "127.0.0.1:0", "unix:p,q.sock"];
    let listen = places.iter().flat_map(|place| ["--listen", place]);
    let mut server = home.serve_where_told(&iter::once("serve").chain(listen).collect::<Vec<_>>());
    server.is_ready(WALLET);
    let line = server.line();
    let (_, second) = line.split_once("also on   http://").unwrap();
    assert_eq!(server.line(), "  also on   unix:p,q.sock");
    assert!(server.line().starts_with("  upstream  "));
    home.run(&["wait", "--listen", second]).ok();
    assert!(ask(&home.path("p,q.sock"), "/proxy/status").contains(WALLET));
    let (_, status) = server.request("GET", "/proxy/status");
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let places = [server.place.clone(), format!("http://{second}"), "unix:p,q.sock".to_owned()];
    assert_eq!(status["listeners"], serde_json::json!(places));
    assert_eq!((&status["wallet"], &status["last_reload"]), (&WALLET.into(), &().into()));
}

/// Whether this machine has IPv6.
fn has_ipv6() -> bool {
    TcpListener::bind("[::1]:0").is_ok()
}

#[test]
fn localhost_is_every_loopback_address() {
    let home = home();
    let mut server = home.serve_where_told(&["serve", "--listen", "localhost:0"]);
    server.is_ready(WALLET);
    let port = server.address.port();
    assert_eq!(server.place, format!("http://127.0.0.1:{port}"));
    if !has_ipv6() {
        return println!("skipped: this machine has no IPv6");
    }
    assert_eq!(server.line(), format!("  also on   http://[::1]:{port}"));
    for host in ["localhost", "[::1]"] {
        let mut stream = TcpStream::connect(("::1", port)).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let head = format!("GET /proxy/status HTTP/1.1\r\nhost: {host}:{port}\r\n");
        stream.write_all(format!("{head}connection: close\r\n\r\n").as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.contains(WALLET), "{host}: {answer}");
    }
    home.run(&["wait", "--listen", &format!("localhost:{port}")]).ok();
}

#[test]
fn a_program_at_one_loopback_address_is_no_half_of_the_proxy() {
    for taken in ["127.0.0.1:0", "[::1]:0"] {
        let Ok(taken) = TcpListener::bind(taken) else { continue };
        let address = taken.local_addr().unwrap();
        let listen = format!("localhost:{}", address.port());
        // Another program may have the port at the other address by now.
        let port = format!(":{}: Address already in use", address.port());
        home().run(&["serve", "--listen", &listen]).fails(69, &[&port]);
    }
}

#[test]
fn without_ipv6_localhost_is_the_address_that_there_is() {
    let home = home();
    // A network of its own, without IPv6.
    let script =
        "ip link set lo up && echo 1 > /proc/sys/net/ipv6/conf/lo/disable_ipv6 && exec \"$@\"";
    let unshare = |last: &[&str]| {
        let mut command = home.wrapped("unshare");
        command.args(["--net", "--map-root-user", "sh", "-c", script, "sh"]).args(last);
        command
    };
    if !unshare(&["true"]).output().is_ok_and(|output| output.status.success()) {
        return println!("skipped: no network of its own can be made here");
    }
    let mut serve = unshare(&[env!("CARGO_BIN_EXE_agentpmt-proxy"), "serve"]);
    let mut server = home.serve_as(serve.args(["--listen", "localhost:0"]), Stdio::null());
    assert!(server.place.starts_with("http://127.0.0.1:"), "{}", server.place);
    assert!(server.line().starts_with("  upstream  "));
}

#[test]
fn the_file_names_several_places_and_relative_paths_start_there() {
    let home = home();
    home.write("etc/p.toml", "keys = '../keys'\nlisten = ['unix:p.sock', '127.0.0.1:0']");
    let server = home.serve_where_told(&["serve", "--config", "etc/p.toml"]);
    assert_eq!(server.place, "unix:etc/p.sock");
    assert!(ask(&home.path("etc/p.sock"), "/proxy/status").contains(WALLET));
    home.run(&["wait", "--config", "etc/p.toml"]).ok();
}

#[test]
fn a_unix_socket_is_for_its_owner_and_goes_with_the_program() {
    let home = home();
    let server = home.serve_where_told(&["serve", "--listen", "unix:p.sock"]);
    let socket = home.path("p.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o7777, 0o600);
    home.run(&["wait", "--listen", "unix:p.sock"]).ok();
    assert_eq!(server.signal("TERM").code, Some(0));
    assert!(!socket.exists());
}

#[test]
fn mode_and_group_of_a_unix_socket_are_chosen() {
    let home = home().with("AGENTPMT_PROXY_SOCKET__MODE", "0660");
    let args = ["serve", "--listen", "unix:p.sock"];
    let server = home.serve_where_told(&args);
    let mode = fs::metadata(home.path("p.sock")).unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o660);
    drop(server);
    let home = home.with("AGENTPMT_PROXY_SOCKET__GROUP", "no-such-group");
    home.run(&args).fails(78, &["socket.group", "no-such-group"]);
}

#[test]
fn a_socket_that_a_dead_process_left_is_replaced() {
    let home = home();
    let args = ["serve", "--listen", "unix:p.sock"];
    let mut killed = home.serve_where_told(&args);
    killed.kill();
    assert!(fs::metadata(home.path("p.sock")).unwrap().file_type().is_socket());
    let _server = home.serve_where_told(&args);
    assert!(ask(&home.path("p.sock"), "/proxy/status").contains(WALLET));
}

#[test]
fn what_is_at_the_path_of_a_socket_is_left_alone() {
    let home = home();
    let args = ["serve", "--listen", "unix:p.sock"];
    let live = UnixListener::bind(home.path("p.sock")).unwrap();
    home.run(&args).fails(69, &["unix:p.sock", "a program listens there", "another path"]);
    UnixStream::connect(home.path("p.sock")).unwrap();
    drop(live);
    fs::remove_file(home.path("p.sock")).unwrap();
    home.write("p.sock", "milk");
    home.run(&args).fails(73, &["unix:p.sock", "not a socket", "left alone"]);
    assert_eq!(fs::read_to_string(home.path("p.sock")).unwrap(), "milk");
}

#[test]
fn a_place_that_cannot_be_had_leaves_none_of_the_others_behind() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let home = home();
    let ran = home.run(&["serve", "--listen", "unix:p.sock", "--listen", &address]);
    ran.fails(69, &[&address, "in use"]);
    let names: Vec<_> =
        fs::read_dir(home.path(".")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(names, ["keys"]);
}

#[test]
fn it_takes_the_sockets_that_systemd_passes() {
    let home = home();
    let port = TcpListener::bind("127.0.0.1:0").unwrap();
    let place = format!("http://{}", port.local_addr().unwrap());
    let server = activated(&home, port.into());
    assert_eq!(server.place, place);
    server.is_ready(WALLET);

    let path = home.path("systemd.sock");
    let server = activated(&home, UnixListener::bind(&path).unwrap().into());
    assert_eq!(server.place, format!("unix:{}", path.display()));
    assert!(ask(&path, "/proxy/status").contains(WALLET));
    assert_eq!(server.signal("TERM").code, Some(0));
    assert!(path.exists(), "the file is systemd's");
}

#[test]
fn without_a_socket_of_systemd_it_says_so() {
    let home = home();
    let args = ["serve", "--listen", "systemd"];
    home.run(&args).fails(69, &["systemd passed no socket", ".socket unit"]);
    // Those are for another process.
    let home = home.with("LISTEN_FDS", "1").with("LISTEN_PID", "1");
    home.run(&args).fails(69, &["systemd passed no socket"]);
    home.run(&["wait", "--listen", "systemd"]).fails(78, &["systemd", "--listen"]);
}

#[test]
fn a_socket_of_systemd_that_others_reach_needs_tls_too() {
    let home = home();
    let open = TcpListener::bind("0.0.0.0:0").unwrap();
    let ran = home.run_as(&mut activation(&home), OwnedFd::from(open).into());
    ran.fails(78, &["systemd passed", "0.0.0.0:", "tls.certificate", "behind_tls_proxy = true"]);
}

/// The program as systemd would start it, with its one socket as standard input of a shell.
fn activation(home: &Home) -> Command {
    let mut shell = home.wrapped("sh");
    let script = "exec 3<&0 </dev/null; LISTEN_FDS=1 LISTEN_PID=$$ exec \"$@\"";
    shell.args(["-c", script, "sh", env!("CARGO_BIN_EXE_agentpmt-proxy")]);
    shell.args(["serve", "--listen", "systemd"]);
    shell
}

fn activated(home: &Home, socket: OwnedFd) -> Server {
    home.serve_as(&mut activation(home), socket.into())
}

/// The answer of a unix socket to a request without a body.
fn ask(socket: &Path, path: &str) -> String {
    let mut stream = UnixStream::connect(socket).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .map_err(|error| assert_ne!(error.kind(), ErrorKind::TimedOut))
        .unwrap();
    answer
}
