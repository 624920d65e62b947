//! Payments: recorded and counted before they are signed, in one step for all processes on the file.

use std::sync::Arc;

use jiff::Timestamp;

use super::{
    approval::{Approval, ApprovalAnswer, ApprovalState},
    approvals,
    callers::access_ended,
    db::Db,
    error::{Fault, StoreError},
    freeze::FreezeOf,
    freeze_rows,
    handle::Store,
    locks::Locked,
    payment_rows::{self, NewPayment, OpenPayment},
    record::{Chain, Draft},
    seal::Seal,
};
use crate::{
    operation::Operation,
    payment::{
        AuthorizationNonce, Challenge, Declined, Fresh, Payment, PaymentRecord, Purchase, Spender,
        Spending,
    },
    policy::{Denied, Permit},
    types::Address,
};

/// A payment that the upstream demands for a call.
#[derive(Debug, Clone)]
pub struct PaymentRequest {
    /// The policy.
    pub spending: Arc<Spending>,
    /// The call, permitted with the wallet that pays.
    pub permit: Permit,
    /// The upstream's demand.
    pub challenge: Challenge,
    /// The credits that it is to buy.
    pub purchase: Option<Purchase>,
    /// The credits of the wallet that gets them, as JSON, if they are known.
    pub balance: Option<String>,
    /// The hash of the call: the same call has the same payment as long as that is open.
    pub fingerprint: [u8; 32],
}

/// The decision on a payment.
#[derive(Debug)]
pub enum PaymentDecision {
    /// It is on record, and may be signed.
    Recorded(Box<Payment>),
    /// It waits for the word of a person.
    Waits(Box<Approval>),
    /// The policy does not allow it.
    Declined(Declined),
    /// The client may not ask for it now.
    Denied(Denied),
}

/// The state in which a payment is left that has not settled.
#[derive(Debug, Clone)]
pub enum PaymentEnd {
    /// This process has not sent it: it does not count unless another one may have.
    NotSent,
    /// An attempt on record did not leave.
    NotLeft,
    /// The upstream waits for this transaction, or for none any more.
    Pending(Option<String>),
    /// Its transaction has settled, as another call has learned.
    LetsOthers,
}

/// The turn of a call to pay, which lasts until what became of it is on record.
#[derive(Debug)]
pub struct PaymentTurn(#[expect(dead_code, reason = "it is held")] Locked);

impl Store {
    /// Waits until no other call of this process pays the same: for a purchase, from this wallet.
    pub async fn lock_payment(
        &self,
        operation: &Operation,
        payer: Address,
        fingerprint: [u8; 32],
        purchase: Option<Purchase>,
    ) -> Option<PaymentTurn> {
        let name = match purchase {
            Some(_) => format!("purchase {payer}"),
            None => format!("payment {}", hex::encode(fingerprint)),
        };
        self.0.locks.lock(vec![name], operation.deadline).await.map(PaymentTurn)
    }

    /// The payment of this very call that may still be cashed, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn open_payment(
        &self,
        payer: Address,
        fingerprint: [u8; 32],
        now: Timestamp,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        let open = self.read(move |db| payment_rows::open(db, payer, now)).await?;
        let own = open.into_iter().find(|open| open.fingerprint == fingerprint);
        Ok(own.map(|open| open.record))
    }

    /// The purchase of a wallet that waits for its transaction, and for which other ones wait.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn pending_purchase(
        &self,
        payer: Address,
        now: Timestamp,
    ) -> Result<Option<PaymentRecord>, StoreError> {
        let open = self.read(move |db| payment_rows::open(db, payer, now)).await?;
        let mut waited_for = open.into_iter().filter(|open| !open.lets_others);
        let pending = waited_for.find(|open| open.record.transaction_hash.is_some());
        Ok(pending.map(|open| open.record))
    }

    /// Whether this very call was paid for, or may have been.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn may_be_paid(&self, fingerprint: [u8; 32]) -> Result<bool, StoreError> {
        self.read(move |db| payment_rows::may_be_paid(db, &fingerprint)).await
    }

    /// Decides on a payment and records it. When this returns, it is on the disk, and it counts.
    ///
    /// # Errors
    /// It could not be written, the client's access has ended, or payments are frozen: nothing may be
    /// signed.
    pub async fn record_payment(
        &self,
        operation: &Operation,
        request: PaymentRequest,
        nonce: AuthorizationNonce,
    ) -> Result<PaymentDecision, StoreError> {
        let (operation, seal) = (operation.clone(), self.0.seal.clone());
        let fresh = move || Fresh { nonce, now: Timestamp::now() };
        self.write(move |db| record(db, &seal, &operation, &request, fresh())).await
    }

    /// Notes what became of a payment.
    ///
    /// # Errors
    /// It could not be written; the payment then stays open until its end, and counts.
    pub async fn end_payment(
        &self,
        nonce: AuthorizationNonce,
        end: PaymentEnd,
    ) -> Result<(), StoreError> {
        let nonce = nonce.to_string();
        self.write(move |db| match &end {
            PaymentEnd::NotSent => payment_rows::give_back(db, &nonce),
            PaymentEnd::NotLeft => payment_rows::unmark_sent(db, &nonce),
            PaymentEnd::LetsOthers => payment_rows::let_others(db, &nonce),
            PaymentEnd::Pending(hash) => payment_rows::set_transaction(db, &nonce, hash.as_ref()),
        })
        .await
    }
}

fn record(
    db: &Db,
    seal: &Seal,
    operation: &Operation,
    request: &PaymentRequest,
    fresh: Fresh,
) -> Result<PaymentDecision, Fault> {
    let PaymentRequest { spending, permit, challenge, purchase, balance, fingerprint } = request;
    let (client, now) = (&operation.client, fresh.now);
    if access_ended(db, client.id, now)? {
        return Err(Fault::AccessEnded);
    }
    freeze_rows::check(db, FreezeOf::Payments)?;
    let payer = spending.wallet();
    let is_in_the_way = |open: &OpenPayment| {
        let is_purchase = open.record.purchase.is_some() && !open.lets_others;
        open.fingerprint == *fingerprint || purchase.is_some() && is_purchase
    };
    let open = payment_rows::open(db, payer, now)?;
    if let Some(open) = open.into_iter().find(is_in_the_way) {
        let declined = Declined::Open { payer, until: open.over };
        return Ok(PaymentDecision::Declined(declined));
    }
    if let (Some(Purchase { recipient, .. }), Some(balance)) = (purchase, balance) {
        payment_rows::give_back_not_arrived(db, *recipient, balance, now)?;
    }
    let spent = payment_rows::spent(db, now)?;
    let spender =
        Spender { client: client.id, limit: client.spend, spent: &spent, is_approved: false };
    let pay = |spender| spending.pay(permit, challenge, *purchase, spender, fresh);
    let decided = match pay(spender) {
        Err(Declined::Unapproved { terms, .. }) => {
            match approvals::ask(db, seal, operation, *purchase, *terms, now)? {
                None => pay(Spender { is_approved: true, ..spender }),
                Some(Ok(approval)) => return Ok(unapproved(approval, now)),
                Some(Err(denied)) => return Ok(PaymentDecision::Denied(denied)),
            }
        }
        decided => decided,
    };
    let payment = match decided {
        Ok(payment) => payment,
        Err(declined) => return Ok(PaymentDecision::Declined(declined)),
    };
    let (client, purchase) = (client.id, *purchase);
    let body = purchase.map(|_| String::from(permit.call().body().to_canonical()));
    let new = NewPayment {
        payment: &payment,
        client,
        fingerprint,
        purchase,
        body: body.as_deref(),
        balance: balance.as_deref(),
        now,
    };
    payment_rows::insert(db, &new)?;
    Chain::read(db)?.append(Draft::payment(operation, &payment, now))?;
    Ok(PaymentDecision::Recorded(Box::new(payment)))
}

fn unapproved(approval: Approval, now: Timestamp) -> PaymentDecision {
    match approval.state(now) {
        ApprovalState::Answered(ApprovalAnswer::Denied) => {
            PaymentDecision::Declined(Declined::ByPerson { until: approval.ends })
        }
        _ => PaymentDecision::Waits(Box::new(approval)),
    }
}

#[cfg(test)]
mod tests;
