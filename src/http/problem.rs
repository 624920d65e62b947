//! Our own errors, as RFC 9457 problem details, so that no one takes them for the upstream's.

use axum::{
    extract::rejection::BytesRejection,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::MAX_BODY;
use crate::{
    action::{ACTIONS, Action, CallError},
    proxy::CallFailure,
    session::SessionError,
    types::RequestId,
    upstream::UpstreamError,
};

/// The header that tells our errors from the upstream's; its value is the error's code.
const ERROR_HEADER: HeaderName = HeaderName::from_static("x-agentpmt-proxy-error");

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It would fail again: change it first.
    Never,
    /// Nothing was changed upstream, so it may be sent again.
    Safe,
    /// It may have taken effect: ask for the job's status first.
    CheckFirst,
}

impl Retry {
    fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Safe => "safe",
            Self::CheckFirst => "check_first",
        }
    }
}

/// One error of the proxy. As a response it is empty until the middleware, which knows the request
/// id, writes it out.
#[derive(Debug, Clone)]
pub struct Problem {
    status: StatusCode,
    /// A stable word for programs.
    code: &'static str,
    title: &'static str,
    detail: String,
    retry: Retry,
    retry_after: Option<HeaderValue>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String) -> Self {
        Self { status, code, title, detail, retry: Retry::Never, retry_after: None }
    }

    fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// The stable word.
    pub(super) fn code(&self) -> &'static str {
        self.code
    }

    /// What happened and what to do.
    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The whole response.
    pub(super) fn write(&self, request_id: &RequestId) -> Response {
        let body = json!({
            "type": format!("urn:agentpmt-proxy:error:{}", self.code),
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id.as_str(),
            "retry": self.retry.as_str(),
        });
        let mut headers = HeaderMap::new();
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        headers.insert(ERROR_HEADER, HeaderValue::from_static(self.code));
        if let Some(retry_after) = &self.retry_after {
            headers.insert(header::RETRY_AFTER, retry_after.clone());
        }
        (self.status, headers, body.to_string()).into_response()
    }

    pub(super) fn unknown_path(path: &str) -> Self {
        let calls: Vec<_> = ACTIONS.iter().map(|a| format!("{} {}", a.method, a.path)).collect();
        let detail = format!("There is nothing at {path}. The calls are: {}.", calls.join(", "));
        Self::new(StatusCode::NOT_FOUND, "unknown_path", "No such path", detail)
    }

    pub(super) fn wrong_method(method: &Method, path: &str) -> Self {
        let detail =
            format!("{path} does not take {method}; the Allow header names what it takes.");
        Self::new(StatusCode::METHOD_NOT_ALLOWED, "wrong_method", "Wrong method", detail)
    }

    pub(super) fn query_not_taken() -> Self {
        let detail = "The calls take no query string. Send the fields in a JSON body, as in \
                      {\"limit\": 10}."
            .to_owned();
        Self::new(StatusCode::BAD_REQUEST, "query_not_taken", "No query string is taken", detail)
    }

    pub(super) fn unreadable_body(rejection: BytesRejection) -> Self {
        if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
            let detail = format!("The body is larger than {} KiB. Send less.", MAX_BODY / 1024);
            return Self::new(rejection.status(), "body_too_large", "Body too large", detail);
        }
        let detail = "The body broke off before its end. Send the request again.".to_owned();
        Self::new(StatusCode::BAD_REQUEST, "body_unreadable", "Body not readable", detail)
            .retry(Retry::Safe)
    }

    /// A call that has no answer of the upstream.
    pub(super) fn failed(action: &Action, failure: CallFailure) -> Self {
        match failure {
            CallFailure::Session(error) => Self::no_session(&error),
            CallFailure::Upstream(error) => Self::no_answer(action, &error),
            CallFailure::NoWorkflowToken { .. } => Self::no_workflow_token(&failure),
            CallFailure::Aborted => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal_error",
                "Fault of the proxy",
                format!("{}. The log of the proxy says more. {}", failure, advice(action)),
            )
            .retry(after_sending(action)),
        }
    }

    fn no_session(error: &SessionError) -> Self {
        let (status, code, title) = match error {
            SessionError::Upstream(UpstreamError::TimedOut { .. })
            | SessionError::TimedOut { .. } => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "The upstream did not answer in time",
            ),
            SessionError::Upstream(UpstreamError::Unreachable { .. }) => {
                (StatusCode::BAD_GATEWAY, "upstream_unreachable", "The upstream cannot be reached")
            }
            _ => (StatusCode::BAD_GATEWAY, "session_failed", "The upstream began no session"),
        };
        let detail = format!("{}. Nothing was signed; send the request again later.", error);
        let retry_after = match error {
            SessionError::Refused { retry_after, .. } => retry_after.clone(),
            _ => None,
        };
        Self { retry_after, ..Self::new(status, code, title, detail).retry(Retry::Safe) }
    }

    fn no_answer(action: &Action, error: &UpstreamError) -> Self {
        let (status, code, title) = match error {
            UpstreamError::Unreachable { .. } => {
                (StatusCode::BAD_GATEWAY, "upstream_unreachable", "The upstream cannot be reached")
            }
            UpstreamError::TimedOut { .. } => (
                StatusCode::GATEWAY_TIMEOUT,
                "upstream_timeout",
                "The upstream did not answer in time",
            ),
            UpstreamError::BrokenOff { .. } => {
                (StatusCode::BAD_GATEWAY, "upstream_broke_off", "The upstream's answer broke off")
            }
            UpstreamError::TooLarge { .. } => {
                (StatusCode::BAD_GATEWAY, "answer_too_large", "The upstream's answer is too large")
            }
        };
        let (retry, advice) = if error.was_sent() {
            (after_sending(action), advice(action))
        } else {
            (Retry::Safe, "The call was not sent; send the request again later.")
        };
        Self::new(status, code, title, format!("{}. {advice}", error)).retry(retry)
    }

    fn no_workflow_token(failure: &CallFailure) -> Self {
        let detail = format!(
            "{}. Reserve the job through this proxy first; a token is held until its reservation \
             ends or the proxy stops.",
            failure
        );
        Self::new(StatusCode::CONFLICT, "no_workflow_token", "No workflow token is held", detail)
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        let (code, title) = match error {
            CallError::Id { .. } | CallError::IdCount { .. } => ("invalid_id", "Id not usable"),
            CallError::Body(_) => ("invalid_body", "Body not usable"),
            CallError::Field { .. } => ("invalid_field", "Field not usable"),
        };
        let detail = format!("{}. Nothing was sent.", error);
        Self::new(StatusCode::BAD_REQUEST, code, title, detail)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Whether a call that went out without an answer may be made again.
fn after_sending(action: &Action) -> Retry {
    if action.changes { Retry::CheckFirst } else { Retry::Safe }
}

fn advice(action: &Action) -> &'static str {
    if action.changes {
        "It may have taken effect: ask for the job's status before you send it again."
    } else {
        "It changes nothing, so it may be sent again."
    }
}
