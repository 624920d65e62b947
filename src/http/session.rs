//! Sessions, which are answered locally: for programs that begin with one.

use std::sync::Arc;

use axum::{
    Json,
    extract::{Request, State},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::{
    body,
    surface::{Authenticated, Surface},
};
use crate::{
    call::{WALLET, other_wallet},
    json::JsonText,
    problem::Problem,
    proxy::CallError,
    withheld::HELD_BY_PROXY,
};

/// How long such a session claims to live, in seconds. It never ends; programs that keep time are used to
/// this number.
const SECONDS: i64 = 900;

/// Answers with what looks like a session, and is never used.
pub(super) async fn session(
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
    request: Request,
) -> Result<Json<Value>, Problem> {
    let (parts, body) = request.into_parts();
    // A session costs a body, so it counts as a call does.
    let permit = surface.proxy.count(&client, false).await;
    let permit = permit.map_err(|failure| Problem::refused(&failure));
    let (_permit, body) = body::read_if(permit, &parts, body, surface.body_time).await?;
    let wallet = surface.proxy.wallet_of(&client);
    let named = JsonText::parse(&body).and_then(|body| body.field(WALLET));
    if let Some(named) = named.and_then(|named| other_wallet(named.as_str(), wallet)) {
        return Err(Problem::other_wallet(&CallError::other_wallet(named, wallet)));
    }
    let end = Timestamp::now() + SignedDuration::from_secs(SECONDS);
    Ok(Json(json!({
        "session_nonce": HELD_BY_PROXY,
        "wallet_address": wallet.to_string(),
        "expires_in": SECONDS,
        "expires_at": end.to_string(),
    })))
}
