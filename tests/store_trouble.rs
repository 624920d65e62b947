//! A disk that is full, and one that cannot be written to: nothing is signed without a record.
//!
//! They need a small disk of their own, which only root can mount; without that right a test says so
//! and ends.

#![allow(clippy::unwrap_used)]

mod common;

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
    sync::Arc,
};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
    signer::Signer,
    store::{Clients, Store},
    types::{ClientToken, Credential},
};
use axum::{
    extract::Request,
    middleware::{Next, from_fn},
};
use common::{GENERAL_JOB, Options, TestProxy, WORKFLOW_JOB, json, problem, serve, serve_sandbox};
use http::StatusCode;
use jiff::Timestamp;
use tempfile::TempDir;

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

/// Fills a disk to the last byte.
fn fill(disk: &Path) {
    let mut file = File::create(disk.join("filler")).unwrap();
    while file.write_all(&[0; 512]).is_ok() {}
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
    let workflow = r#"{"name":"n","description":"d","nodes":[{"id":"a"}],"edges":[]}"#;
    proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), workflow).await;
}

#[tokio::test]
async fn while_the_store_is_read_only_nothing_is_signed_and_service_returns_by_itself() {
    let Some(disk) = Disk::mount() else { return };
    let key = Signer::from_hex(&"42".repeat(32)).unwrap().seal_key();
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
    }
}

#[test]
fn a_client_that_finds_no_room_is_added_by_running_the_command_again() {
    let Some(disk) = Disk::mount() else { return };
    let mut clients = Clients::create(&disk.path().join("proxy.db")).unwrap();
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
