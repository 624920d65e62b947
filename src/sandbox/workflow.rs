//! The workflows that are made under a job's reservation, and the token that allows it (protocol
//! §7).

use std::collections::{HashMap, HashSet};

use axum::{extract::FromRequestParts, http::request::Parts};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::canonical::Object;

use super::{form::Form, refusal::Refusal};

/// The longest name of a workflow, in characters.
const MAX_NAME: usize = 200;

/// The longest description of a workflow, in characters.
const MAX_DESCRIPTION: usize = 4000;

/// The token that a request showed.
pub(super) struct Token(SecretString);

impl<S: Send + Sync> FromRequestParts<S> for Token {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let header = parts.headers.get("x-job-workflow-token");
        let token = header.and_then(|value| value.to_str().ok()?.strip_prefix("Bearer "));
        token.map(|token| Self(token.into())).ok_or(Refusal::WorkflowTokenMissing)
    }
}

#[cfg(test)]
impl Token {
    pub(super) fn of(text: &str) -> Self {
        Self(text.into())
    }
}

/// What one reservation holds; it ends with it.
pub(super) struct Workspace {
    token: SecretString,
    workflows: HashMap<String, Stage>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Draft,
    Published,
}

impl Workspace {
    /// An empty one with a fresh token.
    pub(super) fn new() -> Self {
        let token = format!("jwf_{}", Uuid::new_v4().simple());
        Self { token: token.into(), workflows: HashMap::new() }
    }

    /// The token, for the answer to the reservation only.
    pub(super) fn expose_token(&self) -> &str {
        self.token.expose_secret()
    }

    pub(super) fn is_opened_by(&self, token: &Token) -> bool {
        self.token.expose_secret() == token.0.expose_secret()
    }

    /// Adds a draft.
    pub(super) fn create(&mut self, body: &Object) -> Result<Value, Refusal> {
        let definition = Definition::read(body)?;
        let id = Uuid::new_v4().simple().to_string();
        self.workflows.insert(id.clone(), Stage::Draft);
        Ok(definition.answer("Workflow created", &id))
    }

    /// Replaces a workflow. A published one is a draft again, to be published anew.
    pub(super) fn update(&mut self, id: &str, body: &Object) -> Result<Value, Refusal> {
        let definition = Definition::read(body)?;
        *self.workflows.get_mut(id).ok_or(Refusal::WorkflowNotFound)? = Stage::Draft;
        Ok(definition.answer("Workflow updated", id))
    }

    pub(super) fn publish(&mut self, id: &str) -> Result<Value, Refusal> {
        *self.workflows.get_mut(id).ok_or(Refusal::WorkflowNotFound)? = Stage::Published;
        Ok(json!({"message": "Workflow published", "workflow_id": id, "status": "published"}))
    }

    /// Whether a workflow can be handed in as the job's deliverable.
    pub(super) fn check_deliverable(&self, id: &str) -> Result<(), Refusal> {
        match self.workflows.get(id) {
            Some(Stage::Published) => Ok(()),
            Some(Stage::Draft) => Err(Refusal::WorkflowNotPublished),
            None => Err(Refusal::WorkflowMismatch),
        }
    }
}

/// A workflow that is complete. Its nodes and edges are checked and not kept: nothing here runs
/// them.
struct Definition {
    name: String,
}

impl Definition {
    /// # Errors
    /// [`Refusal::Fields`] unless there are a name, a description, at least one node, and edges
    /// between nodes that exist.
    fn read(body: &Object) -> Result<Self, Refusal> {
        let mut form = Form::new(body);
        let name = form.text("name", MAX_NAME);
        let description = form.text("description", MAX_DESCRIPTION);
        let nodes = form.array("nodes").map(|nodes| node_ids(&mut form, &nodes));
        let edges = form.array("edges");
        if let (Some(ids), Some(edges)) = (&nodes, &edges) {
            check_edges(&mut form, edges, ids);
        }
        let complete = name.filter(|_| description.is_some() && nodes.is_some());
        form.finish(complete.map(|name| Self { name }))
    }

    fn answer(self, message: &str, id: &str) -> Value {
        json!({"message": message, "workflow_id": id, "name": self.name, "status": "draft"})
    }
}

fn node_ids(form: &mut Form<'_>, nodes: &[Value]) -> HashSet<String> {
    if nodes.is_empty() {
        let text = "List should have at least 1 item after validation, not 0";
        form.refuse::<()>(json!(["body", "nodes"]), "too_short", text);
    }
    let mut ids = HashSet::new();
    for (index, node) in nodes.iter().enumerate() {
        match node["id"].as_str() {
            Some(id) => {
                ids.insert(id.to_owned());
            }
            None => {
                let place = json!(["body", "nodes", index, "id"]);
                form.refuse::<()>(place, "string_type", "A node needs an id that is a string");
            }
        }
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
