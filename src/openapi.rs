//! The OpenAPI document: made from the tables of calls and of problems, and the same for every proxy of a
//! version.

mod own;

mod operation;

use http::Method;
use serde_json::{Map, Value, json};

use self::{
    operation::{own_operation, row_operation},
    own::OWN,
};
use crate::{
    action::ACTIONS,
    problems::{PROBLEMS, Retry},
};

/// The document, of version 3.1.
pub fn document() -> Value {
    let mut paths = Map::new();
    let mut add = |method: &Method, path: &'static str, operation: Value| {
        let methods = paths.entry(path).or_insert_with(|| json!({}));
        methods[method.as_str().to_ascii_lowercase()] = operation;
    };
    // Rows that share a route are one operation.
    for action in ACTIONS.iter().filter(|action| !action.is_paid_row(ACTIONS)) {
        add(&action.method, action.path, row_operation(action));
    }
    for call in OWN {
        add(&call.method, call.path, own_operation(call));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "agentpmt-proxy",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "The AgentPMT external API without keys and signatures, which this proxy adds. \
                To earn credits: `job_list`, `job_reserve`, do what its instructions say, `job_complete` \
                within 30 minutes, then `job_status` until it is approved or rejected.",
        },
        "servers": [{ "url": "/" }],
        "security": [{ "token": [] }, {}],
        "tags": [
            { "name": "jobs", "description": "Paid work." },
            { "name": "credits", "description": "What the wallet has." },
            { "name": "tools", "description": "What can be used for credits or money." },
            { "name": "workflows", "description": "Published workflows, and their sessions." },
            { "name": "proxy", "description": "What the proxy answers itself." },
        ],
        "paths": paths,
        "components": {
            "securitySchemes": {
                "token": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The token that `agentpmt-proxy client add` printed. Without \
                        clients, none is needed.",
                },
            },
            "schemas": { "Problem": problem() },
            "responses": { "Refused": refused() },
        },
    })
}

/// The schema of a problem (RFC 9457).
fn problem() -> Value {
    let codes: Vec<_> = PROBLEMS.iter().map(|kind| kind.code).collect();
    let retries = [Retry::Never, Retry::Safe, Retry::CheckFirst];
    let advice = retries.map(|retry| format!("`{}`: {}", retry.as_str(), retry.advice()));
    json!({
        "type": "object",
        "properties": {
            "type": { "type": "string", "description": "A URI that names the problem." },
            "title": { "type": "string" },
            "status": { "type": "integer", "description": "The status of the answer." },
            "detail": {
                "type": "string",
                "description": "What happened, to which input, and what to do.",
            },
            "code": {
                "type": "string",
                "enum": codes,
                "description": "The word for programs: see the manual's topic `errors`.",
            },
            "request_id": { "type": "string", "description": "It finds the request in the log." },
            "retry": {
                "type": "string",
                "enum": retries.map(Retry::as_str),
                "description": format!("Whether the same request may be sent again. {}.", advice.join("; ")),
            },
        },
        "required": ["type", "title", "status", "detail", "code", "request_id", "retry"],
        "additionalProperties": true,
    })
}

/// A refusal comes from the proxy, as a problem, or from the upstream, in any form of JSON.
fn refused() -> Value {
    json!({
        "description": "A problem of the proxy's own, or a refusal of the API as it came.",
        "content": {
            "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } },
            "application/json": { "schema": {} },
        },
    })
}
