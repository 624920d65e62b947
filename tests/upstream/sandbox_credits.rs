//! The sandbox's credits, tools and workflows, with a signer of the tests' own.

use std::{slice, time::Duration};

use agentpmt_proxy::sandbox::Settings;
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};

use crate::sandbox::{
    Agent, Call, GENERAL, Upstream, assert_fields, assert_refused, ok, reservation_id, until,
};

const FREE: &str = "word-count/count-words";
const PAID: &str = "ai-writing-quality-check/check-for-banned-phrases";
const FAILING: &str = "letter-printer/print-letter";
const SLOW: &str = "slow-survey/ask-everyone";
const FLOW: &str = "69b2d1e3f405162738495a01";

/// A sandbox that decides and answers at once.
async fn fast() -> Upstream {
    let (review, slow_tool) = (Duration::from_millis(1), Duration::from_millis(1));
    Upstream::with(Settings { review, slow_tool, ..Settings::default() }).await
}

/// Does the general job, which pays 400 credits.
async fn earn(agent: &Agent<'_>) {
    let reservation = ok(agent.reserve(GENERAL).await);
    let proof = json!({"proof_text": "done", "reservation_id": reservation_id(&reservation)});
    ok(agent.complete(GENERAL, proof).await);
    until(async || (balance(agent).await > 0).then_some(())).await;
}

fn scoped<'a>(action: &'a str, path: &str, product: &'a str, payload: Value) -> Call<'a> {
    Call { path: path.into(), action, product, payload, body: Some(json!({})) }
}

async fn balance(agent: &Agent<'_>) -> i64 {
    let call = scoped("balance", "/credits/balance", "-", Value::Null);
    let answer = ok(agent.call(call).await);
    assert_eq!(answer["wallet_address"], json!(agent.wallet.address()));
    let credits = answer["balance_credits"].as_i64().unwrap();
    assert_eq!(answer["balance_usd"], format!("{}.{:02}", credits / 100, credits % 100));
    credits
}

#[tokio::test]
async fn credits_are_earned_and_spent_and_the_ledger_adds_up() {
    let upstream = fast().await;
    let (agent, other) = (upstream.agent(1).await, upstream.agent(2).await);
    assert_eq!(balance(&agent).await, 0);
    earn(&agent).await;
    let used = ok(agent.call(Call::tool(PAID, json!({"content": "Ask our AI."}))).await);
    assert_eq!(used["result"]["parameters"], json!({"content": "Ask our AI."}));
    let charge = ["price_credits", "charged_credits", "balance_credits"].map(|name| &used[name]);
    assert_eq!(charge, [5, 5, 395]);
    assert_eq!((&used["balance_usd"], &used["credit_source"]), (&"3.95".into(), &"wallet".into()));
    assert_eq!(ok(agent.call(Call::tool(FREE, json!({}))).await)["charged_credits"], 0);
    assert_eq!((balance(&agent).await, balance(&other).await), (395, 0));

    let ledger = upstream.sandbox.ledger();
    let entries: Vec<_> = ledger.iter().map(|e| (e.credits, e.balance_credits)).collect();
    assert_eq!(entries, [(400, 400), (-5, 395)]);
    assert!(ledger.iter().all(|entry| entry.wallet == agent.wallet.address()));
    let url = upstream.url.replace("/api/external", "/sandbox/ledger");
    let shown = upstream.client.get(url).send().await.unwrap().text().await.unwrap();
    let shown: Value = serde_json::from_str(&shown).unwrap();
    assert_eq!(shown["entries"][1]["reason"], "tool ai-writing-quality-check");
}

#[tokio::test]
async fn a_tool_that_is_too_dear_answers_402_and_takes_nothing() {
    let upstream = fast().await;
    let agent = upstream.agent(1).await;
    let body = agent.body(&Call::tool(PAID, json!({})), "r1");
    let path = Call::tool(PAID, json!({})).path;
    let refused = upstream.post(&path, &body).await;
    assert_refused(&refused, 402, "INSUFFICIENT_CREDITS");
    let detail = &refused.1["detail"];
    assert_eq!((&detail["price_credits"], &detail["balance_credits"]), (&5.into(), &0.into()));
    // The id is used up.
    assert_refused(&upstream.post(&path, &body).await, 409, "EXTERNAL_SIGNATURE_REQUEST_REPLAY");
    assert_eq!(upstream.sandbox.ledger(), []);
}

#[tokio::test]
async fn a_tool_may_fail_after_it_was_charged_or_take_its_time() {
    let upstream = fast().await;
    let agent = upstream.agent(1).await;
    earn(&agent).await;
    let failed = agent.call(Call::tool(FAILING, json!({}))).await;
    assert_refused(&failed, 502, "TOOL_FAILED");
    assert_eq!(failed.1["detail"]["charged_credits"], 20);
    assert_eq!(balance(&agent).await, 380);
    assert_eq!(ok(agent.call(Call::tool(SLOW, json!({}))).await)["balance_credits"], 330);
}

#[tokio::test]
async fn a_slow_tool_is_charged_before_it_answers() {
    let slow_tool = Duration::from_secs(3600);
    let review = Duration::from_millis(1);
    let upstream = Upstream::with(Settings { review, slow_tool, ..Settings::default() }).await;
    let agent = upstream.agent(1).await;
    earn(&agent).await;
    tokio::select! {
        answer = agent.call(Call::tool(SLOW, json!({}))) => panic!("{answer:?}"),
        () = until(async || (balance(&agent).await == 350).then_some(())) => {}
    }
}

#[tokio::test]
async fn of_many_uses_at_once_as_many_are_paid_as_there_are_credits() {
    let upstream = fast().await;
    let agent = upstream.agent(1).await;
    earn(&agent).await;
    let uses = (0..12).map(|_| agent.call(Call::tool(SLOW, json!({}))));
    let answers = futures_util::future::join_all(uses).await;
    let good = answers.iter().filter(|(status, _)| *status == StatusCode::OK).count();
    assert_eq!((good, balance(&agent).await), (8, 0));
    assert_eq!(upstream.sandbox.ledger().iter().map(|entry| entry.credits).sum::<i64>(), 0);
}

#[tokio::test]
async fn a_tool_call_is_signed_over_its_path_and_its_parameters() {
    let upstream = fast().await;
    let agent = upstream.agent(1).await;
    let used = || Call::tool(FREE, json!({"text": "one two"}));
    let other = Call::tool(PAID, json!({})).path;
    for (call, path) in [
        (Call { payload: json!({"text": "one"}), ..used() }, used().path),
        (Call { payload: Value::Null, ..used() }, used().path),
        (Call { action: "tool_invoke", product: "word-count", ..used() }, used().path),
        (used(), other),
    ] {
        let refused = upstream.post(&path, &agent.body(&call, "r1")).await;
        assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
    }
    // Fields beside the parameters are not signed.
    let mut body = agent.body(&used(), "r1");
    body["workflow_session_id"] = "s1".into();
    ok(upstream.post(&used().path, &body).await);
}

#[tokio::test]
async fn a_tool_is_also_used_by_its_id_in_the_older_call() {
    let upstream = fast().await;
    let agent = upstream.agent(1).await;
    let tools = ok(upstream.send(Method::GET, "/tools", None, "").await);
    let tools = tools["tools"].as_array().unwrap();
    let price = |tool: &Value| tool["actions"][0]["price_credits"].as_i64().unwrap();
    assert_eq!(tools.iter().map(price).collect::<Vec<_>>(), [0, 5, 20, 50]);
    let id = tools[0]["product_id"].as_str().unwrap();
    let path = format!("/tools/{id}/invoke");
    let parameters = json!({"text": "one"});
    let body = Some(json!({"parameters": parameters}));
    let call = Call { body, ..scoped("invoke", &path, id, parameters) };
    assert_eq!(ok(agent.call(call).await)["price_credits"], 0);

    for path in ["/tools/none/actions/x/invoke", "/tools/word-count/actions/x/invoke"] {
        let call = Call { path: path.into(), ..Call::tool(FREE, json!({})) };
        assert_refused(&agent.call(call).await, 404, "TOOL_NOT_FOUND");
    }
    let call = Call { body: Some(json!({"parameters": [1]})), ..Call::tool(FREE, json!([1])) };
    assert_fields(&agent.call(call).await, slice::from_ref(&json!(["body", "parameters"])));
}

#[tokio::test]
async fn published_workflows_are_listed_by_page_and_fetched_whole() {
    let upstream = fast().await;
    let agent = upstream.agent(1).await;
    let list = async |query: &str| {
        upstream.send(Method::GET, &format!("/workflows{query}"), None, "").await
    };
    let all = ok(list("").await);
    assert_eq!((&all["total"], &all["limit"]), (&2.into(), &50.into()));
    assert_eq!(all["workflows"][0]["workflow_id"], FLOW);
    let page = ok(list("?limit=5&skip=1").await);
    assert_eq!(page["workflows"].as_array().unwrap().len(), 1);
    assert_fields(&list("?limit=0").await, &[json!(["body", "limit"])]);
    assert_fields(&list("?skip=x").await, &[json!(["body", "skip"])]);

    let fetch = |id| Call {
        path: format!("/workflows/{id}/fetch"),
        ..scoped("workflow_fetch", "", id, Value::Null)
    };
    let workflow = ok(agent.call(fetch(FLOW)).await);
    assert_eq!(workflow["workflow"]["edges"][0]["from"], "check");
    assert_refused(&agent.call(fetch("none")).await, 404, "WORKFLOW_NOT_FOUND");
}

#[tokio::test]
async fn a_workflow_runs_in_sessions_of_its_wallet_until_each_is_ended() {
    let upstream = fast().await;
    let (agent, other) = (upstream.agent(1).await, upstream.agent(2).await);
    let path = |verb: &str| format!("/workflows/{FLOW}/{verb}");
    let call = |action: &'static str, path: String, product, payload: Value| {
        let body = Some(if payload.is_null() { json!({}) } else { payload.clone() });
        Call { path, action, product, payload, body }
    };
    let start = |payload| call("workflow_start", path("start"), FLOW, payload);
    let active = |payload| call("workflow_active", "/workflows/active".into(), "-", payload);
    let one = ok(agent.call(start(Value::Null)).await);
    let two = ok(agent.call(start(json!({"instance_id": "i"}))).await);
    assert_eq!((&one["status"], &two["instance_id"]), (&"active".into(), &"i".into()));

    let count = async |agent: &Agent<'_>, payload| {
        ok(agent.call(active(payload)).await)["sessions"].as_array().unwrap().len()
    };
    assert_eq!(count(&agent, json!({})).await, 2);
    assert_eq!(count(&agent, json!({"instance_id": "i"})).await, 1);
    assert_eq!(count(&other, json!({})).await, 0);

    let end = |session: &Value| {
        let parameters = json!({"workflow_session_id": session["workflow_session_id"]});
        let body = Some(json!({"parameters": parameters}));
        Call { body, ..call("workflow_end", path("end"), FLOW, parameters) }
    };
    assert_refused(&other.call(end(&one)).await, 404, "WORKFLOW_SESSION_NOT_FOUND");
    assert_eq!(ok(agent.call(end(&one)).await)["status"], "ended");
    assert_refused(&agent.call(end(&one)).await, 404, "WORKFLOW_SESSION_NOT_FOUND");
    assert_eq!(count(&agent, json!({})).await, 1);
}
