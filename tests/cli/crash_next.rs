//! The process killed while it hands out jobs: each job goes to one worker, and none is fought for.
//!
//! A failure prints its seed; `CRASH_SEED` repeats the moments, though not what the machine does at them.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
    store::Clients,
    types::{ClientToken, Credential},
};
use axum::{
    Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use jiff::Timestamp;
use serde_json::Value;
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{sleep, timeout},
};

use crate::{
    binary::{Home, PASSWORD, Server},
    common::{self, client},
    random::Random,
};

const WORKERS: u64 = 100;

/// The general jobs of five copies.
const JOBS: usize = 40;

const KILLS: usize = 10;

/// The latest moment of a kill after the start of a process.
const LATEST: u64 = 400;

/// The latest moment at which a worker sets out.
const SET_OUT: u64 = 2_500;

/// The longest time that the upstream takes before it processes a reserve, and again after it.
const SLOWEST: u64 = 100;

/// When a worker that has no final answer gives up, which fails the test.
const PATIENCE: Duration = Duration::from_secs(120);

/// The calls that arrived at the sandbox: `list`, or a job that was to be reserved, with its answer.
type Seen = Arc<Mutex<Vec<(String, u16)>>>;

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_proxy_hands_out_each_job_once() {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = env::var("CRASH_SEED").map_or(now.as_secs(), |seed| seed.parse().unwrap());
    println!("CRASH_SEED={seed}");
    let mut random = Random(seed.wrapping_mul(1_000_003) | 1);
    let sandbox = Sandbox::new(Settings { copies: 5, ..Settings::default() });
    let seen = Seen::default();
    let upstream = common::serve(slow(sandbox.router(), seen.clone(), random.next())).await;
    let home = Home::with_wallet().with_password(PASSWORD);
    let home = home.with("AGENTPMT_PROXY_UPSTREAM__SETTLE_TIME", "500ms");
    let begun = Instant::now();
    let mut server = start(&home, upstream);
    let (publish, address) = watch::channel(server.address);
    let given = Arc::new(Mutex::new(BTreeMap::new()));
    let mut workers = JoinSet::new();
    for token in add_clients(&home) {
        let worker = Worker { token, given: given.clone(), address: address.clone() };
        let sets_out = Duration::from_millis(random.below(SET_OUT));
        workers.spawn(async move {
            sleep(sets_out).await;
            timeout(PATIENCE, worker.work()).await.expect("no final answer in time")
        });
    }
    for _ in 0..KILLS {
        sleep(Duration::from_millis(random.below(LATEST))).await;
        server.kill();
        server = start(&home, upstream);
        publish.send_replace(server.address);
    }
    let found: Vec<String> = workers.join_all().await.into_iter().flatten().collect();
    let different: BTreeSet<_> = found.iter().collect();
    assert_eq!((found.len(), different.len()), (JOBS, JOBS));
    let lists = check_calls(&seen, &home, &found);
    // Two pages a list: at each start, and then at most every other second.
    let most = 2 * (KILLS + 1 + begun.elapsed().as_secs() as usize / 2);
    assert!(lists <= most, "{lists} lists, and at most {most} expected");
    println!("{JOBS} jobs, {KILLS} kills, {lists} lists, {:?}", begun.elapsed());
}

/// Each job was taken once, and only ever asked for by one client. Returns how often a list was.
fn check_calls(seen: &Seen, home: &Home, found: &[String]) -> usize {
    let seen = seen.lock().unwrap();
    for job in found {
        let taken = seen.iter().filter(|(what, status)| what == job && *status == 200).count();
        assert_eq!(taken, 1, "{job}");
    }
    let export = home.run(&["journal", "export"]).ok();
    let records = export.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let mut clients = BTreeMap::<String, BTreeSet<String>>::new();
    for record in records.map(|line| line["record"].clone()) {
        if record["kind"] == "signed" && record["action"] == "job_reserve" {
            let text = |name: &str| record[name].as_str().unwrap().to_owned();
            clients.entry(text("product")).or_default().insert(text("client"));
        }
    }
    assert_eq!(clients.len(), JOBS);
    for (job, clients) in clients {
        assert_eq!(clients.len(), 1, "{job} was fought for by {clients:?}");
    }
    seen.iter().filter(|(what, _)| what == "list").count()
}

/// A worker that asks for one job, under one key, until it has one or all are given.
struct Worker {
    token: ClientToken,
    /// The workers that have their job, by its id.
    given: Arc<Mutex<BTreeMap<String, String>>>,
    address: watch::Receiver<SocketAddr>,
}

impl Worker {
    async fn work(mut self) -> Option<String> {
        let client = client();
        loop {
            let server = *self.address.borrow_and_update();
            let request = client.post(format!("http://{server}/proxy/jobs/next"));
            let request = request.bearer_auth(self.token.expose()).header("idempotency-key", "one");
            let request = request.body(r#"{"job_type":["general"],"wait":"1s"}"#);
            let answer = async {
                let response = request.send().await?;
                Ok::<_, reqwest::Error>((response.status().as_u16(), response.text().await?))
            };
            let Ok((status, text)) = answer.await else {
                self.address.changed().await.unwrap();
                continue;
            };
            let answer: Value = serde_json::from_str(&text).unwrap_or_default();
            match status {
                200 => return Some(self.got(&answer["job"]["job_id"])),
                // It is the worker's, though its instructions came with an answer that was lost.
                504 if answer["processed"] == true => return Some(self.got(&answer["job_id"])),
                204 if self.given.lock().unwrap().len() == JOBS => return None,
                204 | 409 | 502..=504 => sleep(Duration::from_millis(50)).await,
                _ => panic!("{status}: {text}"),
            }
        }
    }

    fn got(&self, job: &Value) -> String {
        let job = job.as_str().unwrap().to_owned();
        self.given.lock().unwrap().insert(job.clone(), self.token.expose().to_owned());
        job
    }
}

fn add_clients(home: &Home) -> Vec<ClientToken> {
    let clients = Clients::open(&home.path("state/proxy.db")).unwrap();
    let add = |number| {
        let (name, allow) = (format!("worker-{number}"), "jobs".parse().unwrap());
        let name = name.parse().unwrap();
        let client = Client { name, allow, admin: false, ..Client::local() };
        let token = ClientToken::random();
        clients.add(&client, &Credential::Token(token.hash()), Timestamp::now()).unwrap();
        token
    };
    (0..WORKERS).map(add).collect()
}

fn start(home: &Home, upstream: SocketAddr) -> Server {
    home.serve(&["serve", "--upstream", &format!("http://{upstream}")])
}

/// Puts a wait before and after the processing of each reserve, so that kills strike at all of its stages,
/// and writes down every call. What has arrived is processed even if the client goes away.
fn slow(router: Router, seen: Seen, seed: u64) -> Router {
    let random = Arc::new(Mutex::new(Random(seed | 1)));
    router.layer(from_fn(move |request: Request, next: Next| {
        let (seen, random) = (seen.clone(), random.clone());
        async move { watched(request, next, seen, random).await }
    }))
}

async fn watched(request: Request, next: Next, seen: Seen, random: Arc<Mutex<Random>>) -> Response {
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path.split('/').collect();
    let (what, slowest) = match parts[..] {
        [.., job, "reserve"] => (job, SLOWEST),
        [.., "list"] => ("list", 1),
        _ => return next.run(request).await,
    };
    let what = what.to_owned();
    let wait = || Duration::from_millis(random.lock().unwrap().below(slowest));
    let (before, after) = (wait(), wait());
    let processed = tokio::spawn(async move {
        sleep(before).await;
        let response = next.run(request).await;
        seen.lock().unwrap().push((what, response.status().as_u16()));
        response
    });
    let response = processed.await.unwrap();
    sleep(after).await;
    response
}
