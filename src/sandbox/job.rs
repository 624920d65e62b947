//! The life of one job: open, reserved, submitted, approved (protocol §6).
//!
//! Nothing runs on a timer: each access works out the stage of a job from the time.

use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{json::Object, types::Address};

use super::{
    error::ApiError,
    form::Form,
    seed::{Seed, WORKFLOW_CREATION},
    settings::Settings,
    time::end_of,
    workflow::{Token, Workspace},
};

/// The longest proof, in characters.
const MAX_PROOF: usize = 4000;

/// The longest id in a body, in characters.
const MAX_ID: usize = 128;

/// A job and how far it has come.
pub(super) struct Job {
    pub(super) id: String,
    seed: &'static Seed,
    stage: Stage,
    /// How long a reservation runs.
    reservation: Duration,
    /// How long a review takes.
    review: Duration,
    /// How often a correctly signed proof arrived, whether it was taken or refused.
    pub(super) submissions: u64,
    /// How often a proof was taken.
    pub(super) accepted: u64,
}

enum Stage {
    Open,
    Reserved(RunningReservation),
    Submitted(Review),
}

/// A running reservation.
struct RunningReservation {
    id: String,
    wallet: Address,
    until: Timestamp,
    /// Only jobs that ask for a workflow have one.
    workspace: Option<Workspace>,
}

/// A proof that was taken.
struct Review {
    id: String,
    wallet: Address,
    begin: Timestamp,
    approval: Timestamp,
}

impl Job {
    /// The first copy of a job has the job's id itself.
    pub(super) fn new(seed: &'static Seed, copy: u32, settings: &Settings) -> Self {
        Self {
            id: if copy == 1 { seed.id.to_owned() } else { format!("{}-{copy}", seed.id) },
            seed,
            stage: Stage::Open,
            reservation: settings.reservation,
            review: settings.review,
            submissions: 0,
            accepted: 0,
        }
    }

    /// Opens the job again if its reservation is over; the workspace goes with it.
    pub(super) fn settle(&mut self, now: Timestamp) {
        if matches!(&self.stage, Stage::Reserved(lease) if lease.until <= now) {
            self.stage = Stage::Open;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// The public fields. Only the answer to a reserve has the instructions.
    pub(super) fn listing(&self, now: Timestamp) -> Value {
        json!({
            "job_id": self.id,
            "title": self.seed.title,
            "public_description": self.seed.public_description,
            "reward_credits": self.seed.reward_credits,
            "status": self.status(now),
            "job_type": self.seed.job_type,
        })
    }

    /// The status as one wallet may see it.
    pub(super) fn status_for(&self, wallet: Address, now: Timestamp) -> Value {
        let reserved = matches!(&self.stage, Stage::Reserved(lease) if lease.wallet == wallet);
        let review = match &self.stage {
            Stage::Submitted(review) if review.wallet == wallet => Some(review),
            _ => None,
        };
        json!({
            "job": self.listing(now),
            "has_active_reservation": reserved,
            "can_submit": reserved,
            "submission": review.map(|review| json!({
                "submission_id": review.id,
                "status": review.status(now),
                "submitted_at": review.begin.to_string(),
            })),
            "payout": review.filter(|review| review.is_over(now)).map(|review| json!({
                "credits": self.seed.reward_credits,
                "status": "paid",
                "paid_at": review.approval.to_string(),
            })),
        })
    }

    /// Gives the job to a wallet, if it is open.
    pub(super) fn reserve(&mut self, wallet: Address, now: Timestamp) -> Result<Value, ApiError> {
        match &self.stage {
            Stage::Open => {}
            Stage::Reserved(lease) if lease.wallet == wallet => {
                return Err(ApiError::JobAlreadyReserved);
            }
            _ => return Err(ApiError::JobNotOpen(self.status(now))),
        }
        let (id, until) = (new_id(), end_of(now, self.reservation));
        let mut answer = json!({
            "message": "Job reserved",
            "job": {
                "job_id": self.id,
                "job_instructions": self.seed.job_instructions,
                "reservation_id": id,
                "reserved_until": until.to_string(),
                "reward_credits": self.seed.reward_credits,
                "status": "reserved",
                "job_type": self.seed.job_type,
            },
        });
        let workspace = (self.seed.job_type == WORKFLOW_CREATION).then(Workspace::new);
        // At the top level, beside `job`: the sources leave the depth open, and a reader looks
        // here first.
        if let Some(workspace) = &workspace {
            answer["workflow_access"] =
                json!({"access_token": workspace.expose_token(), "expires_at": until.to_string()});
        }
        self.stage = Stage::Reserved(RunningReservation { id, wallet, until, workspace });
        Ok(answer)
    }

    /// Takes the proof, if the wallet has reserved the job. The fields are checked first, as the
    /// server does it.
    pub(super) fn complete(
        &mut self,
        wallet: Address,
        body: &Object,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        self.submissions += 1;
        self.check_completion(wallet, body)?;
        let review =
            Review { id: new_id(), wallet, begin: now, approval: end_of(now, self.review) };
        let answer = json!({
            "message": "Job submitted for review",
            "job": {"job_id": self.id, "status": "submitted"},
            "submission": {
                "submission_id": review.id,
                "status": "pending_review",
                "submitted_at": now.to_string(),
            },
        });
        self.stage = Stage::Submitted(review);
        self.accepted += 1;
        Ok(answer)
    }

    /// The workspace of the running reservation that has this token.
    pub(super) fn workspace(&mut self, token: &Token) -> Result<&mut Workspace, ApiError> {
        let workspace = match &mut self.stage {
            Stage::Reserved(lease) => lease.workspace.as_mut(),
            Stage::Open | Stage::Submitted(_) => None,
        };
        workspace.filter(|space| space.is_opened_by(token)).ok_or(ApiError::WorkflowTokenInvalid)
    }

    fn status(&self, now: Timestamp) -> &'static str {
        match &self.stage {
            Stage::Open => "open",
            Stage::Reserved(_) => "reserved",
            Stage::Submitted(review) if review.is_over(now) => "approved",
            Stage::Submitted(_) => "submitted",
        }
    }

    fn check_completion(&self, wallet: Address, body: &Object) -> Result<(), ApiError> {
        let mut form = Form::new(body);
        form.text("proof_text", MAX_PROOF);
        let reservation_id = form.text("reservation_id", MAX_ID);
        let workflow_id = match self.seed.job_type {
            WORKFLOW_CREATION => form.text("workflow_id", MAX_ID),
            _ => None,
        };
        let reservation_id = form.finish(reservation_id)?;
        let lease = match &self.stage {
            Stage::Reserved(lease) if lease.wallet == wallet => lease,
            Stage::Submitted(_) => return Err(ApiError::JobAlreadySubmitted),
            Stage::Open | Stage::Reserved(_) => return Err(ApiError::ReservationNotActive),
        };
        if lease.id != reservation_id {
            return Err(ApiError::ReservationMismatch);
        }
        match (&lease.workspace, workflow_id) {
            (Some(workspace), Some(id)) => workspace.check_deliverable(&id),
            _ => Ok(()),
        }
    }
}

impl Review {
    fn is_over(&self, now: Timestamp) -> bool {
        self.approval <= now
    }

    fn status(&self, now: Timestamp) -> &'static str {
        if self.is_over(now) { "approved" } else { "pending_review" }
    }
}

fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}
