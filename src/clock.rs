//! The time by a clock that nobody sets: what keeps a change from being made twice goes by it.

use std::{sync::OnceLock, time::Instant};

use jiff::Timestamp;

/// The wall clock's time when it was first asked for in this process, and what has passed since.
pub(crate) fn now() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant)> = OnceLock::new();
    let (start, begun) = START.get_or_init(|| (Timestamp::now(), Instant::now()));
    *start + begun.elapsed()
}
