//! A slow signer leaves the upstream to others.

use std::time::Duration;

use axum::{Router, routing::any};
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio::net::TcpListener;

use super::*;
use crate::{
    policy::Client,
    signer::{LocalKey, Script, Scripted},
    types::SealKey,
};

/// Asks for the status of a job, and returns whether there was an answer.
async fn ask(sender: &Sender) -> bool {
    let operation = Operation::of(&Client::local(), "job_status", "j", "");
    let call = operation.call.clone();
    let permit = operation.client.permit(call, sender.wallet(), None, Timestamp::now()).unwrap();
    let (signed, claim) = (permit.signed().unwrap(), Claim::default());
    let tried = sender.try_signed(signed, &operation, &claim, operation.deadline).await.unwrap();
    matches!(tried.outcome, Outcome::Answered(..))
}

#[tokio::test]
async fn calls_that_wait_for_a_slow_signer_leave_upstream_permits_to_other_wallets() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let answer = any(async || r#"{"session_nonce":"n","expires_in":900}"#);
    tokio::spawn(async { axum::serve(listener, Router::new().fallback(answer)).await });
    let folder = tempfile::tempdir().unwrap();
    let seal_key = SealKey::new([1; 32].into());
    let store = Store::open(&folder.path().join("proxy.db"), &[seal_key]).unwrap();
    let upstream = Upstream::on_this_machine(port, Duration::from_secs(60));
    let (signer, verdicts) = Scripted::new();
    let slow = Sender::new(Signer::Scripted(signer), upstream.clone(), store.clone());
    let quick = Sender::new(LocalKey::random().into(), upstream, store);

    let others = async {
        while slow.signing.as_ref().unwrap().waiting() < 3 {
            yield_now().await;
        }
        assert!(ask(&quick).await);
        (0..4).for_each(|_| verdicts.send(Script::Sign).unwrap());
    };
    let (answered, ()) = tokio::join!(join_all((0..4).map(|_| ask(&slow))), others);
    assert_eq!(answered, [true; 4]);
}
