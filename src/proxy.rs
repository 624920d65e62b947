//! The flow of one call, from an unsigned request to the upstream's answer, whatever breaks between.

mod detached;
mod evidence;
mod in_flight;
mod prices;
mod probe;

mod reviews;

mod feed;

mod error;

mod job_queue;

mod parts;

mod admit;
mod held;
mod settle;

mod attempts;
mod await_review;
mod listen;
mod poll_jobs;
mod precedent;

mod finish;

mod next;
mod paying;

use std::{panic::AssertUnwindSafe, sync::Arc};

use futures_util::FutureExt;
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

pub(crate) use self::parts::ANSWER_HEADER;
pub use self::{
    admit::{Admission, Admitted},
    error::{CallError, Unauthenticated},
    evidence::Evidence,
    in_flight::{InFlightPermit, Overloaded},
    listen::EventListener,
    next::{NextJob, NextJobError},
    parts::Proxy,
};
use self::{
    detached::Detached,
    finish::replayed,
    settle::{AttemptContext, Earlier, Settled},
};
use crate::{
    action::{About, Lookup, Proof},
    call::{Call, RESERVATION_ID},
    clock::Moment,
    operation::Operation,
    policy::Denied,
    refusal, reservation,
    retry::{Next, Tries},
    sender::Sender,
    store::{Begun, Claim, Denial, FreezeOf, Grant, Started},
    trace::Step,
    upstream::Answer,
};

/// The header of an answer that says what to do about it, where the upstream does not.
pub(crate) const ADVICE_HEADER: HeaderName = HeaderName::from_static("x-agentpmt-proxy-advice");

impl Proxy {
    /// Makes one call and returns the upstream's answer.
    ///
    /// Once it is sent, it runs to its end even if the client goes away, so that the outcome of a change gets
    /// on record, and a read keeps its permits as long as the upstream is at work on it. While it waits to
    /// be sent, it ends with its client ([`Trace::abandon`](crate::trace::Trace::abandon)), unless it is a
    /// change under a key.
    ///
    /// # Errors
    /// See [`CallError`]; an answer of the upstream is never an error, whatever its status.
    pub fn call(
        self: &Arc<Self>,
        admitted: Admitted,
        call: Call,
    ) -> impl Future<Output = Result<Answer, CallError>> + use<> {
        let proxy = self.clone();
        let running = async move {
            let Admitted { admission, client, known_at, permit: _permit } = admitted;
            let Admission { key, trace, .. } = admission;
            let wallet = proxy.wallet_of(&client);
            let deadline = proxy.upstream.deadline(call.action().effect);
            let price = proxy.prices.of(&call);
            let has_prices = !proxy.prices.is_empty();
            let mut operation = Operation {
                call,
                client,
                wallet,
                key,
                price,
                has_prices,
                known_at,
                deadline,
                trace,
            };
            // In a box, so that it is not moved with what holds it.
            let made = Box::pin(async {
                let result = proxy.make(&mut operation).await;
                if let Some(reason) = result.as_ref().err().and_then(CallError::denial) {
                    proxy.store.denied(&Denial::of(&operation, reason)).await;
                }
                result
            });
            let result = AssertUnwindSafe(made).catch_unwind().await;
            (operation.call, result.unwrap_or(Err(CallError::Aborted)))
        };
        Detached::new(running, &self.tasks, log_unheard).map(|(_, result)| result)
    }

    /// The flow of one call.
    async fn make(self: &Arc<Self>, operation: &mut Operation) -> Result<Answer, CallError> {
        let wallet = operation.wallet;
        let sender = self.senders.get(&wallet).ok_or(CallError::WalletNotHeld(wallet))?;
        if let Some(named) = operation.call.other_wallet(wallet) {
            return Err(CallError::other_wallet(named, wallet));
        }
        let Started { grant, doubt, claim } = match self.begin(operation).await? {
            Begun::Started(started) => *started,
            Begun::Answered(answer) => return Ok(replayed(answer)),
            Begun::Denied(denied) => return Err(denied.into()),
            Begun::KeyReused => return Err(CallError::KeyReused),
            Begun::Running => return Err(CallError::KeyInUse),
        };
        // Only now: the fingerprint of a key covers the body as the client sent it.
        if let Some(id) = grant.as_ref().ok().and_then(|grant| grant.reservation_id.clone()) {
            operation.call.fill_in(RESERVATION_ID, id);
        }
        if self.pays_for(operation).is_some() && operation.call.is_purchase() {
            operation.call = operation.call.clone().of_known_fields();
        }
        let (precedent, settled) = self.precedent(operation, sender, &claim, doubt).await;
        let was_paid = precedent.was_paid;
        // Held until what became of the payment is on record.
        let mut turn = None;
        let result = match (settled, self.pays_for(operation).cloned()) {
            (Err(error), _) => Err(error),
            (Ok(Some(Settled::Submitted(answer))), _) => Ok(answer),
            (Ok(_), Some(spending)) => {
                Box::pin(self.pay(operation, &spending, was_paid, &claim, &mut turn)).await
            }
            (Ok(settled), None) => self.perform(operation, sender, grant, settled, &claim).await,
        };
        self.finish(operation, claim, result, precedent).await
    }

    /// Begins the call in the ledger. Waits while another process is at work on the same call.
    async fn begin(&self, operation: &Operation) -> Result<Begun, CallError> {
        let mut pauses = Tries::new(false, operation.deadline);
        loop {
            let begun = self.store.begin(operation, Moment::now()).await?;
            if matches!(begun, Begun::Running)
                && let Next::Again(pause) = pauses.pause(Instant::now())
            {
                sleep(pause).await;
                continue;
            }
            operation.trace.tell(Step::Begun);
            return Ok(begun);
        }
    }

    /// Makes the call, if its client may.
    async fn perform(
        &self,
        operation: &Operation,
        sender: &Sender,
        grant: Result<Grant, Denied>,
        settled: Option<Settled>,
        claim: &Claim,
    ) -> Result<Answer, CallError> {
        let Operation { call, client, wallet, .. } = operation;
        let grant = grant?;
        if call.action().proof != Proof::None {
            self.store.check_unfrozen(FreezeOf::Signatures).await?;
        }
        // The access may have ended since it was granted, and only this makes a permit.
        let permit = &client.permit(call.clone(), *wallet, grant.holder, Timestamp::now())?;
        let workflow_token = match (operation.job(), &call.action().proof) {
            (Some(job), Proof::WorkflowToken) => {
                let token = grant.reservation.as_ref().and_then(reservation::token_header);
                Some(token.ok_or_else(|| CallError::NoWorkflowToken(job.clone()))?)
            }
            _ => None,
        };
        let balance_before = sender.balance().filter(|_| call.action().lookup == Lookup::Balance);
        let context = AttemptContext::new(operation, permit, sender, claim);
        let context = AttemptContext { workflow_token, balance_before, ..context };
        let mut answer = self.attempt(&context, settled.and_then(Earlier::of)).await?;
        let lists_tools = call.action().about == About::Product && !call.action().changes();
        if lists_tools && answer.status.is_success() {
            self.prices.learn(&answer.body);
        }
        if let Some(advice) = refusal::advice(call, &answer) {
            answer.headers.insert(ADVICE_HEADER, HeaderValue::from_static(advice));
        }
        self.withhold_held(operation, &mut answer).await?;
        Ok(answer)
    }
}

/// A client that goes away gets no answer, and the log event of its request does not know what became
/// of the call: this one does.
fn log_unheard((call, result): (Call, Result<Answer, CallError>)) {
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
