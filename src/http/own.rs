//! The proxy's own paths: its health, what it says of itself, what it holds, and how it is told to read its
//! configuration again, or to sign nothing.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Path, RawQuery, State},
    http::StatusCode,
};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    instance::LastReload,
    surface::{Authenticated, Surface},
};
use crate::{
    payment::Spending,
    policy::Client,
    problem::Problem,
    problems::{INVALID_ID, NOT_ALLOWED, QUERY_NOT_TAKEN, RELOAD_REFUSED, UNKNOWN_APPROVAL},
    proxy::Proxy,
    store::{Deed, Freeze, FreezeOf, Reservation},
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
    } else if has_flag(query.as_deref(), "upstream") && !proxy.is_upstream_reached().await {
        (StatusCode::SERVICE_UNAVAILABLE, "upstream not reached")
    } else {
        (StatusCode::OK, "ready")
    };
    (status, Json(json!({ "status": word })))
}

/// Generated clients write an equals sign after a name without a value.
fn has_flag(query: Option<&str>, name: &str) -> bool {
    query.is_some_and(|query| query.trim_end_matches('=') == name)
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

/// Lets the next client of the team have a job.
pub(super) async fn release(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let unusable = |_| Problem::new(&INVALID_ID, "the job_id cannot be used; nothing was released");
    let released = surface.proxy.release_job(&client, &id.parse().map_err(unusable)?).await;
    let released = released.map_err(|failure| Problem::refused(&failure))?;
    Ok(Json(json!({
        "job_id": released.job.as_str(),
        "reserved_until": released.ends.to_string(),
        "seconds_left": released.ends.duration_since(Timestamp::now()).as_secs().max(0),
    })))
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
) -> Result<Json<Value>, Problem> {
    let Surface { proxy, instance, .. } = &*surface;
    let frozen = proxy.store().frozen().await.map_err(|error| Problem::store(&error))?;
    Ok(Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": instance.uptime().as_secs(),
        "wallets": client.admin.then(|| wallets(proxy)),
        "state": client.admin.then(|| proxy.store().folder().display().to_string()),
        "wallet": proxy.wallet_of(&client).to_string(),
        "upstream": upstream(proxy.upstream_seen()),
        "listeners": instance.listeners(),
        "last_reload": instance.last_reload().map(|reload| last_reload(&reload)),
        "frozen": frozen.as_ref().map(freeze_as_json),
        "spending": proxy.spending().map(Spending::to_json),
    })))
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
    check_admin(&client, "reload the configuration", "or send SIGHUP")?;
    surface.proxy.store().did(Deed::Reload, client.name.as_str()).await;
    let refused =
        |mistakes| Problem::new(&RELOAD_REFUSED, format!("everything is as it was: {mistakes}"));
    surface.instance.clone().reload().await.map_err(refused)?;
    Ok(Json(json!({ "status": "reloaded" })))
}

/// How a payment of the client stands that waits for approval; for an admin, any.
pub(super) async fn approval(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
    Path(id): Path<String>,
) -> Result<Json<Value>, Problem> {
    let unknown = || {
        Problem::new(
            &UNKNOWN_APPROVAL,
            "no payment of this client has, or had in the last day, that id",
        )
    };
    let id = id.parse().map_err(|_| unknown())?;
    let found = surface.proxy.store().approval(id).await.map_err(|error| Problem::store(&error))?;
    let found = found.filter(|approval| client.admin || approval.client == client.id);
    found.map(|approval| Json(approval.to_json(Timestamp::now()))).ok_or_else(unknown)
}

/// With `?payments`, payments alone are frozen.
pub(super) async fn freeze(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
    RawQuery(query): RawQuery,
) -> Result<Json<Value>, Problem> {
    check_admin(&client, "freeze", "or run `agentpmt-proxy freeze`")?;
    let of = match query.as_deref() {
        None | Some("") => FreezeOf::Signatures,
        query if has_flag(query, "payments") => FreezeOf::Payments,
        Some(_) => {
            let detail = "only ?payments can be here, to freeze payments alone; nothing is frozen";
            return Err(Problem::new(&QUERY_NOT_TAKEN, detail));
        }
    };
    let frozen = surface.proxy.store().freeze(of, client.name.as_str()).await;
    let frozen = frozen.map_err(|error| Problem::store(&error))?;
    tracing::warn!("{frozen}");
    Ok(Json(json!({ "frozen": freeze_as_json(&frozen) })))
}

/// An agent that was frozen must not end that: without clients, any local caller would be an admin.
pub(super) async fn thaw(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
) -> Result<Json<Value>, Problem> {
    check_admin(&client, "thaw", "or run `agentpmt-proxy thaw`")?;
    if client.name.is_local() {
        let detail = "only a client that was added with --admin may thaw here; run \
                      `agentpmt-proxy thaw`";
        return Err(Problem::new(&NOT_ALLOWED, detail));
    }
    let thawed = surface.proxy.store().thaw(client.name.as_str()).await;
    thawed.map_err(|error| Problem::store(&error))?;
    Ok(Json(json!({ "frozen": null })))
}

fn freeze_as_json(Freeze { of, by, since }: &Freeze) -> Value {
    json!({ "of": of.as_str(), "by": by, "since": since.to_string() })
}

fn check_admin(client: &Client, may: &str, otherwise: &str) -> Result<(), Problem> {
    if client.admin {
        return Ok(());
    }
    let detail = format!(
        "client {} may not {may}; ask the operator of the proxy for a client that may, with \
         `agentpmt-proxy client add … --admin`, {otherwise}",
        client.name
    );
    Err(Problem::new(&NOT_ALLOWED, detail))
}
