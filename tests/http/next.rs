//! Jobs that the proxy hands out: one list for all who wait, and each job once.

use std::{
    collections::{BTreeMap, HashSet},
    sync::{Arc, Mutex},
    time::Duration,
};

use agentpmt_proxy::{policy::Client, sandbox::Settings, store::FreezeOf};
use axum::{
    Json, Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use futures_util::future::{join, join_all};
use http::{StatusCode, header::RETRY_AFTER};
use reqwest::{RequestBuilder, Response};
use serde_json::{Value, json};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    agents::{Agent, denials, may},
    common::{GENERAL_JOB, TestProxy, json, problem},
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// The general jobs of the sandbox, the best first.
const BEST: [&str; 8] = [
    "68f0a1c27b3e4d5f6071820c",
    "68f0a1c27b3e4d5f6071820a",
    "68f0a1c27b3e4d5f60718207",
    "68f0a1c27b3e4d5f60718206",
    "68f0a1c27b3e4d5f60718203",
    GENERAL_JOB,
    "68f0a1c27b3e4d5f60718204",
    "68f0a1c27b3e4d5f60718209",
];

const GENERAL: &str = r#"{"job_type":["general"]}"#;

/// What stands between the proxy and its sandbox.
#[derive(Clone, Default)]
struct Between(Arc<Mutex<Rules>>);

#[derive(Default)]
struct Rules {
    /// How often each of `list`, `reserve` and so on was called.
    calls: BTreeMap<String, usize>,
    /// The answer to a list, in place of the sandbox's.
    list: Option<(StatusCode, Value)>,
    /// The answers to reserves that are another team's.
    lost: HashSet<&'static str>,
    listed: Option<watch::Sender<usize>>,
}

impl Between {
    async fn start(copies: u32, rules: Rules) -> (TestProxy, Self) {
        let between = Self(Arc::new(Mutex::new(rules)));
        let settings = Settings { copies, ..Settings::default() };
        let layer = between.clone();
        let proxy = TestProxy::start_with(settings, |router| layer.layer(router)).await;
        (proxy, between)
    }

    fn layer(self, router: Router) -> Router {
        router.layer(from_fn(move |request: Request, next: Next| {
            let between = self.clone();
            async move {
                match between.answer(request.uri().path()) {
                    Some((status, answer)) => (status, Json(answer)).into_response(),
                    None => next.run(request).await,
                }
            }
        }))
    }

    fn answer(&self, path: &str) -> Option<(StatusCode, Value)> {
        let mut rules = self.0.lock().unwrap();
        let (rest, verb) = path.rsplit_once('/').unwrap();
        *rules.calls.entry(verb.to_owned()).or_default() += 1;
        let job = rest.rsplit_once('/').map_or("", |(_, job)| job);
        if verb == "list" {
            rules.listed.iter().for_each(|listed| listed.send_modify(|count| *count += 1));
            return rules.list.clone();
        }
        let is_lost = verb == "reserve" && rules.lost.contains(job);
        let lost = || (StatusCode::CONFLICT, json!({"detail": "Job is not open"}));
        is_lost.then(lost)
    }

    fn calls(&self, verb: &str) -> usize {
        self.0.lock().unwrap().calls.get(verb).copied().unwrap_or_default()
    }

    fn lists(&self, jobs: &[&str]) {
        let jobs: Vec<_> =
            jobs.iter().map(|job| json!({"job_id": job, "status": "open"})).collect();
        self.0.lock().unwrap().list = Some((StatusCode::OK, json!({ "jobs": jobs })));
    }

    /// The number of lists, to be waited for.
    fn listed(&self) -> watch::Receiver<usize> {
        let (sender, receiver) = watch::channel(0);
        self.0.lock().unwrap().listed = Some(sender);
        receiver
    }
}

fn empty() -> Rules {
    Rules { list: Some((StatusCode::OK, json!({"jobs": []}))), ..Rules::default() }
}

fn next(proxy: &TestProxy, body: &str) -> RequestBuilder {
    proxy.client.post(proxy.url("/proxy/jobs/next")).body(body.to_owned())
}

fn next_of(proxy: &TestProxy, agent: &Agent, body: &str) -> RequestBuilder {
    next(proxy, body).bearer_auth(agent.token.expose())
}

async fn ask(proxy: &TestProxy, body: &str) -> Response {
    timeout(LONG, next(proxy, body).send()).await.unwrap().unwrap()
}

/// The job of a good answer.
async fn job(response: Response) -> String {
    let status = response.status();
    let answer = json(response).await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    assert!(answer["job"]["job_instructions"].is_string(), "{answer}");
    answer["job"]["job_id"].as_str().unwrap().to_owned()
}

fn has_none(response: &Response) {
    assert_eq!(response.status(), StatusCode::NO_CONTENT);
    let after: u64 = response.headers()[RETRY_AFTER].to_str().unwrap().parse().unwrap();
    assert!((1..=31).contains(&after), "{after}");
}

#[tokio::test]
async fn the_best_job_that_matches_comes_with_the_answer_to_its_reserve() {
    let (proxy, between) = Between::start(1, Rules::default()).await;
    for (filter, best) in [
        (GENERAL, BEST[0]),
        (r#"{"job_type":["general"],"min_reward_credits":1200}"#, BEST[1]),
        (r#"{"title_contains":"PRODUCT links"}"#, GENERAL_JOB),
        ("", "68f0a1c27b3e4d5f60718208"),
    ] {
        assert_eq!(job(ask(&proxy, filter).await).await, best, "{filter}");
    }
    has_none(&ask(&proxy, r#"{"min_reward_credits":9000}"#).await);
    assert_eq!((between.calls("list"), between.calls("reserve")), (1, 4));
    let held = proxy.client.get(proxy.url("/proxy/reservations")).send().await.unwrap();
    assert_eq!(json(held).await["reservations"].as_array().unwrap().len(), 4);
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/complete"), r#"{"proof_text":"done"}"#).await;
}

#[tokio::test]
async fn what_cannot_be_asked_for_is_refused() {
    let proxy = TestProxy::start().await;
    for (body, says) in [
        (r#"{"reward":1}"#, "the fields are job_type, min_reward_credits, title_contains, wait;"),
        (r#"{"wait":"51s"}"#, "wait must be a duration from 0s to 50s"),
        (r#"{"job_type":"general"}"#, "job_type must be an array of texts"),
        ("[]", "nothing was sent"),
    ] {
        let refused = problem(ask(&proxy, body).await).await;
        let detail = refused["detail"].as_str().unwrap();
        assert!(refused["status"] == 400 && detail.contains(says), "{detail}");
    }
    let url = proxy.url("/proxy/jobs/next?wait=1s");
    let refused = problem(proxy.client.post(url).send().await.unwrap()).await;
    assert_eq!(refused["code"], "query_not_taken");
    assert!(refused["detail"].as_str().unwrap().contains(r#"as in {"wait": "20s"}"#), "{refused}");
}

#[tokio::test]
async fn a_request_waits_for_a_job_that_comes_and_one_list_is_for_all() {
    let (proxy, between) = Between::start(1, empty()).await;
    let mut listed = between.listed();
    let waiting = (0..7).map(|_| ask(&proxy, r#"{"wait":"40s"}"#));
    let preferring = next(&proxy, "").header("prefer", "respond-async, wait=40").send();
    let come = async {
        listed.wait_for(|count| *count > 0).await.unwrap();
        between.lists(&BEST);
    };
    let all = join(join(join_all(waiting), preferring), come);
    let ((waiting, preferring), ()) = timeout(LONG, all).await.unwrap();
    let answers = waiting.into_iter().chain([preferring.unwrap()]);
    let found: HashSet<_> = join_all(answers.map(job)).await.into_iter().collect();
    assert_eq!(found, BEST.map(str::to_owned).into());
    assert_eq!(between.calls("reserve"), BEST.len());
    assert!(between.calls("list") <= 4, "{} lists", between.calls("list"));
}

#[tokio::test]
async fn a_hundred_workers_get_each_of_forty_jobs_once() {
    let (proxy, between) = Between::start(5, Rules::default()).await;
    let answers = join_all((0..100).map(|_| ask(&proxy, GENERAL))).await;
    let (found, none): (Vec<_>, Vec<_>) =
        answers.into_iter().partition(|answer| answer.status() == StatusCode::OK);
    none.iter().for_each(has_none);
    let found = join_all(found.into_iter().map(job)).await;
    let different: HashSet<_> = found.iter().collect();
    assert_eq!((found.len(), different.len()), (40, 40));
    // Two pages of one list, and no reserve in vain.
    assert_eq!((between.calls("list"), between.calls("reserve")), (2, 40));
}

#[tokio::test]
async fn after_three_jobs_of_other_teams_a_request_has_none() {
    let lost = HashSet::from([BEST[0], BEST[1]]);
    let (proxy, between) = Between::start(1, Rules { lost, ..Rules::default() }).await;
    assert_eq!(job(ask(&proxy, GENERAL).await).await, BEST[2]);
    assert_eq!(between.calls("reserve"), 3);
    let lost = HashSet::from([BEST[0], BEST[1], BEST[2]]);
    let (proxy, between) = Between::start(1, Rules { lost, ..Rules::default() }).await;
    has_none(&ask(&proxy, GENERAL).await);
    assert_eq!(between.calls("reserve"), 3);
    assert_eq!(job(ask(&proxy, GENERAL).await).await, BEST[3]);
}

#[tokio::test]
async fn a_job_that_a_client_holds_is_handed_to_no_other_whatever_the_list_says() {
    let (proxy, between) = Between::start(1, Rules::default()).await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    assert!(one.reserve(BEST[0]).await.status().is_success());
    assert!(one.reserve(BEST[1]).await.status().is_success());
    between.lists(&BEST);
    for agent in [&one, &other] {
        let found = job(next_of(&proxy, agent, "").send().await.unwrap()).await;
        assert!(!BEST[..2].contains(&found.as_str()), "{found}");
    }
    assert_eq!(between.calls("reserve"), 4);
}

#[tokio::test]
async fn a_repeat_with_the_same_key_gets_the_same_job() {
    let (proxy, between) = Between::start(1, Rules::default()).await;
    let keyed = |key: &str, body: &str| next(&proxy, body).header("idempotency-key", key).send();
    let (one, other) = join(keyed("a", GENERAL), keyed("a", GENERAL)).await;
    let [one, other, again] = [one.unwrap(), other.unwrap(), keyed("a", GENERAL).await.unwrap()];
    assert!(again.headers().contains_key("idempotency-replayed"));
    for answer in [one, other, again] {
        assert_eq!(job(answer).await, BEST[0]);
    }
    assert_eq!(between.calls("reserve"), 1);
    let longer = keyed("a", r#"{"job_type":["general"],"wait":"1s"}"#).await.unwrap();
    assert_eq!(job(longer).await, BEST[0], "however long it waits");
    let refused = problem(keyed("a", "").await.unwrap()).await;
    assert_eq!(refused["code"], "idempotency_key_reused");
    assert_eq!(job(keyed("b", GENERAL).await.unwrap()).await, BEST[1]);
}

#[tokio::test]
async fn rights_and_caps_are_those_of_both_calls_and_told_at_once() {
    let (proxy, between) = Between::start(1, Rules::default()).await;
    let lister = Agent::add(&proxy, &may("lister", "read"));
    let reserver = Agent::add(&proxy, &may("reserver", "job_reserve"));
    let one = Client { max_reservations: Some(1), ..may("one", "jobs") };
    let one = Agent::add(&proxy, &one);
    let rated = Client { rate: Some("2/h".parse().unwrap()), ..may("rated", "jobs") };
    let rated = Agent::add(&proxy, &rated);
    let long = r#"{"wait":"50s"}"#;
    let ask = async |agent: &Agent| {
        timeout(LONG / 2, next_of(&proxy, agent, long).send()).await.unwrap().unwrap()
    };
    for agent in [&lister, &reserver] {
        assert_eq!(problem(ask(agent).await).await["code"], "not_allowed");
    }
    job(ask(&one).await).await;
    let refused = problem(ask(&one).await).await;
    assert_eq!(refused["code"], "too_many_reservations");
    job(ask(&rated).await).await;
    assert_eq!(problem(ask(&rated).await).await["code"], "rate_exceeded");
    assert_eq!(problem(next(&proxy, long).send().await.unwrap()).await["code"], "unauthenticated");
    let denied = denials(&proxy, ["client", "action", "reason"]).await;
    let expected = [
        ["lister", "job_reserve", "not_allowed"],
        ["reserver", "job_list", "not_allowed"],
        ["one", "job_reserve", "too_many_reservations"],
        ["rated", "job_list", "rate_exceeded"],
        ["-", "job_list", "unauthenticated"],
    ];
    assert_eq!(denied, expected.map(|fields| fields.map(str::to_owned)));
    assert_eq!(between.calls("reserve"), 2);
}

#[tokio::test]
async fn a_freeze_is_told_at_once() {
    let proxy = TestProxy::start().await;
    proxy.proxy.store().freeze(FreezeOf::Signatures, "ops").await.unwrap();
    let refused = ask(&proxy, r#"{"wait":"50s"}"#);
    assert_eq!(problem(timeout(LONG / 2, refused).await.unwrap()).await["code"], "frozen");
}

#[tokio::test]
async fn requests_that_wait_leave_room_for_calls_and_drop_out_as_their_clients_leave() {
    let between = Between(Arc::new(Mutex::new(empty())));
    let sandbox = agentpmt_proxy::sandbox::Sandbox::new(Settings::default());
    let upstream = crate::common::serve(between.clone().layer(sandbox.router())).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |options| options.in_flight = 1).await;
    let mut listed = between.listed();
    let waiting: Vec<_> =
        (0..4).map(|_| tokio::spawn(next(&proxy, r#"{"wait":"50s"}"#).send())).collect();
    let answer = loop {
        let answer = ask(&proxy, "").await;
        if answer.status() == StatusCode::SERVICE_UNAVAILABLE && *listed.borrow() > 0 {
            break answer;
        }
        sleep(Duration::from_millis(10)).await;
    };
    assert_eq!(problem(answer).await["code"], "overloaded");
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/status"), "").await;
    waiting.iter().for_each(|waiting| waiting.abort());
    while ask(&proxy, "").await.status() != StatusCode::NO_CONTENT {
        sleep(Duration::from_millis(10)).await;
    }
    between.lists(&BEST[..1]);
    listed.mark_unchanged();
    assert_eq!(job(ask(&proxy, r#"{"wait":"50s"}"#).await).await, BEST[0]);
    assert_eq!(between.calls("reserve"), 1);
}

#[tokio::test]
async fn a_list_that_is_refused_is_told_to_all_who_wait() {
    let refusal = json!({"detail": "not today"});
    let (proxy, between) = Between::start(1, empty()).await;
    let mut listed = between.listed();
    let long = r#"{"wait":"50s"}"#;
    let refused = async {
        // Both wait for the second list, which comes two seconds after the first or later.
        listed.wait_for(|lists| *lists == 1).await.unwrap();
        let answer = ask(&proxy, long);
        between.0.lock().unwrap().list = Some((StatusCode::UNPROCESSABLE_ENTITY, refusal.clone()));
        answer.await
    };
    let (one, other) = join(ask(&proxy, long), refused).await;
    for answer in [one, other] {
        assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert_eq!(json(answer).await, refusal);
    }
    assert_eq!(between.calls("list"), 2);
}
