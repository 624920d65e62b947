//! All jobs: the list, and the way to one of them by its id.

use jiff::Timestamp;
use serde_json::{Value, json};

use crate::json::Object;

use super::{error::ApiError, form::Form, job::Job, seed::JOBS, settings::Settings};

/// The jobs, in the order in which they are listed.
pub(super) struct Board(Vec<Job>);

impl Board {
    pub(super) fn new(settings: &Settings) -> Self {
        let copy = |copy| JOBS.iter().map(move |seed| Job::new(seed, copy, settings));
        Self((1..=settings.copies).flat_map(copy).collect())
    }

    /// All jobs, as they were when each was last looked at.
    pub(super) fn jobs(&self) -> &[Job] {
        &self.0
    }

    /// The open jobs, from `skip` on and at most `limit` of them.
    ///
    /// # Errors
    /// [`ApiError::Fields`] unless `limit` is 1 to 100 and `skip` at least 0.
    pub(super) fn list(&mut self, body: &Object, now: Timestamp) -> Result<Value, ApiError> {
        let mut form = Form::new(body);
        let limit = form.integer("limit", 1..=100);
        let skip = form.integer("skip", 0..=i64::MAX);
        let (limit, skip) = form.finish(limit.zip(skip))?;
        self.0.iter_mut().for_each(|job| job.settle(now));
        let open: Vec<&Job> = self.0.iter().filter(|job| job.is_open()).collect();
        // A number that does not fit is larger than every list.
        let number = |given: i64| usize::try_from(given).unwrap_or(usize::MAX);
        let page = open.iter().skip(number(skip)).take(number(limit));
        let jobs: Vec<_> = page.map(|job| job.listing(now)).collect();
        Ok(json!({"jobs": jobs, "limit": limit, "skip": skip, "total": open.len()}))
    }

    /// The job as it is now.
    pub(super) fn job(&mut self, job_id: &str, now: Timestamp) -> Result<&mut Job, ApiError> {
        let job = self.0.iter_mut().find(|job| job.id == job_id).ok_or(ApiError::JobNotFound)?;
        job.settle(now);
        Ok(job)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use axum::http::HeaderMap;

    use super::*;
    use crate::{sandbox::workflow::Token, types::Address};

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

    fn job<'b>(board: &'b mut Board, job_id: &str, now: Timestamp) -> &'b mut Job {
        board.job(job_id, now).unwrap()
    }

    fn token(reservation: &Value) -> Token {
        let token = reservation["workflow_access"]["access_token"].as_str().unwrap();
        let mut headers = HeaderMap::new();
        headers.insert("x-job-workflow-token", format!("Bearer {token}").parse().unwrap());
        Token::of(&headers).unwrap()
    }

    fn is_open(board: &mut Board, job_id: &str, now: Timestamp) -> bool {
        job(board, job_id, now).is_open()
    }

    #[test]
    fn a_reservation_ends_at_its_end_and_not_before() {
        let mut board = board();
        let reservation = job(&mut board, GENERAL, at(0)).reserve(wallet(1), at(0)).unwrap();
        assert!(!is_open(&mut board, GENERAL, at(59)));
        assert!(is_open(&mut board, GENERAL, at(60)));
        let late =
            job(&mut board, GENERAL, at(60)).complete(wallet(1), &proof(&reservation), at(60));
        assert!(matches!(late, Err(ApiError::ReservationNotActive)));
        assert!(job(&mut board, GENERAL, at(60)).reserve(wallet(2), at(60)).is_ok());
    }

    #[test]
    fn token_and_drafts_die_with_their_reservation() {
        let mut board = board();
        let first = job(&mut board, WORKFLOW, at(0)).reserve(wallet(1), at(0)).unwrap();
        let old = token(&first);
        let definition = Object::parse(
            br#"{"name": "n", "description": "d", "nodes": [{"id": "a"}], "edges": []}"#,
        );
        let workspace = job(&mut board, WORKFLOW, at(59)).workspace(&old).unwrap();
        let draft = workspace.create(&definition.unwrap()).unwrap();

        let ended = job(&mut board, WORKFLOW, at(60)).workspace(&old);
        assert!(matches!(ended, Err(ApiError::WorkflowTokenInvalid)));
        let second = job(&mut board, WORKFLOW, at(60)).reserve(wallet(1), at(60)).unwrap();
        let workspace = job(&mut board, WORKFLOW, at(61)).workspace(&token(&second)).unwrap();
        let published = workspace.publish(draft["workflow_id"].as_str().unwrap());
        assert!(matches!(published, Err(ApiError::WorkflowNotFound)));
    }

    #[test]
    fn a_submission_is_approved_and_paid_after_its_review() {
        let mut board = board();
        let reservation = job(&mut board, GENERAL, at(0)).reserve(wallet(1), at(0)).unwrap();
        job(&mut board, GENERAL, at(10)).complete(wallet(1), &proof(&reservation), at(10)).unwrap();

        let pending = job(&mut board, GENERAL, at(14)).status_for(wallet(1), at(14));
        assert_eq!(pending["job"]["status"], "submitted");
        assert_eq!(pending["submission"]["status"], "pending_review");
        assert_eq!(pending["payout"], Value::Null);

        let approved = job(&mut board, GENERAL, at(15)).status_for(wallet(1), at(15));
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
        let reservation = job(&mut board, GENERAL, at(0)).reserve(wallet(1), at(0)).unwrap();
        job(&mut board, GENERAL, at(0)).complete(wallet(1), &proof(&reservation), at(0)).unwrap();
        let seen = job(&mut board, GENERAL, at(100)).status_for(wallet(2), at(100));
        assert_eq!(seen["job"]["status"], "approved");
        assert_eq!((&seen["submission"], &seen["payout"]), (&Value::Null, &Value::Null));
    }
}
