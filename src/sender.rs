//! One try of one call: a nonce, a message, a record, a signature, a request.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio::{
    task::yield_now,
    time::{Instant, timeout_at},
};

use crate::{
    action::{Action, Effect},
    call::Call,
    clock, credits,
    json::{CanonicalJson, Object},
    message::Message,
    operation::Operation,
    payment::{AuthorizationNonce, Payment},
    policy::{Permit, SignedPermit},
    refusal::{Refusal, diagnostics, first_difference},
    retry::Outcome,
    session::Sessions,
    signer::{Signer, SignerError},
    store::{Attempt, Claim, PaymentEnd, RecordedOutcome, Store, StoreError},
    trace::Step,
    types::{Address, RequestId, SessionNonce, Signature},
    upstream::{Limiter, LimiterPermit, Request, Unanswered, Upstream},
    withheld,
};

/// Makes attempts with the key, the session, the journal and the way to the upstream.
#[derive(Debug)]
pub(crate) struct Sender {
    signer: Signer,
    sessions: Arc<Sessions>,
    upstream: Upstream,
    store: Store,
    /// The balance of credits that an answer told last, as JSON.
    balance: Mutex<Option<String>>,
    /// Limits the messages that a remote signer has at once. A local one signs without waiting.
    signing: Option<Arc<Limiter>>,
}

impl Sender {
    pub(crate) fn new(signer: Signer, upstream: Upstream, store: Store) -> Self {
        let sessions = Sessions::new(upstream.clone(), signer.address());
        let signing = signer.is_remote().then(|| Limiter::new((upstream.max_calls() / 4).max(1)));
        Self { signer, sessions, upstream, store, balance: Mutex::default(), signing }
    }

    pub(crate) fn wallet(&self) -> Address {
        self.signer.address()
    }

    pub(crate) fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// The balance of credits that an answer told last, as JSON.
    pub(crate) fn balance(&self) -> Option<String> {
        self.last_balance().clone()
    }

    fn last_balance(&self) -> MutexGuard<'_, Option<String>> {
        self.balance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Signs a call and sends it, once. A change is on record before the key is used.
    ///
    /// First it waits for a session, a signing permit if the signer is remote, and an upstream permit. The
    /// upstream permit comes before the record and the signature, so that a signature never waits in a queue,
    /// where its session or the client's access could end. A slow signer blocks at most a quarter of the
    /// upstream permits: there are no more signing permits, and a call takes one first.
    ///
    /// # Errors
    /// The record of a change could not be written; nothing was signed.
    pub(crate) async fn try_signed(
        &self,
        signed: SignedPermit<'_>,
        operation: &Operation,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Try, StoreError> {
        let permit = signed.permit();
        let nonce = async || self.sessions.nonce(deadline).await.map_err(Outcome::NoSession);
        let ready: Result<_, Outcome> = async {
            let before = nonce().await?;
            let signing = match &self.signing {
                Some(signing) => {
                    let waiting = signing.permit(permit.client(), deadline);
                    let signing = unless_abandoned(permit, operation, waiting).await?;
                    Some(signing.ok_or_else(|| Outcome::NotSigned(self.signed_too_late()))?)
                }
                None => None,
            };
            let upstream = self.upstream_permit(permit, operation, deadline).await?;
            let has_waited =
                upstream.has_waited || signing.as_ref().is_some_and(|signing| signing.has_waited);
            // The session may have ended while the call waited.
            let nonce = if has_waited { nonce().await? } else { before };
            Ok(Ready { nonce, signing, upstream })
        }
        .await;
        let ready = match ready {
            Ok(ready) => ready,
            Err(outcome) => return Ok(Try { outcome, nonce: None }),
        };
        // In a box, so that a call keeps no room for it while it waits.
        Box::pin(self.sign_and_send(signed, operation, claim, deadline, ready)).await
    }

    async fn sign_and_send(
        &self,
        permit: SignedPermit<'_>,
        operation: &Operation,
        claim: &Claim,
        deadline: Instant,
        ready: Ready,
    ) -> Result<Try, StoreError> {
        let Ready { nonce, signing, upstream } = ready;
        let (request_id, call) = (RequestId::random(), permit.permit().call());
        let message = Message::new(permit, &nonce, &request_id);
        let payload_hash = message.payload_hash();
        let attempt =
            Attempt { operation, call, request_id: &request_id, payload_hash, payment: None };
        self.store.record_attempt(attempt, claim, self.settles_at(call.action())).await?;
        // Yield, so that the other ready calls get as far as this one and signatures run in batches: the
        // code for signing then stays in the instruction cache, which costs less CPU.
        if !upstream.is_only {
            yield_now().await;
        }
        // Half of the time that is left is for the call.
        let signed = timeout_at(clock::half_way(deadline), self.signer.sign(&message)).await;
        let signature = match signed.unwrap_or_else(|_| Err(self.signed_too_late())) {
            Ok(signature) => signature.to_hex(),
            Err(error) => {
                self.store.outcome(&request_id, RecordedOutcome::NotSigned).await;
                return Ok(Try { outcome: Outcome::NotSigned(error), nonce: None });
            }
        };
        drop(signing);
        operation.trace.tell(Step::Signed);
        let body = self.signed_body(call.body(), &nonce, &request_id, &signature);
        let mut outcome = self.send(attempt, body.into(), None, deadline).await;
        let secrets = [nonce.expose(), &signature];
        // If servers take two forms of the payload, the first may be the wrong one.
        if let Outcome::Answered(answer, Some(Refusal::WrongSignature { expected_message })) =
            &outcome
            && permit.in_other_form().is_none()
        {
            let shown = diagnostics(&answer.body, &secrets);
            log_difference(call, &message, expected_message.as_deref(), &shown);
        }
        withhold(&mut outcome, &secrets);
        Ok(Try { outcome, nonce: Some(nonce) })
    }

    /// Signs a payment, and the message of a sponsor if it needs that, within half of the time that is left.
    pub(crate) async fn sign_payment(
        &self,
        payment: &Payment,
        deadline: Instant,
    ) -> Result<(Signature, Option<Signature>), SignerError> {
        let signing = async {
            let sponsor = match payment.sponsor_message() {
                Some(message) => Some(self.signer.sign_sponsor_message(&message).await?),
                None => None,
            };
            Ok((self.signer.sign_payment(payment).await?, sponsor))
        };
        let signed = timeout_at(clock::half_way(deadline), signing).await;
        signed.unwrap_or_else(|_| Err(self.signed_too_late()))
    }

    fn signed_too_late(&self) -> SignerError {
        SignerError::TimedOut(self.wallet())
    }

    /// Sends a call that is not signed, once, with the token of a reservation if it needs one, or with a
    /// payment that is on record.
    ///
    /// # Errors
    /// The record could not be written; nothing was sent.
    pub(crate) async fn try_unsigned(
        &self,
        permit: &Permit,
        token: Option<HeaderValue>,
        payment: Option<AuthorizationNonce>,
        operation: &Operation,
        claim: &Claim,
        deadline: Instant,
    ) -> Result<Try, StoreError> {
        let _held = match self.upstream_permit(permit, operation, deadline).await {
            Ok(permit) => permit,
            Err(outcome) => return Ok(Try { outcome, nonce: None }),
        };
        let request_id = RequestId::random();
        let call = permit.call();
        let body = (!call.action().method.is_safe()).then(|| call.body().to_canonical());
        let payload_hash = body.as_ref().map(CanonicalJson::hash);
        let attempt = Attempt { operation, call, request_id: &request_id, payload_hash, payment };
        self.store.record_attempt(attempt, claim, self.settles_at(call.action())).await?;
        let bare = call.bare().map(str::to_owned);
        let body = bare.or(body.map(String::from)).unwrap_or_default();
        let sent = token.clone();
        let mut outcome = self.send(attempt, body, sent, deadline).await;
        if let (Some(nonce), Outcome::NoAnswer(error)) = (payment, &outcome)
            && !error.has_left()
            && let Err(error) = self.store.end_payment(nonce, PaymentEnd::NotLeft).await
        {
            tracing::error!(%error, "it is not on record that a payment was not sent, so it counts");
        }
        if let Some(token) = token.as_ref().and_then(|token| token.to_str().ok()) {
            withhold(&mut outcome, &[token.strip_prefix("Bearer ").unwrap_or(token)]);
        }
        Ok(Try { outcome, nonce: None })
    }

    async fn upstream_permit(
        &self,
        permit: &Permit,
        operation: &Operation,
        deadline: Instant,
    ) -> Result<LimiterPermit, Outcome> {
        let waiting = self.upstream.permit(permit.client(), deadline);
        unless_abandoned(permit, operation, waiting).await?.map_err(Outcome::NoAnswer)
    }

    /// Drops a session that the upstream no longer knows.
    pub(crate) fn forget(&self, nonce: &SessionNonce) {
        self.sessions.forget(nonce);
    }

    /// How many sessions have begun.
    pub(crate) fn sessions_begun(&self) -> u64 {
        self.sessions.begun()
    }

    /// When a change that is sent now settles.
    fn settles_at(&self, action: &Action) -> Option<Timestamp> {
        let settle_time = || self.upstream.settle_time(action.effect, false);
        action.changes().then(|| clock::steady() + settle_time())
    }

    /// The body with the envelope in it (protocol §3).
    fn signed_body(
        &self,
        body: &Object,
        nonce: &SessionNonce,
        request_id: &RequestId,
        signature: &str,
    ) -> CanonicalJson {
        let text = CanonicalJson::string;
        body.to_canonical_with([
            ("wallet_address", &text(&self.wallet().to_string())),
            ("session_nonce", &text(nonce.expose())),
            ("request_id", &text(request_id.as_str())),
            ("signature", &text(signature)),
        ])
    }

    async fn send(
        &self,
        attempt: Attempt<'_>,
        body: String,
        workflow_token: Option<HeaderValue>,
        deadline: Instant,
    ) -> Outcome {
        let Attempt { operation, call, request_id, .. } = attempt;
        let begun = Instant::now();
        let method = call.action().method.clone();
        let changes = call.action().changes();
        let path = call.target();
        let (job, payment) = (call.job().cloned(), call.payment().cloned());
        let request = Request { method, path, body, workflow_token, payment, changes, job };
        let result = self.upstream.send(request, deadline).await;
        let took = begun.elapsed();
        operation.trace.tell(Step::Sent(call.action(), took));
        let answered = |status: StatusCode| RecordedOutcome::Answered {
            status: status.as_u16(),
            milliseconds: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
        };
        let recorded = match &result {
            Ok(answer) => answered(answer.status),
            Err(error) => match error.why {
                Unanswered::Moved { status, .. } | Unanswered::Foreign(status) => answered(status),
                _ if error.was_sent() => RecordedOutcome::Unknown,
                _ => RecordedOutcome::NotSent,
            },
        };
        self.store.outcome(request_id, recorded).await;
        match result {
            Ok(answer) => {
                let refusal = call.signed().and_then(|_| Refusal::of(&answer));
                if tells_balance(call.action()) {
                    *self.last_balance() = credits::balance(&answer.body).or(self.balance());
                }
                Outcome::Answered(answer, refusal)
            }
            Err(error) => Outcome::NoAnswer(error),
        }
    }
}

fn tells_balance(action: &Action) -> bool {
    action.effect == Effect::Spends || action.name == "balance"
}

/// All that a call waits for before it is signed.
struct Ready {
    nonce: SessionNonce,
    signing: Option<LimiterPermit>,
    upstream: LimiterPermit,
}

/// Waits, unless the client goes away first: then others are to have it.
async fn unless_abandoned<T>(
    permit: &Permit,
    operation: &Operation,
    waiting: impl Future<Output = T>,
) -> Result<T, Outcome> {
    // The outcome of a change is to get on record, and an answer under a key may be fetched later.
    let may_be_abandoned = !permit.is_status_probe() && operation.change_key().is_none();
    tokio::select! {
        biased;
        () = operation.trace.abandoned(), if may_be_abandoned => Err(Outcome::Abandoned),
        value = waiting => Ok(value),
    }
}

/// One try, made.
#[derive(Debug)]
pub(crate) struct Try {
    pub(crate) outcome: Outcome,
    /// The nonce it was signed under.
    pub(crate) nonce: Option<SessionNonce>,
}

/// An upstream that repeats what it was sent must not show its clients what the proxy keeps to itself.
fn withhold(outcome: &mut Outcome, secrets: &[&str]) {
    withhold_secrets(outcome, secrets);
    if let Outcome::Answered(answer, _) = outcome
        && !answer.status.is_success()
        && let Some(body) = withheld::without_expected_message(&answer.body)
    {
        answer.body = body;
    }
}

/// The same for these secrets alone.
pub(crate) fn withhold_secrets(outcome: &mut Outcome, secrets: &[&str]) {
    if let Outcome::Answered(answer, _) = outcome
        && let Some(body) = withheld::from_body(&answer.body, secrets)
    {
        answer.body = body;
    }
}

/// Names the line that differs, not what it holds, since a message holds a nonce; and repeats what else the
/// upstream shows of its reasons.
fn log_difference(call: &Call, message: &Message, expected_message: Option<&str>, shown: &str) {
    let line = expected_message.and_then(|theirs| first_difference(message, theirs));
    tracing::error!(
        action = call.action().name,
        first_line_that_differs = line.as_deref().unwrap_or("unknown"),
        shown,
        "the upstream rebuilt another message than was signed; this is a bug, please report it"
    );
}

#[cfg(test)]
mod tests;
