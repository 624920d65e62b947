//! One log event a request, and the request id in every response.

use std::{borrow::Cow, sync::Arc, thread::panicking, time::Instant};

use axum::{
    extract::{Request, State},
    http::{Extensions, HeaderName, HeaderValue, Method, StatusCode},
    middleware::Next,
    response::Response,
};

use super::{
    Surface, guard,
    problem::{self, Problem},
};
use crate::{
    trail::Trail,
    types::{RequestId, TOKEN_PREFIX},
};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// The longest id of a client that is taken, in characters: it is on record with every call.
const MAX_REQUEST_ID: usize = 128;

/// What a request is given when it arrives.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    /// The client's own id, if it is usable and holds no token.
    pub(super) call_id: RequestId,
    /// What becomes known of it.
    pub(super) trail: Arc<Trail>,
}

impl Arrival {
    /// What a request was given by [`request`]; something fresh if it did not come through it.
    pub(super) fn of(extensions: &Extensions) -> Self {
        let fresh = || Self { call_id: RequestId::random(), trail: Arc::default() };
        extensions.get().cloned().unwrap_or_else(fresh)
    }
}

/// Gives the request an id, guards it, writes problems out, and logs.
pub(super) async fn request(
    State(surface): State<Arc<Surface>>,
    mut request: Request,
    next: Next,
) -> Response {
    let arrival = Arrival { call_id: request_id(&request), trail: Arc::default() };
    let event = Event::of(&request, &arrival);
    request.extensions_mut().insert(arrival);
    let mut response = match guard::check(&surface.instance, &request) {
        Ok(None) => next.run(request).await,
        // In a box, since few requests come from a page: the others keep no room for it.
        Ok(Some(origin)) => Box::pin(guard::answer_page(origin, request, next)).await,
        Err(refused) => refused,
    };
    let problem = response.extensions_mut().remove::<Problem>();
    let id = &event.arrival.call_id;
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
    arrival: Arrival,
    method: Method,
    path: String,
    begun: Instant,
    answered: bool,
}

impl Event {
    fn of(request: &Request, arrival: &Arrival) -> Self {
        Self {
            arrival: arrival.clone(),
            method: request.method().clone(),
            path: printable(request.uri().path()).into_owned(),
            begun: Instant::now(),
            answered: false,
        }
    }

    fn answered(mut self, status: StatusCode, problem: Option<&Problem>) {
        self.answered = true;
        self.log(Some(status), problem, "request");
    }

    fn log(&self, status: Option<StatusCode>, problem: Option<&Problem>, message: &str) {
        let Self { arrival: Arrival { call_id, trail }, method, path, begun, .. } = self;
        let is_sent = trail.tries() > 0;
        tracing::info!(
            request_id = call_id.as_str(),
            client = trail.client(),
            %method,
            path,
            action = trail.action(),
            product = trail.product(),
            status = status.map(|status| status.as_u16()),
            microseconds = begun.elapsed().as_micros() as u64,
            upstream_microseconds = is_sent.then(|| trail.upstream_microseconds()),
            tries = is_sent.then(|| trail.tries()),
            error = problem.map(|problem| problem.kind.code),
            detail = problem.map(|problem| problem.detail.as_str()),
            "{message}"
        );
    }
}

impl Drop for Event {
    fn drop(&mut self) {
        if !self.answered {
            self.arrival.trail.abandon();
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

fn request_id(request: &Request) -> RequestId {
    let given = request.headers().get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_usable = |text: &&str| text.len() <= MAX_REQUEST_ID && !text.contains(TOKEN_PREFIX);
    let given = given.filter(is_usable);
    given.and_then(|text| text.parse().ok()).unwrap_or_else(RequestId::random)
}
