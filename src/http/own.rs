//! The proxy's own paths: its health, what it says of itself, what it holds, and how it is told to read its
//! configuration again.

use std::sync::Arc;

use axum::{
    Json,
    extract::{RawQuery, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    instance::LastReload,
    surface::{Authenticated, Surface},
};
use crate::{
    problem::Problem,
    problems::{NOT_ALLOWED, RELOAD_REFUSED},
    proxy::Proxy,
    store::{Deed, Reservation},
    types::Address,
    upstream::Seen,
    withheld::HELD_BY_PROXY,
};

pub(super) async fn healthy() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// The wallet is open before the listener is. The upstream is asked only for `?upstream`.
pub(super) async fn ready(
    State(surface): State<Arc<Surface>>,
    RawQuery(query): RawQuery,
) -> (StatusCode, Json<Value>) {
    let proxy = &surface.proxy;
    let (status, word) = if !proxy.is_ready().await {
        (StatusCode::SERVICE_UNAVAILABLE, "not ready")
    } else if query.as_deref() == Some("upstream") && !proxy.is_upstream_reached().await {
        (StatusCode::SERVICE_UNAVAILABLE, "upstream not reached")
    } else {
        (StatusCode::OK, "ready")
    };
    (status, Json(json!({ "status": word })))
}

pub(super) async fn reservations(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
) -> Result<Json<Value>, Problem> {
    let held = surface.proxy.reservations(&client).await.map_err(|error| Problem::store(&error))?;
    let now = Timestamp::now();
    let rows: Vec<_> = held.iter().map(|held| reservation(held, now)).collect();
    Ok(Json(json!({ "reservations": rows })))
}

fn reservation(held: &Reservation, now: Timestamp) -> Value {
    json!({
        "job_id": held.job.as_str(),
        "wallet": held.wallet.to_string(),
        "client": held.client_name.as_str(),
        "reservation_id": held.reservation_id,
        "reserved_until": held.ends.to_string(),
        "seconds_left": held.ends.duration_since(now).as_secs().max(0),
        "workflow_token": held.workflow_token.as_ref().map(|_| HELD_BY_PROXY),
    })
}

pub(super) async fn status(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
) -> Json<Value> {
    let Surface { proxy, instance, .. } = &*surface;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": instance.uptime().as_secs(),
        "wallets": client.admin.then(|| wallets(proxy)),
        "wallet": proxy.wallet_of(&client).to_string(),
        "upstream": upstream(proxy.upstream_seen()),
        "listeners": instance.listeners(),
        "last_reload": instance.last_reload().map(|reload| last_reload(&reload)),
    }))
}

fn wallets(proxy: &Proxy) -> Vec<String> {
    proxy.wallets().iter().map(Address::to_string).collect()
}

fn upstream(Seen { last_success, last_failure, unreachable_since }: Seen) -> Value {
    json!({
        "last_success": last_success.map(|at| at.to_string()),
        "last_failure": last_failure.map(|(at, why)| json!({ "at": at.to_string(), "why": why })),
        "unreachable_since": unreachable_since.map(|at| at.to_string()),
    })
}

fn last_reload(LastReload { at, result }: &LastReload) -> Value {
    json!({ "at": at.to_string(), "ok": result.is_ok(), "mistakes": result.as_ref().err() })
}

pub(super) async fn reload(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
) -> Result<Json<Value>, Problem> {
    if !client.admin {
        let detail = format!(
            "client {} may not reload the configuration; ask the operator of the proxy for a client that \
             may, with `agentpmt-proxy client add … --admin`, or send SIGHUP",
            client.name
        );
        return Err(Problem::new(&NOT_ALLOWED, detail));
    }
    surface.proxy.store().did(Deed::Reload, client.name.as_str()).await;
    let refused =
        |mistakes| Problem::new(&RELOAD_REFUSED, format!("everything is as it was: {mistakes}"));
    surface.instance.clone().reload().await.map_err(refused)?;
    Ok(Json(json!({ "status": "reloaded" })))
}
