//! Requests that wait for a change upstream: how long they may, and how often the proxy asks meanwhile.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use http::{HeaderMap, HeaderName};
use jiff::SignedDuration;

/// The longest wait of a request: clients give up after 60 seconds.
pub const LONGEST_WAIT: Duration = Duration::from_secs(50);

/// The shortest pause between two polls.
pub const SHORTEST_PAUSE: Duration = Duration::from_secs(2);

/// The longest.
pub const LONGEST_PAUSE: Duration = Duration::from_secs(30);

/// The header with preferences (RFC 7240).
pub(crate) const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Why a text is no wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("wait must be a duration from 0s to 50s, such as 20s")]
pub struct InvalidWait;

/// How long a request may wait: as long as its `wait` says, or else its `Prefer: wait=…`, or not at all.
/// A preference that cannot be used is none, and one that is too long is cut.
///
/// # Errors
/// Its `wait` cannot be used.
pub fn wait_of(given: Option<&str>, headers: &HeaderMap) -> Result<Duration, InvalidWait> {
    let Some(text) = given else { return Ok(preferred(headers).min(LONGEST_WAIT)) };
    let wait: SignedDuration = text.parse().map_err(|_| InvalidWait)?;
    let wait = Duration::try_from(wait).ok().filter(|wait| *wait <= LONGEST_WAIT);
    wait.ok_or(InvalidWait)
}

fn preferred(headers: &HeaderMap) -> Duration {
    let values = headers.get_all(PREFER).iter().filter_map(|value| value.to_str().ok());
    let mut preferences = values.flat_map(|value| value.split([',', ';']));
    let wait = preferences.find_map(|preference| {
        let (name, value) = preference.split_once('=')?;
        let seconds = value.trim().trim_matches('"').parse().ok();
        seconds.filter(|_| name.trim().eq_ignore_ascii_case("wait"))
    });
    wait.map_or(Duration::ZERO, Duration::from_secs)
}

/// The pace of polls: two seconds at first, then longer and longer up to half a minute, with jitter. A change
/// is a reason to begin anew.
#[derive(Debug)]
pub struct Pace(ExponentialBackoff);

impl Pace {
    /// The pause before the next poll.
    pub fn next_pause(&mut self) -> Duration {
        self.0.next().unwrap_or(LONGEST_PAUSE).min(LONGEST_PAUSE)
    }
}

impl Default for Pace {
    fn default() -> Self {
        let pauses = ExponentialBuilder::default()
            .with_min_delay(SHORTEST_PAUSE)
            .with_max_delay(LONGEST_PAUSE)
            .without_max_times()
            .with_jitter();
        Self(pauses.build())
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    fn seconds(given: Option<&str>, prefer: &[&str]) -> Option<u64> {
        let headers = iter::repeat(PREFER).zip(prefer.iter().map(|value| value.parse().unwrap()));
        wait_of(given, &HeaderMap::from_iter(headers)).ok().map(|wait| wait.as_secs())
    }

    #[test]
    fn a_request_waits_as_long_as_it_says_or_prefers() {
        assert_eq!(seconds(None, &[]), Some(0));
        for (given, expected) in
            [("20s", 20), ("0s", 0), ("50s", 50), ("50000ms", 50), ("PT1.9S", 1)]
        {
            assert_eq!(seconds(Some(given), &["wait=7"]), Some(expected), "{given}");
        }
        for given in ["", "20", "-1s", "51s", "1m", "1h", "soon", "9999999999999999999s"] {
            assert_eq!(seconds(Some(given), &["wait=7"]), None, "{given}");
        }
    }

    #[test]
    fn a_preference_that_cannot_be_used_is_none_and_one_that_is_too_long_is_cut() {
        for (prefer, expected) in [
            (&["wait=20"][..], 20),
            (&["respond-async, wait=20"], 20),
            (&["respond-async", "Wait = \"20\"; x"], 20),
            (&["wait=100"], 50),
            (&["wait=-1"], 0),
            (&["wait"], 0),
            (&["waiting=20"], 0),
            (&["wait=99999999999999999999"], 0),
        ] {
            assert_eq!(seconds(None, prefer), Some(expected), "{prefer:?}");
        }
    }

    #[test]
    fn pauses_grow_from_two_seconds_to_half_a_minute() {
        let mut pace = Pace::default();
        let pauses: Vec<_> =
            iter::repeat_with(|| pace.next_pause().as_secs_f32()).take(9).collect();
        for (pause, least) in pauses.iter().zip([2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0, 30.0]) {
            assert!((least..=30.0_f32.min(2.0 * least)).contains(pause), "{pauses:?}");
        }
    }
}
