//! A request that is a call: from its head and its body to the upstream's answer.

use std::sync::Arc;

use axum::{
    body::Body,
    extract::{FromRequestParts, RawPathParams, Request},
    response::Response,
};

use super::{body, call_head, evidence::evidence, surface::Surface};
use crate::{
    action::{Action, Proof},
    call::{Call, InvalidCall},
    problem::Problem,
    proxy::{Admission, Admitted},
    trace::Trace,
    types::InvalidValue,
    upstream::Answer,
};

pub(super) async fn call(
    action: &'static Action,
    surface: Arc<Surface>,
    trace: Arc<Trace>,
    request: Request,
) -> Result<Response, Problem> {
    let (admitted, call) = ready(action, &surface, trace, request, None).await?;
    let action = call.action();
    let answer = surface.proxy.call(admitted, call).await;
    let answer = answer.map_err(|failure| Problem::failed(action, &failure))?;
    Ok(response(&surface, answer))
}

/// Admits a call and reads it. What is `malformed` about it already is told once its caller is known.
pub(super) async fn ready(
    action: &'static Action,
    surface: &Surface,
    trace: Arc<Trace>,
    request: Request,
    malformed: Option<Problem>,
) -> Result<(Admitted, Call), Problem> {
    let (mut parts, body) = request.into_parts();
    let paid_row = action.paid_row(surface.proxy.actions());
    let action = paid_row.filter(|_| call_head::pays_by_x402(&parts)).unwrap_or(action);
    let ids = RawPathParams::from_request_parts(&mut parts, &()).await;
    let first_id = ids.iter().flat_map(RawPathParams::iter).map(|(_, id)| id).next();
    let product = first_id.and_then(|id| id.parse().ok());
    let (key, malformed) = match call_head::read(action, &parts) {
        Ok(key) => (key, malformed),
        Err(problem) => (None, Some(problem)),
    };
    let admission = Admission { action, product, key, trace };
    let admitted = surface.proxy.admit(&evidence(&parts), admission).await;
    let admitted = admitted.map_err(|failure| Problem::failed(action, &failure));
    // A caller that is not known is told so and nothing else.
    let admitted = admitted.and_then(|admitted| malformed.map_or(Ok(admitted), Err));
    let (admitted, body) = body::read_if(admitted, &parts, body, surface.body_time).await?;
    // The only way to be rejected here is an id that is not UTF-8.
    let ids = ids.map_err(|_| InvalidCall::Id {
        name: "an id of the path",
        given: parts.uri.path().to_owned(),
        source: InvalidValue::Slug,
    })?;
    let call = Call::new(action, ids.iter().map(|(_, id)| id), &body)?;
    // The query of a call that is paid for says no more than that.
    let is_paid = action.proof == Proof::Payment;
    let payment = if is_paid { call_head::payment(&parts)? } else { None };
    let call =
        call.with_query(call_head::query(&parts).filter(|_| !is_paid)).with_payment(payment)?;
    // The bytes that came in are not held while the upstream is asked.
    Ok((admitted, call))
}

pub(super) fn response(surface: &Surface, answer: Answer) -> Response {
    let mut response = Response::new(Body::from(surface.instance.backlog().count(answer.body)));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.headers;
    response
}
