//! Which refused calls are recorded one by one: a refused caller can go on, and must not fill the disk.

use std::{
    collections::HashMap,
    mem,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use super::denial::{Caller, Denial};
use crate::types::ClientName;

/// How long refusals are counted before the count is recorded.
pub(super) const MINUTE: Duration = Duration::from_secs(60);

/// How many refusals of a client, and of all unknown callers together, are recorded one by one in a minute.
const SINGLE: u32 = 60;

/// The refused calls of the last minute.
#[derive(Debug, Default)]
pub(super) struct Refusals(Mutex<HashMap<Option<ClientName>, Recent>>);

/// The refusals of one client in a minute.
#[derive(Debug)]
struct Recent {
    begun: Instant,
    single: u32,
    more: Option<More>,
}

/// Refusals that were not recorded.
#[derive(Debug)]
pub(super) struct More {
    /// The last of them.
    pub(super) last: Denial,
    pub(super) count: u64,
}

/// How a refused call gets on record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Recording {
    /// It is recorded.
    Record,
    /// It is counted, and the count is to be recorded after a minute.
    Begin,
    /// It is counted.
    Count,
}

impl Refusals {
    /// Counts one more.
    pub(super) fn next(&self, denial: &Denial, now: Instant) -> Recording {
        let mut all = self.all();
        let fresh = || Recent { begun: now, single: 0, more: None };
        let recent = all.entry(key(denial)).or_insert_with(fresh);
        if recent.more.is_none() && now.duration_since(recent.begun) >= MINUTE {
            *recent = fresh();
        }
        if recent.single < SINGLE {
            recent.single += 1;
            return Recording::Record;
        }
        match &mut recent.more {
            Some(more) => {
                *more = More { last: denial.clone(), count: more.count + 1 };
                Recording::Count
            }
            none => {
                *none = Some(More { last: denial.clone(), count: 1 });
                Recording::Begin
            }
        }
    }

    /// The refusals of a caller that were only counted; its next minute begins.
    pub(super) fn end_of_minute(&self, denial: &Denial, now: Instant) -> Option<More> {
        let mut all = self.all();
        let recent = all.get_mut(&key(denial))?;
        recent.begun = now;
        mem::take(&mut recent.more)
    }

    /// The refusals of all callers that were only counted.
    pub(super) fn take(&self) -> Vec<More> {
        self.all().values_mut().filter_map(|recent| mem::take(&mut recent.more)).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<Option<ClientName>, Recent>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The client, or `None` for all unknown callers.
fn key(denial: &Denial) -> Option<ClientName> {
    match &denial.caller {
        Caller::Client(name) => Some(name.clone()),
        Caller::Unknown(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::RequestId;

    fn denial(caller: Caller) -> Denial {
        let (call_id, reason) = (RequestId::random(), "rate");
        Denial { call_id, caller, wallet: None, action: "job_list", product: None, reason }
    }

    #[test]
    fn a_flood_is_recorded_in_part_and_then_as_a_count_a_minute() {
        let refusals = Refusals::default();
        let flood = denial(Caller::Client("flood".parse().unwrap()));
        let begun = Instant::now();
        let next = |seconds| refusals.next(&flood, begun + Duration::from_secs(seconds));
        let first: Vec<_> = (0..100).map(|_| next(0)).collect();
        assert!(first[..60].iter().all(|next| *next == Recording::Record));
        assert_eq!(first[60], Recording::Begin);
        assert!(first[61..].iter().all(|next| *next == Recording::Count));
        let end = |seconds| refusals.end_of_minute(&flood, begun + Duration::from_secs(seconds));
        assert_eq!(end(60).unwrap().count, 40);
        assert_eq!((next(61), next(62)), (Recording::Begin, Recording::Count), "it goes on");
        assert_eq!(end(120).unwrap().count, 2);
        assert!(end(180).is_none());
        assert_eq!(next(240), Recording::Record, "after a quiet minute");
    }

    #[test]
    fn a_client_is_counted_by_itself_and_strangers_together() {
        let refusals = Refusals::default();
        let now = Instant::now();
        let records = |caller: Caller| refusals.next(&denial(caller), now) == Recording::Record;
        let stranger = |number: u32| Caller::Unknown(format!("192.0.2.{number}"));
        assert_eq!((0..100).filter(|number| records(stranger(*number))).count(), 60);
        assert!(records(Caller::Client("ci".parse().unwrap())));
        let counts: Vec<_> = refusals.take().iter().map(|more| more.count).collect();
        assert_eq!(counts, [40]);
        assert!(refusals.take().is_empty());
    }
}
