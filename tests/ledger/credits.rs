//! Limits of credits, under many calls at once through two proxies on one store.

use std::sync::{
    Arc,
    atomic::{AtomicU64, AtomicUsize, Ordering::SeqCst},
};

use agentpmt_proxy::{
    policy::Client,
    sandbox::{Sandbox, Settings},
};
use axum::{
    Json, Router,
    extract::Request,
    middleware::{Next, from_fn},
    response::{IntoResponse, Response},
};
use futures_util::future::join_all;
use http::StatusCode;
use serde_json::{Value, json};
use tokio::task::yield_now;

use crate::{
    agents::{Agent, denials, may},
    common::{TestProxy, json, problem, serve},
};

const INVOKE: &str = "/tools/writing/actions/check/invoke";

/// The charge of the tool of these tests.
const PRICE: u64 = 30;

/// What the upstream has charged, and its calls.
#[derive(Default)]
struct Till {
    charged: AtomicU64,
    under_way: AtomicUsize,
    most_under_way: AtomicUsize,
}

impl Till {
    /// A sandbox whose tools are this one's.
    fn before(self: &Arc<Self>, router: Router) -> Router {
        let till = self.clone();
        router.layer(from_fn(move |request: Request, next: Next| {
            let till = till.clone();
            async move {
                match request.uri().path() {
                    "/api/external/tools" => Json(list()).into_response(),
                    path if path.ends_with(INVOKE) => till.charge().await,
                    _ => next.run(request).await,
                }
            }
        }))
    }

    async fn charge(&self) -> Response {
        let under_way = self.under_way.fetch_add(1, SeqCst) + 1;
        self.most_under_way.fetch_max(under_way, SeqCst);
        for _ in 0..100 {
            yield_now().await;
        }
        self.under_way.fetch_sub(1, SeqCst);
        self.charged.fetch_add(PRICE, SeqCst);
        Json(json!({ "result": "good", "charged_credits": PRICE })).into_response()
    }
}

fn list() -> Value {
    let action = json!({ "action_slug": "check", "price_credits": PRICE });
    json!({ "tools": [{ "product_slug": "writing", "actions": [action] }] })
}

/// Two proxies on one store, and an agent at each that is one client and may spend 100 credits a day.
async fn proxies(till: &Arc<Till>) -> ([TestProxy; 2], [Agent; 2]) {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(till.before(sandbox.router())).await;
    let first = TestProxy::in_front_of(sandbox.clone(), upstream, |_| {}).await;
    let folder = first.folder();
    let second = TestProxy::in_front_of(sandbox, upstream, |options| options.folder = folder).await;
    let client = Client { max_credits: Some("100/day".parse().unwrap()), ..may("ci", "tools") };
    let agent = Agent::add(&first, &client);
    let agents = [agent.at(&first), agent.at(&second)];
    ([first, second], agents)
}

/// Lists the tools, which tells a proxy their prices.
async fn list_tools(proxy: &TestProxy, agent: &Agent) {
    let request = proxy.client.get(proxy.url("/api/external/tools"));
    let response = request.bearer_auth(agent.token.expose()).send().await.unwrap();
    assert_eq!(response.status(), StatusCode::OK);
}

/// How many of 32 calls at once were made; the others were told of the limit.
async fn made(agents: &[Agent; 2]) -> usize {
    let calls = (0..32).map(|number| agents[number % 2].post(INVOKE, r#"{"parameters":{}}"#));
    let mut made = 0;
    for response in join_all(calls).await {
        if response.status().is_success() {
            assert_eq!(json(response).await["charged_credits"], PRICE);
            made += 1;
            continue;
        }
        let header = |name: &str| response.headers()[name].to_str().unwrap().parse::<u64>();
        assert!(header("retry-after").unwrap() >= 1);
        let refused = problem(response).await;
        assert_eq!(
            (&refused["code"], &refused["status"]),
            (&json!("credit_limit_reached"), &json!(429))
        );
        let detail = refused["detail"].as_str().unwrap();
        assert!(detail.contains("may spend 100/day of credits"), "{detail}");
    }
    made
}

#[tokio::test]
async fn many_calls_at_once_of_a_known_price_spend_no_more_than_the_limit() {
    let till = Arc::<Till>::default();
    let (proxies, agents) = proxies(&till).await;
    for proxy in &proxies {
        list_tools(proxy, &agents[0]).await;
    }
    assert_eq!(made(&agents).await, 3);
    assert_eq!(made(&agents).await, 0);
    assert_eq!(till.charged.load(SeqCst), 3 * PRICE);
    let refused = problem(agents[0].post(INVOKE, r#"{"parameters":{}}"#).await).await;
    let detail = refused["detail"].as_str().unwrap();
    for words in ["10 of them are left", "the call costs 30", "there are enough at 20"] {
        assert!(detail.contains(words), "{detail}");
    }
    let reasons = denials(&proxies[0], ["reason", "client"]).await;
    assert!(reasons.contains(&["credit_limit_reached".to_owned(), "ci".to_owned()]), "{reasons:?}");
}

#[tokio::test]
async fn one_call_of_an_unknown_price_is_under_way_at_a_time() {
    let till = Arc::<Till>::default();
    let (_proxies, agents) = proxies(&till).await;
    let mut all = 0;
    while till.charged.load(SeqCst) < 100 {
        all += made(&agents).await;
    }
    // The last one had 10 left and was charged more, which was not to be known.
    assert_eq!((all, made(&agents).await), (4, 0));
    assert_eq!(till.charged.load(SeqCst), 4 * PRICE);
    assert_eq!(till.most_under_way.load(SeqCst), 1);
}

/// The answer of a tool.
type Charging = fn() -> (StatusCode, &'static str);

/// A proxy and an agent with a limit, before tools that all give one answer, of which one is listed with this
/// price, on the first page of the list. The number is that of the calls that were made.
async fn dear_tools(
    listed: u64,
    limit: &str,
    answer: Charging,
) -> (TestProxy, Agent, Arc<AtomicUsize>) {
    let calls = Arc::<AtomicUsize>::default();
    let counted = calls.clone();
    let tools = from_fn(move |request: Request, next: Next| {
        let counted = counted.clone();
        async move {
            match request.uri().path() {
                "/api/external/tools" if request.uri().query().is_some() => {
                    Json(json!({ "tools": [] })).into_response()
                }
                "/api/external/tools" => {
                    let action = json!({ "action_slug": "do-it", "price_credits": listed });
                    let tool =
                        json!({ "product_slug": "big", "product_id": "1", "actions": [action] });
                    Json(json!({ "tools": [tool] })).into_response()
                }
                path if path.ends_with("/invoke") => {
                    counted.fetch_add(1, SeqCst);
                    let (status, body) = answer();
                    (status, [("content-type", "application/json")], body).into_response()
                }
                _ => next.run(request).await,
            }
        }
    });
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(sandbox.router().layer(tools)).await;
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    let client = Client { max_credits: Some(limit.parse().unwrap()), ..may("ci", "tools") };
    let agent = Agent::add(&proxy, &client);
    (proxy, agent, calls)
}

const DO_IT: &str = "/tools/big/actions/do-it/invoke";
const PARAMETERS: &str = r#"{"parameters":{}}"#;

fn dear() -> (StatusCode, &'static str) {
    (StatusCode::OK, r#"{"charged_credits":1000}"#)
}

#[tokio::test]
async fn a_listed_price_is_forgotten_by_no_page_and_evaded_by_no_other_name() {
    let (proxy, agent, calls) = dear_tools(1000, "5/day", dear).await;
    list_tools(&proxy, &agent).await;
    let page = proxy.client.get(proxy.url("/api/external/tools?limit=1&skip=100000"));
    let page = page.bearer_auth(agent.token.expose()).send().await.unwrap();
    assert_eq!(json(page).await, json!({ "tools": [] }));
    let paths = [
        DO_IT,
        "/tools/Big/actions/do_it/invoke",
        "/tools/1/actions/do-it/invoke",
        "/tools/1/invoke",
        "/tools/BIG/invoke",
    ];
    for path in paths {
        let refused = agent.refused(path, PARAMETERS).await;
        assert_eq!(refused, (429, "credit_limit_reached".to_owned()), "{path}");
    }
    for path in ["/tools/other/actions/do-it/invoke", "/tools/2/invoke"] {
        let refused = problem(agent.post(path, PARAMETERS).await).await;
        assert_eq!(refused["code"], "price_unknown", "{path}");
        assert!(refused["detail"].as_str().unwrap().contains("list the tools"), "{refused}");
    }
    assert_eq!(calls.load(SeqCst), 0);
    // A client without a limit may.
    Agent::add(&proxy, &may("free", "tools")).ok("/tools/2/invoke", PARAMETERS).await;
}

#[tokio::test]
async fn once_the_credits_are_spent_no_call_is_made_whatever_its_price() {
    for (limit, most) in [("5/day", 1), ("0/day", 0)] {
        let (proxy, agent, calls) = dear_tools(0, limit, dear).await;
        list_tools(&proxy, &agent).await;
        for _ in 0..6 {
            drop(agent.post(DO_IT, PARAMETERS).await);
        }
        assert_eq!(calls.load(SeqCst), most, "{limit}");
        let refused = agent.refused(DO_IT, PARAMETERS).await;
        assert_eq!(refused, (429, "credit_limit_reached".to_owned()));
    }
}

#[tokio::test]
async fn a_charge_beyond_the_price_is_the_price_from_then_on() {
    let (proxy, agent, calls) = dear_tools(1, "1001/day", dear).await;
    list_tools(&proxy, &agent).await;
    agent.ok(DO_IT, PARAMETERS).await;
    list_tools(&proxy, &agent).await;
    // One is left, which was the price.
    let refused = problem(agent.post(DO_IT, PARAMETERS).await).await;
    assert!(refused["detail"].as_str().unwrap().contains("the call costs 1000"), "{refused}");
    assert_eq!(calls.load(SeqCst), 1);
}

#[tokio::test]
async fn a_refused_call_that_was_charged_counts_however_that_is_written() {
    let answers: [Charging; 4] = [
        || (StatusCode::BAD_REQUEST, r#"{"detail":"no","charged_credits":"1000"}"#),
        || (StatusCode::BAD_REQUEST, r#"{"detail":"no","charged_credits":1e3}"#),
        || (StatusCode::BAD_REQUEST, r#"{"detail":[{"charged_credits":1000}]}"#),
        || (StatusCode::BAD_REQUEST, r#"{"detail":"no","charged_credits":"a lot"}"#),
    ];
    for answer in answers {
        let (_proxy, agent, calls) = dear_tools(1, "5/day", answer).await;
        for _ in 0..6 {
            drop(agent.post(DO_IT, PARAMETERS).await);
        }
        assert_eq!(calls.load(SeqCst), 1, "{}", answer().1);
    }
}

#[tokio::test]
async fn a_refusal_that_was_charged_is_not_signed_again() {
    let answers: [Charging; 3] = [
        || {
            let body = r#"{"detail":"tool says: Invalid session nonce","charged_credits":20}"#;
            (StatusCode::UNAUTHORIZED, body)
        },
        || {
            let body = r#"{"detail":"EXTERNAL_SIGNATURE_WALLET_MISMATCH","charged_credits":"20"}"#;
            (StatusCode::UNAUTHORIZED, body)
        },
        || {
            let body = r#"{"code":"EXTERNAL_SIGNATURE_REQUEST_REPLAY","charged_credits":2e1}"#;
            (StatusCode::CONFLICT, body)
        },
    ];
    for answer in answers {
        let (_proxy, agent, calls) = dear_tools(1, "100/day", answer).await;
        for _ in 0..2 {
            let response = agent.post_with("idempotency-key", "key", DO_IT, PARAMETERS).await;
            assert_eq!(response.status(), answer().0);
        }
        assert_eq!(calls.load(SeqCst), 1, "{}", answer().1);
    }
}
