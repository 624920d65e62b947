//! The next job for a client that asks for any: it is chosen from a list that is asked for once for all who
//! wait, and reserved as by any call.

use std::{sync::Arc, time::Duration};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep_until};

use super::{
    admit::{Admission, Admitted, action},
    detached::Detached,
    error::CallError,
    evidence::Evidence,
    finish::replayed,
    job_queue::{JobOffer, JobQueue, Lister, NoList, Seat},
    parts::Proxy,
};
use crate::{
    action::{Action, Effect},
    call::Call,
    next_job::{JobRequest, ListedJob},
    policy::{Client, Denied},
    store::{Caller, FreezeOf, HandOutBegun, JobClaim, ReleasedJob, StoredAnswer},
    trace::Trace,
    types::{Address, IdempotencyKey, Slug},
    upstream::Answer,
};

/// How many jobs of one request may turn out to be another team's.
const LOST: usize = 3;

/// The answer to a request for any job.
#[derive(Debug)]
pub enum NextJob {
    /// The upstream's, to the reserve of a job or to a list that it refused.
    Answer(Answer),
    /// None came in time. The next list is after this time.
    Nothing(Duration),
}

/// Why a request for any job has no answer.
#[derive(Debug)]
pub struct NextJobError {
    /// The call that failed.
    pub action: &'static Action,
    /// The job that was to be reserved.
    pub job: Option<Slug>,
    /// Why.
    pub error: Arc<CallError>,
}

/// A request for any job, on its way.
#[derive(Debug)]
struct Asking {
    reserve: &'static Action,
    client: Client,
    wallet: Address,
    known_at: Instant,
    key: Option<IdempotencyKey>,
    trace: Arc<Trace>,
}

impl Proxy {
    /// Lets a request for any job through whose client may list and reserve jobs now, and counts both. That it
    /// may not is on record.
    ///
    /// # Errors
    /// See [`CallError`]; nothing may be read or sent.
    pub async fn admit_next_job(
        &self,
        evidence: &Evidence,
        key: Option<IdempotencyKey>,
        trace: Arc<Trace>,
    ) -> Result<Admitted, CallError> {
        let own = Arc::new(Trace::new(trace.call_id.clone()));
        let list = Admission { action: action("job_list")?, product: None, key: None, trace: own };
        self.admit(evidence, list).await?;
        let action = action("job_reserve")?;
        self.admit(evidence, Admission { action, product: None, key, trace }).await
    }

    /// Reserves the best open job that a request takes, and waits for one up to this time. It waits without an
    /// in-flight permit, and ends with its client as long as it waits.
    ///
    /// # Errors
    /// See [`NextJobError`].
    pub async fn next_job(
        self: &Arc<Self>,
        admitted: Admitted,
        request: &JobRequest,
        wait: Duration,
    ) -> Result<NextJob, NextJobError> {
        let Admitted { admission, client, known_at, permit } = admitted;
        drop(permit);
        let Admission { action: reserve, key, trace, .. } = admission;
        let (wallet, deadline) = (self.wallet_of(&client), Instant::now() + wait);
        let asking = Arc::new(Asking { reserve, client, wallet, known_at, key, trace });
        let failed = |error| asking.failed(None, error);
        let _permit = self.wait_permit(&asking.client).map_err(|error| failed(error.into()))?;
        let mut claim = self.begin_next(&asking, request).await.map_err(failed)?;
        let queue = self.queues.of(wallet);
        let lister = queue.arrive(asking.client.clone(), known_at);
        if let Some(answer) = claim.answer.take() {
            return Ok(NextJob::Answer(replayed(*answer)));
        }
        self.learn_released(&queue, wallet).await;
        let (mut lost, mut named) = (0, claim.job.clone().map(ListedJob::named));
        while lost < LOST {
            let job = match named.take() {
                Some(job) => job,
                None => match self.wait_for_job(&queue, &lister, request, deadline).await {
                    JobOffer::Job(job) => job,
                    JobOffer::Nothing => break,
                    JobOffer::Failed(NoList::Refused(answer)) => {
                        return Ok(NextJob::Answer(answer));
                    }
                    JobOffer::Failed(NoList::Failed(error)) => {
                        let action = action("job_list").map_err(failed)?;
                        return Err(NextJobError { action, job: None, error });
                    }
                },
            };
            let id = job.id.clone();
            let reserving = self.clone().reserve_next(asking.clone(), queue.clone(), job, claim);
            let result;
            (claim, result) = Detached::new(reserving, &self.tasks, log_unheard).await;
            match result {
                Ok(answer) if is_lost(&answer) => lost += 1,
                Ok(answer) => return Ok(NextJob::Answer(answer)),
                // It is held by a client of this proxy.
                Err(CallError::Denied(Denied::Holder(_))) => {}
                Err(error) => return Err(asking.failed(Some(id), error)),
            }
        }
        Ok(NextJob::Nothing(queue.next_list()))
    }

    /// Finds out at once whether the client may have a job, or has one under its key.
    async fn begin_next(
        &self,
        asking: &Asking,
        request: &JobRequest,
    ) -> Result<JobClaim, CallError> {
        let key = asking.key.as_ref().map(|key| (key, request.fingerprint));
        let deadline = self.upstream.deadline(Effect::Reserves);
        let begun = async {
            self.store.check_unfrozen(FreezeOf::Signatures).await?;
            let (client, wallet) = (&asking.client, asking.wallet);
            match self.store.begin_hand_out(client, wallet, key, deadline).await? {
                HandOutBegun::Started(claim) => Ok(claim),
                HandOutBegun::Running => Err(CallError::KeyInUse),
                HandOutBegun::KeyReused => Err(CallError::KeyReused),
                HandOutBegun::Denied(denied) => Err(denied.into()),
            }
        };
        match begun.await {
            Ok(claim) => Ok(claim),
            Err(error) => Err(self.denied_next(asking, None, error).await),
        }
    }

    /// Waits until a job is offered, or the time is over and a list that was up to date had none.
    async fn wait_for_job(
        self: &Arc<Self>,
        queue: &Arc<JobQueue>,
        lister: &Lister,
        request: &JobRequest,
        deadline: Instant,
    ) -> JobOffer {
        let wallet = self.wallet_of(&lister.client);
        let (mut seat, starts) = queue.join(lister.clone(), request.filter.clone(), deadline);
        if starts {
            self.tasks.spawn(self.clone().poll(queue.clone(), wallet));
        }
        let Seat { offer, .. } = &mut seat;
        tokio::select! {
            // An offer that has come is taken.
            biased;
            offer = &mut *offer => return offer.unwrap_or(JobOffer::Nothing),
            () = sleep_until(deadline) => {}
        }
        if seat.has_list() {
            return seat.offer.try_recv().unwrap_or(JobOffer::Nothing);
        }
        (&mut seat.offer).await.unwrap_or(JobOffer::Nothing)
    }

    /// Reserves a job for the client to which it was offered.
    async fn reserve_next(
        self: Arc<Self>,
        asking: Arc<Asking>,
        queue: Arc<JobQueue>,
        job: ListedJob,
        mut claim: JobClaim,
    ) -> (JobClaim, Result<Answer, CallError>) {
        let result = match job.is_released {
            true => self.take_released(&asking, &job.id, &mut claim).await,
            false => self.make_next(&asking, &job.id, &mut claim).await,
        };
        queue.reserved(&job, result.as_ref().is_ok_and(is_lost));
        (claim, result)
    }

    async fn make_next(
        self: &Arc<Self>,
        asking: &Asking,
        job: &Slug,
        claim: &mut JobClaim,
    ) -> Result<Answer, CallError> {
        let Asking { reserve, client, wallet, known_at, key, trace } = asking;
        let call = Call::new(reserve, [job.as_str()], b"").map_err(|_| CallError::Aborted)?;
        let key = key.as_ref().map(|key| key_of(key, job)).transpose()?;
        let trace = trace.clone();
        let admission = Admission { action: reserve, product: Some(job.clone()), key, trace };
        let admitted = self.readmit(admission, client.clone(), *known_at)?;
        let is_repeat = claim.job.as_ref() == Some(job);
        let number = match is_repeat {
            true => None,
            false => match self.store.hand_out(client, *wallet, job, claim).await? {
                Ok(number) => Some(number),
                Err(denied @ Denied::Holder(_)) => return Err(denied.into()),
                Err(denied) => {
                    return Err(self.denied_next(asking, Some(job), denied.into()).await);
                }
            },
        };
        claim.job = Some(job.clone());
        let result = self.call(admitted, call).await;
        let is_known = result.as_ref().err().is_none_or(|error| !error.may_have_had_effect());
        if let Some(number) = number.filter(|_| is_known) {
            self.store.end_hand_out(number).await;
        }
        result
    }

    /// Gives a client a job that another one has released.
    async fn take_released(
        &self,
        asking: &Asking,
        job: &Slug,
        claim: &mut JobClaim,
    ) -> Result<Answer, CallError> {
        let Asking { client, wallet, .. } = asking;
        let now = Timestamp::now();
        let taken = async {
            client.check(asking.reserve, *wallet, now)?;
            match self.store.take_released(client, *wallet, job, claim, now).await? {
                Ok(answer) => Ok(answer),
                Err(denied) => Err(CallError::from(denied)),
            }
        };
        match taken.await {
            Ok(StoredAnswer { status, headers, body }) => {
                claim.job = Some(job.clone());
                Ok(Answer { status, headers, body, clock_ahead: SignedDuration::ZERO })
            }
            Err(CallError::Denied(denied @ Denied::Holder(_))) => Err(denied.into()),
            Err(error) => Err(self.denied_next(asking, Some(job), error).await),
        }
    }

    /// Releases a job that a client holds, so that the next one of its wallet may have it.
    ///
    /// # Errors
    /// The client does not hold it, or that could not be written.
    pub async fn release_job(&self, client: &Client, job: &Slug) -> Result<ReleasedJob, CallError> {
        let released = self.store.release(client, job, Timestamp::now()).await??;
        self.learn_released(&self.queues.of(released.wallet), released.wallet).await;
        Ok(released)
    }

    /// Records that a client may not have a job, if that is why.
    async fn denied_next(
        &self,
        asking: &Asking,
        job: Option<&Slug>,
        error: CallError,
    ) -> CallError {
        let Asking { reserve: action, client, wallet, trace, .. } = asking;
        let (product, trace) = (job.cloned(), trace.clone());
        let admission = Admission { action, product, key: None, trace };
        self.refused(&admission, Caller::Client(client.name.clone()), Some(*wallet), error).await
    }
}

impl Asking {
    fn failed(&self, job: Option<Slug>, error: CallError) -> NextJobError {
        NextJobError { action: self.reserve, job, error: Arc::new(error) }
    }
}

/// Whether another team reserved a job first.
fn is_lost(answer: &Answer) -> bool {
    [404, 409, 410].contains(&answer.status.as_u16())
}

/// The key of the reserve of a job under a client's key, which may be for one job after another.
fn key_of(key: &IdempotencyKey, job: &Slug) -> Result<IdempotencyKey, CallError> {
    let text = format!("{} {}", job.as_str().to_ascii_lowercase(), key.as_str());
    let key = format!("next-{}", hex::encode(Sha256::digest(text)));
    key.parse().map_err(|_| CallError::Aborted)
}

/// A client that goes away while its job is reserved finds it among its reservations.
fn log_unheard((claim, result): (JobClaim, Result<Answer, CallError>)) {
    let job = claim.job.as_ref().map(Slug::as_str);
    match result {
        Ok(answer) => {
            let status = answer.status.as_u16();
            tracing::warn!(job, status, "the client went away before its next job");
        }
        Err(error) => tracing::warn!(job, %error, "the client went away before its next job"),
    }
}
