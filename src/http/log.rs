//! One log event a request, and the request id in every response.

use std::{borrow::Cow, sync::Arc, thread::panicking};

use axum::{
    extract::{Request, State},
    http::{HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};

use super::{
    Surface, guard,
    problem::{self, Problem},
};
use crate::{
    trace::Trace,
    types::{RequestId, TOKEN_PREFIX},
};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client that is taken, in characters: it is on record with every call.
const MAX_REQUEST_ID: usize = 128;

/// Begins the trace of a request, guards it, writes problems out, and logs.
pub(super) async fn request(
    State(surface): State<Arc<Surface>>,
    mut request: Request,
    next: Next,
) -> Response {
    let trace = Arc::new(Trace::new(request_id(&request)));
    let event = Event::of(&request, trace.clone());
    request.extensions_mut().insert(trace);
    let mut response = match guard::check(&surface.instance, &request) {
        Ok(None) => next.run(request).await,
        // In a box, since few requests come from a page: the others keep no room for it.
        Ok(Some(origin)) => Box::pin(guard::answer_page(origin, request, next)).await,
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
struct Event {
    trace: Arc<Trace>,
    method: Method,
    path: String,
    answered: bool,
}

impl Event {
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
            %method,
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

impl Drop for Event {
    fn drop(&mut self) {
        if !self.answered {
            self.trace.abandon();
        }
        // What panics is told by the panic.
        if !self.answered && !panicking() {
            self.log(None, None, "request whose client went away before its answer");
        }
    }
}

/// A path as it may be shown to people: at most 200 characters, ASCII, and no token of a client.
pub(super) fn printable(path: &str) -> Cow<'_, str> {
    match path.split_once(TOKEN_PREFIX) {
        // Nothing after it is of use to anyone.
        Some((before, _)) => format!("{}{TOKEN_PREFIX}...", escaped(before)).into(),
        None => escaped(path),
    }
}

fn escaped(path: &str) -> Cow<'_, str> {
    let is_plain = |byte: u8| byte.is_ascii_graphic() && !b"'\"\\".contains(&byte);
    match path.bytes().all(is_plain) {
        true => path.get(..200).unwrap_or(path).into(),
        false => path.chars().flat_map(char::escape_default).take(200).collect(),
    }
}

/// The client's own id, if it is usable and holds no token; or else a random one.
fn request_id(request: &Request) -> RequestId {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_usable = |text: &&str| text.len() <= MAX_REQUEST_ID && !text.contains(TOKEN_PREFIX);
    let given = given.filter(is_usable);
    given.and_then(|text| text.parse().ok()).unwrap_or_else(RequestId::random)
}
