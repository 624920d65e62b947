//! Jobs from their list to their review.

use super::*;

#[tokio::test]
async fn a_general_job_goes_from_open_to_submitted() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    assert!(job_ids(&agent.list().await).contains(&GENERAL));

    let reservation = ok(agent.reserve(GENERAL).await);
    assert!(reservation["job"]["job_instructions"].is_string());
    assert_eq!(reservation["job"]["status"], "reserved");
    assert_eq!(reservation["workflow_access"], Value::Null);
    let status = agent.status(GENERAL).await;
    assert_eq!(
        (&status["has_active_reservation"], &status["can_submit"]),
        (&true.into(), &true.into())
    );
    assert_eq!(status["submission"], Value::Null);

    let proof = json!({
        "proof_text": "Three links lead nowhere",
        "reservation_id": reservation_id(&reservation),
        "social_posts": [{"url": "https://post.example/1", "likes": 3}],
    });
    let done = ok(agent.complete(GENERAL, proof).await);
    assert_eq!(done["job"], json!({"job_id": GENERAL, "status": "submitted"}));
    assert_eq!(done["submission"]["status"], "submitted");
    let status = agent.status(GENERAL).await;
    assert_eq!(status["has_active_reservation"], false);
    assert_eq!(status["submission"]["submission_id"], done["submission"]["submission_id"]);
    assert_eq!(upstream.sandbox.submissions(GENERAL), 1);
}

#[tokio::test]
async fn a_submission_turns_approved_and_pays() {
    let review = Duration::from_millis(50);
    let upstream = Upstream::with(Settings { review, ..Settings::default() }).await;
    let agent = upstream.agent(1).await;
    let reservation = ok(agent.reserve(GENERAL).await);
    let proof = json!({"proof_text": "done", "reservation_id": reservation_id(&reservation)});
    ok(agent.complete(GENERAL, proof).await);
    let status = until(async || {
        let status = agent.status(GENERAL).await;
        (status["submission"]["status"] == "approved").then_some(status)
    })
    .await;
    assert_eq!(status["job"]["status"], "approved");
    let credits = &reservation["job"]["reward_credits"];
    let (payout, wallet) = (&status["payout"], json!(agent.wallet.address()));
    assert_eq!((&payout["status"], &status["wallet_address"]), (&json!("completed"), &wallet));
    assert_eq!((&payout["reward_credits"], &payout["wallet_balance_credits"]), (credits, credits));
    assert!(payout["paid_at"].is_string());
    assert_refused(&agent.reserve(GENERAL).await, 409, "JOB_NOT_OPEN");
}

#[tokio::test]
async fn the_list_shows_open_jobs_by_page() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let all = agent.list().await;
    let ids = job_ids(&all);
    assert_eq!((ids.len(), &all["total"]), (15, &json!(15)));
    assert!(ids.iter().all(|id| id.len() == 24 && hex::decode(id).is_ok()));
    let jobs = all["jobs"].as_array().unwrap();
    for job_type in ["general", "workflow_creation", "social_share"] {
        assert!(jobs.iter().any(|job| job["job_type"] == job_type), "{job_type}");
    }
    assert!(jobs.iter().all(|job| job.get("job_instructions").is_none()));

    ok(upstream.agent(2).await.reserve(ids[0]).await);
    let page = ok(agent.call(Call::page(2, 13)).await);
    assert_eq!(job_ids(&page), [ids[14]]);
    assert_eq!([&page["limit"], &page["skip"], &page["total"]], [2, 13, 14]);
}

#[tokio::test]
async fn a_page_outside_its_limits_is_refused_by_field() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (limit, skip) = (json!(["body", "limit"]), json!(["body", "skip"]));
    let cases = [
        (json!({"limit": 0, "skip": 0}), vec![limit.clone()]),
        (json!({"limit": 101, "skip": 0}), vec![limit.clone()]),
        (json!({"limit": true, "skip": 0}), vec![limit.clone()]),
        (json!({"limit": "5", "skip": -1}), vec![limit.clone(), skip.clone()]),
        (json!({}), vec![limit, skip]),
    ];
    for (payload, places) in cases {
        assert_fields(&agent.call(Call::list(payload)).await, &places);
    }
    assert_eq!(job_ids(&ok(agent.call(Call::page(100, i64::MAX as u64)).await)), [""; 0]);
}

#[tokio::test]
async fn a_job_is_reserved_by_one_wallet() {
    let upstream = Upstream::start().await;
    let (first, second) = (upstream.agent(1).await, upstream.agent(2).await);
    let id = first.reserve_general().await;
    assert_refused(&first.reserve(GENERAL).await, 409, "JOB_ALREADY_RESERVED");
    assert_refused(&second.reserve(GENERAL).await, 409, "JOB_NOT_OPEN");
    assert!(!job_ids(&second.list().await).contains(&GENERAL));
    let own = first.list().await;
    assert_eq!((job_ids(&own)[0], &own["jobs"][0]["status"]), (GENERAL, &json!("reserved")));

    let seen = second.status(GENERAL).await;
    assert_eq!(seen["job"]["status"], "reserved");
    assert_eq!(seen["has_active_reservation"], false);
    let proof = json!({"proof_text": "mine", "reservation_id": id});
    assert_refused(&second.complete(GENERAL, proof).await, 409, "RESERVATION_NOT_ACTIVE");
}

#[tokio::test]
async fn an_unknown_job_is_not_found() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    for action in ["job_reserve", "job_status", "job_complete"] {
        let refused = agent.call(Call::job(action, "ffffffffffffffffffffffff", json!({}))).await;
        assert_refused(&refused, 404, "JOB_NOT_FOUND");
    }
}

#[tokio::test]
async fn a_reservation_that_ends_opens_its_job_again() {
    let reservation = Duration::from_millis(50);
    let upstream = Upstream::with(Settings { reservation, ..Settings::default() }).await;
    let agent = upstream.agent(1).await;
    let (old, token) = agent.reserve_workflow().await;
    until(async || {
        let list = agent.list().await;
        (list["jobs"][1]["status"] == "open").then_some(())
    })
    .await;

    let refused = agent.create(&token, &definition()).await;
    assert_refused(&refused, 403, "WORKFLOW_TOKEN_INVALID");
    let proof = json!({"proof_text": "late", "reservation_id": old, "workflow_id": "w1"});
    assert_refused(&agent.complete(WORKFLOW, proof).await, 409, "RESERVATION_NOT_ACTIVE");
    assert_eq!(agent.status(WORKFLOW).await["can_submit"], false);
    ok(upstream.agent(2).await.reserve(WORKFLOW).await);
}

#[tokio::test]
async fn a_proof_needs_its_fields() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let id = agent.reserve_general().await;
    let text = json!(["body", "proof_text"]);
    let both = [text.clone(), json!(["body", "reservation_id"])];
    assert_fields(&agent.complete(GENERAL, json!({})).await, &both);
    for wrong in [json!(""), json!("x".repeat(4001)), json!(["x"]), Value::Null] {
        let proof = json!({"proof_text": wrong, "reservation_id": id});
        assert_fields(&agent.complete(GENERAL, proof).await, slice::from_ref(&text));
    }
    let proof = json!({"proof_text": "x", "reservation_id": "another"});
    assert_refused(&agent.complete(GENERAL, proof).await, 409, "RESERVATION_MISMATCH");
    let longest = json!({"proof_text": "x".repeat(4000), "reservation_id": id});
    ok(agent.complete(GENERAL, longest).await);
}

#[tokio::test]
async fn a_proof_is_taken_once() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let proof = json!({"proof_text": "done", "reservation_id": agent.reserve_general().await});
    ok(agent.complete(GENERAL, proof.clone()).await);
    assert_refused(&agent.complete(GENERAL, proof).await, 409, "JOB_ALREADY_SUBMITTED");
    assert_refused(&agent.reserve(GENERAL).await, 409, "JOB_NOT_OPEN");
    assert_eq!(upstream.sandbox.submissions(GENERAL), 2);
    assert_eq!(upstream.sandbox.submissions(WORKFLOW), 0);
}

#[tokio::test]
async fn a_social_share_takes_exactly_one_post() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let reservation = ok(agent.reserve(SOCIAL).await);
    assert!(reservation["job"]["tracked_link"].as_str().unwrap().starts_with("https://"));
    let id = reservation_id(&reservation);
    let post = json!({"url": "https://post.example/1", "likes": null, "tags": ["a", {"b": null}]});
    let complete = async |posts: Value| {
        let proof = json!({"proof_text": "Posted", "reservation_id": id, "social_posts": posts});
        agent.complete(SOCIAL, proof).await
    };
    for posts in [json!(null), json!([]), json!([post, post]), json!(post), json!(["text"])] {
        assert_fields(&complete(posts).await, &[json!(["body", "social_posts"])]);
    }
    assert_eq!(ok(complete(json!([post])).await)["submission"]["proof_text"], "Posted");
}
