//! What a fault does to the call at which it strikes.

use std::{convert::Infallible, future::pending};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{FromRequest, MatchedPath, Request, State},
    http::{
        HeaderValue, StatusCode,
        header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER},
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::{task::yield_now, time::sleep};

use super::{
    Fault, Target,
    kind::{After, Before, Effect},
};
use crate::{
    canonical::Object,
    sandbox::{Sandbox, refusal::Refusal, serve::cut, verify},
};

/// About the size of the answer that is too large, in bytes.
const HUGE: usize = 20 << 20;

/// Answers every call, as the fault wants it if one strikes.
pub(in crate::sandbox) async fn strike(
    State(sandbox): State<Sandbox>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get().map_or("", MatchedPath::as_str);
    let call = Target::of_route(route);
    let Some(fault) = sandbox.server().faults.strike(call) else {
        return next.run(request).await;
    };
    match fault.kind.effect {
        Effect::CutBeforeBody => cut(),
        Effect::CutInBody => {
            // What the first part holds does not matter, nor whether there was one.
            let _ = request.into_body().into_data_stream().next().await;
            cut()
        }
        Effect::Before(effect) => match Received::read(call, request).await {
            Ok(received) => instead_of_processing(effect, &fault, &sandbox, received, next).await,
            Err(refusal) => refusal.into_response(),
        },
        Effect::After(effect) => {
            instead_of_answering(effect, &fault, next.run(request).await).await
        }
    }
}

/// A call whose body has arrived.
struct Received {
    call: Target,
    request: Request,
    body: Bytes,
}

impl Received {
    async fn read(call: Target, request: Request) -> Result<Self, Refusal> {
        let (parts, body) = request.into_parts();
        let whole = Request::from_parts(parts.clone(), body);
        let body = Bytes::from_request(whole, &()).await.map_err(|rejection| Refusal::Body {
            status: rejection.status(),
            text: rejection.body_text(),
        })?;
        Ok(Self { call, request: Request::from_parts(parts, body.clone().into()), body })
    }

    /// What the server would want signed, but for another payload.
    fn another_message(&self) -> Option<String> {
        let Target::Action(action) = self.call else { return None };
        let ids = action.path.split('/').zip(self.request.uri().path().split('/'));
        let id = ids.filter(|(name, _)| name.starts_with('{')).map(|(_, id)| id).next();
        let body = Object::parse(&self.body).ok()?;
        let text = verify::rebuilt_message(action.name, id.unwrap_or_default(), body)?;
        let (lines, _) = text.rsplit_once(':')?;
        Some(format!("{lines}:{}", Object::parse(br#"{"another":1}"#).ok()?.to_canonical().hash()))
    }
}

async fn instead_of_processing(
    effect: Before,
    fault: &Fault,
    sandbox: &Sandbox,
    received: Received,
    next: Next,
) -> Response {
    match effect {
        Before::Delay => {
            let delay = fault.delay;
            // A task of its own: a slow server works on when nobody listens any more.
            let late = tokio::spawn(async move {
                sleep(delay).await;
                next.run(received.request).await
            });
            late.await.unwrap_or_else(|_| cut())
        }
        Before::Hang => pending().await,
        Before::Cut => cut(),
        Before::ForgetSessions => {
            sandbox.server().sessions.forget_all();
            next.run(received.request).await
        }
        Before::Answer(status, body) => answer(status, body, fault),
        Before::WrongSignature(code) => {
            let mut detail = json!({"code": code, "message": "Refused"});
            if let Some(text) = received.another_message() {
                detail["expected_message"] = text.into();
            }
            answer(401, json!({"detail": detail}).to_string(), fault)
        }
    }
}

async fn instead_of_answering(effect: After, fault: &Fault, response: Response) -> Response {
    match effect {
        After::Delay => {
            sleep(fault.delay).await;
            response
        }
        After::Hang => pending().await,
        After::Cut => cut(),
        After::CutHalfway => half_of(response).await,
        After::Answer(status, body) => answer(status, body, fault),
        After::Huge => answer(200, huge(), fault),
    }
}

fn answer(status: u16, body: impl Into<Body>, fault: &Fault) -> Response {
    // The rows of the table hold statuses only.
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = (status, [(CONTENT_TYPE, "application/json")], body.into()).into_response();
    if matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(fault.retry_after));
    }
    response
}

/// A JSON object of about [`HUGE`] bytes, which does not say so beforehand.
fn huge() -> Body {
    const PART: &[u8] = &[b'x'; 1 << 16];
    let padding = std::iter::repeat_n(PART, HUGE / PART.len());
    let parts =
        [br#"{"padding":""#.as_slice()].into_iter().chain(padding).chain([br#""}"#.as_slice()]);
    let parts = parts.map(|part| Ok::<_, Infallible>(Bytes::from_static(part)));
    Body::from_stream(stream::iter(parts))
}

/// An answer that announces its whole length and breaks off in the middle.
async fn half_of(response: Response) -> Response {
    let (mut parts, body) = response.into_parts();
    // The sandbox's own answers are in memory already, so there is no limit and no error.
    let whole = to_bytes(body, usize::MAX).await.unwrap_or_default();
    parts.headers.insert(CONTENT_LENGTH, HeaderValue::from(whole.len()));
    let half = whole.slice(..whole.len() / 2);
    let broken = stream::once(async {
        // While this waits, the server writes out what it has.
        yield_now().await;
        Err(std::io::Error::other("the answer was to break off"))
    });
    Response::from_parts(parts, Body::from_stream(stream::iter([Ok(half)]).chain(broken)))
}
