//! The local surface: the upstream's paths, unsigned, and the proxy's own.

mod log;
mod problem;

use std::sync::Arc;

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::{
        DefaultBodyLimit, RawPathParams, State,
        rejection::{BytesRejection, RawPathParamsRejection},
    },
    http::{Method, Uri},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on, post},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use self::problem::Problem;
use crate::{
    action::{ACTIONS, Action, SESSION_PATH},
    call::{Call, InvalidCall},
    proxy::Proxy,
    types::InvalidValue,
    upstream::Answer,
    workflow_token::HELD_BY_PROXY,
};

/// The largest body that is taken, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// How long the session that is answered locally claims to live, in seconds. It never ends; programs
/// that keep time are used to this number.
const LOCAL_SESSION_SECONDS: i64 = 900;

/// Every route of the proxy; those of [`ACTIONS`] are made by looping over it.
pub fn router(proxy: Arc<Proxy>) -> Router {
    let mut router = Router::new()
        .route(SESSION_PATH, post(session))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready));
    for action in ACTIONS {
        let handler = move |state, uri, ids, body| call(action, state, uri, ids, body);
        router = router.route(action.path, on(method_filter(action), handler));
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn(log::request))
        .with_state(proxy)
}

async fn call(
    action: &'static Action,
    State(proxy): State<Arc<Proxy>>,
    uri: Uri,
    ids: Result<RawPathParams, RawPathParamsRejection>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Response, Problem> {
    if uri.query().is_some() {
        return Err(Problem::query_not_taken());
    }
    let body = body.map_err(|rejection| Problem::unreadable_body(&rejection))?;
    // The only way to be rejected here is an id that is not UTF-8.
    let ids =
        ids.map_err(|_| InvalidCall::Id { name: "an id of the path", source: InvalidValue::Slug })?;
    let call = Call::new(action, ids.iter().map(|(_, id)| id), &body)?;
    Ok(pass_on(proxy.call(call).await.map_err(|failure| Problem::failed(action, &failure))?))
}

fn pass_on(answer: Answer) -> Response {
    // As a `Body`, since axum would give bare bytes a content type.
    (answer.status, answer.headers, Body::from(answer.body)).into_response()
}

/// For programs that begin with a session: what they get looks like one, and is never used.
async fn session(State(proxy): State<Arc<Proxy>>) -> Json<Value> {
    let end = Timestamp::now() + SignedDuration::from_secs(LOCAL_SESSION_SECONDS);
    Json(json!({
        "session_nonce": HELD_BY_PROXY,
        "wallet_address": proxy.wallet().to_string(),
        "expires_in": LOCAL_SESSION_SECONDS,
        "expires_at": end.to_string(),
    }))
}

async fn healthy() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The wallet is open before the listener is, so whoever is answered finds the proxy ready. The
/// upstream's state is not asked for.
async fn ready(State(proxy): State<Arc<Proxy>>) -> Json<Value> {
    Json(json!({ "status": "ready", "wallet": proxy.wallet().to_string() }))
}

async fn unknown_path(uri: Uri) -> Problem {
    Problem::unknown_path(&log::printable(uri.path()))
}

async fn wrong_method(method: Method, uri: Uri) -> Problem {
    Problem::wrong_method(&method, &log::printable(uri.path()))
}

fn method_filter(action: &Action) -> MethodFilter {
    // A row with a method that axum cannot route would show in every test.
    MethodFilter::try_from(action.method.clone()).expect("a method that can be routed")
}
