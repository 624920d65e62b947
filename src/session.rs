//! The wallet's session with the upstream: one nonce, fetched once however many requests wait for
//! it, renewed before its end (protocol §1).

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
use serde::Deserialize;
use tokio::time::{Instant, timeout_at};

use crate::{
    action::SESSION_PATH,
    types::{Address, SessionNonce},
    upstream::{Answer, Request, Upstream, UpstreamError},
};

/// A session with less than a fifth of its life left, at most this much, is renewed.
const MAX_RENEWAL_MARGIN: Duration = Duration::from_secs(60);

/// A session with less than a twentieth of its life left, at most this much, is no longer used: the
/// request would arrive too late.
const MAX_ARRIVAL_MARGIN: Duration = Duration::from_secs(5);

/// However long a session is said to live, it is renewed after this time.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Why there is no session. In every case nothing was signed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum SessionError {
    /// The upstream gave no answer.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// The upstream answered, but not with a session.
    #[error("{url} refused to begin a session: it answered {status}")]
    Refused {
        /// The upstream's address.
        url: String,
        /// The status of its answer.
        status: StatusCode,
        /// When it wants to be asked again.
        retry_after: Option<HeaderValue>,
    },
    /// A good answer without a usable nonce.
    #[error("{url} began a session without a usable session_nonce")]
    NoNonce {
        /// The upstream's address.
        url: String,
    },
    /// Still waiting at the request's deadline.
    #[error("{url} did not begin a session in time")]
    TimedOut {
        /// The upstream's address.
        url: String,
    },
}

/// The sessions of one wallet, at most one of them in use; clones share it.
#[derive(Debug, Clone)]
pub struct Sessions(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    upstream: Upstream,
    wallet: Address,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    current: Option<Session>,
    renewal: Option<Renewal>,
}

/// A session that is on its way, for all who wait.
type Renewal = Shared<BoxFuture<'static, Result<SessionNonce, SessionError>>>;

impl Sessions {
    /// No session yet; the first request begins one.
    pub fn new(upstream: Upstream, wallet: Address) -> Self {
        Self(Arc::new(Inner { upstream, wallet, state: Mutex::default() }))
    }

    /// The nonce of a live session.
    ///
    /// # Errors
    /// See [`SessionError`].
    pub async fn nonce(&self, deadline: Instant) -> Result<SessionNonce, SessionError> {
        let renewal = {
            let mut state = self.0.lock();
            let now = Instant::now();
            match &state.current {
                Some(session) if session.is_fresh(now) => return Ok(session.nonce.clone()),
                Some(session) if session.is_usable(now) => {
                    let nonce = session.nonce.clone();
                    // Nobody waits for it: this session still serves.
                    drop(self.renewal(&mut state));
                    return Ok(nonce);
                }
                _ => self.renewal(&mut state),
            }
        };
        let timed_out = |_| SessionError::TimedOut { url: self.0.upstream.url().to_owned() };
        timeout_at(deadline, renewal).await.map_err(timed_out)?
    }

    /// Drops a session that the upstream no longer knows, unless it was replaced already.
    pub fn forget(&self, nonce: &SessionNonce) {
        self.0.lock().current.take_if(|session| session.nonce == *nonce);
    }

    /// Joins the renewal that is under way, or starts one. It runs in a task of its own, so it ends
    /// well even if all who wait for it go away.
    fn renewal(&self, state: &mut State) -> Renewal {
        let start = || {
            let inner = self.0.clone();
            let task = tokio::spawn(async move { inner.renew().await });
            let url = self.0.upstream.url().to_owned();
            // A task ends early only when the runtime shuts down.
            let shut_down = move |_| Err(SessionError::TimedOut { url });
            task.map(|result| result.unwrap_or_else(shut_down)).boxed().shared()
        };
        state.renewal.get_or_insert_with(start).clone()
    }
}

impl Inner {
    /// No code that holds the lock can panic half-way through a change.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn renew(&self) -> Result<SessionNonce, SessionError> {
        let result = self.begin().await;
        let mut state = self.lock();
        state.renewal = None;
        let session = result.inspect_err(|error| tracing::warn!(%error, "no session"))?;
        let nonce = session.nonce.clone();
        state.current = Some(session);
        Ok(nonce)
    }

    async fn begin(&self) -> Result<Session, SessionError> {
        // The life of the session is counted from before the request, so it never seems longer.
        let begun = Instant::now();
        let request = Request {
            method: Method::POST,
            path: SESSION_PATH.to_owned(),
            body: format!(r#"{{"wallet_address":"{}"}}"#, self.wallet),
            workflow_token: None,
        };
        let answer = self.upstream.send(request, self.upstream.deadline()).await?;
        let session = self.parse(&answer, begun)?;
        tracing::debug!(wallet = %self.wallet, life = ?session.life, "session begun");
        Ok(session)
    }

    fn parse(&self, answer: &Answer, begun: Instant) -> Result<Session, SessionError> {
        let url = || self.upstream.url().to_owned();
        if !answer.status.is_success() {
            let retry_after = answer.headers.get(header::RETRY_AFTER).cloned();
            return Err(SessionError::Refused { url: url(), status: answer.status, retry_after });
        }
        Session::parse(&answer.body, begun).ok_or_else(|| SessionError::NoNonce { url: url() })
    }
}

#[derive(Debug)]
struct Session {
    nonce: SessionNonce,
    begun: Instant,
    /// Unknown if the upstream did not say: then the session is used until it is refused.
    life: Option<Duration>,
}

/// The session answer; a field of another type than expected is as good as absent.
#[derive(Deserialize)]
struct SessionAnswer {
    session_nonce: String,
    #[serde(default)]
    expires_in: serde_json::Value,
    #[serde(default)]
    expires_at: serde_json::Value,
}

impl Session {
    fn parse(body: &[u8], begun: Instant) -> Option<Self> {
        let answer: SessionAnswer = serde_json::from_slice(body).ok()?;
        let nonce = answer.session_nonce.parse().ok()?;
        Some(Self { nonce, begun, life: answer.life(Timestamp::now()) })
    }

    fn is_fresh(&self, now: Instant) -> bool {
        self.has_left(now, 5, MAX_RENEWAL_MARGIN)
    }

    fn is_usable(&self, now: Instant) -> bool {
        self.has_left(now, 20, MAX_ARRIVAL_MARGIN)
    }

    /// Whether more than one part in `parts` of the life is left, or more than `most`.
    fn has_left(&self, now: Instant, parts: u32, most: Duration) -> bool {
        self.life.is_none_or(|life| now + most.min(life / parts) < self.begun + life)
    }
}

impl SessionAnswer {
    /// `expires_in` goes first, since `expires_at` needs two clocks that agree. An end that lies in
    /// the past shows that they do not, so it says nothing.
    fn life(&self, now: Timestamp) -> Option<Duration> {
        let seconds = self.expires_in.as_f64().or_else(|| {
            let end: Timestamp = self.expires_at.as_str()?.parse().ok()?;
            Some(end.duration_since(now).as_secs_f64())
        })?;
        Duration::try_from_secs_f64(seconds)
            .ok()
            .filter(|life| !life.is_zero())
            .map(|life| life.min(MAX_LIFE))
    }
}
