//! Events, as they are sent: `text/event-stream` of the HTML standard.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{CACHE_CONTROL, CONNECTION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use futures_util::stream::unfold;
use tokio::time::timeout;

use super::{evidence::evidence, header::LAST_EVENT_ID, surface::Surface};
use crate::{
    problem::Problem,
    problems::{INVALID_FIELD, QUERY_NOT_TAKEN},
    proxy::{EventListener, InFlightPermit},
    store::RecordedEvent,
    trace::Trace,
};

/// How often something is sent, so that a connection that is gone is noticed at both ends.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// Sends the events of a client until its access ends, it goes away, or the process ends.
///
/// No event waits here for a slow reader: the next one is taken when the last one is written.
pub(super) async fn events(
    State(surface): State<Arc<Surface>>,
    Extension(trace): Extension<Arc<Trace>>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, _) = request.into_parts();
    let (proxy, evidence) = (&surface.proxy, evidence(&parts));
    let client = proxy.identify(&evidence).await.map_err(|failure| Problem::refused(&failure))?;
    let counted = proxy.count(&client, false).await;
    counted.map_err(|failure| Problem::refused(&failure))?;
    if parts.uri.query().is_some_and(|query| !query.is_empty()) {
        let detail = "events take no query string; the header Last-Event-ID says where to go on";
        return Err(Problem::new(&QUERY_NOT_TAKEN, detail));
    }
    let after = last_event_id(&parts.headers)?;
    let permit = proxy.wait_permit(&client);
    let permit = permit.map_err(|failure| Problem::refused(&failure.into()))?;
    let call_id = trace.call_id.clone();
    let listener = proxy.listen(evidence, client, call_id, after).await;
    let listener = listener.map_err(|error| Problem::store(&error))?;
    let first = Bytes::from(format!("retry: 1000\nid: {}\n\n", listener.seen()));
    let sending = Sending { first: Some(first), listener, _permit: permit };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static("text/event-stream")),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // The connection is of no use afterwards.
        (CONNECTION, HeaderValue::from_static("close")),
    ];
    Ok((headers, Body::from_stream(unfold(sending, next))).into_response())
}

struct Sending {
    first: Option<Bytes>,
    listener: EventListener,
    _permit: InFlightPermit,
}

async fn next(mut sending: Sending) -> Option<(Result<Bytes, axum::Error>, Sending)> {
    if let Some(first) = sending.first.take() {
        return Some((Ok(first), sending));
    }
    let part = match timeout(HEARTBEAT, sending.listener.next()).await {
        Ok(event) => written(&*event?),
        Err(_) if sending.listener.has_access().await => Bytes::from_static(b":\n\n"),
        Err(_) => return None,
    };
    Some((Ok(part), sending))
}

fn written(event: &RecordedEvent) -> Bytes {
    let (id, kind, data) = (event.seq, event.event.kind.as_str(), event.to_json());
    Bytes::from(format!("id: {id}\nevent: {kind}\ndata: {data}\n\n"))
}

/// The event after which a client goes on, if it says one.
fn last_event_id(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let mut given = headers.get_all(LAST_EVENT_ID).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let id = value.to_str().ok().and_then(|text| text.parse().ok());
    match (id, given.next()) {
        (Some(id), None) => Ok(Some(id)),
        _ => {
            let detail =
                "Last-Event-ID must be given once, as the id of an event, a number such as 1234";
            Err(Problem::new(&INVALID_FIELD, detail))
        }
    }
}
