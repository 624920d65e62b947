//! A call that the proxy pays for: it answers the 402 itself, under the policy (protocol §9).

use std::{sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header};
use jiff::{SignedDuration, Timestamp};
use tokio::time::{Instant, sleep};

use super::{
    error::CallError,
    finish::is_final,
    parts::{ANSWER_HEADER, Proxy},
    settle::AttemptContext,
};
use crate::{
    call::{Call, PaymentProof, SPONSOR_SIGNATURE, TRANSACTION, WALLET},
    job_status::JobStatus,
    json::{CanonicalJson, JsonText},
    operation::Operation,
    payment::{
        AuthorizationNonce, Challenge, Declined, Payment, PaymentRecord, Purchase, Spending,
    },
    policy::Permit,
    retry::Outcome,
    sender::{Sender, withhold_secrets},
    store::{Approval, Claim, FreezeOf, PaymentDecision, PaymentEnd, PaymentRequest, PaymentTurn},
    types::Address,
    upstream::{Answer, PAYMENT_REQUIRED},
};

/// How long between two looks whether a payment has settled.
const PAUSE: Duration = Duration::from_secs(2);

/// The least, whatever the upstream wishes: each look is on record.
const LEAST_PAUSE: Duration = Duration::from_secs(1);

/// How long a look at a balance may take.
const LOOK: Duration = Duration::from_secs(10);

/// The longest text that is taken for a transaction.
const MAX_TRANSACTION: usize = 256;

/// All that the requests of one call need that is paid.
struct PaidCall<'a> {
    operation: &'a Operation,
    /// The call, permitted with the wallet that pays.
    permit: Permit,
    sender: &'a Sender,
    claim: &'a Claim,
}

impl Proxy {
    /// Makes a call, and pays for it if the upstream demands that. A payment of this very call that is not
    /// settled is made again, with the same authorisation.
    pub(super) async fn pay(
        &self,
        operation: &Operation,
        spending: &Arc<Spending>,
        was_begun: bool,
        claim: &Claim,
        turn: &mut Option<PaymentTurn>,
    ) -> Result<Answer, CallError> {
        let payer = spending.wallet();
        let sender = self.senders.get(&payer);
        let sender = sender.ok_or(Declined::NoKey(payer))?;
        let purchase = self.purchase(operation, payer)?;
        let call = operation.call.clone();
        let permit = operation.client.permit(call, payer, None, Timestamp::now())?;
        let paid = PaidCall { operation, permit, sender, claim };
        let fingerprint = operation.payment_fingerprint();
        *turn = self.store.lock_payment(operation, payer, fingerprint, purchase).await;
        if turn.is_none() {
            let declined = Declined::Open { payer, until: None };
            return Err(purchase.map_or(CallError::KeyInUse, |_| declined.into()));
        }
        let open = self.store.open_payment(payer, fingerprint, Timestamp::now()).await?;
        if let Some(record) = open {
            let payment = spending.again(&paid.permit, &record)?;
            return match record.transaction_hash {
                Some(ref hash) => self.follow(&paid, &payment, None, hash, &[]).await,
                None => self.send_payment(&paid, &payment, Some(&record)).await,
            };
        }
        if was_begun && self.store.may_be_paid(fingerprint).await? {
            return Err(CallError::PaymentUnknown { until: None });
        }
        if purchase.is_some() {
            self.look_after_other(&paid).await?;
        }
        // A purchase that is not paid for has no effect; a tool may be free.
        if was_begun && purchase.is_none() {
            return Err(CallError::unknown(JobStatus::default(), None));
        }
        let context = AttemptContext::new(operation, &paid.permit, sender, claim);
        let answer = self.attempt(&context, None).await?;
        if answer.status != StatusCode::PAYMENT_REQUIRED {
            return Ok(answer);
        }
        if !answer.clock_ahead.is_zero() {
            return Err(Declined::Clocks { by: answer.clock_ahead }.into());
        }
        let challenge = match answer.headers.get(PAYMENT_REQUIRED) {
            Some(header) => Challenge::from_header(header.as_bytes())?,
            None => Challenge::parse(&answer.body)?,
        };
        let balance = self.balance_of(purchase, &paid).await;
        if self.upstream.is_late_to_pay(operation.deadline) {
            return Err(CallError::NotInTime);
        }
        let (spending, permit) = (spending.clone(), paid.permit.clone());
        let request =
            PaymentRequest { spending, permit, challenge, purchase, balance, fingerprint };
        let nonce = AuthorizationNonce::random();
        let payment = match self.store.record_payment(operation, request, nonce).await? {
            PaymentDecision::Recorded(payment) => payment,
            PaymentDecision::Waits(approval) => return Ok(waiting(&approval)),
            PaymentDecision::Declined(declined) => return Err(declined.into()),
            PaymentDecision::Denied(denied) => return Err(denied.into()),
        };
        self.send_payment(&paid, &payment, None).await
    }

    /// The credits that a call is to buy, and for which wallet: only for one that is here and that the client may
    /// use, and for another than the one that pays only if the body says so (protocol §9.4).
    fn purchase(
        &self,
        operation: &Operation,
        payer: Address,
    ) -> Result<Option<Purchase>, Declined> {
        let Operation { call, client, .. } = operation;
        // A tool has no wallet among its parameters that would count.
        if !call.is_purchase() {
            return Ok(None);
        }
        let wallet = |name| call.body().text(name).map(|text| text.parse::<Address>().ok());
        let may_use = |wallet: &Address| {
            self.senders.contains_key(wallet) && client.wallet.is_none_or(|own| own == *wallet)
        };
        let recipient = wallet(WALLET).ok_or(Declined::NoRecipient { payer })?;
        let recipient = recipient.filter(may_use).ok_or(Declined::Recipient { payer })?;
        match wallet("payer_wallet_address") {
            Some(named) if named != Some(payer) => return Err(Declined::Payer { payer }),
            None if recipient != payer => return Err(Declined::NoPayer { payer }),
            _ => {}
        }
        let credits =
            call.body().field("credits").and_then(|credits| credits.as_str().parse().ok());
        Ok(Some(Purchase { credits: credits.ok_or(Declined::Credits)?, recipient }))
    }

    /// The credits of the wallet that gets those of a purchase, as JSON, if they can be had soon.
    async fn balance_of(&self, purchase: Option<Purchase>, paid: &PaidCall<'_>) -> Option<String> {
        let PaidCall { operation, claim, .. } = paid;
        let wallet = purchase?.recipient;
        let sender = self.senders.get(&wallet)?;
        let call = operation.call.clone();
        let permit = operation.client.permit(call, wallet, None, Timestamp::now()).ok()?;
        let context = AttemptContext::new(operation, &permit, sender, claim);
        context.balance(operation.deadline.min(Instant::now() + LOOK)).await
    }

    /// Signs a payment that is on record, and sends the same body with it, once.
    async fn send_payment(
        &self,
        paid: &PaidCall<'_>,
        payment: &Payment,
        earlier: Option<&PaymentRecord>,
    ) -> Result<Answer, CallError> {
        let PaidCall { operation, permit, sender, claim } = paid;
        let nonce = payment.authorization().nonce;
        let deadline = self.upstream.last_try(operation.action().effect, operation.deadline);
        // A payment that was never sent does not count; an earlier request of it may have been.
        let not_sent = async || {
            if earlier.is_none() {
                self.end_payment(nonce, PaymentEnd::NotSent).await;
            }
        };
        // An earlier payment is signed once more without another record.
        let signed = match self.store.check_unfrozen(FreezeOf::Payments).await {
            Ok(()) => sender.sign_payment(payment, deadline).await.map_err(CallError::from),
            Err(error) => Err(error.into()),
        };
        let (signature, sponsor) = match signed {
            Ok(signatures) => signatures,
            Err(error) => {
                not_sent().await;
                return Err(error);
            }
        };
        let sponsor = sponsor.map(|signature| signature.to_hex());
        let field = sponsor.as_deref().map(CanonicalJson::string);
        let field = field.map(|signature| (SPONSOR_SIGNATURE, signature));
        let header = payment.header(&signature);
        let permit = permit.repeated(Some(header.clone()), field);
        let (header, signature) = (header_text(&header), signature.to_hex());
        let secrets = [header.as_str(), &signature, sponsor.as_deref().unwrap_or_default()];
        let tried =
            sender.try_unsigned(&permit, None, Some(nonce), operation, claim, deadline).await;
        let mut outcome = match tried {
            Ok(tried) => tried.outcome,
            Err(error) if error.is_payment_over() => {
                return Err(CallError::PaymentUnknown { until: Some(end_of(payment)) });
            }
            Err(error) => {
                not_sent().await;
                return Err(error.into());
            }
        };
        withhold_secrets(&mut outcome, &secrets);
        let (until, is_purchase) = (end_of(payment), permit.call().is_purchase());
        match outcome {
            Outcome::Answered(answer, _) => match transaction(&answer) {
                // The answer of a tool is its own.
                Some(hash) if answer.status == StatusCode::ACCEPTED && is_purchase => {
                    self.end_payment(nonce, PaymentEnd::Pending(Some(hash.clone()))).await;
                    self.follow(paid, payment, Some(answer), &hash, &secrets).await
                }
                _ if answer.status == StatusCode::PAYMENT_REQUIRED => Err(match earlier {
                    None => CallError::PaymentRefused { until },
                    Some(record) => CallError::PaymentRefusedAgain {
                        until,
                        before: record.balance_before.clone(),
                        now: self.balance_of(record.purchase, paid).await,
                    },
                }),
                _ => answered(payment, answer),
            },
            Outcome::NoAnswer(error) if error.has_left() => {
                Err(CallError::PaymentUnknown { until: Some(until) })
            }
            outcome => {
                not_sent().await;
                Err(match outcome {
                    Outcome::NoAnswer(error) => error.into(),
                    _ => CallError::Abandoned,
                })
            }
        }
    }

    /// Repeats a purchase with its transaction until that has settled, or the time is over: then the client
    /// gets the last answer, and the next such call goes on from there.
    async fn follow(
        &self,
        paid: &PaidCall<'_>,
        payment: &Payment,
        mut last: Option<Answer>,
        hash: &str,
        secrets: &[&str],
    ) -> Result<Answer, CallError> {
        let PaidCall { operation, permit, sender, claim } = paid;
        let deadline = self.upstream.last_try(operation.action().effect, operation.deadline);
        let permit = permit.repeated(None, Some((TRANSACTION, CanonicalJson::string(hash))));
        loop {
            if let Some(answer) = &last {
                let pause = pause(answer);
                let left = deadline.saturating_duration_since(Instant::now());
                if pause >= left || self.ending.is_cancelled() {
                    return Ok(answer.clone());
                }
                sleep(pause).await;
            }
            let tried = sender.try_unsigned(&permit, None, None, operation, claim, deadline).await;
            let mut outcome = match tried {
                Ok(tried) => tried.outcome,
                // It keeps the key in doubt.
                Err(error) => return last.ok_or(error.into()),
            };
            withhold_secrets(&mut outcome, secrets);
            match outcome {
                Outcome::Answered(answer, _) if answer.status == StatusCode::ACCEPTED => {
                    last = Some(answer);
                }
                Outcome::Answered(answer, _) => {
                    let answer = answered(payment, answer)?;
                    if !answer.status.is_success() {
                        let nonce = payment.authorization().nonce;
                        self.end_payment(nonce, PaymentEnd::Pending(None)).await;
                    }
                    return Ok(answer);
                }
                Outcome::Abandoned => return last.ok_or(CallError::Abandoned),
                _ => return Err(CallError::PaymentUnknown { until: Some(end_of(payment)) }),
            }
        }
    }

    /// Asks, once, after the transaction of a purchase by another call that is in the way of this one. It pays
    /// nothing, and the call's own key stays out of it.
    async fn look_after_other(&self, paid: &PaidCall<'_>) -> Result<(), CallError> {
        let PaidCall { operation, permit, sender, .. } = paid;
        let payer = permit.wallet();
        let other = self.store.pending_purchase(payer, Timestamp::now()).await?;
        let Some(PaymentRecord { nonce, body: Some(body), transaction_hash: Some(hash), .. }) =
            other
        else {
            return Ok(());
        };
        let Ok(call) = Call::new(operation.action(), [], body.as_bytes()) else { return Ok(()) };
        let call = call.repeated(None, Some((TRANSACTION, CanonicalJson::string(&hash))));
        let look = operation.client.permit(call, payer, None, Timestamp::now())?;
        let deadline = operation.deadline.min(Instant::now() + LOOK);
        let claim = Claim::default();
        let tried = sender.try_unsigned(&look, None, None, operation, &claim, deadline).await?;
        let Outcome::Answered(answer, _) = tried.outcome else { return Ok(()) };
        if answer.status != StatusCode::ACCEPTED && tells(&answer) {
            let end = match answer.status.is_success() {
                true => PaymentEnd::LetsOthers,
                false => PaymentEnd::Pending(None),
            };
            self.end_payment(nonce, end).await;
        }
        Ok(())
    }

    async fn end_payment(&self, nonce: AuthorizationNonce, end: PaymentEnd) {
        if let Err(error) = self.store.end_payment(nonce, end).await {
            tracing::error!(%error, "what became of a payment is not on record, so it counts");
        }
    }
}

/// Reads the result of a payment from its answer. Any but a good one leaves the payment open, as it can still
/// be cashed.
fn answered(payment: &Payment, answer: Answer) -> Result<Answer, CallError> {
    match tells(&answer) {
        true => Ok(answer),
        false => Err(CallError::PaymentUnknown { until: Some(end_of(payment)) }),
    }
}

/// Whether an answer says what became of a payment.
fn tells(answer: &Answer) -> bool {
    let is_demand = answer.status == StatusCode::PAYMENT_REQUIRED;
    !is_demand && is_final(answer) && !answer.leaves_payment_open()
}

/// The answer to a call whose payment waits for approval. The same call pays once it is approved.
fn waiting(approval: &Approval) -> Answer {
    let mut shown = approval.to_json(Timestamp::now());
    shown["detail"] = format!(
        "a person has to approve this payment, until {}: ask GET /proxy/approvals/{}, and send the same call \
         again once it is approved",
        approval.ends, approval.id
    )
    .into();
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([
        (header::CONTENT_TYPE, json),
        (ANSWER_HEADER, HeaderValue::from_static("approval")),
    ]);
    let body = shown.to_string().into();
    Answer { status: StatusCode::ACCEPTED, headers, body, clock_ahead: SignedDuration::ZERO }
}

fn end_of(payment: &Payment) -> Timestamp {
    let end = i64::try_from(payment.authorization().valid_before).ok();
    end.and_then(|end| Timestamp::from_second(end).ok()).unwrap_or(Timestamp::MAX)
}

fn header_text(payment: &PaymentProof) -> String {
    payment.value.to_str().unwrap_or_default().to_owned()
}

/// The transaction that an answer names.
fn transaction(answer: &Answer) -> Option<String> {
    let hash = JsonText::parse(&answer.body)?.at(&[TRANSACTION])?.text()?;
    (1..=MAX_TRANSACTION).contains(&hash.len()).then_some(hash)
}

/// How long the upstream wants to be left alone.
fn pause(answer: &Answer) -> Duration {
    let wish = answer.headers.get(header::RETRY_AFTER).and_then(|wish| wish.to_str().ok());
    let wish = wish.and_then(|wish| wish.parse().ok()).map_or(PAUSE, Duration::from_secs);
    wish.max(LEAST_PAUSE)
}
