//! Nothing is signed without a record: while a disk is full, while it cannot be written to, and when
//! the files of the state are removed or replaced while the proxy runs.
//!
//! Some need a small disk of their own, which only root can mount; without that right a test says so
//! and ends.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
    signer::LocalKey,
    store::{Clients, Store},
    types::{ClientToken, Credential},
};
use axum::{
    extract::Request,
    middleware::{Next, from_fn},
};
use http::StatusCode;
use jiff::Timestamp;
use tempfile::TempDir;

use crate::{
    binary::{Home, PASSWORD, Server, until},
    common::{
        GENERAL_JOB, Options, TestProxy, WORKFLOW, WORKFLOW_JOB, json, problem, serve,
        serve_sandbox,
    },
};

/// A disk in memory, mounted on a folder until the value is dropped.
struct Disk(Arc<TempDir>);

impl Disk {
    fn mount() -> Option<Self> {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let options = ["-t", "tmpfs", "-o", "size=2m,mode=0700", "tmpfs"];
        let mounted = Command::new("mount").args(options).arg(folder.path()).output();
        if mounted.is_ok_and(|output| output.status.success()) {
            return Some(Self(folder));
        }
        eprintln!("skipped: a disk of its own can only be mounted by root");
        None
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    /// Mounts it again, read-only or not. It cannot become read-only while a file is open for writing.
    fn remount(&self, mode: &str) -> bool {
        let options = format!("remount,{mode}");
        let done = Command::new("mount").args(["-o", &options]).arg(self.path()).output();
        done.unwrap().status.success()
    }
}

/// Fills a disk to the last byte. The system may find a little more a moment after it was full.
fn fill(disk: &Path) {
    let mut file = File::create(disk.join("filler")).unwrap();
    let mut refused = 0;
    while refused < 100 {
        match file.write_all(&[0; 512]) {
            Ok(()) => refused = 0,
            Err(_) => {
                refused += 1;
                thread::yield_now();
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily, since the store of the test's runtime still has it open.
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

async fn proxy_on(disk: &Disk) -> TestProxy {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let folder = disk.0.clone();
    TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await
}

/// While nothing can be written, changes are refused unsigned and reads go on.
async fn refuses_changes_only(proxy: &TestProxy) {
    // The session is there then, which needs no record.
    proxy.ok("/jobs/list", "").await;
    let ready = || async { proxy.client.get(proxy.url("/readyz")).send().await.unwrap().status() };
    assert_eq!(ready().await, StatusCode::SERVICE_UNAVAILABLE);
    for path in ["complete", "reserve"] {
        let before = proxy.sandbox.counts().requests;
        let response = proxy.post(&format!("/jobs/{GENERAL_JOB}/{path}"), "").await;
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE, "{path}");
        let problem = problem(response).await;
        assert_eq!(problem["code"], "journal_unavailable", "{path}: {problem}");
        assert_eq!(problem["retry"], "safe");
        assert_eq!(proxy.sandbox.counts().requests, before, "{path}");
    }
    let before = proxy.sandbox.counts().requests;
    let url = proxy.url(&format!("/api/external/jobs/{GENERAL_JOB}/complete"));
    let response = proxy.client.post(url).header("idempotency-key", "k").send().await.unwrap();
    assert_eq!(problem(response).await["code"], "journal_unavailable", "under a key");
    assert_eq!(proxy.sandbox.counts().requests, before);
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 0);
}

async fn completes(proxy: &TestProxy) {
    is_ready_again(proxy).await;
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    proxy.ok(&path, r#"{"proof_text":"done"}"#).await;
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 1);
}

/// Asks until it is ready: the system may take a moment to give back the space of a removed file.
async fn is_ready_again(proxy: &TestProxy) {
    for _ in 0..1000 {
        let ready = proxy.client.get(proxy.url("/readyz")).send().await.unwrap();
        if ready.status() == StatusCode::OK {
            return;
        }
    }
    panic!("it does not become ready again");
}

#[tokio::test]
async fn while_the_disk_is_full_nothing_is_signed_and_service_returns_with_space() {
    let Some(disk) = Disk::mount() else { return };
    let proxy = proxy_on(&disk).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    fill(disk.path());
    refuses_changes_only(&proxy).await;
    fs::remove_file(disk.path().join("filler")).unwrap();
    completes(&proxy).await;
}

#[tokio::test]
async fn a_reservation_that_meets_a_full_disk_is_kept_and_written_when_there_is_space() {
    let Some(disk) = Disk::mount() else { return };
    let sandbox = Sandbox::new(Settings::default());
    let path = disk.path().to_owned();
    // The disk fills up between the record of the call and its answer.
    let fill = from_fn(move |request: Request, next: Next| {
        let full = request.uri().path().ends_with("/reserve").then(|| path.clone());
        async move {
            let answer = next.run(request).await;
            full.iter().for_each(|path| fill(path));
            answer
        }
    });
    let upstream = serve(sandbox.router().layer(fill)).await;
    let in_its_folder = |options: &mut Options| options.folder = disk.0.clone();
    let proxy = TestProxy::in_front_of(sandbox.clone(), upstream, in_its_folder).await;
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    let held = |proxy: &TestProxy| {
        let request = proxy.client.get(proxy.url("/proxy/reservations"));
        async { json(request.send().await.unwrap()).await["reservations"].clone() }
    };
    assert_eq!(held(&proxy).await[0]["workflow_token"], "held-by-proxy");

    fs::remove_file(disk.path().join("filler")).unwrap();
    is_ready_again(&proxy).await;
    proxy.proxy.end();
    proxy.proxy.drained().await;
    drop(proxy);
    let upstream = serve(sandbox.router()).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, in_its_folder).await;
    assert_eq!(held(&proxy).await.as_array().unwrap().len(), 1);
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
}

#[tokio::test]
async fn while_the_store_is_read_only_nothing_is_signed_and_service_returns_by_itself() {
    let Some(disk) = Disk::mount() else { return };
    let key = LocalKey::from_hex(&"42".repeat(32)).unwrap().seal_key();
    drop(Store::open(&disk.path().join("proxy.db"), &[key]).unwrap());
    // The thread of the store closes the file soon after.
    while !disk.remount("ro") {
        tokio::task::yield_now().await;
    }
    let proxy = proxy_on(&disk).await;
    refuses_changes_only(&proxy).await;
    assert!(disk.remount("rw"));
    is_ready_again(&proxy).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    completes(&proxy).await;
}

#[test]
fn a_new_state_on_a_full_or_read_only_disk_says_to_run_the_command_again() {
    let Some(disk) = Disk::mount() else { return };
    let refused = || {
        let path = disk.path().join("state/proxy.db");
        let store = Store::open(&path, &[]).unwrap_err();
        [store.to_string(), Clients::create(&path).unwrap_err().to_string()]
    };
    fill(disk.path());
    for text in refused() {
        assert!(text.contains("the disk is full") && text.ends_with("run this again"), "{text}");
    }
    // Nothing of the first try may stay in the way.
    fs::remove_dir_all(disk.path().join("state")).unwrap();
    assert!(disk.remount("ro"));
    for text in refused() {
        assert!(text.contains("be written to") && text.ends_with("run this again"), "{text}");
        assert!(!text.contains("--state"), "only a proxy may be given another state: {text}");
    }
    let state = disk.path().join("state");
    let home = Home::with_wallet().with_password(PASSWORD);
    let run = |args: &[&str]| home.run(&[args, &["--state", state.to_str().unwrap()]].concat());
    let served = run(&["serve", "--listen", "127.0.0.1:0"]);
    served.fails_at_length(74, &["be written to", "with --state"]);
    run(&["check"]).fails(74, &["be written to", "with --state"]);
    let added = run(&["client", "add", "ci", "--allow", "jobs"]);
    added.fails(74, &["be written to", "run this again"]);
    assert!(!added.stderr.contains("--state"), "{added:?}");
}

#[test]
fn a_copy_that_finds_no_room_is_to_be_written_elsewhere() {
    let Some(disk) = Disk::mount() else { return };
    let (home, _server, _) = sandbox();
    fill(disk.path());
    let copy = disk.path().join("copy.db");
    let backup = home.run(&["backup", "--state", "state", copy.to_str().unwrap()]);
    backup.fails(74, &["the disk is full; free some space, or write the copy to another disk"]);
    assert!(!copy.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_that_finds_no_room_says_that_nothing_is_frozen() {
    let Some(disk) = Disk::mount() else { return };
    let path = disk.path().join("state/proxy.db");
    let store = Store::open(&path, &[]).unwrap();
    fill(disk.path());
    let state = path.parent().unwrap().to_str().unwrap();
    let frozen = Home::new().run(&["freeze", "--state", state]);
    frozen.fails(74, &["NOTHING IS FROZEN", "the disk is full", "end its process"]);
    assert_eq!(store.frozen().await.unwrap(), None);
}

#[test]
fn a_client_that_finds_no_room_is_added_by_running_the_command_again() {
    let Some(disk) = Disk::mount() else { return };
    let clients = Clients::create(&disk.path().join("proxy.db")).unwrap();
    let client = Client { name: "bot".parse().unwrap(), admin: false, ..Client::local() };
    let token = Credential::Token(ClientToken::random().hash());
    fill(disk.path());
    let text = clients.add(&client, &token, Timestamp::now()).unwrap_err().to_string();
    assert!(text.contains("the disk is full") && text.ends_with("run this again"), "{text}");
    fs::remove_file(disk.path().join("filler")).unwrap();
    // The system may take a moment to give the space back.
    let mut tries = (0..1000).map(|_| clients.add(&client, &token, Timestamp::now()));
    assert_eq!(tries.find_map(Result::ok), Some(true));
}

#[test]
fn at_the_limit_of_a_files_size_nothing_is_signed_and_the_process_goes_on() {
    let home = Home::new();
    let mut limited = home.wrapped("sh");
    limited.args(["-c", "ulimit -f 800; exec \"$@\"", "sh"]);
    limited.arg(env!("CARGO_BIN_EXE_agentpmt-proxy"));
    let server = home.serve_by(limited.args(["serve", "--sandbox", "--state", "state"]));
    let edit = |name: &str| {
        let path = format!("/api/external/jobs/{WORKFLOW_JOB}/reserve");
        server.request_with("POST", &path, &format!("idempotency-key: {name}\r\n"))
    };
    let mut refused = (0..5000).map(|number| edit(&number.to_string()));
    let (status, body) = refused.find(|(status, _)| *status == 503).unwrap();
    assert!(status == 503 && body.contains("journal_unavailable"), "{body}");
    assert!(body.contains("ulimit -f") || body.contains("File too large"), "{body}");
    assert_eq!(server.request("GET", "/healthz").0, 200);
    assert_eq!(server.signal("TERM").code, Some(0));
}

/// A sandbox with a state that stays, and the token of a client.
fn sandbox() -> (Home, Server, String) {
    let home = Home::new();
    let server = home.serve(&["serve", "--sandbox", "--state", "state"]);
    let added = home.run(&["client", "add", "ci", "--allow", "jobs", "--state", "state"]);
    (home, server, added.result().trim_end().to_owned())
}

/// The status of the answer to a call of the client, and its body.
fn call(server: &Server, token: &str, path: &str) -> (u16, String) {
    let path = format!("/api/external/jobs/{path}");
    server.request_with("POST", &path, &format!("authorization: Bearer {token}\r\n"))
}

#[track_caller]
fn is_refused(server: &Server, token: &str, words: &str) {
    for path in [&format!("{WORKFLOW_JOB}/reserve"), "list"] {
        let (status, body) = call(server, token, path);
        assert_eq!(status, 503, "{path}: {body}");
        assert!(body.contains("journal_unavailable") && body.contains(words), "{path}: {body}");
    }
    until(|| server.request("GET", "/readyz").0 == 503);
    server.logs("the state cannot be used");
}

#[track_caller]
fn reserves(server: &Server, token: &str, job: &str) {
    let (status, body) = call(server, token, &format!("{job}/reserve"));
    assert_eq!(status, 200, "{body}");
}

/// The number of records, which hold.
fn verified(home: &Home) -> u32 {
    let told = home.run(&["journal", "verify", "--state", "state"]).told();
    told.split(' ').next().unwrap().parse().unwrap()
}

/// Waits until all that was done is on record: of each of so many calls the outcome, too.
fn all_is_on_record(home: &Home, calls: usize) {
    until(|| {
        let tail = home.run(&["journal", "tail", "--json", "--state", "state"]).ok();
        tail.lines().filter(|line| line.contains("\"answered\"")).count() == calls
    });
}

#[test]
fn calls_that_only_read_go_on_while_another_process_holds_the_lock() {
    let (home, server, token) = sandbox();
    let add = |more: &[&str]| {
        let words = ["client", "add", "--allow", "jobs", "--state", "state"];
        home.run(&[&words[..], more].concat()).result().trim_end().to_owned()
    };
    let (slow, new) = (add(&["slow", "--rate", "100/h"]), add(&["new"]));
    let other = rusqlite::Connection::open(home.path("state/proxy.db")).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    for token in [&slow, &token, &new, &slow] {
        let (status, body) = call(&server, token, "list");
        assert_eq!(status, 200, "{body}");
        assert_eq!(server.request("GET", "/healthz").0, 200);
    }
    other.execute_batch("ROLLBACK").unwrap();
    reserves(&server, &slow, GENERAL_JOB);
}

#[test]
fn while_the_state_folder_is_gone_nothing_is_signed_and_no_other_is_made() {
    let (home, server, token) = sandbox();
    reserves(&server, &token, GENERAL_JOB);
    fs::rename(home.path("state"), home.path("away")).unwrap();
    is_refused(&server, &token, "it was removed, moved or emptied");
    assert!(!home.path("state").exists());
    fs::rename(home.path("away"), home.path("state")).unwrap();
    reserves(&server, &token, WORKFLOW_JOB);
    server.logs("used from now on");
    all_is_on_record(&home, 2);
    verified(&home);
    fs::remove_dir_all(home.path("state")).unwrap();
    is_refused(&server, &token, "it was removed, moved or emptied");
}

#[test]
fn a_revocation_counts_at_once_in_a_folder_that_was_put_back_from_a_copy() {
    let (home, server, token) = sandbox();
    reserves(&server, &token, GENERAL_JOB);
    all_is_on_record(&home, 1);
    let copied =
        Command::new("cp").arg("-a").args([home.path("state"), home.path("copy")]).status();
    assert!(copied.unwrap().success());
    fs::rename(home.path("state"), home.path("old")).unwrap();
    fs::rename(home.path("copy"), home.path("state")).unwrap();
    home.run(&["client", "revoke", "ci", "--state", "state"]).result();
    for path in [&format!("{WORKFLOW_JOB}/reserve"), "list"] {
        let (status, body) = call(&server, &token, path);
        assert_eq!(status, 401, "{path}: {body}");
    }
    // It runs for those who look into the new folder, too.
    let told = home.run(&["client", "remove", "ci", "--state", "state"]).told();
    assert!(!told.contains("no running proxy"), "{told}");
}

#[test]
fn an_older_or_another_state_is_not_taken_for_the_one_that_is_open() {
    let (home, server, token) = sandbox();
    reserves(&server, &token, GENERAL_JOB);
    home.run(&["client", "add", "ci", "--allow", "jobs", "--state", "other"]).result();
    let records = verified(&home);
    for name in ["proxy.db", "proxy.db-wal"] {
        fs::rename(home.path("state").join(name), home.path(name)).unwrap();
        fs::rename(home.path("other").join(name), home.path("state").join(name)).unwrap();
    }
    is_refused(&server, &token, "does not hold record");
    for name in ["proxy.db", "proxy.db-wal"] {
        fs::rename(home.path("state").join(name), home.path("other").join(name)).unwrap();
        fs::rename(home.path(name), home.path("state").join(name)).unwrap();
    }
    reserves(&server, &token, WORKFLOW_JOB);
    assert!(verified(&home) > records);
}

#[test]
fn what_is_recorded_after_the_log_was_removed_is_in_the_files_that_are_there() {
    let (home, server, token) = sandbox();
    assert_eq!(call(&server, &token, "list").0, 200);
    all_is_on_record(&home, 1);
    let before = verified(&home);
    for (name, job) in [("proxy.db-wal", GENERAL_JOB), ("proxy.db-shm", WORKFLOW_JOB)] {
        fs::remove_file(home.path("state").join(name)).unwrap();
        reserves(&server, &token, job);
    }
    all_is_on_record(&home, 3);
    assert!(verified(&home) >= before + 4);
}
