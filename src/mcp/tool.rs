//! The tools: one for each row of the table of calls, and one for each of the proxy's own paths that an
//! agent needs.

use std::sync::{Arc, LazyLock};

use http::Method;
use rmcp::model::{self, ToolAnnotations};
use serde_json::{Map, Value, json};

use crate::{
    action::{ACTIONS, Action, Effect, Needs},
    json_schema, next_job,
};

/// The argument with the key under which a change is made at most once.
pub(super) const KEY: &str = "idempotency_key";

/// All tools, in the order of the table.
static TOOLS: LazyLock<Vec<McpTool>> = LazyLock::new(|| {
    let calls = ACTIONS.iter().map(McpTool::of);
    calls.chain(own()).collect()
});

/// One tool.
pub(super) struct McpTool {
    pub(super) name: &'static str,
    title: &'static str,
    description: &'static str,
    pub(super) method: Method,
    /// With `{…}` for each id.
    pub(super) path: &'static str,
    /// The names of the query.
    pub(super) query: Vec<&'static str>,
    /// The schema of its arguments, without a key.
    input: Value,
    pub(super) effect: Effect,
    pub(super) needs: Needs,
    /// Whether a key is derived for a call that comes without one.
    pub(super) derives_key: bool,
}

/// The tools on the proxy's own paths.
fn own() -> [McpTool; 3] {
    let job = json!({
        "type": "object",
        "properties": { "job_id": json_schema::id("job_id") },
        "required": ["job_id"],
    });
    let mut filters = json_schema::object(next_job::FIELDS, false);
    filters["additionalProperties"] = false.into();
    filters["properties"]["wait"] = json!({
        "type": "string", "pattern": "^[0-9]+s$",
        "description": "How long to wait for such a job, as in `20s`; up to `40s` here.",
    });
    [
        McpTool {
            name: "next_job",
            title: "Reserve the best job there is",
            description: "Instead of `job_list` and `job_reserve`, where many agents work: it reserves the \
                open job that pays most and answers as `job_reserve` does, so that no two agents race. \
                The job is the caller's alone for 30 minutes, until `reserved_until`. An empty answer \
                means that there is no such job now: call again after `retry_after` seconds. If the \
                answer is lost, ask `reservations` before you call again.",
            method: Method::POST,
            path: "/proxy/jobs/next",
            query: Vec::new(),
            input: filters,
            effect: Effect::Reserves,
            needs: Needs::Nothing,
            derives_key: false,
        },
        McpTool {
            name: "reservations",
            title: "List the reservations of this client",
            description: "The jobs that this client has reserved through the proxy and that still run, \
                each with `seconds_left`, the first to end first. Ask it after a lost answer to \
                `job_reserve`, or to see how much time is left.",
            method: Method::GET,
            path: "/proxy/reservations",
            query: Vec::new(),
            input: json!({ "type": "object", "properties": {} }),
            effect: Effect::None,
            needs: Needs::Nothing,
            derives_key: false,
        },
        McpTool {
            name: "wait_for_review",
            title: "Wait until the review of a job has an end",
            description: "Call it after `job_complete`: it answers as `job_status` does, as soon as \
                `submission.status` is `approved` or `rejected`, or after 45 seconds with what is known \
                by then. Call it again until it is one of the two.",
            method: Method::POST,
            path: "/api/external/jobs/{job_id}/status?wait=45s",
            query: Vec::new(),
            input: job,
            effect: Effect::None,
            needs: Needs::Nothing,
            derives_key: false,
        },
    ]
}

impl McpTool {
    pub(super) fn all() -> &'static [Self] {
        &TOOLS
    }

    pub(super) fn named(name: &str) -> Option<&'static Self> {
        TOOLS.iter().find(|tool| tool.name == name)
    }

    fn of(action: &'static Action) -> Self {
        Self {
            name: action.name,
            title: action.summary,
            description: action.description,
            method: action.method.clone(),
            path: action.path,
            query: action.query.iter().map(|field| field.name).collect(),
            input: json_schema::input(action),
            effect: action.effect,
            needs: action.needs,
            // A completion has a key of its own in the ledger, and what may be repeated needs none.
            derives_key: action.changes()
                && action.effect != Effect::Submits
                && !action.method.is_idempotent(),
        }
    }

    pub(super) fn changes(&self) -> bool {
        self.effect != Effect::None
    }

    /// The tool as clients list it.
    pub(super) fn listed(&self) -> model::Tool {
        let mut input = self.input.clone();
        let mut description = format!("{}. {}", self.title, self.description);
        if self.changes() {
            let key = json!({
                "type": "string",
                "description": "A name for this one call: it is made once, however often it is sent.",
            });
            input["properties"][KEY] = key;
        }
        if self.derives_key {
            description += " The same arguments again are answered with the first answer, and not sent \
                            again: to make the call anew, give a new `idempotency_key`.";
        }
        let tool = model::Tool::new(self.name, description, object(input)).with_title(self.title);
        // Open, as the upstream may add fields.
        let output = object(json!({ "type": "object", "additionalProperties": true }));
        tool.with_raw_output_schema(Arc::new(output)).with_annotations(self.hints())
    }

    fn hints(&self) -> ToolAnnotations {
        let hints = ToolAnnotations::with_title(self.title).open_world(true);
        match self.effect {
            Effect::None => hints.read_only(true),
            Effect::Reserves | Effect::Submits => {
                let is_repeat = self.derives_key || self.effect == Effect::Submits;
                hints.read_only(false).destructive(false).idempotent(is_repeat)
            }
            Effect::Spends | Effect::Pays | Effect::Other => {
                hints.read_only(false).destructive(true).idempotent(self.method.is_idempotent())
            }
        }
    }
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(object) = value { object } else { Map::new() }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn the_tools_are_the_rows_of_the_table_and_own_paths_under_names_that_models_take() {
        let names: Vec<_> = McpTool::all().iter().map(|tool| tool.name).collect();
        assert!(names.starts_with(&ACTIONS.iter().map(|row| row.name).collect::<Vec<_>>()));
        assert_eq!(names.iter().collect::<HashSet<_>>().len(), names.len());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-';
        assert!(names.iter().all(|name| name.len() < 50 && name.bytes().all(is_plain)));
    }

    #[test]
    fn hints_follow_the_effect_and_only_changes_take_a_key() {
        for tool in McpTool::all() {
            let listed = tool.listed();
            let hints = listed.annotations.unwrap();
            assert_eq!(hints.read_only_hint, Some(tool.effect == Effect::None), "{}", tool.name);
            assert_eq!(hints.open_world_hint, Some(true), "{}", tool.name);
            let takes_key = listed.input_schema["properties"].get(KEY).is_some();
            assert_eq!(takes_key, tool.effect != Effect::None, "{}", tool.name);
            assert!(!listed.description.unwrap().is_empty(), "{}", tool.name);
        }
        let hints = |name| McpTool::named(name).unwrap().hints();
        assert!(!hints("job_reserve").is_destructive() && hints("job_complete").is_idempotent());
        assert!(hints("job_workflow_publish").is_destructive());
    }
}
