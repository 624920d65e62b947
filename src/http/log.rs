//! One log event a request, and the request id in every response.

use std::{sync::Arc, thread::panicking};

use axum::{
    extract::{Request, State},
    http::{HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};

use super::{
    guard::answer_page, header::REQUEST_ID, printable::printable, problem, surface::Surface,
};
use crate::{
    problem::Problem,
    trace::Trace,
    types::{RequestId, TOKEN_PREFIX},
};

/// The longest id of a client that is taken, in characters: it is on record with every call.
const MAX_REQUEST_ID: usize = 128;

/// Begins the trace of a request, guards it, writes problems out, and logs.
pub(super) async fn request(
    State(surface): State<Arc<Surface>>,
    mut request: Request,
    next: Next,
) -> Response {
    let trace = Arc::new(Trace::new(request_id(&request)));
    let event = RequestEvent::of(&request, trace.clone());
    request.extensions_mut().insert(trace);
    let mut response = match surface.instance.live().guard.check(&request) {
        Ok(None) => next.run(request).await,
        // In a box, since few requests come from a page: the others keep no room for it.
        Ok(Some(origin)) => Box::pin(answer_page(origin, request, next)).await,
        Err(refused) => refused,
    };
    let problem = response.extensions_mut().remove::<Problem>();
    let id = &event.trace.call_id;
    if let Some(problem) = &problem {
        response = problem::write(problem, id, response.into_parts().0.headers);
    }
    if let Ok(value) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    event.answered(response.status(), problem.as_ref());
    response
}

/// The event of one request, which is logged when it is answered, or when its client has gone.
struct RequestEvent {
    trace: Arc<Trace>,
    method: Method,
    path: String,
    answered: bool,
}

impl RequestEvent {
    fn of(request: &Request, trace: Arc<Trace>) -> Self {
        let path = printable(request.uri().path()).into_owned();
        Self { trace, method: request.method().clone(), path, answered: false }
    }

    fn answered(mut self, status: StatusCode, problem: Option<&Problem>) {
        self.answered = true;
        self.log(Some(status), problem, "request");
    }

    fn log(&self, status: Option<StatusCode>, problem: Option<&Problem>, message: &str) {
        let Self { trace, method, path, .. } = self;
        let is_sent = trace.attempts() > 0;
        tracing::info!(
            request_id = trace.call_id.as_str(),
            client = trace.client(),
            method = method.as_str(),
            path,
            action = trace.action(),
            product = trace.product(),
            status = status.map(|status| status.as_u16()),
            microseconds = trace.microseconds(),
            upstream_microseconds = is_sent.then(|| trace.upstream_microseconds()),
            tries = is_sent.then(|| trace.attempts()),
            error = problem.map(|problem| problem.kind.code),
            detail = problem.map(|problem| problem.detail.as_str()),
            "{message}"
        );
    }
}

impl Drop for RequestEvent {
    fn drop(&mut self) {
        if !self.answered {
            self.trace.abandon();
        }
        // A panic is logged where it happens.
        if !self.answered && !panicking() {
            self.log(None, None, "request whose client went away before its answer");
        }
    }
}

/// The client's own id, if it is usable and holds no token; or else a random one.
fn request_id(request: &Request) -> RequestId {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_usable = |text: &&str| text.len() <= MAX_REQUEST_ID && !text.contains(TOKEN_PREFIX);
    let given = given.filter(is_usable);
    given.and_then(|text| text.parse().ok()).unwrap_or_else(RequestId::random)
}
