//! 32 clients with different rights call as fast as they can, through two proxies on one store; then
//! everything is added up: what they were answered, what is on record, and what arrived upstream.
//!
//! Each makes a number of calls, or calls for as many seconds as `HAMMER_SECONDS` says. A failure
//! prints its seed; `HAMMER_SEED` repeats the choices, though not what the machine does in between.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    env,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use agentpmt_proxy::{
    action::{ACTIONS, Action},
    json::Object,
    policy::Client,
    sandbox::{Sandbox, Settings},
    types::Address,
};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::Request,
    middleware::{Next, from_fn},
    response::Response,
};
use jiff::{SignedDuration, Timestamp};
use serde_json::Value;
use tokio::{sync::watch, task::JoinSet, time::sleep};

use crate::{
    agents::{Agent, PROOF, clients, may, records},
    common::{TestProxy, WORKFLOW, json, serve},
    random::Random,
};

const CLIENTS: usize = 32;

/// How many calls each client has under way.
const AT_ONCE: usize = 2;

/// How many calls each of these makes, if no time is given.
const CALLS: usize = 30;

/// How many of the jobs that are not done yet the clients contend for.
const WINDOW: u64 = 40;

/// What a client may do, by its number: each limit meets each of the others.
fn rights(number: usize) -> Client {
    const ALLOW: [&str; 5] =
        ["jobs", "all", "read", "job_list,job_reserve", "job_reserve,job_complete,job_status"];
    const RATE: [Option<&str>; 4] = [None, Some("5/s"), Some("300/m"), Some("20/h")];
    const HOLDS: [Option<u32>; 3] = [None, Some(1), Some(3)];
    let now = Timestamp::now();
    Client {
        rate: RATE[number % RATE.len()].map(|rate| rate.parse().unwrap()),
        max_reservations: HOLDS[number % HOLDS.len()],
        admin: number % 16 == 5,
        wallet: (number == 31).then_some(Address::new([7; 20])),
        expires: match number {
            26 => Some(now),
            27 => Some(now + SignedDuration::from_secs(1)),
            _ => None,
        },
        ..may(&format!("client-{number:02}"), ALLOW[number % ALLOW.len()])
    }
}

/// Those who are revoked when half of the calls are made.
const REVOKED: [usize; 2] = [28, 30];

/// One call and what was answered.
struct Call {
    id: String,
    client: usize,
    action: &'static Action,
    job: Option<String>,
    sent: Timestamp,
    answered: Timestamp,
    status: u16,
    /// The code of the proxy's own error.
    code: Option<String>,
    replayed: bool,
}

/// A change or a read that the sandbox has processed.
struct Processed {
    request_id: Option<String>,
    action: &'static Action,
    job: Option<String>,
    good: bool,
}

type Seen = Arc<Mutex<Vec<Processed>>>;

/// What all callers share.
struct Ground {
    agents: Vec<[Agent; 2]>,
    /// The ids of the jobs, the workflow jobs among them.
    jobs: Vec<String>,
    /// How many calls are made, and how many jobs are done.
    progress: watch::Sender<(usize, usize)>,
    begun: Instant,
    seconds: Option<u64>,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_client_gets_more_than_its_rights_and_everything_adds_up() {
    let seconds = number("HAMMER_SECONDS");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let seed = number("HAMMER_SEED").unwrap_or(now.as_secs());
    println!("HAMMER_SEED={seed}");
    let sandbox = Sandbox::new(Settings { copies: 500, ..Settings::default() });
    let seen = Seen::default();
    let upstream = serve(watched(sandbox.router(), seen.clone())).await;
    let one = TestProxy::in_front_of(sandbox.clone(), upstream, |_| {}).await;
    let folder = one.folder();
    let other = TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await;
    let rights: Vec<_> = (0..CLIENTS).map(rights).collect();
    let ground = Arc::new(Ground {
        agents: rights
            .iter()
            .map(|client| Agent::add(&one, client))
            .map(|a| [a.at(&other), a])
            .collect(),
        jobs: jobs(&one).await,
        progress: watch::Sender::new((0, 0)),
        begun: Instant::now(),
        seconds,
    });
    let begun = Timestamp::now();
    let mut callers = JoinSet::new();
    for client in 0..CLIENTS {
        for lane in 0..AT_ONCE {
            let random = Random(
                seed.wrapping_mul(1_000_003).wrapping_add((client * AT_ONCE + lane) as u64) | 1,
            );
            callers.spawn(hammer(ground.clone(), client, lane, random));
        }
    }
    let revoked = revoke_halfway(&one, &ground).await;
    let calls: Vec<Call> = callers.join_all().await.into_iter().flatten().collect();
    let elapsed = ground.begun.elapsed();

    other.proxy.flush().await;
    let book = Book::read(&one).await;
    let lost = one.proxy.store().lost_records() + other.proxy.store().lost_records();
    assert_eq!(lost, 0, "records were lost");
    book.adds_up_with(&calls, &rights);
    book.is_within_the_rights(&rights);
    book.keeps_the_rates(&calls, &rights, begun);
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    book.is_what_arrived(&seen);
    let held = book.never_holds_too_many(&seen, &rights);
    for (client, agents) in ground.agents.iter().enumerate() {
        let is_known = rights[client].expires.is_none() && !REVOKED.contains(&client);
        if is_known && !rights[client].admin {
            let listed: BTreeSet<_> = agents[0].held().await.into_iter().collect();
            assert_eq!(listed, held[client], "what client {client} is shown as its own");
        }
    }
    no_access_after_its_end(&calls, &rights, &revoked);
    print_figures(&calls, &book, elapsed);
}

/// Every job there is: a list gives a hundred at a time.
async fn jobs(proxy: &TestProxy) -> Vec<String> {
    let agent = Agent::add(proxy, &may("scout", "job_list"));
    let mut jobs = Vec::new();
    loop {
        let page =
            agent.ok("/jobs/list", &format!(r#"{{"limit":100,"skip":{}}}"#, jobs.len())).await;
        let page = page["jobs"].as_array().unwrap().iter();
        let before = jobs.len();
        jobs.extend(page.map(|job| job["job_id"].as_str().unwrap().to_owned()));
        if jobs.len() == before {
            return jobs;
        }
    }
}

/// Revokes some clients; returns when each of them was surely revoked.
async fn revoke_halfway(proxy: &TestProxy, ground: &Ground) -> HashMap<usize, Timestamp> {
    match ground.seconds {
        Some(seconds) => sleep(Duration::from_secs(seconds) / 2).await,
        None => {
            let half = CLIENTS * AT_ONCE * CALLS / 2;
            ground.progress.subscribe().wait_for(|(calls, _)| *calls >= half).await.unwrap();
        }
    }
    let store = clients(proxy);
    let revoke = |client: usize| {
        store.revoke(&ground.agents[client][0].name, Timestamp::now()).unwrap();
        (client, Timestamp::now())
    };
    REVOKED.map(revoke).into()
}

/// One caller of a client, until its end.
async fn hammer(ground: Arc<Ground>, client: usize, lane: usize, mut random: Random) -> Vec<Call> {
    let (mut calls, mut held) = (Vec::new(), Vec::new());
    while match ground.seconds {
        Some(seconds) => ground.begun.elapsed() < Duration::from_secs(seconds),
        None => calls.len() < CALLS,
    } {
        let id = format!("call-{client}-{lane}-{}", calls.len());
        let call = ground.call(id, client, &mut held, &mut random).await;
        let done = usize::from(call.action.name == "job_complete" && call.status == 200);
        ground.progress.send_modify(|(calls, jobs)| (*calls, *jobs) = (*calls + 1, *jobs + done));
        calls.push(call);
    }
    calls
}

impl Ground {
    /// Makes any call, allowed or not. `held` is what the caller may hold.
    async fn call(
        &self,
        id: String,
        client: usize,
        held: &mut Vec<String>,
        random: &mut Random,
    ) -> Call {
        let action = [
            "job_list",
            "job_status",
            "job_reserve",
            "job_reserve",
            "job_complete",
            "job_complete",
            "job_complete",
            "job_workflow_create",
        ][random.below(8) as usize];
        let action = Action::named(action).unwrap();
        let done = self.progress.borrow().1 as u64;
        let contended = &self.jobs[(done + random.below(WINDOW)) as usize % self.jobs.len()];
        let own = held.get(random.below(held.len().max(1) as u64) as usize).cloned();
        let wants_own = !matches!(action.name, "job_reserve") && random.below(4) > 0;
        let job = own.filter(|_| wants_own).unwrap_or_else(|| contended.clone());
        let job = (action.name != "job_list").then_some(job);
        let path =
            action.path_with(&job.iter().map(|job| job.parse().unwrap()).collect::<Vec<_>>());
        let path = path.strip_prefix("/api/external").unwrap().to_owned();
        let body = match action.name {
            "job_list" => r#"{"limit":3}"#,
            "job_complete" => PROOF,
            "job_workflow_create" => WORKFLOW,
            _ => "",
        };
        let agent = &self.agents[client][random.below(2) as usize];
        let sent = Timestamp::now();
        let response = agent.post_with("x-request-id", &id, &path, body).await;
        let answered = Timestamp::now();
        let status = response.status().as_u16();
        let header = |name: &str| Some(response.headers().get(name)?.to_str().unwrap().to_owned());
        let (code, replayed) = (header("x-agentpmt-proxy-error"), header("idempotency-replayed"));
        let replayed = replayed.is_some();
        let answer = json(response).await;
        if let Some(job) = &job {
            match (action.name, status) {
                ("job_reserve", 200) => {
                    assert!(answer["job"]["job_instructions"].is_string(), "{answer}");
                    held.push(job.clone());
                }
                ("job_complete", 200) => held.retain(|own| own != job),
                _ => {}
            }
        }
        Call { id, client, action, job, sent, answered, status, code, replayed }
    }
}

/// Writes down all that was processed, in an order that the proxies can rely on: before its answer.
fn watched(router: Router, seen: Seen) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let seen = seen.clone();
        async move { watch_one(request, next, seen).await }
    }))
}

async fn watch_one(request: Request, next: Next, seen: Seen) -> Response {
    let path = request.uri().path().to_owned();
    let parts: Vec<_> = path.trim_start_matches("/api/external/").split('/').collect();
    let (name, job) = match parts[..] {
        ["jobs", "list"] => ("job_list", None),
        ["jobs", job, "workflow", "create"] => ("job_workflow_create", Some(job)),
        ["jobs", job, "reserve"] => ("job_reserve", Some(job)),
        ["jobs", job, "complete"] => ("job_complete", Some(job)),
        ["jobs", job, "status"] => ("job_status", Some(job)),
        _ => return next.run(request).await,
    };
    let (action, job) = (Action::named(name).unwrap(), job.map(str::to_owned));
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let envelope: Value = serde_json::from_slice(&body).unwrap();
    let request_id = envelope["request_id"].as_str().map(str::to_owned);
    let response = next.run(Request::from_parts(head, Body::from(body))).await;
    let good = response.status().is_success();
    seen.lock().unwrap().push(Processed { request_id, action, job, good });
    response
}

/// The journal, by the ids of the local requests.
struct Book {
    signed: HashMap<String, Vec<Object>>,
    denied: HashMap<String, Vec<Object>>,
    /// Of each request that went out, by its id: the client's number.
    clients: HashMap<String, usize>,
}

impl Book {
    async fn read(proxy: &TestProxy) -> Self {
        let by_call = |records: Vec<Object>| {
            let mut calls: HashMap<_, Vec<_>> = HashMap::new();
            for record in records {
                if record.text("client").as_deref() != Some("scout") {
                    calls.entry(record.text("call_id").unwrap()).or_default().push(record);
                }
            }
            calls
        };
        let signed = by_call(records(proxy, "signed").await);
        let denied = by_call(records(proxy, "denied").await);
        let numbered = |record: &Object| {
            let number = record.text("client").unwrap()["client-".len()..].parse().unwrap();
            (record.text("request_id").unwrap(), number)
        };
        let clients = signed.values().flatten().map(numbered).collect();
        Self { signed, denied, clients }
    }

    /// Every answer has its record, and every record its answer.
    fn adds_up_with(&self, calls: &[Call], rights: &[Client]) {
        let (mut signed, mut denied) = (0, 0);
        for call in calls {
            let [records, denials] = [&self.signed, &self.denied]
                .map(|book| book.get(&call.id).map(Vec::as_slice).unwrap_or_default());
            let name = rights[call.client].name.as_str();
            let is_this = |record: &&Object| {
                record.text("client").is_none_or(|client| client == name)
                    && record.text("action").unwrap() == call.action.name
                    && record.text("product") == call.job
            };
            assert!(records.iter().chain(denials).all(|record| is_this(&record)), "{}", call.id);
            let counts = (records.len(), denials.len());
            let reasons = denials.iter().map(|record| record.text("reason").unwrap());
            let reasons: Vec<_> = reasons.collect();
            match (call.status, call.code.as_deref()) {
                (200, None) if call.replayed => assert_eq!(counts, (0, 0), "{}", call.id),
                (_, None) => assert_eq!(counts, (1, 0), "{}: {}", call.id, call.status),
                // What was signed in time is not told to who may no longer know it.
                (409, Some("held_by_another")) if counts == (1, 1) => {
                    assert_eq!((&*reasons[0], call.action.name), ("held_by_another", "job_status"));
                }
                (403 | 409, Some(code)) if code != "no_workflow_token" => {
                    assert_eq!(
                        (counts, &*reasons),
                        ((0, 1), &[code.to_owned()][..]),
                        "{}",
                        call.id
                    );
                }
                (429, Some(code @ ("rate_exceeded" | "too_many_reservations"))) => {
                    assert_eq!((counts.0, &*reasons), (0, &[code.to_owned()][..]));
                }
                // Of strangers, who a revoked client is, only a part is on record.
                (401, Some("unknown_token")) => {
                    assert!(counts.0 == 0 && REVOKED.contains(&call.client), "{}", call.id);
                }
                // An admin needs no reservation, but there is no token to use.
                (409, Some("no_workflow_token")) => assert_eq!(counts, (0, 0), "{}", call.id),
                (status, code) => panic!("{}: {status} {code:?}", call.id),
            }
            assert!(!call.replayed || call.action.name == "job_complete", "it has its own key");
            (signed, denied) = (signed + counts.0, denied + counts.1);
        }
        let total = |book: &HashMap<_, Vec<_>>| book.values().map(Vec::len).sum::<usize>();
        assert_eq!((total(&self.signed), total(&self.denied)), (signed, denied));
    }

    /// Whatever was signed, the client may call.
    fn is_within_the_rights(&self, rights: &[Client]) {
        for record in self.signed.values().flatten() {
            let client = &rights[self.clients[&record.text("request_id").unwrap()]];
            let action = Action::named(&record.text("action").unwrap()).unwrap();
            assert!(client.allow.has(action), "{} signed for {}", action, client.name);
            assert!(client.wallet.is_none(), "that wallet is not here");
        }
    }

    /// From the beginning to each call that was let through, there were no more than each proxy alone lets
    /// through. Of calls that change nothing, it learns of those of the other a moment later, which may be
    /// long on a busy machine.
    fn keeps_the_rates(&self, calls: &[Call], rights: &[Client], begun: Timestamp) {
        for (number, client) in rights.iter().enumerate() {
            let Some(rate) = client.rate else { continue };
            let (count, period) = rate_of(&rate.to_string());
            let own = calls.iter().filter(|call| call.client == number);
            let mut admitted: Vec<_> = own.filter_map(|call| self.admitted(call)).collect();
            admitted.sort_unstable();
            for (passed, at) in (1u64..).zip(&admitted) {
                // The journal's times are whole milliseconds, rounded down.
                let elapsed = at - begun.as_millisecond() + 1;
                let allowed = 2 * (count + count * u64::try_from(elapsed).unwrap() / period);
                assert!(passed <= allowed, "{passed} of {allowed} for {} at {rate}", client.name);
            }
        }
    }

    /// When a call that its client's rate let through was on record, in milliseconds.
    fn admitted(&self, call: &Call) -> Option<i64> {
        let time = |record: &Object| record.field("time").unwrap().as_str().parse().unwrap();
        if let Some(records) = self.signed.get(&call.id) {
            return records.first().map(time);
        }
        let denial = self.denied.get(&call.id).and_then(|denials| denials.first());
        match denial.and_then(|denial| denial.text("reason")).as_deref() {
            Some("held_by_another" | "not_reserved" | "too_many_reservations") => denial.map(time),
            Some(_) => None,
            None => (call.status == 409).then(|| call.answered.as_millisecond()),
        }
    }

    /// What arrived upstream is what is on record, one for one.
    fn is_what_arrived(&self, seen: &[Processed]) {
        let key = |action: &str, job: Option<String>| (action.to_owned(), job);
        let mut on_record = BTreeMap::new();
        let mut arrived = BTreeMap::new();
        for record in self.signed.values().flatten() {
            let what = key(&record.text("action").unwrap(), record.text("product"));
            *on_record.entry(what).or_insert(0) += 1;
        }
        for processed in seen {
            // The scout's.
            let Some(id) = &processed.request_id else {
                assert_eq!(processed.action.name, "job_workflow_create", "the rest is signed");
                *arrived.entry(key(processed.action.name, processed.job.clone())).or_insert(0) += 1;
                continue;
            };
            if self.clients.contains_key(id) {
                *arrived.entry(key(processed.action.name, processed.job.clone())).or_insert(0) += 1;
            } else {
                assert_eq!(processed.action.name, "job_list", "the scout only lists");
            }
        }
        assert_eq!(arrived, on_record);
    }

    /// In the order in which the sandbox worked, no client ever holds more than it may, and only the
    /// holder or an admin completes. Returns what each holds in the end.
    fn never_holds_too_many(&self, seen: &[Processed], rights: &[Client]) -> Vec<BTreeSet<String>> {
        let mut held = vec![BTreeSet::new(); rights.len()];
        for processed in seen.iter().filter(|processed| processed.good) {
            let (Some(id), Some(job)) = (&processed.request_id, &processed.job) else { continue };
            let client = self.clients[id];
            match processed.action.name {
                "job_reserve" => {
                    held[client].insert(job.clone());
                    let (count, max) = (held[client].len(), rights[client].max_reservations);
                    assert!(max.is_none_or(|max| count <= max as usize), "{count} of {max:?}");
                }
                "job_complete" => {
                    let holder = held.iter().position(|jobs| jobs.contains(job)).unwrap();
                    assert!(
                        holder == client || rights[client].admin,
                        "{client} completes {holder}'s"
                    );
                    held[holder].remove(job);
                }
                _ => {}
            }
        }
        held
    }
}

/// The count of a rate, and its period in milliseconds.
fn rate_of(text: &str) -> (u64, u64) {
    let (count, period) = text.split_once('/').unwrap();
    let seconds = HashMap::from([("s", 1), ("m", 60), ("h", 3600)])[period];
    (count.parse().unwrap(), seconds * 1000)
}

/// What was sent after the end of an access was refused.
fn no_access_after_its_end(calls: &[Call], rights: &[Client], revoked: &HashMap<usize, Timestamp>) {
    let mut refused = 0;
    for call in calls {
        let expected = match (rights[call.client].expires, revoked.get(&call.client)) {
            (Some(end), _) if end <= call.sent => 403,
            (_, Some(end)) if *end < call.sent => 401,
            _ => continue,
        };
        assert_eq!(call.status, expected, "{}", call.id);
        refused += 1;
    }
    assert!(refused > 0, "somebody calls after the end");
}

fn print_figures(calls: &[Call], book: &Book, elapsed: Duration) {
    let mut answers = BTreeMap::new();
    for call in calls {
        let code = call.code.as_deref().unwrap_or("the upstream's");
        *answers.entry((call.status, code)).or_insert(0) += 1;
    }
    let rate = calls.len() as f64 / elapsed.as_secs_f64();
    println!("{} calls in {elapsed:.1?}, {rate:.0} a second: {answers:?}", calls.len());
    let [signed, denied] = [&book.signed, &book.denied].map(HashMap::len);
    println!("on record: {signed} signed, {denied} denied; {} actions", ACTIONS.len());
}

fn number(variable: &str) -> Option<u64> {
    env::var(variable).ok().map(|text| text.parse().unwrap())
}
