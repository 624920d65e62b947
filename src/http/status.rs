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
    problems::QUERY_NOT_TAKEN,
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

/// Takes the query off, so that it does not go upstream: it may be a `wait` and nothing else.
fn take_wait(parts: &mut Parts) -> Result<Duration, Problem> {
    let uri = without_query(&parts.uri).unwrap_or_default();
    let given = std::mem::replace(&mut parts.uri, uri);
    let query = given.query().filter(|query| !query.is_empty());
    let wait = query.and_then(|query| query.strip_prefix("wait="));
    let wait = wait.filter(|wait| !wait.contains('&'));
    if query.is_some() && wait.is_none() {
        let detail =
            "job_status takes no query string but a wait, as in ?wait=20s; nothing was sent";
        return Err(Problem::new(&QUERY_NOT_TAKEN, detail));
    }
    Ok(wait_of(wait, &parts.headers)?)
}

fn without_query(uri: &Uri) -> Result<Uri, InvalidUri> {
    let path: PathAndQuery = uri.path().parse()?;
    Ok(path.into())
}
