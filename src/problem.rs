//! Our own errors, for every face: what happened, to what, and what to do.

use std::time::Duration;

use http::{HeaderValue, StatusCode};
use jiff::Timestamp;
use serde_json::{Map, Value, json};

use crate::{
    action::{Action, Effect, Lookup},
    call::InvalidCall,
    clock,
    job_status::JobStatus,
    payment::Declined,
    policy::Denied,
    problems::{self, Kind, Retry},
    proxy::CallError,
    session::{ERROR_TYPE, SessionError},
    store::StoreError,
    types::CreditAmount,
    upstream::{Unanswered, UpstreamError},
    waiting::InvalidWait,
};

/// The advice for an upstream that cannot be reached.
const UNREACHABLE: &str = "the call had no effect: check upstream.url, the network and HTTPS_PROXY, or send it again later";

/// The advice for an upstream that answers with a redirect.
const MOVED: &str = "the call had no effect, and redirects are not followed: set upstream.url to the address that it names, if you trust it";

/// The advice for an upstream that is not the API.
const FOREIGN: &str = "the call had no effect: check that upstream.url is the address of the API, and that nothing on the way answers in its place";

/// The advice for an upstream that answers as this proxy does.
const PROXY: &str = "the call had no effect: check that upstream.url is the address of the API; it looks like another agentpmt-proxy";

/// The same for a change, which something may have followed.
const FOREIGN_TO_CHANGE: &str = "check that upstream.url is the address of the API, and that nothing on the way answers in its place; then ask for the job's status";

/// Seconds until a retry may succeed: in an outage, one call a second tries to connect.
const SOON: HeaderValue = HeaderValue::from_static("1");

/// One error of the proxy.
#[derive(Debug, Clone)]
pub(crate) struct Problem {
    pub(crate) kind: &'static Kind,
    /// The event, the input that it happened to, and the advice.
    pub(crate) detail: String,
    pub(crate) retry: Retry,
    /// When the same request may have another answer, as `Retry-After` tells it.
    pub(crate) retry_after: Option<HeaderValue>,
    /// Members that only this kind has.
    pub(crate) more: Map<String, Value>,
}

impl Problem {
    pub(crate) fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        let (detail, more) = (detail.into(), Map::new());
        Self { kind, detail, retry: kind.retry, retry_after: None, more }
    }

    /// The members that every face shows (RFC 9457).
    pub(crate) fn to_json(&self) -> Value {
        let Self { kind, detail, retry, more, .. } = self;
        let mut body = json!({
            "type": format!("{ERROR_TYPE}{}", kind.code),
            "title": kind.title,
            "status": kind.status.as_u16(),
            "detail": detail,
            "code": kind.code,
            "retry": retry.as_str(),
        });
        for (name, value) in more {
            body[name] = value.clone();
        }
        body
    }

    fn retry(self, retry: Retry) -> Self {
        Self { retry, ..self }
    }

    /// A call that has no answer of the upstream.
    pub(crate) fn failed(action: &Action, failure: &CallError) -> Self {
        match failure {
            CallError::Session(error) => Self::no_session(error),
            CallError::Upstream(error) => Self::no_answer(action.changes(), error),
            CallError::NotSigned(error) => {
                let detail = format!("{error}; nothing was sent, so send the call again later");
                let problem = Self::new(&problems::NOT_SIGNED, detail);
                Self { retry_after: Some(SOON), ..problem }
            }
            CallError::OutcomeUnknown { seen, settles_at } => {
                let advice = Retry::CheckFirst.advice();
                let what = match (action.effect, action.lookup) {
                    (Effect::Reserves, _) => &format!(
                        "{advice}; the private instructions of a reservation that it made came only \
                         with the lost answer"
                    ),
                    (Effect::Pays, _) => {
                        "a payment that came with it can be cashed until its validBefore: sign no \
                         other before; repeat the same one under a new Idempotency-Key, or none, \
                         or wait and look at the balance"
                    }
                    (_, Lookup::None) => {
                        "it may have taken effect, and no call shows whether it did: to make it \
                         again, send it under a new Idempotency-Key, or none"
                    }
                    _ => advice,
                };
                let problem = Self::answer_lost(action, None, seen, what);
                let wait = settles_at.and_then(|time| seconds_until(time, clock::steady()));
                Self { retry_after: wait.map(HeaderValue::from), ..problem }
            }
            CallError::Declined(declined) => Self::declined(declined),
            CallError::Demand(_) => {
                let detail = format!("{failure}; nothing was paid");
                Self::new(&problems::PAYMENT_DEMAND, detail)
            }
            CallError::NotInTime => {
                let detail = format!("{failure}; nothing was paid, so send the call again");
                let problem = Self::new(&problems::UPSTREAM_TIMEOUT, detail).retry(Retry::Safe);
                Self { retry_after: Some(SOON), ..problem }
            }
            CallError::PaymentRefused { until } => {
                let detail = format!(
                    "{failure}: it asked for one again; the payment can still be cashed until {until}, \
                     so it counts, and to send the call again before repeats this same payment"
                );
                Self::new(&problems::PAYMENT_REFUSED, detail)
            }
            CallError::PaymentUnknown { until } => Self::payment_unknown(action, *until),
            CallError::PaymentRefusedAgain { until, before, now } => {
                let balance = match (before, now) {
                    (Some(before), Some(now)) => {
                        &format!("the balance of credits was {before} before, and is {now} now")
                    }
                    _ => "look at the balance before you pay for it again",
                };
                let detail = format!(
                    "{failure}, as it refuses one that it has taken: so {action} most likely went through, and \
                     its answer is lost; {balance}: no other payment of the same call is made before {until}"
                );
                Self::new(&problems::OUTCOME_UNKNOWN, detail)
                    .with_balances(before.as_deref(), now.as_deref())
            }
            CallError::SpendingUnknown { before, now } => {
                Self::spending_unknown(action, before.as_deref(), now.as_deref())
            }
            CallError::InstructionsLost { ends, seen, .. } => {
                let what = format!(
                    "job_status shows that the job is reserved, but its private instructions came \
                     only with the lost answer, and to reserve it once more brought none: the \
                     reservation ends at {ends}; reserve the job again then"
                );
                let problem = Self::answer_lost(action, Some(true), seen, &what);
                let mut problem = problem.retry(Retry::Never);
                problem.more.insert("reserved_until".to_owned(), ends.to_string().into());
                problem
            }
            CallError::HeldMeanwhile(_) => {
                let advice = "so the answer is not told; take another job";
                Self::new(&problems::HELD_BY_ANOTHER, format!("{failure}, {advice}"))
            }
            CallError::Unchecked => {
                let detail = format!(
                    "{failure}, so it is not told: send the call again later, or ask the operator of \
                     the proxy for a client that may see it, with `agentpmt-proxy client add … --admin`"
                );
                Self::new(&problems::ANSWER_UNCHECKED, detail)
            }
            CallError::WalletNotHeld(_) => {
                let advice = "ask the operator of the proxy to add its key file, or for a client with \
                              another wallet";
                Self::new(&problems::NOT_ALLOWED, format!("{failure}; {advice}"))
            }
            CallError::OtherWallet { .. } => Self::other_wallet(failure),
            CallError::NoWorkflowToken(_) => {
                let advice = "reserve the job through this proxy first (if it is reserved \
                              already, its token is lost: wait until the reservation ends)";
                Self::new(&problems::NO_WORKFLOW_TOKEN, format!("{failure}; {advice}"))
            }
            CallError::KeyReused => {
                let advice = "nothing was sent; use a new key for each call";
                Self::new(&problems::KEY_REUSED, format!("{failure}; {advice}"))
            }
            CallError::KeyInUse => {
                let detail = format!(
                    "{failure}; send the same again later, with the same key, to get its answer"
                );
                let retry_after = Some(HeaderValue::from_static("1"));
                Self { retry_after, ..Self::new(&problems::KEY_IN_USE, detail) }
            }
            CallError::Abandoned => Self::new(&problems::OVERLOADED, failure.to_string()),
            CallError::Aborted => {
                let retry = after_sending(action.changes());
                Self::new(&problems::INTERNAL, format!("{failure}; {}", retry.advice()))
                    .retry(retry)
            }
            CallError::Unauthenticated(_)
            | CallError::Overloaded(_)
            | CallError::Denied(_)
            | CallError::Store(_) => Self::refused(failure),
        }
    }

    /// A request that was refused for who makes it or what else is going on.
    pub(crate) fn refused(failure: &CallError) -> Self {
        match failure {
            CallError::Unauthenticated(error) => Self::new(error.kind(), error.to_string()),
            CallError::Overloaded(error) => {
                let retry_after = Some(HeaderValue::from_static("1"));
                let problem =
                    Self::new(&problems::OVERLOADED, format!("{error}; nothing was sent"));
                Self { retry_after, ..problem }
            }
            CallError::Denied(denied) => Self::denied(denied),
            CallError::Store(error) => Self::store(error),
            other => Self::new(&problems::INTERNAL, other.to_string()),
        }
    }

    /// The body names a wallet that is not the client's.
    pub(crate) fn other_wallet(failure: &CallError) -> Self {
        let advice =
            "nothing was signed; leave the field out, or send the wallet that this proxy uses";
        Self::new(&problems::OTHER_WALLET, format!("{failure}; {advice}"))
    }

    /// The client may not make the call.
    fn denied(denied: &Denied) -> Self {
        match denied {
            Denied::TooFast { wait, .. } => {
                let seconds = wait.as_secs() + 1;
                let detail = format!("{denied}; nothing was signed; call again in {seconds} s");
                Self::too_many(denied, detail, seconds)
            }
            Denied::TooManyReservations { until, .. } => {
                let detail = format!(
                    "{denied}; nothing was signed: complete one, or wait until {until}, when the \
                     first of them ends"
                );
                let seconds = seconds_until(*until, Timestamp::now()).unwrap_or(1);
                Self::too_many(denied, detail, seconds)
            }
            Denied::TooManyApprovals { until } => {
                let detail = format!(
                    "{denied}; nothing was signed: send again a call whose payment was approved, or \
                     wait until {until}"
                );
                let seconds = seconds_until(*until, Timestamp::now()).unwrap_or(1);
                Self::too_many(denied, detail, seconds)
            }
            Denied::CreditLimit { price, until, is_held, .. } => {
                Self::over_credit_limit(denied, *price, *until, *is_held)
            }
            _ => Self::new(denied.kind(), format!("{denied}; nothing was signed")),
        }
    }

    fn too_many(denied: &Denied, detail: String, seconds: u64) -> Self {
        let retry_after = Some(HeaderValue::from(seconds));
        Self { retry_after, ..Self::new(denied.kind(), detail) }
    }

    fn over_credit_limit(
        denied: &Denied,
        price: Option<CreditAmount>,
        until: Option<Timestamp>,
        is_held: bool,
    ) -> Self {
        let costs = match price {
            Some(price) if price == CreditAmount::default() => {
                "a call of price 0 may be charged all the same".to_owned()
            }
            Some(price) => format!("the call costs {price}"),
            None => "the price of the call is not known, so it needs all that are left".to_owned(),
        };
        let Some(until) = until else {
            let advice = "ask the operator of the proxy for a client with a higher limit";
            let detail = format!("{denied}, but {costs}; nothing was signed; {advice}");
            return Self::new(denied.kind(), detail).retry(Retry::Never);
        };
        let (held, seconds) = match is_held {
            // They are given back as soon as such a call is answered.
            true => {
                (", as some are held for calls that are under way or whose answers were lost", 1)
            }
            false => ("", seconds_until(until, clock::steady()).unwrap_or(1)),
        };
        let detail = format!(
            "{denied}{held}, but {costs}; nothing was signed; there are enough at {until} at the latest"
        );
        Self::too_many(denied, detail, seconds)
    }

    /// A record cannot be written or read.
    pub(crate) fn store(error: &StoreError) -> Self {
        if error.is_access_ended() {
            let detail = "the client's access ended while the call was being made; nothing more was \
                          signed";
            return Self::new(&problems::ACCESS_ENDED, detail);
        }
        if let Some(freeze) = error.freeze() {
            let detail = format!(
                "{freeze}, so nothing more was signed or sent; the operator of the proxy ends that with \
                 `agentpmt-proxy thaw --state {}`, or a client with --admin by POST /proxy/thaw: send the \
                 call again then",
                error.folder().display()
            );
            return Self::new(&problems::FROZEN, detail);
        }
        let detail = format!("{error}; nothing was signed");
        Self::new(&problems::JOURNAL_UNAVAILABLE, detail)
    }

    fn answer_lost(action: &Action, processed: Option<bool>, seen: &JobStatus, what: &str) -> Self {
        let mut problem = Self::new(
            &problems::OUTCOME_UNKNOWN,
            format!("the answer to {action} was lost; {what}"),
        );
        problem.more.insert("processed".to_owned(), processed.into());
        problem.more.insert("job_status".to_owned(), seen.job.clone().into());
        problem.more.insert("submission_status".to_owned(), seen.submission.clone().into());
        problem
    }

    /// The policy does not allow a payment.
    fn declined(declined: &Declined) -> Self {
        let problem = Self::new(declined.kind(), format!("{declined}; nothing was paid"));
        let until = match declined {
            Declined::LimitReached { limit, left, until, .. } => {
                let mut problem = problem;
                problem.more.insert("limit".to_owned(), limit.to_string().into());
                problem.more.insert("left".to_owned(), left.to_string().into());
                problem.more.insert("until".to_owned(), until.to_string().into());
                return problem.after(*until);
            }
            Declined::Open { until: Some(until), .. } => *until,
            _ => return problem,
        };
        problem.after(until)
    }

    /// The same request may have another answer then.
    fn after(self, time: Timestamp) -> Self {
        let seconds = seconds_until(time, Timestamp::now()).unwrap_or(1);
        Self { retry_after: Some(HeaderValue::from(seconds)), ..self }
    }

    fn payment_unknown(action: &Action, until: Option<Timestamp>) -> Self {
        let detail = match until {
            Some(until) => format!(
                "what became of the payment for {action} is not known; send the same call again, \
                 which repeats that payment or asks after it, and look at the balance: no other is \
                 made before {until}, when it ends"
            ),
            None => format!(
                "the answer to {action} under this key was lost, and it may have been paid for; look \
                 at the balance, and to pay again, once no earlier payment of the call can be cashed \
                 any more, send it under a new Idempotency-Key"
            ),
        };
        let mut problem = Self::new(&problems::OUTCOME_UNKNOWN, detail);
        problem.more.insert("processed".to_owned(), Value::Null);
        problem
    }

    fn spending_unknown(action: &Action, before: Option<&str>, now: Option<&str>) -> Self {
        let number = |credits: Option<&str>| credits.unwrap_or("unknown").to_owned();
        let detail = format!(
            "the answer to {action} was lost, and it may have spent credits: the balance was {} when it \
             was last seen before, and is {} now, but other calls of the wallet change it too; to make \
             the call again, send it under a new Idempotency-Key, or none",
            number(before),
            number(now)
        );
        Self::new(&problems::OUTCOME_UNKNOWN, detail).with_balances(before, now)
    }

    /// With the credits of the wallet before and after a call whose outcome is not known.
    fn with_balances(mut self, before: Option<&str>, now: Option<&str>) -> Self {
        let json = |credits: Option<&str>| credits.and_then(|text| serde_json::from_str(text).ok());
        self.more.insert("processed".to_owned(), Value::Null);
        for (name, credits) in [("balance_before", before), ("balance_now", now)] {
            self.more.insert(name.to_owned(), json(credits).unwrap_or(Value::Null));
        }
        self
    }

    fn no_session(error: &SessionError) -> Self {
        let (advice, retry_after) = match error {
            SessionError::Upstream(error) => return Self::no_answer(false, error),
            SessionError::NoNonce(_) => (Retry::Safe.advice(), None),
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
        let problem = Self::new(&problems::SESSION_FAILED, format!("{error}; {advice}"));
        Self { retry_after, ..problem.retry(retry) }
    }

    fn no_answer(changes: bool, error: &UpstreamError) -> Self {
        let why = &error.why;
        let retry = match why {
            Unanswered::Moved { .. } | Unanswered::Foreign(_) | Unanswered::NotHttp(_) => {
                Retry::Never
            }
            _ if error.was_sent() => after_sending(changes),
            _ => Retry::Safe,
        };
        let (kind, advice) = match why {
            Unanswered::Unreachable(_) | Unanswered::Failing(_) => {
                (&problems::UPSTREAM_UNREACHABLE, UNREACHABLE)
            }
            Unanswered::Moved { .. } => (&problems::UPSTREAM_MOVED, MOVED),
            Unanswered::Foreign(_) if changes => (&problems::UPSTREAM_FOREIGN, FOREIGN_TO_CHANGE),
            Unanswered::Foreign(_) | Unanswered::NotHttp(_) => {
                (&problems::UPSTREAM_FOREIGN, FOREIGN)
            }
            Unanswered::Busy(_) => (
                &problems::OVERLOADED,
                "nothing was sent, so send it again later; if the upstream is well, raise \
                 upstream.max_calls",
            ),
            Unanswered::TooLarge => (
                &problems::ANSWER_TOO_LARGE,
                "ask for less if the call can, as with a smaller limit",
            ),
            Unanswered::TimedOut => (&problems::UPSTREAM_TIMEOUT, retry.advice()),
            Unanswered::BrokenOff(_) | Unanswered::OtherJob => {
                (&problems::UPSTREAM_BROKE_OFF, retry.advice())
            }
        };
        let is_over_soon = !error.was_sent() || matches!(why, Unanswered::BrokenOff(_));
        let retry_after = (retry == Retry::Safe && is_over_soon).then_some(SOON);
        let problem = Self::new(kind, format!("{error}; {advice}"));
        Self { retry_after, ..problem.retry(retry) }
    }
}

impl From<InvalidWait> for Problem {
    fn from(error: InvalidWait) -> Self {
        Self::new(&problems::INVALID_FIELD, format!("{error}; nothing was sent"))
    }
}

impl From<InvalidCall> for Problem {
    fn from(error: InvalidCall) -> Self {
        let kind = match error {
            InvalidCall::Id { .. } | InvalidCall::IdCount { .. } => &problems::INVALID_ID,
            InvalidCall::Body(_) => &problems::INVALID_BODY,
            InvalidCall::TwoProofs => &problems::TWO_PROOFS,
            InvalidCall::Field { .. } | InvalidCall::NoObject { .. } | InvalidCall::Wrapped => {
                &problems::INVALID_FIELD
            }
        };
        let example = match &error {
            InvalidCall::Body(_) => "; send an object such as {\"limit\": 10}",
            _ => "",
        };
        Self::new(kind, format!("{error}{example}; nothing was sent"))
    }
}

/// For a call that went out and was not answered.
fn after_sending(changes: bool) -> Retry {
    if changes { Retry::CheckFirst } else { Retry::Safe }
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
