//! Completions, of which each is its own key.

use super::*;

#[tokio::test]
async fn a_completion_that_is_known_to_be_done_is_a_success_with_what_was_seen() {
    let first = reserved().await;
    first.sandbox.inject("cut_after:job_complete:1".parse().unwrap());
    let response = complete(&first, "k").await;
    assert!(is_of_job_status(&response));
    let (answer, replayed) = good(response).await;
    assert!(answer.contains(r#""submission_id""#) && !replayed, "{answer}");
    let before = first.sandbox.counts().requests;
    let again = complete(&first, "k").await;
    assert!(is_of_job_status(&again));
    assert_eq!(good(again).await, (answer.clone(), true));
    assert_eq!(first.sandbox.counts().requests, before, "nothing was sent");
    let second = restarted(first).await;
    assert_eq!(good(complete(&second, "k").await).await, (answer, true));
    assert_eq!(second.sandbox.submissions(GENERAL_JOB), 1);
}

/// Brings every completion twice, and answers with what came of the second.
fn twice(router: Router) -> Router {
    router.layer(from_fn(|request: Request, next: Next| async {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, usize::MAX).await.unwrap();
        let copy = || Request::from_parts(head.clone(), Body::from(body.clone()));
        if head.uri.path().ends_with("/complete") {
            next.clone().run(copy()).await;
        }
        next.run(copy()).await
    }))
}

#[tokio::test]
async fn a_completion_that_comes_in_twice_on_its_way_is_not_made_once_more() {
    let proxy = TestProxy::start_with(Settings::default(), twice).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let answer = complete(&proxy, "k").await;
    assert!(is_of_job_status(&answer));
    good(answer).await;
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn a_completion_without_a_key_is_its_own() {
    let first = TestProxy::start().await;
    let reserved = first.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let id = reserved["job"]["reservation_id"].as_str().unwrap();
    let (answer, replayed) = good(complete_unkeyed(&first, PROOF).await).await;
    assert!(!replayed);
    let named = format!(r#"{{"reservation_id":"{id}","proof_text":"done"}}"#);
    let second = restarted(first).await;
    let before = second.sandbox.counts().requests;
    for body in [PROOF, named.as_str()] {
        assert_eq!(good(complete_unkeyed(&second, body).await).await, (answer.clone(), true));
    }
    assert_eq!(good(complete(&second, "any").await).await, (answer, true));
    let other = r#"{"proof_text":"other"}"#;
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    for refused in
        [complete_unkeyed(&second, other).await, send(&second, &path, "another", other).await]
    {
        assert_eq!(refused.status(), StatusCode::CONFLICT);
        assert_eq!(problem(refused).await["code"], "already_submitted");
    }
    assert_eq!(second.sandbox.counts().requests, before, "nothing was sent");
}

#[tokio::test]
async fn a_completion_that_was_surely_not_made_gives_way_to_another() {
    let proxy = reserved().await;
    proxy.sandbox.inject("cut_before:job_complete:1".parse().unwrap());
    proxy.sandbox.inject("status_500_before:job_status".parse().unwrap());
    let lost = problem(complete_unkeyed(&proxy, PROOF).await).await;
    assert_eq!((&lost["code"], &lost["processed"]), (&"outcome_unknown".into(), &().into()));
    proxy.sandbox.clear_faults();
    let other = r#"{"proof_text":"other"}"#;
    assert!(!good(complete_unkeyed(&proxy, other).await).await.1);
    assert!(good(complete_unkeyed(&proxy, other).await).await.1);
    assert_eq!(problem(complete_unkeyed(&proxy, PROOF).await).await["code"], "already_submitted");
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn a_completion_that_was_refused_may_be_sent_again_as_it_was_or_corrected() {
    let proxy = reserved().await;
    let path = format!("/jobs/{GENERAL_JOB}/complete");
    for submissions in 1..4 {
        let wrong = r#"{"proof_text":5}"#;
        let refused = match submissions {
            1 => send(&proxy, &path, "k", wrong).await,
            _ => complete_unkeyed(&proxy, wrong).await,
        };
        assert_eq!(refused.status(), StatusCode::UNPROCESSABLE_ENTITY);
        assert!(refused.headers().get("x-agentpmt-proxy-error").is_none());
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), submissions);
    }
    assert!(!good(complete(&proxy, "k").await).await.1);
}

#[tokio::test]
async fn a_job_that_is_reserved_again_may_be_completed_again() {
    // A job that was rejected is open again.
    let arrived = Arc::new(Semaphore::new(0));
    let counted = arrived.clone();
    let answer = move |uri: axum::http::Uri| async move {
        let path = uri.path();
        if path.ends_with("/auth/session") {
            return r#"{"session_nonce":"n"}"#.to_owned();
        }
        counted.add_permits(usize::from(path.ends_with("/complete")));
        format!(r#"{{"job":{{"reservation_id":"r-{}"}}}}"#, counted.available_permits())
    };
    let upstream = serve(Router::new().fallback(answer)).await;
    let sandbox = Sandbox::new(Settings::default());
    let proxy = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    for completions in 1..3 {
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        for replayed in [false, true] {
            assert_eq!(good(complete_unkeyed(&proxy, PROOF).await).await.1, replayed);
        }
        assert_eq!(arrived.available_permits(), completions);
    }
}

/// An upstream that rejects every proof at once, and shows that until the next. It names no reservation,
/// and of each job the answer to the second try to complete it is a 500, before anything was done.
fn rejecting(proofs: Arc<Mutex<Vec<String>>>) -> Router {
    let (tries, reserved) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    Router::new().fallback(move |request: Request| async move {
        let path = request.uri().path().to_owned();
        let answer = match path.rsplit('/').next().unwrap() {
            "session" => serde_json::json!({"session_nonce": "n"}),
            "reserve" => {
                reserved.store(true, SeqCst);
                serde_json::json!({"job": {"job_instructions": "do it"}})
            }
            "complete" if tries.fetch_add(1, SeqCst) == 1 => {
                return StatusCode::INTERNAL_SERVER_ERROR.into_response();
            }
            "complete" => {
                let body = to_bytes(request.into_body(), usize::MAX).await.unwrap();
                let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
                proofs.lock().unwrap().push(body["proof_text"].as_str().unwrap().to_owned());
                reserved.store(false, SeqCst);
                serde_json::json!({"submission": {"status": "submitted"}})
            }
            _ => {
                let is_reserved = reserved.load(SeqCst);
                let submission = (!proofs.lock().unwrap().is_empty())
                    .then_some(serde_json::json!({"status": "rejected"}));
                serde_json::json!({"submission": submission,
                    "has_active_reservation": is_reserved, "can_submit": is_reserved})
            }
        };
        answer.to_string().into_response()
    })
}

#[tokio::test]
async fn what_was_rejected_is_not_taken_for_what_is_completed_after_it() {
    let proofs = Arc::new(Mutex::new(Vec::new()));
    let upstream = serve(rejecting(proofs.clone())).await;
    let proxy = TestProxy::in_front_of(Sandbox::new(Settings::default()), upstream, |_| {}).await;
    let all = ["done", "done", "better"];
    for (before, proof) in all.iter().enumerate() {
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        let body = format!(r#"{{"proof_text":"{proof}"}}"#);
        for replayed in [false, true] {
            assert_eq!(good(complete_unkeyed(&proxy, &body).await).await.1, replayed);
            assert_eq!(*proofs.lock().unwrap(), all[..=before]);
        }
    }
}
