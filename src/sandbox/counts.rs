//! The counts of a sandbox since its start.

use std::collections::BTreeMap;

use serde::Serialize;

/// Counts since the start; those of jobs by their id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// Requests that arrived, whatever came of them; those of the control path are none.
    pub requests: u64,
    /// Sessions that were opened.
    pub sessions: u64,
    /// Correctly signed proofs that were processed, taken or refused.
    pub submissions: BTreeMap<String, u64>,
    /// Proofs that were taken.
    pub accepted: BTreeMap<String, u64>,
    /// Faults that struck, by their kind.
    pub faults: BTreeMap<&'static str, u64>,
}
