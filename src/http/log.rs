//! One log event a request, and the request id in every response.

use std::{sync::Arc, time::Instant};

use axum::{
    extract::Request,
    http::{HeaderName, HeaderValue, header},
    middleware::Next,
    response::Response,
};

use super::problem::Problem;
use crate::{proxy::Trail, types::RequestId};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Gives the request an id (the client's own, if it is usable), writes problems out, and logs.
pub(super) async fn request(mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(&request);
    let method = request.method().clone();
    let path = printable(request.uri().path());

    let trail = Arc::new(Trail::default());
    request.extensions_mut().insert(id.clone());
    request.extensions_mut().insert(trail.clone());
    let mut response = next.run(request).await;
    let mut problem = response.extensions_mut().remove::<Problem>();
    let allow = response.headers().get(header::ALLOW).and_then(|allow| allow.to_str().ok());
    if let Some(methods) = allow {
        problem = problem.map(|problem| problem.allowing(methods));
    }
    if let Some(problem) = &problem {
        response = problem.write(&id, response.into_parts().0.headers);
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }

    tracing::info!(
        request_id = id.as_str(),
        client = trail.client(),
        %method,
        path,
        action = trail.action(),
        product = trail.product(),
        status = response.status().as_u16(),
        microseconds = begun.elapsed().as_micros() as u64,
        upstream_microseconds = (trail.tries() > 0).then(|| trail.upstream_microseconds()),
        tries = (trail.tries() > 0).then(|| trail.tries()),
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
