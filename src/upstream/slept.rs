//! How long the machine has slept: its connections may lead nowhere afterwards.

use std::time::Duration;

/// The time since the start of the machine in which no program ran, as far as the system tells.
#[cfg(target_os = "linux")]
pub(super) fn slept() -> Duration {
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
pub(super) fn slept() -> Duration {
    Duration::ZERO
}
