//! All jobs: the list, and the way to one of them by its id.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::{canonical::Object, types::Address};

use super::{
    Settings, end_of,
    form::Form,
    job::Job,
    refusal::Refusal,
    seed::JOBS,
    workflow::{Token, Workspace},
};

/// The jobs, in the order in which they are listed.
pub(super) struct Board {
    reservation: Duration,
    review: Duration,
    jobs: Vec<Job>,
}

/// The part of the list that a call asks for.
pub(super) struct Page {
    limit: i64,
    skip: i64,
}

impl Page {
    /// # Errors
    /// [`Refusal::Fields`] unless `limit` is 1 to 100 and `skip` at least 0.
    pub(super) fn read(body: &Object) -> Result<Self, Refusal> {
        let mut form = Form::new(body);
        let limit = form.integer("limit", 1..=100);
        let skip = form.integer("skip", 0..=i64::MAX);
        form.finish(limit.zip(skip).map(|(limit, skip)| Self { limit, skip }))
    }
}

impl Board {
    pub(super) fn new(settings: &Settings) -> Self {
        let Settings { reservation, review, copies, .. } = *settings;
        let jobs = (1..=copies).flat_map(|copy| JOBS.iter().map(move |seed| Job::new(seed, copy)));
        Self { reservation, review, jobs: jobs.collect() }
    }

    /// How often a correctly signed proof arrived, by job.
    pub(super) fn submissions(&self) -> BTreeMap<String, u64> {
        self.jobs.iter().map(|job| (job.id().to_owned(), job.submissions())).collect()
    }

    /// How often a proof was taken, by job.
    pub(super) fn accepted(&self) -> BTreeMap<String, u64> {
        self.jobs.iter().map(|job| (job.id().to_owned(), job.accepted())).collect()
    }

    /// The open jobs.
    pub(super) fn list(&mut self, page: Page, now: Timestamp) -> Value {
        self.jobs.iter_mut().for_each(|job| job.settle(now));
        let open: Vec<&Job> = self.jobs.iter().filter(|job| job.is_open()).collect();
        // What does not fit is larger than every list.
        let skip = usize::try_from(page.skip).unwrap_or(usize::MAX);
        let limit = usize::try_from(page.limit).unwrap_or(usize::MAX);
        let jobs = open.iter().skip(skip).take(limit).map(|job| job.listing(now));
        json!({
            "jobs": jobs.collect::<Vec<_>>(),
            "limit": page.limit,
            "skip": page.skip,
            "total": open.len(),
        })
    }

    /// Gives an open job to a wallet, for a while.
    pub(super) fn reserve(
        &mut self,
        job_id: &str,
        wallet: Address,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let until = end_of(now, self.reservation);
        self.job(job_id, now)?.reserve(wallet, until, now)
    }

    /// Takes the proof of a job that the wallet has reserved.
    pub(super) fn complete(
        &mut self,
        job_id: &str,
        wallet: Address,
        body: &Object,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        let approval = end_of(now, self.review);
        self.job(job_id, now)?.complete(wallet, body, now, approval)
    }

    /// What a wallet may know of a job.
    pub(super) fn status(
        &mut self,
        job_id: &str,
        wallet: Address,
        now: Timestamp,
    ) -> Result<Value, Refusal> {
        Ok(self.job(job_id, now)?.status_for(wallet, now))
    }

    /// The workspace of a job's running reservation.
    pub(super) fn workspace(
        &mut self,
        job_id: &str,
        token: &Token,
        now: Timestamp,
    ) -> Result<&mut Workspace, Refusal> {
        self.job(job_id, now)?.workspace(token)
    }

    /// The job as it is now.
    fn job(&mut self, job_id: &str, now: Timestamp) -> Result<&mut Job, Refusal> {
        let job = self.jobs.iter_mut().find(|job| job.id() == job_id);
        let job = job.ok_or(Refusal::JobNotFound)?;
        job.settle(now);
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GENERAL: &str = JOBS[0].id;
    const WORKFLOW: &str = JOBS[1].id;
    const RESERVATION: Duration = Duration::from_secs(60);
    const REVIEW: Duration = Duration::from_secs(5);

    fn board() -> Board {
        Board::new(&Settings { reservation: RESERVATION, review: REVIEW, ..Settings::default() })
    }

    fn wallet(byte: u8) -> Address {
        Address::new([byte; 20])
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn proof(reservation: &Value) -> Object {
        let id = &reservation["job"]["reservation_id"];
        Object::parse(json!({"proof_text": "done", "reservation_id": id}).to_string().as_bytes())
            .unwrap()
    }

    fn is_open(board: &mut Board, job_id: &str, now: Timestamp) -> bool {
        board.status(job_id, wallet(9), now).unwrap()["job"]["status"] == "open"
    }

    #[test]
    fn a_reservation_ends_at_its_end_and_not_before() {
        let mut board = board();
        let reservation = board.reserve(GENERAL, wallet(1), at(0)).unwrap();
        assert!(!is_open(&mut board, GENERAL, at(59)));
        assert!(is_open(&mut board, GENERAL, at(60)));
        let late = board.complete(GENERAL, wallet(1), &proof(&reservation), at(60));
        assert!(matches!(late, Err(Refusal::ReservationNotActive)));
        assert!(board.reserve(GENERAL, wallet(2), at(60)).is_ok());
    }

    #[test]
    fn token_and_drafts_die_with_their_reservation() {
        let mut board = board();
        let first = board.reserve(WORKFLOW, wallet(1), at(0)).unwrap();
        let old = Token::of(first["workflow_access"]["access_token"].as_str().unwrap());
        let definition = Object::parse(
            br#"{"name": "n", "description": "d", "nodes": [{"id": "a"}], "edges": []}"#,
        );
        let workspace = board.workspace(WORKFLOW, &old, at(59)).unwrap();
        let draft = workspace.create(&definition.unwrap()).unwrap();

        assert!(matches!(
            board.workspace(WORKFLOW, &old, at(60)),
            Err(Refusal::WorkflowTokenInvalid)
        ));
        let second = board.reserve(WORKFLOW, wallet(1), at(60)).unwrap();
        let token = Token::of(second["workflow_access"]["access_token"].as_str().unwrap());
        let workspace = board.workspace(WORKFLOW, &token, at(61)).unwrap();
        let published = workspace.publish(draft["workflow_id"].as_str().unwrap());
        assert!(matches!(published, Err(Refusal::WorkflowNotFound)));
    }

    #[test]
    fn a_submission_is_approved_and_paid_after_its_review() {
        let mut board = board();
        let reservation = board.reserve(GENERAL, wallet(1), at(0)).unwrap();
        board.complete(GENERAL, wallet(1), &proof(&reservation), at(10)).unwrap();

        let pending = board.status(GENERAL, wallet(1), at(14)).unwrap();
        assert_eq!(pending["job"]["status"], "submitted");
        assert_eq!(pending["submission"]["status"], "pending_review");
        assert_eq!(pending["payout"], Value::Null);

        let approved = board.status(GENERAL, wallet(1), at(15)).unwrap();
        assert_eq!(approved["job"]["status"], "approved");
        assert_eq!(approved["submission"]["status"], "approved");
        assert_eq!(
            approved["payout"],
            json!({"credits": JOBS[0].reward_credits, "status": "paid", "paid_at": "1970-01-01T00:00:15Z"})
        );
    }

    #[test]
    fn what_a_wallet_submits_is_not_shown_to_others() {
        let mut board = board();
        let reservation = board.reserve(GENERAL, wallet(1), at(0)).unwrap();
        board.complete(GENERAL, wallet(1), &proof(&reservation), at(0)).unwrap();
        let seen = board.status(GENERAL, wallet(2), at(100)).unwrap();
        assert_eq!(seen["job"]["status"], "approved");
        assert_eq!((&seen["submission"], &seen["payout"]), (&Value::Null, &Value::Null));
    }
}
