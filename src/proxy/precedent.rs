//! An earlier call with the key of this one, before this one is made.

use super::{error::CallError, parts::Proxy, settle::Settled};
use crate::{
    operation::Operation,
    sender::Sender,
    store::{Claim, Doubt},
};

/// An earlier call with the key of this one, as it was settled.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Precedent {
    /// It reserved the job.
    pub(super) was_reserved: bool,
    /// The proxy may have paid for it.
    pub(super) was_paid: bool,
    /// It submitted another proof.
    pub(super) is_other: bool,
}

impl Proxy {
    /// Finds out what became of an earlier call that is in doubt.
    ///
    /// # Errors
    /// The inner one: it is not known whether it took effect.
    pub(super) async fn precedent(
        &self,
        operation: &Operation,
        sender: &Sender,
        claim: &Claim,
        doubt: Option<Doubt>,
    ) -> (Precedent, Result<Option<Settled>, CallError>) {
        let none = Precedent::default();
        // A call that may be made twice is made again, as no status would show its outcome.
        let doubt = doubt.filter(|_| !operation.action().method.is_idempotent());
        let Some(doubt) = doubt else { return (none, Ok(None)) };
        // The proxy's payments are on record by themselves, which shows what became of them.
        if self.pays_for(operation).is_some() && !doubt.is_other {
            return (Precedent { was_paid: true, ..none }, Ok(None));
        }
        let settled = self.settle_earlier(operation, sender, claim, doubt).await;
        let was_reserved = matches!(settled, Ok(Settled::Reserved(_)));
        let is_other = doubt.is_other && matches!(settled, Ok(Settled::Submitted(_)));
        (Precedent { was_reserved, is_other, ..none }, settled.map(Some))
    }
}
