//! An upstream inside this binary, for developing an agent without credits and for tests over real
//! sockets.
//!
//! It imitates the server of the protocol: sessions that end, signatures checked by recovering the
//! signer, reservations that expire, a review that pays. It keeps its state in memory. With the proxy
//! it shares plain values, canonical JSON and the table of calls; the message it works out for itself,
//! from the bytes that it received.

mod counts;
mod error;
mod fault;
mod seed;
mod serve;

mod form;
mod verify;

mod session;
mod workflow;

mod job;

mod board;

mod control;
mod routes;
mod strike;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::{Router, middleware::from_fn_with_state};
use jiff::{SignedDuration, Timestamp};
use tokio::net::TcpListener;

use self::{board::Board, fault::Armed, job::Job, session::Nonces};
pub use self::{
    counts::Counts,
    fault::{Fault, FaultKind, FaultTarget, InvalidFault, KINDS},
};
use crate::action::{ACTIONS, Action};

/// The calls, times and jobs of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The calls that are answered.
    pub actions: &'static [Action],
    /// A session, from its opening.
    pub session: Duration,
    /// A reservation and its workflow token.
    pub reservation: Duration,
    /// The review of a submission, after which it is approved and paid.
    pub review: Duration,
    /// How often each of the dozen jobs is there. Further copies have the id of the first with `-2`,
    /// `-3` and so on behind it.
    pub copies: u32,
}

impl Default for Settings {
    /// All calls; 900 seconds, 30 minutes and 5 seconds; each job once.
    fn default() -> Self {
        Self {
            actions: ACTIONS,
            session: Duration::from_secs(900),
            reservation: Duration::from_secs(30 * 60),
            review: Duration::from_secs(5),
            copies: 1,
        }
    }
}

/// The upstream. Clones share one state.
#[derive(Clone)]
pub struct Sandbox {
    actions: &'static [Action],
    api: Arc<Mutex<Api>>,
}

/// Everything that requests change. It is locked between awaits, never across one.
struct Api {
    requests: u64,
    nonces: Nonces,
    board: Board,
    faults: Armed,
}

impl Sandbox {
    /// The id of the first job, a general one.
    pub const FIRST_JOB: &str = seed::JOBS[0].id;

    /// An upstream with all its jobs open.
    pub fn new(settings: Settings) -> Self {
        let api = Api {
            requests: 0,
            nonces: Nonces::new(settings.session),
            board: Board::new(&settings),
            faults: Armed::default(),
        };
        Self { actions: settings.actions, api: Arc::new(Mutex::new(api)) }
    }

    /// Serves the protocol (§1, §5), under the faults that are armed, and beside it the control path
    /// `/sandbox/…`. It never ends; when the future is dropped, all its connections are closed.
    pub async fn serve(&self, listener: TcpListener) {
        let strike = from_fn_with_state(self.clone(), strike::strike);
        let calls = routes::counted(self, routes::router(self).layer(strike));
        serve::serve(listener, calls.merge(control::router(self))).await;
    }

    /// The protocol alone, for a server of the caller's: there no fault strikes.
    pub fn router(&self) -> Router {
        routes::counted(self, routes::router(self))
    }

    /// Arms a fault.
    pub fn inject(&self, fault: Fault) {
        self.api().faults.waiting.push(fault);
    }

    /// The faults that are armed, with the times that are left.
    pub fn faults(&self) -> Vec<Fault> {
        self.api().faults.waiting.clone()
    }

    /// Disarms all faults.
    pub fn clear_faults(&self) {
        self.api().faults.waiting.clear();
    }

    /// The counts since the start.
    pub fn counts(&self) -> Counts {
        let api = self.api();
        let by_job = |count: fn(&Job) -> u64| {
            api.board.jobs().iter().map(|job| (job.id.clone(), count(job))).collect()
        };
        Counts {
            requests: api.requests,
            sessions: api.nonces.opened(),
            submissions: by_job(|job| job.submissions),
            accepted: by_job(|job| job.accepted),
            faults: api.faults.fired.clone(),
        }
    }

    /// How often a correctly signed proof was processed for a job, whether it was taken or refused.
    pub fn submissions(&self, job_id: &str) -> u64 {
        self.counts().submissions.get(job_id).copied().unwrap_or_default()
    }

    /// How often a proof was taken for a job.
    pub fn accepted(&self, job_id: &str) -> u64 {
        self.counts().accepted.get(job_id).copied().unwrap_or_default()
    }

    /// A panic elsewhere leaves nothing half changed that would matter to an imitation.
    fn api(&self) -> MutexGuard<'_, Api> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hides the state, which holds nonces and tokens.
impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sandbox").field(&self.counts()).finish()
    }
}

/// A length of time with its unit, such as `500ms` or `15m`; more than none.
pub fn duration(text: &str) -> Option<Duration> {
    let duration: Option<SignedDuration> = text.parse().ok().filter(SignedDuration::is_positive);
    duration.map(|duration| duration.unsigned_abs())
}

/// The end of something that begins at `start`; the last timestamp there is if it lies beyond.
fn end_of(start: Timestamp, duration: Duration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}
