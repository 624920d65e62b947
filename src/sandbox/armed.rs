//! The faults that wait for their calls.

use std::{collections::BTreeMap, num::NonZeroU32};

use super::fault::{FaultTarget, InjectedFault, Strike, Twist};

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
    pub(super) fn strike(&mut self, call: FaultTarget, is_paid: bool) -> Option<InjectedFault> {
        self.next(call, |strike| match strike {
            Strike::Payment(_) => is_paid,
            Strike::Demand(_) => false,
            _ => true,
        })
    }

    /// The change of a challenge by the fault that strikes at it.
    pub(super) fn twist(&mut self, call: FaultTarget) -> Option<Twist> {
        let fault = self.next(call, |strike| matches!(strike, Strike::Demand(_)))?;
        match fault.kind.strike {
            Strike::Demand(twist) => Some(twist),
            _ => None,
        }
    }

    fn next(&mut self, call: FaultTarget, may: impl Fn(Strike) -> bool) -> Option<InjectedFault> {
        let first = |counted: bool| {
            let fits = |fault: &InjectedFault| {
                let is_wanted = fault.target.includes(call) && may(fault.kind.strike);
                is_wanted && fault.times.is_some() == counted
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
