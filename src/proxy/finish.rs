//! The end of an operation: what of its result is kept, and what of it the client gets.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use jiff::{SignedDuration, Timestamp};
use tokio::time::timeout;

use super::{
    error::CallError,
    parts::{ANSWER_HEADER, Proxy},
    precedent::Precedent,
};
use crate::{
    action::{About, Effect},
    credits::{self, ToldCharge},
    operation::Operation,
    policy::Denied,
    refusal::Refusal,
    reservation::{self, Reserved},
    store::{Claim, CreditEnd, Finish, JobEnd, KeyEnd, Reservation, StoredAnswer},
    trace::Step,
    types::Slug,
    upstream::Answer,
};

/// How long between two tries to write what could not be written.
const PAUSE: Duration = Duration::from_secs(1);

/// The largest answer to a reserve that is kept until the reservation ends, in bytes.
const MOST_KEPT: usize = 256 * 1024;

impl Proxy {
    /// Keeps what became of an operation, and withholds the workflow token from its answer.
    pub(super) async fn finish(
        self: &Arc<Self>,
        operation: &Operation,
        claim: Claim,
        mut result: Result<Answer, CallError>,
        precedent: Precedent,
    ) -> Result<Answer, CallError> {
        let (mut job, without_token) = job_end(operation, &result);
        if let (Ok(answer), Some(body)) = (&mut result, without_token)
            && !self.expose_workflow_token.load(Relaxed)
        {
            answer.body = body;
        }
        if !operation.action().changes() {
            return result;
        }
        if let (JobEnd::Reserved(reservation), Ok(answer)) = (&mut job, &result) {
            let is_kept = answer.body.len() <= MOST_KEPT;
            reservation.answer = is_kept.then(|| Box::new(stored(answer)));
        }
        let past = result.as_ref().map_or(Timestamp::MIN, Answer::past);
        let is_pending = result.as_ref().is_err_and(CallError::may_have_had_effect);
        let key = key_end(operation, &result, precedent);
        let is_good =
            |answer: &Answer| answer.status.is_success() && answer.status != StatusCode::ACCEPTED;
        let is_settled = self.pays_for(operation).is_some() && result.as_ref().is_ok_and(is_good);
        let credits = credit_end(&result);
        if let CreditEnd::Charged(charged) = credits {
            self.prices.raise(&operation.call, charged);
        }
        let finish = Finish { key, job, credits, is_pending, is_settled, past };
        if let Err(error) = self.store.finish(operation, &claim, &finish, Timestamp::now()).await {
            tracing::error!(%error, "what became of a call is not on record yet");
            self.tasks.spawn(self.clone().finish_later(operation.clone(), claim, finish));
        }
        operation.trace.tell(Step::Finished);
        match operation.job().filter(|_| precedent.is_other) {
            Some(job) => Err(Denied::Submitted(job.clone()).into()),
            None => result,
        }
    }

    /// Tries again until it can be written, or the process ends. Meanwhile, no other call has its key.
    async fn finish_later(self: Arc<Self>, operation: Operation, claim: Claim, finish: Finish) {
        loop {
            let is_last = timeout(PAUSE, self.ending.cancelled()).await.is_ok();
            let is_over = !self.store.is_to_be_finished(&finish);
            if is_over
                || self.store.finish(&operation, &claim, &finish, Timestamp::now()).await.is_ok()
                || is_last
            {
                return;
            }
        }
    }
}

/// The new state of the job, and the body without the workflow token if that is in it.
fn job_end(operation: &Operation, result: &Result<Answer, CallError>) -> (JobEnd, Option<Bytes>) {
    match (result, operation.action().effect) {
        (Ok(answer), Effect::Reserves) if answer.status.is_success() => {
            let reserved = Reserved::parse(&answer.body);
            let reservation =
                operation.job().map(|job| reserved.reservation(operation, job, answer.clock_ahead));
            if !reserved.is_as_expected {
                tracing::warn!(
                    job = operation.job().map(Slug::as_str),
                    "the answer to a reserve is not the JSON that was expected; what could be found \
                     in it is remembered, and whatever stands behind access_token is withheld"
                );
            }
            (reservation.map_or(JobEnd::Unchanged, JobEnd::Reserved), reserved.without_token)
        }
        (Ok(answer), effect) => {
            let is_submitted = effect == Effect::Submits && answer.status.is_success();
            let job = if is_submitted { JobEnd::Submitted } else { JobEnd::Unchanged };
            // A token that comes with another answer about a job is none for clients either.
            let is_of_job = operation.action().about == About::Job;
            (job, is_of_job.then(|| reservation::without_tokens(&answer.body)).flatten())
        }
        (Err(CallError::InstructionsLost { unseen: Some(reservation), .. }), _) => {
            (JobEnd::Reserved(Reservation::clone(reservation)), None)
        }
        _ => (JobEnd::Unchanged, None),
    }
}

/// The end of the credits that a call holds.
fn credit_end(result: &Result<Answer, CallError>) -> CreditEnd {
    match result {
        Ok(answer) => match credits::charged(&answer.body) {
            Some(ToldCharge::Told(charged)) => CreditEnd::Charged(charged),
            Some(ToldCharge::Unreadable) => CreditEnd::Held,
            None if answer.status.is_success() => CreditEnd::Held,
            None => CreditEnd::Free,
        },
        Err(error) if error.may_have_had_effect() => CreditEnd::Held,
        Err(_) => CreditEnd::Free,
    }
}

/// The state of the key for the next call with it.
fn key_end(
    operation: &Operation,
    result: &Result<Answer, CallError>,
    precedent: Precedent,
) -> KeyEnd {
    if let Some(end) = key_end_of_payment(operation, result, precedent) {
        return end;
    }
    match result {
        // A completion that was refused may be sent again, as when its reservation is known again.
        Ok(answer) if operation.is_completion() && !answer.status.is_success() => KeyEnd::Free,
        Ok(answer)
            if is_final(answer) || operation.call.signed().is_none() && is_verdict(answer) =>
        {
            let answer = stored(answer);
            if precedent.is_other {
                KeyEnd::AnsweredOther(answer)
            } else {
                KeyEnd::Answered(answer)
            }
        }
        Err(CallError::OutcomeUnknown { settles_at, .. }) => KeyEnd::InDoubt(*settles_at),
        Err(error) if error.may_have_had_effect() => KeyEnd::InDoubt(None),
        // The next one reserves once more, or repeats the payment as long as that is open.
        _ if precedent.was_reserved || precedent.was_paid => KeyEnd::InDoubt(None),
        _ => KeyEnd::Free,
    }
}

/// The same for a call that is paid for, if the payment decides it.
fn key_end_of_payment(
    operation: &Operation,
    result: &Result<Answer, CallError>,
    precedent: Precedent,
) -> Option<KeyEnd> {
    if operation.call.payment().is_some() {
        // The next call might come with another payment than this one.
        let is_open = match result {
            Ok(answer) => answer.leaves_payment_open(),
            Err(CallError::Upstream(error)) => error.has_left(),
            Err(_) => false,
        };
        return is_open.then_some(KeyEnd::InDoubt(None));
    }
    let answer = result.as_ref().ok().filter(|_| operation.action().effect == Effect::Pays)?;
    let is_free = match answer.status {
        // A payment that waits for a person is not made yet. To ask after a transaction pays nothing. Else the
        // next call asks again whether the payment has settled.
        StatusCode::ACCEPTED => {
            let is_ours = answer.headers.contains_key(ANSWER_HEADER);
            is_ours || operation.call.asks_after_transaction()
        }
        // The next call may come with the payment that is demanded.
        StatusCode::PAYMENT_REQUIRED => !precedent.was_paid,
        _ => return None,
    };
    Some(if is_free { KeyEnd::Free } else { KeyEnd::InDoubt(None) })
}

fn stored(answer: &Answer) -> StoredAnswer {
    let Answer { status, headers, body, .. } = answer.clone();
    StoredAnswer { status, headers, body }
}

/// Whether an answer says what became of the call. The others say that it was not looked at.
pub(super) fn is_final(answer: &Answer) -> bool {
    is_verdict(answer) && Refusal::of(answer).is_none()
}

/// The same for a call that is not signed, whose answer cannot refuse a signature.
fn is_verdict(answer: &Answer) -> bool {
    let status = answer.status.as_u16();
    status < 500 && ![401, 408, 425, 429].contains(&status)
        || credits::charged(&answer.body).is_some()
}

/// An answer that was given before, marked as such.
pub(super) fn replayed(StoredAnswer { status, mut headers, body }: StoredAnswer) -> Answer {
    headers.insert("idempotency-replayed", HeaderValue::from_static("true"));
    Answer { status, headers, body, clock_ahead: SignedDuration::ZERO }
}
