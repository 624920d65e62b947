//! The values of options.

use std::time::Duration;

use jiff::{Span, Timestamp, ZonedDateTime, tz::TimeZone};

/// For options that are a number.
pub(super) fn number(text: &str) -> Result<u32, &'static str> {
    text.parse().map_err(|_| "expected a whole number from 0 to 4294967295, such as 1000")
}

/// For options that are a number of things.
pub(super) fn count(text: &str) -> Result<u32, &'static str> {
    let count = text.parse().ok().filter(|count| *count > 0);
    count.ok_or("expected a whole number of at least 1, such as 3")
}

/// For options that are a length of time.
pub(super) fn duration(text: &str) -> Result<Duration, &'static str> {
    crate::sandbox::duration(text).ok_or("expected a duration with its unit, such as 10s or 15m")
}

/// For options that are a time, or a length of time before now or after it.
pub(super) fn moment(
    text: &str,
    from_now: fn(&ZonedDateTime, Span) -> Result<ZonedDateTime, jiff::Error>,
) -> Option<Timestamp> {
    match text.parse() {
        Ok(span) => {
            let now = Timestamp::now().to_zoned_datetime(TimeZone::UTC);
            from_now(&now, span).map(|moment| moment.timestamp()).ok()
        }
        Err(_) => text.parse().ok(),
    }
}
