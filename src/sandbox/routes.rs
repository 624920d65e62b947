//! The calls that are answered (protocol §1, §5): one for each row of the table.

use axum::{
    Json, Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{MethodFilter, on, post},
};
use serde_json::{Value, json};

use crate::{
    action::{Action, Proof, SESSION_PATH},
    json::Object,
    types::Address,
};

use super::{
    api::{Api, Sandbox},
    error::ApiError,
    form::{self, Form},
    header::payment_of,
    paid,
    time::now,
    tool::{self, Tool},
    verify::Arrived,
    workflow::Token,
    workflow_session,
};

/// The largest body that is taken, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Every route.
pub(super) fn router(sandbox: &Sandbox) -> Router {
    let mut router = Router::new().route(SESSION_PATH, post(open_session));
    let rows = sandbox.actions.iter().filter(|action| !action.is_paid_row(sandbox.actions));
    for action in rows {
        let handler = move |State(sandbox): State<Sandbox>, Path(ids), request| async move {
            answer(action, &sandbox, ids, request).await
        };
        let method = MethodFilter::try_from(action.method.clone());
        // A row with a method that axum cannot route would show in every test.
        let method = method.expect("a method that can be routed");
        router = router.route(action.path, on(method, handler));
    }
    router
        .fallback(async || ApiError::NotFound)
        .method_not_allowed_fallback(async || ApiError::MethodNotAllowed)
        .with_state(sandbox.clone())
}

/// Counts the calls, and limits their bodies.
pub(super) fn counted(sandbox: &Sandbox, router: Router) -> Router {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(sandbox.clone(), count_request))
}

async fn count_request(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    sandbox.api().requests += 1;
    next.run(request).await
}

async fn open_session(
    State(sandbox): State<Sandbox>,
    request: Request,
) -> Result<Json<Value>, ApiError> {
    let (_, body) = form::read(request).await?;
    let body = form::object(&body)?;
    let mut form = Form::new(&body);
    let wallet = form.address("wallet_address");
    let wallet = form.finish(wallet)?;
    Ok(Json(sandbox.api().nonces.open(wallet, now())))
}

/// Checks the proof of a call and does what there is to do for its row. A row that stands nowhere here
/// is answered with what arrived.
async fn answer(
    action: &'static Action,
    sandbox: &Sandbox,
    ids: Vec<String>,
    request: Request,
) -> Result<Response, ApiError> {
    let (head, body) = form::read(request).await?;
    let body = match head.uri.query() {
        query if head.method.is_safe() => form::query(query.unwrap_or_default()),
        _ => form::object(&body)?,
    };
    let id = |index| ids.get(index).map_or("", String::as_str);
    let is_signed = body.field("signature").is_some() && body.field("session_nonce").is_some();
    match action.name {
        "credits_purchase" => return paid::purchase(sandbox, &head, &body).await,
        "tool_invoke" if payment_of(&head.headers).is_some() && is_signed => {
            return Err(ApiError::TwoProofs);
        }
        "tool_invoke" if !is_signed => {
            let tool = Tool::named(id(0), Some(id(1)))?;
            return paid::use_tool(sandbox, tool, &head, &body).await;
        }
        _ => {}
    }
    let other = || Ok(json!({"action": action.name, "received": head.uri.to_string()}));
    let answer = match &action.proof {
        Proof::None | Proof::Payment => match action.name {
            "tools" => Ok(tool::list()),
            "workflows" => workflow_session::list(&body),
            _ => other(),
        },
        Proof::Signature(signed) => {
            let arrived = Arrived::new(action, signed, head.uri.path(), body)?;
            let (wallet, body) = sandbox.verified(arrived)?;
            let tool = match action.name {
                "tool_invoke" => Some(Tool::named(id(0), Some(id(1)))?),
                "invoke" => Some(Tool::named(id(0), None)?),
                _ => None,
            };
            if let Some(tool) = tool {
                return sandbox.use_tool(tool, wallet, &body).await.map(into_response);
            }
            let (mut api, now) = (sandbox.api(), now());
            let Api { board, credits, workflow_sessions: sessions, .. } = &mut *api;
            match action.name {
                "job_list" => board.list(&body, wallet, now),
                "job_reserve" => board.job(id(0), now)?.reserve(wallet, now),
                "job_complete" => board.job(id(0), now)?.complete(wallet, &body, credits, now),
                "job_status" => Ok(board.job(id(0), now)?.status_for(wallet, credits, now)),
                "balance" => Ok(credits.answer(wallet, now)),
                "workflow_fetch" => workflow_session::fetch(id(0)),
                "workflow_start" => sessions.start(id(0), wallet, &body, now),
                "workflow_active" => Ok(sessions.active(wallet, &body)),
                "workflow_end" => sessions.end(id(0), wallet, &body),
                _ => other(),
            }
        }
        Proof::WorkflowToken => {
            let token = Token::of(&head.headers)?;
            let mut api = sandbox.api();
            let workspace = api.board.job(id(0), now())?.workspace(&token)?;
            match action.name {
                "job_workflow_create" => workspace.create(&body),
                "job_workflow_update" => workspace.update(id(1), &body),
                "job_workflow_publish" => workspace.publish(id(1)),
                _ => other(),
            }
        }
    };
    answer.map(into_response)
}

fn into_response(answer: Value) -> Response {
    Json(answer).into_response()
}

impl Sandbox {
    /// Uses a tool for a wallet's credits, which are taken first.
    async fn use_tool(
        &self,
        tool: &Tool,
        wallet: Address,
        body: &Object,
    ) -> Result<Value, ApiError> {
        let parameters = tool::parameters(body)?;
        let reason = format!("tool {}", tool.slug);
        let charge = self.api().credits.spend(wallet, tool.price, now(), reason)?;
        let result = tool.run(parameters, self.slow_tool).await;
        let result = result.ok_or(ApiError::ToolFailed(Some(charge)))?;
        Ok(charge.beside(json!({"success": true, "result": result})))
    }

    /// The wallet that signed a call, and the call's body without the envelope.
    ///
    /// The recovery of the signer is slow and needs no state, so it runs outside the lock. The id
    /// is used up last: only a correctly signed call may burn one.
    fn verified(&self, call: Arrived<'_>) -> Result<(Address, Object), ApiError> {
        self.api().nonces.check(&call.envelope, now())?;
        call.check_signer()?;
        self.api().nonces.use_once(&call.envelope, now())?;
        Ok((call.envelope.wallet, call.body))
    }
}
