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
    BodySlow,
    TransferCoding,
    ContentCoding,
    UnknownPath,
    WrongMethod,
    NoWorkflowToken,
    OtherWallet,
    KeyInUse,
    BodyTooLarge,
    KeyReused,
    InvalidKey,
    Internal,
    JournalUnavailable,
    NotSigned,
    Overloaded,
    ReloadRefused,
    OutcomeUnknown,
    WrongHost,
    ForeignPage,
    Unauthenticated,
    MalformedAuthorization,
    MistypedToken,
    UnknownToken,
    NotAllowed,
    AccessEnded,
    HeldByAnother,
    AlreadySubmitted,
    NotReserved,
    TooFast,
    TooManyReservations,
    UpstreamUnreachable,
    UpstreamMoved,
    UpstreamForeign,
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
                (StatusCode::BAD_REQUEST, "query_not_taken", "The query string cannot be used")
            }
            Self::BodyUnreadable => {
                (StatusCode::BAD_REQUEST, "body_unreadable", "The body broke off")
            }
            Self::BodySlow => (StatusCode::REQUEST_TIMEOUT, "body_slow", "The body took too long"),
            Self::TransferCoding => (
                StatusCode::NOT_IMPLEMENTED,
                "transfer_coding",
                "The transfer coding is not supported",
            ),
            Self::ContentCoding => (
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "content_coding",
                "The content coding is not supported",
            ),
            Self::UnknownPath => (StatusCode::NOT_FOUND, "unknown_path", "There is no such path"),
            Self::WrongMethod => {
                (StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "The path takes another method")
            }
            Self::NoWorkflowToken => {
                (StatusCode::CONFLICT, "no_workflow_token", "No workflow token is held")
            }
            Self::OtherWallet => {
                (StatusCode::CONFLICT, "other_wallet", "The body names another wallet")
            }
            Self::BodyTooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large")
            }
            Self::InvalidKey => (
                StatusCode::BAD_REQUEST,
                "invalid_idempotency_key",
                "The idempotency key cannot be used",
            ),
            Self::KeyInUse => (
                StatusCode::CONFLICT,
                "idempotency_key_in_use",
                "The call with this key is still in progress",
            ),
            Self::KeyReused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "idempotency_key_reused",
                "The idempotency key belongs to another call",
            ),
            Self::JournalUnavailable => (
                StatusCode::SERVICE_UNAVAILABLE,
                "journal_unavailable",
                "The journal cannot be used",
            ),
            Self::NotSigned => {
                (StatusCode::SERVICE_UNAVAILABLE, "not_signed", "The signer did not sign")
            }
            Self::Overloaded => {
                (StatusCode::SERVICE_UNAVAILABLE, "overloaded", "Too many calls are in flight")
            }
            Self::ReloadRefused => (
                StatusCode::UNPROCESSABLE_ENTITY,
                "reload_refused",
                "The new configuration is refused",
            ),
            Self::OutcomeUnknown => {
                (StatusCode::GATEWAY_TIMEOUT, "outcome_unknown", "The answer to a change was lost")
            }
            Self::WrongHost => {
                (StatusCode::MISDIRECTED_REQUEST, "wrong_host", "The host is not this proxy")
            }
            Self::ForeignPage => {
                (StatusCode::FORBIDDEN, "foreign_page", "Web pages may not use the wallet")
            }
            Self::Unauthenticated => {
                (StatusCode::UNAUTHORIZED, "unauthenticated", "The caller is not known")
            }
            Self::MalformedAuthorization => (
                StatusCode::UNAUTHORIZED,
                "malformed_authorization",
                "The Authorization header is malformed",
            ),
            Self::MistypedToken => {
                (StatusCode::UNAUTHORIZED, "mistyped_token", "The token is damaged")
            }
            Self::UnknownToken => {
                (StatusCode::UNAUTHORIZED, "unknown_token", "No client has this token")
            }
            Self::NotAllowed => {
                (StatusCode::FORBIDDEN, "not_allowed", "The client may not do that")
            }
            Self::AccessEnded => {
                (StatusCode::FORBIDDEN, "access_ended", "The client's access has ended")
            }
            Self::HeldByAnother => {
                (StatusCode::CONFLICT, "held_by_another", "Another client holds the job")
            }
            Self::AlreadySubmitted => {
                (StatusCode::CONFLICT, "already_submitted", "A proof is already submitted")
            }
            Self::NotReserved => {
                (StatusCode::CONFLICT, "not_reserved", "The client has not reserved the job")
            }
            Self::TooFast => {
                (StatusCode::TOO_MANY_REQUESTS, "rate_exceeded", "The client calls too often")
            }
            Self::TooManyReservations => (
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_reservations",
                "The client holds too many jobs",
            ),
            Self::Internal => {
                (StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "The proxy failed")
            }
            Self::UpstreamMoved => {
                (StatusCode::BAD_GATEWAY, "upstream_moved", "The upstream has moved")
            }
            Self::UpstreamForeign => (
                StatusCode::BAD_GATEWAY,
                "upstream_foreign",
                "Something other than the API answered",
            ),
            Self::UpstreamUnreachable => {
                (StatusCode::BAD_GATEWAY, "upstream_unreachable", "The upstream cannot be reached")
            }
            Self::SessionFailed => {
                (StatusCode::BAD_GATEWAY, "session_failed", "The upstream did not begin a session")
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
