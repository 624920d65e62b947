//! Answers that say something else than the API would, or too much.

use super::*;

#[tokio::test]
async fn a_token_is_withheld_from_the_answer_to_every_call_whatever_its_status() {
    const TOKEN: &str = "aaaabbbbccccddddeeee";
    for status in [200, 402, 409] {
        for body in [
            format!(r#"{{"workflow_access":{{"access_token":"{TOKEN}"}}}}"#),
            format!(r#"{{"job":{{"accessToken":"{TOKEN}"}}}}"#),
            format!(r#"{{"data":"{{\"access_token\":\"{TOKEN}\"}}"}}"#),
            format!(r#"{{"access\u005ftoken":"{TOKEN}",NaN}}"#),
        ] {
            let given = body.clone();
            let answer =
                move || (StatusCode::from_u16(status).unwrap(), given.clone()).into_response();
            let proxy = proxy_before(answer).await;
            for call in
                ["list", &format!("{GENERAL_JOB}/status"), &format!("{GENERAL_JOB}/reserve")]
            {
                let answered = proxy.post(&format!("/jobs/{call}"), "").await;
                assert_eq!(answered.status().as_u16(), status, "{call} {body}");
                let text = answered.text().await.unwrap();
                assert!(!text.contains(TOKEN) && text.contains("held-by-proxy"), "{call}: {text}");
            }
        }
    }
}

#[tokio::test]
async fn an_answer_that_breaks_off_must_be_checked_if_it_was_a_change() {
    let broken = || {
        let body =
            futures_util::stream::iter([Ok("{\"jobs\":"), Err(std::io::Error::other("cut"))]);
        Body::from_stream(body).into_response()
    };
    let [read, change] = problems(&proxy_before(broken).await).await;
    assert_eq!((&read["code"], &read["retry"]), (&"upstream_broke_off".into(), &"safe".into()));
    assert_eq!(change["code"], "outcome_unknown");
    assert_eq!(change["retry"], "check_first");
}

#[tokio::test]
async fn an_answer_of_20_mib_is_refused_and_one_of_8_mib_is_passed_on() {
    let large = |size: usize| move || "x".repeat(size << 20).into_response();
    let in_parts = || {
        let parts = (0..20).map(|_| Ok::<_, std::io::Error>("x".repeat(1 << 20)));
        Body::from_stream(futures_util::stream::iter(parts)).into_response()
    };
    let endless = || {
        let body = Body::from_stream(futures_util::stream::pending::<std::io::Result<String>>());
        ([("content-length", (20 << 20).to_string())], body).into_response()
    };
    let proxies =
        [proxy_before(large(20)).await, proxy_before(in_parts).await, proxy_before(endless).await];
    for proxy in proxies {
        let [read, change] = problems(&proxy).await;
        assert_eq!((&read["code"], &read["retry"]), (&"answer_too_large".into(), &"safe".into()));
        assert_eq!(change["retry"], "check_first");
    }
    let proxy = proxy_before(large(8)).await;
    assert_eq!(proxy.post("/jobs/list", "").await.bytes().await.unwrap().len(), 8 << 20);
}

#[tokio::test]
async fn a_redirect_is_not_followed_and_names_the_setting() {
    let elsewhere = TestProxy::start().await;
    let target = elsewhere.url("/secret?nonce=1");
    for status in [301, 302, 307, 308] {
        let (target, status) = (target.clone(), StatusCode::from_u16(status).unwrap());
        let redirect = move || (status, [("location", target.clone())]).into_response();
        // Of a call, and of the session that comes first.
        let sandbox = Sandbox::new(Settings::default());
        let all = redirect.clone();
        let upstream = serve(Router::new().fallback(move || async move { all() })).await;
        let session = TestProxy::in_front_of(sandbox, upstream, short).await;
        let [read, change] = problems(&proxy_before(redirect).await).await;
        // To a change, the older two may also say that it was made.
        let is_moved = [307, 308].contains(&status.as_u16());
        let code = if is_moved { "upstream_moved" } else { "upstream_foreign" };
        assert_eq!((&change["code"], &change["retry"]), (&code.into(), &"never".into()));
        let detail = change["detail"].as_str().unwrap();
        assert_eq!(detail.contains("had no effect"), is_moved, "{detail}");
        assert!(detail.contains(status.as_str()) && !detail.contains("secret"), "{detail}");
        for problem in problems(&session).await.into_iter().chain([read]) {
            let told = (&problem["code"], &problem["retry"], &problem["status"]);
            assert_eq!(told, (&"upstream_moved".into(), &"never".into(), &502.into()));
            let detail = problem["detail"].as_str().unwrap();
            assert!(
                detail.contains(status.as_str()) && detail.contains("upstream.url"),
                "{detail}"
            );
            assert!(detail.contains(&elsewhere.url("")) && !detail.contains("secret"), "{detail}");
        }
    }
    assert_eq!(elsewhere.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn an_upstream_that_knows_no_sessions_is_not_asked_again() {
    let cases =
        [(200, "<html>"), (303, ""), (303, "<html>"), (404, "<html>"), (403, "\n<!DOCTYPE")];
    let foreign = cases.map(|(status, body)| (status, body, "upstream_foreign"));
    let refused = [400, 403, 404, 405, 409].map(|status| (status, "{}", "session_failed"));
    for (status, body, code) in foreign.into_iter().chain(refused) {
        let page = move || async move { (StatusCode::from_u16(status).unwrap(), body) };
        let upstream = serve(Router::new().fallback(page)).await;
        let sandbox = Sandbox::new(Settings::default());
        let proxy = TestProxy::in_front_of(sandbox, upstream, short).await;
        for problem in problems(&proxy).await {
            let told = (&problem["code"], &problem["retry"]);
            assert_eq!(told, (&code.into(), &"never".into()), "{status} {body}");
            assert!(problem["detail"].as_str().unwrap().contains("upstream.url"), "{problem}");
        }
    }
}

#[tokio::test]
async fn an_upstream_that_is_another_proxy_is_told_and_not_asked_again() {
    let other = TestProxy::start().await;
    let sandbox = Sandbox::new(Settings::default());
    let other_key = |options: &mut Options| options.key = "43".repeat(32);
    let proxy = TestProxy::in_front_of(sandbox, other.address, other_key).await;
    for problem in problems(&proxy).await {
        let told = (&problem["code"], &problem["retry"]);
        assert_eq!(told, (&"session_failed".into(), &"never".into()), "{problem}");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("409") && detail.contains("check that upstream.url is"),
            "{detail}"
        );
        assert!(detail.ends_with("it looks like another agentpmt-proxy"), "{detail}");
    }
    assert_eq!(other.sandbox.counts().requests, 0);
}

#[tokio::test]
async fn an_answer_that_is_not_the_apis_is_named_with_the_setting() {
    let answering = async |status: u16, body: &'static str| {
        let answer = move || (StatusCode::from_u16(status).unwrap(), body).into_response();
        proxy_before(answer).await
    };
    let is_foreign = |problem: &Value| {
        let told = (&problem["code"], &problem["retry"], &problem["status"]);
        assert_eq!(told, (&"upstream_foreign".into(), &"never".into(), &502.into()), "{problem}");
        assert!(problem["detail"].as_str().unwrap().contains("upstream.url"), "{problem}");
    };
    for (status, body) in [(200, "<html>"), (404, " <!DOCTYPE html>"), (403, "<html>")] {
        let proxy = answering(status, body).await;
        is_foreign(&problem(proxy.post("/jobs/list", "").await).await);
    }
    // Not even JSON says whether the change was made.
    for status in [301, 302] {
        let proxy = answering(status, r#"{"message":"moved"}"#).await;
        is_foreign(&problems(&proxy).await[1]);
    }
    for (status, body) in [(300, ""), (303, ""), (303, "<html>"), (304, ""), (305, "moved")] {
        problems(&answering(status, body).await).await.iter().for_each(is_foreign);
    }
    // The API's own form is passed on.
    for (status, body) in [(303, r#"{"detail":"see other"}"#), (404, "{}"), (200, "[]")] {
        let response = answering(status, body).await.post("/jobs/list", "").await;
        assert_eq!(response.status().as_u16(), status);
        assert_eq!(response.text().await.unwrap(), body);
    }
}

#[tokio::test]
async fn only_harmless_headers_of_an_answer_are_passed_on() {
    let talkative = || {
        let headers = [
            ("set-cookie", "a=b"),
            ("access-control-allow-origin", "*"),
            ("strict-transport-security", "max-age=1"),
            ("server", "x"),
            ("x-request-id", "theirs"),
            ("retry-after", "7"),
            ("x-ratelimit-remaining", "3"),
            ("content-type", "application/json; charset=utf-8"),
        ];
        (StatusCode::TOO_MANY_REQUESTS, headers, "{}").into_response()
    };
    let response = proxy_before(talkative).await.post("/jobs/list", "").await;
    assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
    let mut names: Vec<_> = response.headers().keys().map(|name| name.as_str()).collect();
    names.sort_unstable();
    let expected = [
        "content-length",
        "content-type",
        "date",
        "retry-after",
        "x-ratelimit-remaining",
        "x-request-id",
    ];
    assert_eq!(names, expected);
    assert_ne!(response.headers()["x-request-id"], "theirs");
    assert_eq!(response.headers()["content-type"], "application/json; charset=utf-8");
}

#[tokio::test]
async fn a_page_in_place_of_an_answer_is_not_taken_for_success() {
    let struck = Arc::new(AtomicBool::new(false));
    // Something between the two answers in place of the upstream, once.
    let layer = from_fn(move |request: Request, next: Next| {
        let strikes = request.uri().path().ends_with("/complete") && !struck.swap(true, SeqCst);
        async move {
            if strikes {
                "<html>Please sign in</html>".into_response()
            } else {
                next.run(request).await
            }
        }
    });
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
    proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
    let complete = format!("/jobs/{GENERAL_JOB}/complete");
    proxy.ok(&complete, r#"{"proof_text":"done"}"#).await;
    assert_eq!(
        proxy.sandbox.accepted(GENERAL_JOB),
        1,
        "it was made again, since it had not been made"
    );
}

#[tokio::test]
async fn a_page_that_comes_after_the_upstream_has_acted_makes_no_change_twice() {
    let pages = [(503, "<html>Busy</html>"), (503, ""), (409, "<html>Conflict</html>")];
    for (status, page) in pages {
        let struck = Arc::new(AtomicBool::new(false));
        let layer = from_fn(move |request: Request, next: Next| {
            let strikes = request.uri().path().ends_with("/complete") && !struck.swap(true, SeqCst);
            async move {
                let answer = next.run(request).await;
                let status = StatusCode::from_u16(status).unwrap();
                if strikes {
                    (status, [("retry-after", "0")], page).into_response()
                } else {
                    answer
                }
            }
        });
        let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
        proxy.ok(&format!("/jobs/{GENERAL_JOB}/reserve"), "").await;
        let complete = format!("/jobs/{GENERAL_JOB}/complete");
        proxy.ok(&complete, r#"{"proof_text":"done"}"#).await;
        assert_eq!(proxy.sandbox.submissions(GENERAL_JOB), 1, "{status} {page:?}");
    }
}

#[tokio::test]
async fn an_answer_to_another_job_is_a_lost_answer() {
    let foreign = r#"{"job":{"job_id":"68f0a1c27b3e4d5f607182ff","reservation_id":"r-other",
        "job_instructions":"of another"},"workflow_access":{"access_token":"t-other"},
        "submission":{"status":"approved"},"has_active_reservation":true}"#;
    let strikes = Arc::new(AtomicUsize::new(0));
    let layer = {
        let strikes = strikes.clone();
        from_fn(move |request: Request, next: Next| {
            let about_a_job = !request.uri().path().ends_with("/auth/session");
            let strikes = about_a_job
                && strikes.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok();
            async move {
                let answer = next.run(request).await;
                if strikes { foreign.into_response() } else { answer }
            }
        })
    };
    let proxy = TestProxy::start_with(Settings::default(), |router| router.layer(layer)).await;
    let job = format!("/jobs/{GENERAL_JOB}");
    let held = async || {
        let held = proxy.client.get(proxy.url("/proxy/reservations")).send().await.unwrap();
        json(held).await["reservations"].to_string()
    };

    // A read is made again, also the one that finds out what became of a change.
    strikes.store(2, SeqCst);
    let reserve = proxy.post(&format!("{job}/reserve"), "").await.text().await.unwrap();
    for text in [reserve, held().await] {
        assert!(!text.contains("other"), "{text}");
    }
    assert_eq!(strikes.load(SeqCst), 0);
    strikes.store(1, SeqCst);
    let status = proxy.ok(&format!("{job}/status"), "").await;
    assert_eq!(
        (&status["job"]["job_id"], &status["has_active_reservation"]),
        (&GENERAL_JOB.into(), &true.into())
    );
    // That answer says nothing of the proof, which was refused for want of a reservation id.
    strikes.store(1, SeqCst);
    let complete = format!("{job}/complete");
    let refused = proxy.post(&complete, r#"{"proof_text":"done"}"#).await;
    assert!(refused.status().is_client_error(), "{}", refused.status());
    assert_eq!(proxy.sandbox.accepted(GENERAL_JOB), 0);
}
