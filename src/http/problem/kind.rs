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
            Self::InvalidBody => {
                (StatusCode::BAD_REQUEST, "invalid_body", "The body cannot be used")
            }
            Self::InvalidField => {
                (StatusCode::BAD_REQUEST, "invalid_field", "A field cannot be used")
            }
            Self::InvalidId => (StatusCode::BAD_REQUEST, "invalid_id", "An id cannot be used"),
            Self::QueryNotTaken => {
                (StatusCode::BAD_REQUEST, "query_not_taken", "No query string is taken")
            }
            Self::BodyUnreadable => {
                (StatusCode::BAD_REQUEST, "body_unreadable", "The body broke off")
            }
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path", "There is no such path"),
            Self::WrongMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "The path takes another method")
            }
            Self::NoWorkflowToken => {
                (StatusCode::CONFLICT, "no_workflow_token", "No workflow token is held")
            }
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large")
            }
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The proxy is at fault")
            }
            Self::UpstreamUnreachable => {
                (StatusCode::BAD_GATEWAY, "upstream_unreachable", "The upstream cannot be reached")
            }
            Self::SessionFailed => {
                (StatusCode::BAD_GATEWAY, "session_failed", "The upstream began no session")
            }
            Self::UpstreamBrokeOff => {
                (StatusCode::BAD_GATEWAY, "upstream_broke_off", "The upstream's answer broke off")
            }
            Self::AnswerTooLarge => {
                (StatusCode::BAD_GATEWAY, "answer_too_large", "The upstream's answer is too large")
            }
            Self::UpstreamTimeout => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "The upstream did not answer in time",
            ),
        };
        Row { status, code, title }
    }
}
