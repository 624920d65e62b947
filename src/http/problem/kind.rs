//! The kinds of problem, a row each.

use axum::http::StatusCode;

/// What went wrong, as a program tells it apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    InvalidBody,
    InvalidField,
    InvalidId,
    QueryNotTaken,
    BodyUnreadable,
    UnknownPath,
    WrongMethod,
    NoWorkflowToken,
    BodyTooLarge,
    Internal,
    UpstreamUnreachable,
    SessionFailed,
    UpstreamBrokeOff,
    AnswerTooLarge,
    UpstreamTimeout,
}

/// A kind as it is written out.
pub(super) struct Row {
    pub(super) status: StatusCode,
    /// The stable word for programs.
    pub(super) code: &'static str,
    pub(super) title: &'static str,
}

impl Kind {
    pub(super) fn row(self) -> Row {
        let (status, code, title) = match self {
            Self::InvalidBody => (400, "invalid_body", "The body cannot be used"),
            Self::InvalidField => (400, "invalid_field", "A field cannot be used"),
            Self::InvalidId => (400, "invalid_id", "An id cannot be used"),
            Self::QueryNotTaken => (400, "query_not_taken", "No query string is taken"),
            Self::BodyUnreadable => (400, "body_unreadable", "The body broke off"),
            Self::UnknownPath => (404, "unknown_path", "There is no such path"),
            Self::WrongMethod => (405, "wrong_method", "The path takes another method"),
            Self::NoWorkflowToken => (409, "no_workflow_token", "No workflow token is held"),
            Self::BodyTooLarge => (413, "body_too_large", "The body is too large"),
            Self::Internal => (500, "internal_error", "The proxy is at fault"),
            Self::UpstreamUnreachable => {
                (502, "upstream_unreachable", "The upstream cannot be reached")
            }
            Self::SessionFailed => (502, "session_failed", "The upstream began no session"),
            Self::UpstreamBrokeOff => {
                (502, "upstream_broke_off", "The upstream's answer broke off")
            }
            Self::AnswerTooLarge => (502, "answer_too_large", "The upstream's answer is too large"),
            Self::UpstreamTimeout => {
                (504, "upstream_timeout", "The upstream did not answer in time")
            }
        };
        // Each number above is a status.
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Row { status, code, title }
    }
}
