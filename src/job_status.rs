//! The `job_status` answer, which shows the outcome of a change whose own answer was lost (protocol §6).

use crate::{action::Effect, json::JsonText, store::EventKind, upstream::Answer};

/// The fields of a `job_status` answer.
#[derive(Debug, Clone, Default)]
pub struct JobStatus {
    /// The job's status.
    pub job: Option<String>,
    /// The status of this wallet's submission.
    pub submission: Option<String>,
    has_active_reservation: Option<bool>,
    /// Whether the answer says that there is no submission, as `null`.
    no_submission: bool,
    can_submit: Option<bool>,
    /// The credits that were paid for it, or else that the job would pay, if they are a whole number.
    pub(crate) reward_credits: Option<u64>,
    /// The answer that shows it.
    pub(crate) answer: Option<Answer>,
}

impl JobStatus {
    /// Reads a good answer; of any other nothing is known.
    pub(crate) fn of(answer: Answer) -> Self {
        let body = JsonText::parse(&answer.body).filter(|_| answer.status.is_success());
        let Some(read) = body.map(Self::read) else { return Self::default() };
        Self { answer: Some(answer), ..read }
    }

    fn read(body: JsonText<'_>) -> Self {
        let text = |path: &[&str]| body.at(path).and_then(JsonText::text);
        let flag = |name| body.field(name).and_then(|value| value.as_str().parse().ok());
        let credits = |of| body.at(&[of, "reward_credits"])?.as_str().parse().ok();
        Self {
            job: text(&["job", "status"]),
            submission: text(&["submission", "status"]),
            has_active_reservation: flag("has_active_reservation"),
            no_submission: body.has_null("submission"),
            can_submit: flag("can_submit"),
            reward_credits: credits("payout").or_else(|| credits("job")),
            answer: None,
        }
    }

    /// Whether a change took effect; `None` if the answer does not show it.
    pub(crate) fn took_effect(&self, effect: Effect) -> Option<bool> {
        match effect {
            Effect::Reserves => self.has_active_reservation,
            Effect::Submits => self.shows_proof(),
            Effect::Spends | Effect::Pays | Effect::Other | Effect::None => None,
        }
    }

    /// The end of the review of this wallet's submission, if it has one.
    pub(crate) fn review_end(&self) -> Option<EventKind> {
        match self.submission.as_deref()? {
            "approved" => Some(EventKind::SubmissionApproved),
            "rejected" => Some(EventKind::SubmissionRejected),
            _ => None,
        }
    }

    /// A submission that was rejected may be of an earlier reservation, as the job was open again since.
    /// It is, if a reservation still waits for its proof.
    fn shows_proof(&self) -> Option<bool> {
        let can_submit = self.can_submit == Some(true);
        let waits = can_submit && self.has_active_reservation == Some(true);
        match self.submission.as_deref() {
            Some("rejected") => waits.then_some(false),
            Some(_) => (!waits).then_some(true),
            None => (self.no_submission && can_submit).then_some(false),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn took_effect(effect: Effect, body: &str) -> Option<bool> {
        JobStatus::read(JsonText::parse(body.as_bytes()).unwrap()).took_effect(effect)
    }

    #[test]
    fn a_submission_shows_that_the_proof_arrived() {
        let submits = |body| took_effect(Effect::Submits, body);
        let pending = r#"{"submission":{"status":"submitted"},"can_submit":false}"#;
        assert_eq!(submits(pending), Some(true));
        assert_eq!(submits(r#"{"submission":{"status":"approved"}}"#), Some(true));
        assert_eq!(submits(r#"{"submission":null,"can_submit":true}"#), Some(false));
        let again = r#"{"submission":{"status":"rejected"},"can_submit":true,"has_active_reservation":true}"#;
        assert_eq!(submits(again), Some(false));
        for unclear in [
            r#"{"submission":{"status":"rejected"},"can_submit":true}"#,
            r#"{"submission":{"status":"rejected"},"has_active_reservation":true}"#,
            r#"{"submission":{"status":"approved"},"can_submit":true,"has_active_reservation":true}"#,
            r#"{"submission":null,"can_submit":false}"#,
            r#"{"submission":null}"#,
            r#"{"submission":{"id":"s-1"},"can_submit":true}"#,
            r#"{"can_submit":true}"#,
            "{}",
            "[]",
        ] {
            assert_eq!(submits(unclear), None, "{unclear}");
        }
    }

    #[test]
    fn an_active_reservation_shows_that_the_job_was_reserved() {
        let reserves = |body| took_effect(Effect::Reserves, body);
        assert_eq!(reserves(r#"{"has_active_reservation":true}"#), Some(true));
        assert_eq!(reserves(r#"{"has_active_reservation":false}"#), Some(false));
        assert_eq!(reserves(r#"{"has_active_reservation":"yes"}"#), None);
    }

    #[test]
    fn nothing_shows_what_became_of_an_edit() {
        let body = r#"{"has_active_reservation":true,"submission":null,"can_submit":true}"#;
        assert_eq!(took_effect(Effect::Other, body), None);
    }
}
