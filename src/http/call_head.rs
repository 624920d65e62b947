//! The head of a call: its query, the coding of its body, and its idempotency key.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header::CONTENT_ENCODING, request::Parts};

use super::{
    header::{IDEMPOTENCY_KEY, PAYMENTS},
    printable::printable,
};
use crate::{
    action::{ACTIONS, Action, Proof},
    call::PaymentProof,
    problem::Problem,
    problems::{CONTENT_CODING, INVALID_KEY, QUERY_NOT_TAKEN, TWO_PROOFS},
    types::IdempotencyKey,
};

/// Checks the head of a call and returns its key.
pub(super) fn read(action: &Action, parts: &Parts) -> Result<Option<IdempotencyKey>, Problem> {
    if query(parts).is_some_and(|query| !action.takes_query(query)) {
        return Err(query_not_taken(action));
    }
    check_coding(&parts.headers)?;
    if matches!(action.proof, Proof::Signature(_)) && has_payment(parts) {
        let detail = format!(
            "{action} is signed, so it takes no payment header; nothing was sent: leave the header out"
        );
        return Err(Problem::new(&TWO_PROOFS, detail));
    }
    idempotency_key(&parts.headers)
}

/// The query of a call. A question mark with nothing after it counts as none.
pub(super) fn query(parts: &Parts) -> Option<&str> {
    parts.uri.query().filter(|query| !query.is_empty())
}

/// Whether a request that may be paid for in one of two ways is paid by x402 (protocol §5.2).
pub(super) fn pays_by_x402(parts: &Parts) -> bool {
    query(parts) == Some("pay=x402") || has_payment(parts)
}

fn has_payment(parts: &Parts) -> bool {
    PAYMENTS.iter().any(|name| parts.headers.contains_key(name))
}

/// The payment in the head of a call, as it came.
pub(super) fn payment(parts: &Parts) -> Result<Option<PaymentProof>, Problem> {
    let given = |(name, value): (&HeaderName, &HeaderValue)| {
        let (name, mut value) = (name.clone(), value.clone());
        value.set_sensitive(true);
        PAYMENTS.contains(&name).then_some(PaymentProof { name, value })
    };
    let mut given = parts.headers.iter().filter_map(given);
    let payment = given.next();
    if given.next().is_some() {
        let detail = "there are several payment headers; nothing was sent: send one";
        return Err(Problem::new(&TWO_PROOFS, detail));
    }
    Ok(payment)
}

fn query_not_taken(action: &Action) -> Problem {
    let detail = match action.query {
        [] if action.paid_row(ACTIONS).is_some() => format!(
            "{action} takes no query string but ?pay=x402, to pay for the call by x402 with bare parameters"
        ),
        [] => format!(
            "{action} takes no query string; send the fields in a JSON body, as in {{\"limit\": 10}}"
        ),
        fields => {
            let names: Vec<_> = fields.iter().map(|field| field.name).collect();
            format!("the query of {action} may have only these names: {}", names.join(", "))
        }
    };
    Problem::new(&QUERY_NOT_TAKEN, detail)
}

/// The body is read as it comes.
fn check_coding(headers: &HeaderMap) -> Result<(), Problem> {
    let mut codings = headers.get_all(CONTENT_ENCODING).iter();
    let other = codings.find(|coding| !coding.as_bytes().eq_ignore_ascii_case(b"identity"));
    let Some(coding) = other else { return Ok(()) };
    let coding = String::from_utf8_lossy(coding.as_bytes());
    let coding = if coding.is_empty() { "without a value".into() } else { printable(&coding) };
    let detail = format!(
        "the body has Content-Encoding {coding}, and none is supported; nothing was sent: send the JSON \
         as it is, without that header"
    );
    Err(Problem::new(&CONTENT_CODING, detail))
}

fn idempotency_key(headers: &HeaderMap) -> Result<Option<IdempotencyKey>, Problem> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = given.next() else { return Ok(None) };
    let key = value.to_str().ok().and_then(|text| text.parse().ok());
    match (key, given.next()) {
        (Some(key), None) => Ok(Some(key)),
        _ => {
            let detail = "Idempotency-Key must be given once, as 1 to 1024 printable ASCII characters \
                          without spaces; nothing was sent";
            Err(Problem::new(&INVALID_KEY, detail))
        }
    }
}
