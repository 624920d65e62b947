//! The flow of one call, from an unsigned request to the upstream's answer, whatever breaks between.

mod reservations;
mod settle;

use std::sync::Arc;

use http::HeaderValue;
use jiff::Timestamp;
use sha2::{Digest, Sha256};
use tokio::{
    sync::{OwnedSemaphorePermit, oneshot},
    time::{Instant, sleep, timeout_at},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::{reservations::Reservations, settle::is_silent};
use crate::{
    action::Effect,
    call::{Call, SignedCall},
    canonical::CanonicalJson,
    job_status::JobStatus,
    refusal::Refusal,
    reservation::{self, Reserved},
    retry::{Next, Outcome, Tries},
    sender::{Origin, Sender, Try},
    session::SessionError,
    signer::Signer,
    store::{Claim, Reservation, Settled, Store, StoreError, StoredAnswer},
    turns::Turns,
    types::{Address, IdempotencyKey, RequestId, Slug},
    upstream::{Answer, Upstream, UpstreamError},
};

/// The name of the one client there is.
const LOCAL: &str = "local";

/// A request of a client.
#[derive(Debug, Clone)]
pub struct Incoming {
    /// The call it asks for.
    pub call: Call,
    /// Its id, which is also in its answer.
    pub call_id: RequestId,
    /// The key under which a change is made at most once.
    pub key: Option<IdempotencyKey>,
    /// Its place among the calls in flight.
    pub place: Option<Place>,
}

/// A place among the calls in flight, free again when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Place(pub Arc<OwnedSemaphorePermit>);

/// Why a call has no answer of the upstream.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no session, so the call had no effect.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// The upstream did not answer; the error knows whether the call may have had an effect.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// What has to be on record could not be written or read. Nothing was signed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// A workflow call for a job whose workflow token is not held. Nothing was sent.
    #[error("no workflow token is held for job {job}")]
    NoWorkflowToken {
        /// The job.
        job: Slug,
    },
    /// A completion after the end of its reservation. Nothing was sent.
    #[error("the reservation of job {job} ended at {ended}")]
    ReservationExpired {
        /// The job.
        job: Slug,
        /// The end.
        ended: Timestamp,
    },
    /// The key was used for another call. Nothing was sent.
    #[error("the Idempotency-Key was used for another call")]
    KeyReused,
    /// Somebody is at work on the call with this key.
    #[error("the call with this Idempotency-Key is still being made")]
    KeyInUse,
    /// The answer to a change was lost.
    #[error("the answer to the call was lost")]
    OutcomeUnknown {
        /// Whether it took effect; `None` if nobody can tell.
        processed: Option<bool>,
        /// What `job_status` shows.
        seen: JobStatus,
        /// Before that, the upstream may still be at work on it.
        quiet: Option<Timestamp>,
    },
    /// The call ended early through a fault of this program.
    #[error("the call ended early inside the proxy")]
    Aborted,
}

/// A wallet, its session, what is on record, and the way to the upstream.
#[derive(Debug)]
pub struct Proxy {
    sender: Sender,
    store: Store,
    reservations: Reservations,
    turns: Turns,
    tasks: TaskTracker,
    ending: CancellationToken,
    expose_workflow_token: bool,
}

impl Proxy {
    /// A proxy that signs with `signer`. Nothing is sent before the first call.
    pub fn new(
        signer: Signer,
        upstream: Upstream,
        store: Store,
        expose_workflow_token: bool,
    ) -> Self {
        Self {
            sender: Sender::new(signer, upstream, store.clone()),
            reservations: Reservations::new(store.clone()),
            store,
            turns: Turns::default(),
            tasks: TaskTracker::new(),
            ending: CancellationToken::new(),
            expose_workflow_token,
        }
    }

    /// The wallet that signs.
    pub fn wallet(&self) -> Address {
        self.sender.wallet()
    }

    /// Whether calls can be made: the process is not ending, and records can be written.
    pub async fn is_ready(&self) -> bool {
        !self.ending.is_cancelled() && self.store.probe().await.is_ok()
    }

    /// The reservations that run.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn reservations(&self) -> Result<Vec<Reservation>, StoreError> {
        self.reservations.running().await
    }

    /// From now on the proxy is not ready.
    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Waits for the calls that run without anyone waiting for them, and until everything is on
    /// record. No call may begin afterwards.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.flush().await;
    }

    /// Waits until everything so far is on record.
    pub async fn flush(&self) {
        if let Err(error) = self.store.flush().await {
            tracing::error!(%error, "the last records are lost");
        }
    }

    /// Makes one call and returns the upstream's answer.
    ///
    /// It runs to its end even if the client goes away, so that a change that was sent is not left
    /// without anyone to hear its outcome.
    ///
    /// # Errors
    /// See [`CallError`]; an answer of the upstream is never an error, whatever its status.
    pub async fn call(self: &Arc<Self>, incoming: Incoming) -> Result<Answer, CallError> {
        let proxy = self.clone();
        let (reply, answer) = oneshot::channel();
        self.tasks.spawn(async move {
            let result = proxy.run(&incoming).await;
            if let Err(unheard) = reply.send(result) {
                log_unheard(&incoming.call, &unheard);
            }
        });
        answer.await.unwrap_or(Err(CallError::Aborted))
    }

    async fn run(&self, incoming: &Incoming) -> Result<Answer, CallError> {
        match &incoming.key {
            Some(key) if incoming.call.action().changes() => self.run_once(incoming, key).await,
            _ => self.perform(incoming, None).await,
        }
    }

    /// A change under an idempotency key: made at most once, and answered the same every time.
    async fn run_once(
        &self,
        incoming: &Incoming,
        key: &IdempotencyKey,
    ) -> Result<Answer, CallError> {
        let deadline = self.sender.upstream().deadline(true);
        let turn = timeout_at(deadline, self.turns.take(key)).await;
        let _turn = turn.map_err(|_| CallError::KeyInUse)?;
        let fingerprint = fingerprint(&incoming.call, self.wallet());
        let result =
            match self.store.claim(LOCAL, key.as_str(), fingerprint, Timestamp::now()).await? {
                Claim::Done(settled) => return told_again(settled),
                Claim::Mismatch => return Err(CallError::KeyReused),
                Claim::Running => return Err(CallError::KeyInUse),
                Claim::New => self.perform(incoming, None).await,
                Claim::Interrupted { quiet } => self.perform(incoming, Some(quiet)).await,
            };
        let kept = match ended(&result) {
            Ended::Known(settled) => self.store.settle(LOCAL, key.as_str(), &settled).await,
            // The next request with this key asks what became of it.
            Ended::Unknown { quiet } => self.store.abandon(LOCAL, key.as_str(), quiet).await,
            Ended::NotMade => self.store.release(LOCAL, key.as_str()).await,
        };
        if let Err(error) = kept {
            tracing::error!(%error, "what became of an idempotency key is not on record");
        }
        result
    }

    /// Makes a call, with as many tries as it needs and may have. If it is `in_doubt`, an earlier
    /// try may have taken effect, on which the upstream may be at work until that time.
    async fn perform(
        &self,
        incoming: &Incoming,
        in_doubt: Option<Timestamp>,
    ) -> Result<Answer, CallError> {
        let action = incoming.call.action();
        let key = incoming.key.clone().filter(|_| action.changes());
        let origin = Origin { call_id: incoming.call_id.clone(), client: LOCAL, key };
        let deadline = self.sender.upstream().deadline(action.changes());
        let mut in_doubt = in_doubt;
        if let Some(quiet) = in_doubt {
            self.settle(&incoming.call, &origin, quiet, deadline).await?;
        }
        let call = self.completed(&incoming.call).await?;
        let proof = self.proof(&call).await?;
        let last_try = self.sender.upstream().last_try(action.changes(), deadline);
        let mut tries = Tries::new(action.changes(), last_try);
        loop {
            let try_deadline = self.sender.upstream().one_try(action.changes(), last_try);
            let tried = self.try_once(&call, &proof, &origin, try_deadline).await?;
            match tries.next(&tried.outcome, Instant::now()) {
                Next::Return => {
                    let ended = self.answered(&call, tried.outcome).await;
                    return match in_doubt {
                        Some(quiet) => self.undoubted(&call, ended, &origin, quiet, deadline).await,
                        None => ended,
                    };
                }
                Next::Again(pause) => sleep(pause).await,
                Next::Renew => tried.nonce.iter().for_each(|nonce| self.sender.forget(nonce)),
                Next::Settle => {
                    let quiet = Timestamp::now()
                        + self.sender.upstream().settle_time(is_silent(&tried.outcome));
                    let seen = self.settle(&call, &origin, quiet, deadline).await?;
                    match tries.pause(Instant::now()) {
                        Next::Again(pause) => sleep(pause).await,
                        _ => return Err(unknown(None, seen, Some(quiet))),
                    }
                    in_doubt = Some(quiet);
                }
            }
        }
    }

    async fn try_once(
        &self,
        call: &Call,
        proof: &Proof<'_>,
        origin: &Origin,
        deadline: Instant,
    ) -> Result<Try, StoreError> {
        match proof {
            Proof::Signature(signed) => self.sender.try_signed(*signed, origin, deadline).await,
            Proof::WorkflowToken(token) => {
                self.sender.try_with_token(call, token.clone(), origin, deadline).await
            }
        }
    }

    /// What will show the upstream that the call may be made.
    async fn proof<'a>(&self, call: &'a Call) -> Result<Proof<'a>, CallError> {
        if let Some(signed) = call.signed() {
            return Ok(Proof::Signature(signed));
        }
        // The path of every call that is not signed begins with the job's id.
        let job = call.id().ok_or(CallError::Aborted)?;
        let reservation = self.reservations.of(self.wallet(), job).await?;
        let running = reservation.filter(|held| !reservation::is_over(held, Timestamp::now()));
        let token = running.as_ref().and_then(reservation::token_header);
        let token = token.ok_or_else(|| CallError::NoWorkflowToken { job: job.clone() })?;
        Ok(Proof::WorkflowToken(token))
    }

    /// The call with what the proxy knows of its reservation: a completion that lacks its
    /// `reservation_id` gets it, and one that comes too late is refused.
    async fn completed(&self, call: &Call) -> Result<Call, CallError> {
        let mut call = call.clone();
        let Some(job) = call.id().filter(|_| call.action().effect == Effect::Submits).cloned()
        else {
            return Ok(call);
        };
        let Some(held) = self.reservations.of(self.wallet(), &job).await? else {
            return Ok(call);
        };
        let id = held.reservation_id.as_deref().map(CanonicalJson::string);
        let given = call.body().field("reservation_id").cloned();
        // A client that names another reservation knows of one that was not made here.
        let is_held = given.is_none() || given == id;
        if is_held && reservation::is_over(&held, Timestamp::now()) {
            return Err(CallError::ReservationExpired { job, ended: held.ends });
        }
        if let (None, Some(id)) = (given, id) {
            call.fill_in("reservation_id", id);
        }
        Ok(call)
    }

    /// The end of a call, and what is remembered of it.
    async fn answered(&self, call: &Call, outcome: Outcome) -> Result<Answer, CallError> {
        let answer = match outcome {
            Outcome::Answered(answer, _) => answer,
            Outcome::NoSession(error) => return Err(error.into()),
            Outcome::NoAnswer(error) => return Err(error.into()),
        };
        match (call.action().effect, call.id()) {
            (Effect::Reserves, Some(job)) if answer.status.is_success() => {
                Ok(self.keep_reservation(job, answer).await)
            }
            (Effect::Submits, Some(job)) if answer.status.is_success() => {
                self.reservations.end(self.wallet(), job).await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    /// Remembers a reservation and withholds its workflow token.
    async fn keep_reservation(&self, job: &Slug, mut answer: Answer) -> Answer {
        let Some(reserved) = Reserved::parse(&answer.body) else { return answer };
        let reservation = reserved.reservation(job.clone(), self.wallet(), LOCAL.to_owned());
        let withheld = reserved.without_token();
        self.reservations.keep(reservation, &self.tasks, &self.ending).await;
        if let Some(body) = withheld.filter(|_| !self.expose_workflow_token) {
            answer.body = body;
        }
        answer
    }
}

/// What shows the upstream that a call may be made.
enum Proof<'a> {
    Signature(SignedCall<'a>),
    WorkflowToken(HeaderValue),
}

fn unknown(processed: Option<bool>, seen: JobStatus, quiet: Option<Timestamp>) -> CallError {
    CallError::OutcomeUnknown { processed, seen, quiet }
}

/// How a call under an idempotency key has ended, for the next one with that key.
enum Ended {
    /// It is known what came of it.
    Known(Settled),
    /// It may have taken effect.
    Unknown { quiet: Option<Timestamp> },
    /// It surely did not, and may be made under the same key.
    NotMade,
}

fn ended(result: &Result<Answer, CallError>) -> Ended {
    match result {
        Ok(answer) if is_final(answer) => Ended::Known(Settled::Answer(stored(answer))),
        Err(CallError::OutcomeUnknown { processed: Some(true), seen, .. }) => {
            let JobStatus { job, submission, .. } = seen.clone();
            Ended::Known(Settled::TookEffect { job, submission })
        }
        Err(CallError::OutcomeUnknown { quiet, .. }) => Ended::Unknown { quiet: *quiet },
        Err(CallError::Aborted) => Ended::Unknown { quiet: None },
        Err(CallError::Upstream(error)) if error.was_sent() => Ended::Unknown { quiet: None },
        Ok(_) | Err(_) => Ended::NotMade,
    }
}

fn told_again(settled: Settled) -> Result<Answer, CallError> {
    match settled {
        Settled::Answer(answer) => Ok(replayed(answer)),
        Settled::TookEffect { job, submission } => {
            Err(unknown(Some(true), JobStatus::seen(job, submission), None))
        }
    }
}

/// A hash of all that makes it the same call.
fn fingerprint(call: &Call, wallet: Address) -> [u8; 32] {
    let body = call.body().to_canonical();
    let parts = [&wallet.to_string(), call.action().name, &call.path(), body.as_str()];
    Sha256::digest(parts.join("\n")).into()
}

/// Whether an answer says what became of the call. The others say that it was not looked at.
fn is_final(answer: &Answer) -> bool {
    let status = answer.status.as_u16();
    status < 500 && ![401, 408, 425, 429].contains(&status) && Refusal::of(answer).is_none()
}

fn stored(answer: &Answer) -> StoredAnswer {
    let Answer { status, headers, body } = answer.clone();
    StoredAnswer { status, headers, body }
}

/// An answer that was given before, marked as such.
fn replayed(StoredAnswer { status, mut headers, body }: StoredAnswer) -> Answer {
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    Answer { status, headers, body }
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
