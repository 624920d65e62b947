//! State that is lost, and copies of it that bring it back.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Stdio,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    thread,
};

use crate::binary::{Home, PASSWORD, Ran, Server, until};

const DATABASE: &str = "state/proxy.db";
const LOG: &str = "state/proxy.db-wal";
const HEAD: &str = "state/journal-head";
const MARKER: &str = "state/clients-required";
const LIST: &str = "/api/external/jobs/list";

/// How something of the state is lost, in words and in deed.
type Loss = (&'static str, fn(&Home));

/// A home with one client, whose token is returned.
fn with_client() -> (Home, String) {
    let home = Home::with_wallet().with_password(PASSWORD);
    let added = home.run(&["client", "add", "ci", "--allow", "all"]).result();
    (home, added.trim_end().to_owned())
}

fn as_client(server: &Server, token: &str) -> u16 {
    let header = format!("authorization: Bearer {token}\r\n");
    server.request_with("GET", "/proxy/reservations", &header).0
}

fn as_stranger(server: &Server) -> u16 {
    server.request("GET", "/proxy/reservations").0
}

/// Asserts that a proxy of this home takes calls of its client alone.
fn is_closed(home: &Home, token: &str) {
    let server = home.serve(&["serve"]);
    assert_eq!((as_client(&server, token), as_stranger(&server)), (200, 401));
}

/// The number of the record that the head names.
fn head(home: &Home) -> u64 {
    let head = fs::read_to_string(home.path(HEAD)).unwrap_or_default();
    head.split(' ').next().and_then(|seq| seq.parse().ok()).unwrap_or(0)
}

/// Changes the database as somebody else could.
fn tamper(home: &Home, sql: &str) {
    rusqlite::Connection::open(home.path(DATABASE)).unwrap().execute_batch(sql).unwrap();
}

/// Has a proxy refuse some strangers, which is on record, and ends it. Returns the last hash.
fn write_records(home: &Home) -> String {
    let server = home.serve(&["serve"]);
    for _ in 0..3 {
        assert_eq!(server.request("POST", LIST).0, 401);
    }
    assert_eq!(server.signal("TERM").code, Some(0));
    home.run(&["journal", "verify"]).result().trim_end().to_owned()
}

fn copy(from: &Home, name: &str, to: &Home) {
    to.write(DATABASE, "");
    fs::copy(from.path(name), to.path(DATABASE)).unwrap();
}

/// Runs `serve`, which has to refuse.
fn serve(home: &Home) -> Ran {
    home.run(&["serve", "--listen", "127.0.0.1:0"])
}

#[test]
fn a_head_that_is_a_pipe_is_refused_at_once() {
    let (home, _) = with_client();
    home.serve(&["serve"]).kill();
    let _ = fs::remove_file(home.path(HEAD));
    let made = std::process::Command::new("mkfifo").arg(home.path(HEAD)).status();
    assert!(made.unwrap().success());
    for command in [&["serve", "--listen", "127.0.0.1:0"][..], &["journal", "verify"]] {
        home.run(command).fails(74, &["journal-head", "a regular file is needed"]);
    }
}

#[test]
fn a_database_that_lost_its_clients_is_not_taken_for_a_new_one() {
    let losses: [Loss; 4] = [
        ("emptied", |home| home.write(DATABASE, "")),
        ("removed", |home| fs::remove_file(home.path(DATABASE)).unwrap()),
        ("removed, with its log", |home| {
            for end in ["", "-wal", "-shm"] {
                fs::remove_file(home.path(&format!("{DATABASE}{end}"))).unwrap();
            }
        }),
        ("another's, that never had any", |home| {
            let other = Home::with_wallet().with_password(PASSWORD);
            other.serve(&["serve"]).signal("TERM");
            for end in ["-wal", "-shm"] {
                fs::remove_file(home.path(&format!("{DATABASE}{end}"))).unwrap();
            }
            copy(&other, DATABASE, home);
        }),
    ];
    for (how, lose) in losses {
        let (home, _) = with_client();
        home.serve(&["serve"]).kill();
        lose(&home);
        let commands: [&[&str]; 5] = [
            &["serve", "--listen", "127.0.0.1:0"],
            &["check"],
            &["client", "add", "other", "--allow", "all"],
            &["client", "list"],
            &["journal", "verify"],
        ];
        for command in commands {
            println!("{how}: {command:?}");
            home.run(command).fails(65, &["lost", "from a copy", "clients-required"]);
        }
        fs::remove_dir_all(home.path("state")).unwrap();
        assert_eq!(as_stranger(&home.serve(&["serve"])), 200, "{how}: begun anew");
    }
}

#[test]
fn a_log_that_is_lost_or_damaged_takes_no_client_along() {
    let losses: [Loss; 3] = [
        ("removed", |home| fs::remove_file(home.path(LOG)).unwrap()),
        ("halved", |home| {
            let log = fs::read(home.path(LOG)).unwrap();
            fs::write(home.path(LOG), &log[..log.len() / 2]).unwrap();
        }),
        ("with another byte", |home| {
            let mut log = fs::read(home.path(LOG)).unwrap();
            let middle = log.len() / 2;
            log[middle] ^= 1;
            fs::write(home.path(LOG), log).unwrap();
        }),
    ];
    for (how, lose) in losses {
        println!("{how}");
        let (home, token) = with_client();
        let mut server = home.serve(&["serve"]);
        home.run(&["client", "add", "gone", "--allow", "all"]).result();
        home.run(&["client", "revoke", "gone"]).told();
        assert_eq!((as_client(&server, &token), as_stranger(&server)), (200, 401));
        assert_eq!(server.request("POST", LIST).0, 401);
        // That the stranger was refused.
        until(|| head(&home) > 3);
        server.kill();
        lose(&home);
        match home.try_serve(&["serve"]) {
            Ok(server) => {
                assert_ne!(how, "removed", "the refusal is lost");
                assert_eq!((as_client(&server, &token), as_stranger(&server)), (200, 401));
            }
            Err(ran) => ran.fails(65, &["was written", "records were lost", "journal-head"]),
        }
        fs::remove_file(home.path(HEAD)).unwrap();
        is_closed(&home, &token);
        let list = home.run(&["client", "list"]).ok();
        assert!(list.lines().any(|row| row.contains("gone") && row.contains("REVOKED")), "{list}");
    }
}

#[test]
fn a_byte_that_changed_lets_no_stranger_in() {
    let (home, _) = with_client();
    home.serve(&["serve"]).signal("TERM");
    let database = fs::read(home.path(DATABASE)).unwrap();
    let header = [18, 28, 31, 60, 63, 100, 104];
    let (mut served, mut refused) = (0, 0);
    for at in header.into_iter().chain((0..database.len()).step_by(4096 + 509)) {
        for end in ["-wal", "-shm"] {
            drop(fs::remove_file(home.path(&format!("{DATABASE}{end}"))));
        }
        let mut bytes = database.clone();
        bytes[at] ^= 7;
        fs::write(home.path(DATABASE), bytes).unwrap();
        match home.try_serve(&["serve"]) {
            Ok(server) => {
                assert_ne!(as_stranger(&server), 200, "byte {at}");
                served += 1;
            }
            Err(ran) => {
                assert!(ran.stderr.contains("proxy.db: "), "byte {at}: {ran:?}");
                refused += 1;
            }
        }
    }
    assert!(served > 0 && refused > 0, "{served} {refused}");
}

#[test]
fn clients_that_vanish_while_it_runs_let_no_stranger_in() {
    let (home, token) = with_client();
    let server = home.serve(&["serve"]);
    assert_eq!((as_client(&server, &token), as_stranger(&server)), (200, 401));
    tamper(&home, "DELETE FROM clients");
    until(|| {
        let status = as_stranger(&server);
        assert_ne!(status, 200);
        status == 503
    });
    server.logs("journal_unavailable");
    assert_eq!((as_client(&server, &token), as_stranger(&server)), (503, 503));
    drop(server);
    serve(&home).fails(65, &["lost", "from a copy", "clients-required"]);
}

#[test]
fn a_file_that_lost_its_tables_is_not_taken_for_a_new_one() {
    let home = Home::with_wallet().with_password(PASSWORD);
    // What a file looks like while all that was written stands in its log.
    home.write(DATABASE, "");
    let connection = rusqlite::Connection::open(home.path(DATABASE)).unwrap();
    connection.execute_batch("CREATE TABLE t (a); DROP TABLE t; VACUUM;").unwrap();
    drop(connection);
    home.set_mode(DATABASE, 0o600);
    assert!(fs::metadata(home.path(DATABASE)).unwrap().len() > 0);
    serve(&home).fails(65, &["holds no tables", "from a copy"]);
}

#[test]
fn an_end_of_the_journal_that_was_cut_off_is_found_and_refused() {
    let (home, token) = with_client();
    let first = write_records(&home);
    let older = fs::read(home.path(DATABASE)).unwrap();
    let last = write_records(&home);
    let verify = |args: &[&str]| home.run(&[&["journal", "verify"], args].concat());
    for hash in [&first, &last] {
        verify(&["--expect", hash]).result();
    }
    let whole = verify(&["--json"]).json();
    assert_eq!((&whole["hash"], &whole["head"]), (&last.clone().into(), &true.into()));
    verify(&["--expect", "zz"]).fails_at_length(2, &["64 hexadecimal digits"]);

    let cut = |home: &Home| {
        tamper(home, "DELETE FROM journal WHERE seq > (SELECT max(seq) - 2 FROM journal)")
    };
    let put_back = |home: &Home| {
        for end in ["-wal", "-shm"] {
            drop(fs::remove_file(home.path(&format!("{DATABASE}{end}"))));
        }
        fs::write(home.path(DATABASE), &older).unwrap();
    };
    for lose in [&cut as &dyn Fn(&Home), &put_back] {
        lose(&home);
        for command in [&["serve", "--listen", "127.0.0.1:0"] as &[&str], &["check"]] {
            home.run(command).fails(65, &["was written", "records were lost", "journal-head"]);
        }
        verify(&[]).fails(1, &["was altered", "journal-head", "cut off"]);
        home.run(&["journal", "tail"]).ok();
    }
    let forged = fs::read_to_string(home.path(HEAD)).unwrap();
    fs::remove_file(home.path(HEAD)).unwrap();
    assert!(verify(&[]).told().contains("no file journal-head"));
    verify(&["--expect", &first]).result();
    verify(&["--expect", &last]).fails(1, &[&last, "cut off"]);

    // Without the wallet's key, nobody makes a head for what is left.
    let (_, seal) = forged.rsplit_once(' ').unwrap();
    let left = verify(&["--json"]).json();
    let hash = left["hash"].as_str().unwrap();
    home.write(HEAD, &format!("{:020} {hash} {seal}", left["records"].as_u64().unwrap()));
    let server = home.serve(&["serve"]);
    server.logs("was not sealed by a wallet that is open");
    assert_eq!((as_client(&server, &token), as_stranger(&server)), (200, 401));
    drop(server);
    fs::remove_file(home.path(HEAD)).unwrap();
    let server = home.serve(&["serve"]);
    server.logs("it is not there, as in a restored copy");
    drop(server);
    let server = home.serve(&["serve"]);
    assert!(!server.log().contains("journal-head"), "{}", server.log());
}

#[test]
fn a_state_without_clients_that_was_lost_is_not_taken_for_a_new_one() {
    for lose in [(|home| home.write(DATABASE, "")) as fn(&Home), |home| {
        fs::remove_file(home.path(DATABASE)).unwrap()
    }] {
        let home = Home::with_wallet().with_password(PASSWORD);
        let upstream = home.serve(&["sandbox"]);
        let mut server =
            home.serve(&["serve", "--upstream", &format!("http://{}", upstream.address)]);
        assert_eq!(server.request("POST", LIST).0, 200);
        until(|| head(&home) > 0);
        server.kill();
        lose(&home);
        serve(&home).fails(65, &["was written", "records were lost", "journal-head"]);
        assert!(!home.path(DATABASE).exists() || fs::read(home.path(DATABASE)).unwrap().is_empty());
    }
}

#[test]
fn a_state_that_never_had_clients_or_has_none_any_more_opens() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.serve(&["serve"]).signal("TERM");
    home.write(DATABASE, "");
    assert_eq!(as_stranger(&home.serve(&["serve"])), 200);
    home.run(&["client", "add", "ci", "--allow", "all"]).result();
    home.run(&["client", "revoke", "ci"]).told();
    assert_eq!(as_stranger(&home.serve(&["serve"])), 401);
    home.run(&["client", "remove", "ci"]).told();
    assert_eq!(as_stranger(&home.serve(&["serve"])), 200);
}

#[test]
fn a_command_that_is_killed_while_it_changes_the_clients_keeps_no_proxy_from_its_start() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let [add, revoke, remove]: [&[&str]; 3] = [
        &["client", "add", "ci", "--allow", "all"],
        &["client", "revoke", "ci"],
        &["client", "remove", "ci"],
    ];
    let is_marked = || home.path(MARKER).exists();
    // Tells whether the client is there afterwards.
    let kill_when = |command: &[&str], marked: bool| {
        let mut running = home.command();
        let mut running = running.args(command).stdout(Stdio::null()).spawn().unwrap();
        while is_marked() != marked && running.try_wait().unwrap().is_none() {}
        running.kill().unwrap();
        running.wait().unwrap();
        home.run(&["check"]).ok();
        let is_there = home.run(&["client", "list"]).stdout.contains("ci ");
        assert_eq!(is_marked(), is_there);
        is_there
    };
    for _ in 0..5 {
        if !kill_when(add, true) {
            home.run(add).result();
        }
        home.run(revoke).told();
        if kill_when(remove, false) {
            home.run(remove).told();
        }
    }
}

/// The database at `from` as it is when a process is killed that writes to it and has no log: with some
/// of the changes, and a file beside it by which they are undone.
fn copy_half_written(from: &Path, to: &Home) {
    let connection = rusqlite::Connection::open(from).unwrap();
    let change = "
        PRAGMA cache_size = 1; BEGIN; CREATE TABLE t (a); INSERT INTO t VALUES (zeroblob(100000));
        INSERT INTO t SELECT a FROM t; INSERT INTO t SELECT a FROM t;";
    connection.execute_batch(change).unwrap();
    to.write(DATABASE, "");
    for end in ["", "-journal"] {
        let from = format!("{}{end}", from.display());
        let length = fs::copy(from, to.path(&format!("{DATABASE}{end}"))).unwrap();
        assert!(length > 0);
    }
}

#[test]
fn a_state_that_was_only_begun_is_no_lost_one() {
    let begun: [fn(&Home); 2] =
        [|home| home.write(DATABASE, ""), |home| copy_half_written(&home.path("new.db"), home)];
    for begin in begun {
        let home = Home::with_wallet().with_password(PASSWORD);
        begin(&home);
        home.run(&["journal", "verify"]).fails(66, &["no such file, or nothing in it"]);
        begin(&home);
        home.run(&["check"]).ok();
        begin(&home);
        assert_eq!(as_stranger(&home.serve(&["serve"])), 200);
    }
}

#[test]
fn a_copy_whose_first_change_was_cut_short_is_read_as_it_was() {
    let (home, token) = with_client();
    home.run(&["backup", "copy.db"]).told();
    let whole = home.run(&["journal", "verify"]).result();
    let other = Home::with_wallet().with_password(PASSWORD);
    copy_half_written(&home.path("copy.db"), &other);
    assert_eq!(other.run(&["journal", "verify"]).result(), whole);
    copy_half_written(&home.path("copy.db"), &other);
    other.run(&["check"]).ok();
    copy_half_written(&home.path("copy.db"), &other);
    is_closed(&other, &token);
}

#[test]
fn the_file_alone_is_the_whole_state_after_the_end_and_after_each_change_of_a_client() {
    let (home, _) = with_client();
    let server = home.serve(&["serve"]);
    let added = home.run(&["client", "add", "later", "--allow", "all"]).result();
    let token = added.trim_end();
    let other = Home::with_wallet().with_password(PASSWORD);
    copy(&home, DATABASE, &other);
    assert!(other.run(&["client", "list"]).ok().contains("later"));

    assert_eq!(as_client(&server, token), 200);
    assert_eq!(server.signal("TERM").code, Some(0));
    let last = home.run(&["journal", "verify"]).result();
    let other = Home::with_wallet().with_password(PASSWORD);
    copy(&home, DATABASE, &other);
    assert_eq!(other.run(&["journal", "verify"]).result(), last);
    is_closed(&other, token);
    // It is marked there as well.
    other.write(DATABASE, "");
    serve(&other).fails(65, &["lost"]);
}

#[test]
fn a_copy_that_is_made_while_it_runs_is_the_whole_state() {
    let (home, token) = with_client();
    let server = home.serve(&["serve"]);
    assert_eq!(as_client(&server, &token), 200);
    let told = home.run(&["backup", "copy.db"]).told();
    assert!(told.contains("copy.db"), "{told}");
    assert_eq!(fs::metadata(home.path("copy.db")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(home.run(&["journal", "tail", "--json"]).ok().contains(r#""action":"backup""#));
    home.run(&["backup", "copy.db"]).fails(73, &["copy.db is there already"]);

    let other = Home::with_wallet().with_password(PASSWORD);
    copy(&home, "copy.db", &other);
    assert_eq!(
        other.run(&["journal", "verify"]).result(),
        home.run(&["journal", "verify"]).result()
    );
    is_closed(&other, &token);
}

#[test]
fn a_copy_that_is_made_under_load_brings_back_reservations_and_answers() {
    const JOB: &str = "68f0a1c27b3e4d5f60718202";
    let (home, token) = with_client();
    let upstream = home.serve(&["sandbox"]);
    let url = format!("http://{}", upstream.address);
    let serve = ["serve", "--upstream", &url];
    let mut server = home.serve(&serve);
    let token = format!("authorization: Bearer {token}\r\n");
    let keyed = format!("{token}idempotency-key: one\r\n");
    let reserve = format!("/api/external/jobs/{JOB}/reserve");
    let reserved = server.request_with("POST", &reserve, &keyed);
    assert_eq!(reserved.0, 200, "{}", reserved.1);
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while !ended.load(Relaxed) {
                    assert_eq!(server.request_with("POST", LIST, &token).0, 200);
                }
            });
        }
        let copied = home.run(&["backup", "copy.db"]);
        ended.store(true, Relaxed);
        copied.told();
    });
    server.kill();
    fs::remove_dir_all(home.path("state")).unwrap();
    copy(&home, "copy.db", &home);
    let server = home.serve(&serve);
    let before = upstream.request("GET", "/sandbox/counts").1;
    assert_eq!(server.request_with("POST", &reserve, &keyed), reserved, "the answer was kept");
    assert_eq!(upstream.request("GET", "/sandbox/counts").1, before);
    let held = server.request_with("GET", "/proxy/reservations", &token).1;
    assert!(held.contains(JOB) && held.contains("held-by-proxy"), "{held}");
    home.run(&["thaw"]).told();
    assert_eq!((server.request_with("POST", LIST, &token).0, as_stranger(&server)), (200, 401));
    home.run(&["journal", "verify"]).result();
}

/// The freeze that a proxy tells, and the status of a call.
fn frozen(server: &Server, token: &str) -> (serde_json::Value, u16) {
    let token = format!("authorization: Bearer {token}\r\n");
    let status = server.request_with("GET", "/proxy/status", &token).1;
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    (status["frozen"].clone(), server.request_with("POST", LIST, &token).0)
}

#[test]
fn a_restored_copy_starts_frozen_until_it_is_thawed_and_no_other_state_does() {
    let (home, token) = with_client();
    let upstream = home.serve(&["sandbox"]);
    let url = format!("http://{}", upstream.address);
    let serve = || home.serve(&["serve", "--upstream", &url]);
    for _ in 0..2 {
        let server = serve();
        assert_eq!(frozen(&server, &token), (serde_json::Value::Null, 200), "with its head");
        server.signal("TERM");
    }
    home.run(&["backup", "copy.db"]).told();
    let by_hand = fs::read(home.path(DATABASE)).unwrap();
    home.write(HEAD, "");
    assert_eq!(frozen(&serve(), &token), (serde_json::Value::Null, 200), "cut by a loss of power");
    for copy in [fs::read(home.path("copy.db")).unwrap(), by_hand] {
        fs::remove_dir_all(home.path("state")).unwrap();
        home.write(DATABASE, "");
        fs::write(home.path(DATABASE), copy).unwrap();
        for start in ["the first", "another"] {
            let mut server = serve();
            server.logs("signatures are frozen since");
            assert_eq!(server.log().contains("as in a restored copy"), start == "the first");
            let (freeze, status) = frozen(&server, &token);
            assert_eq!((&freeze["of"], status), (&"signatures".into(), 503), "{start} start");
            assert_eq!(freeze["by"], "the first start of a restored copy");
            server.kill();
        }
        assert!(home.run(&["thaw"]).told().contains("Nothing is frozen any more"));
        let journal = home.run(&["journal", "tail", "--json"]).ok();
        assert!(journal.contains("the first start of a restored copy"), "{journal}");
        assert_eq!(frozen(&serve(), &token), (serde_json::Value::Null, 200), "thawed");
    }
}

#[test]
fn what_cannot_be_copied_leaves_no_file() {
    let home = Home::new();
    home.run(&["backup", "copy.db"]).fails(66, &["proxy.db: there is no such file"]);
    home.write(DATABASE, "no database at all");
    home.run(&["backup", "copy.db"]).fails(65, &["damaged or no database"]);
    let (home, _) = with_client();
    home.run(&["backup", "no/such/folder.db"])
        .fails(74, &["folder.db: the folder no/such does not exist; make it"]);
    let archive = ["journal", "archive", "--before", "1d", "no/such/j.jsonl"];
    home.run(&archive).fails(74, &["j.jsonl: the folder no/such does not exist"]);
    assert!(!home.path("copy.db").exists());
}

#[test]
fn clients_that_are_required_are_never_done_without() {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("proxy.toml", "clients = \"required\"\n");
    let words = &["clients are required", "client add NAME", "from a copy"];
    serve(&home).fails(78, words);
    home.run(&["client", "add", "ci", "--allow", "all"]).result();
    let server = home.serve(&["serve"]);
    assert_eq!(as_stranger(&server), 401);
    // Not even when the last one goes while it runs.
    home.run(&["client", "revoke", "ci"]).told();
    assert!(home.run(&["client", "remove", "ci"]).told().contains("no call is taken"));
    assert_eq!(as_stranger(&server), 401);
    drop(server);
    // A sandbox of its own has a new state, in which there can be none.
    assert_eq!(as_stranger(&home.serve(&["serve", "--sandbox"])), 200);
    fs::remove_dir_all(home.path("state")).unwrap();
    serve(&home).fails(78, words);
    home.write("proxy.toml", "clients = \"sometimes\"\n");
    serve(&home).fails_at_length(78, &["expected one of required, optional"]);
}

/// What `serve` prints and logs of who may call.
fn callers(home: &Home) -> (String, String) {
    let mut server = home.serve(&["serve"]);
    loop {
        let line = server.line();
        if let Some(callers) = line.strip_prefix("  callers   ") {
            return (callers.to_owned(), server.log());
        }
    }
}

#[test]
fn serve_says_who_may_call() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let (callers_first, log) = callers(&home);
    assert_eq!(callers_first, "every program on this machine");
    assert!(log.contains("WARN") && log.contains("client add NAME"), "{log}");
    for (name, expected) in [("one", "1 client"), ("two", "2 clients")] {
        home.run(&["client", "add", name, "--allow", "all"]).result();
        let (callers, log) = callers(&home);
        assert_eq!(callers, expected);
        assert!(!log.contains("WARN"), "{log}");
    }
    for name in ["one", "two"] {
        home.run(&["client", "revoke", name]).told();
    }
    assert_eq!(callers(&home).0, "none: every client is revoked or expired");
}
