//! What a client may call, and that a reservation is of the client that made it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use agentpmt_proxy::{
    action::{ACTIONS, Action, Needs},
    policy::Client,
    sandbox::Settings,
    types::Address,
};
use axum::{
    Json,
    extract::Request,
    middleware::{Next, from_fn},
    response::IntoResponse,
};
use futures_util::future::{join, join_all};
use http::StatusCode;
use serde_json::json;
use tokio::{sync::Semaphore, time::timeout};

use crate::{
    agents::{Agent, PROOF, denials, may, records},
    common::{GENERAL_JOB, TestProxy, WORKFLOW, WORKFLOW_JOB, problem},
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn only_what_is_allowed_is_signed_and_the_rest_is_on_record() {
    let proxy = TestProxy::start().await;
    let reader = Agent::add(&proxy, &may("reader", "read"));
    let (mut before, mut denied) = (0, Vec::new());
    for action in ACTIONS {
        let response = reader.call(action, GENERAL_JOB).await;
        let requests = proxy.sandbox.counts().requests;
        if action.changes() {
            assert_eq!(response.status(), StatusCode::FORBIDDEN, "{action}");
            let problem = problem(response).await;
            assert_eq!(
                (&problem["code"], &problem["retry"]),
                (&"not_allowed".into(), &"never".into())
            );
            assert!(problem["detail"].as_str().unwrap().contains(action.name), "{problem}");
            assert_eq!(requests, before, "{action}");
            let product = action.id_names().next().map_or("-", |_| GENERAL_JOB);
            denied.push(["reader", action.name, product, "not_allowed"].map(str::to_owned));
        } else {
            // The sandbox has no workflow with the id of a job.
            let expected = [StatusCode::OK, StatusCode::NOT_FOUND];
            assert!(expected.contains(&response.status()) && requests > before, "{action}");
        }
        before = requests;
    }
    assert_eq!(denials(&proxy, ["client", "action", "product", "reason"]).await, denied);
    let signed = records(&proxy, "signed").await.len();
    assert_eq!(signed, ACTIONS.len() - denied.len());
    assert!(signed >= 2 && denied.len() >= 5);
}

#[tokio::test]
async fn every_action_can_be_the_only_one_that_is_allowed() {
    let proxy = TestProxy::start().await;
    // These words stand for more than the call of the name.
    let is_group = |action: &&Action| ["tools", "workflows"].contains(&action.name);
    for allowed in ACTIONS.iter().filter(|action| !is_group(action)) {
        let agent = Agent::add(&proxy, &may(allowed.name, allowed.name));
        for action in ACTIONS {
            // What is allowed may lack its reservation.
            let response = agent.call(action, "j1").await;
            let text = match response.status() {
                StatusCode::FORBIDDEN => problem(response).await["detail"].to_string(),
                _ => String::new(),
            };
            let is_denied = text.contains("may not call");
            assert_eq!(is_denied, action != allowed, "{action} with {allowed}: {text}");
        }
    }
}

#[tokio::test]
async fn a_client_that_is_bound_to_a_wallet_signs_with_no_other() {
    let proxy = TestProxy::start().await;
    let own = proxy.proxy.wallet_of(&Client::local());
    let bound = |name, wallet| Client { wallet: Some(wallet), ..may(name, "all") };
    let here = Agent::add(&proxy, &bound("here", own));
    let elsewhere = Agent::add(&proxy, &bound("elsewhere", Address::new([7; 20])));
    assert_eq!(elsewhere.refused("/jobs/list", "").await, (403, "not_allowed".to_owned()));
    assert_eq!(proxy.sandbox.counts().requests, 0);
    here.ok("/jobs/list", "").await;
    let denied = denials(&proxy, ["client", "action", "wallet"]).await;
    assert_eq!(denied, [["elsewhere", "job_list", &Address::new([7; 20]).to_string()]]);
}

/// Makes every call on a job, and returns the reasons on record for its denials.
async fn reasons(proxy: &TestProxy, agent: &Agent, job: &str) -> Vec<[String; 2]> {
    let earlier = records(proxy, "denied").await.len();
    let before = (proxy.sandbox.counts().requests, records(proxy, "signed").await.len());
    let on_a_job = ACTIONS.iter().filter(|action| action.needs != Needs::Nothing);
    let is_denied = async |action: &'static Action| {
        let problem = problem(agent.call(action, job).await).await;
        (&problem["status"], &problem["code"]) == (&409.into(), &"held_by_another".into())
    };
    for action in on_a_job {
        assert!(is_denied(action).await, "{action}");
    }
    let after = (proxy.sandbox.counts().requests, records(proxy, "signed").await.len());
    assert_eq!(after, before, "nothing was signed or sent");
    denials(proxy, ["action", "reason"]).await.split_off(earlier)
}

#[tokio::test]
async fn nobody_but_its_client_and_an_admin_may_use_a_reservation() {
    let proxy = TestProxy::start().await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    let admin = Agent::add(&proxy, &Client { admin: true, ..may("admin", "jobs") });
    one.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;

    let denied = reasons(&proxy, &other, WORKFLOW_JOB).await;
    assert_eq!(denied.len(), 6);
    assert!(denied.iter().all(|[_, reason]| reason == "held_by_another"), "{denied:?}");
    assert!(other.held().await.is_empty());
    assert_eq!(
        (one.held().await, admin.held().await),
        (vec![WORKFLOW_JOB.to_owned()], vec![WORKFLOW_JOB.to_owned()])
    );

    one.ok(&format!("/jobs/{WORKFLOW_JOB}/status"), "").await;
    admin.ok(&format!("/jobs/{WORKFLOW_JOB}/status"), "").await;
    let draft = one.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
    let id = draft["workflow_id"].as_str().unwrap();
    admin.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/{id}/publish"), "{}").await;
    let proof = format!(r#"{{"proof_text":"done","workflow_id":"{id}"}}"#);
    admin.ok(&format!("/jobs/{WORKFLOW_JOB}/complete"), &proof).await;
    assert_eq!(proxy.sandbox.accepted(WORKFLOW_JOB), 1);
    assert!(one.held().await.is_empty());
}

#[tokio::test]
async fn what_needs_a_reservation_is_denied_to_who_has_none() {
    let proxy = TestProxy::start().await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    for path in ["complete", "workflow/create", "workflow/w1/publish"] {
        let refused = agent.refused(&format!("/jobs/{WORKFLOW_JOB}/{path}"), PROOF).await;
        assert_eq!(refused, (409, "not_reserved".to_owned()), "{path}");
    }
    let denied = denials(&proxy, ["reason"]).await;
    assert_eq!(denied, [["not_reserved"]; 3]);
    assert_eq!(proxy.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn a_job_that_was_reserved_before_there_were_clients_is_an_admins() {
    let proxy = TestProxy::start().await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let agent = Agent::add(&proxy, &may("ci", "jobs"));
    let denied = reasons(&proxy, &agent, GENERAL_JOB).await;
    assert!(denied.iter().all(|[_, reason]| reason == "held_by_another"), "{denied:?}");
    let admin = Agent::add(&proxy, &Client { admin: true, ..may("admin", "jobs") });
    assert_eq!(admin.complete(GENERAL_JOB, "k").await.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_stored_answer_is_of_one_client_and_outlives_its_reservation() {
    let proxy = TestProxy::start().await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    one.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let first = one.complete(GENERAL_JOB, "k").await;
    assert_eq!(first.status(), StatusCode::OK);
    let first = first.text().await.unwrap();
    assert!(one.held().await.is_empty());

    let again = one.complete(GENERAL_JOB, "k").await;
    assert_eq!(again.headers()["idempotency-replayed"], "true");
    assert_eq!(again.text().await.unwrap(), first);
    let others = other.complete(GENERAL_JOB, "k").await;
    assert!(others.headers().get("idempotency-replayed").is_none());
    assert_eq!(problem(others).await["code"], "held_by_another");
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
    // What was denied did not use up the key.
    other.ok("/jobs/list", "").await;
    assert_eq!(
        other.post_with("idempotency-key", "k", "/jobs/j1/reserve", "").await.status(),
        StatusCode::NOT_FOUND
    );
}

#[tokio::test]
async fn a_submitted_job_is_still_its_clients() {
    for fault in [None, Some("cut_after:job_complete:1")] {
        let proxy = TestProxy::start().await;
        let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
        let admin = Agent::add(&proxy, &Client { admin: true, ..may("admin", "jobs") });
        one.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        one.ok(&format!("/jobs/{WORKFLOW_JOB}/reserve"), "").await;
        fault.into_iter().for_each(|fault| proxy.sandbox.inject(fault.parse().unwrap()));
        one.complete(GENERAL_JOB, "k").await;
        assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 1, "{fault:?}");
        let draft = one.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/create"), WORKFLOW).await;
        let id = draft["workflow_id"].as_str().unwrap();
        one.ok(&format!("/jobs/{WORKFLOW_JOB}/workflow/{id}/publish"), "{}").await;
        // Whose job it is does not depend on who completes it.
        let proof = format!(r#"{{"proof_text":"done","workflow_id":"{id}"}}"#);
        admin.ok(&format!("/jobs/{WORKFLOW_JOB}/complete"), &proof).await;

        let another = r#"{"proof_text":"another"}"#;
        let before = proxy.sandbox.counts().requests;
        for job in [GENERAL_JOB, WORKFLOW_JOB] {
            for path in ["status", "complete", "workflow/create"] {
                let refused = other.refused(&format!("/jobs/{job}/{path}"), PROOF).await;
                assert_eq!(refused, (409, "held_by_another".to_owned()), "{fault:?} {path}");
            }
            for agent in [&one, &admin] {
                for path in ["complete", "workflow/create", "workflow/w1/publish"] {
                    let refused = agent.refused(&format!("/jobs/{job}/{path}"), another).await;
                    assert_eq!(refused, (409, "already_submitted".to_owned()), "{fault:?} {path}");
                }
            }
        }
        assert_eq!(proxy.sandbox.counts().requests, before, "nothing was sent");
        for agent in [&one, &admin] {
            let seen = agent.ok(&format!("/jobs/{GENERAL_JOB}/status"), "").await;
            assert!(seen["submission"]["status"].is_string(), "{seen}");
            assert!(agent.held().await.is_empty(), "it is held no more");
        }
        // Whether it is open again the upstream knows; a refusal leaves it whose it is.
        let reserve = other.reserve(GENERAL_JOB).await;
        assert!(!reserve.headers().contains_key("x-agentpmt-proxy-error"));
        assert_eq!(reserve.status(), StatusCode::CONFLICT);
        let refused = other.refused(&format!("/jobs/{GENERAL_JOB}/status"), "").await;
        assert_eq!(refused, (409, "held_by_another".to_owned()));
    }
}

/// Answers every call on a job as an upstream does to which the case of an id does not matter.
async fn takes_ids_in_either_case() -> TestProxy {
    let layer = from_fn(|request: Request, next: Next| async move {
        let path = request.uri().path().to_owned();
        let mut parts = path.split('/').skip_while(|part| *part != "jobs").skip(1);
        let Some((job, word)) = parts.next().zip(parts.next()) else {
            return next.run(request).await;
        };
        let job = job.to_ascii_lowercase();
        let answer = match word {
            "reserve" => json!({
                "job": {"job_id": job, "reservation_id": "r-1"},
                "workflow_access": {"access_token": "token-of-the-job"},
            }),
            _ => json!({"job": {"job_id": job}}),
        };
        Json(answer).into_response()
    });
    TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await
}

#[tokio::test]
async fn a_job_is_its_clients_however_its_id_is_spelled() {
    let proxy = takes_ids_in_either_case().await;
    let one = Agent::add(&proxy, &Client { max_reservations: Some(1), ..may("one", "jobs") });
    let other = Agent::add(&proxy, &may("other", "jobs"));
    let lower = GENERAL_JOB.to_owned();
    let (upper, mixed) = (lower.to_uppercase(), lower.replacen('f', "F", 1));
    assert!(lower != upper && upper != mixed && mixed != lower);
    let refused = async |words: &[&str]| {
        for (job, word) in [&lower, &upper, &mixed]
            .into_iter()
            .flat_map(|job| words.iter().map(move |word| (job, word)))
        {
            let refused = other.refused(&format!("/jobs/{job}/{word}"), PROOF).await;
            assert_eq!(refused, (409, "held_by_another".to_owned()), "{job} {word}");
        }
    };
    one.ok(&format!("/jobs/{upper}/reserve"), "").await;
    assert_eq!(one.held().await, [lower.as_str()], "as the upstream spells it");
    refused(&["reserve", "status", "complete", "workflow/create"]).await;
    // It is one job, which is held once, with one token and one reservation.
    one.ok(&format!("/jobs/{mixed}/reserve"), "").await;
    assert_eq!(one.held().await.len(), 1);
    one.ok(&format!("/jobs/{mixed}/workflow/create"), WORKFLOW).await;
    one.ok(&format!("/jobs/{mixed}/complete"), PROOF).await;
    assert!(one.held().await.is_empty());
    refused(&["status", "complete"]).await;
    for job in [&lower, &upper] {
        let path = format!("/jobs/{job}/complete");
        let again = one.post(&path, PROOF).await;
        assert_eq!(again.headers()["idempotency-replayed"], "true", "{job}");
        let refused = one.refused(&path, r#"{"proof_text":"another"}"#).await;
        assert_eq!(refused, (409, "already_submitted".to_owned()), "{job}");
    }
    // What is encoded is decoded once, and nothing else is an id.
    for (spelling, refused) in [
        (lower.replacen("68", "%36%38", 1), (409, "held_by_another")),
        (lower.replacen('f', "%46", 1), (409, "held_by_another")),
        (lower.replacen("68", "%2536%2538", 1), (400, "invalid_id")),
        (format!("{lower}%20"), (400, "invalid_id")),
        (format!("{lower}%E2%80%8B"), (400, "invalid_id")),
        (lower.replacen('6', "%EF%BC%96", 1), (400, "invalid_id")),
    ] {
        let (status, code) = other.refused(&format!("/jobs/{spelling}/status"), "").await;
        assert_eq!((status, code.as_str()), refused, "{spelling}");
    }
}

#[tokio::test]
async fn a_status_that_was_asked_for_before_another_client_submitted_is_not_told() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let proxy = holds_up_status(&arrived, &gate).await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    let path = format!("/jobs/{GENERAL_JOB}/status");
    let work = async {
        arrived.acquire().await.unwrap().forget();
        assert!(one.reserve(GENERAL_JOB).await.status().is_success());
        assert!(one.complete(GENERAL_JOB, "k").await.status().is_success());
        gate.add_permits(1);
    };
    let (answer, ()) = timeout(LONG, join(other.post(&path, ""), work)).await.unwrap();
    assert_eq!(problem(answer).await["code"], "held_by_another");
}

#[tokio::test]
async fn of_two_clients_that_reserve_a_job_at_once_one_is_sent() {
    let (arrived, gate) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let layer = {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        from_fn(move |request: Request, next: Next| {
            let (arrived, gate) = (arrived.clone(), gate.clone());
            async move {
                if request.uri().path().ends_with("/reserve") {
                    arrived.fetch_add(1, SeqCst);
                    gate.acquire().await.unwrap().forget();
                }
                next.run(request).await
            }
        })
    };
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
    let agents: Vec<_> =
        (0..8).map(|n| Agent::add(&proxy, &may(&format!("agent-{n}"), "jobs"))).collect();
    let open_when_all_others_are_refused = async {
        while denials(&proxy, ["client"]).await.len() < 7 {}
        gate.add_permits(8);
    };
    let reserves = join_all(agents.iter().map(|agent| agent.reserve(GENERAL_JOB)));
    let both = join(reserves, open_when_all_others_are_refused);
    let (answers, ()) = timeout(LONG, both).await.expect("all but one are refused");
    let good = answers.iter().filter(|answer| answer.status() == StatusCode::OK).count();
    assert_eq!((good, arrived.load(SeqCst)), (1, 1));
    let denied = denials(&proxy, ["reason"]).await;
    assert!(denied.iter().all(|[reason]| reason == "held_by_another"), "{denied:?}");
}

/// A proxy whose upstream takes a permit for each status that it answers.
async fn holds_up_status(arrived: &Arc<Semaphore>, gate: &Arc<Semaphore>) -> TestProxy {
    let (arrived, gate) = (arrived.clone(), gate.clone());
    let layer = from_fn(move |request: Request, next: Next| {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        async move {
            if request.uri().path().ends_with("/status") {
                arrived.add_permits(1);
                gate.acquire().await.unwrap().forget();
            }
            next.run(request).await
        }
    });
    TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await
}

#[tokio::test]
async fn a_status_that_was_asked_for_before_another_client_reserved_is_not_told() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let proxy = holds_up_status(&arrived, &gate).await;
    let [one, other] = ["one", "other"].map(|name| Agent::add(&proxy, &may(name, "jobs")));
    let path = format!("/jobs/{GENERAL_JOB}/status");
    let reserve = async {
        arrived.acquire().await.unwrap().forget();
        assert!(one.reserve(GENERAL_JOB).await.status().is_success());
        gate.add_permits(1);
    };
    let (answer, ()) = timeout(LONG, join(other.post(&path, ""), reserve)).await.unwrap();
    let problem = problem(answer).await;
    assert_eq!((&problem["status"], &problem["code"]), (&409.into(), &"held_by_another".into()));
    assert_eq!(denials(&proxy, ["client", "reason"]).await, [["other", "held_by_another"]]);
}
