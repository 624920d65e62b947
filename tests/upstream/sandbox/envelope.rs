//! The envelope of a signed call, its session and its request id.

use super::*;

#[tokio::test]
async fn a_session_states_its_wallet_and_its_end() {
    let upstream = Upstream::start().await;
    let address = Wallet::new(1).address();
    let upper = format!("0x{}", address[2..].to_uppercase());
    let session = ok(upstream.post("/auth/session", &json!({"wallet_address": upper})).await);
    assert_eq!(session["wallet_address"], json!(address));
    assert_eq!(session["expires_in"], 900);
    let end: jiff::Timestamp = session["expires_at"].as_str().unwrap().parse().unwrap();
    assert!(end > jiff::Timestamp::now());

    for body in [json!({}), json!({"wallet_address": 5}), json!({"wallet_address": "0x12"})] {
        let refused = upstream.post("/auth/session", &body).await;
        assert_fields(&refused, &[json!(["body", "wallet_address"])]);
    }
}

#[tokio::test]
async fn fields_beside_a_fixed_payload_are_not_signed() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    for call in [Call::page(5, 0), Call::job("job_reserve", GENERAL, json!({}))] {
        let mut body = agent.body(&call, call.action);
        body["note"] = "not part of the payload".into();
        ok(upstream.post(&call.path, &body).await);
    }
}

#[tokio::test]
async fn text_outside_ascii_is_hashed_in_its_escaped_form() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let id = agent.reserve_general().await;
    let payload = json!({"proof_text": "grüß 😀", "reservation_id": id});
    let canonical =
        format!(r#"{{"proof_text":"gr\u00fc\u00df \ud83d\ude00","reservation_id":"{id}"}}"#);
    let call = Call::job("job_complete", GENERAL, payload);
    let message = agent.message_over(&call, "r1", &canonical);
    ok(upstream.post(&call.path, &agent.body_signed_over(&call, "r1", &message)).await);
}

#[tokio::test]
async fn an_incomplete_or_unreadable_envelope_is_malformed() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let good = agent.body(&Call::page(5, 0), "r1");
    for name in ["wallet_address", "session_nonce", "request_id", "signature"] {
        for value in [None, Some(json!(7)), Some(json!("")), Some(json!("a\nb"))] {
            let mut body = good.clone();
            match value {
                Some(value) => body[name] = value,
                None => drop(body.as_object_mut().unwrap().remove(name)),
            }
            let refused = upstream.post("/jobs/list", &body).await;
            assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_MALFORMED");
        }
    }
    ok(upstream.post("/jobs/list", &good).await);
}

#[tokio::test]
async fn only_a_low_s_with_v_27_or_28_is_a_signature() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let call = Call::page(5, 0);
    let (low, id) = agent.wallet.sign(&agent.message(&call, "r1"));
    let high = Signature::from_scalars(low.r().to_bytes(), (-*low.s()).to_bytes()).unwrap();
    let (good, parity) = (wire(&low, 27 + id.to_byte()), id.to_byte());
    let wrong = [
        wire(&low, parity),
        wire(&low, 29 + parity),
        wire(&high, 27 + (parity ^ 1)),
        format!("0x{}1b", "00".repeat(64)),
        format!("0x{}1b", "ff".repeat(64)),
        good[2..].to_owned(),
        good[..130].to_owned(),
    ];
    let mut body = agent.body(&call, "r1");
    for signature in wrong {
        body["signature"] = signature.into();
        let refused = upstream.post("/jobs/list", &body).await;
        assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_MALFORMED");
    }
    body["signature"] = good.into();
    ok(upstream.post("/jobs/list", &body).await);
}

#[tokio::test]
async fn a_signature_over_another_text_is_a_mismatch() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let reserve = || Call::job("job_reserve", GENERAL, json!({}));
    for call in [
        Call { action: "job_status", ..reserve() },
        Call { product: WORKFLOW, ..reserve() },
        Call { product: "-", ..reserve() },
    ] {
        let refused = agent.call(call).await;
        assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
    }
}

#[tokio::test]
async fn a_mismatch_shows_the_text_that_was_expected() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let mut body = agent.body(&Call::page(5, 0), "r1");
    body["limit"] = 6.into();
    let refused = upstream.post("/jobs/list", &body).await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
    let expected = agent.message(&Call::page(6, 0), "r1");
    assert_eq!(refused.1["detail"]["expected_message"], json!(expected));
}

#[tokio::test]
async fn a_signature_of_another_wallet_is_a_mismatch() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let call = Call::page(5, 0);
    let (signature, id) = Wallet::new(2).sign(&agent.message(&call, "r1"));
    let mut body = agent.body(&call, "r1");
    body["signature"] = wire(&signature, 27 + id.to_byte()).into();
    let refused = upstream.post("/jobs/list", &body).await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
}

#[tokio::test]
async fn a_nonce_serves_only_its_wallet() {
    let upstream = Upstream::start().await;
    let mut agent = upstream.agent(1).await;
    for nonce in [upstream.session(&Wallet::new(2)).await, "never-issued".to_owned()] {
        agent.nonce = nonce;
        let refused = agent.call(Call::page(5, 0)).await;
        assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID");
    }
}

#[tokio::test]
async fn an_ended_session_is_expired_and_later_unknown() {
    let session = Duration::from_millis(50);
    let upstream = Upstream::with(Settings { session, ..Settings::default() }).await;
    let agent = upstream.agent(1).await;
    let refused = until(async || {
        let reply = agent.call(Call::page(5, 0)).await;
        (reply.0 != StatusCode::OK).then_some(reply)
    })
    .await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED");

    let refused = until(async || {
        upstream.session(&agent.wallet).await;
        let reply = agent.call(Call::page(5, 0)).await;
        let expired = reply.1["detail"]["code"] == "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED";
        (!expired).then_some(reply)
    })
    .await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID");
}

#[tokio::test]
async fn a_session_under_a_second_still_states_one() {
    let session = Duration::from_millis(10);
    let upstream = Upstream::with(Settings { session, ..Settings::default() }).await;
    let body = json!({"wallet_address": Wallet::new(1).address()});
    assert_eq!(ok(upstream.post("/auth/session", &body).await)["expires_in"], 1);
}

#[tokio::test]
async fn a_request_id_serves_once_within_its_session() {
    let upstream = Upstream::start().await;
    let mut agent = upstream.agent(1).await;
    let (list, status) = (Call::page(5, 0), Call::job("job_status", GENERAL, json!({})));
    ok(upstream.post(&list.path, &agent.body(&list, "r1")).await);
    for call in [&list, &status] {
        let refused = upstream.post(&call.path, &agent.body(call, "r1")).await;
        assert_refused(&refused, 409, "EXTERNAL_SIGNATURE_REQUEST_REPLAY");
    }
    agent.nonce = upstream.session(&agent.wallet).await;
    ok(upstream.post(&list.path, &agent.body(&list, "r1")).await);
}

#[tokio::test]
async fn only_a_correctly_signed_call_uses_up_its_request_id() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let good = agent.body(&Call::page(5, 0), "r1");
    let mut tampered = good.clone();
    tampered["skip"] = 1.into();
    let refused = upstream.post("/jobs/list", &tampered).await;
    assert_refused(&refused, 401, "EXTERNAL_SIGNATURE_WALLET_MISMATCH");
    ok(upstream.post("/jobs/list", &good).await);
}

#[tokio::test]
async fn of_many_calls_with_one_request_id_one_gets_through() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let body = agent.body(&Call::page(5, 0), "r1");
    let calls = (0..8).map(|_| upstream.post("/jobs/list", &body));
    let replies = futures_util::future::join_all(calls).await;
    assert_eq!(replies.iter().filter(|reply| reply.0 == StatusCode::OK).count(), 1);
}

#[tokio::test]
async fn neither_nonce_nor_token_prints() {
    let upstream = Upstream::start().await;
    let agent = upstream.agent(1).await;
    let (_, token) = agent.reserve_workflow().await;
    let printed = format!("{:?}", upstream.sandbox);
    assert!(!printed.contains(&agent.nonce));
    assert!(!printed.contains(token.strip_prefix("Bearer ").unwrap()));
}
