//! The workflows that are made under a job's reservation, and the token that allows it (protocol
//! §7).

use std::collections::HashMap;

use axum::http::HeaderMap;
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::json::Object;

use super::{error::ApiError, form::Form, graph};

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
    /// By id.
    workflows: HashMap<String, Workflow>,
}

/// A workflow, as far as it was told.
#[derive(Default)]
struct Workflow {
    definition: Object,
    has_tool: bool,
    is_published: bool,
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
    pub(super) fn create(&mut self, body: &Object) -> Result<Value, ApiError> {
        let mut workflow = Workflow::default();
        let name = workflow.change(body)?;
        let id = Uuid::new_v4().simple().to_string();
        self.workflows.insert(id.clone(), workflow);
        Ok(draft("Workflow created", &id, &name))
    }

    /// Changes a workflow; a part of its fields suffices.
    pub(super) fn update(&mut self, id: &str, body: &Object) -> Result<Value, ApiError> {
        let name = self.workflow(id)?.change(body)?;
        Ok(draft("Workflow updated", id, &name))
    }

    pub(super) fn publish(&mut self, id: &str) -> Result<Value, ApiError> {
        let workflow = self.workflow(id)?;
        if !workflow.has_tool {
            return Err(ApiError::WorkflowNeedsTool);
        }
        workflow.is_published = true;
        Ok(json!({"message": "Workflow published", "workflow_id": id, "status": "published"}))
    }

    /// Whether a workflow can be handed in as the job's deliverable.
    pub(super) fn check_deliverable(&self, id: &str) -> Result<(), ApiError> {
        match self.workflows.get(id) {
            Some(workflow) if workflow.is_published => Ok(()),
            Some(_) => Err(ApiError::WorkflowNotPublished),
            None => Err(ApiError::WorkflowMismatch),
        }
    }

    fn workflow(&mut self, id: &str) -> Result<&mut Workflow, ApiError> {
        self.workflows.get_mut(id).ok_or(ApiError::WorkflowNotFound)
    }
}

impl Workflow {
    /// Takes the fields of a body in place of those that are there. It is a draft then, to be
    /// published anew.
    ///
    /// # Errors
    /// [`ApiError::Fields`] unless there are a name, a description, and a graph that holds together.
    fn change(&mut self, body: &Object) -> Result<String, ApiError> {
        let mut definition = self.definition.clone();
        for name in ["name", "description", "nodes", "edges"] {
            if let Some(value) = body.field(name) {
                definition.insert(name, value.clone());
            }
        }
        let mut form = Form::new(&definition);
        let name = form.text("name", MAX_NAME);
        form.text("description", MAX_DESCRIPTION);
        let has_tool = graph::has_tool(&mut form);
        let (name, has_tool) = form.finish(name.zip(has_tool))?;
        *self = Self { definition, has_tool, is_published: false };
        Ok(name)
    }
}

fn draft(message: &str, id: &str, name: &str) -> Value {
    json!({"message": message, "workflow_id": id, "name": name, "status": "draft"})
}
