//! The lists of jobs for all who wait for one, and the jobs that were released.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{
    admit::{Admission, action},
    error::CallError,
    job_queue::{JobQueue, Lister, NoList},
    parts::Proxy,
};
use crate::{
    call::Call,
    next_job::{ListedJob, listed},
    retry,
    store::ReleasedJob,
    trace::Trace,
    types::{Address, RequestId},
    upstream::Answer,
};

/// How many jobs one page of a list has, and the most pages.
const PAGE: usize = 50;
const PAGES: usize = 4;

impl Proxy {
    /// Asks for lists as long as a request waits, in the name of the one that has waited longest.
    pub(super) async fn poll(self: Arc<Self>, queue: Arc<JobQueue>, wallet: Address) {
        loop {
            tokio::select! {
                due = queue.due() => if due.is_none() { return },
                () = self.ending.cancelled() => return queue.end(),
            }
            let Some(lister) = queue.begin_list() else { continue };
            match self.list_jobs(&lister).await {
                Ok(Ok(jobs)) => {
                    queue.learn(jobs);
                    self.learn_released(&queue, wallet).await;
                }
                Ok(Err(refused)) => {
                    let wait = retry::wished(&refused).unwrap_or_default();
                    queue.fail(None, wait, &NoList::Refused(refused));
                }
                Err(error) => {
                    let is_own = error.denial().is_some_and(|_| !error.is_freeze())
                        || matches!(error, CallError::Overloaded(_));
                    let own = is_own.then_some(&lister);
                    queue.fail(own, Duration::ZERO, &NoList::Failed(Arc::new(error)));
                }
            }
        }
    }

    /// All pages of the list, or the answer that refuses one.
    async fn list_jobs(
        self: &Arc<Self>,
        lister: &Lister,
    ) -> Result<Result<Vec<ListedJob>, Answer>, CallError> {
        let (action, mut jobs) = (action("job_list")?, Vec::new());
        for page in 0..PAGES {
            let trace = Arc::new(Trace::new(RequestId::random()));
            let body = format!("{{\"limit\":{PAGE},\"skip\":{}}}", page * PAGE);
            let call = Call::new(action, [], body.as_bytes()).map_err(|_| CallError::Aborted)?;
            let admission = Admission { action, product: None, key: None, trace };
            let admitted = self.readmit(admission, lister.client.clone(), lister.known_at)?;
            let answer = self.call(admitted, call).await?;
            if !answer.status.is_success() {
                return Ok(Err(answer));
            }
            let found = listed(&answer.body).ok_or(CallError::Unchecked)?;
            let is_last = found.len() < PAGE;
            jobs.extend(found);
            if is_last {
                break;
            }
        }
        Ok(Ok(jobs))
    }

    /// Has the queue of a wallet know the jobs that were released, by any process.
    pub(super) async fn learn_released(&self, queue: &JobQueue, wallet: Address) {
        match self.store.released(wallet, Timestamp::now()).await {
            Ok(released) => {
                let known = |job: ReleasedJob| Some((job.job, job.answer?.body));
                queue.learn_released(&released.into_iter().filter_map(known).collect::<Vec<_>>());
            }
            Err(error) => tracing::warn!(%error, "released jobs are not handed out"),
        }
    }
}
