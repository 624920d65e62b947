//! The body of a request: how it is read, or discarded.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    http::{header::EXPECT, request::Parts},
};
use http_body_util::LengthLimitError;
use hyper::body::Body as _;
use tokio::time::timeout;

use crate::{
    body,
    problem::Problem,
    problems::{BODY_SLOW, BODY_TOO_LARGE, BODY_UNREADABLE},
};

/// The largest body that is taken, in bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// How much of the body of a refused request is read so that its connection can go on, in bytes, and for
/// how long.
const SMALL_BODY: usize = 16 * 1024;
const SMALL_BODY_TIME: Duration = Duration::from_millis(100);

/// Reads a body within this time.
async fn read(body: Body, time: Duration) -> Result<Bytes, Problem> {
    let too_large = || {
        let detail = format!("the body is larger than {} KiB; send less", MAX_BODY / 1024);
        Problem::new(&BODY_TOO_LARGE, detail)
    };
    // A client that announces too much is not asked for it.
    if body.size_hint().lower() > MAX_BODY as u64 {
        return Err(too_large());
    }
    let read = timeout(time, body::read(body, MAX_BODY)).await.map_err(|_| {
        let detail = format!(
            "the body did not arrive within {} s of the head; nothing was sent, so send the call again",
            time.as_secs()
        );
        Problem::new(&BODY_SLOW, detail)
    })?;
    read.map_err(|error| match error.is::<LengthLimitError>() {
        true => too_large(),
        false => {
            let detail = "the body broke off before its end; send the request again";
            Problem::new(&BODY_UNREADABLE, detail)
        }
    })
}

/// Reads the body of a request that was let through. Of one that was not, the body is discarded, and the
/// refusal returned.
pub(super) async fn read_if<T>(
    admitted: Result<T, Problem>,
    parts: &Parts,
    body: Body,
    time: Duration,
) -> Result<(T, Bytes), Problem> {
    match admitted {
        Ok(admitted) => Ok((admitted, read(body, time).await?)),
        Err(problem) => {
            Box::pin(discard(parts, body)).await;
            Err(problem)
        }
    }
}

/// Reads a small body of a request that is refused, so that the connection can go on, unless its client
/// waits for permission to send it.
async fn discard(parts: &Parts, body: Body) {
    if !parts.headers.contains_key(EXPECT) && body.size_hint().lower() <= SMALL_BODY as u64 {
        let _ = timeout(SMALL_BODY_TIME, body::read(body, SMALL_BODY)).await;
    }
}
