//! The OpenAPI document and the page that shows it.

use std::collections::{BTreeMap, BTreeSet};

use agentpmt_proxy::{action::ACTIONS, manual::TOPICS, openapi};
use http::StatusCode;
use reqwest::Method;
use serde_json::{Map, Value, json};

use crate::{
    agents::{Agent, may},
    common::{TestProxy, WORKFLOW_JOB, json as body_of, problem},
};

/// Routes that are no calls: they are for people, or have a description of their own.
const UNDESCRIBED: [&str; 5] = ["/openapi.json", "/llms.txt", "/docs", "/docs/{*part}", "/mcp"];

#[tokio::test]
async fn the_document_is_served_without_a_token() {
    let proxy = TestProxy::start().await;
    let _agent = Agent::add(&proxy, &may("one", "jobs"));
    assert_eq!(proxy.post("/jobs/list", "").await.status(), StatusCode::UNAUTHORIZED);
    let answer = proxy.client.get(proxy.url("/openapi.json")).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/json");
    assert_eq!(body_of(answer).await, openapi::document());
}

#[tokio::test]
async fn the_document_has_every_route_and_no_other() {
    let proxy = TestProxy::start().await;
    let answer = proxy.client.get(proxy.url("/nowhere")).send().await.unwrap();
    let detail = problem(answer).await["detail"].as_str().unwrap().to_owned();
    let (_, routes) = detail.split_once("; the calls are: ").unwrap();
    let routes = routes.replace("; the proxy's own paths are: ", ", ");
    let is_described = |route: &&str| !UNDESCRIBED.iter().any(|path| route.ends_with(path));
    let routed: BTreeSet<_> = routes.split(", ").filter(is_described).map(str::to_owned).collect();
    let described = operations().into_values();
    let described = described.map(|(method, path, _)| format!("{method} {path}"));
    assert_eq!(described.collect::<BTreeSet<_>>(), routed);
}

#[tokio::test]
async fn every_example_of_the_document_runs_against_the_sandbox() {
    let proxy = TestProxy::start().await;
    let operations = operations();
    // The ids that earlier answers had stand for those of the examples.
    let mut ids = Map::new();
    for action in ACTIONS.iter().filter(|action| !action.is_paid_row(ACTIONS)) {
        if action.name == "job_workflow_create" {
            proxy.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
        }
        let (method, path, operation) = &operations[action.name];
        let mut url = proxy.url(path);
        for parameter in operation["parameters"].as_array().unwrap() {
            let name = parameter["name"].as_str().unwrap();
            let id = ids.get(name).unwrap_or(&parameter["example"]);
            let id = id.as_str().unwrap_or_default();
            url = url.replace(&format!("{{{name}}}"), id);
        }
        let mut body = operation["requestBody"]["content"]["application/json"]["example"].clone();
        if let Some(id) = ids.get("workflow_session_id") {
            body["workflow_session_id"] = id.clone();
        }
        let request = proxy.client.request(method.clone(), url);
        let request = if body.is_null() { request } else { request.body(body.to_string()) };
        let answer = request.send().await.unwrap();
        // The sandbox asks to be paid, and this proxy does not pay.
        let expected = if action.name == "credits_purchase" { 402 } else { 200 };
        let status = answer.status();
        let answer = body_of(answer).await;
        assert_eq!(status, expected, "{action}: {answer}");
        for name in ["workflow_id", "workflow_session_id"] {
            ids.extend(answer.get(name).map(|id| (name.to_owned(), id.clone())));
        }
        if action.name == "job_workflow_publish" {
            ids.clear();
        }
    }
    let bare = json!({ "text": "bare" }).to_string();
    let tool = "/tools/word-count/actions/count-words/invoke?pay=x402";
    assert_eq!(proxy.ok(tool, bare).await["response"]["parameters"]["text"], "bare");
}

#[tokio::test]
async fn the_page_and_its_parts_come_from_here_under_a_strict_policy() {
    let proxy = TestProxy::start().await;
    let fetch = async |path: &str| {
        let answer = proxy.client.get(proxy.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        let policy = answer.headers()["content-security-policy"].to_str().unwrap();
        assert!(policy.starts_with("default-src 'none'; script-src 'self'; style-src 'self'; "));
        assert!(!policy.contains("unsafe") && policy.contains("frame-ancestors 'none'"));
        assert_eq!(answer.headers()["x-content-type-options"], "nosniff");
        assert_eq!(answer.headers()["referrer-policy"], "no-referrer");
        let header = |name| Some(answer.headers().get(name)?.to_str().unwrap().to_owned());
        let (media_type, coding) = (header("content-type").unwrap(), header("content-encoding"));
        (media_type, coding, answer.bytes().await.unwrap())
    };
    let (media_type, _, page) = fetch("/docs").await;
    assert_eq!(media_type, "text/html; charset=utf-8");
    let page = str::from_utf8(&page).unwrap();
    let named: Vec<_> = page.split('"').filter(|part| part.starts_with('/')).collect();
    assert_eq!(named.len(), 3 + TOPICS.len());
    for path in named {
        let (media_type, coding, body) = fetch(path).await;
        if let Some(name) = path.strip_prefix("/docs/manual/") {
            let text = TOPICS.iter().find(|topic| topic.name == name).unwrap().text;
            assert_eq!((&*media_type, &*body), ("text/plain; charset=utf-8", text.as_bytes()));
        }
        assert_eq!(coding.is_some(), body.starts_with(b"\x1f\x8b"), "{path}");
    }
    for topic in TOPICS {
        assert!(!topic.about().contains(['<', '&']), "{} cannot stand in a page", topic.name);
    }
    let url = proxy.url("/docs/manual/..%2f..%2fCargo.toml");
    let nothing = problem(proxy.client.get(url).send().await.unwrap()).await;
    assert_eq!(nothing["code"], "unknown_path");
}

#[tokio::test]
async fn the_text_for_agents_leads_to_texts_that_are_there() {
    let proxy = TestProxy::start().await;
    let get = async |path: &str| {
        let answer = proxy.client.get(proxy.url(path)).send().await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK, "{path}");
        answer.text().await.unwrap()
    };
    let text = get("/llms.txt").await;
    let links = text.split("](").skip(1).map(|rest| rest.split(')').next().unwrap());
    let links: Vec<_> = links.collect();
    assert!(links.contains(&"/docs/manual/agent") && links.contains(&"/openapi.json"), "{text}");
    for link in links {
        get(link).await;
    }
}

/// Method, path and operation of every operation, by its id.
fn operations() -> BTreeMap<String, (Method, String, Value)> {
    let document = openapi::document();
    let mut operations = BTreeMap::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        for (method, operation) in methods.as_object().unwrap() {
            let method = method.to_uppercase().parse().unwrap();
            let id = operation["operationId"].as_str().unwrap().to_owned();
            let added = operations.insert(id, (method, path.clone(), operation.clone()));
            assert_eq!(added, None, "two operations have one id");
        }
    }
    operations
}
