//! The time by a clock that nobody sets: what keeps a change from being made twice goes by it.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use jiff::Timestamp;

/// The wall clock's time when it was first asked for in this process, and what has passed since.
pub(crate) fn now() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant, Duration)> = OnceLock::new();
    let (start, begun, before) = START.get_or_init(|| (Timestamp::now(), Instant::now(), slept()));
    *start + begun.elapsed() + slept().saturating_sub(*before)
}

/// The time since the start of the machine in which no program ran, as far as the system tells.
#[cfg(target_os = "linux")]
pub(crate) fn slept() -> Duration {
    use rustix::time::{ClockId, clock_gettime};

    let [with_sleep, without] = [ClockId::Boottime, ClockId::Monotonic].map(|clock| {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
        Duration::from_secs(seconds) + Duration::from_nanos(time.tv_nsec.unsigned_abs())
    });
    with_sleep.saturating_sub(without)
}

/// Not told by other systems.
#[cfg(not(target_os = "linux"))]
pub(crate) fn slept() -> Duration {
    Duration::ZERO
}
