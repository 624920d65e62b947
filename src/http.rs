//! The local surface: the upstream's paths, unsigned, and the proxy's own.

mod auth;
mod backlog;
mod connection_limiter;
mod connection_state;
mod guard;
mod head;
mod instance;
mod listener;
mod log;
mod nearest_path;
mod open_connections;
mod peer;
mod problem;
mod request_body;
mod server;
mod socket_file;
mod status;
mod tls;
mod wire;
mod workers;

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::{FromRequestParts, MatchedPath, RawPathParams, RawQuery, Request, State},
    http::{
        Method, StatusCode, Uri,
        header::{EXPECT, HOST},
        request::Parts,
    },
    middleware,
    response::{IntoResponse, Response},
    routing::{MethodFilter, get, on, post},
};
use http_body_util::LengthLimitError;
use hyper::body::Body as _;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};
use tokio::time::timeout;

use self::{auth::Caller, backlog::Backlog, problem::Problem};
pub use self::{
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
    action::{Action, SESSION_PATH},
    body,
    call::{Call, InvalidCall, WALLET, other_wallet},
    json::JsonText,
    proxy::{Admission, Admitted, CallError, Proxy},
    store::Reservation,
    trace::Trace,
    types::InvalidValue,
    upstream::Answer,
    withheld::HELD_BY_PROXY,
};

/// The largest body that is taken, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// How much of the body of a refused call is read so that its connection can go on, in bytes, and for
/// how long.
const SMALL_BODY: usize = 16 * 1024;
const SMALL_BODY_TIME: Duration = Duration::from_millis(100);

/// How long the session that is answered locally claims to live, in seconds. It never ends; programs
/// that keep time are used to this number.
const LOCAL_SESSION_SECONDS: i64 = 900;

/// What all routes share.
struct Surface {
    proxy: Arc<Proxy>,
    instance: Arc<Instance>,
    /// How long a body may take.
    body_time: Duration,
}

/// The routes of the proxy's own, besides [`SESSION_PATH`].
const OWN_PATHS: [(Method, &str); 5] = [
    (Method::GET, "/healthz"),
    (Method::GET, "/readyz"),
    (Method::GET, "/proxy/reservations"),
    (Method::GET, "/proxy/status"),
    (Method::POST, "/proxy/reload"),
];

/// Every route: one for each row of the proxy's table of calls, and its own.
pub fn router(proxy: Arc<Proxy>, limits: Limits, instance: Arc<Instance>) -> Router {
    let actions = proxy.actions();
    let surface = Arc::new(Surface { proxy, instance, body_time: limits.body });
    let mut router = Router::new()
        .route(SESSION_PATH, post(session))
        .route("/healthz", get(healthy))
        .route("/readyz", get(ready))
        .route("/proxy/reservations", get(reservations))
        .route("/proxy/status", get(status::status))
        .route("/proxy/reload", post(status::reload));
    for action in actions {
        let handler =
            move |State(surface), Extension(trace), request| call(action, surface, trace, request);
        router = router.route(action.path, on(method_filter(action), handler));
    }
    router
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(surface.clone(), log::request))
        .with_state(surface)
}

async fn call(
    action: &'static Action,
    surface: Arc<Surface>,
    trace: Arc<Trace>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let ids = RawPathParams::from_request_parts(&mut parts, &()).await;
    let first_id = ids.iter().flat_map(RawPathParams::iter).map(|(_, id)| id).next();
    let admitted = match admit(action, &surface, trace, first_id, &parts).await {
        Ok(admitted) => admitted,
        Err(problem) => {
            Box::pin(discard(&parts, body)).await;
            return Err(problem);
        }
    };
    let body = read_body(body, surface.body_time).await?;
    // The only way to be rejected here is an id that is not UTF-8.
    let ids = ids.map_err(|_| InvalidCall::Id {
        name: "an id of the path",
        given: parts.uri.path().to_owned(),
        source: InvalidValue::Slug,
    })?;
    let call =
        Call::new(action, ids.iter().map(|(_, id)| id), &body)?.with_query(parts.uri.query());
    // The bytes that came in are not held while the upstream is asked.
    drop((parts, body));
    let answer = surface.proxy.call(admitted, call).await;
    let answer = answer.map_err(|failure| Problem::failed(action, &failure))?;
    Ok(pass_on(answer, surface.instance.backlog()))
}

async fn admit(
    action: &'static Action,
    surface: &Surface,
    trace: Arc<Trace>,
    first_id: Option<&str>,
    parts: &Parts,
) -> Result<Admitted, Problem> {
    let (key, malformed) = match head::key(action, parts) {
        Ok(key) => (key, None),
        Err(problem) => (None, Some(problem)),
    };
    let product = first_id.and_then(|id| id.parse().ok());
    let admission = Admission { action, product, key, trace };
    let admitted = surface.proxy.admit(&auth::evidence(parts), admission).await;
    let admitted = admitted.map_err(|failure| Problem::failed(action, &failure))?;
    // A caller that is not known is told so and nothing else.
    malformed.map_or(Ok(admitted), Err)
}

/// Reads a small body of a call that is refused, so that the connection can go on, unless its client
/// waits for permission to send it.
async fn discard(parts: &Parts, body: Body) {
    if !parts.headers.contains_key(EXPECT) && body.size_hint().lower() <= SMALL_BODY as u64 {
        let _ = timeout(SMALL_BODY_TIME, body::read(body, SMALL_BODY)).await;
    }
}

async fn read_body(body: Body, time: Duration) -> Result<Bytes, Problem> {
    // One that announces too much is not asked for.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(Problem::body_too_large());
    }
    let read = timeout(time, body::read(body, MAX_BODY)).await;
    let read = read.map_err(|_| Problem::slow_body(time))?;
    read.map_err(|error| match error.is::<LengthLimitError>() {
        true => Problem::body_too_large(),
        false => Problem::unreadable_body(),
    })
}

fn pass_on(answer: Answer, backlog: &Backlog) -> Response {
    let mut response = Response::new(Body::from(backlog.count(answer.body)));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}

/// For programs that begin with a session: what they get looks like one, and is never used.
async fn session(
    State(surface): State<Arc<Surface>>,
    Caller(client): Caller,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (parts, body) = request.into_parts();
    // A session costs a body, so it counts as a call does.
    let _permit = match surface.proxy.count(&client, false).await {
        Ok(permit) => permit,
        Err(failure) => {
            Box::pin(discard(&parts, body)).await;
            return Err(Problem::refused(&failure));
        }
    };
    let body = read_body(body, surface.body_time).await?;
    let wallet = surface.proxy.wallet_of(&client);
    let named = JsonText::parse(&body).and_then(|body| body.field(WALLET));
    if let Some(named) = named.and_then(|named| other_wallet(named.as_str(), wallet)) {
        return Err(Problem::other_wallet(&CallError::other_wallet(named, wallet)));
    }
    let end = Timestamp::now() + SignedDuration::from_secs(LOCAL_SESSION_SECONDS);
    Ok(Json(json!({
        "session_nonce": HELD_BY_PROXY,
        "wallet_address": wallet.to_string(),
        "expires_in": LOCAL_SESSION_SECONDS,
        "expires_at": end.to_string(),
    })))
}

async fn healthy() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The wallet is open before the listener is. The upstream is asked only for `?upstream`.
async fn ready(State(surface): State<Arc<Surface>>, RawQuery(query): RawQuery) -> Response {
    let proxy = &surface.proxy;
    let (status, word) = if !proxy.is_ready().await {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    } else if query.as_deref() == Some("upstream") && !proxy.is_upstream_reached().await {
        (StatusCode::SERVICE_UNAVAILABLE, "upstream not reached")
    } else {
        (StatusCode::OK, "ready")
    };
    (status, Json(json!({ "status": word }))).into_response()
}

async fn reservations(
    State(surface): State<Arc<Surface>>,
    Caller(client): Caller,
) -> Result<Json<Value>, Problem> {
    let held = surface.proxy.reservations(&client).await.map_err(|error| Problem::store(&error))?;
    let rows: Vec<_> = held.iter().map(|reservation| row(reservation, Timestamp::now())).collect();
    Ok(Json(json!({ "reservations": rows })))
}

fn row(reservation: &Reservation, now: Timestamp) -> Value {
    json!({
        "job_id": reservation.job.as_str(),
        "wallet": reservation.wallet.to_string(),
        "client": reservation.client_name.as_str(),
        "reservation_id": reservation.reservation_id,
        "reserved_until": reservation.ends.to_string(),
        "seconds_left": reservation.ends.duration_since(now).as_secs().max(0),
        "workflow_token": reservation.workflow_token.as_ref().map(|_| HELD_BY_PROXY),
    })
}

async fn unknown_path(State(surface): State<Arc<Surface>>, uri: Uri) -> Problem {
    Problem::unknown_path(surface.proxy.actions(), &log::printable(uri.path()))
}

async fn wrong_method(State(surface): State<Arc<Surface>>, request: Request) -> Problem {
    let route = request.extensions().get().map_or("", MatchedPath::as_str);
    let path = log::printable(request.uri().path());
    let url = url(&surface.instance, &request, &path);
    Problem::wrong_method(request.method(), &path, &method_of(surface.proxy.actions(), route), &url)
}

/// The method of a route.
fn method_of(actions: &[Action], route: &str) -> Method {
    if route == SESSION_PATH {
        return Method::POST;
    }
    let action = actions.iter().find(|action| action.path == route);
    let own = OWN_PATHS.iter().find(|(_, path)| *path == route).map(|(method, _)| method);
    action.map(|action| &action.method).or(own).cloned().unwrap_or_default()
}

/// Where a request went, as curl takes it.
fn url(instance: &Instance, request: &Request, path: &str) -> String {
    let peer: Option<&Peer> = request.extensions().get();
    if peer.is_some_and(|peer| peer.local.is_none()) {
        return format!("--unix-socket … http://localhost{path}");
    }
    let scheme = if instance.live().tls.is_some() { "https" } else { "http" };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("{scheme}://{host}{path}")
}

fn method_filter(action: &Action) -> MethodFilter {
    // A row with a method that axum cannot route would show in every test.
    MethodFilter::try_from(action.method.clone()).expect("a method that can be routed")
}

#[cfg(test)]
mod not_signed;
