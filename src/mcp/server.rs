//! The server that clients speak to, over HTTP or standard input.

use std::{sync::Arc, time::Duration};

use http::request::Parts;
use rmcp::{
    ErrorData, RoleServer, ServerHandler,
    model::{
        CacheScope, CallToolRequestParams, CallToolResponse, CallToolResult, Implementation,
        ListToolsResult, PaginatedRequestParams, ServerCapabilities, ServerConfig,
    },
    service::RequestContext,
};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use super::{
    key::{self, Door},
    request::ToolRequest,
    result::{refused, result},
    tool::McpTool,
};
use crate::{
    action::Effect,
    problem::Problem,
    problems::{OUTCOME_UNKNOWN, Retry, UPSTREAM_TIMEOUT},
};

/// How long a tool call may take. Some clients give up after a minute, and tell their model nothing.
const MOST: Duration = Duration::from_secs(50);

/// How long a client may keep the list of tools, in milliseconds.
const LIST_KEPT: u64 = 60_000;

const INSTRUCTIONS: &str = "Work on AgentPMT jobs for credits, through a proxy that signs for the wallet.\n\
    1. job_list: take a job whose status is open.\n\
    2. job_reserve, or next_job for both: read the instructions; the job is yours for 30 minutes, until \
    reserved_until.\n\
    3. Do the work, then job_complete with the proof, once, before the reservation ends.\n\
    4. wait_for_review, again until submission.status is approved or rejected.\n\
    A result with isError says what to do in detail, advice and retry: safe may be sent again, \
    check_first means to ask job_status or reservations before, never means not to repeat it.";

/// The tools behind a door.
#[derive(Debug)]
pub(crate) struct Mcp<D>(Arc<D>);

impl<D> Clone for Mcp<D> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<D: Door> Mcp<D> {
    pub(crate) fn new(door: D) -> Self {
        Self(Arc::new(door))
    }

    async fn call(
        &self,
        tool: &McpTool,
        arguments: Map<String, Value>,
        outer: Option<&Parts>,
    ) -> CallToolResult {
        let request = match ToolRequest::new(tool, arguments) {
            Ok(request) => request,
            Err(problem) => return refused(&problem),
        };
        match timeout(MOST, key::send(&*self.0, tool, &request, outer)).await {
            Ok(Ok(answer)) => result(&answer),
            Ok(Err(detail)) => CallToolResult::structured_error(json!({
                "detail": detail,
                "retry": if tool.changes() { Retry::CheckFirst } else { Retry::Safe }.as_str(),
            })),
            Err(_) => refused(&too_slow(tool, request.key.is_some())),
        }
    }
}

/// A call that goes on without its client.
fn too_slow(tool: &McpTool, has_key: bool) -> Problem {
    let seconds = MOST.as_secs();
    let is_made_once = has_key || tool.derives_key || tool.effect == Effect::Submits;
    let next = match is_made_once {
        true => "call it again with the same arguments to ask for its answer: it is not made twice",
        false => "ask `reservations` before you call it again",
    };
    let (kind, detail) = match tool.changes() {
        true => (
            &OUTCOME_UNKNOWN,
            format!(
                "{} has no answer after {seconds} s and may still take effect; {next}",
                tool.name
            ),
        ),
        false => (
            &UPSTREAM_TIMEOUT,
            format!("{} has no answer after {seconds} s; call it again", tool.name),
        ),
    };
    let retry = if tool.changes() { Retry::CheckFirst } else { Retry::Safe };
    Problem { retry, ..Problem::new(kind, detail) }
}

impl<D: Door> ServerHandler for Mcp<D> {
    fn get_info(&self) -> ServerConfig {
        let about = Implementation::new("agentpmt-proxy", env!("CARGO_PKG_VERSION"));
        ServerConfig::new(ServerCapabilities::builder().enable_tools().build())
            .with_server_info(about.with_title("AgentPMT"))
            .with_instructions(INSTRUCTIONS)
    }

    async fn list_tools(
        &self,
        _: Option<PaginatedRequestParams>,
        _: RequestContext<RoleServer>,
    ) -> Result<ListToolsResult, ErrorData> {
        let mut list =
            ListToolsResult::with_all_items(McpTool::all().iter().map(McpTool::listed).collect());
        (list.ttl_ms, list.cache_scope) = (Some(LIST_KEPT), Some(CacheScope::Private));
        Ok(list)
    }

    fn get_tool(&self, name: &str) -> Option<rmcp::model::Tool> {
        McpTool::named(name).map(McpTool::listed)
    }

    async fn call_tool(
        &self,
        request: CallToolRequestParams,
        context: RequestContext<RoleServer>,
    ) -> Result<CallToolResponse, ErrorData> {
        let tool = McpTool::named(&request.name).ok_or_else(|| {
            ErrorData::invalid_params(format!("there is no tool {:?}", request.name), None)
        })?;
        let outer = context.extensions.get::<Parts>();
        tokio::select! {
            result = self.call(tool, request.arguments.unwrap_or_default(), outer) => Ok(result.into()),
            // Its client has gone, and reads nothing.
            () = context.ct.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
        }
    }
}
