//! Faults on demand: their kind, the calls at which they strike, and how often.

mod kind;

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use jiff::SignedDuration;
use serde::{Deserialize, Deserializer, Serialize, de::Error as _};
use serde_json::Value;

use crate::action::{ACTIONS, Action, SESSION_PATH};

use super::time::duration;

pub(super) use self::kind::{AfterCall, BeforeCall, OnPayment, Strike, Twist};
pub use self::kind::{FaultKind, KINDS};

/// One fault. It is written `KIND[:ACTION[:TIMES]]`, as in `cut_after:job_complete:1`, or as a JSON
/// object with `kind` and, if wanted, `action`, `times`, `delay` and `retry_after`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct InjectedFault {
    /// The kind of fault.
    pub kind: &'static FaultKind,
    /// The calls at which it strikes.
    pub target: FaultTarget,
    /// How often it strikes; always without a number.
    pub times: Option<NonZeroU32>,
    /// How long the slow kinds wait.
    pub delay: Duration,
    /// The `Retry-After` of the kinds that send it, in seconds.
    pub retry_after: u32,
}

impl InjectedFault {
    /// A fault at every call, always: one second slow, or with a `Retry-After` of 1.
    pub fn new(kind: &'static FaultKind) -> Self {
        let (target, times) = (FaultTarget::Any, None);
        Self { kind, target, times, delay: Duration::from_secs(1), retry_after: 1 }
    }
}

/// A fault of a request that has a payment, for the call that takes it.
#[derive(Debug, Clone, Copy)]
pub(super) enum PaidFault {
    /// It is settled after this time.
    SettlesLate(Duration),
    /// It is refused, with another challenge.
    Refused,
}

/// The calls at which a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultTarget {
    /// Every call.
    Any,
    /// The opening of a session.
    Session,
    /// One row of the table of calls.
    Action(&'static Action),
}

impl FaultTarget {
    /// The calls of a route; a route that is none of the protocol is only part of `Any`.
    pub(super) fn of_route(actions: &'static [Action], route: &str) -> Self {
        let action = || actions.iter().find(|action| action.path == route);
        if route == SESSION_PATH { Self::Session } else { action().map_or(Self::Any, Self::Action) }
    }

    /// Two rows may share a route, which then is struck for both.
    pub(super) fn includes(self, call: Self) -> bool {
        match (self, call) {
            (Self::Action(own), Self::Action(of)) => {
                (&own.method, own.path) == (&of.method, of.path)
            }
            _ => self == Self::Any || self == call,
        }
    }

    fn all() -> impl Iterator<Item = Self> {
        [Self::Any, Self::Session].into_iter().chain(ACTIONS.iter().map(Self::Action))
    }
}

impl fmt::Display for FaultTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "any",
            Self::Session => "session",
            Self::Action(action) => action.name,
        })
    }
}

impl FromStr for FaultTarget {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let target = Self::all().find(|target| target.to_string() == text);
        target.ok_or_else(|| InvalidFault::Action(text.to_owned()))
    }
}

/// Why a text describes no fault.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidFault {
    /// More parts than there are.
    #[error("a fault is KIND[:ACTION[:TIMES]], as in cut_after:job_complete:1")]
    Form,
    /// No kind of fault.
    #[error("there is no fault {0}; the kinds are {known}", known = listed(KINDS.iter().map(FaultKind::name)))]
    Kind(String),
    /// No action.
    #[error("there is no action {0}; the actions are {known}", known = listed(FaultTarget::all()))]
    Action(String),
    /// Not a number of calls.
    #[error("times is a whole number of at least 1; leave it out for always")]
    Times,
    /// Not a length of time.
    #[error("delay is a text with its unit, such as \"500ms\" or \"3s\"")]
    Delay,
}

fn listed<T: fmt::Display>(items: impl Iterator<Item = T>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(", ")
}

impl FromStr for InjectedFault {
    type Err = InvalidFault;

    fn from_str(text: &str) -> Result<Self, InvalidFault> {
        let mut parts = text.split(':').map(str::to_owned);
        let kind = parts.next().unwrap_or_default();
        let action = parts.next();
        let times = parts.next().map(|times| times.parse().map_err(|_| InvalidFault::Times));
        let written = Written { kind, action, times: times.transpose()?, ..Written::default() };
        if parts.next().is_some() { Err(InvalidFault::Form) } else { written.try_into() }
    }
}

/// A fault as it is written, with its words not yet looked up.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    kind: String,
    action: Option<String>,
    times: Option<u32>,
    #[serde(default, deserialize_with = "delay")]
    delay: Option<String>,
    retry_after: Option<u32>,
}

/// A number has no unit, which is said instead of what the parser finds.
fn delay<'de, D: Deserializer<'de>>(given: D) -> Result<Option<String>, D::Error> {
    match Value::deserialize(given)? {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text)),
        _ => Err(D::Error::custom(InvalidFault::Delay)),
    }
}

impl TryFrom<Written> for InjectedFault {
    type Error = InvalidFault;

    fn try_from(written: Written) -> Result<Self, InvalidFault> {
        let kind = FaultKind::named(&written.kind).ok_or(InvalidFault::Kind(written.kind))?;
        let usual = Self::new(kind);
        let times = written.times.map(|times| NonZeroU32::new(times).ok_or(InvalidFault::Times));
        let delay = written.delay.map(|text| duration(&text).ok_or(InvalidFault::Delay));
        Ok(Self {
            kind,
            target: written.action.map_or(Ok(usual.target), |action| action.parse())?,
            times: times.transpose()?,
            delay: delay.transpose()?.unwrap_or(usual.delay),
            retry_after: written.retry_after.unwrap_or(usual.retry_after),
        })
    }
}

impl From<InjectedFault> for Written {
    fn from(fault: InjectedFault) -> Self {
        let delay = SignedDuration::try_from(fault.delay).unwrap_or(SignedDuration::MAX);
        Self {
            kind: fault.kind.name().to_owned(),
            action: Some(fault.target.to_string()),
            times: fault.times.map(NonZeroU32::get),
            delay: Some(format!("{delay:#}")),
            retry_after: Some(fault.retry_after),
        }
    }
}
