//! The outcome of a change whose answer was lost (protocol §8).

use http::HeaderValue;
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{
    error::CallError,
    parts::{ANSWER_HEADER, Proxy},
};
use crate::{
    action::{Effect, Lookup},
    clock, credits,
    job_status::JobStatus,
    operation::Operation,
    policy::Permit,
    reservation::{self, has_instructions, unseen},
    retry::{Next, Outcome, Tries},
    sender::Sender,
    store::{Claim, Doubt, Reservation},
    trace::Step,
    types::{Address, Slug},
    upstream::{Answer, Unanswered},
};

/// The context of every attempt of an operation.
pub(super) struct AttemptContext<'a> {
    pub(super) operation: &'a Operation,
    pub(super) permit: &'a Permit,
    pub(super) sender: &'a Sender,
    /// The keys that the operation holds in the ledger.
    pub(super) claim: &'a Claim,
    /// For a call that is not signed.
    pub(super) workflow_token: Option<HeaderValue>,
    /// The credits of the wallet that were seen last when the operation began, as JSON.
    pub(super) balance_before: Option<String>,
}

/// The outcome of a change whose answer was lost.
pub(super) enum Settled {
    /// It surely did not take effect by this time, so it may be made again.
    NotMade(JobStatus, Timestamp),
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
    /// The upstream was done with it by `settles_at`.
    pub(super) fn new(seen: JobStatus, settles_at: Timestamp) -> Box<Self> {
        let ago = clock::steady().duration_since(settles_at).max(SignedDuration::ZERO);
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

impl Earlier {
    /// The state of an earlier attempt before the next one.
    pub(super) fn of(settled: Settled) -> Option<Self> {
        match settled {
            Settled::NotMade(_, settles_at) => Some(Self::InDoubt(settles_at)),
            Settled::Reserved(lost) => Some(Self::Reserved(lost)),
            Settled::Submitted(_) => None,
        }
    }
}

impl Proxy {
    /// Finds out what became of an earlier attempt of a change, which its client held the job for.
    ///
    /// # Errors
    /// It is not known whether it took effect.
    pub(super) async fn settle_earlier(
        &self,
        operation: &Operation,
        sender: &Sender,
        claim: &Claim,
        doubt: Doubt,
    ) -> Result<Settled, CallError> {
        let Operation { client, call, wallet, .. } = operation;
        let settles_at = match doubt.has_died {
            true => self.upstream.settles_after_death(doubt.settles_at, clock::steady()),
            false => doubt.settles_at,
        };
        // If the client's access ends just now, the call stays in doubt.
        let permit = client.permit(call.clone(), *wallet, Some(client.id), Timestamp::now());
        let left_in_doubt = |_| CallError::unknown(JobStatus::default(), Some(settles_at));
        let permit = &permit.map_err(left_in_doubt)?;
        let context = AttemptContext::new(operation, permit, sender, claim);
        match self.settle(&context, settles_at).await {
            // Reserved, by this attempt or before: the instructions may be lost, so reserve once more.
            Err(CallError::OutcomeUnknown { seen, .. })
                if seen.took_effect(call.action().effect) == Some(true) =>
            {
                Ok(Settled::Reserved(Lost::new(*seen, settles_at)))
            }
            settled => settled,
        }
    }

    /// Finishes a change whose earlier try may have succeeded. Only a success is trusted, and for a job that
    /// is known to be reserved only one with the instructions; otherwise the status is asked.
    pub(super) async fn undoubted(
        &self,
        context: &AttemptContext<'_>,
        ended: Result<Answer, CallError>,
        earlier: Earlier,
    ) -> Result<Answer, CallError> {
        let good = ended.as_ref().ok().filter(|answer| answer.status.is_success());
        let settles_at = match (earlier, good) {
            (Earlier::InDoubt(_), Some(_)) => return ended,
            (Earlier::InDoubt(settles_at), None) => settles_at,
            (Earlier::Reserved(_), Some(answer)) if has_instructions(&answer.body) => return ended,
            (Earlier::Reserved(lost), _) => {
                return Err(self.instructions_lost(context, lost).await);
            }
        };
        match self.settle(context, settles_at).await? {
            Settled::Submitted(answer) => Ok(answer),
            Settled::Reserved(lost) => Err(self.instructions_lost(context, lost).await),
            Settled::NotMade(seen, _) => ended.map_err(|error| match error.may_have_had_effect() {
                true => CallError::unknown(seen, Some(settles_at)),
                false => error,
            }),
        }
    }

    /// Finds out what became of a change, and tells its trace.
    ///
    /// # Errors
    /// It is not known whether it took effect.
    pub(super) async fn settle(
        &self,
        context: &AttemptContext<'_>,
        settles_at: Timestamp,
    ) -> Result<Settled, CallError> {
        let settled = self.look_up(context, settles_at).await;
        context.operation.trace.tell(Step::Settled(match &settled {
            Ok(Settled::NotMade(..)) => "not made",
            Ok(Settled::Reserved(_)) => "reserved",
            Ok(Settled::Submitted(_)) => "submitted",
            Err(_) => "unknown",
        }));
        settled
    }

    /// Asks for the job's status until it shows that a change took effect, or shows after `settles_at` that
    /// it did not: before, the upstream may still be at work on it.
    async fn look_up(
        &self,
        context: &AttemptContext<'_>,
        settles_at: Timestamp,
    ) -> Result<Settled, CallError> {
        let call = context.permit.call();
        let effect = call.action().effect;
        let job = match (call.action().lookup, call.job()) {
            (Lookup::JobStatus, Some(job)) => job,
            (Lookup::Balance, _) => return Err(context.spending_unknown().await),
            _ => return Err(CallError::unknown(JobStatus::default(), None)),
        };
        let mut pauses = Tries::new(false, context.operation.deadline);
        loop {
            let asked = clock::steady();
            let seen = context.probe().await.map_or_else(JobStatus::default, JobStatus::of);
            match seen.took_effect(effect) {
                Some(true) => return self.took_effect(context, job, seen, settles_at).await,
                Some(false) if asked >= settles_at => {
                    return Ok(Settled::NotMade(seen, settles_at));
                }
                Some(false) => {}
                None => return Err(CallError::unknown(seen, Some(settles_at))),
            }
            match pauses.pause(Instant::now()) {
                Next::Again(pause) => sleep(pause).await,
                _ => return Err(CallError::unknown(seen, Some(settles_at))),
            }
        }
    }

    async fn took_effect(
        &self,
        context: &AttemptContext<'_>,
        job: &Slug,
        seen: JobStatus,
        settles_at: Timestamp,
    ) -> Result<Settled, CallError> {
        let wallet = context.operation.wallet;
        match (context.permit.call().action().effect, &seen.answer) {
            (Effect::Submits, Some(answer)) => {
                Ok(Settled::Submitted(in_place_of_lost(answer.clone())))
            }
            (Effect::Reserves, _) if !self.may_hold(wallet, job).await => {
                Ok(Settled::Reserved(Lost::new(seen, settles_at)))
            }
            // The status may show the reservation that is held already.
            _ => Err(CallError::unknown(seen, Some(settles_at))),
        }
    }

    /// Whether a reservation of the job is remembered that may still run, from an answer that came.
    async fn may_hold(&self, wallet: Address, job: &Slug) -> bool {
        match self.store.reservation(wallet, job).await {
            Ok(Some(held)) => held.reservation_id.is_some() && is_running(&held),
            Ok(None) => false,
            Err(_) => true,
        }
    }

    /// The error of a reserve that took effect and brought no instructions. If no reservation is known to
    /// run, this one is to be remembered, so that it is known when it ends.
    pub(super) async fn instructions_lost(
        &self,
        context: &AttemptContext<'_>,
        lost: Box<Lost>,
    ) -> CallError {
        let Lost { seen, made } = *lost;
        let (operation, wallet) = (context.operation, context.operation.wallet);
        let Some(job) = operation.job() else { return CallError::Aborted };
        let held = self.store.reservation(wallet, job).await.ok().flatten().filter(is_running);
        let unseen = || unseen(operation, job, made, seen.answer.as_ref());
        let unseen = held.is_none().then(unseen);
        let ends = held.as_ref().or(unseen.as_ref()).map_or(made, |reservation| reservation.ends);
        let (job, unseen) = (job.clone(), unseen.map(Box::new));
        CallError::InstructionsLost { job, ends, seen: Box::new(seen), unseen }
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

impl<'a> AttemptContext<'a> {
    /// Without a workflow token, or a balance from before.
    pub(super) fn new(
        operation: &'a Operation,
        permit: &'a Permit,
        sender: &'a Sender,
        claim: &'a Claim,
    ) -> Self {
        Self { operation, permit, sender, claim, workflow_token: None, balance_before: None }
    }

    /// The error of a call that may have spent credits, with the balances around it as a hint.
    async fn spending_unknown(&self) -> CallError {
        let (before, answer) = (self.balance_before.clone(), self.probe().await);
        let now = answer.and_then(|answer| credits::balance(&answer.body));
        CallError::SpendingUnknown { before, now }
    }

    /// The credits of the wallet as JSON, if they can be had until then.
    pub(super) async fn balance(&self, deadline: Instant) -> Option<String> {
        let answer = self.ask(&self.permit.balance_probe()?, deadline).await?;
        credits::balance(&answer.body).filter(|_| answer.status.is_success())
    }

    /// The answer to the call that shows what became of a change, if it can be had.
    async fn probe(&self) -> Option<Answer> {
        self.ask(&self.permit.status_probe()?, self.operation.deadline).await
    }

    async fn ask(&self, probe: &Permit, last_try: Instant) -> Option<Answer> {
        let Self { operation, sender, .. } = self;
        let signed = probe.signed()?;
        let patience = sender.upstream().patience();
        let mut tries = Tries::new(false, last_try).with_patience(patience);
        loop {
            let deadline = sender.upstream().one_try(false, last_try);
            let tried = sender.try_signed(signed, operation, self.claim, deadline).await;
            let tried = tried.ok()?;
            let now = Instant::now();
            let next = match &tried.outcome {
                // The probe is for the proxy itself, which is not told to come again.
                Outcome::NoAnswer(error) if matches!(error.why, Unanswered::Busy(_)) => {
                    tries.pause(now)
                }
                outcome => tries.next(outcome, now),
            };
            match next {
                Next::Again(pause) => sleep(pause).await,
                Next::Renew => tried.nonce.iter().for_each(|nonce| sender.forget(nonce)),
                Next::Return | Next::OtherForm | Next::Settle => {
                    return match tried.outcome {
                        Outcome::Answered(answer, _) => Some(answer),
                        _ => None,
                    };
                }
            }
        }
    }
}

/// Whether the upstream may still be at work on a call, as far as its answer tells.
pub(super) fn is_silent(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::NoAnswer(error) => matches!(error.why, Unanswered::TimedOut),
        // A gateway's word that what is behind it said nothing.
        Outcome::Answered(answer, _) => matches!(answer.status.as_u16(), 504 | 520..=527),
        Outcome::NoSession(_) | Outcome::NotSigned(_) | Outcome::Abandoned => false,
    }
}
