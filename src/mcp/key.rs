//! The keys of calls that come without one. A client sends a call again, under a new id, when its
//! connection broke: the key that is derived from the call makes that a repeat.

use bytes::Bytes;
use http::{HeaderValue, Request, Response, request::Parts};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    request::ToolRequest,
    result::{is_replayed, value},
    tool::McpTool,
};
use crate::{
    action::{Effect, Needs},
    credits,
};

/// The path with the reservations that run.
const RESERVATIONS: &str = "/proxy/reservations";

/// How many earlier answers a call is told apart from. They are kept for a day.
const MOST: u32 = 64;

/// The way to the proxy's routes.
pub(crate) trait Door: Send + Sync + 'static {
    /// Sends a request in the name of the `outer` one that brought the tool call, if there is one. The
    /// error says that there is no answer, and what to do.
    fn send(
        &self,
        request: Request<Bytes>,
        outer: Option<&Parts>,
    ) -> impl Future<Output = Result<Response<Bytes>, String>> + Send;
}

/// Sends a tool call under its key.
pub(super) async fn send<D: Door>(
    door: &D,
    tool: &McpTool,
    request: &ToolRequest,
    outer: Option<&Parts>,
) -> Result<Response<Bytes>, String> {
    if request.key.is_some() || !tool.derives_key {
        return door.send(request.http(request.key.clone()), outer).await;
    }
    let scope = match tool.needs {
        Needs::Held => running(door, request, outer).await?.iter().map(identity).collect(),
        _ => String::new(),
    };
    let mut number = 0;
    loop {
        let key = derived(request, &scope, number);
        let answer = door.send(request.http(Some(key)), outer).await?;
        if number == MOST || !is_replayed(&answer) {
            return Ok(answer);
        }
        // A refusal may have another answer now, unless the call was charged or may have been paid for.
        // The answer to a reservation that is over is not that to this call.
        let is_current = match tool.effect {
            Effect::Reserves if answer.status().is_success() => {
                is_running(&running(door, request, outer).await?, &value(answer.body()))
            }
            Effect::Pays => true,
            _ => answer.status().is_success() || credits::charged(answer.body()).is_some(),
        };
        if is_current {
            return Ok(answer);
        }
        number += 1;
    }
}

/// The reservations of the client that run, of the job that a call names.
async fn running<D: Door>(
    door: &D,
    request: &ToolRequest,
    outer: Option<&Parts>,
) -> Result<Vec<Value>, String> {
    let answer = door.send(ToolRequest::get(RESERVATIONS).http(None), outer).await?;
    let mut body = value(answer.body());
    let rows = body["reservations"].as_array_mut().map(std::mem::take).unwrap_or_default();
    let is_of = |row: &Value| row["job_id"].as_str().is_some_and(|job| request.names(job));
    Ok(rows.into_iter().filter(is_of).collect())
}

/// Whether one of these is the reservation that an answer tells of.
fn is_running(rows: &[Value], answer: &Value) -> bool {
    let ids = [&answer["reservation_id"], &answer["job"]["reservation_id"]];
    let id = ids.into_iter().find_map(Value::as_str);
    rows.iter().any(|row| match row["reservation_id"].as_str() {
        Some(own) if id.is_some() => Some(own) == id,
        _ => true,
    })
}

/// The words that tell a reservation from an earlier one of the same job.
fn identity(row: &Value) -> &str {
    let words = [&row["reservation_id"], &row["reserved_until"]];
    words.into_iter().find_map(Value::as_str).unwrap_or_default()
}

/// The ledger keeps the keys of each client apart.
fn derived(request: &ToolRequest, scope: &str, number: u32) -> HeaderValue {
    let mut hash = Sha256::new();
    for part in request.parts().into_iter().chain([scope.as_bytes()]) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(number.to_be_bytes());
    let key = format!("mcp-{}", hex::encode(hash.finalize()));
    HeaderValue::try_from(key).unwrap_or_else(|_| HeaderValue::from_static("mcp"))
}
