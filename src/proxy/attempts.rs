//! The attempts of one operation: as many as it needs and may have.

use futures_util::future::join;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::{
    error::CallError,
    parts::Proxy,
    settle::{AttemptContext, Earlier, Settled, is_silent},
};
use crate::{
    action::Lookup,
    clock,
    policy::{Permit, SignedPermit},
    retry::{Next, Outcome, Tries},
    trace::Step,
    upstream::Answer,
};

impl Proxy {
    /// Makes attempts until there is an answer, or no time left.
    pub(super) async fn attempt(
        &self,
        context: &AttemptContext<'_>,
        mut earlier: Option<Earlier>,
    ) -> Result<Answer, CallError> {
        let AttemptContext { operation, permit, sender, claim, workflow_token, .. } = context;
        let action = operation.action();
        let is_second_call = earlier.is_some();
        let last_try = self.upstream.last_try(action.effect, operation.deadline);
        let patience = self.upstream.patience();
        let tries = Tries::new(action.changes(), last_try).with_patience(patience).told_soon();
        let mut signed = permit.signed();
        let other_form = signed.and_then(SignedPermit::in_other_form);
        let tries = tries.of_method(&action.method).of_forms(other_form.is_some());
        let mut tries = tries.of_payment(operation.call.payment().is_some());
        loop {
            let deadline = self.upstream.one_try(action.changes(), last_try);
            let token = workflow_token.clone();
            let tried = match signed {
                Some(signed) => sender.try_signed(signed, operation, claim, deadline).await,
                None => {
                    Box::pin(sender.try_unsigned(permit, token, None, operation, claim, deadline))
                        .await
                }
            };
            if tried.is_err()
                && !is_second_call
                && let Some(Earlier::Reserved(lost)) = earlier
            {
                return Err(self.instructions_lost(context, lost).await);
            }
            let tried = tried?;
            let mut next = tries.next(&tried.outcome, Instant::now());
            if let Next::Again(pause) = next {
                // A call that waits to be sent is dropped when the process ends.
                if timeout(pause, self.ending.cancelled()).await.is_ok() && !pause.is_zero() {
                    next = Next::Return;
                }
            }
            if next != Next::Return {
                operation.trace.tell(Step::Again(&tried.outcome));
            }
            match next {
                Next::Return => {
                    let ended = answered(tried.outcome);
                    return match earlier {
                        Some(earlier) => Box::pin(self.undoubted(context, ended, earlier)).await,
                        None => ended,
                    };
                }
                Next::Again(_) => {}
                Next::Renew => tried.nonce.iter().for_each(|nonce| sender.forget(nonce)),
                Next::OtherForm => signed = other_form,
                Next::Settle => {
                    let is_silent = is_silent(&tried.outcome);
                    let settle_time = self.upstream.settle_time(action.effect, is_silent);
                    let settles_at = clock::steady() + settle_time;
                    let kept = self.prolong(context, settles_at);
                    let settled = join(self.settle(context, settles_at), kept);
                    let settled = Box::pin(settled).await.0;
                    if is_borne_out(permit, &tried.outcome, &settled) {
                        return answered(tried.outcome);
                    }
                    let next = tries.pause(Instant::now());
                    let had_reserved = matches!(earlier, Some(Earlier::Reserved(_)));
                    earlier = Some(match (settled?, &next) {
                        (Settled::Submitted(answer), _) => return Ok(answer),
                        (Settled::NotMade(..), Next::Again(_)) => Earlier::InDoubt(settles_at),
                        (Settled::NotMade(seen, _), _) => {
                            return Err(CallError::unknown(seen, Some(settles_at)));
                        }
                        // To reserve once more may bring the instructions.
                        (Settled::Reserved(lost), Next::Again(_)) if !had_reserved => {
                            Earlier::Reserved(lost)
                        }
                        (Settled::Reserved(lost), _) => {
                            return Err(self.instructions_lost(context, lost).await);
                        }
                    });
                    if let Next::Again(pause) = next {
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Records `settles_at`, so that a process that takes over the key waits as long.
    async fn prolong(&self, context: &AttemptContext<'_>, settles_at: Timestamp) {
        if let Err(error) = self.store.prolong(context.claim, settles_at).await {
            tracing::error!(%error, "how long a change may be under way is not on record");
        }
    }
}

/// The result of the last try.
fn answered(outcome: Outcome) -> Result<Answer, CallError> {
    match outcome {
        Outcome::Answered(answer, _) => Ok(answer),
        Outcome::NoSession(error) => Err(error.into()),
        Outcome::NotSigned(error) => Err(error.into()),
        Outcome::NoAnswer(error) => Err(error.into()),
        Outcome::Abandoned => Err(CallError::Abandoned),
    }
}

/// Whether to trust a 2xx that is not JSON: the status shows that the change took effect, or no call can
/// show it for certain.
fn is_borne_out(permit: &Permit, outcome: &Outcome, settled: &Result<Settled, CallError>) -> bool {
    let is_good = matches!(outcome, Outcome::Answered(answer, _) if answer.status.is_success());
    let took_effect = matches!(settled, Ok(Settled::Submitted(_) | Settled::Reserved(_)));
    let is_unseen = permit.call().action().lookup != Lookup::JobStatus;
    is_good && (took_effect || is_unseen && settled.is_err())
}
