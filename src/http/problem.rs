//! Our own errors, as RFC 9457 problem details, so that no one takes them for the upstream's.

mod kind;

use std::{net::SocketAddr, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use self::kind::{Kind, Row};
use super::{MAX_BODY, OWN_PATHS, nearest_path::nearest_path};
use crate::{
    action::{Action, Effect, Lookup, SESSION_PATH},
    call::InvalidCall,
    clock,
    job_status::JobStatus,
    policy::Denied,
    proxy::{CallError, Unauthenticated},
    session::{ERROR_TYPE, SessionError},
    store::StoreError,
    types::{ClientName, InvalidToken, RequestId},
    upstream::{Unanswered, UpstreamError},
};

/// The header that tells our errors from the upstream's; its value is the error's code.
pub(super) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-agentpmt-proxy-error");

/// What to do about an upstream that cannot be reached.
const UNREACHABLE: &str = "the call had no effect: check upstream.url, the network and HTTPS_PROXY, or send it again later";

/// What to do about an upstream that answers with a redirect.
const MOVED: &str = "the call had no effect, and redirects are not followed: set upstream.url to the address that it names, if you trust it";

/// What to do about an upstream that is not the API.
const FOREIGN: &str = "the call had no effect: check that upstream.url is the address of the API, and that nothing on the way answers in its place";

/// What to do about an upstream that answers as this proxy does.
const PROXY: &str = "the call had no effect: check that upstream.url is the address of the API; it looks like another agentpmt-proxy";

/// The same for a change, which something may have followed.
const FOREIGN_TO_CHANGE: &str = "check that upstream.url is the address of the API, and that nothing on the way answers in its place; then ask for the job's status";

/// After how many seconds what was not sent may go through: an outage is looked at as often.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Retry {
    /// The same request would be refused again, or has done what it can.
    Never,
    /// Nothing was changed upstream, so it may be sent again.
    Safe,
    /// It may have taken effect: ask for the job's status first.
    CheckFirst,
}

impl Retry {
    /// For a call that went out and was not answered.
    fn after_sending(changes: bool) -> Self {
        if changes { Self::CheckFirst } else { Self::Safe }
    }

    fn advice(self) -> &'static str {
        match self {
            Self::Never => "the same request would be refused again, so change it first",
            Self::Safe => "it had no effect, so send it again later",
            Self::CheckFirst => {
                "it may have taken effect, so ask for the job's status before you send it again"
            }
        }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Safe => "safe",
            Self::CheckFirst => "check_first",
        }
    }
}

/// One error of the proxy. As a response it is empty until the middleware, which knows the request
/// id, writes it out.
#[derive(Debug, Clone)]
pub(super) struct Problem {
    kind: Kind,
    /// What happened, to what, and what to do.
    detail: String,
    retry: Retry,
    retry_after: Option<HeaderValue>,
    /// Members that only this kind has.
    more: Map<String, Value>,
}

impl Problem {
    fn new(kind: Kind, detail: impl Into<String>) -> Self {
        let (detail, more) = (detail.into(), Map::new());
        Self { kind, detail, retry: Retry::Never, retry_after: None, more }
    }

    fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    pub(super) fn code(&self) -> &'static str {
        self.kind.row().code
    }

    pub(super) fn detail(&self) -> &str {
        &self.detail
    }

    /// The whole response, with the headers that others gave it.
    pub(super) fn write(&self, request_id: &RequestId, mut headers: HeaderMap) -> Response {
        let Row { status, code, title } = self.kind.row();
        let mut body = json!({
            "type": format!("{ERROR_TYPE}{code}"),
            "title": title,
            "status": status.as_u16(),
            "detail": self.detail,
            "code": code,
            "request_id": request_id.as_str(),
            "retry": self.retry.as_str(),
        });
        for (name, value) in &self.more {
            body[name] = value.clone();
        }
        headers.remove(header::CONTENT_LENGTH);
        let media_type = HeaderValue::from_static("application/problem+json");
        headers.insert(header::CONTENT_TYPE, media_type);
        headers.insert(ERROR_HEADER, HeaderValue::from_static(code));
        if status == StatusCode::UNAUTHORIZED {
            let challenge = HeaderValue::from_static("Bearer realm=\"agentpmt-proxy\"");
            headers.insert(header::WWW_AUTHENTICATE, challenge);
        }
        headers.extend(self.retry_after.clone().map(|after| (header::RETRY_AFTER, after)));
        (status, headers, body.to_string()).into_response()
    }

    pub(super) fn unknown_path(actions: &[Action], path: &str) -> Self {
        let mut calls = vec![format!("POST {SESSION_PATH}")];
        calls.extend(actions.iter().map(|action| format!("{} {}", action.method, action.path)));
        let own: Vec<_> =
            OWN_PATHS.iter().map(|(method, path)| format!("{method} {path}")).collect();
        let meant = nearest_path(actions, path);
        let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
        let detail = format!(
            "{meant}there is nothing at {path}; the calls are: {}; the proxy's own paths are: {}",
            calls.join(", "),
            own.join(", ")
        );
        Self::new(Kind::UnknownPath, detail)
    }

    /// `right` is the method that would do, and `url` where, as curl takes it.
    pub(super) fn wrong_method(method: &Method, path: &str, right: &Method, url: &str) -> Self {
        let detail =
            format!("{path} takes {right}, not {method}; with curl: curl -X {right} {url}");
        Self::new(Kind::WrongMethod, detail)
    }

    pub(super) fn reload_refused(mistakes: String) -> Self {
        Self::new(Kind::ReloadRefused, format!("everything is as it was: {mistakes}"))
    }

    pub(super) fn query_not_taken(action: &Action) -> Self {
        let detail = match action.query {
            [] => format!(
                "{action} takes no query string; send the fields in a JSON body, as in \
                 {{\"limit\": 10}}"
            ),
            names => {
                format!("the query of {action} may have only these names: {}", names.join(", "))
            }
        };
        Self::new(Kind::QueryNotTaken, detail)
    }

    pub(super) fn body_too_large() -> Self {
        let detail = format!("the body is larger than {} KiB; send less", MAX_BODY / 1024);
        Self::new(Kind::BodyTooLarge, detail)
    }

    pub(super) fn unreadable_body() -> Self {
        let detail = "the body broke off before its end; send the request again";
        Self::new(Kind::BodyUnreadable, detail).retry(Retry::Safe)
    }

    pub(super) fn slow_body(time: Duration) -> Self {
        let detail = format!(
            "the body did not arrive within {} s of the head; nothing was sent, so send the call again",
            time.as_secs()
        );
        Self::new(Kind::BodySlow, detail).retry(Retry::Safe)
    }

    pub(super) fn transfer_coding() -> Self {
        let detail = "the only Transfer-Encoding that is supported is chunked, once; send the body \
                      with a Content-Length, or in plain chunks";
        Self::new(Kind::TransferCoding, detail)
    }

    pub(super) fn content_coding(coding: &str) -> Self {
        let coding = if coding.is_empty() { "without a value" } else { coding };
        let detail = format!(
            "the body has Content-Encoding {coding}, and none is supported; nothing was sent: send the \
             JSON as it is, without that header"
        );
        Self::new(Kind::ContentCoding, detail)
    }

    /// `given` says which host the request names, and `local` is where it arrived.
    pub(super) fn wrong_host(given: &str, local: Option<SocketAddr>) -> Self {
        let own = local.map_or_else(|| "localhost".to_owned(), |local| local.to_string());
        let detail = format!(
            "{given}, which is not this proxy: use {own}, where the request arrived, or add the name \
             to allowed_hosts"
        );
        Self::new(Kind::WrongHost, detail)
    }

    /// `origin` is that of the page, if it says one.
    pub(super) fn foreign_page(origin: Option<&str>) -> Self {
        let detail = match origin {
            Some(origin) => format!(
                "the request comes from the web page {origin}, and pages may not use the wallet; to \
                 allow it, add {origin} to allowed_origins"
            ),
            None => {
                "the request comes from a web page that does not say its origin, and pages may \
                     not use the wallet; a page that says it can be added to allowed_origins"
                    .to_owned()
            }
        };
        Self::new(Kind::ForeignPage, detail)
    }

    pub(super) fn not_admin(client: &ClientName) -> Self {
        let detail = format!(
            "client {client} may not reload the configuration; ask the operator of the proxy for a \
             client that may, with `agentpmt-proxy client add … --admin`, or send SIGHUP"
        );
        Self::new(Kind::NotAllowed, detail)
    }

    /// A call that has no answer of the upstream.
    pub(super) fn failed(action: &Action, failure: &CallError) -> Self {
        match failure {
            CallError::Session(error) => Self::no_session(error),
            CallError::Upstream(error) => Self::no_answer(action.changes(), error),
            CallError::NotSigned(error) => {
                let detail = format!("{error}; nothing was sent, so send the call again later");
                let problem = Self::new(Kind::NotSigned, detail).retry(Retry::Safe);
                Self { retry_after: Some(SOON), ..problem }
            }
            CallError::OutcomeUnknown { seen, settles_at } => {
                let retry = Retry::CheckFirst;
                let advice = retry.advice();
                let what = match (action.effect, action.lookup) {
                    (Effect::Reserves, _) => &format!(
                        "{advice}; the private instructions of a reservation that it made came only \
                         with the lost answer"
                    ),
                    (_, Lookup::None) => {
                        "it may have taken effect, and no call shows whether it did: to make it \
                         again, send it under a new Idempotency-Key, or none"
                    }
                    _ => advice,
                };
                let problem = Self::answer_lost(action, None, seen, what).retry(retry);
                let wait = settles_at.and_then(|time| seconds_until(time, clock::now()));
                Self { retry_after: wait.map(HeaderValue::from), ..problem }
            }
            CallError::InstructionsLost { ends, seen, .. } => {
                let what = format!(
                    "job_status shows that the job is reserved, but its private instructions came \
                     only with the lost answer, and to reserve it once more brought none: the \
                     reservation ends at {ends}; reserve the job again then"
                );
                let mut problem = Self::answer_lost(action, Some(true), seen, &what);
                problem.more.insert("reserved_until".to_owned(), ends.to_string().into());
                problem
            }
            CallError::HeldMeanwhile { .. } => {
                let advice = "so the answer is not told; take another job";
                Self::new(Kind::HeldByAnother, format!("{failure}, {advice}"))
            }
            CallError::WalletNotHeld { .. } => {
                let advice = "ask the operator of the proxy to add its key file, or for a client with \
                              another wallet";
                Self::new(Kind::NotAllowed, format!("{failure}; {advice}"))
            }
            CallError::OtherWallet { .. } => Self::other_wallet(failure),
            CallError::NoWorkflowToken { .. } => {
                let advice = "reserve the job through this proxy first (if it is reserved \
                              already, its token is lost: wait until the reservation ends)";
                Self::new(Kind::NoWorkflowToken, format!("{failure}; {advice}"))
            }
            CallError::KeyReused => {
                let advice = "nothing was sent; use a new key for each call";
                Self::new(Kind::KeyReused, format!("{failure}; {advice}"))
            }
            CallError::KeyInUse => {
                let detail = format!(
                    "{failure}; send the same again later, with the same key, to get its answer"
                );
                let retry_after = Some(HeaderValue::from_static("1"));
                Self { retry_after, ..Self::new(Kind::KeyInUse, detail).retry(Retry::CheckFirst) }
            }
            CallError::Abandoned => {
                Self::new(Kind::Overloaded, failure.to_string()).retry(Retry::Safe)
            }
            CallError::Aborted => {
                let retry = Retry::after_sending(action.changes());
                Self::new(Kind::Internal, format!("{failure}; {}", retry.advice())).retry(retry)
            }
            CallError::Unauthenticated(_)
            | CallError::Overloaded(_)
            | CallError::Denied(_)
            | CallError::Store(_) => Self::refused(failure),
        }
    }

    /// A request that was refused for who makes it or what else is going on.
    pub(super) fn refused(failure: &CallError) -> Self {
        match failure {
            CallError::Unauthenticated(error) => {
                let kind = match error {
                    Unauthenticated::NoEvidence => Kind::Unauthenticated,
                    Unauthenticated::UnknownToken
                    | Unauthenticated::Token(InvalidToken::Foreign) => Kind::UnknownToken,
                    Unauthenticated::Token(InvalidToken::Mistyped) => Kind::MistypedToken,
                    Unauthenticated::Token(_) => Kind::MalformedAuthorization,
                };
                Self::new(kind, error.to_string())
            }
            CallError::Overloaded(error) => {
                let retry_after = Some(HeaderValue::from_static("1"));
                let problem = Self::new(Kind::Overloaded, format!("{error}; nothing was sent"));
                Self { retry_after, ..problem.retry(Retry::Safe) }
            }
            CallError::Denied(denied) => Self::denied(denied),
            CallError::Store(error) => Self::store(error),
            other => Self::new(Kind::Internal, other.to_string()),
        }
    }

    /// The client may call again after `wait`.
    fn too_fast(denied: &Denied, wait: Duration) -> Self {
        let seconds = wait.as_secs() + 1;
        let detail = format!("{denied}; nothing was signed; call again in {seconds} s");
        Self::too_many(Kind::TooFast, detail, seconds)
    }

    /// The body names a wallet that is not the client's.
    pub(super) fn other_wallet(failure: &CallError) -> Self {
        let advice =
            "nothing was signed; leave the field out, or send the wallet that this proxy uses";
        Self::new(Kind::OtherWallet, format!("{failure}; {advice}"))
    }

    /// The client may not make the call.
    fn denied(denied: &Denied) -> Self {
        let kind = match denied {
            Denied::TooFast { wait, .. } => return Self::too_fast(denied, *wait),
            Denied::TooManyReservations { until, .. } => {
                let detail = format!(
                    "{denied}; nothing was signed: complete one, or wait until {until}, when the \
                     first of them ends"
                );
                let seconds = seconds_until(*until, Timestamp::now()).unwrap_or(1);
                return Self::too_many(Kind::TooManyReservations, detail, seconds);
            }
            Denied::Expired { .. } => Kind::AccessEnded,
            Denied::Action { .. } | Denied::Wallet { .. } => Kind::NotAllowed,
            Denied::Holder { .. } => Kind::HeldByAnother,
            Denied::Submitted { .. } => Kind::AlreadySubmitted,
            Denied::NotHeld { .. } => Kind::NotReserved,
        };
        Self::new(kind, format!("{denied}; nothing was signed"))
    }

    fn too_many(kind: Kind, detail: String, seconds: u64) -> Self {
        let retry_after = Some(HeaderValue::from(seconds));
        Self { retry_after, ..Self::new(kind, detail).retry(Retry::Safe) }
    }

    /// What has to be on record cannot be written or read.
    pub(super) fn store(error: &StoreError) -> Self {
        if error.is_access_ended() {
            let detail = "the client's access ended while the call was being made; nothing more was \
                          signed";
            return Self::new(Kind::AccessEnded, detail);
        }
        let detail = format!("{error}; nothing was signed");
        Self::new(Kind::JournalUnavailable, detail).retry(Retry::Safe)
    }

    pub(super) fn invalid_idempotency_key() -> Self {
        let detail = "Idempotency-Key must be given once, as 1 to 1024 printable ASCII characters \
                      without spaces; nothing was sent";
        Self::new(Kind::InvalidKey, detail)
    }

    fn answer_lost(action: &Action, processed: Option<bool>, seen: &JobStatus, what: &str) -> Self {
        let mut problem =
            Self::new(Kind::OutcomeUnknown, format!("the answer to {action} was lost; {what}"));
        problem.more.insert("processed".to_owned(), processed.into());
        problem.more.insert("job_status".to_owned(), seen.job.clone().into());
        problem.more.insert("submission_status".to_owned(), seen.submission.clone().into());
        problem
    }

    fn no_session(error: &SessionError) -> Self {
        let (advice, retry_after) = match error {
            SessionError::Upstream(error) => return Self::no_answer(false, error),
            SessionError::NoNonce { .. } => (Retry::Safe.advice(), None),
            SessionError::Refused { status, retry_after, by_proxy, .. } => {
                let advice = match by_proxy {
                    true => PROXY,
                    false if is_foreign(*status) => FOREIGN,
                    false => Retry::Safe.advice(),
                };
                let soon = status.is_server_error().then_some(SOON);
                (advice, retry_after.clone().or(soon))
            }
        };
        let retry = if [FOREIGN, PROXY].contains(&advice) { Retry::Never } else { Retry::Safe };
        let problem = Self::new(Kind::SessionFailed, format!("{error}; {advice}"));
        Self { retry_after, ..problem.retry(retry) }
    }

    fn no_answer(changes: bool, error: &UpstreamError) -> Self {
        let why = &error.why;
        let retry = match why {
            Unanswered::Moved { .. } | Unanswered::Foreign(_) | Unanswered::NotHttp(_) => {
                Retry::Never
            }
            _ if error.was_sent() => Retry::after_sending(changes),
            _ => Retry::Safe,
        };
        let (kind, advice) = match why {
            Unanswered::Unreachable(_) | Unanswered::Failing(_) => {
                (Kind::UpstreamUnreachable, UNREACHABLE)
            }
            Unanswered::Moved { .. } => (Kind::UpstreamMoved, MOVED),
            Unanswered::Foreign(_) if changes => (Kind::UpstreamForeign, FOREIGN_TO_CHANGE),
            Unanswered::Foreign(_) | Unanswered::NotHttp(_) => (Kind::UpstreamForeign, FOREIGN),
            Unanswered::Busy { .. } => (
                Kind::Overloaded,
                "nothing was sent, so send it again later; if the upstream is well, raise \
                 upstream.max_calls",
            ),
            Unanswered::TooLarge => {
                (Kind::AnswerTooLarge, "ask for less if the call can, as with a smaller limit")
            }
            Unanswered::TimedOut => (Kind::UpstreamTimeout, retry.advice()),
            Unanswered::BrokenOff(_) | Unanswered::OtherJob => {
                (Kind::UpstreamBrokeOff, retry.advice())
            }
        };
        let is_over_soon = !error.was_sent() || matches!(why, Unanswered::BrokenOff(_));
        let retry_after = (retry == Retry::Safe && is_over_soon).then_some(SOON);
        let problem = Self::new(kind, format!("{error}; {advice}"));
        Self { retry_after, ..problem.retry(retry) }
    }
}

impl From<InvalidCall> for Problem {
    fn from(error: InvalidCall) -> Self {
        let kind = match error {
            InvalidCall::Id { .. } | InvalidCall::IdCount { .. } => Kind::InvalidId,
            InvalidCall::Body(_) => Kind::InvalidBody,
            InvalidCall::Field { .. } => Kind::InvalidField,
        };
        let example = match &error {
            InvalidCall::Body(_) => "; send an object such as {\"limit\": 10}",
            _ => "",
        };
        Self::new(kind, format!("{error}{example}; nothing was sent"))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.row().status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// Whether a session is refused so by what is not the API.
fn is_foreign(status: StatusCode) -> bool {
    let passing = [
        StatusCode::UNAUTHORIZED,
        StatusCode::REQUEST_TIMEOUT,
        StatusCode::TOO_EARLY,
        StatusCode::TOO_MANY_REQUESTS,
    ];
    status.is_redirection() || status.is_client_error() && !passing.contains(&status)
}

/// Whole seconds until then, if it has not come yet.
fn seconds_until(time: Timestamp, now: Timestamp) -> Option<u64> {
    let left = Duration::try_from(time.duration_since(now)).ok()?;
    Some(left.as_secs() + 1)
}
