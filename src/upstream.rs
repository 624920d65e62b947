//! The HTTP client to the upstream: one request, one deadline, one answer.

mod answer;
mod connections;
mod error;
mod late;
mod limiter;
mod reach;

use std::{error::Error, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header, uri};
use http_body_util::{Full, LengthLimitError};
use hyper::{
    Response,
    body::{Body, Incoming},
};
use hyper_util::client::{legacy, proxy::matcher::Matcher};
use jiff::Timestamp;
use tokio::time::Instant;

pub use self::{
    answer::Answer,
    error::{MAX_ANSWER, UpstreamError},
    limiter::LimiterPermit,
    reach::Seen,
};
use self::{
    answer::{
        clock_ahead, is_foreign, is_moved, is_of_gateway, names_another, origin, passed_headers,
    },
    connections::{Connections, USER_AGENT},
    error::causes,
    reach::{Failure, Reach},
};
pub(crate) use self::{error::named, limiter::Limiter};
use crate::{
    action::SESSION_PATH,
    body,
    config::UpstreamConfig,
    types::{ClientName, Slug},
};

/// The header for the token of a job's reservation (protocol §7).
pub const WORKFLOW_TOKEN: HeaderName = HeaderName::from_static("x-job-workflow-token");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One HTTP request, ready to go out.
#[derive(Debug)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, beginning with `/`, and the query.
    pub path: String,
    /// The body, JSON.
    pub body: String,
    /// The value of `X-Job-Workflow-Token`, if the call needs it.
    pub workflow_token: Option<HeaderValue>,
    /// Whether it changes something upstream.
    pub changes: bool,
    /// The job that it is about.
    pub job: Option<Slug>,
}

/// The client cannot be built.
#[derive(Debug, thiserror::Error)]
#[error("the HTTPS client cannot start: {0}")]
pub struct ClientError(String);

/// The way to one upstream: its address, its connections, its times and its permits; clones share them.
#[derive(Debug, Clone)]
pub struct Upstream {
    connections: Arc<Connections>,
    reach: Arc<Reach>,
    connect_timeout: Duration,
    target: Target,
    url: String,
    timeout: Duration,
    change_timeout: Duration,
    settle_time: Duration,
    limiter: Arc<Limiter>,
}

impl Upstream {
    /// A client for the upstream of the configuration. Nothing is sent yet.
    ///
    /// A loopback upstream is spoken to directly; for any other the usual proxy variables
    /// (`HTTPS_PROXY`, `ALL_PROXY`, `NO_PROXY`) are honoured and only `https` is spoken.
    ///
    /// # Errors
    /// When the machine has no root certificates and the upstream needs them, or the proxy variable
    /// that holds for the upstream is not the address of an HTTP proxy.
    pub fn new(config: &UpstreamConfig) -> Result<Self, ClientError> {
        let url = config.url.to_string();
        let target = Target::of(&url).map_err(|error| ClientError(error.to_string()))?;
        if !config.url.is_loopback() {
            check_proxy_variables(&target.uri, |name| std::env::var(name).ok())?;
        }
        let (is_loopback, time) = (config.url.is_loopback(), config.connect_timeout);
        let connections = Connections::new(&target.uri, is_loopback, time);
        let connections = connections.map_err(|error| ClientError(error.to_string()))?;
        Ok(Self {
            connections: Arc::new(connections),
            reach: Arc::new(Reach::new(time)),
            connect_timeout: time,
            target,
            url,
            timeout: config.timeout,
            change_timeout: config.change_timeout,
            settle_time: config.settle_time,
            limiter: Limiter::new(config.max_calls),
        })
    }

    /// When a call that begins now has to be over, with all its tries.
    pub fn deadline(&self, changes: bool) -> Instant {
        Instant::now() + if changes { self.change_timeout } else { self.timeout }
    }

    /// When the last try of a call has to be over: for a change there has to be time left to ask what
    /// became of it.
    pub fn last_try(&self, changes: bool, deadline: Instant) -> Instant {
        let reserve = if changes { self.change_timeout / 4 } else { Duration::ZERO };
        deadline.checked_sub(reserve).unwrap_or(deadline)
    }

    /// When one try that begins now has to be over. A read can be made again, so it does not wait for
    /// all the time there is.
    pub fn one_try(&self, changes: bool, last_try: Instant) -> Instant {
        if changes { last_try } else { last_try.min(Instant::now() + self.timeout / 3) }
    }

    /// How long a call that begins now is tried again while it cannot be sent. In an outage in which no
    /// connection is made it is not.
    pub fn patience(&self) -> Duration {
        if self.reach.is_cut_off() { Duration::ZERO } else { self.connect_timeout }
    }

    /// What the last calls showed of the upstream.
    pub fn seen(&self) -> Seen {
        self.reach.seen()
    }

    /// Asks whether the upstream answers, for as long as connecting may take. It counts what it says
    /// for nothing, but for a gateway's word that nothing stands behind it.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn probe(&self) -> Result<(), UpstreamError> {
        let (path, body) = (SESSION_PATH.to_owned(), String::new());
        let request = Request {
            method: Method::HEAD,
            path,
            body,
            workflow_token: None,
            changes: false,
            job: None,
        };
        let answer = self.send(request, Instant::now() + self.connect_timeout).await?;
        match is_of_gateway(&answer) {
            true => Err(self.failing(answers(&answer))),
            false => Ok(()),
        }
    }

    /// How long the upstream may still be at work on a change, counted from the moment in which it
    /// was sent or its answer was lost. One that is silent takes as long as anyone would wait for it.
    pub fn settle_time(&self, is_silent: bool) -> Duration {
        if is_silent { self.settle_time.max(self.change_timeout) } else { self.settle_time }
    }

    /// The same for a change whose sender has died, at the latest `now`; `quiet` was counted from the
    /// moment in which it was sent or its answer was lost, on a clock that may have been set since.
    pub fn quiet_after_death(&self, quiet: Timestamp, now: Timestamp) -> Timestamp {
        quiet.max(now + self.settle_time)
    }

    /// The upstream's address, without a slash at the end.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// A permit to send one call of a client, for which it waits at most half of the time until its
    /// deadline. Clients take turns, and one alone may have three quarters of all.
    ///
    /// # Errors
    /// [`UpstreamError::Busy`] if there is none by then.
    pub async fn permit(
        &self,
        client: &ClientName,
        deadline: Instant,
    ) -> Result<LimiterPermit, UpstreamError> {
        let permit = self.limiter.permit(client, deadline).await;
        permit.ok_or_else(|| UpstreamError::Busy { url: self.url.clone(), most: self.max_calls() })
    }

    /// How many calls may be sent at once.
    pub(crate) fn max_calls(&self) -> usize {
        self.limiter.most()
    }

    /// Sends one request, once, and reads the whole answer. In an outage that is known, one request is
    /// sent for all.
    ///
    /// # Errors
    /// See [`UpstreamError`].
    pub async fn send(&self, request: Request, deadline: Instant) -> Result<Answer, UpstreamError> {
        let attempt = self.reach.attempt().map_err(|failure| match failure {
            Failure::NoConnection(cause) => self.unreachable(cause),
            Failure::NoAnswer(cause) => self.failing(cause),
        })?;
        let mut is_heard = false;
        let result = self.send_once(request, deadline, &mut is_heard).await;
        match &result {
            Ok(answer) if is_of_gateway(answer) => {
                attempt.failed(Failure::NoAnswer(answers(answer)));
            }
            Ok(_) => attempt.succeeded(),
            Err(UpstreamError::Unreachable { cause, .. }) => {
                attempt.failed(Failure::NoConnection(cause.clone()));
            }
            Err(error @ UpstreamError::BrokenOff { .. }) if !is_heard => {
                attempt.failed(Failure::NoAnswer(error.to_string()));
            }
            Err(error) => attempt.unanswered(error.to_string()),
        }
        result
    }

    async fn send_once(
        &self,
        request: Request,
        deadline: Instant,
        is_heard: &mut bool,
    ) -> Result<Answer, UpstreamError> {
        let (changes, job) = (request.changes, request.job.clone());
        let sent = late::by(deadline, async {
            let request = self.request(request)?;
            let response = self.connections.send(request, changes).await;
            let response = response.map_err(|error| self.failed(&error, changes))?;
            *is_heard = true;
            let answer = self.read(response, changes).await?;
            if job.is_some_and(|job| names_another(&answer, &job)) {
                // Its next answer may be a call late as well.
                self.connections.forget();
                return Err(UpstreamError::OtherJob { url: self.url.clone() });
            }
            Ok(answer)
        });
        sent.await.unwrap_or_else(|| Err(UpstreamError::TimedOut { url: self.url.clone() }))
    }

    fn request(&self, request: Request) -> Result<http::Request<Full<Bytes>>, UpstreamError> {
        let Request { method, path, body, workflow_token, .. } = request;
        let mut request = http::Request::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() =
            self.target.with_path(path).map_err(|error| self.unreachable(error.to_string()))?;
        let headers = request.headers_mut();
        // Those below, and the length.
        headers.reserve(7);
        headers.insert(header::HOST, self.target.host.clone());
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::ACCEPT, JSON);
        // What is withheld from an answer has to be read first.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(token) = workflow_token {
            headers.insert(WORKFLOW_TOKEN, token);
        }
        Ok(request)
    }

    async fn read(
        &self,
        response: Response<Incoming>,
        changes: bool,
    ) -> Result<Answer, UpstreamError> {
        let status = response.status();
        if status.is_informational() {
            let cause = format!("it ended with {}", named(status));
            return Err(UpstreamError::BrokenOff { url: self.url.clone(), cause });
        }
        if is_moved(status, changes) {
            let origin = response.headers().get(header::LOCATION).and_then(origin);
            return Err(UpstreamError::Moved { url: self.url.clone(), status, origin });
        }
        let headers = passed_headers(response.headers());
        let clock_ahead = clock_ahead(response.headers(), Timestamp::now());
        let body = self.read_body(response.into_body()).await?;
        if is_foreign(status, &body, changes) {
            return Err(UpstreamError::Foreign { url: self.url.clone(), status });
        }
        Ok(Answer { status, headers, body, clock_ahead })
    }

    async fn read_body(&self, body: Incoming) -> Result<Bytes, UpstreamError> {
        let too_large = || UpstreamError::TooLarge { url: self.url.clone() };
        // One that announces too much is not read at all.
        if body.size_hint().lower() > MAX_ANSWER as u64 {
            return Err(too_large());
        }
        body::read(body, MAX_ANSWER).await.map_err(|error| match error.is::<LengthLimitError>() {
            true => too_large(),
            false => self.broken_off(&*error),
        })
    }

    /// The error of a request whose answer did not begin. If the answer to a change cannot be parsed, the
    /// change may have been made, so that counts as a broken connection.
    fn failed(&self, error: &legacy::Error, changes: bool) -> UpstreamError {
        let source = error.source().and_then(|source| source.downcast_ref::<hyper::Error>());
        if error.is_connect() {
            self.unreachable(causes(error))
        } else if !changes && source.is_some_and(hyper::Error::is_parse) {
            UpstreamError::NotHttp { url: self.url.clone(), cause: causes(error) }
        } else {
            self.broken_off(error)
        }
    }

    fn failing(&self, cause: String) -> UpstreamError {
        UpstreamError::Failing { url: self.url.clone(), cause }
    }

    fn unreachable(&self, cause: String) -> UpstreamError {
        UpstreamError::Unreachable { url: self.url.clone(), cause }
    }

    fn broken_off(&self, error: &dyn Error) -> UpstreamError {
        UpstreamError::BrokenOff { url: self.url.clone(), cause: causes(error) }
    }
}

/// Where requests go: the upstream's scheme and authority, and the `Host` header for them.
#[derive(Debug, Clone)]
struct Target {
    uri: Uri,
    host: HeaderValue,
}

impl Target {
    fn of(url: &str) -> Result<Self, http::Error> {
        let uri: Uri = url.parse()?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(host)?;
        Ok(Self { uri, host })
    }

    fn with_path(&self, path: String) -> Result<Uri, http::Error> {
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(uri::PathAndQuery::try_from(path)?);
        Ok(Uri::from_parts(parts)?)
    }
}

/// A proxy variable that cannot be read would be passed over for a direct connection, which is not
/// what somebody wanted who set one. Only the one that holds for the upstream is looked at.
fn check_proxy_variables(
    upstream: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), ClientError> {
    let proxy =
        |all: &str, no: &str| Matcher::builder().all(all).no(no).build().intercept(upstream);
    let excepted = ["NO_PROXY", "no_proxy"].into_iter().find_map(&variable).unwrap_or_default();
    if proxy("http://proxy.example", &excepted).is_none() {
        return Ok(());
    }
    let set = |name| Some((name, variable(name).filter(|value| !value.is_empty())?));
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let Some((name, value)) = names.into_iter().find_map(set) else { return Ok(()) };
    let proxy = proxy(&value, "");
    if proxy.is_some_and(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https"))) {
        return Ok(());
    }
    let text = format!("{name} is not the address of an HTTP proxy, as in http://host:3128");
    Err(ClientError(text))
}

fn answers(answer: &Answer) -> String {
    format!("it answers {} without the API's JSON", named(answer.status))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::UpstreamUrl;

    #[test]
    fn a_sender_that_died_may_have_lost_the_answer_until_now() {
        let second = Duration::from_secs(1);
        let config = UpstreamConfig {
            url: UpstreamUrl::on_this_machine(1),
            connect_timeout: second,
            timeout: second,
            change_timeout: second * 60,
            settle_time: second * 10,
            max_calls: 1,
        };
        let upstream = Upstream::new(&config).unwrap();
        let at = |seconds| Timestamp::from_second(seconds).unwrap();
        // It was sent at 0.
        let quiet_if_taken_over = |now| upstream.quiet_after_death(at(10), at(now));
        for (now, quiet) in [(0, 10), (1, 11), (30, 40), (9999, 10_009), (-5, 10)] {
            assert_eq!(quiet_if_taken_over(now), at(quiet), "{now}");
        }
    }

    #[test]
    fn a_proxy_variable_that_is_no_proxy_is_refused() {
        let check = |given: &str| check_variables(&[("HTTPS_PROXY", given)]);
        for good in ["", "http://proxy:3128", "https://user:pw@proxy", "proxy:3128", "10.0.0.1:80"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["not a url", "ftp://proxy", "x://", "::bad", "socks5://proxy:1080"] {
            let error = check(bad).unwrap_err().to_string();
            assert!(error.contains("HTTPS_PROXY") && !error.contains(bad), "{bad}: {error}");
        }
    }

    #[test]
    fn a_proxy_variable_that_is_not_used_is_not_looked_at() {
        let socks = "socks5h://127.0.0.1:9";
        let good = "http://proxy:3128";
        assert!(check_variables(&[("ALL_PROXY", socks)]).is_err());
        for used in [("HTTPS_PROXY", good), ("NO_PROXY", "upstream.example"), ("no_proxy", "*")] {
            assert!(check_variables(&[("ALL_PROXY", socks), used]).is_ok(), "{used:?}");
        }
        assert!(check_variables(&[("ALL_PROXY", socks), ("NO_PROXY", "other.example")]).is_err());
    }

    fn check_variables(variables: &[(&str, &str)]) -> Result<(), ClientError> {
        let upstream = Uri::from_static("https://upstream.example");
        let value = |name: &str| variables.iter().find(|(given, _)| *given == name);
        check_proxy_variables(&upstream, |name| value(name).map(|(_, value)| (*value).to_owned()))
    }
}
