//! Who may make a call at all: decided before its body is read.

use jiff::Timestamp;

use super::{CallError, Proxy};
use crate::{
    action::Action,
    policy::{Client, Denied},
    store::{Caller, Denial},
    trail::Trail,
    types::{RequestId, Slug},
};

/// What is known of a call before its body is read.
#[derive(Debug)]
pub struct Asking<'a> {
    /// Who makes it.
    pub client: &'a Client,
    /// The row of the table.
    pub action: &'static Action,
    /// The first id of its path, if it is usable.
    pub product: Option<Slug>,
    /// Its id, which is also in its answer.
    pub call_id: &'a RequestId,
    /// What becomes of it, for its log event.
    pub trail: &'a Trail,
}

impl Proxy {
    /// Counts a call of a client, if the client may make it now. That it may not is on record.
    ///
    /// # Errors
    /// See [`CallError`]; nothing may be read or sent.
    pub async fn admit(&self, asking: Asking<'_>) -> Result<(), CallError> {
        let Asking { client, action, trail, .. } = &asking;
        trail.begin(&client.name, action, asking.product.clone());
        let result = self.may(client, action).await;
        if let Some(reason) = result.as_ref().err().and_then(CallError::denial) {
            Box::pin(self.refused(asking, reason)).await;
        }
        result
    }

    /// Counts a request of a client, which may also be no call.
    ///
    /// # Errors
    /// The client may not make one now; nothing may be read or sent.
    pub async fn count(&self, client: &Client, changes: bool) -> Result<(), Denied> {
        match (client.rate, self.store.count(client, changes, Timestamp::now()).await) {
            (Some(rate), Err(wait)) => Err(client.too_fast(rate, wait)),
            _ => Ok(()),
        }
    }

    async fn may(&self, client: &Client, action: &'static Action) -> Result<(), CallError> {
        let (wallet, now) = (self.wallet_of(client), Timestamp::now());
        if !self.senders.contains_key(&wallet) {
            return Err(CallError::WalletNotHeld { wallet });
        }
        client.check(action, wallet, now)?;
        Ok(self.count(client, action.changes()).await?)
    }

    async fn refused(&self, asking: Asking<'_>, reason: &'static str) {
        let Asking { client, action, product, call_id, .. } = asking;
        let denial = Denial {
            call_id: call_id.clone(),
            caller: Caller::Client(client.name.clone()),
            wallet: Some(self.wallet_of(client)),
            action: action.name,
            product,
            reason,
        };
        self.store.denied(&denial).await;
    }
}
