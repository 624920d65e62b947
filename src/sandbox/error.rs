//! The errors of the server (protocol §8).

use std::fmt;

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use serde_json::{Value, json};

use super::{charge::Charge, header::with_json};

/// Why a call was refused. The text of a variant is the answer's `message`.
#[derive(thiserror::Error)]
pub(super) enum ApiError {
    #[error("Not Found")]
    NotFound,
    #[error("Method Not Allowed")]
    MethodNotAllowed,
    #[error("Request body could not be read: {text}")]
    Body { status: StatusCode, text: String },
    /// One entry for each wrong field, in FastAPI's shape.
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
    #[error("This wallet has reserved the job already; it may do so again near the end")]
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
    #[error("The workflow has no tool node: add one before you publish it")]
    WorkflowNeedsTool,

    #[error("There is no tool with this id or slug, or it has no such action")]
    ToolNotFound,
    #[error("It costs {price} credits, and the wallet has {balance}: buy some, then call again")]
    TooFewCredits { price: i64, balance: i64 },
    #[error("The tool failed")]
    ToolFailed(Option<Charge>),
    #[error("A payment is required")]
    PaymentRequired { challenge: Value, why: Option<&'static str> },
    #[error("A signature and a payment are two proofs: send one")]
    TwoProofs,
    #[error("Credits are sold in multiples of 500")]
    CreditsNotSold { suggested: i64 },
    #[error("No purchase of so many credits for this wallet has this transaction_hash")]
    TransactionNotFound,
    #[error("There is no published workflow with this id")]
    PublishedWorkflowNotFound,
    #[error("This wallet has no running session of the workflow with this id")]
    WorkflowSessionNotFound,
}

impl ApiError {
    /// The status, and the stable word of the answer if the server gives one.
    fn status_and_code(&self) -> (StatusCode, Option<&'static str>) {
        let (status, code) = match self {
            Self::NotFound => return (StatusCode::NOT_FOUND, None),
            Self::MethodNotAllowed => return (StatusCode::METHOD_NOT_ALLOWED, None),
            Self::Body { status, .. } => return (*status, None),
            Self::Fields(_) => return (StatusCode::UNPROCESSABLE_ENTITY, None),
            Self::SignatureMalformed(_) => {
                (StatusCode::UNAUTHORIZED, "EXTERNAL_SIGNATURE_MALFORMED")
            }
            Self::SessionInvalid => {
                (StatusCode::UNAUTHORIZED, "EXTERNAL_SIGNATURE_SESSION_NONCE_INVALID")
            }
            Self::SessionExpired => {
                (StatusCode::UNAUTHORIZED, "EXTERNAL_SIGNATURE_SESSION_NONCE_EXPIRED")
            }
            Self::WalletMismatch { .. } => {
                (StatusCode::UNAUTHORIZED, "EXTERNAL_SIGNATURE_WALLET_MISMATCH")
            }
            Self::RequestReplay => (StatusCode::CONFLICT, "EXTERNAL_SIGNATURE_REQUEST_REPLAY"),
            Self::JobNotFound => (StatusCode::NOT_FOUND, "JOB_NOT_FOUND"),
            Self::JobNotOpen(_) => (StatusCode::CONFLICT, "JOB_NOT_OPEN"),
            Self::JobAlreadyReserved => (StatusCode::CONFLICT, "JOB_ALREADY_RESERVED"),
            Self::JobAlreadySubmitted => (StatusCode::CONFLICT, "JOB_ALREADY_SUBMITTED"),
            Self::ReservationNotActive => (StatusCode::CONFLICT, "RESERVATION_NOT_ACTIVE"),
            Self::ReservationMismatch => (StatusCode::CONFLICT, "RESERVATION_MISMATCH"),
            Self::WorkflowTokenMissing => (StatusCode::UNAUTHORIZED, "WORKFLOW_TOKEN_MISSING"),
            Self::WorkflowTokenInvalid => (StatusCode::FORBIDDEN, "WORKFLOW_TOKEN_INVALID"),
            Self::WorkflowNotFound => (StatusCode::NOT_FOUND, "WORKFLOW_NOT_FOUND"),
            Self::WorkflowMismatch => (StatusCode::CONFLICT, "WORKFLOW_MISMATCH"),
            Self::WorkflowNotPublished => (StatusCode::CONFLICT, "WORKFLOW_NOT_PUBLISHED"),
            Self::WorkflowNeedsTool => (StatusCode::CONFLICT, "WORKFLOW_NEEDS_TOOL"),
            Self::ToolNotFound => (StatusCode::NOT_FOUND, "TOOL_NOT_FOUND"),
            Self::TooFewCredits { .. } => (StatusCode::PAYMENT_REQUIRED, "INSUFFICIENT_CREDITS"),
            Self::ToolFailed(_) => (StatusCode::BAD_GATEWAY, "TOOL_FAILED"),
            Self::PaymentRequired { .. } => (StatusCode::PAYMENT_REQUIRED, "PAYMENT_REQUIRED"),
            Self::TwoProofs => (StatusCode::BAD_REQUEST, "TWO_PROOFS"),
            Self::CreditsNotSold { .. } => (StatusCode::BAD_REQUEST, "INVALID_CREDITS"),
            Self::TransactionNotFound => (StatusCode::NOT_FOUND, "TRANSACTION_NOT_FOUND"),
            Self::PublishedWorkflowNotFound => (StatusCode::NOT_FOUND, "WORKFLOW_NOT_FOUND"),
            Self::WorkflowSessionNotFound => (StatusCode::NOT_FOUND, "WORKFLOW_SESSION_NOT_FOUND"),
        };
        (status, Some(code))
    }
}

/// Prints the message only: the expected text of a mismatch holds the session nonce.
impl fmt::Debug for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiError({self})")
    }
}

/// The value of `detail` is an object with a code, FastAPI's list, or a plain text.
impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, code) = self.status_and_code();
        let message = self.to_string();
        let detail = match (self, code) {
            (Self::Fields(errors), _) => Value::Array(errors),
            (Self::WalletMismatch { expected_message }, _) => {
                json!({"code": code, "message": message, "expected_message": expected_message})
            }
            (Self::TooFewCredits { price, balance }, _) => json!({
                "code": code, "message": message, "price_credits": price, "balance_credits": balance,
            }),
            (Self::PaymentRequired { challenge, why }, _) => return demand(&challenge, why),
            (Self::CreditsNotSold { suggested }, _) => {
                json!({"code": code, "message": message, "suggested_credits": suggested})
            }
            (Self::ToolFailed(Some(charge)), _) => {
                charge.beside(json!({"code": code, "message": message}))
            }
            (_, Some(code)) => json!({"code": code, "message": message}),
            (_, None) => Value::String(message),
        };
        (status, Json(json!({"detail": detail}))).into_response()
    }
}

/// A 402 with its challenge, and if a payment came, why it was not taken.
fn demand(challenge: &Value, why: Option<&'static str>) -> Response {
    let mut headers = with_json("payment-required", challenge);
    if let Some(why) = why {
        headers
            .extend(with_json("payment-response", &json!({"success": false, "errorReason": why})));
    }
    (StatusCode::PAYMENT_REQUIRED, headers, Json(challenge)).into_response()
}
