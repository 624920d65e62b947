//! What the running proxy says of itself, and how it is told to read its configuration again.

use std::sync::Arc;

use axum::{Json, extract::State};
use serde_json::{Value, json};

use super::{Surface, auth::Caller, instance::LastReload, problem::Problem};
use crate::{proxy::Proxy, store::Deed, types::Address, upstream::Seen};

pub(super) async fn status(
    State(surface): State<Arc<Surface>>,
    Caller(client): Caller,
) -> Json<Value> {
    let Surface { proxy, instance, .. } = &*surface;
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_seconds": instance.uptime().as_secs(),
        "wallets": client.admin.then(|| wallets(proxy)),
        "wallet": proxy.wallet_of(&client).to_string(),
        "upstream": upstream(proxy.upstream_seen()),
        "listeners": instance.listeners(),
        "last_reload": instance.last_reload().map(|reload| row(&reload)),
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

fn row(LastReload { at, result }: &LastReload) -> Value {
    json!({ "at": at.to_string(), "ok": result.is_ok(), "mistakes": result.as_ref().err() })
}

pub(super) async fn reload(
    State(surface): State<Arc<Surface>>,
    Caller(client): Caller,
) -> Result<Json<Value>, Problem> {
    if !client.admin {
        return Err(Problem::not_admin(&client.name));
    }
    surface.proxy.store().did(Deed::Reload, client.name.as_str()).await;
    surface.instance.clone().reload().await.map_err(Problem::reload_refused)?;
    Ok(Json(json!({ "status": "reloaded" })))
}
