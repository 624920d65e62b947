//! The calls that are paid by x402: credits, and single uses of tools (protocol §9.2–§9.4).

use std::time::Duration;

use axum::{
    Json,
    extract::MatchedPath,
    http::{HeaderMap, StatusCode, request::Parts},
    response::{IntoResponse, Response},
};
use serde_json::json;

use crate::{
    json::Object,
    types::{Address, Signature},
};

use super::{
    api::Sandbox,
    bill::Bill,
    error::ApiError,
    facilitator::{Bought, TakenPayment},
    fault::{FaultTarget, PaidFault, Twist},
    form::Form,
    header::{payment_of, with_json},
    time::{end_of, now},
    tool::Tool,
    transfer::Transfer,
    verify::personal_signer,
};

/// Credits are sold in multiples of this.
const LOT: i64 = 500;

/// The most credits of one purchase.
const MOST: i64 = 1_000_000;

/// Longer than a transaction's hash, in characters.
const MAX_TRANSACTION: usize = 128;

/// The answer to a purchase of credits.
pub(super) async fn purchase(
    sandbox: &Sandbox,
    head: &Parts,
    body: &Object,
) -> Result<Response, ApiError> {
    let mut form = Form::new(body);
    let wallet = form.address("wallet_address");
    let credits = form.integer("credits", 1..=MOST);
    let is_x402 = body.text("payment_method").is_some_and(|method| method == "x402");
    if !is_x402 {
        let text = "Input should be 'x402'";
        form.refuse::<()>(json!(["body", "payment_method"]), "literal_error", text);
    }
    let transaction = body.field("transaction_hash").is_some();
    let transaction = transaction.then(|| form.text("transaction_hash", MAX_TRANSACTION));
    let (wallet, credits) = form.finish(wallet.zip(credits))?;
    if credits % LOT != 0 {
        return Err(ApiError::CreditsNotSold { suggested: (credits / LOT + 1) * LOT });
    }
    if let Some(transaction) = transaction.flatten() {
        let bought = sandbox.api().facilitator.bought(&transaction);
        let bought = bought.filter(|bought| (bought.wallet, bought.credits) == (wallet, credits));
        let bought = bought.ok_or(ApiError::TransactionNotFound)?;
        return Ok(sandbox.bought(&transaction, bought));
    }
    let bill = Bill::new(head.uri.path(), credits);
    let transfer = sandbox.checked(&bill, head)?;
    check_sponsor(&transfer, wallet, credits, body).map_err(|why| refused(&bill, why))?;
    let delay = match head.extensions.get() {
        Some(PaidFault::SettlesLate(delay)) => *delay,
        _ => Duration::ZERO,
    };
    let payment = sandbox.take(&bill, &transfer)?;
    let settled = end_of(now(), delay);
    let bought = Bought { wallet, credits, settled };
    {
        let mut api = sandbox.api();
        api.facilitator.keep(&payment.transaction, bought);
        api.credits.earn(wallet, credits, settled, format!("purchase {}", payment.transaction));
    }
    let answer = sandbox.bought(&payment.transaction, bought);
    Ok((receipt(&payment), answer).into_response())
}

/// The answer to a use of a tool with its parameters as the whole body.
pub(super) async fn use_tool(
    sandbox: &Sandbox,
    tool: &Tool,
    head: &Parts,
    body: &Object,
) -> Result<Response, ApiError> {
    let parameters = serde_json::from_str(body.to_canonical().as_str()).unwrap_or_default();
    if tool.price == 0 {
        let response = tool.run(parameters, sandbox.slow_tool).await;
        return Ok(Json(json!({"success": true, "response": response})).into_response());
    }
    let bill = Bill::new(head.uri.path(), tool.price);
    let transfer = sandbox.checked(&bill, head)?;
    let payment = sandbox.take(&bill, &transfer)?;
    let response = tool.run(parameters, sandbox.slow_tool).await;
    let response = response.ok_or(ApiError::ToolFailed(None))?;
    let answer = json!({"success": true, "response": response, "x402": {
        "transaction": payment.transaction,
        "network": payment.network,
        "resource_url": bill.url,
        "payment": {"payer": payment.payer, "value": payment.value},
    }});
    Ok((receipt(&payment), Json(answer)).into_response())
}

impl Sandbox {
    /// The transfer in a request's payment header. Without one, or with a wrong one, the answer is a
    /// challenge, which a fault may change.
    fn checked(&self, bill: &Bill, head: &Parts) -> Result<Transfer, ApiError> {
        let Some(payment) = payment_of(&head.headers) else {
            let route = head.extensions.get().map_or("", MatchedPath::as_str);
            let call = FaultTarget::of_route(self.actions, route);
            let twist = self.api().faults.twist(call);
            return Err(ApiError::PaymentRequired { challenge: bill.challenge(twist), why: None });
        };
        if let Some(PaidFault::Refused) = head.extensions.get() {
            let challenge = bill.challenge(Some(Twist::Payee));
            return Err(ApiError::PaymentRequired { challenge, why: Some("invalid_payload") });
        }
        bill.check(payment, now()).map_err(|why| refused(bill, why))
    }

    fn take(&self, bill: &Bill, transfer: &Transfer) -> Result<TakenPayment, ApiError> {
        let taken = self.api().facilitator.take(transfer, &bill.url);
        taken.map_err(|why| refused(bill, why))
    }

    /// The answer to a purchase that is paid: 202 until the payment is settled.
    fn bought(&self, transaction: &str, bought: Bought) -> Response {
        let Bought { wallet, credits, settled } = bought;
        let now = now();
        if settled > now {
            let answer = json!({"status": "pending", "transaction_hash": transaction});
            return (StatusCode::ACCEPTED, Json(answer)).into_response();
        }
        let mut answer = self.api().credits.answer(wallet, now);
        answer["status"] = "completed".into();
        answer["credits"] = credits.into();
        answer["transaction_hash"] = transaction.into();
        Json(answer).into_response()
    }
}

fn refused(bill: &Bill, why: &'static str) -> ApiError {
    ApiError::PaymentRequired { challenge: bill.challenge(None), why: Some(why) }
}

/// A wallet that pays for another one says so in a message of its own.
fn check_sponsor(
    transfer: &Transfer,
    recipient: Address,
    credits: i64,
    body: &Object,
) -> Result<(), &'static str> {
    let payer = body.text("payer_wallet_address");
    let is_payer = |payer: String| payer.parse() == Ok(transfer.from);
    if payer.is_some_and(|payer| !is_payer(payer)) {
        return Err("payer_wallet_address_mismatch");
    }
    if transfer.from == recipient {
        return Ok(());
    }
    let (payer, nonce) = (transfer.from, hex::encode(transfer.nonce));
    let message = format!(
        "agentpmt-external-sponsor\npayer:{payer}\nrecipient:{recipient}\ncredits:{credits}\n\
         nonce:0x{nonce}"
    );
    let signature = body.text("sponsor_signature").and_then(|text| text.parse::<Signature>().ok());
    let signer = signature.and_then(|signature| personal_signer(&message, &signature).ok());
    if signer == Some(payer) { Ok(()) } else { Err("sponsor_signature_mismatch") }
}

/// The header that tells of a payment that was taken.
fn receipt(payment: &TakenPayment) -> HeaderMap {
    let told = json!({
        "success": true,
        "transaction": payment.transaction,
        "network": payment.network,
        "payer": payment.payer,
    });
    with_json("payment-response", &told)
}
