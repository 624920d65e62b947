//! What became of a change whose answer was lost (protocol §8).

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{CallError, Proxy, exchange::Exchange};
use crate::{
    action::Effect,
    job_status::JobStatus,
    reservation,
    retry::{Next, Outcome, Tries},
    sender::Origin,
    types::{Address, Slug},
    upstream::{Answer, UpstreamError},
};

impl Proxy {
    /// The end of a change of which an earlier try may still have taken effect: only a good answer is
    /// taken for what it says.
    pub(super) async fn undoubted(
        &self,
        exchange: &Exchange<'_>,
        ended: Result<Answer, CallError>,
        quiet: Timestamp,
    ) -> Result<Answer, CallError> {
        if ended.as_ref().is_ok_and(|answer| answer.status.is_success()) {
            return ended;
        }
        let seen = self.settle(exchange, quiet).await?;
        ended.map_err(|error| match error.may_have_had_effect() {
            true => CallError::unknown(None, seen, Some(quiet)),
            false => error,
        })
    }

    /// Asks for the job's status until it shows that a change took effect, or shows after `quiet` that
    /// it did not: before, the upstream may still be at work on it. It returns what was seen if the
    /// change surely did not take effect, so that it may be made again.
    pub(super) async fn settle(
        &self,
        exchange: &Exchange<'_>,
        quiet: Timestamp,
    ) -> Result<JobStatus, CallError> {
        let call = exchange.permit.call();
        let effect = call.action().effect;
        let Some(job) = call.id().filter(|_| effect != Effect::Edits) else {
            return Err(CallError::unknown(None, JobStatus::default(), None));
        };
        let mut pauses = Tries::new(false, exchange.deadline);
        loop {
            let asked = Timestamp::now();
            let seen = exchange.job_status().await;
            if seen.took_effect(effect) != Some(false) {
                return Err(self.settled(exchange, job, seen, quiet).await);
            }
            if asked >= quiet {
                return Ok(seen);
            }
            match pauses.pause(Instant::now()) {
                Next::Again(pause) => sleep(pause).await,
                _ => return Err(CallError::unknown(None, seen, Some(quiet))),
            }
        }
    }

    /// The end of a change that took effect, or of which nobody can tell.
    async fn settled(
        &self,
        exchange: &Exchange<'_>,
        job: &Slug,
        seen: JobStatus,
        quiet: Timestamp,
    ) -> CallError {
        let effect = exchange.permit.call().action().effect;
        let wallet = exchange.permit.wallet();
        let mut processed = seen.took_effect(effect);
        if effect == Effect::Reserves && self.may_hold(wallet, job).await {
            // What is shown may be the reservation that is held already.
            processed = None;
        }
        match (processed, effect) {
            (Some(true), Effect::Submits) => {
                self.reservations.submitted(&exchange.permit, job, &self.tasks, &self.ending).await;
            }
            (Some(true), Effect::Reserves) => self.reservations.outdated(wallet, job).await,
            _ => {}
        }
        CallError::unknown(processed, seen, Some(quiet))
    }

    /// Whether a reservation of the job is remembered that may still run.
    async fn may_hold(&self, wallet: Address, job: &Slug) -> bool {
        match self.reservations.of(wallet, job).await {
            Ok(held) => held.is_some_and(|held| !reservation::is_over(&held, Timestamp::now())),
            Err(_) => true,
        }
    }
}

impl Exchange<'_> {
    /// What `job_status` shows; nothing if it cannot be had.
    async fn job_status(&self) -> JobStatus {
        let Some(look) = self.permit.look() else { return JobStatus::default() };
        let Some(signed) = look.signed() else { return JobStatus::default() };
        let origin = Origin::of_look(&self.origin);
        let patience = self.sender.upstream().patience();
        let mut tries = Tries::new(false, self.deadline).with_patience(patience);
        loop {
            let try_deadline = self.sender.upstream().one_try(false, self.deadline);
            let Ok(tried) = self.sender.try_signed(signed, &origin, try_deadline).await else {
                return JobStatus::default();
            };
            let now = Instant::now();
            let next = match &tried.outcome {
                // Nobody else will ask.
                Outcome::NoAnswer(UpstreamError::Busy { .. }) => tries.pause(now),
                outcome => tries.next(outcome, now),
            };
            match next {
                Next::Again(pause) => sleep(pause).await,
                Next::Renew => tried.nonce.iter().for_each(|nonce| self.sender.forget(nonce)),
                Next::Return | Next::Settle => {
                    return match tried.outcome {
                        Outcome::Answered(answer, _) => JobStatus::of(&answer),
                        _ => JobStatus::default(),
                    };
                }
            }
        }
    }
}

/// Whether the upstream may still be at work on a call, as far as its answer tells.
pub(super) fn is_silent(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::NoAnswer(error) => matches!(error, UpstreamError::TimedOut { .. }),
        // A gateway's word that what is behind it said nothing.
        Outcome::Answered(answer, _) => matches!(answer.status.as_u16(), 504 | 520..=527),
        Outcome::NoSession(_) | Outcome::Abandoned => false,
    }
}
