//! The settings of a sandbox.

use std::time::Duration;

use crate::action::{ACTIONS, Action};

/// The calls, times and jobs of a sandbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The calls that are answered.
    pub actions: &'static [Action],
    /// A session, from its opening.
    pub session: Duration,
    /// A reservation and its workflow token.
    pub reservation: Duration,
    /// The review of a submission, after which it is approved and paid.
    pub review: Duration,
    /// The credits that a wallet has at first.
    pub credits: i64,
    /// An answer of the tool that is slow.
    pub slow_tool: Duration,
    /// How often each job is there. Further copies have the id of the first with `-2`,
    /// `-3` and so on behind it.
    pub copies: u32,
}

impl Default for Settings {
    /// All calls; 900 seconds, 30 minutes, 5 and 20 seconds; no credits; each job once.
    fn default() -> Self {
        Self {
            actions: ACTIONS,
            session: Duration::from_secs(900),
            reservation: Duration::from_secs(30 * 60),
            review: Duration::from_secs(5),
            credits: 0,
            slow_tool: Duration::from_secs(20),
            copies: 1,
        }
    }
}
