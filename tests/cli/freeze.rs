//! Freezing and thawing by commands, while two proxies on one state call as fast as they can.

use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use serde_json::{Value, json};
use tokio::task::{JoinSet, block_in_place};

use crate::{
    binary::{Home, PASSWORD, Server, until},
    common::{self, GENERAL_JOB, problem, serve_sandbox},
};

/// How many tasks call each proxy, and how many calls each makes before the freeze and after it.
const TASKS: usize = 4;
const CALLS: usize = 5;

fn paths() -> [String; 3] {
    ["list", &format!("{GENERAL_JOB}/reserve"), &format!("{GENERAL_JOB}/status")]
        .map(|path| format!("/api/external/jobs/{path}"))
}

async fn is_frozen(place: &str, path: &str) -> bool {
    let response = common::client().post(format!("{place}{path}")).send().await.unwrap();
    response.status().as_u16() == 503 && problem(response).await["code"] == "frozen"
}

/// The records of the journal, in order.
fn journal(home: &Home) -> Vec<Value> {
    let export = home.run(&["journal", "export"]).ok();
    let record = |line: &str| serde_json::from_str::<Value>(line).unwrap()["record"].take();
    export.lines().map(record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_stops_every_signature_of_every_proxy_until_it_is_thawed() {
    let home = Home::with_wallet().with_password(PASSWORD);
    let sandbox = Sandbox::new(Settings::default());
    let upstream = format!("http://{}", serve_sandbox(&sandbox).await);
    let start = || home.serve(&["serve", "--upstream", &upstream]);
    let servers = [start(), start()];
    let (made, returned) = (Arc::<AtomicUsize>::default(), Arc::<AtomicBool>::default());
    let mut tasks = JoinSet::new();
    for number in 0..TASKS * servers.len() {
        let place = servers[number % servers.len()].place.clone();
        let (made, returned) = (made.clone(), returned.clone());
        tasks.spawn(async move {
            let (paths, mut after) = (paths(), 0);
            for path in paths.iter().cycle() {
                let is_after = returned.load(SeqCst);
                let is_frozen = is_frozen(&place, path).await;
                assert!(is_frozen || !is_after, "{path} was made after the freeze");
                made.fetch_add(1, SeqCst);
                after += usize::from(is_after);
                if after == CALLS {
                    return;
                }
            }
        });
    }
    let frozen = block_in_place(|| {
        until(|| made.load(SeqCst) > TASKS * servers.len() * CALLS);
        home.run(&["freeze"]).told()
    });
    returned.store(true, SeqCst);
    tasks.join_all().await;
    assert!(frozen.contains("signatures are frozen since 20"), "{frozen}");
    assert!(frozen.contains("until `agentpmt-proxy thaw`.\n"), "{frozen}");

    let requests = sandbox.counts().requests;
    block_in_place(|| servers.map(|server| server.signal("TERM")));
    let servers = [start(), start()];
    for server in &servers {
        server.logs("signatures are frozen since");
        for path in paths() {
            assert!(is_frozen(&server.place, &path).await, "{path}");
        }
    }
    assert_eq!(sandbox.counts().requests, requests, "neither a call nor a session");
    assert!(block_in_place(|| home.run(&["thaw"]).told()).contains("Nothing is frozen any more"));
    for server in &servers {
        assert!(!is_frozen(&server.place, &paths()[0]).await);
    }
    is_recorded(&home, servers);
}

/// Checks the records that the test above leaves in the journal.
fn is_recorded(home: &Home, servers: [Server; 2]) {
    block_in_place(|| servers.map(|server| server.signal("TERM")));
    let records = journal(home);
    let user = format!("uid {}", rustix::process::getuid().as_raw());
    let at = |action: &str| {
        let is_that = |record: &Value| record["kind"] == "admin" && record["action"] == action;
        let at = records.iter().position(is_that).unwrap();
        assert_eq!(records[at]["by"], user);
        at
    };
    let (frozen, thawed) = (at("freeze"), at("thaw"));
    let meanwhile = &records[frozen..thawed];
    let is_change = |record: &&Value| record["action"] == "job_reserve";
    let changes: Vec<_> = meanwhile.iter().filter(is_change).collect();
    assert!(!changes.is_empty());
    for record in changes {
        assert_eq!((&record["kind"], &record["reason"]), (&json!("denied"), &json!("frozen")));
    }
}

#[test]
fn what_is_frozen_or_thawed_twice_is_told_and_on_record_once() {
    let home = Home::new();
    home.run(&["freeze"]).fails(66, &["NOTHING IS FROZEN", "there is no such file", "--state"]);
    let lost = home.run(&["freeze", "--config", "none"]);
    assert_eq!(lost.code, Some(78));
    assert!(lost.stderr.contains("NOTHING IS FROZEN") && lost.stderr.contains("end its process"));
    home.run(&["client", "add", "ci", "--allow", "jobs"]).result();
    let first = home.run(&["freeze", "--payments"]).told();
    assert!(first.contains("payments are frozen since"), "{first}");
    assert!(first.contains("no running proxy uses the state"), "{first}");
    assert_eq!(home.run(&["freeze", "--payments"]).told(), first);
    assert!(home.run(&["freeze"]).told().contains("signatures are frozen"));
    let both = home.run(&["freeze", "--payments", "--state", "state"]).told();
    for words in ["signatures are frozen", "and payments with them", "thaw --state state`"] {
        assert!(both.contains(words), "{both}");
    }
    assert!(home.run(&["thaw"]).told().contains("Nothing is frozen any more"));
    assert!(home.run(&["thaw"]).told().contains("Nothing was frozen"));
    let actions: Vec<_> = journal(&home).iter().map(|record| record["action"].clone()).collect();
    let expected = ["client_add", "freeze_payments", "freeze", "thaw", "journal_export"];
    assert_eq!(actions, expected);
}
