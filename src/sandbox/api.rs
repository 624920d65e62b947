//! A sandbox: its state, its counts and its faults.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{
    armed::Armed,
    board::Board,
    counts::Counts,
    credits::{Credits, LedgerEntry},
    facilitator::{Facilitator, TakenPayment},
    fault::InjectedFault,
    job::Job,
    seed,
    session::Nonces,
    settings::Settings,
    time::now,
    workflow_session::WorkflowSessions,
};
use crate::action::Action;

/// The upstream. Clones share one state.
#[derive(Clone)]
pub struct Sandbox {
    pub(super) actions: &'static [Action],
    pub(super) slow_tool: Duration,
    api: Arc<Mutex<Api>>,
}

/// Everything that requests change. It is locked between awaits, never across one.
pub(super) struct Api {
    pub(super) requests: u64,
    pub(super) nonces: Nonces,
    pub(super) board: Board,
    pub(super) credits: Credits,
    pub(super) facilitator: Facilitator,
    pub(super) workflow_sessions: WorkflowSessions,
    pub(super) faults: Armed,
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
            credits: Credits::new(settings.credits),
            facilitator: Facilitator::default(),
            workflow_sessions: WorkflowSessions::default(),
            faults: Armed::default(),
        };
        let Settings { actions, slow_tool, .. } = settings;
        Self { actions, slow_tool, api: Arc::new(Mutex::new(api)) }
    }

    /// Arms a fault.
    pub fn inject(&self, fault: InjectedFault) {
        self.api().faults.waiting.push(fault);
    }

    /// The faults that are armed, with the times that are left.
    pub fn faults(&self) -> Vec<InjectedFault> {
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

    /// Every change of a wallet's credits, in order.
    pub fn ledger(&self) -> Vec<LedgerEntry> {
        self.api().credits.ledger(now()).to_vec()
    }

    /// Every payment that was taken, in order.
    pub fn payments(&self) -> Vec<TakenPayment> {
        self.api().facilitator.taken().to_vec()
    }

    /// A panic elsewhere leaves nothing half changed that would matter to an imitation.
    pub(super) fn api(&self) -> MutexGuard<'_, Api> {
        self.api.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hides the state, which holds nonces and tokens.
impl fmt::Debug for Sandbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Sandbox").field(&self.counts()).finish()
    }
}
