//! The process killed at random moments: nothing is lost, and nothing is done twice.
//!
//! Ten rounds, or as many as `CRASH_ROUNDS` says. A failure prints its seed; `CRASH_SEED` repeats the
//! moments, though not what the machine does at them.

use std::{
    collections::BTreeMap,
    env,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use agentpmt_proxy::sandbox::{Sandbox, Settings};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use futures_util::future::join_all;
use reqwest::Client;
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    binary::{Home, PASSWORD, Server},
    common::{self, client, json},
    random::Random,
};

const JOBS: usize = 32;

/// The latest moment of a kill after the completions set out; they take about as long.
const LATEST: u64 = 150;

/// The longest time that the upstream takes before it processes a change, and again after it.
const SLOWEST: u64 = 50;

/// What the proxy gives the upstream to end its work; ten times as much as that takes.
const SETTLE_TIME: &str = "500ms";

/// When a client that has no final answer gives up, which fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_loses_no_completion_and_makes_none_twice() {
    let rounds = number("CRASH_ROUNDS").unwrap_or(10);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("CRASH_SEED").unwrap_or(now.as_secs());
    println!("CRASH_SEED={seed}");
    // All rounds share one store: what one leaves behind, the next has to live with.
    let home = Home::with_wallet().with_password(PASSWORD);
    let home = home.with("AGENTPMT_PROXY_UPSTREAM__SETTLE_TIME", SETTLE_TIME);
    let mut totals = BTreeMap::new();
    for round in 0..rounds {
        let random = Random(seed.wrapping_mul(1_000_003).wrapping_add(round) | 1);
        for (what, count) in Round::new(&home, round, random).await.run().await {
            *totals.entry(what).or_insert(0) += count;
        }
    }
    println!("{rounds} rounds of {JOBS} completions: {totals:?}");
}

/// A sandbox with its jobs reserved, and a proxy in front of it.
struct Round<'a> {
    home: &'a Home,
    name: u64,
    random: Random,
    sandbox: Sandbox,
    seen: Seen,
    upstream: SocketAddr,
    server: Server,
    jobs: Vec<String>,
}

/// The changes that arrived at the sandbox: request id, action and job.
type Seen = Arc<Mutex<Vec<[String; 3]>>>;

impl<'a> Round<'a> {
    async fn new(home: &'a Home, name: u64, mut random: Random) -> Self {
        // Of each copy, eight jobs take a proof in words alone.
        let sandbox = Sandbox::new(Settings { copies: 4, ..Settings::default() });
        let seen = Seen::default();
        let router = slow_and_watched(sandbox.router(), seen.clone(), random.next());
        let upstream = common::serve(router).await;
        let server = start(home, upstream);
        let jobs = reserve_jobs(server.address).await;
        assert_eq!(jobs.len(), JOBS);
        Self { home, name, random, sandbox, seen, upstream, server, jobs }
    }

    async fn run(mut self) -> BTreeMap<String, u64> {
        let (publish, address) = watch::channel(self.server.address);
        let mut agents = JoinSet::new();
        let client = client();
        for job in &self.jobs {
            let key = format!("round-{}-{job}", self.name);
            let agent = Agent { client: client.clone(), job: job.clone(), key };
            agents.spawn(timeout(PATIENCE, agent.work(address.clone())));
        }
        // In every other round also the process that clears up after the first is killed.
        for _ in 0..=self.name % 2 {
            // Early ones are more frequent: then most is under way.
            let latest = self.random.below(LATEST) + 1;
            sleep(Duration::from_millis(self.random.below(latest))).await;
            self.server.kill();
            self.server = start(self.home, self.upstream);
            publish.send_replace(self.server.address);
        }
        let mut answers = BTreeMap::new();
        for answer in agents.join_all().await {
            *answers.entry(answer.expect("no final answer in time")).or_insert(0) += 1;
        }
        self.check_jobs();
        self.check_journal();
        answers
    }

    fn check_jobs(&self) {
        for job in &self.jobs {
            let counts = (self.sandbox.submissions(job), self.sandbox.accepted(job));
            assert_eq!(counts, (1, 1), "submissions and accepted of {job}, round {}", self.name);
        }
    }

    fn check_journal(&self) {
        let verified = self.home.run(&["journal", "verify"]).told();
        assert!(verified.contains("records hold"), "{verified}");
        let export = self.home.run(&["journal", "export"]).ok();
        let lines = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let signed: BTreeMap<String, [String; 2]> = lines
            .filter(|line| line["record"]["kind"] == "signed")
            .map(|line| {
                let text = |name: &str| line["record"][name].as_str().unwrap_or("-").to_owned();
                (text("request_id"), [text("action"), text("product")])
            })
            .collect();
        let seen = self.seen.lock().unwrap();
        assert!(seen.len() >= 2 * JOBS);
        for [request_id, action, job] in &*seen {
            assert_eq!(signed.get(request_id), Some(&[action.clone(), job.clone()]));
        }
    }
}

/// A client that repeats its completion, with its key, until it knows what became of it.
struct Agent {
    client: Client,
    job: String,
    key: String,
}

impl Agent {
    /// Returns how the final answer came, for the figures.
    async fn work(self, mut address: watch::Receiver<SocketAddr>) -> String {
        let mut repeated = false;
        loop {
            let server = *address.borrow_and_update();
            let url = format!("http://{server}/api/external/jobs/{}/complete", self.job);
            let request = self.client.post(url).header("idempotency-key", &self.key);
            let body = json!({"proof_text": format!("all of {} is done", self.job)});
            let Ok(response) = request.body(body.to_string()).send().await else {
                address.changed().await.unwrap();
                repeated = true;
                continue;
            };
            let status = response.status().as_u16();
            let replayed = response.headers().contains_key("idempotency-replayed");
            let seen = response.headers().contains_key("x-agentpmt-proxy-answer");
            let Ok(text) = response.text().await else {
                address.changed().await.unwrap();
                repeated = true;
                continue;
            };
            let answer: Value = serde_json::from_str(&text).unwrap();
            match (status, &answer["processed"]) {
                (200, _) if seen => return "known to have happened".to_owned(),
                (200, _) if replayed => return "stored answer".to_owned(),
                (200, _) if repeated => return "made after the restart".to_owned(),
                (200, _) => return "answered before the kill".to_owned(),
                // Nothing else says more than that nothing is known yet.
                (502..=504, Value::Null) => {
                    sleep(Duration::from_millis(50)).await;
                }
                _ => panic!("{} got {status}: {text}", self.key),
            }
        }
    }
}

/// Starts the program; it prints its address when it can be reached.
fn start(home: &Home, upstream: SocketAddr) -> Server {
    home.serve(&["serve", "--upstream", &format!("http://{upstream}")])
}

/// Reserves every general job there is.
async fn reserve_jobs(address: SocketAddr) -> Vec<String> {
    let client = client();
    let post = async |path: String, body: &'static str| {
        let url = format!("http://{address}/api/external/jobs/{path}");
        let response = client.post(url).body(body).send().await.unwrap();
        let status = response.status();
        let answer = json(response).await;
        assert!(status.is_success(), "{answer}");
        answer
    };
    let list = post("list".to_owned(), r#"{"limit": 100}"#).await;
    let jobs = list["jobs"].as_array().unwrap().iter();
    let jobs = jobs.filter(|job| job["job_type"] == "general");
    let jobs: Vec<_> = jobs.map(|job| job["job_id"].as_str().unwrap().to_owned()).collect();
    join_all(jobs.iter().map(|job| post(format!("{job}/reserve"), ""))).await;
    jobs
}

/// Puts a wait before and after the processing of each completion, so that kills strike at all of its
/// stages, and writes down every change. What has arrived is processed even if the client goes away.
fn slow_and_watched(router: Router, seen: Seen, seed: u64) -> Router {
    let random = Arc::new(Mutex::new(Random(seed | 1)));
    router.layer(from_fn(move |request: Request, next: Next| {
        let (seen, random) = (seen.clone(), random.clone());
        async move { watched(request, next, seen, random).await }
    }))
}

async fn watched(request: Request, next: Next, seen: Seen, random: Arc<Mutex<Random>>) -> Response {
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path.split('/').collect();
    let [.., job, verb @ ("reserve" | "complete")] = parts[..] else {
        return next.run(request).await;
    };
    let (head, body) = request.into_parts();
    // A body that broke off was not received.
    let Ok(body) = to_bytes(body, usize::MAX).await else { return Response::default() };
    let envelope: Value = serde_json::from_slice(&body).unwrap();
    let request_id = envelope["request_id"].as_str().unwrap().to_owned();
    seen.lock().unwrap().push([request_id, format!("job_{verb}"), job.to_owned()]);
    let request = Request::from_parts(head, Body::from(body));
    if verb == "reserve" {
        return next.run(request).await;
    }
    let wait = || Duration::from_millis(random.lock().unwrap().below(SLOWEST));
    let (before, after) = (wait(), wait());
    let processed = tokio::spawn(async move {
        sleep(before).await;
        next.run(request).await
    });
    let response = processed.await.unwrap();
    sleep(after).await;
    response
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}
