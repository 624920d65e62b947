//! The head of a call: its query, the coding of its body, and its idempotency key.

use axum::http::{HeaderMap, header::CONTENT_ENCODING, request::Parts};

use super::{header::IDEMPOTENCY_KEY, printable::printable};
use crate::{
    action::Action,
    problem::Problem,
    problems::{CONTENT_CODING, INVALID_KEY, QUERY_NOT_TAKEN},
    types::IdempotencyKey,
};

/// Checks the head of a call and returns its key.
pub(super) fn read(action: &Action, parts: &Parts) -> Result<Option<IdempotencyKey>, Problem> {
    if parts.uri.query().is_some_and(|query| !action.takes_query(query)) {
        return Err(query_not_taken(action));
    }
    check_coding(&parts.headers)?;
    idempotency_key(&parts.headers)
}

fn query_not_taken(action: &Action) -> Problem {
    let detail = match action.query {
        [] => format!(
            "{action} takes no query string; send the fields in a JSON body, as in {{\"limit\": 10}}"
        ),
        names => format!("the query of {action} may have only these names: {}", names.join(", ")),
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
