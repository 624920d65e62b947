//! The life of one job: open, reserved, submitted, approved (protocol §6).
//!
//! Nothing runs on a timer: what a job has become is worked out from the time whenever it is
//! looked at.

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{canonical::Object, types::Address};

use super::{
    form::Form,
    refusal::Refusal,
    seed::{JobType, Seed},
    workflow::{Token, Workspace},
};

/// The longest proof, in characters.
const MAX_PROOF: usize = 4000;

/// The longest id in a body, in characters.
const MAX_ID: usize = 128;

/// A job and how far it has come.
pub(super) struct Job {
    seed: &'static Seed,
    id: String,
    stage: Stage,
    submissions: u64,
    accepted: u64,
}

enum Stage {
    Open,
    Reserved(Reservation),
    Submitted(Submission),
}

struct Reservation {
    id: String,
    wallet: Address,
    until: Timestamp,
    /// Only jobs that ask for a workflow have one.
    workspace: Option<Workspace>,
}

struct Submission {
    id: String,
    wallet: Address,
    at: Timestamp,
    approval: Timestamp,
}

impl Job {
    /// The first copy of a job has the job's id itself.
    pub(super) fn new(seed: &'static Seed, copy: u32) -> Self {
        let id = if copy == 1 { seed.id.to_owned() } else { format!("{}-{copy}", seed.id) };
        Self { seed, id, stage: Stage::Open, submissions: 0, accepted: 0 }
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// How often a correctly signed proof arrived, whether it was taken or refused.
    pub(super) fn submissions(&self) -> u64 {
        self.submissions
    }

    /// How often a proof was taken.
    pub(super) fn accepted(&self) -> u64 {
        self.accepted
    }

    /// Opens the job again if its reservation is over; the workspace goes with it.
    pub(super) fn settle(&mut self, now: Timestamp) {
        if matches!(&self.stage, Stage::Reserved(reservation) if reservation.until <= now) {
            self.stage = Stage::Open;
        }
    }

    pub(super) fn is_open(&self) -> bool {
        matches!(self.stage, Stage::Open)
    }

    /// What everyone may know; the instructions are for the one who reserves.
    pub(super) fn listing(&self, now: Timestamp) -> Value {
        json!({
            "job_id": self.id,
            "title": self.seed.title,
            "public_description": self.seed.public_description,
            "reward_credits": self.seed.reward_credits,
            "status": self.status(now),
            "job_type": self.seed.job_type.as_str(),
        })
    }

    /// What one wallet may know.
    pub(super) fn status_for(&self, wallet: Address, now: Timestamp) -> Value {
        let reserved = matches!(&self.stage, Stage::Reserved(held) if held.wallet == wallet);
        let submission = match &self.stage {
            Stage::Submitted(submission) if submission.wallet == wallet => Some(submission),
            _ => None,
        };
        let paid = submission.filter(|submission| submission.is_approved(now));
        json!({
            "job": self.listing(now),
            "has_active_reservation": reserved,
            "can_submit": reserved,
            "submission": submission.map(|submission| submission.view(now)),
            "payout": paid.map(|submission| json!({
                "credits": self.seed.reward_credits,
                "status": "paid",
                "paid_at": submission.approval.to_string(),
            })),
        })
    }

    /// Gives the job to a wallet, if it is open.
    pub(super) fn reserve(
        &mut self,
        wallet: Address,
        until: Timestamp,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        match &self.stage {
            Stage::Open => {}
            Stage::Reserved(held) if held.wallet == wallet => {
                return Err(Refusal::JobAlreadyReserved);
            }
            Stage::Reserved(_) | Stage::Submitted(_) => {
                return Err(Refusal::JobNotOpen(self.status(now)));
            }
        }
        let reservation = Reservation::new(wallet, until, self.seed.job_type);
        let answer = reservation.answer(self.seed, &self.id);
        self.stage = Stage::Reserved(reservation);
        Ok(answer)
    }

    /// Takes the proof, if the wallet has reserved the job. The fields are checked first, as the
    /// server does it.
    pub(super) fn complete(
        &mut self,
        wallet: Address,
        body: &Object,
        now: Timestamp,
        approval: Timestamp,
    ) -> Result<Value, Refusal> {
        self.submissions += 1;
        let proof = Proof::read(body, self.seed.job_type)?;
        self.check_completion(wallet, &proof)?;
        let id = Uuid::new_v4().simple().to_string();
        let submission = Submission { id, wallet, at: now, approval };
        let answer = json!({
            "message": "Job submitted for review",
            "job": {"job_id": self.id, "status": "submitted"},
            "submission": {
                "submission_id": submission.id,
                "status": "pending_review",
                "submitted_at": submission.at.to_string(),
            },
        });
        self.stage = Stage::Submitted(submission);
        self.accepted += 1;
        Ok(answer)
    }

    /// The workspace of the running reservation, for who has its token.
    pub(super) fn workspace(&mut self, token: &Token) -> Result<&mut Workspace, Refusal> {
        let workspace = match &mut self.stage {
            Stage::Reserved(reservation) => reservation.workspace.as_mut(),
            Stage::Open | Stage::Submitted(_) => None,
        };
        workspace.filter(|space| space.is_opened_by(token)).ok_or(Refusal::WorkflowTokenInvalid)
    }

    fn status(&self, now: Timestamp) -> &'static str {
        match &self.stage {
            Stage::Open => "open",
            Stage::Reserved(_) => "reserved",
            Stage::Submitted(submission) if submission.is_approved(now) => "approved",
            Stage::Submitted(_) => "submitted",
        }
    }

    fn check_completion(&self, wallet: Address, proof: &Proof) -> Result<(), Refusal> {
        let reservation = match &self.stage {
            Stage::Reserved(reservation) if reservation.wallet == wallet => reservation,
            Stage::Submitted(_) => return Err(Refusal::JobAlreadySubmitted),
            Stage::Open | Stage::Reserved(_) => return Err(Refusal::ReservationNotActive),
        };
        if reservation.id != proof.reservation_id {
            return Err(Refusal::ReservationMismatch);
        }
        match (&reservation.workspace, &proof.workflow_id) {
            (Some(workspace), Some(id)) => workspace.check_deliverable(id),
            _ => Ok(()),
        }
    }
}

impl Reservation {
    fn new(wallet: Address, until: Timestamp, job_type: JobType) -> Self {
        let workspace = match job_type {
            JobType::General => None,
            JobType::WorkflowCreation => Some(Workspace::new()),
        };
        Self { id: Uuid::new_v4().simple().to_string(), wallet, until, workspace }
    }

    fn answer(&self, seed: &Seed, job_id: &str) -> Value {
        let until = self.until.to_string();
        let mut answer = json!({
            "message": "Job reserved",
            "job": {
                "job_id": job_id,
                "job_instructions": seed.job_instructions,
                "reservation_id": self.id,
                "reserved_until": until,
                "reward_credits": seed.reward_credits,
                "status": "reserved",
                "job_type": seed.job_type.as_str(),
            },
        });
        // At the top level, beside `job`: the sources leave the depth open, and a reader looks
        // here first.
        if let Some(workspace) = &self.workspace {
            answer["workflow_access"] =
                json!({"access_token": workspace.expose_token(), "expires_at": until});
        }
        answer
    }
}

impl Submission {
    fn is_approved(&self, now: Timestamp) -> bool {
        self.approval <= now
    }

    fn view(&self, now: Timestamp) -> Value {
        let status = if self.is_approved(now) { "approved" } else { "pending_review" };
        json!({
            "submission_id": self.id,
            "status": status,
            "submitted_at": self.at.to_string(),
        })
    }
}

/// The fields of a completion that are looked at; others pass.
struct Proof {
    reservation_id: String,
    workflow_id: Option<String>,
}

impl Proof {
    fn read(body: &Object, job_type: JobType) -> Result<Self, Refusal> {
        let mut form = Form::new(body);
        let text = form.text("proof_text", MAX_PROOF);
        let reservation_id = form.text("reservation_id", MAX_ID);
        let workflow_id = match job_type {
            JobType::General => Some(None),
            JobType::WorkflowCreation => form.text("workflow_id", MAX_ID).map(Some),
        };
        let ids = reservation_id.zip(workflow_id).filter(|_| text.is_some());
        form.finish(ids.map(|(reservation_id, workflow_id)| Self { reservation_id, workflow_id }))
    }
}
