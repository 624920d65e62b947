//! A status that is answered when the review of the job has an end.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};

use super::{
    admit::{Admission, Admitted, action},
    error::CallError,
    evidence::Evidence,
    parts::Proxy,
    reviews::{Asker, NextQuestion, ReviewKey, STATUS, SeenReview},
};
use crate::{
    call::Call,
    policy::Client,
    store::{EventKind, FreezeOf},
    trace::Trace,
    types::{Address, Slug},
    upstream::Answer,
};

impl Proxy {
    /// Makes a call for the status of a job, but answers it only when the review of the job has an end, or
    /// after this time with what is known by then. All clients that wait for a job share one question; it is
    /// asked in the name of the one that waits longest, and counts for no rate: each wait counted as it began.
    ///
    /// # Errors
    /// As of a call without a wait.
    pub async fn status_when_reviewed(
        self: &Arc<Self>,
        evidence: Evidence,
        admitted: Admitted,
        call: Call,
        wait: Duration,
    ) -> Result<Answer, CallError> {
        let (wallet, end_of_wait) = (self.wallet_of(&admitted.client), Instant::now() + wait);
        let job = call.job().cloned().filter(|_| !wait.is_zero());
        let job = match job {
            Some(job) if self.may_wait(&admitted.client, wallet, &call, &job).await? => job,
            // It is answered or refused at once.
            _ => return self.call(admitted, call).await,
        };
        let Admitted { admission, client, permit, .. } = admitted;
        let (permit, _) = (self.wait_permit(&client)?, drop(permit));
        let evidence = Arc::new(evidence);
        let asker = Asker::new(evidence.clone(), admission.trace.call_id.clone());
        let waiting = self.reviews.wait(wallet, &job, asker);
        if waiting.needs_task {
            tokio::spawn(self.clone().ask_after(waiting.key()));
        }
        let is_over = async {
            tokio::select! {
                () = sleep_until(end_of_wait) => {}
                () = self.ending.cancelled() => {}
            }
        };
        let seen = waiting.until(is_over).await;
        drop(permit);
        // The access of the client may have ended, and another may have reserved the job.
        let known_at = Instant::now();
        let client = self.identify(&evidence).await?;
        if let Some(seen) = seen
            && self.may_wait(&client, wallet, &call, &job).await?
        {
            return Ok(seen.answer.clone());
        }
        self.call(self.readmit(admission, client, known_at)?, call).await
    }

    /// Whether a client may make the call at all, and see the job.
    async fn may_wait(
        &self,
        client: &Client,
        wallet: Address,
        call: &Call,
        job: &Slug,
    ) -> Result<bool, CallError> {
        let now = Timestamp::now();
        let may_call = client.check(call.action(), wallet, now).is_ok();
        let is_frozen = self.store.check_unfrozen(FreezeOf::Signatures).await.is_err();
        if !may_call || is_frozen || call.other_wallet(wallet).is_some() {
            return Ok(false);
        }
        let holder = self.store.holder(wallet, job, client.id, now).await?;
        Ok(client.check_holder(call.action(), job, holder).is_ok())
    }

    /// Asks after a job as long as clients wait for its review.
    pub(super) async fn ask_after(self: Arc<Self>, key: ReviewKey) {
        loop {
            let (asker, job) = match self.reviews.next_question(&key) {
                NextQuestion::Never => return,
                NextQuestion::Later(due, changed) => {
                    tokio::select! {
                        () = sleep_until(due) => {}
                        () = changed.notified() => {}
                        () = self.ending.cancelled() => return,
                    }
                    continue;
                }
                NextQuestion::Now(asker, job) => (asker, job),
            };
            let asked = Instant::now();
            let seen = match self.ask(&asker, key.0, &job).await {
                Ok(answer) => Some(SeenReview::new(answer, asked)),
                Err(error) if error.denial().is_some() && self.reviews.dismiss(&key, &asker) => {
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, job = job.as_str(), "a review cannot be asked after");
                    None
                }
            };
            if let Some(status) = seen.as_ref().map(|seen| &seen.status)
                && let Some(end) = status.review_end()
            {
                let reward = status.reward_credits.filter(|_| end == EventKind::SubmissionApproved);
                let told = self.store.tell_review(key.0, &job, end, reward).await;
                if let Err(error) = told {
                    tracing::warn!(%error, "the end of a review is not on record yet");
                }
            }
            self.reviews.asked(&key, asked, seen);
        }
    }

    /// Asks for the status of a job once, in the name of a client: with its rights as they are now.
    async fn ask(
        self: &Arc<Self>,
        asker: &Asker,
        wallet: Address,
        job: &Slug,
    ) -> Result<Answer, CallError> {
        let known_at = Instant::now();
        let client = self.identify(&asker.evidence).await?;
        let action = action(STATUS)?;
        client.check(action, wallet, Timestamp::now())?;
        // Otherwise each question would be on record as a refusal.
        self.store.check_unfrozen(FreezeOf::Signatures).await?;
        let trace = Arc::new(Trace::new(asker.call_id.clone()));
        let admission = Admission { action, product: Some(job.clone()), key: None, trace };
        let call = Call::new(action, [job.as_str()], b"").map_err(|_| CallError::Aborted)?;
        self.call(self.readmit(admission, client, known_at)?, call).await
    }
}
