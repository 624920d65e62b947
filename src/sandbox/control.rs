//! The control path: faults armed and counts read by other programs, on the sandbox's own listener.

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, error::Category, json};

use super::{api::Sandbox, counts::Counts, fault::InjectedFault};

pub(super) fn router(sandbox: &Sandbox) -> Router {
    Router::new()
        .route("/sandbox/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/sandbox/counts", get(counts))
        .route("/sandbox/ledger", get(ledger))
        .with_state(sandbox.clone())
}

async fn list_faults(State(sandbox): State<Sandbox>) -> Json<Value> {
    Json(json!({"faults": sandbox.faults()}))
}

async fn add_fault(State(sandbox): State<Sandbox>, body: Bytes) -> Response {
    match serde_json::from_slice::<InjectedFault>(&body) {
        Ok(fault) => {
            sandbox.inject(fault.clone());
            (StatusCode::CREATED, Json(fault)).into_response()
        }
        Err(error) => {
            let what = match error.classify() {
                Category::Data => "this is no fault",
                _ => "the body must be JSON such as {\"kind\": \"slow\", \"times\": 2}",
            };
            let text = json!({"detail": format!("{what}: {error}")});
            (StatusCode::UNPROCESSABLE_ENTITY, Json(text)).into_response()
        }
    }
}

async fn clear_faults(State(sandbox): State<Sandbox>) -> StatusCode {
    sandbox.clear_faults();
    StatusCode::NO_CONTENT
}

async fn ledger(State(sandbox): State<Sandbox>) -> Json<Value> {
    Json(json!({"entries": sandbox.ledger(), "payments": sandbox.payments()}))
}

async fn counts(State(sandbox): State<Sandbox>) -> Json<Counts> {
    Json(sandbox.counts())
}
