//! The attempts of one operation: as many as it needs and may have.

use futures_util::future::join;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::{
    error::CallError,
    parts::Proxy,
    settle::{Attempts, Earlier, Settled, is_silent},
};
use crate::{
    action::Lookup,
    clock,
    policy::{Permit, SignedPermit},
    retry::{Next, Outcome, Tries},
    sender::Try,
    store::StoreError,
    trace::Step,
    upstream::Answer,
};

impl Proxy {
    /// Makes attempts until there is an answer, or no time left.
    pub(super) async fn attempt(
        &self,
        attempts: &Attempts<'_>,
        mut earlier: Option<Earlier>,
    ) -> Result<Answer, CallError> {
        let Attempts { operation, permit, sender, .. } = attempts;
        let action = operation.action();
        let is_replay = earlier.is_some();
        let last_try = sender.upstream().last_try(action.effect, operation.deadline);
        let patience = sender.upstream().patience();
        let tries = Tries::new(action.changes(), last_try).with_patience(patience).told_soon();
        let mut signed = permit.signed();
        let other_form = signed.and_then(SignedPermit::in_other_form);
        let mut tries = tries.of_method(&action.method).of_forms(other_form.is_some());
        loop {
            let tried = match (attempts.once(signed, last_try).await, earlier) {
                (Err(_), Some(Earlier::Reserved(lost))) if !is_replay => {
                    return Err(self.instructions_lost(attempts, lost).await);
                }
                (tried, before) => {
                    earlier = before;
                    tried?
                }
            };
            let mut next = tries.next(&tried.outcome, Instant::now());
            if let Next::Again(pause) = next {
                // What waits to be sent is dropped when the process ends.
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
                        Some(earlier) => Box::pin(self.undoubted(attempts, ended, earlier)).await,
                        None => ended,
                    };
                }
                Next::Again(_) => {}
                Next::Renew => tried.nonce.iter().for_each(|nonce| sender.forget(nonce)),
                Next::OtherForm => signed = other_form,
                Next::Settle => {
                    let is_silent = is_silent(&tried.outcome);
                    let settle_time = sender.upstream().settle_time(action.effect, is_silent);
                    let settles_at = clock::now() + settle_time;
                    let kept = self.prolong(attempts, settles_at);
                    let settled = join(self.settle(attempts, settles_at), kept);
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
                            return Err(self.instructions_lost(attempts, lost).await);
                        }
                    });
                    if let Next::Again(pause) = next {
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Has whoever takes over the key of a change, should this process end, wait as long.
    async fn prolong(&self, attempts: &Attempts<'_>, settles_at: Timestamp) {
        if let Err(error) = self.store.prolong(attempts.claim, settles_at).await {
            tracing::error!(%error, "how long a change may be under way is not on record");
        }
    }
}

impl Attempts<'_> {
    async fn once(
        &self,
        signed: Option<SignedPermit<'_>>,
        last_try: Instant,
    ) -> Result<Try, StoreError> {
        let Self { operation, permit, sender, claim, workflow_token } = self;
        let deadline = sender.upstream().one_try(operation.action().changes(), last_try);
        match signed {
            Some(signed) => sender.try_signed(signed, operation, claim, deadline).await,
            None => {
                let token = workflow_token.clone();
                let sent = sender.try_unsigned(permit, token, operation, claim, deadline);
                Box::pin(sent).await
            }
        }
    }
}

/// The end of the attempts.
fn answered(outcome: Outcome) -> Result<Answer, CallError> {
    match outcome {
        Outcome::Answered(answer, _) => Ok(answer),
        Outcome::NoSession(error) => Err(error.into()),
        Outcome::NotSigned(error) => Err(error.into()),
        Outcome::NoAnswer(error) => Err(error.into()),
        Outcome::Abandoned => Err(CallError::Abandoned),
    }
}

/// Whether a good answer that is no JSON is the upstream's all the same: the change took effect, or
/// is one of which nobody can tell more.
fn is_borne_out(permit: &Permit, outcome: &Outcome, settled: &Result<Settled, CallError>) -> bool {
    let is_good = matches!(outcome, Outcome::Answered(answer, _) if answer.status.is_success());
    let took_effect = matches!(settled, Ok(Settled::Submitted(_) | Settled::Reserved(_)));
    let is_unseen = permit.call().action().lookup == Lookup::None;
    is_good && (took_effect || is_unseen && settled.is_err())
}
