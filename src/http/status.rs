//! The status of a job, asked for with a wait: `?wait=50s`, or `Prefer: wait=50`.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::Request,
    http::{
        Uri,
        request::Parts,
        uri::{InvalidUri, PathAndQuery},
    },
    response::Response,
};

use super::{
    call::{self, ready},
    evidence::evidence,
    surface::Surface,
};
use crate::{
    action::Action,
    problem::Problem,
    trace::Trace,
    waiting::{PREFER, wait_of},
};

/// Without a wait, it is a call like any other.
pub(super) async fn status(
    action: &'static Action,
    surface: Arc<Surface>,
    trace: Arc<Trace>,
    request: Request,
) -> Result<Response, Problem> {
    if request.uri().query().is_none() && !request.headers().contains_key(PREFER) {
        return call::call(action, surface, trace, request).await;
    }
    Box::pin(status_with_wait(action, surface, trace, request)).await
}

async fn status_with_wait(
    action: &'static Action,
    surface: Arc<Surface>,
    trace: Arc<Trace>,
    request: Request,
) -> Result<Response, Problem> {
    let (mut parts, body) = request.into_parts();
    let evidence = evidence(&parts);
    // A caller that is not known is not told what is wrong with its wait.
    let (wait, malformed) = match take_wait(&mut parts) {
        Ok(wait) => (wait, None),
        Err(problem) => (Duration::ZERO, Some(problem)),
    };
    let request = Request::from_parts(parts, body);
    let (admitted, call) = ready(action, &surface, trace, request, malformed).await?;
    let answer = surface.proxy.status_when_reviewed(evidence, admitted, call, wait).await;
    let answer = answer.map_err(|failure| Problem::failed(action, &failure))?;
    Ok(call::response(&surface, answer))
}

/// Takes `wait` out of a query that has nothing else, so that it does not go upstream.
fn take_wait(parts: &mut Parts) -> Result<Duration, Problem> {
    let query = parts.uri.query().and_then(|query| query.strip_prefix("wait="));
    let given = query.filter(|wait| !wait.contains('&'));
    let wait = wait_of(given, &parts.headers);
    if given.is_some()
        && let Ok(uri) = without_query(&parts.uri)
    {
        parts.uri = uri;
    }
    Ok(wait?)
}

fn without_query(uri: &Uri) -> Result<Uri, InvalidUri> {
    let path: PathAndQuery = uri.path().parse()?;
    Ok(path.into())
}
