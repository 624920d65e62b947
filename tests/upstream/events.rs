//! Clients that listen for events.

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
};
use futures_util::future::join_all;
use http::StatusCode;
use jiff::Timestamp;
use reqwest::Response;
use serde_json::Value;
use tokio::time::timeout;

use crate::{
    agents::{Agent, clients, may, records},
    common::{GENERAL_JOB, TestProxy, WORKFLOW_JOB, problem, serve_sandbox},
    reviews,
};

const LISTENERS: usize = 1_000;

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// The events that a client is sent.
struct EventStream {
    response: Response,
    text: String,
    /// The id of the last event, or where the stream began.
    last: u64,
}

impl EventStream {
    async fn open(proxy: &TestProxy, agent: &Agent, after: Option<u64>) -> Self {
        let request = proxy.client.get(proxy.url("/proxy/events"));
        let mut request = request.bearer_auth(agent.token.expose());
        if let Some(after) = after {
            request = request.header("last-event-id", after);
        }
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        let mut stream = Self { response, text: String::new(), last: 0 };
        // Where it begins, so that a client that lost it can come back.
        let begin = stream.part().await.unwrap();
        stream.last = field(&begin, "id").unwrap().parse().unwrap();
        stream
    }

    /// The next part between two empty lines.
    async fn part(&mut self) -> Option<String> {
        loop {
            if let Some((part, rest)) = self.text.split_once("\n\n") {
                let part = part.to_owned();
                self.text = rest.to_owned();
                return Some(part);
            }
            let more = self.response.chunk().await.unwrap()?;
            self.text.push_str(std::str::from_utf8(&more).unwrap());
        }
    }

    /// The name and the data of the next event; `None` at the end of the stream.
    async fn next(&mut self) -> Option<(String, Value)> {
        // Comments come all the time.
        timeout(LONG, self.next_event()).await.expect("it hangs")
    }

    async fn next_event(&mut self) -> Option<(String, Value)> {
        loop {
            let part = self.part().await?;
            let Some(name) = field(&part, "event") else { continue };
            let id = field(&part, "id").unwrap().parse().unwrap();
            assert!(id > self.last, "{id} comes after {}", self.last);
            self.last = id;
            let data: Value = serde_json::from_str(&field(&part, "data").unwrap()).unwrap();
            assert_eq!(data["event"], name.as_str());
            return Some((name, data));
        }
    }

    /// The next event that is about jobs.
    async fn next_of_job(&mut self) -> (String, Value) {
        loop {
            let (name, data) = self.next().await.unwrap();
            if data["job_id"].is_string() {
                return (name, data);
            }
        }
    }
}

fn field(part: &str, name: &str) -> Option<String> {
    let line = part.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
    line.map(str::to_owned)
}

fn admin(name: &str) -> Client {
    Client { admin: true, ..may(name, "jobs") }
}

async fn proxy(settings: Settings) -> TestProxy {
    let sandbox = Sandbox::new(settings);
    let upstream = serve_sandbox(&sandbox).await;
    TestProxy::in_front_of(sandbox, upstream, |_| {}).await
}

async fn reserve(agent: &Agent, job: &str) {
    assert!(agent.reserve(job).await.status().is_success());
}

#[tokio::test]
async fn a_client_is_told_of_its_own_jobs_and_an_admin_of_all() {
    let proxy = proxy(Settings::default()).await;
    let (one, other) = (Agent::add(&proxy, &may("one", "jobs")), may("other", "jobs"));
    let (other, chief) = (Agent::add(&proxy, &other), Agent::add(&proxy, &admin("chief")));
    let mut own = EventStream::open(&proxy, &one, None).await;
    let mut all = EventStream::open(&proxy, &chief, None).await;
    reserve(&other, WORKFLOW_JOB).await;
    reserve(&one, GENERAL_JOB).await;
    let (name, data) = own.next_of_job().await;
    assert_eq!((&*name, &data["client"]), ("reservation_made", &"one".into()));
    assert_eq!((&data["job_id"], &data["wallet"]), (&GENERAL_JOB.into(), &data["wallet"]));
    assert!((1700..=1800).contains(&data["seconds_left"].as_i64().unwrap()), "{data}");
    for client in ["other", "one"] {
        assert_eq!(all.next_of_job().await.1["client"], client);
    }
}

#[tokio::test]
async fn a_reservation_is_told_of_before_its_end_and_at_its_end() {
    let proxy =
        proxy(Settings { reservation: Duration::from_secs(2), ..Settings::default() }).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let mut events = EventStream::open(&proxy, &agent, None).await;
    reserve(&agent, GENERAL_JOB).await;
    for expected in ["reservation_made", "reservation_ending", "reservation_ended"] {
        let (name, data) = events.next_of_job().await;
        assert_eq!(name, expected);
        assert_eq!(data["job_id"], GENERAL_JOB);
        assert_eq!(data["seconds_left"] == 0, name == "reservation_ended", "{data}");
    }
}

#[tokio::test]
async fn the_end_of_a_review_is_told_with_its_reward() {
    let proxy = proxy(Settings { review: Duration::from_secs(1), ..Settings::default() }).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let mut events = EventStream::open(&proxy, &agent, None).await;
    for (job, proof, expected) in [
        (GENERAL_JOB, "[reject]", "submission_rejected"),
        (GENERAL_JOB, "x", "submission_approved"),
    ] {
        reserve(&agent, job).await;
        let body = format!(r#"{{"proof_text":"{proof}"}}"#);
        agent.ok(&format!("/jobs/{job}/complete"), &body).await;
        assert_eq!(events.next_of_job().await.0, "reservation_made");
        let (name, data) = events.next_of_job().await;
        assert_eq!((&*name, data["job_id"].as_str()), (expected, Some(job)));
        assert_eq!(data["reward_credits"].is_u64(), name == "submission_approved", "{data}");
    }
}

#[tokio::test]
async fn a_listener_that_comes_back_at_another_process_misses_and_repeats_nothing() {
    let proxy = proxy(Settings { copies: 8, ..Settings::default() }).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let mut first = EventStream::open(&proxy, &agent, None).await;
    let job = |copy: u32| match copy {
        1 => GENERAL_JOB.to_owned(),
        _ => format!("{GENERAL_JOB}-{copy}"),
    };
    for copy in 1..=3 {
        reserve(&agent, &job(copy)).await;
    }
    assert_eq!(first.next_of_job().await.1["job_id"], job(1));
    assert_eq!(first.next_of_job().await.1["job_id"], job(2));
    let last = first.last;
    drop(first);
    for copy in 4..=6 {
        reserve(&agent, &job(copy)).await;
    }
    // Two processes on one state are as two runs after each other.
    let second = TestProxy::in_front_of(
        proxy.sandbox.clone(),
        serve_sandbox(&proxy.sandbox).await,
        |options| options.folder = proxy.folder(),
    )
    .await;
    let mut resumed = EventStream::open(&second, &agent, Some(last)).await;
    assert_eq!(resumed.last, last);
    for copy in 3..=6 {
        assert_eq!(resumed.next_of_job().await.1["job_id"], job(copy));
    }
    reserve(&agent, &job(7)).await;
    assert_eq!(resumed.next_of_job().await.1["job_id"], job(7), "made by the first process");
    let from_the_start = EventStream::open(&second, &agent, Some(0)).await;
    assert_eq!(from_the_start.last, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_listeners_share_each_question_and_one_that_does_not_read_holds_up_none() {
    let (proxy, questions) = reviews::proxy(Duration::from_secs(3)).await;
    let agent = reviews::submitted(&proxy, &may("ci", "jobs")).await;
    let mut streams =
        join_all((0..LISTENERS).map(|_| EventStream::open(&proxy, &agent, None))).await;
    let _not_read = streams.pop().unwrap();
    for stream in &mut streams {
        assert_eq!(stream.next_of_job().await.0, "submission_approved");
    }
    // At once, and after 2 to 4 seconds, if not after 4 to 8 more.
    let questions = questions.load(SeqCst);
    assert!((2..=10).contains(&questions), "{questions}");
    assert_eq!(records(&proxy, "event").await.len(), 1);
}

#[tokio::test]
async fn as_many_streams_as_may_wait_are_open_and_no_call_has_less_room() {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |o| o.in_flight = 1).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let streams = join_all((0..3).map(|_| EventStream::open(&proxy, &agent, None))).await;
    let request = proxy.client.get(proxy.url("/proxy/events")).bearer_auth(agent.token.expose());
    let refused = problem(request.try_clone().unwrap().send().await.unwrap()).await;
    assert_eq!(refused["code"], "overloaded", "of four places, one is kept for others");
    agent.ok("/jobs/list", "").await;
    drop(streams);
    while request.try_clone().unwrap().send().await.unwrap().status() != StatusCode::OK {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn no_event_is_recorded_before_a_client_listens() {
    let proxy = proxy(Settings::default()).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    reserve(&agent, GENERAL_JOB).await;
    assert!(records(&proxy, "event").await.is_empty());
    let _events = EventStream::open(&proxy, &agent, None).await;
    reserve(&agent, WORKFLOW_JOB).await;
    let recorded = records(&proxy, "event").await;
    let of_jobs: Vec<_> = recorded.iter().filter_map(|event| event.text("product")).collect();
    assert_eq!(of_jobs, [WORKFLOW_JOB]);
}

#[tokio::test]
async fn the_stream_of_a_client_ends_with_its_access() {
    let proxy = proxy(Settings::default()).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let _other = Agent::add(&proxy, &may("other", "jobs"));
    let mut events = EventStream::open(&proxy, &agent, None).await;
    clients(&proxy).revoke(&agent.name, Timestamp::now()).unwrap();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn streams_end_with_the_process() {
    let proxy = proxy(Settings::default()).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let mut events = EventStream::open(&proxy, &agent, None).await;
    proxy.proxy.end();
    assert_eq!(events.next().await, None);
}

#[tokio::test]
async fn an_upstream_that_is_out_of_reach_and_back_is_told_though_no_client_calls() {
    let proxy = proxy(Settings::default()).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let mut events = EventStream::open(&proxy, &agent, None).await;
    proxy.sandbox.inject("cut_before_body".parse().unwrap());
    assert_eq!(agent.post("/jobs/list", "").await.status(), StatusCode::BAD_GATEWAY);
    assert_eq!(events.next().await.unwrap().0, "upstream_unreachable");
    proxy.sandbox.clear_faults();
    assert_eq!(events.next().await.unwrap().0, "upstream_back");
}

#[tokio::test]
async fn a_new_session_is_told() {
    let proxy = proxy(Settings::default()).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let mut events = EventStream::open(&proxy, &agent, None).await;
    agent.ok("/jobs/list", "").await;
    let (name, data) = events.next().await.unwrap();
    assert_eq!((&*name, data["wallet"].is_string()), ("session_renewed", true));
}

#[tokio::test]
async fn what_cannot_be_listened_for_is_refused() {
    let proxy = proxy(Settings::default()).await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let get = |path: &str| proxy.client.get(proxy.url(path));
    let stranger = get("/proxy/events").send().await.unwrap();
    assert_eq!(problem(stranger).await["code"], "unauthenticated");
    let token = agent.token.expose();
    for (path, id, code) in [
        ("/proxy/events?x=1", "1", "query_not_taken"),
        ("/proxy/events", "-1", "invalid_field"),
        ("/proxy/events", "soon", "invalid_field"),
    ] {
        let request = get(path).bearer_auth(token).header("last-event-id", id);
        assert_eq!(problem(request.send().await.unwrap()).await["code"], code, "{path} {id}");
    }
}
