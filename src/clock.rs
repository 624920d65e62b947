//! The steady clock, which setting the wall clock does not move: it dates keys and settle times. Also how
//! far two clocks may differ.

use std::{
    sync::OnceLock,
    time::{Duration, Instant},
};

use jiff::{SignedDuration, Timestamp};

/// How far two clocks may differ and still agree.
pub(crate) const TOLERANCE: SignedDuration = SignedDuration::from_secs(5);

/// A moment, by both clocks.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// By the wall clock, which may be set.
    pub wall: Timestamp,
    /// By the steady clock.
    pub steady: Timestamp,
}

impl Moment {
    /// This moment.
    pub fn now() -> Self {
        Self { wall: Timestamp::now(), steady: steady() }
    }
}

/// The time by the steady clock: the wall clock's time when this process first asked, and the time since.
pub(crate) fn steady() -> Timestamp {
    static START: OnceLock<(Timestamp, Instant, Duration)> = OnceLock::new();
    let (start, begun, before) = START.get_or_init(|| (Timestamp::now(), Instant::now(), slept()));
    *start + begun.elapsed() + slept().saturating_sub(*before)
}

/// The middle of the time that is left until a deadline: to wait until then leaves half for the rest.
pub(crate) fn half_way(deadline: tokio::time::Instant) -> tokio::time::Instant {
    let now = tokio::time::Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// The time since the start of the machine in which no program ran, as far as the system tells.
pub(crate) fn slept() -> Duration {
    let without_sleep = system::since_boot_awake();
    since_boot().zip(without_sleep).map_or(Duration::ZERO, |(all, awake)| all.saturating_sub(awake))
}

/// The time since the start of the machine, as far as the system tells.
pub(crate) fn since_boot() -> Option<Duration> {
    system::since_boot()
}

#[cfg(target_os = "linux")]
mod system {
    use std::time::Duration;

    use rustix::time::{ClockId, clock_gettime};

    pub(super) fn since_boot() -> Option<Duration> {
        read(ClockId::Boottime)
    }

    pub(super) fn since_boot_awake() -> Option<Duration> {
        read(ClockId::Monotonic)
    }

    fn read(clock: ClockId) -> Option<Duration> {
        let time = clock_gettime(clock);
        let seconds = u64::try_from(time.tv_sec).ok()?;
        Some(Duration::from_secs(seconds) + Duration::from_nanos(time.tv_nsec.unsigned_abs()))
    }
}

/// Not told by other systems.
#[cfg(not(target_os = "linux"))]
mod system {
    use std::time::Duration;

    pub(super) fn since_boot() -> Option<Duration> {
        None
    }

    pub(super) fn since_boot_awake() -> Option<Duration> {
        None
    }
}
