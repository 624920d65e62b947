//! The faults that wait for their calls.

use std::{collections::BTreeMap, num::NonZeroU32};

use super::fault::{FaultTarget, InjectedFault};

/// The faults that wait, in the order in which they came, and how often each kind has struck.
#[derive(Default)]
pub(super) struct Armed {
    /// The faults with the times that are left.
    pub(super) waiting: Vec<InjectedFault>,
    pub(super) fired: BTreeMap<&'static str, u64>,
}

impl Armed {
    /// The fault that strikes at a call: the first for it that strikes a number of times, else the
    /// first that strikes always. One call meets one fault.
    pub(super) fn strike(&mut self, call: FaultTarget) -> Option<InjectedFault> {
        let first = |counted: bool| {
            let fits = |fault: &InjectedFault| {
                fault.times.is_some() == counted && fault.target.includes(call)
            };
            self.waiting.iter().position(fits)
        };
        let index = first(true).or_else(|| first(false))?;
        let fault = self.waiting[index].clone();
        if let Some(times) = fault.times {
            self.waiting[index].times = NonZeroU32::new(times.get() - 1);
            if times == NonZeroU32::MIN {
                self.waiting.remove(index);
            }
        }
        *self.fired.entry(fault.kind.name()).or_default() += 1;
        Some(fault)
    }
}
