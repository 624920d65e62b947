//! Clients over the real program: known by user id or by certificate, over its death, and revoked by a
//! command.

use std::{
    fs::{self, Permissions},
    os::unix::{fs::PermissionsExt, process::CommandExt},
    process::Command,
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use http::StatusCode;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, Identity, Response};
use rustix::process::geteuid;
use serde_json::Value;

#[cfg(target_os = "linux")]
use crate::clock;
use crate::{
    binary::{Home, PASSWORD, Server, until},
    common::{self, GENERAL_JOB, WORKFLOW_JOB, client_of_socket, json, problem, serve_sandbox},
};

/// A user that owns nothing, on most systems `nobody`.
const NOBODY: u32 = 65534;

fn home() -> Home {
    Home::with_wallet().with_password(PASSWORD)
}

/// Adds a client by the command, and returns its token, if it has one.
fn add(home: &Home, name: &str, more: &[&str]) -> String {
    let text = home.run(&[&["client", "add", name, "--allow", "jobs"], more].concat()).result();
    text.trim_end().to_owned()
}

/// A sandbox, and the program in front of it at one place.
async fn served(home: &Home, listen: &str) -> (Sandbox, Server) {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let server = home.serve_where_told(&["serve", "--listen", listen, "--upstream", &upstream]);
    (sandbox, server)
}

/// What the journal holds of a kind: its clients or where they called from.
fn callers(home: &Home, kind: &str) -> Vec<String> {
    let export = home.run(&["journal", "export"]).ok();
    let records = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let of_kind = records.filter(|line| line["record"]["kind"] == kind);
    let caller = |line: Value| {
        let record = &line["record"];
        record["client"].as_str().or(record["from"].as_str()).unwrap().to_owned()
    };
    of_kind.map(caller).collect()
}

async fn list(client: &Client, base: &str) -> Response {
    client.post(format!("{base}/api/external/jobs/list")).send().await.unwrap()
}

#[tokio::test]
async fn over_a_unix_socket_a_client_is_known_by_its_user_id() {
    let home = home();
    let (sandbox, server) = served(&home, "unix:p.sock").await;
    let client = client_of_socket(&home.path("p.sock"));
    let base = "http://localhost";
    assert_eq!(list(&client, base).await.status(), StatusCode::OK);
    add(&home, "stranger", &["--uid", &(geteuid().as_raw() + 1).to_string()]);
    let before = sandbox.counts().requests;
    // Who owns the proxy is a client like all others, once there is one.
    assert_eq!(problem(list(&client, base).await).await["code"], "unauthenticated");
    assert_eq!(sandbox.counts().requests, before);
    add(&home, "own", &["--uid", &geteuid().as_raw().to_string()]);
    assert_eq!(list(&client, base).await.status(), StatusCode::OK);
    // A token goes before, also one that is none.
    let request = client.post(format!("{base}/api/external/jobs/list")).bearer_auth("apmt_0");
    assert_eq!(problem(request.send().await.unwrap()).await["code"], "mistyped_token");
    home.run(&["client", "revoke", "own"]).result();
    assert_eq!(problem(list(&client, base).await).await["code"], "unauthenticated");
    assert_eq!(server.signal("TERM").code, Some(0));
    assert_eq!(callers(&home, "signed"), ["local", "own"]);
    assert_eq!(callers(&home, "denied"), vec![format!("uid {}", geteuid().as_raw()); 3]);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_user_at_the_unix_socket_is_refused() {
    if !geteuid().is_root() {
        println!("skipped: only root can act as another user");
        return;
    }
    let home = home().with("AGENTPMT_PROXY_SOCKET__MODE", "0666");
    let (sandbox, server) = served(&home, "unix:p.sock").await;
    // So that the other user reaches it at all.
    fs::set_permissions(home.path("."), Permissions::from_mode(0o711)).unwrap();
    if as_nobody(&home).is_none() {
        println!("skipped: no curl that another user can run");
        return;
    }
    assert!(as_nobody(&home).unwrap().contains("unauthenticated"));
    assert_eq!(sandbox.counts().requests, 0);
    add(&home, "own", &["--uid", "0"]);
    assert!(as_nobody(&home).unwrap().contains("unauthenticated"));
    assert_eq!(sandbox.counts().requests, 0);
    add(&home, "nobody", &["--uid", &NOBODY.to_string()]);
    let answer = as_nobody(&home).unwrap();
    assert!(answer.contains(GENERAL_JOB), "{answer}");
    assert_eq!(server.signal("TERM").code, Some(0));
    assert_eq!(callers(&home, "signed"), ["nobody"]);
    assert_eq!(callers(&home, "denied"), vec![format!("uid {NOBODY}"); 3]);
}

/// What another user gets for a list; `None` if it has no program to ask with.
fn as_nobody(home: &Home) -> Option<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--max-time", "60", "-X", "POST", "--unix-socket"]);
    curl.arg(home.path("p.sock")).arg("http://localhost/api/external/jobs/list");
    let ran = curl.current_dir("/").uid(NOBODY).gid(NOBODY).output().ok()?;
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    Some(String::from_utf8(ran.stdout).unwrap())
}

/// A certificate with its key, in PEM.
fn signed_by(issuer: &CertifiedIssuer<'static, KeyPair>) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["127.0.0.1".to_owned()]).unwrap();
    (params.signed_by(&key, issuer).unwrap().pem(), key.serialize_pem())
}

#[tokio::test]
async fn over_tls_a_client_is_known_by_its_certificate() {
    let home = home();
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let (certificate, key) = signed_by(&issuer);
    home.write("tls.crt", &certificate);
    home.write("tls.key", &key);
    home.write("ca.crt", &issuer.pem());
    let tls = "[tls]\ncertificate = 'tls.crt'\nkey = 'tls.key'\nclient_ca = 'ca.crt'";
    home.write("proxy.toml", tls);
    let (sandbox, server) = served(&home, "127.0.0.1:0").await;
    let (known, other) = (signed_by(&issuer), signed_by(&issuer));
    home.write("known.crt", &known.0);
    add(&home, "known", &["--certificate", "known.crt"]);
    let client = |identity: Option<&(String, String)>| {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let trusted = Certificate::from_pem(issuer.pem().as_bytes()).unwrap();
        let builder = Client::builder().no_proxy().tls_certs_only([trusted]);
        let builder = match identity {
            Some((certificate, key)) => {
                let pem = format!("{certificate}{key}");
                builder.identity(Identity::from_pem(pem.as_bytes()).unwrap())
            }
            None => builder,
        };
        builder.build().unwrap()
    };
    for identity in [None, Some(&other)] {
        let refused = problem(list(&client(identity), &server.place).await).await;
        assert_eq!(refused["code"], "unauthenticated");
    }
    assert_eq!(sandbox.counts().requests, 0);
    let known = client(Some(&known));
    assert_eq!(list(&known, &server.place).await.status(), StatusCode::OK);
    home.run(&["client", "revoke", "known"]).result();
    // Over the connection that it has.
    let refused = problem(list(&known, &server.place).await).await;
    assert_eq!(refused["code"], "unauthenticated");
    assert_eq!(server.signal("TERM").code, Some(0));
    assert_eq!(callers(&home, "signed"), ["known"]);
}

async fn post(server: &Server, token: &str, path: &str) -> Response {
    let request = common::client().post(format!("{}/api/external{path}", server.place));
    request.bearer_auth(token).send().await.unwrap()
}

#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_clock_that_is_set_takes_no_job_from_its_client() {
    const DAYS: i64 = 24 * 3600;
    let home = clock::with_a_clock_to_set();
    let [token, other] = ["ci", "other"].map(|name| add(&home, name, &["--max-reservations", "1"]));
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let start = || home.serve(&["serve", "--upstream", &upstream]);
    let mut server = start();
    let [reserve, complete] =
        ["reserve", "complete"].map(|word| format!("/jobs/{GENERAL_JOB}/{word}"));
    let elsewhere = format!("/jobs/{WORKFLOW_JOB}/reserve");
    assert_eq!(post(&server, &token, &reserve).await.status(), StatusCode::OK);
    // Set while it runs, kept over its death, set while it is dead, and set back.
    for (ahead, dies) in [(2 * DAYS, false), (2 * DAYS, true), (-DAYS, true), (0, false)] {
        if dies {
            server.kill();
        }
        clock::set_ahead(&home, ahead);
        if dies {
            server = start();
        }
        let held = common::client().get(format!("{}/proxy/reservations", server.place));
        let held = json(held.bearer_auth(&token).send().await.unwrap()).await;
        let left = held["reservations"][0]["seconds_left"].as_i64().unwrap();
        assert!((1600..=1801).contains(&left), "{left} with a clock that is {ahead} ahead");
        let refused = problem(post(&server, &other, &reserve).await).await;
        assert_eq!(refused["code"], "held_by_another", "{ahead}");
        let third = "/jobs/68f0a1c27b3e4d5f60718203/reserve";
        let refused = problem(post(&server, &token, third).await).await;
        assert_eq!(refused["code"], "too_many_reservations", "{ahead}");
        if ahead == 2 * DAYS && !dies {
            // What is forgotten when another is remembered, is so by no clock that is wrong.
            assert_eq!(post(&server, &other, &elsewhere).await.status(), StatusCode::OK);
        }
    }
    let proof = common::client().post(format!("{}/api/external{complete}", server.place));
    let done = proof.bearer_auth(&token).body(r#"{"proof_text":"done"}"#).send().await.unwrap();
    assert_eq!(done.status(), StatusCode::OK);
    assert_eq!(sandbox.accepted(GENERAL_JOB), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reserve_that_dies_with_the_proxy_counts_in_the_next_one() {
    let home = home();
    let token = add(&home, "ci", &["--max-reservations", "1"]);
    let other = add(&home, "other", &[]);
    let (sandbox, mut server) = served(&home, "127.0.0.1:0").await;
    sandbox.inject("hang_after:job_reserve:1".parse().unwrap());
    let reserve = format!("/jobs/{GENERAL_JOB}/reserve");
    let url = format!("{}/api/external{reserve}", server.place);
    let lost = tokio::spawn(common::client().post(url).bearer_auth(&token).send());
    while sandbox.counts().faults.is_empty() {
        tokio::task::yield_now().await;
    }
    server.kill();
    assert!(lost.await.unwrap().is_err());

    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let server = home.serve(&["serve", "--upstream", &upstream]);
    let full = post(&server, &token, &format!("/jobs/{WORKFLOW_JOB}/reserve")).await;
    assert_eq!(problem(full).await["code"], "too_many_reservations");
    for path in [&reserve, &format!("/jobs/{GENERAL_JOB}/complete")] {
        assert_eq!(problem(post(&server, &other, path).await).await["code"], "held_by_another");
    }
    let status = json(post(&server, &token, &format!("/jobs/{GENERAL_JOB}/status")).await).await;
    assert_eq!(status["has_active_reservation"], true);
}

#[tokio::test]
async fn clients_are_added_revoked_and_removed_by_commands_while_the_proxy_runs() {
    let home = home();
    let (sandbox, server) = served(&home, "127.0.0.1:0").await;
    let nobody = async || {
        let list = common::client().post(format!("{}/api/external/jobs/list", server.place));
        list.send().await.unwrap()
    };
    let told = |command: &[&str]| {
        let told = home.run(command).told();
        assert!(!told.contains("no running proxy"), "{told}");
    };
    assert_eq!(nobody().await.status(), StatusCode::OK);
    told(&["client", "add", "before", "--allow", "jobs"]);
    for name in ["first", "last"] {
        let token = add(&home, name, &[]);
        assert_eq!(post(&server, &token, "/jobs/list").await.status(), StatusCode::OK);
        // It is noted in the background.
        until(|| {
            let list = home.run(&["client", "list", "--json"]).json();
            let row = list.as_array().unwrap().iter().find(|row| row["name"] == name);
            row.unwrap()["last_used"].is_string()
        });
        told(&["client", "revoke", name]);
        let before = sandbox.counts().requests;
        let refused = post(&server, &token, "/jobs/list").await;
        assert_eq!(problem(refused).await["code"], "unknown_token");
        assert_eq!(problem(nobody().await).await["code"], "unauthenticated");
        assert_eq!(sandbox.counts().requests, before);
    }
    told(&["client", "revoke", "before"]);
    for name in ["before", "first", "last"] {
        assert_eq!(problem(nobody().await).await["code"], "unauthenticated");
        told(&["client", "remove", name]);
    }
    assert_eq!(nobody().await.status(), StatusCode::OK);
}
