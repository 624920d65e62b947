//! Why a call was refused, and the answer that says so (protocol §8).

use std::fmt;

use axum::{
    http::{StatusCode, header::CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

/// Why a call was refused. The text of a variant is the answer's `message`.
#[derive(thiserror::Error)]
pub(super) enum Refusal {
    #[error("Not Found")]
    NotFound,
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    #[error("Request body could not be read: {text}")]
    Body { status: StatusCode, text: String },
    /// One entry per wrong field, in FastAPI's shape.
    #[error("a field is wrong")]
    Fields(Vec<Value>),

    #[error("Signature fields are missing or malformed: {0}")]
    SignatureMalformed(&'static str),
    #[error("Invalid session nonce")]
    SessionInvalid,
    #[error("Session nonce expired")]
    SessionExpired,
    #[error("Signature does not match wallet_address")]
    WalletMismatch { expected_message: String },
    #[error("Duplicate request_id for this session_nonce")]
    RequestReplay,

    #[error("There is no job with this id")]
    JobNotFound,
    #[error("The job is not open: it is {0}")]
    JobNotOpen(&'static str),
    #[error("This wallet has reserved the job already; its reservation is still running")]
    JobAlreadyReserved,
    #[error("A proof for this job was submitted already")]
    JobAlreadySubmitted,
    #[error("This wallet has no running reservation of the job")]
    ReservationNotActive,
    #[error("reservation_id is not that of this wallet's running reservation")]
    ReservationMismatch,

    #[error("The header X-Job-Workflow-Token: Bearer <token> is missing")]
    WorkflowTokenMissing,
    #[error("The workflow token is not that of a running reservation of this job")]
    WorkflowTokenInvalid,
    #[error("There is no workflow with this id in the job's reservation")]
    WorkflowNotFound,
    #[error("workflow_id does not name a workflow made for this job")]
    WorkflowMismatch,
    #[error("The workflow is a draft: publish it first")]
    WorkflowNotPublished,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NotFound | Self::JobNotFound | Self::WorkflowNotFound => StatusCode::NOT_FOUND,
            Self::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
            Self::Body { status, .. } => *status,
            Self::Fields(_) => StatusCode::UNPROCESSABLE_ENTITY,
            Self::SignatureMalformed(_)
            | Self::SessionInvalid
            | Self::SessionExpired
            | Self::WalletMismatch { .. }
            | Self::WorkflowTokenMissing => StatusCode::UNAUTHORIZED,
            Self::WorkflowTokenInvalid => StatusCode::FORBIDDEN,
            Self::RequestReplay
            | Self::JobNotOpen(_)
            | Self::JobAlreadyReserved
            | Self::JobAlreadySubmitted
            | Self::ReservationNotActive
            | Self::ReservationMismatch
            | Self::WorkflowMismatch
            | Self::WorkflowNotPublished => StatusCode::CONFLICT,
        }
    }

    /// The stable word of the answer, unless the server gives none.
    fn code(&self) -> Option<&'static str> {
        Some(match self {
            Self::NotFound | Self::MethodNotAllowed | Self::Body { .. } | Self::Fields(_) => {
                return None;
            }
            Self::SignatureMalformed(_) => "EXTERNAL_SIGNATURE_MALFORMED",
            Self::SessionInvalid => "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID",
            Self::SessionExpired => "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED",
            Self::WalletMismatch { .. } => "EXTERNAL_SIGNATURE_WALLET_MISMATCH",
            Self::RequestReplay => "EXTERNAL_SIGNATURE_REQUEST_REPLAY",
            Self::JobNotFound => "JOB_NOT_FOUND",
            Self::JobNotOpen(_) => "JOB_NOT_OPEN",
            Self::JobAlreadyReserved => "JOB_ALREADY_RESERVED",
            Self::JobAlreadySubmitted => "JOB_ALREADY_SUBMITTED",
            Self::ReservationNotActive => "RESERVATION_NOT_ACTIVE",
            Self::ReservationMismatch => "RESERVATION_MISMATCH",
            Self::WorkflowTokenMissing => "WORKFLOW_TOKEN_MISSING",
            Self::WorkflowTokenInvalid => "WORKFLOW_TOKEN_INVALID",
            Self::WorkflowNotFound => "WORKFLOW_NOT_FOUND",
            Self::WorkflowMismatch => "WORKFLOW_MISMATCH",
            Self::WorkflowNotPublished => "WORKFLOW_NOT_PUBLISHED",
        })
    }

    /// The value of the answer's `detail`: an object, FastAPI's list, or a plain text.
    fn detail(self) -> Value {
        let message = self.to_string();
        let Some(code) = self.code() else {
            return match self {
                Self::Fields(errors) => Value::Array(errors),
                _ => Value::String(message),
            };
        };
        let mut detail = json!({"code": code, "message": message});
        if let Self::WalletMismatch { expected_message } = self {
            detail["expected_message"] = expected_message.into();
        }
        detail
    }
}

/// Prints the message only: the expected text of a mismatch holds the session nonce.
impl fmt::Debug for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Refusal({self})")
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let status = self.status();
        let body = json!({"detail": self.detail()}).to_string();
        (status, [(CONTENT_TYPE, "application/json")], body).into_response()
    }
}
