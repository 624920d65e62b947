//! One call on its way: everything that is known of it from its admission to its end.

use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio::time::Instant;

use crate::{
    action::{Action, Effect},
    call::Call,
    policy::Client,
    trace::Trace,
    types::{Address, CreditAmount, IdempotencyKey, Slug},
};

/// An admitted call.
#[derive(Debug, Clone)]
pub struct Operation {
    /// The call.
    pub call: Call,
    /// The client that makes it.
    pub client: Client,
    /// The wallet that signs it.
    pub wallet: Address,
    /// The key under which a change is made at most once.
    pub key: Option<IdempotencyKey>,
    /// Its price, if a list of tools had it.
    pub price: Option<CreditAmount>,
    /// Whether a list of tools had any price.
    pub has_prices: bool,
    /// When the client was looked up.
    pub known_at: Instant,
    /// When it has to be over.
    pub deadline: Instant,
    /// Its trace.
    pub trace: Arc<Trace>,
}

impl Operation {
    /// The row of the table.
    pub fn action(&self) -> &'static Action {
        self.call.action()
    }

    /// The job that it is about, if that is one job.
    pub fn job(&self) -> Option<&Slug> {
        self.call.job()
    }

    /// The key of a change. A key on a read is ignored.
    pub fn change_key(&self) -> Option<&IdempotencyKey> {
        self.key.as_ref().filter(|_| self.action().changes())
    }

    /// The hash of the call and its client: the same call has the same payment as long as that is open.
    pub fn payment_fingerprint(&self) -> [u8; 32] {
        let call = &self.call;
        let mut hash = Sha256::new_with_prefix(format!("{} {}\n", self.client.id, call.target()));
        match call.bare() {
            Some(body) => hash.update(body),
            None => hash.update(call.body().to_canonical().as_str()),
        }
        hash.finalize().into()
    }

    /// Whether it submits the proof of a job, which is done once for each reservation.
    pub fn is_completion(&self) -> bool {
        self.action().effect == Effect::Submits
    }
}

#[cfg(test)]
impl Operation {
    /// A call of a client on a job, if it is on one, which has a minute.
    pub(crate) fn of(client: &Client, action: &str, job: &str, body: &str) -> Self {
        let (action, job) =
            (Action::named(action).unwrap(), Some(job).filter(|job| !job.is_empty()));
        Self {
            call: Call::new(action, job, body.as_bytes()).unwrap(),
            client: client.clone(),
            wallet: "0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025".parse().unwrap(),
            key: None,
            price: None,
            has_prices: false,
            known_at: Instant::now(),
            deadline: Instant::now() + std::time::Duration::from_secs(60),
            trace: Arc::new(Trace::new("call".parse().unwrap())),
        }
    }
}
