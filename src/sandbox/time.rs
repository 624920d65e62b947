//! The time, lengths of it, and ends.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp, Unit};

/// A length of time with its unit, such as `500ms` or `15m`; more than none.
pub fn duration(text: &str) -> Option<Duration> {
    let duration: Option<SignedDuration> = text.parse().ok().filter(SignedDuration::is_positive);
    duration.map(|duration| duration.unsigned_abs())
}

/// The end of something that begins at `start`; the last timestamp there is if it lies beyond.
pub(super) fn end_of(start: Timestamp, duration: Duration) -> Timestamp {
    start.checked_add(duration).unwrap_or(Timestamp::MAX)
}

/// The time in whole milliseconds: some RFC 3339 readers take no more digits.
pub(super) fn now() -> Timestamp {
    let now = Timestamp::now();
    now.round(Unit::Millisecond).unwrap_or(now)
}
