//! The workflows that are made under a job's reservation, and the token that allows it (protocol
//! §7).

use std::collections::{HashMap, HashSet};

use axum::http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::json::Object;

use super::{error::ApiError, form::Form};

/// The longest name of a workflow, in characters.
const MAX_NAME: usize = 200;

/// The longest description of a workflow, in characters.
const MAX_DESCRIPTION: usize = 4000;

/// The token that a request showed.
pub(super) struct Token(SecretString);

impl Token {
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        let header = headers.get("x-job-workflow-token");
        let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        token.map(|token| Self(token.into())).ok_or(ApiError::WorkflowTokenMissing)
    }
}

/// The workflows of one reservation; they end with it.
pub(super) struct Workspace {
    token: SecretString,
    /// Whether each is published, by id.
    published: HashMap<String, bool>,
}

impl Workspace {
    /// An empty one with a fresh token.
    pub(super) fn new() -> Self {
        let token = format!("jwf_{}", Uuid::new_v4().simple());
        Self { token: token.into(), published: HashMap::new() }
    }

    /// The token, for the answer to the reservation only.
    pub(super) fn expose_token(&self) -> &str {
        self.token.expose_secret()
    }

    pub(super) fn is_opened_by(&self, token: &Token) -> bool {
        self.token.expose_secret() == token.0.expose_secret()
    }

    /// Adds a draft.
    pub(super) fn create(&mut self, body: &Object) -> Result<Value, ApiError> {
        let name = checked_name(body)?;
        let id = Uuid::new_v4().simple().to_string();
        self.published.insert(id.clone(), false);
        Ok(draft("Workflow created", &id, &name))
    }

    /// Replaces a workflow. A published one is a draft again, to be published anew.
    pub(super) fn update(&mut self, id: &str, body: &Object) -> Result<Value, ApiError> {
        let name = checked_name(body)?;
        *self.published.get_mut(id).ok_or(ApiError::WorkflowNotFound)? = false;
        Ok(draft("Workflow updated", id, &name))
    }

    pub(super) fn publish(&mut self, id: &str) -> Result<Value, ApiError> {
        *self.published.get_mut(id).ok_or(ApiError::WorkflowNotFound)? = true;
        Ok(json!({"message": "Workflow published", "workflow_id": id, "status": "published"}))
    }

    /// Whether a workflow can be handed in as the job's deliverable.
    pub(super) fn check_deliverable(&self, id: &str) -> Result<(), ApiError> {
        match self.published.get(id) {
            Some(true) => Ok(()),
            Some(false) => Err(ApiError::WorkflowNotPublished),
            None => Err(ApiError::WorkflowMismatch),
        }
    }
}

fn draft(message: &str, id: &str, name: &str) -> Value {
    json!({"message": message, "workflow_id": id, "name": name, "status": "draft"})
}

/// The name of a workflow that is complete. Nodes and edges are not kept: nothing here runs them.
///
/// # Errors
/// [`ApiError::Fields`] unless there are a name, a description, at least one node, and edges
/// between nodes that exist.
fn checked_name(body: &Object) -> Result<String, ApiError> {
    let mut form = Form::new(body);
    let name = form.text("name", MAX_NAME);
    form.text("description", MAX_DESCRIPTION);
    let nodes = form.array("nodes").map(|nodes| node_ids(&mut form, &nodes));
    let edges = form.array("edges");
    if let (Some(ids), Some(edges)) = (nodes, edges) {
        check_edges(&mut form, &edges, &ids);
    }
    form.finish(name)
}

fn node_ids(form: &mut Form<'_>, nodes: &[Value]) -> HashSet<String> {
    if nodes.is_empty() {
        let text = "List should have at least 1 item after validation, not 0";
        form.refuse::<()>(json!(["body", "nodes"]), "too_short", text);
    }
    let mut ids = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        let id = node["id"].as_str().map(str::to_owned).or_else(|| {
            let place = json!(["body", "nodes", index, "id"]);
            form.refuse(place, "string_type", "A node needs an id that is a string")
        });
        ids.extend(id);
    }
    ids
}

fn check_edges(form: &mut Form<'_>, edges: &[Value], nodes: &HashSet<String>) {
    for (index, edge) in edges.iter().enumerate() {
        for end in ["source", "target"] {
            if !edge[end].as_str().is_some_and(|id| nodes.contains(id)) {
                let place = json!(["body", "edges", index, end]);
                form.refuse::<()>(place, "value_error", "Value error, it names no node");
            }
        }
    }
}
