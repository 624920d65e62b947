//! What became of a change whose answer was lost (protocol §8).

use jiff::Timestamp;
use tokio::time::{Instant, sleep};

use super::{CallError, Proxy, unknown};
use crate::{
    action::{Action, Effect},
    call::Call,
    job_status::JobStatus,
    retry::{Next, Outcome, Tries},
    sender::Origin,
    types::Slug,
    upstream::{Answer, UpstreamError},
};

impl Proxy {
    /// The end of a change of which an earlier try may still have taken effect: only a good answer is
    /// taken for what it says.
    pub(super) async fn undoubted(
        &self,
        call: &Call,
        ended: Result<Answer, CallError>,
        origin: &Origin,
        quiet: Timestamp,
        deadline: Instant,
    ) -> Result<Answer, CallError> {
        if ended.as_ref().is_ok_and(|answer| answer.status.is_success()) {
            return ended;
        }
        let seen = self.settle(call, origin, quiet, deadline).await?;
        ended.map_err(|_| unknown(None, seen, Some(quiet)))
    }

    /// Asks for the job's status until it shows that a change took effect, or shows after `quiet` that
    /// it did not: before, the upstream may still be at work on it. It returns what was seen if the
    /// change surely did not take effect, so that it may be made again.
    pub(super) async fn settle(
        &self,
        call: &Call,
        origin: &Origin,
        quiet: Timestamp,
        deadline: Instant,
    ) -> Result<JobStatus, CallError> {
        let effect = call.action().effect;
        let Some(job) = call.id().filter(|_| effect != Effect::Edits) else {
            return Err(unknown(None, JobStatus::default(), None));
        };
        let mut pauses = Tries::new(false, deadline);
        loop {
            let asked = Timestamp::now();
            let seen = self.look(job, effect, origin, quiet, deadline).await?;
            if asked >= quiet {
                return Ok(seen);
            }
            match pauses.pause(Instant::now()) {
                Next::Again(pause) => sleep(pause).await,
                _ => return Err(unknown(None, seen, Some(quiet))),
            }
        }
    }

    /// Asks for the job's status once. It returns what that shows if the change did not take effect.
    async fn look(
        &self,
        job: &Slug,
        effect: Effect,
        origin: &Origin,
        quiet: Timestamp,
        deadline: Instant,
    ) -> Result<JobStatus, CallError> {
        let seen = self.job_status(job, origin, deadline).await;
        let processed = seen.took_effect(effect);
        if processed == Some(false) {
            return Ok(seen);
        }
        if processed == Some(true) {
            // What is remembered is over with the proof, and older than a reservation that was made.
            self.reservations.end(self.wallet(), job).await;
        }
        Err(unknown(processed, seen, Some(quiet)))
    }

    /// What `job_status` shows; nothing if it cannot be had.
    async fn job_status(&self, job: &Slug, origin: &Origin, deadline: Instant) -> JobStatus {
        let action = Action::named("job_status");
        let call = action.and_then(|action| Call::new(action, [job.as_str()], b"").ok());
        let Some((call, mut tries)) = call.map(|call| (call, Tries::new(false, deadline))) else {
            return JobStatus::default();
        };
        let Some(signed) = call.signed() else { return JobStatus::default() };
        loop {
            let try_deadline = self.sender.upstream().one_try(false, deadline);
            let Ok(tried) = self.sender.try_signed(signed, origin, try_deadline).await else {
                return JobStatus::default();
            };
            match tries.next(&tried.outcome, Instant::now()) {
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
        Outcome::NoSession(_) => false,
    }
}
