//! The trace of one operation, from its arrival to its answer. Everything that happens to it is
//! told here, and all that is shown of it, as its log event, is made from here.

use std::{
    fmt::Display,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use tokio::sync::Notify;

use crate::{
    action::Action,
    types::{ClientName, RequestId, Slug},
};

/// The trace of one operation.
#[derive(Debug)]
pub struct Trace {
    /// The id of the local request, which is also in its answer.
    pub call_id: RequestId,
    arrived: Instant,
    named: OnceLock<Named>,
    attempts: AtomicU32,
    upstream: AtomicU64,
    abandoned: Notify,
}

#[derive(Debug)]
struct Named {
    client: ClientName,
    action: &'static str,
    product: Option<Slug>,
}

/// Something that happens to an operation. At the log level `debug`, each is an event of its own.
pub(crate) enum Step<'a> {
    /// Its client may make it now.
    Admitted,
    /// The ledger let it begin, or has its answer.
    Begun,
    /// An attempt of it is signed.
    Signed,
    /// An attempt of it, or a status probe for it, was sent and took so long.
    Sent(&'static Action, Duration),
    /// An attempt had this outcome, so it is made again or looked up.
    Again(&'a dyn Display),
    /// The lookup after a lost answer has ended: not made, reserved, submitted or unknown.
    Settled(&'static str),
    /// The outcome is on record, as far as it can be.
    Finished,
}

impl Trace {
    /// The trace of an operation that arrives now.
    pub fn new(call_id: RequestId) -> Self {
        Self {
            call_id,
            arrived: Instant::now(),
            named: OnceLock::new(),
            attempts: AtomicU32::new(0),
            upstream: AtomicU64::new(0),
            abandoned: Notify::new(),
        }
    }

    /// The name of the client, once it is known.
    pub fn client(&self) -> Option<&str> {
        self.named.get().map(|named| named.client.as_str())
    }

    /// The name of the action, once the client is known.
    pub fn action(&self) -> Option<&'static str> {
        self.named.get().map(|named| named.action)
    }

    /// The id of what the action is about, once the client is known.
    pub fn product(&self) -> Option<&str> {
        self.named.get().and_then(|named| named.product.as_ref()).map(Slug::as_str)
    }

    /// How long ago it arrived, in microseconds.
    pub fn microseconds(&self) -> u64 {
        microseconds(self.arrived.elapsed())
    }

    /// How many attempts were sent, also to an upstream that was not reached.
    pub fn attempts(&self) -> u32 {
        self.attempts.load(Relaxed)
    }

    /// How long the attempts took, in microseconds.
    pub fn upstream_microseconds(&self) -> u64 {
        self.upstream.load(Relaxed)
    }

    /// Tells that the client has gone away: an attempt that was not sent yet need not be.
    pub fn abandon(&self) {
        self.abandoned.notify_one();
    }

    /// Waits until the client has gone away. Of several tasks that wait, one is told.
    pub(crate) async fn abandoned(&self) {
        self.abandoned.notified().await;
    }

    /// Names the client, the action and what that is about.
    pub(crate) fn name(&self, client: &ClientName, action: &Action, product: Option<Slug>) {
        // An operation is named once.
        let _ = self.named.set(Named { client: client.clone(), action: action.name, product });
    }

    /// Tells what happens.
    pub(crate) fn tell(&self, step: Step<'_>) {
        if let Step::Sent(action, took) = step
            && self.action() == Some(action.name)
        {
            self.attempts.fetch_add(1, Relaxed);
            self.upstream.fetch_add(microseconds(took), Relaxed);
        }
        let (word, detail): (_, Option<&dyn Display>) = match &step {
            Step::Admitted => ("admitted", None),
            Step::Begun => ("begun", None),
            Step::Signed => ("signed", None),
            Step::Sent(action, _) => ("sent", Some(action)),
            Step::Again(outcome) => ("again", Some(outcome)),
            Step::Settled(how) => ("settled", Some(how)),
            Step::Finished => ("finished", None),
        };
        tracing::debug!(
            request_id = self.call_id.as_str(),
            microseconds = self.microseconds(),
            detail = detail.map(tracing::field::display),
            "{word}"
        );
    }
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}
