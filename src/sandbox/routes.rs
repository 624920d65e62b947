//! The calls that are answered (protocol §1, §5), each by its handler.

use axum::{
    Router,
    extract::{DefaultBodyLimit, Path, Request, State},
    http::header::CONTENT_TYPE,
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{post, put},
};
use jiff::{Timestamp, Unit};
use serde_json::Value;

use crate::{canonical::Object, types::Address};

use super::{
    Sandbox,
    board::Page,
    form::{Form, JsonBody},
    refusal::Refusal,
    verify::{self, Envelope, Route},
    workflow::Token,
};

/// The largest body that is taken, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// Every route.
pub(super) fn router(sandbox: &Sandbox) -> Router {
    Router::new()
        .route("/api/external/auth/session", post(open_session))
        .route("/api/external/jobs/list", post(list_jobs))
        .route("/api/external/jobs/{job_id}/reserve", post(reserve_job))
        .route("/api/external/jobs/{job_id}/complete", post(complete_job))
        .route("/api/external/jobs/{job_id}/status", post(job_status))
        .route("/api/external/jobs/{job_id}/workflow/create", post(create_workflow))
        .route("/api/external/jobs/{job_id}/workflow/{workflow_id}", put(update_workflow))
        .route("/api/external/jobs/{job_id}/workflow/{workflow_id}/publish", post(publish_workflow))
        .fallback(async || Refusal::NotFound)
        .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
        .with_state(sandbox.clone())
}

/// Counts the calls, and limits their bodies.
pub(super) fn counted(sandbox: &Sandbox, router: Router) -> Router {
    router
        .layer(DefaultBodyLimit::max(MAX_BODY))
        .layer(middleware::from_fn_with_state(sandbox.clone(), count_request))
}

async fn open_session(
    State(sandbox): State<Sandbox>,
    JsonBody(body): JsonBody,
) -> Result<Answer, Refusal> {
    let mut form = Form::new(&body);
    let wallet = form.address("wallet_address");
    let wallet = form.finish(wallet)?;
    Ok(Answer(sandbox.server().sessions.open(wallet, now())))
}

async fn list_jobs(
    State(sandbox): State<Sandbox>,
    JsonBody(body): JsonBody,
) -> Result<Answer, Refusal> {
    let (_, body) = sandbox.verified(Route::List, body)?;
    let page = Page::read(&body)?;
    Ok(Answer(sandbox.server().board.list(page, now())))
}

async fn reserve_job(
    State(sandbox): State<Sandbox>,
    Path(job_id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Answer, Refusal> {
    let (wallet, _) = sandbox.verified(Route::Reserve(&job_id), body)?;
    sandbox.server().board.reserve(&job_id, wallet, now()).map(Answer)
}

async fn complete_job(
    State(sandbox): State<Sandbox>,
    Path(job_id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Answer, Refusal> {
    let (wallet, body) = sandbox.verified(Route::Complete(&job_id), body)?;
    sandbox.server().board.complete(&job_id, wallet, &body, now()).map(Answer)
}

async fn job_status(
    State(sandbox): State<Sandbox>,
    Path(job_id): Path<String>,
    JsonBody(body): JsonBody,
) -> Result<Answer, Refusal> {
    let (wallet, _) = sandbox.verified(Route::Status(&job_id), body)?;
    sandbox.server().board.status(&job_id, wallet, now()).map(Answer)
}

async fn create_workflow(
    State(sandbox): State<Sandbox>,
    Path(job_id): Path<String>,
    token: Token,
    JsonBody(body): JsonBody,
) -> Result<Answer, Refusal> {
    let mut server = sandbox.server();
    let workspace = server.board.workspace(&job_id, &token, now())?;
    workspace.create(&body).map(Answer)
}

async fn update_workflow(
    State(sandbox): State<Sandbox>,
    Path((job_id, workflow_id)): Path<(String, String)>,
    token: Token,
    JsonBody(body): JsonBody,
) -> Result<Answer, Refusal> {
    let mut server = sandbox.server();
    let workspace = server.board.workspace(&job_id, &token, now())?;
    workspace.update(&workflow_id, &body).map(Answer)
}

async fn publish_workflow(
    State(sandbox): State<Sandbox>,
    Path((job_id, workflow_id)): Path<(String, String)>,
    token: Token,
    JsonBody(_): JsonBody,
) -> Result<Answer, Refusal> {
    let mut server = sandbox.server();
    server.board.workspace(&job_id, &token, now())?.publish(&workflow_id).map(Answer)
}

async fn count_request(State(sandbox): State<Sandbox>, request: Request, next: Next) -> Response {
    sandbox.server().requests += 1;
    next.run(request).await
}

/// A 200 with a JSON body.
struct Answer(Value);

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.0.to_string()).into_response()
    }
}

impl Sandbox {
    /// The wallet that signed a call, and the call's body without the envelope.
    ///
    /// The recovery of the signer is slow and needs no state, so it runs outside the lock. The id
    /// is used up last: only a correctly signed call may burn one.
    fn verified(&self, route: Route<'_>, mut body: Object) -> Result<(Address, Object), Refusal> {
        let envelope = Envelope::take(&mut body)?;
        self.server().sessions.check(&envelope, now())?;
        verify::signer(&envelope, route, &body)?;
        self.server().sessions.use_once(&envelope, now())?;
        Ok((envelope.wallet, body))
    }
}

/// The time in whole milliseconds: some RFC 3339 readers take no more digits.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}
