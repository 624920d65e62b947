//! The records of the background that were lost.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};

use super::error::Fault;

/// The records that were lost.
#[derive(Default)]
pub(super) struct Losses {
    count: AtomicU64,
    /// Whether the last record was lost.
    losing: AtomicBool,
}

impl Losses {
    /// How many there are.
    pub(super) fn count(&self) -> u64 {
        self.count.load(Relaxed)
    }

    /// Counts so many records if they were lost; logs when losing begins and when it ends.
    pub(super) fn hear(&self, records: u64, result: &Result<(), Fault>) {
        match result {
            _ if records == 0 => (),
            Ok(()) => {
                if self.losing.swap(false, Relaxed) {
                    let lost = self.count();
                    tracing::info!(lost, "the journal takes records again");
                }
            }
            Err(fault) => {
                self.count.fetch_add(records, Relaxed);
                if !self.losing.swap(true, Relaxed) {
                    tracing::error!(%fault, "records of the journal are being lost");
                }
            }
        }
    }
}
