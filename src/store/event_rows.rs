//! The events in the journal, and what of the reservations they have told.
//!
//! Events are recorded from the first listener on, and for a day after the last one has gone. A listener
//! that comes back within that day misses none, also after a restart. Proxies whose events have no listener
//! record none.

use jiff::{SignedDuration, Timestamp};

use super::{
    db::{Db, Row},
    end::End,
    error::Fault,
    event::{Event, EventKind, RecordedEvent},
    record::{Chain, Draft},
};
use crate::types::{Address, ClientId, Slug};

/// How long events are recorded after a listener was there.
const RECORDED: SignedDuration = SignedDuration::from_hours(24);

/// How old that may be before it is noted again.
const NOTED: SignedDuration = SignedDuration::from_hours(1);

/// How many records are looked through at a time: other reads wait meanwhile.
const PAGE: u64 = 4096;

/// How long before its end a reservation is told of, and how far `told` is then. The last is its end.
const STAGES: [(SignedDuration, i64); 3] = [
    (SignedDuration::ZERO, TOLD),
    (SignedDuration::from_mins(1), 2),
    (SignedDuration::from_mins(5), 1),
];

/// `told` of a row of which nothing is left to tell.
const TOLD: i64 = 3;

/// The events of a part of the journal.
#[derive(Debug)]
pub struct EventPage {
    /// The events, in order.
    pub events: Vec<RecordedEvent>,
    /// The number of the last record that was looked at.
    pub until: u64,
    /// The number of the last record.
    pub end: u64,
}

/// A proof whose review has no end yet, as far as was told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSubmission {
    /// The wallet that submitted it.
    pub wallet: Address,
    /// The job.
    pub job: Slug,
    /// The client that did the job.
    pub client: ClientId,
    /// When it was submitted.
    pub submitted: Timestamp,
}

/// Until when events are recorded.
pub(super) fn recorded_until(db: &Db) -> Result<Timestamp, Fault> {
    db.one("SELECT until FROM listening", &[], |row| row.time(0))
}

/// Whether the record that a listener is there is too old.
pub(super) fn is_to_be_noted(until: Timestamp, now: Timestamp) -> bool {
    until < now + RECORDED - NOTED
}

/// Notes that a listener is there. If none was for long, what has ended before is not told.
pub(super) fn note_listener(db: &Db, now: Timestamp) -> Result<(), Fault> {
    if recorded_until(db)? <= now {
        let sql = "UPDATE reservations SET told = ?1
                   WHERE state = 'reserved' AND told < 3 AND ends <= ?2";
        db.execute(sql, &[TOLD.into(), now.into()])?;
    }
    db.execute("UPDATE listening SET until = ?1", &[(now + RECORDED).into()]).map(drop)
}

/// Records an event, if events are recorded.
pub(super) fn tell(db: &Db, event: &Event, now: Timestamp) -> Result<(), Fault> {
    if recorded_until(db)? <= now {
        return Ok(());
    }
    append(db, event, now)
}

pub(super) fn append(db: &Db, event: &Event, now: Timestamp) -> Result<(), Fault> {
    Chain::read(db)?.append(Draft::event(event, now))
}

/// The events after a record, in a part of the journal.
pub(super) fn after(db: &Db, seq: u64) -> Result<EventPage, Fault> {
    let end = End::read(db)?.seq;
    // Records before that are in an archive.
    let seq = seq.max(End::before(db)?.seq);
    let until = seq.saturating_add(PAGE).min(end);
    let sql = r#"SELECT record FROM journal
                 WHERE seq > ?1 AND seq <= ?2 AND record LIKE '%"kind":"event"%' ORDER BY seq"#;
    let read = |row: &Row<'_>| Ok(RecordedEvent::read(row.text(0)?));
    let events = db.rows(sql, &[seq.into(), until.into()], read)?;
    Ok(EventPage { events: events.into_iter().flatten().collect(), until, end })
}

/// Whether a reservation ends soon, or has ended, of which that is not told yet.
pub(super) fn is_due(db: &Db, now: Timestamp) -> Result<bool, Fault> {
    Ok(!due(db, now)?.is_empty())
}

/// Tells of the reservations that end soon or have ended.
pub(super) fn tell_ends(db: &Db, now: Timestamp) -> Result<(), Fault> {
    for (row, event, told) in due(db, now)? {
        db.execute("UPDATE reservations SET told = ?1 WHERE id = ?2", &[told.into(), row.into()])?;
        append(db, &event, now)?;
    }
    Ok(())
}

/// The rows of which there is something to tell, the event, and how far `told` is then.
fn due(db: &Db, now: Timestamp) -> Result<Vec<(i64, Event, i64)>, Fault> {
    let sql = "SELECT id, wallet, job, client, client_name, ends, told FROM reservations
               WHERE state = 'reserved' AND NOT released AND told < 3 AND ends <= ?1
               ORDER BY ends";
    let latest = now + STAGES[2].0;
    let rows = db.rows(sql, &[latest.into()], |row| {
        let (ends, told): (_, i64) = (row.time(5)?, row.int(6)?);
        let stage = STAGES.iter().find(|(before, _)| ends <= now + *before);
        let stage = stage.map_or(0, |(_, stage)| *stage);
        let kind = match stage {
            TOLD => EventKind::ReservationEnded,
            _ => EventKind::ReservationEnding,
        };
        let event = Event { reserved_until: Some(ends), ..of_job(row, kind)? };
        Ok((stage > told).then_some((row.int(0)?, event, stage)))
    })?;
    Ok(rows.into_iter().flatten().collect())
}

/// The proofs submitted since a time whose review has no end yet, the last ones first.
pub(super) fn open_submissions(
    db: &Db,
    since: Timestamp,
    most: u32,
) -> Result<Vec<OpenSubmission>, Fault> {
    let sql = "SELECT wallet, job, client, ends FROM reservations
               WHERE state = 'submitted' AND told < 3 AND ends > ?1 ORDER BY ends DESC LIMIT ?2";
    db.rows(sql, &[since.into(), most.into()], |row| {
        Ok(OpenSubmission {
            wallet: row.parsed(0, "wallet address")?,
            job: row.parsed(1, "job id")?,
            client: ClientId::new(row.int(2)?),
            submitted: row.time(3)?,
        })
    })
}

/// Tells that the review of a proof has an end, once.
pub(super) fn tell_review(
    db: &Db,
    [wallet, job]: [&str; 2],
    kind: EventKind,
    reward_credits: Option<u64>,
    now: Timestamp,
) -> Result<(), Fault> {
    let sql = "UPDATE reservations SET told = ?3
               WHERE wallet = ?1 AND job = ?2 AND state = 'submitted' AND told < 3
               RETURNING id, wallet, job, client, client_name";
    let row = db.row(sql, &[wallet.into(), job.into(), TOLD.into()], |row| of_job(row, kind))?;
    let Some(event) = row else { return Ok(()) };
    tell(db, &Event { reward_credits, ..event }, now)
}

fn of_job(row: &Row<'_>, kind: EventKind) -> Result<Event, Fault> {
    Ok(Event {
        client: Some((ClientId::new(row.int(3)?), row.parsed(4, "client")?)),
        wallet: Some(row.parsed(1, "wallet address")?),
        job: Some(row.parsed(2, "job id")?),
        ..Event::new(kind)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::{
        deed::Deed,
        schema::{MIGRATIONS, migrate},
        testing::{WALLET, at},
    };

    fn db() -> Db {
        let db = Db::in_memory();
        migrate(&db, MIGRATIONS).unwrap();
        db
    }

    fn hold(db: &Db, job: &str, state: &str, ends: i64) {
        let sql =
            "INSERT INTO reservations (wallet, job, client, client_name, state, ends, forgotten)
                   VALUES (?1, ?2, 7, 'ci', ?3, ?4, 0)";
        db.execute(sql, &[WALLET.into(), job.into(), state.into(), at(ends).into()]).unwrap();
    }

    fn told(db: &Db) -> Vec<String> {
        let events = after(db, 0).unwrap().events.into_iter().map(|told| told.event);
        let text = |event: Event| {
            format!(
                "{} {}",
                event.kind.as_str(),
                event.job.map_or(String::new(), |job| job.to_string())
            )
        };
        events.map(text).collect()
    }

    #[test]
    fn each_stage_of_a_reservation_is_told_once_and_of_several_the_last() {
        let db = db();
        note_listener(&db, at(0)).unwrap();
        hold(&db, "long", "reserved", 1800);
        hold(&db, "short", "reserved", 30);
        hold(&db, "over", "reserved", -1);
        hold(&db, "proof", "submitted", 0);
        tell_ends(&db, at(0)).unwrap();
        assert_eq!(told(&db), ["reservation_ended over", "reservation_ending short"]);
        for seconds in [1, 31, 1499, 1500, 1501, 1740, 1799, 1800, 9999] {
            tell_ends(&db, at(seconds)).unwrap();
            assert!(!is_due(&db, at(seconds)).unwrap());
        }
        let later =
            ["short", "long", "long", "long"].iter().zip(["ended", "ending", "ending", "ended"]);
        let later: Vec<_> = later.map(|(job, how)| format!("reservation_{how} {job}")).collect();
        assert_eq!(told(&db)[2..], later);
    }

    #[test]
    fn what_ended_before_any_listener_is_not_told_and_what_ends_between_two_is() {
        let db = db();
        hold(&db, "before", "reserved", -60);
        hold(&db, "during", "reserved", 60);
        note_listener(&db, at(0)).unwrap();
        assert!(is_to_be_noted(recorded_until(&db).unwrap(), at(3601)));
        assert!(!is_to_be_noted(recorded_until(&db).unwrap(), at(3599)));
        // It comes back within the day.
        note_listener(&db, at(7200)).unwrap();
        tell_ends(&db, at(7200)).unwrap();
        assert_eq!(told(&db), ["reservation_ended during"]);
    }

    #[test]
    fn the_end_of_a_review_is_told_once_and_only_to_those_who_listen() {
        let db = db();
        hold(&db, "JOB1", "submitted", 0);
        hold(&db, "job2", "submitted", 0);
        let open = |db: &Db| open_submissions(db, at(-1), 9).unwrap().len();
        let approved = |db: &Db, job| {
            let kind = EventKind::SubmissionApproved;
            tell_review(db, [WALLET, job], kind, Some(500), at(1)).unwrap();
        };
        assert_eq!((open(&db), open_submissions(&db, at(0), 9).unwrap().len()), (2, 0));
        approved(&db, "job2");
        assert_eq!((open(&db), told(&db).len()), (1, 0), "no client listens");
        note_listener(&db, at(0)).unwrap();
        for job in ["job1", "job1", "job2", "job3"] {
            approved(&db, job);
        }
        assert_eq!((open(&db), told(&db)), (0, vec!["submission_approved JOB1".to_owned()]));
    }

    #[test]
    fn an_event_is_read_as_it_was_recorded_and_other_records_are_passed_over() {
        let db = db();
        note_listener(&db, at(0)).unwrap();
        let event = Event {
            client: Some((ClientId::new(7), "ci".parse().unwrap())),
            wallet: Some(WALLET.parse().unwrap()),
            job: Some("job1".parse().unwrap()),
            reserved_until: Some(at(60)),
            reward_credits: Some(u64::from(u32::MAX)),
            ..Event::new(EventKind::SubmissionApproved)
        };
        let deed =
            || Draft::admin(Deed::Reload, r#""kind":"event","event":"upstream_back""#, at(0));
        Chain::read(&db).unwrap().append(deed()).unwrap();
        tell(&db, &event, at(1)).unwrap();
        for kind in EventKind::ALL {
            tell(&db, &Event::new(kind), at(2)).unwrap();
        }
        let page = after(&db, 0).unwrap();
        assert_eq!(page.events[0], RecordedEvent { seq: 2, time: at(1), event });
        let kinds: Vec<_> = page.events[1..].iter().map(|told| told.event.kind).collect();
        assert_eq!((&*kinds, page.until, page.end), (&EventKind::ALL[..], 10, 10));
        assert_eq!(after(&db, 9).unwrap().events.len(), 1);
        assert!(after(&db, 10).unwrap().events.is_empty() && after(&db, 99).unwrap().until == 10);
        tell(&db, &Event::new(EventKind::UpstreamBack), at(24 * 3600)).unwrap();
        assert_eq!(after(&db, 0).unwrap().end, 10, "no client listens any more");
    }
}
