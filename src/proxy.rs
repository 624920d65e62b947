//! The flow of one call, from an unsigned request to the upstream's answer.

use std::sync::Arc;

use http::HeaderValue;
use tokio::{sync::oneshot, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{
    call::{Call, SignedCall},
    canonical::CanonicalJson,
    message::Message,
    refusal::{Refusal, first_difference},
    session::{SessionError, Sessions},
    signer::Signer,
    types::{Address, RequestId, SessionNonce, Slug},
    upstream::{Answer, Request, Upstream, UpstreamError},
    workflow_token::WorkflowTokens,
};

/// Why a call has no answer of the upstream.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no session, so nothing was signed.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The upstream did not answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A workflow call for a job whose workflow token is not held. Nothing was sent.
    #[error("no workflow token is held for job {job}")]
    NoWorkflowToken {
        /// The job.
        job: Slug,
    },
    /// The call ended early through a fault of this program.
    #[error("the call ended early inside the proxy")]
    Aborted,
}

/// A wallet, its session, and the way to the upstream.
#[derive(Debug)]
pub struct Proxy {
    signer: Signer,
    sessions: Sessions,
    workflow_tokens: WorkflowTokens,
    upstream: Upstream,
    tasks: TaskTracker,
    expose_workflow_token: bool,
}

impl Proxy {
    /// A proxy that signs with `signer`. Nothing is sent before the first call.
    pub fn new(signer: Signer, upstream: Upstream, expose_workflow_token: bool) -> Self {
        let sessions = Sessions::new(upstream.clone(), signer.address());
        let workflow_tokens = WorkflowTokens::default();
        let tasks = TaskTracker::new();
        Self { signer, sessions, workflow_tokens, upstream, tasks, expose_workflow_token }
    }

    /// The wallet that signs.
    pub fn wallet(&self) -> Address {
        self.signer.address()
    }

    /// Makes one call: proves it, sends it, and returns the upstream's answer.
    ///
    /// It runs to its end even if the caller goes away, so that a change that was sent is not left
    /// without anyone to hear its outcome.
    ///
    /// # Errors
    /// See [`CallError`]; an answer of the upstream is never an error, whatever its status.
    pub async fn call(self: &Arc<Self>, call: Call) -> Result<Answer, CallError> {
        let proxy = self.clone();
        let (reply, answer) = oneshot::channel();
        self.tasks.spawn(async move {
            let deadline = proxy.upstream.deadline();
            let result = match call.signed() {
                Some(signed) => proxy.call_signed(signed, deadline).await,
                None => proxy.call_with_token(&call, deadline).await,
            };
            if let Err(unheard) = reply.send(result) {
                log_unheard(&call, &unheard);
            }
        });
        answer.await.unwrap_or(Err(CallError::Aborted))
    }

    /// Waits for the calls that run without anyone waiting for them. No call may begin afterwards.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Signs and sends; once more if the upstream refused the session, and once more if it had seen
    /// the request id. Each time with a fresh request id.
    async fn call_signed(
        &self,
        signed: SignedCall<'_>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let call = signed.call();
        let mut may_renew = true;
        let mut may_change_id = true;
        loop {
            let nonce = self.sessions.nonce(deadline).await?;
            let request_id = RequestId::random();
            let message = Message::new(signed, self.wallet(), &nonce, &request_id);
            let body = self.signed_body(call, &message, &nonce, &request_id);
            let answer = self.send(call, body.into(), None, deadline).await?;
            match Refusal::of(&answer) {
                Some(Refusal::SessionOver) if may_renew => {
                    self.sessions.forget(&nonce);
                    may_renew = false;
                }
                Some(Refusal::Replay) if may_change_id => may_change_id = false,
                Some(Refusal::WrongSignature { expected_message }) => {
                    log_difference(call, &message, expected_message.as_deref());
                    return Ok(answer);
                }
                _ => return Ok(self.keep_workflow_token(call, answer)),
            }
        }
    }

    async fn call_with_token(&self, call: &Call, deadline: Instant) -> Result<Answer, CallError> {
        // The path of every such call begins with the job's id.
        let job = call.id().ok_or(CallError::Aborted)?;
        let token = self.workflow_tokens.header(job);
        let token = token.ok_or_else(|| CallError::NoWorkflowToken { job: job.clone() })?;
        self.send(call, call.body().to_canonical().into(), Some(token), deadline).await
    }

    /// The body with the envelope in it (protocol §3).
    fn signed_body(
        &self,
        call: &Call,
        message: &Message,
        nonce: &SessionNonce,
        request_id: &RequestId,
    ) -> CanonicalJson {
        let signature = self.signer.sign(message).to_hex();
        let mut body = call.body().clone();
        body.insert("wallet_address", CanonicalJson::string(&self.wallet().to_string()));
        body.insert("session_nonce", CanonicalJson::string(nonce.expose()));
        body.insert("request_id", CanonicalJson::string(request_id.as_str()));
        body.insert("signature", CanonicalJson::string(&signature));
        body.to_canonical()
    }

    async fn send(
        &self,
        call: &Call,
        body: String,
        workflow_token: Option<HeaderValue>,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        let method = call.action().method.clone();
        let request = Request { method, path: call.path(), body, workflow_token };
        Ok(self.upstream.send(request, deadline).await?)
    }

    fn keep_workflow_token(&self, call: &Call, mut answer: Answer) -> Answer {
        if let Some(job) = call.id().filter(|_| call.action().reserves) {
            let withheld = self.workflow_tokens.keep(job, &answer.body);
            if let Some(body) = withheld.filter(|_| !self.expose_workflow_token) {
                answer.body = body;
            }
        }
        answer
    }
}

/// A client that goes away gets no answer, and its request no log event: this one stands for both.
fn log_unheard(call: &Call, result: &Result<Answer, CallError>) {
    let (action, path) = (call.action().name, call.path());
    match result {
        Ok(answer) => {
            let status = answer.status.as_u16();
            tracing::warn!(action, path, status, "the client went away before its answer");
        }
        Err(error) => {
            tracing::warn!(action, path, %error, "the client went away before its answer")
        }
    }
}

/// Names the line that differs, not what it holds: the upstream could have put anything there.
fn log_difference(call: &Call, message: &Message, expected_message: Option<&str>) {
    let line = expected_message.and_then(|theirs| first_difference(message, theirs));
    tracing::error!(
        action = call.action().name,
        first_line_that_differs = line.as_deref().unwrap_or("unknown"),
        "the upstream rebuilt another message than was signed; this is a bug, please report it"
    );
}
