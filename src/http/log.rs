//! One log event a request, and the request id in every response.

use std::time::Instant;

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

use super::problem::Problem;
use crate::types::RequestId;

const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id (the client's own, if it is usable), writes problems out, and logs.
pub(super) async fn request(mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let path = printable(request.uri().path());

    request.extensions_mut().insert(id.clone());
    let mut response = next.run(request).await;
    let mut problem = response.extensions_mut().remove::<Problem>();
    let allow = response.headers_mut().remove(header::ALLOW);
    if let Some(methods) = allow.as_ref().and_then(|allow| allow.to_str().ok()) {
        problem = problem.map(|problem| problem.allowing(methods));
    }
    if let Some(problem) = &problem {
        response = problem.write(&id);
        response.headers_mut().extend(allow.map(|allow| (header::ALLOW, allow)));
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }

    tracing::info!(
        request_id = id.as_str(),
        %method,
        path,
        status = response.status().as_u16(),
        microseconds = begun.elapsed().as_micros() as u64,
        error = problem.as_ref().map(Problem::code),
        detail = problem.as_ref().map(Problem::detail),
        "request"
    );
    response
}

/// A path as it may be shown to people: its first 200 characters, ASCII.
pub(super) fn printable(path: &str) -> String {
    path.chars().take(200).flat_map(char::escape_default).collect()
}

fn request_id(request: &Request) -> RequestId {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    given.and_then(|text| text.parse().ok()).unwrap_or_else(RequestId::random)
}
