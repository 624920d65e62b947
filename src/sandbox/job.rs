//! The life of one job: open, reserved, submitted, then approved, or rejected and open again (protocol
//! §6).
//!
//! Nothing runs on a timer: each access works out the stage of a job from the time.

use std::{mem, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};
use uuid::Uuid;

use crate::{json::Object, types::Address};

use super::{
    credits::Credits,
    error::ApiError,
    form::Form,
    seed::{SOCIAL_SHARE, Seed, WORKFLOW_CREATION},
    settings::Settings,
    time::end_of,
    workflow::{Token, Workspace},
};

/// The longest proof, in characters.
const MAX_PROOF: usize = 4000;

/// The longest id in a body, in characters.
pub(super) const MAX_ID: usize = 128;

/// The statuses of a submission, which are also those of its job.
const SUBMITTED: &str = "submitted";
const APPROVED: &str = "approved";
const REJECTED: &str = "rejected";

/// A proof with this in it is rejected.
const REJECT: &str = "[reject]";

/// The last part of a reservation, in which its wallet may reserve again.
const RENEWABLE: u32 = 6;

/// A job and how far it has come.
pub(super) struct Job {
    pub(super) id: String,
    seed: &'static Seed,
    stage: Stage,
    /// The last proof that was rejected.
    rejected: Option<Review>,
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
    end: Timestamp,
    verdict: &'static str,
}

impl Job {
    /// The first copy of a job has the job's id itself.
    pub(super) fn new(seed: &'static Seed, copy: u32, settings: &Settings) -> Self {
        Self {
            id: if copy == 1 { seed.id.to_owned() } else { format!("{}-{copy}", seed.id) },
            seed,
            stage: Stage::Open,
            rejected: None,
            reservation: settings.reservation,
            review: settings.review,
            submissions: 0,
            accepted: 0,
        }
    }

    /// Opens the job again if its reservation is over, with which the workspace goes, or if its proof
    /// was rejected.
    pub(super) fn settle(&mut self, now: Timestamp) {
        self.stage = match mem::replace(&mut self.stage, Stage::Open) {
            Stage::Reserved(lease) if lease.until <= now => Stage::Open,
            Stage::Submitted(review) if review.status(now) == REJECTED => {
                self.rejected = Some(review);
                Stage::Open
            }
            stage => stage,
        };
    }

    /// Whether the list that a wallet asks for has it.
    pub(super) fn is_shown_to(&self, wallet: Address) -> bool {
        match &self.stage {
            Stage::Open => true,
            Stage::Reserved(lease) => lease.wallet == wallet,
            Stage::Submitted(_) => false,
        }
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
    pub(super) fn status_for(
        &self,
        wallet: Address,
        credits: &mut Credits,
        now: Timestamp,
    ) -> Value {
        let reserved = matches!(&self.stage, Stage::Reserved(lease) if lease.wallet == wallet);
        let submitted = match &self.stage {
            Stage::Submitted(review) => Some(review),
            Stage::Open | Stage::Reserved(_) => None,
        };
        let mut reviews = submitted.into_iter().chain(&self.rejected);
        let review = reviews.find(|review| review.wallet == wallet);
        json!({
            "wallet_address": wallet.to_string(),
            "job": self.listing(now),
            "has_active_reservation": reserved,
            "can_submit": reserved,
            "submission": review.map(|review| json!({
                "submission_id": review.id,
                "status": review.status(now),
                "submitted_at": review.begin.to_string(),
            })),
            "payout": review.filter(|review| review.status(now) == APPROVED).map(|review| json!({
                "status": "completed",
                "reward_credits": self.seed.reward_credits,
                "paid_at": review.end.to_string(),
                "wallet_balance_credits": credits.balance(wallet, now),
            })),
        })
    }

    /// Gives the job to a wallet, if it is open. Near the end of its reservation a wallet gets another,
    /// with the workspace of the first.
    pub(super) fn reserve(&mut self, wallet: Address, now: Timestamp) -> Result<Value, ApiError> {
        let renewable_from = end_of(now, self.reservation / RENEWABLE);
        let workspace = match &mut self.stage {
            Stage::Open => (self.seed.job_type == WORKFLOW_CREATION).then(Workspace::new),
            Stage::Reserved(lease) if lease.wallet == wallet => {
                if lease.until > renewable_from {
                    return Err(ApiError::JobAlreadyReserved);
                }
                lease.workspace.take()
            }
            _ => return Err(ApiError::JobNotOpen(self.status(now))),
        };
        let (id, until) = (new_id(), end_of(now, self.reservation));
        let mut answer = json!({
            "message": "Job reserved",
            "job": {
                "job_id": self.id,
                "title": self.seed.title,
                "job_instructions": self.seed.job_instructions,
                "reservation_id": id,
                "reserved_until": until.to_string(),
                "reward_credits": self.seed.reward_credits,
                "status": "reserved",
                "job_type": self.seed.job_type,
            },
        });
        if self.seed.job_type == SOCIAL_SHARE {
            answer["job"]["tracked_link"] =
                format!("https://share.example/{}?by={wallet}", self.id).into();
        }
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
    /// server does it. The review's outcome is decided at once, and its pay dated to the end.
    pub(super) fn complete(
        &mut self,
        wallet: Address,
        body: &Object,
        credits: &mut Credits,
        now: Timestamp,
    ) -> Result<Value, ApiError> {
        self.submissions += 1;
        let proof = self.checked_proof(wallet, body)?;
        let end = end_of(now, self.review);
        let verdict = if proof.contains(REJECT) { REJECTED } else { APPROVED };
        if verdict == APPROVED {
            credits.earn(wallet, self.seed.reward_credits, end, format!("job {}", self.id));
        }
        let review = Review { id: new_id(), wallet, begin: now, end, verdict };
        let answer = json!({
            "message": "Job submitted for review",
            "job": {"job_id": self.id, "status": SUBMITTED},
            "submission": {
                "submission_id": review.id,
                "status": SUBMITTED,
                "proof_text": proof,
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
            Stage::Submitted(review) => review.status(now),
        }
    }

    /// The text of a proof that can be taken.
    fn checked_proof(&self, wallet: Address, body: &Object) -> Result<String, ApiError> {
        let mut form = Form::new(body);
        let proof = form.text("proof_text", MAX_PROOF);
        let reservation_id = form.text("reservation_id", MAX_ID);
        let workflow_id = match self.seed.job_type {
            WORKFLOW_CREATION => form.text("workflow_id", MAX_ID),
            _ => None,
        };
        if self.seed.job_type == SOCIAL_SHARE {
            check_posts(&mut form);
        }
        let (proof, reservation_id) = form.finish(proof.zip(reservation_id))?;
        let lease = match &self.stage {
            Stage::Reserved(lease) if lease.wallet == wallet => lease,
            Stage::Submitted(_) => return Err(ApiError::JobAlreadySubmitted),
            Stage::Open | Stage::Reserved(_) => return Err(ApiError::ReservationNotActive),
        };
        if lease.id != reservation_id {
            return Err(ApiError::ReservationMismatch);
        }
        if let Some((workspace, id)) = lease.workspace.as_ref().zip(workflow_id) {
            workspace.check_deliverable(&id)?;
        }
        Ok(proof)
    }
}

impl Review {
    fn status(&self, now: Timestamp) -> &'static str {
        if self.end <= now { self.verdict } else { SUBMITTED }
    }
}

/// Only the number of posts is known, not the fields of one.
fn check_posts(form: &mut Form<'_>) {
    let posts = form.array("social_posts");
    if posts.is_some_and(|posts| posts.len() != 1 || !posts[0].is_object()) {
        let text = "Value error, a social share takes exactly one post, an object";
        form.refuse::<()>(json!(["body", "social_posts"]), "value_error", text);
    }
}

fn new_id() -> String {
    Uuid::new_v4().simple().to_string()
}
