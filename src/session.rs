//! The wallet's session with the upstream: one nonce, fetched once for all calls that wait for it, and
//! renewed before its end (protocol §1).

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures_util::{
    FutureExt,
    future::{BoxFuture, Shared},
};
use http::{HeaderValue, Method, StatusCode, header};
use jiff::Timestamp;
use tokio::time::{Instant, timeout_at};

use crate::{
    action::{Effect, SESSION_PATH},
    json::JsonText,
    types::{Address, SessionNonce},
    upstream::{Answer, Request, Unanswered, Upstream, UpstreamError, named},
};

/// A session with less than a fifth of its life left, at most this much, is renewed.
const MAX_RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// A session with less than a twentieth of its life left, at most this much, is no longer used: the
/// call could arrive after its end.
const MAX_ARRIVAL_MARGIN: Duration = Duration::from_secs(5);

/// How long after a failed renewal the next one waits, if the session can still be used.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest life of a session, whatever the upstream says.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// The beginning of the `type` of a proxy's own error.
pub(crate) const ERROR_TYPE: &str = "urn:agentpmt-proxy:error:";

/// Why there is no session. The call had no effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The upstream gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The upstream answered, but not with a session.
    #[error("{url} refused to begin a session: it answered {}", named(*status))]
    Refused {
        /// The upstream's address.
        url: String,
        /// The status of its answer.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<HeaderValue>,
        /// Whether another proxy of this kind has answered.
        by_proxy: bool,
    },
    /// A good answer of this upstream without a usable nonce.
    #[error("{0} began a session without a usable session_nonce")]
    NoNonce(String),
}

/// The sessions of one wallet, of which at most one is in use.
#[derive(Debug)]
pub struct Sessions {
    upstream: Upstream,
    wallet: Address,
    latest: Mutex<Latest>,
}

#[derive(Debug, Default)]
struct Latest {
    session: Option<Session>,
    renewal: Option<PendingSession>,
    /// After a failure, a session that can still be used is not renewed before this time.
    pause_until: Option<Instant>,
    /// Whether the last renewal had no answer in time. The next one then gets more time.
    was_silent: bool,
    /// How many sessions have begun.
    begun: u64,
}

/// A session that is being fetched, for all calls that wait for it.
type PendingSession = Shared<BoxFuture<'static, Result<SessionNonce, SessionError>>>;

impl Sessions {
    /// No session yet; the first request begins one.
    pub fn new(upstream: Upstream, wallet: Address) -> Arc<Self> {
        Arc::new(Self { upstream, wallet, latest: Mutex::default() })
    }

    /// The nonce of a live session.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn nonce(self: &Arc<Self>, deadline: Instant) -> Result<SessionNonce, SessionError> {
        let renewal = {
            let mut latest = self.lock();
            let now = Instant::now();
            match &latest.session {
                Some(session) if session.is_fresh(now) => return Ok(session.nonce.clone()),
                Some(session) if session.is_usable(now) => {
                    let nonce = session.nonce.clone();
                    if latest.pause_until.is_none_or(|until| until < now) {
                        // It goes on in its task, while this call uses the old session.
                        drop(self.renewal(&mut latest));
                    }
                    return Ok(nonce);
                }
                _ => self.renewal(&mut latest),
            }
        };
        let timed_out = |_| self.upstream.error(Unanswered::TimedOut);
        timeout_at(deadline, renewal).await.map_err(timed_out)?
    }

    /// Drops a session that the upstream no longer knows, unless it was replaced already.
    pub fn forget(&self, nonce: &SessionNonce) {
        self.lock().session.take_if(|session| session.nonce == *nonce);
    }

    /// How many sessions have begun.
    pub fn begun(&self) -> u64 {
        self.lock().begun
    }

    /// Joins the renewal that runs, or starts one. It has a task of its own, so it comes to its end even
    /// if all calls that wait for it are dropped.
    fn renewal(self: &Arc<Self>, latest: &mut Latest) -> PendingSession {
        let start = || {
            let sessions = self.clone();
            let task = tokio::spawn(async move { sessions.renew().await });
            // A task ends early only when the runtime shuts down.
            let timed_out = self.upstream.error(Unanswered::TimedOut);
            let shut_down = move |_| Err(timed_out.into());
            task.map(|result| result.unwrap_or_else(shut_down)).boxed().shared()
        };
        latest.renewal.get_or_insert_with(start).clone()
    }

    /// No code that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, Latest> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(&self) -> Result<SessionNonce, SessionError> {
        let result = self.begin().await;
        let mut latest = self.lock();
        latest.renewal = None;
        let is_silent = |error: &UpstreamError| matches!(error.why, Unanswered::TimedOut);
        latest.was_silent =
            matches!(&result, Err(SessionError::Upstream(error)) if is_silent(error));
        latest.pause_until = result.is_err().then(|| Instant::now() + PAUSE);
        let session = result.inspect_err(|error| tracing::warn!(%error, "no session"))?;
        let nonce = session.nonce.clone();
        latest.session = Some(session);
        latest.begun += 1;
        Ok(nonce)
    }

    async fn begin(&self) -> Result<Session, SessionError> {
        let begun = Instant::now();
        let request = Request {
            method: Method::POST,
            path: SESSION_PATH.to_owned(),
            body: format!(r#"{{"wallet_address":"{}"}}"#, self.wallet),
            ..Request::default()
        };
        let whole = self.upstream.deadline(Effect::None);
        // All calls wait for this one request, and a second one may be answered sooner: so the first gets a
        // third, which leaves the second more. But if the last one had no answer in time, the upstream may
        // need all the time there is.
        let was_silent = self.lock().was_silent;
        let deadline = if was_silent { whole } else { begun + (whole - begun) / 3 };
        let answer = self.upstream.send(request, deadline).await?;
        let session = self.parse(&answer, begun)?;
        tracing::debug!(wallet = %self.wallet, "session begun");
        Ok(session)
    }

    fn parse(&self, answer: &Answer, begun: Instant) -> Result<Session, SessionError> {
        let url = || self.upstream.url().to_owned();
        if !answer.status.is_success() {
            let retry_after = answer.headers.get(header::RETRY_AFTER).cloned();
            let (status, by_proxy) = (answer.status, is_of_proxy(answer));
            return Err(SessionError::Refused { url: url(), status, retry_after, by_proxy });
        }
        Session::parse(answer, begun).ok_or_else(|| SessionError::NoNonce(url()))
    }
}

/// Whether an answer is an error of a proxy's own.
fn is_of_proxy(answer: &Answer) -> bool {
    let kind = JsonText::parse(&answer.body).and_then(|body| body.field("type"));
    kind.and_then(JsonText::text).is_some_and(|kind| kind.starts_with(ERROR_TYPE))
}

#[derive(Debug)]
struct Session {
    nonce: SessionNonce,
    /// The time from which it is no longer used; `None` if its end is not known.
    over_at: Option<Instant>,
    /// The time from which a new one is fetched.
    renew_at: Option<Instant>,
}

impl Session {
    /// Counts the life from `begun`, the time before the request, so as never to take it for longer.
    fn parse(answer: &Answer, begun: Instant) -> Option<Self> {
        let body = JsonText::parse(&answer.body)?;
        let nonce = body.field("session_nonce")?.text()?.parse().ok()?;
        Some(Self::new(nonce, begun, life(body, answer.upstream_now())))
    }

    fn new(nonce: SessionNonce, begun: Instant, life: Option<Duration>) -> Self {
        let before_end =
            |part: u32, most: Duration| life.map(|life| begun + life - most.min(life / part));
        let over_at = before_end(20, MAX_ARRIVAL_MARGIN);
        Self { nonce, over_at, renew_at: before_end(5, MAX_RENEWAL_MARGIN) }
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.renew_at.is_none_or(|at| now < at)
    }

    fn is_usable(&self, now: Instant) -> bool {
        self.over_at.is_none_or(|at| now < at)
    }
}

/// How long a session lives, if the upstream says so; `now` is the time by its clock. `expires_in` comes
/// first, since `expires_at` needs two clocks that agree. An end in the past shows that they do not, so
/// it is ignored.
fn life(answer: JsonText<'_>, now: Timestamp) -> Option<Duration> {
    let stated = answer.field("expires_in").and_then(|value| value.as_str().parse().ok());
    let seconds: f64 = stated.or_else(|| {
        let end: Timestamp = answer.field("expires_at")?.text()?.parse().ok()?;
        Some(end.duration_since(now).as_secs_f64())
    })?;
    (seconds > 0.0).then(|| Duration::from_secs_f64(seconds.min(MAX_LIFE.as_secs_f64())))
}

#[cfg(test)]
mod tests;
