//! The local surface: the upstream's paths, unsigned, and the proxy's own.

mod auth;
mod crowd;
mod guard;
mod head;
mod instance;
mod listener;
mod load;
mod log;
mod peer;
mod problem;
mod refused;
mod server;
mod socket_file;
mod status;
mod tls;
mod workers;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{
        DefaultBodyLimit, FromRequest, FromRequestParts, RawPathParams, Request, State,
        rejection::RawPathParamsRejection,
    },
    http::{Method, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on, post},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::{auth::Caller, head::Head, problem::Problem};
pub use self::{
    crowd::Exempt,
    guard::Guard,
    instance::{Instance, Live},
    listener::Listener,
    peer::Peer,
    server::{Limits, serve},
    socket_file::{SocketError, SocketFile},
    tls::{Tls, TlsError},
    workers::Workers,
};
use crate::{
    action::{ACTIONS, Action, SESSION_PATH},
    call::{Call, InvalidCall},
    proxy::{Incoming, Proxy},
    store::Reservation,
    types::InvalidValue,
    upstream::Answer,
    withheld::HELD_BY_PROXY,
};

/// The largest body that is taken, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// How long the session that is answered locally claims to live, in seconds. It never ends; programs
/// that keep time are used to this number.
const LOCAL_SESSION_SECONDS: i64 = 900;

/// Every route of the proxy; those of [`ACTIONS`] are made by looping over it.
pub fn router(proxy: Arc<Proxy>, limits: Limits, instance: Arc<Instance>) -> Router {
    let router = Router::new()
        .route(SESSION_PATH, post(session))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/proxy/reservations", get(reservations))
        .route("/proxy/status", get(status::status))
        .route("/proxy/reload", post(status::reload));
    let mut calls = Router::new();
    for action in ACTIONS {
        let handler = move |state, caller, head, ids, request| async move {
            call(action, limits.body, state, caller, head, ids, request).await
        };
        calls = calls.route(action.path, on(method_filter(action), handler));
    }
    router
        .merge(calls.route_layer(middleware::from_fn_with_state(instance.clone(), load::admit)))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn(guard::check))
        .layer(middleware::from_fn(log::request))
        .layer(Extension(instance))
        .with_state(proxy)
}

async fn call(
    action: &'static Action,
    body_time: Duration,
    State(proxy): State<Arc<Proxy>>,
    caller: Caller,
    head: Head,
    ids: Result<RawPathParams, RawPathParamsRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let Head { call_id, key, place, trail } = head;
    let (mut parts, body) = request.into_parts();
    let begun = Instant::now();
    let body = read_body(body, body_time).await?;
    let Caller(client) = match begun.elapsed() < auth::KNOWN {
        true => caller,
        false => Caller::from_request_parts(&mut parts, &proxy).await?,
    };
    // The only way to be rejected here is an id that is not UTF-8.
    let ids =
        ids.map_err(|_| InvalidCall::Id { name: "an id of the path", source: InvalidValue::Slug })?;
    let call = Call::new(action, ids.iter().map(|(_, id)| id), &body)?;
    let result = proxy.call(Incoming { call, call_id, client, key, trail, place }).await;
    Ok(pass_on(result.map_err(|failure| Problem::failed(action, &failure))?))
}

async fn read_body(body: Body, time: Duration) -> Result<Bytes, Problem> {
    let mut request = Request::new(body);
    DefaultBodyLimit::max(MAX_BODY).apply(&mut request);
    let read = timeout(time, Bytes::from_request(request, &())).await;
    let read = read.map_err(|_| Problem::slow_body(time))?;
    read.map_err(|rejection| Problem::unreadable_body(&rejection))
}

fn pass_on(answer: Answer) -> Response {
    // As a `Body`, since axum would give bare bytes a content type.
    (answer.status, answer.headers, Body::from(answer.body)).into_response()
}

/// For programs that begin with a session: what they get looks like one, and is never used.
async fn session(State(proxy): State<Arc<Proxy>>, Caller(client): Caller) -> Json<Value> {
    let end = Timestamp::now() + SignedDuration::from_secs(LOCAL_SESSION_SECONDS);
    Json(json!({
        "session_nonce": HELD_BY_PROXY,
        "wallet_address": proxy.wallet_of(&client).to_string(),
        "expires_in": LOCAL_SESSION_SECONDS,
        "expires_at": end.to_string(),
    }))
}

async fn healthy() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The wallet is open before the listener is. The upstream's state is not asked for.
async fn ready(State(proxy): State<Arc<Proxy>>) -> Response {
    let (status, word) = match proxy.is_ready().await {
        true => (StatusCode::OK, "ready"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "not ready"),
    };
    (status, Json(json!({ "status": word }))).into_response()
}

async fn reservations(
    State(proxy): State<Arc<Proxy>>,
    Caller(client): Caller,
) -> Result<Json<Value>, Problem> {
    let held = proxy.reservations(&client).await.map_err(|error| Problem::store(&error))?;
    let rows: Vec<_> = held.iter().map(|reservation| row(reservation, Timestamp::now())).collect();
    Ok(Json(json!({ "reservations": rows })))
}

fn row(reservation: &Reservation, now: Timestamp) -> Value {
    json!({
        "job_id": reservation.job.as_str(),
        "wallet": reservation.wallet.to_string(),
        "client": reservation.client,
        "reservation_id": reservation.reservation_id,
        "reserved_until": reservation.ends.to_string(),
        "seconds_left": reservation.ends.duration_since(now).as_secs().max(0),
        "workflow_token": reservation.workflow_token.as_ref().map(|_| HELD_BY_PROXY),
    })
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
