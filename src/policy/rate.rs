//! How often a client may call.

use std::{fmt, num::NonZeroU32, str::FromStr, time::Duration};

use jiff::Timestamp;

/// The most calls in a period.
const MAX: u32 = 1_000_000;

/// How far a stored time may lie beyond what the limit itself can have caused, in nanoseconds:
/// requests that arrive together are not counted in the order of their clocks. What lies further
/// ahead was stored before the clock was set back.
const SLACK: i64 = 60_000_000_000;

/// A number of calls in a period, as in `10/s`. So many may come at once after a pause, and never
/// more than so many and what the time since then allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    count: NonZeroU32,
    period: Period,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Period {
    Second,
    Minute,
    Hour,
    Day,
}

/// A text is no rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected a number from 1 to {MAX} and its period, such as 10/s, 600/m, 5/h or 100/d")]
pub struct InvalidRate;

impl Rate {
    /// Decides on one call, by the generic cell rate algorithm (ITU-T I.371). `arrival` is what was
    /// returned for the last call that was admitted: its theoretical arrival time, in nanoseconds
    /// since 1970.
    ///
    /// # Errors
    /// There were too many calls; the next is admitted after this time.
    pub fn admit(self, arrival: Option<i64>, now: Timestamp) -> Result<i64, Duration> {
        let now = nanoseconds(now);
        let latest = self.latest(now);
        let arrival = match arrival {
            Some(arrival) if arrival > latest.saturating_add(SLACK) => latest - self.interval(),
            arrival => arrival.unwrap_or(now).max(now),
        };
        let next = arrival.saturating_add(self.interval());
        let early = u64::try_from(next.saturating_sub(latest)).unwrap_or(0);
        if early == 0 { Ok(next) } else { Err(Duration::from_nanos(early)) }
    }

    /// Counts a call that was admitted already, even beyond the limit; later calls then wait longer. Returns
    /// its theoretical arrival time.
    pub fn count(self, arrival: Option<i64>, now: Timestamp) -> i64 {
        self.admit(arrival, now).unwrap_or_else(|_| {
            let arrival = arrival.unwrap_or_else(|| nanoseconds(now));
            let most = self.latest(nanoseconds(now)).saturating_add(SLACK);
            arrival.saturating_add(self.interval()).min(most)
        })
    }

    /// The latest theoretical arrival time of a call that is admitted.
    fn latest(self, now: i64) -> i64 {
        now.saturating_add(self.interval() * i64::from(self.count.get()))
    }

    /// The time between two calls, in nanoseconds, rounded up so that there are never too many.
    fn interval(self) -> i64 {
        let count = i64::from(self.count.get());
        (self.period.nanoseconds() + count - 1) / count
    }
}

/// The nanoseconds of an i64 end in the year 2262.
fn nanoseconds(now: Timestamp) -> i64 {
    i64::try_from(now.as_nanosecond()).unwrap_or(i64::MAX)
}

impl Period {
    const ALL: [Self; 4] = [Self::Second, Self::Minute, Self::Hour, Self::Day];

    fn name(self) -> &'static str {
        match self {
            Self::Second => "s",
            Self::Minute => "m",
            Self::Hour => "h",
            Self::Day => "d",
        }
    }

    fn nanoseconds(self) -> i64 {
        let seconds = match self {
            Self::Second => 1,
            Self::Minute => 60,
            Self::Hour => 60 * 60,
            Self::Day => 24 * 60 * 60,
        };
        seconds * 1_000_000_000
    }
}

impl FromStr for Rate {
    type Err = InvalidRate;

    fn from_str(text: &str) -> Result<Self, InvalidRate> {
        let (count, name) = text.split_once('/').ok_or(InvalidRate)?;
        let count: NonZeroU32 = count.trim().parse().map_err(|_| InvalidRate)?;
        let period = Period::ALL.into_iter().find(|period| period.name() == name.trim());
        let period = period.filter(|_| count.get() <= MAX).ok_or(InvalidRate)?;
        Ok(Self { count, period })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.count, self.period.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn rate(text: &str) -> Rate {
        text.parse().unwrap()
    }

    fn at(nanoseconds: i64) -> Timestamp {
        Timestamp::from_nanosecond(1_800_000_000_000_000_000 + i128::from(nanoseconds)).unwrap()
    }

    const SECOND: i64 = 1_000_000_000;

    /// How many of so many calls at one moment are admitted, and what is stored after them.
    fn burst(rate: Rate, mut arrival: Option<i64>, now: Timestamp, calls: u32) -> (u32, i64) {
        let mut admitted = 0;
        for _ in 0..calls {
            if let Ok(next) = rate.admit(arrival, now) {
                (arrival, admitted) = (Some(next), admitted + 1);
            }
        }
        (admitted, arrival.unwrap())
    }

    #[test]
    fn a_call_that_was_one_too_many_makes_the_next_ones_wait() {
        let rate = rate("10/s");
        let mut arrival = None;
        for _ in 0..15 {
            arrival = Some(rate.count(arrival, at(0)));
        }
        assert!(rate.admit(arrival, at(SECOND / 2)).is_err());
        assert!(rate.admit(arrival, at(SECOND / 2 + SECOND / 10)).is_ok());
        // No more than a clock that differs is allowed for: what lies further ahead is forgotten.
        let slow: Rate = "1/d".parse().unwrap();
        let arrival = (0..9).fold(None, |arrival, _| Some(slow.count(arrival, at(0))));
        assert!(slow.admit(arrival, at(0)).is_err());
    }

    #[test]
    fn a_rate_displays_as_it_is_read() {
        for text in ["10/s", "600/m", "5/h", "100/d", "1000000/s"] {
            assert_eq!(rate(text).to_string(), text);
        }
        for text in ["", "10", "0/s", "-1/s", "10/w", "10/", "/s", "1.5/s", "10/S", "1000001/s"] {
            assert_eq!(text.parse::<Rate>(), Err(InvalidRate), "{text}");
        }
    }

    #[test]
    fn a_burst_of_its_count_is_admitted_and_then_one_an_interval() {
        for (text, count, interval) in [
            ("10/s", 10, SECOND / 10),
            ("3/s", 3, 333_333_334),
            ("600/m", 600, SECOND / 10),
            ("5/h", 5, 720 * SECOND),
            ("100/d", 100, 864 * SECOND),
        ] {
            let (admitted, arrival) = burst(rate(text), None, at(0), count + 5);
            assert_eq!(admitted, count, "{text}");
            let refused = rate(text).admit(Some(arrival), at(0));
            assert_eq!(refused, Err(Duration::from_nanos(interval as u64)), "{text}");
            assert!(rate(text).admit(Some(arrival), at(interval - 1)).is_err(), "{text}");
            assert_eq!(burst(rate(text), Some(arrival), at(interval), 3).0, 1, "{text}");
            let rested = at(interval * i64::from(count));
            assert_eq!(burst(rate(text), Some(arrival), rested, count + 5).0, count, "{text}");
        }
    }

    #[test]
    fn a_clock_that_is_set_back_locks_nobody_out() {
        let (_, arrival) = burst(rate("10/s"), None, at(3600 * SECOND), 10);
        let (admitted, arrival) = burst(rate("10/s"), Some(arrival), at(0), 5);
        assert_eq!(admitted, 1);
        assert_eq!(burst(rate("10/s"), Some(arrival), at(SECOND), 20).0, 10);
    }

    #[test]
    fn the_end_of_time_overflows_nothing() {
        for arrival in [None, Some(i64::MIN), Some(i64::MAX)] {
            for now in [Timestamp::MIN, Timestamp::MAX] {
                let _ = rate("1/d").admit(arrival, now);
            }
        }
    }

    proptest! {
        #[test]
        fn no_stretch_of_time_has_more_than_the_count_and_what_its_length_allows(
            count in 1u32..50,
            period in 0usize..4,
            // Steps in hundredths of the time between two calls.
            steps in prop::collection::vec(0i64..300, 1..200),
        ) {
            let rate = Rate { count: NonZeroU32::new(count).unwrap(), period: Period::ALL[period] };
            let (mut now, mut arrival, mut admitted) = (0, None, Vec::new());
            for step in steps {
                now += step * rate.interval() / 100;
                match rate.admit(arrival, at(now)) {
                    Ok(next) => { arrival = Some(next); admitted.push(now) }
                    Err(wait) => {
                        let end = now + i64::try_from(wait.as_nanos()).unwrap();
                        prop_assert!(rate.admit(arrival, at(end - 1)).is_err());
                        prop_assert!(rate.admit(arrival, at(end)).is_ok());
                    }
                }
            }
            for (index, begin) in admitted.iter().enumerate() {
                for (calls, end) in (1i128..).zip(&admitted[index..]) {
                    let allowed = i128::from(end - begin) * i128::from(count);
                    let allowed = allowed / i128::from(rate.period.nanoseconds());
                    prop_assert!(calls <= i128::from(count) + allowed);
                }
            }
        }
    }
}
