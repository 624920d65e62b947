//! The workflows of jobs.

use super::*;

#[tokio::test]
async fn a_workflow_job_takes_a_published_workflow() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (reservation_id, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    ok(agent.workflow(Method::PUT, &id, &token, &definition()).await);
    assert_eq!(ok(agent.publish(&token, &id).await)["status"], "published");

    let proof = json!({"proof_text": "x", "reservation_id": reservation_id, "workflow_id": id});
    ok(agent.complete(WORKFLOW, proof).await);
    let late = agent.create(&token, &definition()).await;
    assert_refused(&late, 403, "WORKFLOW_TOKEN_INVALID");
}

#[tokio::test]
async fn a_workflow_job_takes_no_draft_and_no_foreign_workflow() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (reservation_id, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    let complete = async |workflow: Value| {
        let proof =
            json!({"proof_text": "x", "reservation_id": reservation_id, "workflow_id": workflow});
        agent.complete(WORKFLOW, proof).await
    };
    assert_fields(&complete(Value::Null).await, &[json!(["body", "workflow_id"])]);
    assert_refused(&complete(json!("elsewhere")).await, 409, "WORKFLOW_MISMATCH");
    assert_refused(&complete(json!(id)).await, 409, "WORKFLOW_NOT_PUBLISHED");

    ok(agent.publish(&token, &id).await);
    ok(agent.workflow(Method::PUT, &id, &token, &definition()).await);
    assert_refused(&complete(json!(id)).await, 409, "WORKFLOW_NOT_PUBLISHED");
}

#[tokio::test]
async fn a_workflow_call_needs_the_token_of_its_job() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let refused = upstream.post(&format!("/jobs/{WORKFLOW}/workflow/create"), &definition()).await;
    assert_refused(&refused, 401, "WORKFLOW_TOKEN_MISSING");
    let bare = token.strip_prefix("Bearer ").unwrap();
    let refused = agent.create(bare, &definition()).await;
    assert_refused(&refused, 401, "WORKFLOW_TOKEN_MISSING");
    let refused = agent.create("Bearer other", &definition()).await;
    assert_refused(&refused, 403, "WORKFLOW_TOKEN_INVALID");

    ok(upstream.agent(2).await.reserve(OTHER_WORKFLOW).await);
    for job in [GENERAL, OTHER_WORKFLOW] {
        let path = format!("/jobs/{job}/workflow/create");
        let body = definition().to_string();
        let refused = upstream.send(Method::POST, &path, Some(&token), body).await;
        assert_refused(&refused, 403, "WORKFLOW_TOKEN_INVALID");
    }
}

#[tokio::test]
async fn an_unknown_workflow_is_not_found() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    assert_refused(&agent.publish(&token, "none").await, 404, "WORKFLOW_NOT_FOUND");
    let refused = agent.workflow(Method::PUT, "none", &token, &definition()).await;
    assert_refused(&refused, 404, "WORKFLOW_NOT_FOUND");
}

#[tokio::test]
async fn a_workflow_must_be_whole_and_its_edges_must_meet_nodes() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    let cases = [
        (json!({"name": null}), json!(["body", "name"])),
        (json!({"description": ""}), json!(["body", "description"])),
        (json!({"edges": {}}), json!(["body", "edges"])),
        (json!({"nodes": "read"}), json!(["body", "nodes"])),
        (json!({"nodes": [], "edges": []}), json!(["body", "nodes"])),
        (json!({"edges": [{"id": "e1", "to": "read"}]}), json!(["body", "edges", 0, "from"])),
        (
            json!({"edges": [{"id": "e1", "from": "read", "to": "gone"}]}),
            json!(["body", "edges", 0, "to"]),
        ),
        (json!({"edges": [{"from": "read", "to": "file"}]}), json!(["body", "edges", 0, "id"])),
    ];
    for (change, place) in cases {
        let mut body = definition();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        for (method, path) in [(Method::POST, "create"), (Method::PUT, id.as_str())] {
            let refused = agent.workflow(method, path, &token, &body).await;
            assert_fields(&refused, slice::from_ref(&place));
        }
    }
}

#[tokio::test]
async fn a_node_has_the_settings_of_its_type() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let cases = [
        (json!({"id": 1}), json!(["id"])),
        (json!({"label": ""}), json!(["label"])),
        (json!({"type": "magic"}), json!(["type"])),
        (json!({"type": "prompt"}), json!(["prompt"])),
        (json!({"tool": {"product_id": "p"}}), json!(["tool", "product_name"])),
        (json!({"tool": {"product_name": "P"}}), json!(["tool", "product_id"])),
        (
            json!({"tool": {"product_id": "p", "product_name": "P", "parameters": {}}}),
            json!(["tool", "parameters"]),
        ),
    ];
    for (change, place) in cases {
        let mut body = definition();
        body["edges"] = json!([]);
        body["nodes"][0].as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let place = [json!(["body", "nodes", 0]), place].map(|p| p.as_array().unwrap().clone());
        assert_fields(&agent.create(&token, &body).await, &[json!(place.concat())]);
    }
}

#[tokio::test]
async fn nodes_have_ids_of_their_own_and_edges_lead_in_no_circle() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let create = async |ids: &[&str], edges: &[(&str, &str)]| {
        let mut body = definition();
        body["nodes"] = ids.iter().map(|id| node(id)).collect();
        let edges = edges.iter().map(|(from, to)| json!({"id": "e", "from": from, "to": to}));
        body["edges"] = edges.collect();
        agent.create(&token, &body).await
    };
    let forked = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")];
    ok(create(&["a", "b", "c", "d"], &forked).await);
    let circle = [("a", "b"), ("b", "c"), ("c", "b")];
    assert_fields(&create(&["a", "b", "c"], &circle).await, &[json!(["body", "edges"])]);
    assert_fields(&create(&["a"], &[("a", "a")]).await, &[json!(["body", "edges"])]);
    assert_fields(&create(&["a", "a"], &[]).await, &[json!(["body", "nodes", 1, "id"])]);
}

#[tokio::test]
async fn a_workflow_is_changed_in_part_and_published_with_a_tool() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let id = agent.draft(&token).await;
    let update = async |change| agent.workflow(Method::PUT, &id, &token, &change).await;
    assert_eq!(ok(update(json!({"name": "Mail"})).await)["name"], "Mail");
    // The edges that are there lead to nodes that would be gone.
    let fewer = json!([{"id": "file", "type": "prompt", "label": "File", "prompt": {}}]);
    let refused = update(json!({"nodes": fewer})).await;
    assert_fields(&refused, &[json!(["body", "edges", 0, "from"])]);
    ok(update(json!({"nodes": fewer, "edges": []})).await);
    assert_refused(&agent.publish(&token, &id).await, 409, "WORKFLOW_NEEDS_TOOL");
    ok(update(json!({"nodes": [node("read")]})).await);
    ok(agent.publish(&token, &id).await);
}
