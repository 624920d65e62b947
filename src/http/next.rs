//! The next job for a client that asks for any.

use std::sync::Arc;

use axum::{
    Extension,
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, header::RETRY_AFTER},
    response::Response,
};

use super::{body, call::response, call_head, evidence::evidence, surface::Surface};
use crate::{
    action::Action,
    next_job::{InvalidJobRequest, JobRequest},
    problem::Problem,
    problems::{INTERNAL, INVALID_BODY, INVALID_FIELD, QUERY_NOT_TAKEN},
    proxy::{NextJob, NextJobError},
    trace::Trace,
    waiting::wait_of,
};

pub(super) async fn next(
    State(surface): State<Arc<Surface>>,
    Extension(trace): Extension<Arc<Trace>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let none = || Problem::new(&INTERNAL, "there is no such call");
    let action = Action::named("job_reserve").ok_or_else(none)?;
    let head = match call_head::query(&parts) {
        Some(_) => {
            let detail = "the fields of a request for a job stand in a JSON body, as in \
                          {\"wait\": \"20s\"}, and not in the query; nothing was sent";
            Err(Problem::new(&QUERY_NOT_TAKEN, detail))
        }
        None => call_head::read(action, &parts),
    };
    let (key, malformed) = match head {
        Ok(key) => (key, None),
        Err(problem) => (None, Some(problem)),
    };
    let admitted = surface.proxy.admit_next_job(&evidence(&parts), key, trace).await;
    let admitted = admitted.map_err(|failure| Problem::failed(action, &failure));
    let admitted = admitted.and_then(|admitted| malformed.map_or(Ok(admitted), Err));
    let (admitted, body) = body::read_if(admitted, &parts, body, surface.body_time).await?;
    let request = JobRequest::parse(&body)?;
    let wait = wait_of(request.wait.as_deref(), &parts.headers)?;
    drop((parts, body));
    match Box::pin(surface.proxy.next_job(admitted, &request, wait)).await? {
        NextJob::Answer(answer) => Ok(response(&surface, answer)),
        NextJob::Nothing(after) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            let seconds = HeaderValue::from(after.as_secs() + 1);
            response.headers_mut().insert(RETRY_AFTER, seconds);
            Ok(response)
        }
    }
}

impl From<InvalidJobRequest> for Problem {
    fn from(error: InvalidJobRequest) -> Self {
        let kind = match error {
            InvalidJobRequest::Body(_) => &INVALID_BODY,
            InvalidJobRequest::Unknown(_) | InvalidJobRequest::Value { .. } => &INVALID_FIELD,
        };
        Self::new(kind, format!("{error}; nothing was sent"))
    }
}

/// The client learns which job was to be its.
impl From<NextJobError> for Problem {
    fn from(NextJobError { action, job, error }: NextJobError) -> Self {
        let mut problem = Self::failed(action, &error);
        let job = job.map(|job| job.to_string());
        problem.more.extend(job.map(|job| ("job_id".to_owned(), job.into())));
        problem
    }
}
