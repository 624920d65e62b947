//! What became of a change whose answer was lost (protocol §8).

use http::{HeaderName, HeaderValue};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{CallError, Proxy, exchange::Exchange};
use crate::{
    action::{Effect, Lookup},
    clock,
    job_status::JobStatus,
    policy::Permit,
    reservation::{self, has_instructions, unseen},
    retry::{Next, Outcome, Tries},
    sender::Origin,
    store::Reservation,
    types::{Address, Slug},
    upstream::{Answer, UpstreamError},
};

/// The header of an answer that stands for one that was lost; its value is the call that was answered.
const ANSWER_HEADER: HeaderName = HeaderName::from_static("x-agentpmt-proxy-answer");

/// What became of a change whose answer was lost.
pub(super) enum Settled {
    /// It surely did not take effect, so it may be made again.
    NotMade(JobStatus),
    /// It reserved the job, but the instructions came only with the lost answer.
    Reserved(Box<Lost>),
    /// It submitted the proof. What `job_status` answered stands for the lost answer.
    Submitted(Answer),
}

/// A reserve that took effect, and whose answer was lost.
#[derive(Debug, Clone)]
pub(super) struct Lost {
    seen: JobStatus,
    /// When it had been made at the latest.
    made: Timestamp,
}

impl Lost {
    /// The upstream was done with it by `quiet`.
    pub(super) fn new(seen: JobStatus, quiet: Timestamp) -> Box<Self> {
        let ago = clock::now().duration_since(quiet).max(SignedDuration::ZERO);
        Box::new(Self { seen, made: Timestamp::now() - ago })
    }
}

/// The state of an earlier try of the same change.
pub(super) enum Earlier {
    /// It may have taken effect; the upstream may be at work on it until this time.
    InDoubt(Timestamp),
    /// It reserved the job.
    Reserved(Box<Lost>),
}

impl Proxy {
    /// Finishes a change whose earlier try may have succeeded. Only a success is trusted, and for a job that
    /// is known to be reserved only one with the instructions; otherwise the status is asked.
    pub(super) async fn undoubted(
        &self,
        exchange: &Exchange<'_>,
        ended: Result<Answer, CallError>,
        earlier: Earlier,
    ) -> Result<Answer, CallError> {
        let good = ended.as_ref().ok().filter(|answer| answer.status.is_success());
        let quiet = match (earlier, good) {
            (Earlier::InDoubt(_), Some(_)) => return ended,
            (Earlier::InDoubt(quiet), None) => quiet,
            (Earlier::Reserved(_), Some(answer)) if has_instructions(&answer.body) => return ended,
            (Earlier::Reserved(lost), _) => {
                return Err(self.instructions_lost(&exchange.permit, lost).await);
            }
        };
        match self.settle(exchange, quiet).await? {
            Settled::Submitted(answer) => Ok(answer),
            Settled::Reserved(lost) => Err(self.instructions_lost(&exchange.permit, lost).await),
            Settled::NotMade(seen) => ended.map_err(|error| match error.may_have_had_effect() {
                true => CallError::unknown(seen, Some(quiet)),
                false => error,
            }),
        }
    }

    /// Asks for the job's status until it shows that a change took effect, or shows after `quiet` that
    /// it did not: before, the upstream may still be at work on it.
    ///
    /// # Errors
    /// Nobody can tell whether it took effect.
    pub(super) async fn settle(
        &self,
        exchange: &Exchange<'_>,
        quiet: Timestamp,
    ) -> Result<Settled, CallError> {
        let call = exchange.permit.call();
        let effect = call.action().effect;
        let Some(job) = call.job().filter(|_| call.action().lookup == Lookup::JobStatus) else {
            return Err(CallError::unknown(JobStatus::default(), None));
        };
        let mut pauses = Tries::new(false, exchange.deadline);
        loop {
            let asked = clock::now();
            let seen = exchange.job_status().await;
            match seen.took_effect(effect) {
                Some(true) => return self.took_effect(exchange, job, seen, quiet).await,
                Some(false) if asked >= quiet => return Ok(Settled::NotMade(seen)),
                Some(false) => {}
                None => return Err(CallError::unknown(seen, Some(quiet))),
            }
            match pauses.pause(Instant::now()) {
                Next::Again(pause) => sleep(pause).await,
                _ => return Err(CallError::unknown(seen, Some(quiet))),
            }
        }
    }

    async fn took_effect(
        &self,
        exchange: &Exchange<'_>,
        job: &Slug,
        seen: JobStatus,
        quiet: Timestamp,
    ) -> Result<Settled, CallError> {
        let wallet = exchange.permit.wallet();
        match (exchange.permit.call().action().effect, &seen.answer) {
            (Effect::Submits, Some(answer)) => {
                self.reservations.submitted(&exchange.permit, job, answer.past()).await;
                Ok(Settled::Submitted(in_place_of_lost(answer.clone())))
            }
            (Effect::Reserves, _) if !self.may_hold(wallet, job).await => {
                Ok(Settled::Reserved(Lost::new(seen, quiet)))
            }
            // What is shown may be the reservation that is held already.
            _ => Err(CallError::unknown(seen, Some(quiet))),
        }
    }

    /// Whether a reservation of the job is remembered that may still run, from an answer that came.
    async fn may_hold(&self, wallet: Address, job: &Slug) -> bool {
        match self.reservations.of(wallet, job).await {
            Ok(Some(held)) => held.reservation_id.is_some() && is_running(&held),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// The end of a reserve that took effect and brought no instructions. The reservation is remembered,
    /// so that it is known when it ends.
    pub(super) async fn instructions_lost(&self, permit: &Permit, lost: Box<Lost>) -> CallError {
        let Lost { seen, made } = *lost;
        let Some(job) = permit.call().job().cloned() else { return CallError::Aborted };
        let wallet = permit.wallet();
        let held = self.reservations.of(wallet, &job).await.ok().flatten().filter(is_running);
        let ends = match held {
            Some(held) => held.ends,
            None => {
                let client = permit.client().to_string();
                let reservation = unseen(job.clone(), wallet, client, made, seen.answer.as_ref());
                let ends = reservation.ends;
                let past = seen.answer.as_ref().map_or(Timestamp::MIN, Answer::past);
                self.reservations.keep(reservation, past).await;
                ends
            }
        };
        CallError::InstructionsLost { job, ends, seen }
    }
}

fn is_running(reservation: &Reservation) -> bool {
    !reservation::is_over(reservation, Timestamp::now())
}

/// The answer of `job_status` as that of the change that it shows.
fn in_place_of_lost(mut answer: Answer) -> Answer {
    answer.headers.insert(ANSWER_HEADER, HeaderValue::from_static("job_status"));
    answer
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
                        Outcome::Answered(answer, _) => JobStatus::of(answer),
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
