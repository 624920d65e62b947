//! An upstream inside this binary, for developing an agent without credits and for tests over real
//! sockets.
//!
//! It imitates the server of the protocol: sessions that end, signatures checked by recovering the
//! signer, reservations that expire, a review that pays. It keeps its state in memory and shares
//! only the protocol's plain types with the proxy; what was signed it works out for itself, from
//! the bytes that it received, so that a mistake of the proxy cannot agree with itself here.

mod board;
mod form;
mod job;
mod refusal;
mod routes;
mod seed;
mod session;
mod verify;
mod workflow;

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use axum::Router;
use jiff::Timestamp;

use self::{board::Board, session::Sessions};

/// How long things last.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// A session, from its opening.
    pub session: Duration,
    /// A reservation and its workflow token.
    pub reservation: Duration,
    /// The review of a submission, after which it is approved and paid.
    pub review: Duration,
}

impl Default for Settings {
    /// 900 seconds, 30 minutes and 5 seconds.
    fn default() -> Self {
        Self {
            session: Duration::from_secs(900),
            reservation: Duration::from_secs(30 * 60),
            review: Duration::from_secs(5),
        }
    }
}

/// What happened so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Requests that arrived, whatever came of them.
    pub requests: u64,
    /// Sessions that were opened.
    pub sessions: u64,
}

/// The upstream. Clones share one state.
#[derive(Clone)]
pub struct Sandbox(Arc<Mutex<Server>>);

/// Everything that requests change. It is locked between awaits, never across one.
struct Server {
    requests: u64,
    sessions: Sessions,
    board: Board,
}

impl Sandbox {
    /// The id of the first job, a general one.
    pub const FIRST_JOB: &str = seed::JOBS[0].id;

    /// An upstream with its dozen jobs open.
    pub fn new(settings: Settings) -> Self {
        Self(Arc::new(Mutex::new(Server {
            requests: 0,
            sessions: Sessions::new(settings.session),
            board: Board::new(settings.reservation, settings.review),
        })))
    }

    /// The service (protocol §1, §5); the caller binds the listener.
    pub fn router(&self) -> Router {
        routes::router(self)
    }

    /// What happened so far.
    pub fn counts(&self) -> Counts {
        let server = self.server();
        Counts { requests: server.requests, sessions: server.sessions.opened() }
    }

    /// How often a correctly signed proof arrived for a job, whether it was taken or refused.
    pub fn submissions(&self, job_id: &str) -> u64 {
        self.server().board.submissions(job_id)
    }

    /// A panic elsewhere leaves nothing half changed that would matter to an imitation.
    fn server(&self) -> MutexGuard<'_, Server> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hides the state, which holds nonces and tokens.
impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sandbox").field(&self.counts()).finish()
    }
}

/// The end of something that begins at `start`; the last timestamp there is if it lies beyond.
fn end_of(start: Timestamp, duration: Duration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}
