//! Who holds a job, and how many jobs a client holds: rules over rows, which read and write nothing.

use std::collections::HashMap;

use jiff::Timestamp;

use crate::{canonical::CanonicalJson, clock, types::ClientId};

/// One client's hold of one job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Hold {
    pub(super) client: ClientId,
    pub(super) client_name: String,
    pub(super) wallet: String,
    pub(super) job: String,
    pub(super) state: State,
    /// In milliseconds of Unix time.
    pub(super) ends: i64,
    /// The upstream's id of the reservation.
    pub(super) reservation_id: Option<String>,
}

/// How far a hold is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The reserve is under way, or its answer was lost.
    Pending,
    /// The job is reserved.
    Reserved,
    /// The job's proof is submitted.
    Submitted,
}

impl State {
    /// As it is stored.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Reserved => "reserved",
            Self::Submitted => "submitted",
        }
    }

    pub(super) fn from_str(text: &str) -> Option<Self> {
        [Self::Pending, Self::Reserved, Self::Submitted]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

/// The holds of one job, by all clients.
#[derive(Debug, Default)]
pub(super) struct Holds(pub(super) Vec<Hold>);

impl Holds {
    /// The client that holds the job: whose reservation runs; or who has submitted its proof; or whose
    /// reserve is under way or may have succeeded, which comes last, as it may fail. If there is none, the
    /// client that asks, if it was the last to reserve the job: a clock that is wrong takes nothing from
    /// it.
    pub(super) fn holder(&self, asks: ClientId, now: Timestamp) -> Option<&Hold> {
        let runs = |hold: &&Hold| hold.ends > surely_over(now);
        let of = |state| self.0.iter().filter(move |hold| hold.state == state);
        of(State::Reserved)
            .find(runs)
            .or_else(|| of(State::Submitted).next())
            .or_else(|| of(State::Pending).find(runs))
            .or_else(|| of(State::Reserved).find(|hold| hold.client == asks))
    }

    /// Whether another client keeps this one from reserving the job. A submission does not: only the
    /// upstream knows whether the job is open again.
    pub(super) fn is_reserved_by_another(&self, client: ClientId, now: Timestamp) -> bool {
        self.0.iter().any(|hold| {
            hold.state != State::Submitted && hold.ends > surely_over(now) && hold.client != client
        })
    }

    /// The reservation; also one that has ended, for a day.
    pub(super) fn reserved(&self) -> Option<&Hold> {
        self.0.iter().find(|hold| hold.state == State::Reserved)
    }

    /// The submission, as long as the job was not reserved since.
    pub(super) fn submitted(&self) -> Option<&Hold> {
        self.0.iter().find(|hold| hold.state == State::Submitted)
    }

    /// Whether a completion is over that names this reservation or none: a submitted job takes no other
    /// proof, unless that is for another reservation than the one that was submitted.
    pub(super) fn is_submitted(&self, named: Option<&CanonicalJson>) -> bool {
        let Some(submitted) = self.submitted().filter(|_| self.reserved().is_none()) else {
            return false;
        };
        let own = submitted.reservation_id.as_deref().map(CanonicalJson::string);
        named.is_none() || named == own.as_ref()
    }

    /// Whether the job may have been reserved again since a completion that named no reservation.
    pub(super) fn may_be_anew(&self, named: Option<&CanonicalJson>) -> bool {
        let mut known = [self.reserved(), self.submitted()].into_iter().flatten();
        let is_unknown = |hold: &Hold| hold.reservation_id.is_none();
        named.is_none() && self.reserved().is_some() && known.all(is_unknown)
    }
}

/// How many jobs a client with these holds has reserved, or is about to, besides one job of a wallet, and
/// when the first of them ends. Several reserves of one job count once.
pub(super) fn running(
    holds: &[Hold],
    [wallet, job]: [&str; 2],
    now: Timestamp,
) -> (u32, Timestamp) {
    let mut ends = HashMap::<_, i64>::new();
    for hold in holds.iter().filter(|hold| hold.state != State::Submitted) {
        let is_same = hold.wallet == wallet && hold.job.eq_ignore_ascii_case(job);
        if hold.ends > now.as_millisecond() && !is_same {
            let end = ends.entry((&hold.wallet, hold.job.to_ascii_lowercase())).or_default();
            *end = hold.ends.max(*end);
        }
    }
    let first = ends.values().min().and_then(|end| Timestamp::from_millisecond(*end).ok());
    (u32::try_from(ends.len()).unwrap_or(u32::MAX), first.unwrap_or(now))
}

/// What ended by then, in milliseconds, is over on any clock.
pub(super) fn surely_over(now: Timestamp) -> i64 {
    now.as_millisecond().saturating_sub(clock::TOLERANCE.as_millis() as i64)
}
