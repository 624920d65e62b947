//! Rows that are added to the table of calls, and nothing else: they are called through HTTP, policy,
//! journal and sandbox.

use agentpmt_proxy::{
    action::{
        ACTIONS, About, Action, Binds, Effect, Field, JsonType, Lookup, Needs, Payload, Proof,
        Signed,
    },
    call::Call,
    sandbox::{FaultTarget, InjectedFault, Sandbox, Settings},
    types::Address,
};
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    agents::{Agent, denials, may, records},
    common::{
        GENERAL_JOB, Options, TestProxy, WORKFLOW_JOB, json as body_of, problem, serve,
        serve_sandbox,
    },
};

/// A row of a call that everyone may make and that changes nothing, to be completed.
const LATER: Action = Action {
    name: "",
    summary: "",
    description: "",
    method: Method::POST,
    path: "",
    query: &[],
    body: &[],
    example: "",
    answer: &[],
    about: About::Nothing,
    needs: Needs::Nothing,
    proof: Proof::None,
    effect: Effect::None,
    lookup: Lookup::None,
};

const fn field(name: &'static str) -> Field {
    Field { name, description: "", json_type: JsonType::Any, required: false }
}

/// The table with more rows, of which nothing else in the program knows.
fn longer_table() -> &'static [Action] {
    let signed = |binds, payload| Proof::Signature(Signed { binds, payload });
    let rows = [
        Action {
            name: "thing_balance",
            path: "/api/external/things/balance",
            proof: signed(Binds::Action, Payload::Empty),
            ..LATER
        },
        Action {
            name: "thing_use",
            path: "/api/external/things/{product_slug}/actions/{action_slug}/use",
            body: const { &[field("parameters")] },
            about: About::Product,
            proof: signed(Binds::MethodAndPath, Payload::Object("parameters")),
            effect: Effect::Other,
            ..LATER
        },
        Action {
            name: "thing_use_old",
            path: "/api/external/things/{product_id}/use",
            body: const { &[field("parameters")] },
            about: About::Product,
            proof: signed(Binds::ActionAndId, Payload::Object("parameters")),
            effect: Effect::Other,
            ..LATER
        },
        Action {
            name: "flow_start",
            path: "/api/external/flows/{workflow_id}/start",
            body: const { &[field("instance_id")] },
            about: About::Workflow,
            proof: signed(Binds::ActionAndId, Payload::Fields),
            effect: Effect::Other,
            ..LATER
        },
        Action {
            name: "flows",
            method: Method::GET,
            path: "/api/external/flows",
            query: const { &[field("limit"), field("skip")] },
            about: About::Workflow,
            ..LATER
        },
        Action {
            name: "thing_buy",
            path: "/api/external/things/buy",
            effect: Effect::Other,
            ..LATER
        },
        Action {
            name: "job_note",
            path: "/api/external/jobs/{job_id}/note",
            about: About::Job,
            needs: Needs::Held,
            proof: signed(Binds::ActionAndId, Payload::Body),
            effect: Effect::Other,
            ..LATER
        },
    ];
    [ACTIONS, &rows].concat().leak()
}

async fn with_longer_table() -> (TestProxy, &'static [Action]) {
    let table = longer_table();
    let sandbox = Sandbox::new(Settings { actions: table, ..Settings::default() });
    let upstream = serve_sandbox(&sandbox).await;
    let choose = |options: &mut Options| options.actions = table;
    (TestProxy::in_front_of(sandbox, upstream, choose).await, &table[ACTIONS.len()..])
}

#[tokio::test]
async fn an_added_row_is_routed_signed_recorded_and_answered() {
    let (proxy, added) = with_longer_table().await;
    let agent = Agent::add(&proxy, &may("ci", "all"));
    agent.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let ids = [GENERAL_JOB, "w1"].map(|id| id.parse().unwrap());
    for action in added {
        let response = agent.call(action, GENERAL_JOB).await;
        assert_eq!(response.status(), StatusCode::OK, "{action}");
        let received = json!({"action": action.name, "received": action.path_with(&ids)});
        assert_eq!(body_of(response).await, received);
    }
    let expected = added.iter().map(|action| {
        let product = action.id_names().next().map(|_| GENERAL_JOB.to_owned());
        [Some(action.name.to_owned()), product]
    });
    let signed = records(&proxy, "signed").await;
    let signed = signed.iter().map(|record| ["action", "product"].map(|name| record.text(name)));
    assert_eq!(signed.skip(1).collect::<Vec<_>>(), expected.collect::<Vec<_>>());
}

#[tokio::test]
async fn an_added_row_is_allowed_and_denied_by_what_it_says() {
    let (proxy, added) = with_longer_table().await;
    for (allow, expected) in [
        ("read", ["thing_balance", "flows"].as_slice()),
        ("jobs", &[]),
        ("jobs,read", &["thing_balance", "flows"]),
    ] {
        let agent = Agent::add(&proxy, &may(&allow.replace(',', "-"), allow));
        let mut allowed = Vec::new();
        for action in added {
            let response = agent.call(action, WORKFLOW_JOB).await;
            match response.status() {
                StatusCode::OK => allowed.push(action.name),
                StatusCode::CONFLICT => {
                    assert_eq!(problem(response).await["code"], "not_reserved", "{action}");
                    assert_eq!(action.name, "job_note", "{allow}");
                }
                _ => assert_eq!(problem(response).await["code"], "not_allowed", "{action}"),
            }
        }
        assert_eq!(allowed, expected, "{allow}");
    }
    let holder = Agent::add(&proxy, &may("holder", "jobs"));
    holder.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
    holder.ok(&format!("/jobs/{WORKFLOW_JOB}/note"), "{}").await;
    let reasons = denials(&proxy, ["client", "action", "product", "reason"]).await;
    let of_jobs = ["jobs", "job_note", WORKFLOW_JOB, "not_reserved"].map(str::to_owned);
    assert!(reasons.contains(&of_jobs), "{reasons:?}");
    assert_eq!(reasons.len(), 5 + 7 + 5);
}

#[tokio::test]
async fn an_added_row_gets_the_query_that_it_names() {
    let (proxy, _) = with_longer_table().await;
    let get = async |query: &str| {
        let url = proxy.url(&format!("/api/external/flows{query}"));
        proxy.client.get(url).send().await.unwrap()
    };
    for query in ["", "?limit", "?skip=5&limit=%2B1"] {
        let answer = body_of(get(query).await).await;
        assert_eq!(answer["received"], format!("/api/external/flows{query}"));
    }
    let path = proxy.url("/api/external/flows?");
    let bare = body_of(proxy.client.get(path).send().await.unwrap()).await;
    assert_eq!(bare["received"], "/api/external/flows");
    for query in ["?tag=x", "?limit=1&tag=x", "?limit=1&", "?Limit=1"] {
        let problem = problem(get(query).await).await;
        assert_eq!(problem["code"], "query_not_taken", "{query}");
        assert!(problem["detail"].as_str().unwrap().ends_with("names: limit, skip"), "{problem}");
    }
}

#[tokio::test]
async fn the_sandbox_takes_no_call_of_an_added_row_without_its_proof() {
    let (proxy, added) = with_longer_table().await;
    let signed = added.iter().filter(|action| matches!(action.proof, Proof::Signature(_)));
    let sandbox = serve(proxy.sandbox.router()).await;
    for action in signed {
        let path = action.path_with(&["one", "two"].map(|id| id.parse().unwrap()));
        let request = proxy.client.post(format!("http://{sandbox}{path}")).body("{}");
        let refused = body_of(request.send().await.unwrap()).await;
        assert_eq!(refused["detail"]["code"], "EXTERNAL_SIGNATURE_MALFORMED", "{action}");
    }
}

#[tokio::test]
async fn a_lost_answer_to_an_added_row_is_looked_up_as_the_row_says() {
    let (proxy, added) = with_longer_table().await;
    let invoke = added.iter().find(|action| action.name == "thing_use").unwrap();
    let cut = "cut_after".parse::<InjectedFault>().unwrap();
    let cut = InjectedFault { target: FaultTarget::Action(invoke), ..cut };
    proxy.sandbox.inject(cut);
    let response = proxy.post("/things/one/actions/two/use", r#"{"parameters":{}}"#).await;
    let problem = problem(response).await;
    assert_eq!(problem["code"], "outcome_unknown");
    assert!(problem["detail"].as_str().unwrap().contains("no call shows whether it did"));
    // A session and one try: nothing was asked, and nothing was sent again.
    assert_eq!(proxy.sandbox.counts().requests, 2);
}

#[test]
fn an_unsigned_call_without_proof_keeps_the_names_of_the_envelope() {
    let payee = r#"{"credits":500,"request_id":"mine","wallet_address":"0x11"}"#;
    let call = Call::new(
        longer_table().iter().find(|action| action.name == "thing_buy").unwrap(),
        [],
        payee.as_bytes(),
    );
    let call = call.unwrap();
    assert_eq!(call.body().to_canonical().as_str(), payee);
    assert_eq!(call.other_wallet(Address::new([1; 20])), None);
}
