//! The HTTP client to the upstream: one request, one deadline, one answer.

mod breaker;
mod connections;
mod error;
mod late;
mod limiter;
mod proxy_variables;

mod answer;
mod target;

use std::{error::Error, sync::Arc, time::Duration};

use http::Method;
use hyper_util::client::legacy;
use jiff::Timestamp;
use tokio::time::Instant;

pub use self::{
    answer::{Answer, PAYMENT_REQUIRED},
    breaker::Seen,
    error::{MAX_ANSWER, Unanswered, UpstreamError},
    limiter::LimiterPermit,
    target::{Request, WORKFLOW_TOKEN},
};
use self::{
    answer::{is_of_gateway, names_another},
    breaker::{CircuitBreaker, Outage},
    connections::Connections,
    error::causes,
    target::Target,
};
pub(crate) use self::{error::named, limiter::Limiter};
use crate::{
    action::{Effect, SESSION_PATH},
    config::UpstreamConfig,
    types::ClientName,
};

/// The client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTPS client cannot start: {0}")]
pub struct ClientError(String);

/// The way to one upstream: its address, connections, times and permits. Clones share them.
#[derive(Debug, Clone)]
pub struct Upstream(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    config: UpstreamConfig,
    url: String,
    target: Target,
    connections: Connections,
    breaker: CircuitBreaker,
    limiter: Arc<Limiter>,
}

impl Upstream {
    /// A client for the upstream of the configuration. Nothing is sent yet.
    ///
    /// Connections to a loopback upstream are direct. To any other they use TLS, and a proxy if
    /// `HTTPS_PROXY` or `ALL_PROXY` names one and `NO_PROXY` does not except the upstream.
    ///
    /// # Errors
    /// The machine has no root certificates and the upstream needs them, or the proxy variable that
    /// applies is not the address of an HTTP proxy.
    pub fn new(config: &UpstreamConfig) -> Result<Self, ClientError> {
        let (config, url) = (config.clone(), config.url.to_string());
        let target = Target::of(&url).map_err(|error| ClientError(error.to_string()))?;
        let is_loopback = config.url.is_loopback();
        if !is_loopback {
            let variable = |name: &str| std::env::var(name).ok();
            proxy_variables::check(&target.uri, variable).map_err(ClientError)?;
        }
        let connections = Connections::new(&target.uri, is_loopback, config.connect_timeout);
        let connections = connections.map_err(|error| ClientError(error.to_string()))?;
        let breaker = CircuitBreaker::new(config.connect_timeout);
        let limiter = Limiter::new(config.max_calls);
        Ok(Self(Arc::new(Shared { config, url, target, connections, breaker, limiter })))
    }

    /// When a call that begins now has to be over, with all its tries.
    pub fn deadline(&self, effect: Effect) -> Instant {
        Instant::now() + self.time(effect)
    }

    fn time(&self, effect: Effect) -> Duration {
        let config = &self.0.config;
        match effect {
            Effect::None => config.timeout,
            Effect::Spends | Effect::Pays => config.spend_timeout,
            Effect::Reserves | Effect::Submits | Effect::Other => config.change_timeout,
        }
    }

    /// When the last try of a call has to be over. A change keeps some time to probe its outcome.
    pub fn last_try(&self, effect: Effect, deadline: Instant) -> Instant {
        let reserve = match effect {
            Effect::None => Duration::ZERO,
            _ => self.time(effect).min(self.0.config.change_timeout) / 4,
        };
        deadline.checked_sub(reserve).unwrap_or(deadline)
    }

    /// Whether less than half of the time of a call is left: a payment takes its own time.
    pub(crate) fn is_late_to_pay(&self, deadline: Instant) -> bool {
        deadline.saturating_duration_since(Instant::now()) < self.time(Effect::Pays) / 2
    }

    /// When one try that begins now has to be over. A read gets half of the time, since it can be made
    /// again: by default the 30 seconds for which clients wait (protocol §5.2).
    pub fn one_try(&self, changes: bool, last_try: Instant) -> Instant {
        match changes {
            true => last_try,
            false => last_try.min(Instant::now() + self.0.config.timeout / 2),
        }
    }

    /// How long a call that begins now is tried again while it cannot be sent: not at all in an outage
    /// in which no connection is made.
    pub fn patience(&self) -> Duration {
        if self.0.breaker.is_cut_off() { Duration::ZERO } else { self.0.config.connect_timeout }
    }

    /// How long the upstream may still be at work on a change after it was sent or its answer was lost:
    /// if it is silent, as long as a client would wait for it.
    pub fn settle_time(&self, effect: Effect, is_silent: bool) -> Duration {
        let settle_time = self.0.config.settle_time;
        if is_silent { settle_time.max(self.time(effect)) } else { settle_time }
    }

    /// When a change settles whose proxy died, at the latest `now`. The recorded `settles_at` may be too
    /// early: the clock may have been set since.
    pub fn settles_after_death(&self, settles_at: Timestamp, now: Timestamp) -> Timestamp {
        settles_at.max(now + self.0.config.settle_time)
    }

    /// The upstream's address, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.0.url
    }

    /// The state of the upstream, by the last calls.
    pub fn seen(&self) -> Seen {
        self.0.breaker.seen()
    }

    /// Asks whether the upstream answers, for as long as connecting may take. Any answer will do but a
    /// gateway's that nothing stands behind it.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn probe(&self) -> Result<(), UpstreamError> {
        let (method, path) = (Method::HEAD, SESSION_PATH.to_owned());
        let request = Request { method, path, ..Request::default() };
        let answer = self.send(request, Instant::now() + self.0.config.connect_timeout).await?;
        match is_of_gateway(&answer) {
            true => Err(self.error(Unanswered::Failing(answers(&answer)))),
            false => Ok(()),
        }
    }

    /// A permit to send one call of a client, for which it waits at most half of the time until its
    /// deadline. Clients take turns, and one alone may have three quarters of all.
    ///
    /// # Errors
    /// [`Unanswered::Busy`] if there is none by then.
    pub async fn permit(
        &self,
        client: &ClientName,
        deadline: Instant,
    ) -> Result<LimiterPermit, UpstreamError> {
        let permit = self.0.limiter.permit(client, deadline).await;
        permit.ok_or_else(|| self.error(Unanswered::Busy(self.max_calls())))
    }

    /// How many calls may be sent at once.
    pub(crate) fn max_calls(&self) -> usize {
        self.0.config.max_calls
    }

    /// Sends one request, once, and reads the whole answer. In an outage, one request is sent for all.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn send(&self, request: Request, deadline: Instant) -> Result<Answer, UpstreamError> {
        let passed = self.0.breaker.pass().map_err(|outage| match outage {
            Outage::NoConnection(cause) => self.error(Unanswered::Unreachable(cause)),
            Outage::NoAnswer(cause) => self.error(Unanswered::Failing(cause)),
        })?;
        let mut is_heard = false;
        let exchange = async {
            let (changes, job) = (request.changes, request.job.clone());
            let request = self.0.target.address(request);
            let request = request.map_err(|error| Unanswered::Unreachable(error.to_string()))?;
            let response = self.0.connections.send(request, changes).await;
            let response = response.map_err(|error| no_response(&error, changes))?;
            is_heard = true;
            let answer = Answer::read(response, changes).await?;
            if job.is_some_and(|job| names_another(&answer, &job)) {
                // The next answer on this connection may be late by one call as well.
                self.0.connections.forget();
                return Err(Unanswered::OtherJob);
            }
            Ok(answer)
        };
        let sent = late::by(deadline, exchange).await;
        let result = sent.unwrap_or(Err(Unanswered::TimedOut)).map_err(|why| self.error(why));
        match &result {
            Ok(answer) if is_of_gateway(answer) => passed.failed(Outage::NoAnswer(answers(answer))),
            Ok(_) => passed.succeeded(),
            Err(error) => match &error.why {
                Unanswered::Unreachable(cause) => {
                    passed.failed(Outage::NoConnection(cause.clone()));
                }
                Unanswered::BrokenOff(_) if !is_heard => {
                    passed.failed(Outage::NoAnswer(error.to_string()));
                }
                _ => passed.unanswered(error.to_string()),
            },
        }
        result
    }

    /// The error of a request to this upstream.
    pub(crate) fn error(&self, why: Unanswered) -> UpstreamError {
        UpstreamError { url: self.0.url.clone(), why }
    }
}

/// Why there is no response. If the answer to a change cannot be parsed, the change may have been made,
/// so that counts as a broken connection.
fn no_response(error: &legacy::Error, changes: bool) -> Unanswered {
    let source = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
    if error.is_connect() {
        Unanswered::Unreachable(causes(error))
    } else if !changes && source.is_some_and(hyper::Error::is_parse) {
        Unanswered::NotHttp(causes(error))
    } else {
        Unanswered::BrokenOff(causes(error))
    }
}

fn answers(answer: &Answer) -> String {
    format!("it answers {} without the API's JSON", named(answer.status))
}

#[cfg(test)]
impl Upstream {
    /// An upstream at a port of this machine, which has this much time for a call and settles in a sixth.
    pub(crate) fn on_this_machine(port: u16, time: Duration) -> Self {
        let config = UpstreamConfig {
            url: crate::config::UpstreamUrl::on_this_machine(port),
            connect_timeout: time,
            timeout: time,
            change_timeout: time,
            spend_timeout: time,
            settle_time: time / 6,
            max_calls: 4,
        };
        Self::new(&config).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_read_may_take_as_long_as_clients_wait_and_leaves_time_for_another_try() {
        let upstream = Upstream::on_this_machine(1, Duration::from_secs(60));
        let (begun, after) = (Instant::now(), Duration::from_secs);
        let deadline = begun + after(60);
        assert_eq!(upstream.one_try(false, deadline), begun + after(30));
        assert_eq!(upstream.one_try(false, begun + after(9)), begun + after(9));
        assert_eq!(upstream.one_try(true, deadline), deadline);
    }

    #[test]
    fn a_payment_begins_only_with_half_of_the_time_left() {
        let upstream = Upstream::on_this_machine(1, Duration::from_secs(600));
        let is_late =
            |seconds| upstream.is_late_to_pay(Instant::now() + Duration::from_secs(seconds));
        assert_eq!([0, 200, 500, 600].map(is_late), [true, true, false, false]);
    }

    #[test]
    fn a_sender_that_died_may_have_lost_the_answer_until_now() {
        let upstream = Upstream::on_this_machine(1, Duration::from_secs(60));
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        // It was sent at 0.
        let settles_if_taken_over = |now| upstream.settles_after_death(at(10), at(now));
        for (now, settles_at) in [(0, 10), (1, 11), (30, 40), (9999, 10_009), (-5, 10)] {
            assert_eq!(settles_if_taken_over(now), at(settles_at), "{now}");
        }
    }
}
