//! An upstream inside this binary, for developing an agent without credits and for tests over real
//! sockets.
//!
//! It imitates the server of the protocol: sessions that end, signatures checked by recovering the
//! signer, reservations that expire, a review that pays. It keeps its state in memory and shares
//! only the protocol's plain types with the proxy; what was signed it works out for itself, from
//! the bytes that it received, so that a mistake of the proxy cannot agree with itself here.

mod board;
mod form;
mod job;
mod refusal;
mod seed;
mod session;
mod verify;
mod workflow;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

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

use self::{
    board::{Board, Page},
    form::{Form, JsonBody},
    refusal::Refusal,
    session::Sessions,
    verify::{Envelope, Route},
    workflow::Token,
};

/// The largest body that is taken, in bytes.
const MAX_BODY: usize = 1024 * 1024;

/// How long things last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A session, from its opening.
    pub session: Duration,
    /// A reservation and its workflow token.
    pub reservation: Duration,
    /// The review of a submission, after which it is approved and paid.
    pub review: Duration,
}

impl Default for Settings {
    /// 900 seconds, 30 minutes and 5 seconds.
    fn default() -> Self {
        Self {
            session: Duration::from_secs(900),
            reservation: Duration::from_secs(30 * 60),
            review: Duration::from_secs(5),
        }
    }
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that arrived, whatever came of them.
    pub requests: u64,
    /// Sessions that were opened.
    pub sessions: u64,
}

/// The upstream. Clones share one state.
#[derive(Clone)]
pub struct Sandbox(Arc<Mutex<Server>>);

/// Everything that requests change. It is locked between awaits, never across one.
struct Server {
    requests: u64,
    sessions: Sessions,
    board: Board,
}

impl Sandbox {
    /// The id of the first job, a general one.
    pub const FIRST_JOB: &str = seed::JOBS[0].id;

    /// An upstream with its dozen jobs open.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Mutex::new(Server {
            requests: 0,
            sessions: Sessions::new(settings.session),
            board: Board::new(settings.reservation, settings.review),
        })))
    }

    /// The service (protocol §1, §5); the caller binds the listener.
    pub fn router(&self) -> Router {
        Router::new()
            .route("/api/external/auth/session", post(open_session))
            .route("/api/external/jobs/list", post(list_jobs))
            .route("/api/external/jobs/{job_id}/reserve", post(reserve_job))
            .route("/api/external/jobs/{job_id}/complete", post(complete_job))
            .route("/api/external/jobs/{job_id}/status", post(job_status))
            .route("/api/external/jobs/{job_id}/workflow/create", post(create_workflow))
            .route("/api/external/jobs/{job_id}/workflow/{workflow_id}", put(update_workflow))
            .route(
                "/api/external/jobs/{job_id}/workflow/{workflow_id}/publish",
                post(publish_workflow),
            )
            .fallback(async || Refusal::NotFound)
            .method_not_allowed_fallback(async || Refusal::MethodNotAllowed)
            .layer(DefaultBodyLimit::max(MAX_BODY))
            .layer(middleware::from_fn_with_state(self.clone(), count_request))
            .with_state(self.clone())
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let server = self.server();
        Counts { requests: server.requests, sessions: server.sessions.opened() }
    }

    /// How often a correctly signed proof arrived for a job, whether it was taken or refused.
    pub fn submissions(&self, job_id: &str) -> u64 {
        self.server().board.submissions(job_id)
    }

    /// A panic elsewhere leaves nothing half changed that would matter to an imitation.
    fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

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

/// Hides the state, which holds nonces and tokens.
impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sandbox").field(&self.counts()).finish()
    }
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

/// The time in whole milliseconds: some RFC 3339 readers take no more digits.
fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}

/// The end of something that begins at `start`; the last timestamp there is if it lies beyond.
fn end_of(start: Timestamp, duration: Duration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}
