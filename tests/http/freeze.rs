//! Freezing by an admin, and calls that are under way meanwhile.

use std::sync::Arc;

use agentpmt_proxy::{policy::Client, sandbox::Settings, store::FreezeOf};
use axum::{
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use http::StatusCode;
use serde_json::{Value, json};
use tokio::sync::Notify;

use crate::{
    agents::{Agent, denials, may, records},
    common::{GENERAL_JOB, TestProxy, WORKFLOW_JOB, json as body, problem},
};

/// The status and the body of an answer to a client at one of the proxy's own paths.
async fn own(proxy: &TestProxy, agent: &Agent, method: &str, path: &str) -> (u16, Value) {
    let request = proxy.client.request(method.parse().unwrap(), proxy.url(path));
    let response = request.bearer_auth(agent.token.expose()).send().await.unwrap();
    (response.status().as_u16(), body(response).await)
}

#[tokio::test]
async fn an_admin_freezes_and_thaws_and_no_other_client() {
    let proxy = TestProxy::start().await;
    let ci = Agent::add(&proxy, &may("ci", "all"));
    let ops = Agent::add(&proxy, &Client { admin: true, ..may("ops", "read") });
    for path in ["/proxy/freeze", "/proxy/thaw"] {
        let (status, answer) = own(&proxy, &ci, "POST", path).await;
        assert_eq!((status, &answer["code"]), (403, &json!("not_allowed")), "{path}");
    }
    let (status, answer) = own(&proxy, &ops, "POST", "/proxy/freeze?payment").await;
    assert_eq!((status, &answer["code"]), (400, &json!("query_not_taken")));
    ci.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;

    let (status, answer) = own(&proxy, &ops, "POST", "/proxy/freeze?payments").await;
    assert_eq!((status, &answer["frozen"]["of"]), (200, &json!("payments")));
    ci.ok("/jobs/list", "").await;
    let (_, answer) = own(&proxy, &ops, "POST", "/proxy/freeze").await;
    let frozen = &answer["frozen"];
    assert_eq!((&frozen["of"], &frozen["by"]), (&json!("signatures"), &json!("ops")));
    assert_eq!(own(&proxy, &ci, "GET", "/proxy/status").await.1["frozen"], *frozen);
    let requests = proxy.sandbox.counts().requests;
    let workflow = format!("/jobs/{WORKFLOW_JOB}/workflow/create");
    for path in ["/jobs/list", &format!("/jobs/{GENERAL_JOB}/reserve"), &workflow] {
        let refused = problem(ci.post(path, "").await).await;
        assert_eq!((&refused["code"], &refused["retry"]), (&json!("frozen"), &json!("safe")));
        let (detail, since) = (refused["detail"].as_str().unwrap(), &frozen["since"]);
        for word in [&since.as_str().unwrap()[..19], "by ops", "agentpmt-proxy thaw"] {
            assert!(detail.contains(word), "{detail}");
        }
    }
    assert_eq!(proxy.sandbox.counts().requests, requests);
    assert_eq!(own(&proxy, &ops, "POST", "/proxy/thaw").await, (200, json!({ "frozen": null })));
    ci.ok("/jobs/list", "").await;

    let reasons = denials(&proxy, ["reason"]).await;
    assert_eq!(reasons.iter().filter(|[reason]| reason == "frozen").count(), 3, "{reasons:?}");
    let deeds = records(&proxy, "admin").await;
    let by_ops = deeds.iter().filter(|deed| deed.text("by").as_deref() == Some("ops"));
    let actions: Vec<_> = by_ops.map(|deed| deed.text("action").unwrap()).collect();
    assert_eq!(actions, ["freeze_payments", "freeze", "thaw"]);
}

#[tokio::test]
async fn without_clients_a_caller_freezes_but_cannot_thaw() {
    let proxy = TestProxy::start().await;
    let post = async |path| proxy.client.post(proxy.url(path)).send().await.unwrap();
    assert_eq!(post("/proxy/freeze").await.status(), StatusCode::OK);
    let refused = problem(post("/proxy/thaw").await).await;
    assert_eq!((&refused["status"], &refused["code"]), (&json!(403), &json!("not_allowed")));
    assert!(refused["detail"].as_str().unwrap().contains("agentpmt-proxy thaw"), "{refused}");
    assert_eq!(problem(proxy.post("/jobs/list", "").await).await["code"], "frozen");
}

#[tokio::test]
async fn what_became_of_a_change_is_not_asked_while_signatures_are_frozen() {
    let (made, go_on) = (Arc::<Notify>::default(), Arc::<Notify>::default());
    let (has_made, may_go_on) = (made.clone(), go_on.clone());
    let gateway = from_fn(move |request: Request, next: Next| {
        let (made, go_on) = (has_made.clone(), may_go_on.clone());
        async move {
            let is_reserve = request.uri().path().ends_with("/reserve");
            let answer = next.run(request).await;
            if !is_reserve {
                return answer;
            }
            made.notify_one();
            go_on.notified().await;
            (StatusCode::BAD_GATEWAY, "no answer").into_response()
        }
    });
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(gateway)).await;
    let proxy = Arc::new(proxy);
    let reserving = tokio::spawn({
        let proxy = proxy.clone();
        async move { problem(proxy.post(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await).await }
    });
    made.notified().await;
    proxy.proxy.store().freeze(FreezeOf::Signatures, "ops").await.unwrap();
    let requests = proxy.sandbox.counts().requests;
    go_on.notify_one();
    let lost = reserving.await.unwrap();
    assert_eq!((&lost["code"], &lost["retry"]), (&json!("outcome_unknown"), &json!("check_first")));
    assert_eq!(proxy.sandbox.counts().requests, requests, "no probe");
}
