//! How a problem is written (RFC 9457), so that no client takes it for an answer of the upstream.

use super::header::ERROR;
use crate::{problem::Problem, problems::Kind, types::RequestId};
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

/// As a response, a problem is empty until the middleware, which knows the request id, writes it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The whole response, with the headers that others gave it.
pub(super) fn write(problem: &Problem, request_id: &RequestId, mut headers: HeaderMap) -> Response {
    let Kind { status, code, .. } = *problem.kind;
    let mut body = problem.to_json();
    body["request_id"] = request_id.as_str().into();
    headers.remove(header::CONTENT_LENGTH);
    let media_type = HeaderValue::from_static("application/problem+json");
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(ERROR, HeaderValue::from_static(code));
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"agentpmt-proxy\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    headers.extend(problem.retry_after.clone().map(|after| (header::RETRY_AFTER, after)));
    (status, headers, body.to_string()).into_response()
}
