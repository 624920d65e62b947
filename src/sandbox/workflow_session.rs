//! The published workflows, and the sessions in which wallets run them (protocol §5.2).

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{json::Object, types::Address};

use super::{
    error::ApiError,
    form::{Form, Page},
    job::MAX_ID,
};

/// A workflow as it was published.
struct Published {
    id: &'static str,
    name: &'static str,
    description: &'static str,
    /// The tool of its one tool node.
    product_id: &'static str,
}

static PUBLISHED: [Published; 2] = [
    Published {
        id: "69b2d1e3f405162738495a01",
        name: "Check a newsletter",
        description: "Counts the words of a draft and asks a person if there are too many.",
        product_id: "69a1c0d2e3f4051627384901",
    },
    Published {
        id: "69b2d1e3f405162738495a02",
        name: "Check a product page",
        description: "Finds tired phrases on a page and asks for better ones.",
        product_id: "69a1c0d2e3f4051627384902",
    },
];

/// The sessions that were started, in order.
#[derive(Default)]
pub(super) struct WorkflowSessions(Vec<WorkflowSession>);

struct WorkflowSession {
    id: String,
    wallet: Address,
    workflow: &'static Published,
    /// The client's own name for the run.
    instance: Option<String>,
    start: Timestamp,
}

impl Published {
    fn listing(&self) -> Value {
        json!({"workflow_id": self.id, "name": self.name, "description": self.description})
    }

    fn with_id(id: &str) -> Result<&'static Self, ApiError> {
        let workflow = PUBLISHED.iter().find(|workflow| workflow.id == id);
        workflow.ok_or(ApiError::PublishedWorkflowNotFound)
    }
}

/// The answer to a list of the workflows; the fields are those of its query.
pub(super) fn list(query: &Object) -> Result<Value, ApiError> {
    let page = Page::read(query)?;
    let workflows: Vec<_> = page.of(PUBLISHED.iter()).map(Published::listing).collect();
    Ok(json!({
        "workflows": workflows, "limit": page.limit, "skip": page.skip, "total": PUBLISHED.len(),
    }))
}

/// The answer to a fetch of a workflow: its whole graph.
pub(super) fn fetch(id: &str) -> Result<Value, ApiError> {
    let workflow = Published::with_id(id)?;
    let mut answer = workflow.listing();
    answer["nodes"] = json!([
        {"id": "check", "type": "tool", "label": "Check",
         "tool": {"product_id": workflow.product_id, "product_name": "Check"}},
        {"id": "ask", "type": "notify_human", "label": "Ask", "notify_human": {"text": "Look at it"}},
    ]);
    answer["edges"] = json!([{"id": "e1", "from": "check", "to": "ask"}]);
    Ok(json!({"workflow": answer}))
}

impl WorkflowSessions {
    pub(super) fn start(
        &mut self,
        id: &str,
        wallet: Address,
        body: &Object,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        let workflow = Published::with_id(id)?;
        let instance = given(body).text("instance_id");
        let id = Uuid::new_v4().simple().to_string();
        let session = WorkflowSession { id, wallet, workflow, instance, start: now };
        let answer = session.answer("active");
        self.0.push(session);
        Ok(answer)
    }

    /// The sessions of a wallet that run, of one instance if one is named.
    pub(super) fn active(&self, wallet: Address, body: &Object) -> Value {
        let instance = given(body).text("instance_id");
        let sessions = self.0.iter().filter(|session| session.wallet == wallet);
        let sessions =
            sessions.filter(|session| instance.is_none() || session.instance == instance);
        let sessions: Vec<_> = sessions.map(|session| session.answer("active")).collect();
        json!({"sessions": sessions})
    }

    pub(super) fn end(
        &mut self,
        workflow_id: &str,
        wallet: Address,
        body: &Object,
    ) -> Result<Value, ApiError> {
        let given = given(body);
        let mut form = Form::new(&given);
        let id = form.text("workflow_session_id", MAX_ID);
        let id = form.finish(id)?;
        let is_ended = |session: &WorkflowSession| {
            session.id == id && session.wallet == wallet && session.workflow.id == workflow_id
        };
        let index = self.0.iter().position(is_ended).ok_or(ApiError::WorkflowSessionNotFound)?;
        Ok(self.0.remove(index).answer("ended"))
    }
}

impl WorkflowSession {
    fn answer(&self, status: &str) -> Value {
        json!({
            "workflow_session_id": self.id,
            "workflow_id": self.workflow.id,
            "instance_id": self.instance,
            "status": status,
            "started_at": self.start.to_string(),
        })
    }
}

/// The object in `parameters`, or else the body itself.
fn given(body: &Object) -> Object {
    let parameters = body.field("parameters");
    let parameters = parameters.and_then(|value| Object::parse(value.as_str().as_bytes()).ok());
    parameters.unwrap_or_else(|| body.clone())
}
