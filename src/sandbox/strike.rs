//! The effect of a fault on the call at which it strikes.

use std::{convert::Infallible, future::pending};

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{MatchedPath, Request, State},
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
    api::Sandbox,
    fault::{AfterCall, BeforeCall, FaultTarget, InjectedFault, OnPayment, PaidFault, Strike},
    form,
    header::payment_of,
    serve::cut,
    verify::Arrived,
};
use crate::{action::Proof, json::Object};

/// About the size of the answer that is too large, in bytes.
const HUGE: usize = 20 << 20;

/// Answers every call, as the fault wants it if one strikes.
pub(super) async fn strike(
    State(sandbox): State<Sandbox>,
    request: Request,
    next: Next,
) -> Response {
    let route = request.extensions().get().map_or("", MatchedPath::as_str);
    let call = FaultTarget::of_route(sandbox.actions, route);
    let is_paid = payment_of(request.headers()).is_some();
    let Some(fault) = sandbox.api().faults.strike(call, is_paid) else {
        return next.run(request).await;
    };
    match fault.kind.strike {
        Strike::CutBeforeBody => cut(),
        Strike::CutInBody => {
            // The first part may be anything, or missing.
            let _ = request.into_body().into_data_stream().next().await;
            cut()
        }
        Strike::Before(what) => match form::read(request).await {
            Ok((head, body)) => {
                let request = Request::from_parts(head, body.clone().into());
                let message = another_message(call, request.uri().path(), &body);
                before_call(what, message, &fault, &sandbox, request, next).await
            }
            Err(error) => error.into_response(),
        },
        Strike::Payment(what) => on_payment(what, &fault, request, next).await,
        // The call itself asks for it.
        Strike::Demand(_) => next.run(request).await,
        Strike::After(what) => after_call(what, &fault, next.run(request).await).await,
    }
}

async fn before_call(
    what: BeforeCall,
    message: Option<String>,
    fault: &InjectedFault,
    sandbox: &Sandbox,
    request: Request,
    next: Next,
) -> Response {
    match what {
        BeforeCall::Delay => {
            let delay = fault.delay;
            // A task of its own: a slow server works on when its client has gone.
            let late = tokio::spawn(async move {
                sleep(delay).await;
                next.run(request).await
            });
            late.await.unwrap_or_else(|_| cut())
        }
        BeforeCall::Hang => pending().await,
        BeforeCall::Cut => cut(),
        BeforeCall::ForgetSessions => {
            sandbox.api().nonces.forget_all();
            next.run(request).await
        }
        BeforeCall::Answer(status, body) => answer(status, body, fault),
        BeforeCall::WrongSignature(code) => {
            let mut detail = json!({"code": code, "message": "Refused"});
            if let Some(text) = message {
                detail["expected_message"] = text.into();
            }
            answer(401, json!({"detail": detail}).to_string(), fault)
        }
    }
}

async fn on_payment(
    what: OnPayment,
    fault: &InjectedFault,
    mut request: Request,
    next: Next,
) -> Response {
    let told = match what {
        OnPayment::Cut => {
            let _ = next.run(request).await;
            return cut();
        }
        OnPayment::SettleLate => PaidFault::SettlesLate(fault.delay),
        OnPayment::Refuse => PaidFault::Refused,
    };
    request.extensions_mut().insert(told);
    next.run(request).await
}

async fn after_call(what: AfterCall, fault: &InjectedFault, response: Response) -> Response {
    match what {
        AfterCall::Delay => {
            sleep(fault.delay).await;
            response
        }
        AfterCall::Hang => pending().await,
        AfterCall::Cut => cut(),
        AfterCall::CutHalfway => half_of(response).await,
        AfterCall::Answer(status, body) => answer(status, body, fault),
        AfterCall::Huge => answer(200, huge(), fault),
    }
}

/// The text that a server would want signed, but for another payload.
fn another_message(call: FaultTarget, path: &str, body: &[u8]) -> Option<String> {
    let FaultTarget::Action(action) = call else { return None };
    let Proof::Signature(signed) = &action.proof else { return None };
    let arrived = Arrived::new(action, signed, path, Object::parse(body).ok()?).ok()?;
    let text = arrived.expected_message();
    let (lines, _) = text.rsplit_once(':')?;
    Some(format!("{lines}:{}", Object::parse(br#"{"another":1}"#).ok()?.to_canonical().hash()))
}

fn answer(status: u16, body: impl Into<Body>, fault: &InjectedFault) -> Response {
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
