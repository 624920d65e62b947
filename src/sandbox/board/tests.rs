use std::time::Duration;

use axum::http::HeaderMap;

use super::*;
use crate::sandbox::{credits::Credits, workflow::Token};

const GENERAL: &str = JOBS[0].id;
const WORKFLOW: &str = JOBS[1].id;

/// A board at a point of time, which is moved by hand.
struct Clocked {
    board: Board,
    credits: Credits,
    now: Timestamp,
}

impl Clocked {
    /// Reservations run for a minute, and reviews take five seconds.
    fn new() -> Self {
        let (reservation, review) = (Duration::from_secs(60), Duration::from_secs(5));
        let board = Board::new(&Settings { reservation, review, ..Settings::default() });
        Self { board, credits: Credits::new(0), now: Timestamp::UNIX_EPOCH }
    }

    fn at(&mut self, second: i64) -> &mut Self {
        self.now = Timestamp::from_second(second).unwrap();
        self
    }

    fn job(&mut self, job_id: &str) -> &mut Job {
        self.board.job(job_id, self.now).unwrap()
    }

    fn reserve(&mut self, job_id: &str, by: u8) -> Result<Value, ApiError> {
        let now = self.now;
        self.job(job_id).reserve(wallet(by), now)
    }

    /// Sends a proof by the first wallet.
    fn complete(&mut self, reservation: &Value, text: &str) -> Result<Value, ApiError> {
        let id = &reservation["job"]["reservation_id"];
        let proof = json!({"proof_text": text, "reservation_id": id}).to_string();
        let job = self.board.job(reservation["job"]["job_id"].as_str().unwrap(), self.now)?;
        let proof = Object::parse(proof.as_bytes()).unwrap();
        job.complete(wallet(1), &proof, &mut self.credits, self.now)
    }

    fn status(&mut self, job_id: &str, of: u8) -> Value {
        let job = self.board.job(job_id, self.now).unwrap();
        job.status_for(wallet(of), &mut self.credits, self.now)
    }

    /// The status of the job in a wallet's list.
    fn listed(&mut self, job_id: &str, to: u8) -> Option<String> {
        let page = Object::parse(br#"{"limit": 50, "skip": 0}"#).unwrap();
        let list = self.board.list(&page, wallet(to), self.now).unwrap();
        let jobs = list["jobs"].as_array().unwrap().iter();
        let mut jobs = jobs.filter(|job| job["job_id"] == job_id);
        jobs.next().map(|job| job["status"].as_str().unwrap().to_owned())
    }
}

fn wallet(byte: u8) -> Address {
    Address::new([byte; 20])
}

fn token(reservation: &Value) -> Token {
    let token = reservation["workflow_access"]["access_token"].as_str().unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-job-workflow-token", format!("Bearer {token}").parse().unwrap());
    Token::of(&headers).unwrap()
}

/// A workflow with its tool.
fn definition() -> Object {
    let tool = json!({"product_id": "p", "product_name": "P"});
    let nodes = json!([{"id": "a", "type": "tool", "label": "A", "tool": tool}]);
    let definition = json!({"name": "n", "description": "d", "nodes": nodes, "edges": []});
    Object::parse(definition.to_string().as_bytes()).unwrap()
}

#[test]
fn a_reservation_ends_at_its_end_and_not_before() {
    let mut board = Clocked::new();
    let reservation = board.reserve(GENERAL, 1).unwrap();
    assert_eq!(board.at(59).listed(GENERAL, 2), None);
    assert_eq!(board.at(60).listed(GENERAL, 2).unwrap(), "open");
    let late = board.complete(&reservation, "done");
    assert!(matches!(late, Err(ApiError::ReservationNotActive)));
    assert!(board.reserve(GENERAL, 2).is_ok());
}

#[test]
fn a_wallets_list_has_what_it_reserved() {
    let mut board = Clocked::new();
    let reservation = board.reserve(GENERAL, 1).unwrap();
    assert_eq!(board.listed(GENERAL, 1).unwrap(), "reserved");
    assert_eq!(board.listed(GENERAL, 2), None);
    board.complete(&reservation, "done").unwrap();
    assert_eq!(board.listed(GENERAL, 1), None);
}

#[test]
fn near_its_end_a_reservation_is_renewed_and_its_newest_id_counts() {
    let mut board = Clocked::new();
    let first = board.reserve(WORKFLOW, 1).unwrap();
    let draft = board.job(WORKFLOW).workspace(&token(&first)).unwrap().create(&definition());
    let early = board.at(49).reserve(WORKFLOW, 1);
    assert!(matches!(early, Err(ApiError::JobAlreadyReserved)));
    assert!(matches!(board.at(50).reserve(WORKFLOW, 2), Err(ApiError::JobNotOpen(_))));

    let second = board.reserve(WORKFLOW, 1).unwrap();
    assert_ne!(first["job"]["reservation_id"], second["job"]["reservation_id"]);
    assert_eq!(second["job"]["reserved_until"], "1970-01-01T00:01:50Z");
    assert_eq!(board.at(109).listed(WORKFLOW, 1).unwrap(), "reserved");
    let id = draft.unwrap()["workflow_id"].as_str().unwrap().to_owned();
    assert!(board.job(WORKFLOW).workspace(&token(&second)).unwrap().publish(&id).is_ok());
    assert_eq!(board.at(110).listed(WORKFLOW, 2).unwrap(), "open");

    let first = board.reserve(GENERAL, 1).unwrap();
    let second = board.at(165).reserve(GENERAL, 1).unwrap();
    let refused = board.complete(&first, "done");
    assert!(matches!(refused, Err(ApiError::ReservationMismatch)));
    assert!(board.complete(&second, "done").is_ok());
}

#[test]
fn token_and_drafts_die_with_their_reservation() {
    let mut board = Clocked::new();
    let first = board.reserve(WORKFLOW, 1).unwrap();
    let old = token(&first);
    let workspace = board.at(59).job(WORKFLOW).workspace(&old).unwrap();
    let draft = workspace.create(&definition()).unwrap();

    let ended = board.at(60).job(WORKFLOW).workspace(&old);
    assert!(matches!(ended, Err(ApiError::WorkflowTokenInvalid)));
    let second = board.reserve(WORKFLOW, 1).unwrap();
    let workspace = board.at(61).job(WORKFLOW).workspace(&token(&second)).unwrap();
    let published = workspace.publish(draft["workflow_id"].as_str().unwrap());
    assert!(matches!(published, Err(ApiError::WorkflowNotFound)));
}

#[test]
fn a_submission_is_approved_and_paid_after_its_review() {
    let mut board = Clocked::new();
    let reservation = board.reserve(GENERAL, 1).unwrap();
    board.at(10).complete(&reservation, "done").unwrap();

    let pending = board.at(14).status(GENERAL, 1);
    assert_eq!(pending["job"]["status"], "submitted");
    assert_eq!(pending["submission"]["status"], "submitted");
    assert_eq!(pending["payout"], Value::Null);
    assert_eq!(board.credits.balance(wallet(1), board.now), 0);

    let approved = board.at(15).status(GENERAL, 1);
    assert_eq!(approved["job"]["status"], "approved");
    assert_eq!(approved["submission"]["status"], "approved");
    let credits = JOBS[0].reward_credits;
    let payout = json!({
        "status": "completed",
        "reward_credits": credits,
        "paid_at": "1970-01-01T00:00:15Z",
        "wallet_balance_credits": credits,
    });
    assert_eq!(approved["payout"], payout);
}

#[test]
fn a_job_whose_proof_was_rejected_is_open_again_and_pays_nothing() {
    let mut board = Clocked::new();
    let reservation = board.reserve(GENERAL, 1).unwrap();
    board.complete(&reservation, "Not really done [reject]").unwrap();
    assert_eq!(board.at(4).status(GENERAL, 1)["submission"]["status"], "submitted");

    let rejected = board.at(5).status(GENERAL, 1);
    assert_eq!(rejected["job"]["status"], "open");
    assert_eq!(rejected["submission"]["status"], "rejected");
    assert_eq!(rejected["payout"], Value::Null);
    assert_eq!(board.status(GENERAL, 2)["submission"], Value::Null);
    let reservation = board.reserve(GENERAL, 1).unwrap();
    assert_eq!(board.status(GENERAL, 1)["submission"]["status"], "rejected");

    board.complete(&reservation, "done").unwrap();
    assert_eq!(board.at(10).status(GENERAL, 1)["submission"]["status"], "approved");
    assert_eq!(board.credits.balance(wallet(1), board.now), JOBS[0].reward_credits);
}

#[test]
fn what_a_wallet_submits_is_not_shown_to_others() {
    let mut board = Clocked::new();
    let reservation = board.reserve(GENERAL, 1).unwrap();
    board.complete(&reservation, "done").unwrap();
    let seen = board.at(100).status(GENERAL, 2);
    assert_eq!(seen["job"]["status"], "approved");
    assert_eq!((&seen["submission"], &seen["payout"]), (&Value::Null, &Value::Null));
}
