//! The tools that can be used, for credits or for nothing (protocol §5.2, §6).

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::json::Object;

use super::{error::ApiError, form::Form};

/// A tool with its one action.
pub(super) struct Tool {
    product_id: &'static str,
    pub(super) slug: &'static str,
    action: &'static str,
    description: &'static str,
    pub(super) price: i64,
    outcome: ToolOutcome,
}

/// The outcome of a use.
#[derive(Clone, Copy, PartialEq, Eq)]
enum ToolOutcome {
    Success,
    /// It is charged, and then fails.
    Failure,
    /// It takes its time.
    LateSuccess,
}

pub(super) static TOOLS: [Tool; 4] = [
    Tool {
        product_id: "69a1c0d2e3f4051627384901",
        slug: "word-count",
        action: "count-words",
        description: "Counts the words of a text. It is free.",
        price: 0,
        outcome: ToolOutcome::Success,
    },
    Tool {
        product_id: "69a1c0d2e3f4051627384902",
        slug: "ai-writing-quality-check",
        action: "check-for-banned-phrases",
        description: "Finds phrases in a text that readers are tired of.",
        price: 5,
        outcome: ToolOutcome::Success,
    },
    Tool {
        product_id: "69a1c0d2e3f4051627384903",
        slug: "letter-printer",
        action: "print-letter",
        description: "Prints a letter. It is out of paper, which shows after it was charged.",
        price: 20,
        outcome: ToolOutcome::Failure,
    },
    Tool {
        product_id: "69a1c0d2e3f4051627384904",
        slug: "slow-survey",
        action: "ask-everyone",
        description: "Asks many people. An answer takes 20 seconds.",
        price: 50,
        outcome: ToolOutcome::LateSuccess,
    },
];

impl Tool {
    /// The tool of a path: its slug and that of its action, or for the older call its id alone.
    ///
    /// # Errors
    /// [`ApiError::ToolNotFound`].
    pub(super) fn named(name: &str, action: Option<&str>) -> Result<&'static Self, ApiError> {
        let is_named = |tool: &&Self| match action {
            Some(action) => tool.slug == name && tool.action == action,
            None => tool.product_id == name || tool.slug == name,
        };
        TOOLS.iter().find(is_named).ok_or(ApiError::ToolNotFound)
    }

    /// Uses it. It is paid for already, also if it fails and nothing comes of it.
    pub(super) async fn run(&self, parameters: Value, slow: Duration) -> Option<Value> {
        match self.outcome {
            ToolOutcome::Success => {}
            ToolOutcome::Failure => return None,
            ToolOutcome::LateSuccess => sleep(slow).await,
        }
        Some(json!({"action": self.action, "parameters": parameters}))
    }

    fn listing(&self) -> Value {
        json!({
            "product_id": self.product_id,
            "product_slug": self.slug,
            "name": self.slug,
            "description": self.description,
            "actions": [{"action_slug": self.action, "price_credits": self.price}],
        })
    }
}

/// The answer to a list of the tools.
pub(super) fn list() -> Value {
    let tools: Vec<_> = TOOLS.iter().map(Tool::listing).collect();
    json!({"tools": tools})
}

/// The value of `parameters` in a body.
///
/// # Errors
/// [`ApiError::Fields`] unless it is an object.
pub(super) fn parameters(body: &Object) -> Result<Value, ApiError> {
    let mut form = Form::new(body);
    let parameters = form.object("parameters");
    form.finish(parameters)
}
