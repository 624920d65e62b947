//! The jobs of a wallet that can be handed out, and the requests that wait for one: whose turn it is, and when
//! the list is asked for again. Nothing is sent from here.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{Notify, oneshot},
    time::Instant,
};

use super::error::CallError;
use crate::{
    next_job::{JobFilter, ListedJob},
    policy::Client,
    types::{Address, Slug},
    upstream::Answer,
    waiting::{LONGEST_PAUSE, Pace, SHORTEST_PAUSE},
};

/// The queues of all wallets.
#[derive(Debug, Default)]
pub(super) struct JobQueues(Mutex<BTreeMap<Address, Arc<JobQueue>>>);

/// The queue of one wallet.
#[derive(Debug)]
pub(super) struct JobQueue {
    state: Mutex<QueueState>,
    sooner: Notify,
}

#[derive(Debug)]
struct QueueState {
    /// By their arrival.
    waiting: BTreeMap<u64, WaitingRequest>,
    arrivals: u64,
    /// The jobs that can be handed out, the best first.
    open: Vec<ListedJob>,
    /// The jobs that were released, the best first.
    released: Vec<ListedJob>,
    /// The other jobs of the last list: the wallet's own.
    own: Vec<ListedJob>,
    /// The open jobs of the last list, whichever were handed out.
    last: HashSet<String>,
    /// The jobs that were handed out, and when the reserve of each has ended.
    handed_out: HashMap<String, Option<Instant>>,
    pace: Pace,
    /// When the last list was asked for, and when the next is to be.
    listed: Option<Instant>,
    due: Instant,
    is_listing: bool,
    /// Whether a task asks for lists.
    is_polled: bool,
}

/// A request that waits.
#[derive(Debug)]
struct WaitingRequest {
    client: Client,
    /// When that was looked up.
    known_at: Instant,
    filter: JobFilter,
    deadline: Instant,
    /// Whether it was offered the jobs of a list that was up to date.
    has_list: bool,
    /// `None` once it was told.
    offer: Option<oneshot::Sender<JobOffer>>,
}

/// The message that ends the wait of a request.
#[derive(Debug)]
pub(super) enum JobOffer {
    /// This job is for it alone.
    Job(ListedJob),
    /// Its time is over.
    Nothing,
    /// There is no list.
    Failed(NoList),
}

/// Why there is no list of jobs.
#[derive(Debug, Clone)]
pub(super) enum NoList {
    /// The upstream refused it.
    Refused(Answer),
    /// There is no answer of the upstream.
    Failed(Arc<CallError>),
}

/// A request's place among those that wait. Dropping it gives it up.
#[derive(Debug)]
pub(super) struct Seat {
    queue: Arc<JobQueue>,
    number: u64,
    pub(super) offer: oneshot::Receiver<JobOffer>,
}

/// The request in whose name a list is asked for.
#[derive(Debug, Clone)]
pub(super) struct Lister {
    number: u64,
    pub(super) client: Client,
    pub(super) known_at: Instant,
}

impl JobQueues {
    /// The queue of a wallet.
    pub(super) fn of(&self, wallet: Address) -> Arc<JobQueue> {
        let mut queues = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        queues.entry(wallet).or_default().clone()
    }
}

impl Default for JobQueue {
    fn default() -> Self {
        let state = QueueState {
            waiting: BTreeMap::new(),
            arrivals: 0,
            open: Vec::new(),
            released: Vec::new(),
            own: Vec::new(),
            last: HashSet::new(),
            handed_out: HashMap::new(),
            pace: Pace::default(),
            listed: None,
            due: Instant::now(),
            is_listing: false,
            is_polled: false,
        };
        Self { state: Mutex::new(state), sooner: Notify::new() }
    }
}

impl JobQueue {
    /// Has a request wait, behind those that came before: a second time where it was. Tells whether a task has
    /// to begin to poll.
    pub(super) fn join(
        self: &Arc<Self>,
        Lister { client, known_at, number }: Lister,
        filter: JobFilter,
        deadline: Instant,
    ) -> (Seat, bool) {
        let (tell, offer) = oneshot::channel();
        let mut state = self.state();
        let now = Instant::now();
        if now >= state.due {
            // The list that comes decides.
            state.open.clear();
        }
        if state.waiting.is_empty() && now > state.due + LONGEST_PAUSE {
            state.pace = Pace::default();
        }
        let has_list = now < state.due && !state.is_listing;
        let offer_to = Some(tell);
        let waiting =
            WaitingRequest { client, known_at, filter, deadline, has_list, offer: offer_to };
        state.waiting.insert(number, waiting);
        state.deal();
        let starts = !std::mem::replace(&mut state.is_polled, true);
        (Seat { queue: self.clone(), number, offer }, starts)
    }

    /// The next place in the queue.
    pub(super) fn arrive(&self, client: Client, known_at: Instant) -> Lister {
        let mut state = self.state();
        state.arrivals += 1;
        Lister { number: state.arrivals, client, known_at }
    }

    /// Waits until a list is to be asked for. `None` if no request waits: then polling ends.
    pub(super) async fn due(&self) -> Option<()> {
        loop {
            let sooner = self.sooner.notified();
            let due = {
                let mut state = self.state();
                if state.waiting.is_empty() {
                    state.is_polled = false;
                    return None;
                }
                state.due
            };
            tokio::select! {
                () = tokio::time::sleep_until(due) => return Some(()),
                () = sooner => {}
            }
        }
    }

    /// Begins a list in the name of the request that has waited longest, if any still does.
    pub(super) fn begin_list(&self) -> Option<Lister> {
        let mut state = self.state();
        let (number, first) = state.waiting.first_key_value()?;
        let lister =
            Lister { number: *number, client: first.client.clone(), known_at: first.known_at };
        state.is_listing = true;
        state.listed = Some(Instant::now());
        Some(lister)
    }

    /// Takes the jobs of a list, and hands them out.
    pub(super) fn learn(&self, jobs: Vec<ListedJob>) {
        let mut state = self.state();
        let (now, begun) = (Instant::now(), state.listed);
        // A list that was asked for before a reserve ended may show the job as it was.
        state.handed_out.retain(|_, ended| ended.is_none_or(|ended| Some(ended) >= begun));
        let mut seen = HashSet::new();
        let (mut open, own) = jobs.into_iter().partition::<Vec<_>, _>(|job| job.is_open);
        state.own = own;
        open.retain(|job| seen.insert(folded(job)));
        open.retain(|job| !state.handed_out.contains_key(&folded(job)));
        open.sort_by_key(|job| Reverse(job.reward));
        state.open = open;
        if state.last != seen {
            state.pace = Pace::default();
        }
        state.last = seen;
        state.due = now + state.pace.next_pause();
        state.is_listing = false;
        state.deal();
        for waiting in state.waiting.values_mut() {
            waiting.has_list = true;
            if waiting.deadline <= now {
                waiting.tell(JobOffer::Nothing);
            }
        }
        state.waiting.retain(|_, waiting| waiting.offer.is_some());
    }

    /// Takes the jobs that are released, each with the answer to its reserve, and hands them out.
    pub(super) fn learn_released(&self, released: &[(Slug, Bytes)]) {
        let mut state = self.state();
        let QueueState { own, handed_out, .. } = &*state;
        let jobs = released.iter().map(|(id, reserve)| {
            let list = own.iter().find(|job| job.id.is_same(id.as_str()));
            ListedJob::released(id, reserve, list)
        });
        let is_free = |job: &ListedJob| handed_out.get(&folded(job)) != Some(&None);
        let mut jobs: Vec<_> = jobs.filter(is_free).collect();
        jobs.sort_by_key(|job| Reverse(job.reward));
        state.released = jobs;
        state.deal();
    }

    /// Tells that there is no list: to all who wait, or to the one that asked if the fault is its own. Then
    /// the next one asks.
    pub(super) fn fail(&self, own: Option<&Lister>, wait: Duration, why: &NoList) {
        let mut state = self.state();
        state.is_listing = false;
        if let Some(own) = own {
            let first = state.waiting.remove(&own.number);
            first.into_iter().for_each(|mut first| first.tell(JobOffer::Failed(why.clone())));
            return;
        }
        state.open.clear();
        state.pace = Pace::default();
        state.due = Instant::now() + state.pace.next_pause().max(wait);
        let all = std::mem::take(&mut state.waiting);
        all.into_values().for_each(|mut waiting| waiting.tell(JobOffer::Failed(why.clone())));
    }

    /// The reserve of a job has ended. If another team has it, the list is out of date.
    pub(super) fn reserved(&self, job: &ListedJob, was_lost: bool) {
        let mut state = self.state();
        let now = Instant::now();
        state.handed_out.insert(folded(job), Some(now));
        if was_lost {
            state.pace = Pace::default();
            let soonest = state.listed.map_or(now, |listed| listed + SHORTEST_PAUSE);
            state.due = state.due.min(soonest);
            self.sooner.notify_waiters();
        }
    }

    /// Polling has ended with the process: all who wait are told.
    pub(super) fn end(&self) {
        let mut state = self.state();
        state.is_polled = false;
        let all = std::mem::take(&mut state.waiting);
        all.into_values().for_each(|mut waiting| waiting.tell(JobOffer::Nothing));
    }

    /// How long until it is of use to ask again.
    pub(super) fn next_list(&self) -> Duration {
        self.state().due.saturating_duration_since(Instant::now())
    }

    fn state(&self) -> MutexGuard<'_, QueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl QueueState {
    /// Hands out jobs: to those that wait, in their order, the best that each takes, released ones first.
    fn deal(&mut self) {
        let Self { waiting, open, released, handed_out, .. } = self;
        waiting.retain(|_, waiting| {
            let take = |jobs: &mut Vec<ListedJob>| {
                let at = jobs.iter().position(|job| waiting.filter.takes(job))?;
                Some(jobs.remove(at))
            };
            let Some(job) = take(released).or_else(|| take(open)) else { return true };
            handed_out.insert(folded(&job), None);
            // A request that has gone returns the job as its seat is dropped.
            waiting.tell(JobOffer::Job(job));
            false
        });
    }
}

impl WaitingRequest {
    fn tell(&mut self, offer: JobOffer) {
        if let Some(tell) = self.offer.take() {
            drop(tell.send(offer));
        }
    }
}

impl Seat {
    /// Whether it has been offered the jobs of a list, or waits for one that is due.
    pub(super) fn has_list(&self) -> bool {
        self.queue.state().waiting.get(&self.number).is_none_or(|waiting| waiting.has_list)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut state = self.queue.state();
        state.waiting.remove(&self.number);
        // Nothing is offered while the queue is locked.
        if let Ok(JobOffer::Job(job)) = self.offer.try_recv() {
            state.handed_out.remove(&folded(&job));
            let jobs = if job.is_released { &mut state.released } else { &mut state.open };
            let at = jobs.partition_point(|other| other.reward >= job.reward);
            jobs.insert(at, job);
            state.deal();
        }
    }
}

/// The id in the spelling by which it is known here.
fn folded(job: &ListedJob) -> String {
    job.id.as_str().to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
