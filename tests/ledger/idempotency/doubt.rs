//! Changes whose answer was lost, also when the process that made them has died.

use super::*;

#[tokio::test]
async fn a_lost_answer_is_asked_for_again_and_the_call_is_never_made_twice() {
    for (cut, processed) in [("cut_after", true), ("cut_before", false)] {
        let proxy = reserved().await;
        proxy.sandbox.inject(format!("{cut}:job_complete:1").parse().unwrap());
        proxy.sandbox.inject("status_500_before:job_status".parse().unwrap());
        let lost = problem(complete(&proxy, "k").await).await;
        assert_eq!(lost["code"], "outcome_unknown", "{cut}");
        assert!(lost["processed"].is_null());
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), u64::from(processed));

        proxy.sandbox.clear_faults();
        for _ in 0..2 {
            let again = complete(&proxy, "k").await;
            assert_eq!(is_of_job_status(&again), processed);
            good(again).await;
            assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1, "{cut}");
        }
    }
}

#[tokio::test]
async fn while_the_upstream_may_still_be_at_work_a_change_is_not_made_again() {
    let (proxy, gate) = in_front_of_late(StatusCode::BAD_GATEWAY, |options| {
        options.upstream.settle_time = Duration::from_secs(20);
    })
    .await;
    let before = proxy.sandbox.counts().requests;
    let open_after_some_looks = async {
        while proxy.sandbox.counts().requests < before + 4 {
            yield_now().await;
        }
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 0);
        gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(complete(&proxy, "k"), open_after_some_looks);
    assert!(is_of_job_status(&answer));
    good(answer).await;
    assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1);
}

/// Another proxy on the store of the first, with the same sandbox.
async fn beside(first: &TestProxy, upstream: SocketAddr, change_timeout: u64) -> TestProxy {
    TestProxy::in_front_of(first.sandbox.clone(), upstream, |options| {
        options.folder = first.folder();
        options.upstream.change_timeout = Duration::from_secs(change_timeout);
    })
    .await
}

#[tokio::test]
async fn a_second_process_on_the_same_store_waits_for_the_first_and_never_calls_it_safe() {
    let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve(held_up(sandbox.router(), arrived.clone(), gate.clone())).await;
    let first = TestProxy::in_front_of(sandbox, upstream, |_| {}).await;
    first.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let (patient, impatient) =
        (beside(&first, upstream, 30).await, beside(&first, upstream, 1).await);
    let others = async {
        arrived.acquire().await.unwrap().forget();
        let told = problem(complete(&impatient, "k").await).await;
        assert_eq!(told["code"], "idempotency_key_in_use");
        assert_eq!(told["retry"], "check_first", "the first may submit it yet");
        let release = async { gate.add_permits(1) };
        tokio::join!(complete(&patient, "k"), release).0
    };
    let (first_answer, second_answer) = tokio::join!(complete(&first, "k"), others);
    let (given, _) = good(first_answer).await;
    assert_eq!(good(second_answer).await, (given, true));
    assert_eq!(first.sandbox.submissions(GENERAL_JOB), 1);
}

/// Has a proxy send a completion, and die as soon as the upstream has it. It thinks
/// that no upstream works on after it has sent.
async fn dies_after_sending(
    sandbox: Sandbox,
    upstream: SocketAddr,
    arrived: &Semaphore,
    key: Option<&'static str>,
) -> Folder {
    let runtime = Runtime::new().unwrap();
    let (told, folder) = oneshot::channel();
    runtime.spawn(async move {
        let hasty = |options: &mut Options| options.upstream.settle_time = Duration::ZERO;
        let proxy = TestProxy::in_front_of(sandbox, upstream, hasty).await;
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        told.send(proxy.folder()).unwrap();
        match key {
            Some(key) => complete(&proxy, key).await,
            None => complete_unkeyed(&proxy, PROOF).await,
        }
    });
    let folder = folder.await.unwrap();
    arrived.acquire().await.unwrap().forget();
    spawn_blocking(move || drop(runtime)).await.unwrap();
    folder
}

/// A proxy that takes over from one that died after it had sent a completion, which the upstream holds
/// up.
struct TakenOver {
    proxy: TestProxy,
    arrived: Arc<Semaphore>,
    gate: Arc<Semaphore>,
}

impl TakenOver {
    async fn after_sending(key: Option<&'static str>) -> Self {
        let (arrived, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let sandbox = Sandbox::new(Settings::default());
        let upstream = serve(held_up(sandbox.router(), arrived.clone(), gate.clone())).await;
        let folder = dies_after_sending(sandbox.clone(), upstream, &arrived, key).await;
        let proxy = TestProxy::in_front_of(sandbox, upstream, |options| {
            options.folder = folder;
            options.upstream.settle_time = Duration::from_secs(20);
        });
        Self { proxy: proxy.await, arrived, gate }
    }

    /// Lets the upstream go on once the proxy has looked some times, and has not sent it again.
    async fn open_after_some_looks(&self) {
        let before = self.proxy.sandbox.counts().requests;
        while self.proxy.sandbox.counts().requests < before + 4 {
            assert_eq!(self.arrived.available_permits(), 0, "it is not sent again");
            yield_now().await;
        }
        self.gate.add_permits(1);
    }
}

#[tokio::test]
async fn what_a_dead_process_has_sent_may_be_processed_long_after_it_was_sent() {
    let taken = TakenOver::after_sending(Some("k")).await;
    let second = &taken.proxy;
    let (answer, ()) = tokio::join!(complete(second, "k"), taken.open_after_some_looks());
    assert!(is_of_job_status(&answer));
    good(answer).await;
    assert_eq!(second.sandbox.submissions(GENERAL_JOB), 1);
}

#[tokio::test]
async fn how_long_a_silent_upstream_may_be_at_work_outlives_the_process() {
    let (proxy, gate) = in_front_of_late(StatusCode::GATEWAY_TIMEOUT, |options| {
        options.upstream.settle_time = Duration::ZERO;
        options.upstream.change_timeout = Duration::from_secs(30);
    })
    .await;
    let database = Connection::open(proxy.folder().path().join("proxy.db")).unwrap();
    let kept = || {
        let row =
            database.query_row("SELECT max(settles - claimed) FROM answers", [], |row| row.get(0));
        row.unwrap_or(Some(0)).unwrap_or(0)
    };
    let open_when_it_is_on_record = async {
        while kept() < 30_000 {
            yield_now().await;
        }
        gate.add_permits(1);
    };
    let both = join(complete(&proxy, "k"), open_when_it_is_on_record);
    let (answer, ()) = timeout(LONG, both).await.expect("it is on record while it is looked for");
    assert!(is_of_job_status(&answer));
}

#[tokio::test]
async fn a_completion_without_a_key_that_a_dead_process_has_sent_is_not_sent_again() {
    for body in [PROOF, r#"{"proof_text":"other"}"#] {
        let taken = TakenOver::after_sending(None).await;
        let second = &taken.proxy;
        let answered = join(complete_unkeyed(second, body), taken.open_after_some_looks());
        let (answer, ()) = answered.await;
        if body != PROOF {
            assert_eq!(problem(answer).await["code"], "already_submitted");
        }
        good(complete_unkeyed(second, PROOF).await).await;
        assert_eq!(second.sandbox.submissions(GENERAL_JOB), 1, "{body}");
    }
}

#[tokio::test]
async fn an_update_in_doubt_is_made_again_under_its_key_and_another_edit_is_not() {
    let proxy = TestProxy::start().await;
    let job = format!("/jobs/{WORKFLOW_JOB}");
    proxy.ok(&format!("{job}/reserve"), "").await;
    let created = proxy.ok(&format!("{job}/workflow/create"), WORKFLOW).await;
    let path = format!("{job}/workflow/{}", created["workflow_id"].as_str().unwrap());
    let update = async || {
        let url = proxy.url(&format!("/api/external{path}"));
        let request = proxy.client.put(url).header("idempotency-key", "update");
        request.body(WORKFLOW).send().await.unwrap()
    };
    let publish = async || send(&proxy, &format!("{path}/publish"), "publish", "").await;
    proxy.sandbox.inject("status_500_after:job_workflow_update:1".parse().unwrap());
    proxy.sandbox.inject("cut_after:job_workflow_publish:1".parse().unwrap());
    assert_eq!(problem(update().await).await["code"], "outcome_unknown");
    assert!(!good(update().await).await.1);
    assert!(good(update().await).await.1);
    for _ in 0..2 {
        let lost = problem(publish().await).await;
        assert_eq!(lost["code"], "outcome_unknown");
        let advice = lost["detail"].as_str().unwrap();
        assert!(advice.contains("a new Idempotency-Key") && !advice.contains("status"), "{advice}");
    }
    good(send(&proxy, &format!("{path}/publish"), "again", "").await).await;
}

/// Notes when a completion arrives, and processes it once the gate is open, even if nobody listens
/// any more.
fn held_up(router: Router, arrived: Arc<Semaphore>, gate: Arc<Semaphore>) -> Router {
    router.layer(from_fn(move |request: Request, next: Next| {
        let (arrived, gate) = (arrived.clone(), gate.clone());
        async move {
            if !request.uri().path().ends_with("/complete") {
                return next.run(request).await;
            }
            let (head, body) = request.into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            arrived.add_permits(1);
            let processed = tokio::spawn(async move {
                gate.acquire().await.unwrap().forget();
                next.run(Request::from_parts(head, Body::from(body))).await
            });
            processed.await.unwrap()
        }
    }))
}

#[tokio::test]
async fn who_asks_too_early_is_told_when_to_ask_again() {
    let (proxy, _shut) = in_front_of_late(StatusCode::BAD_GATEWAY, |options| {
        options.upstream.settle_time = Duration::from_secs(3600);
        options.upstream.change_timeout = Duration::from_secs(1);
    })
    .await;
    for _ in 0..2 {
        let response = complete(&proxy, "k").await;
        let wait: u64 = response.headers()["retry-after"].to_str().unwrap().parse().unwrap();
        assert!((3500..=3600).contains(&wait), "{wait}");
        let problem = problem(response).await;
        assert_eq!(
            (&problem["code"], &problem["processed"]),
            (&"outcome_unknown".into(), &().into())
        );
    }
}
