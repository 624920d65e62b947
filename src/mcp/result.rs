//! An answer of HTTP as the result of a tool call.

use bytes::Bytes;
use http::{Response, header::RETRY_AFTER};
use rmcp::model::{CallToolResult, ContentBlock};
use serde_json::{Value, json};

use crate::{problem::Problem, proxy::ADVICE_HEADER};

/// The header of an answer that was given before.
const REPLAYED: &str = "idempotency-replayed";

/// The result, with the answer as structure and as text. A refusal is a result too, since models do not
/// see errors of the protocol.
pub(super) fn result(answer: &Response<Bytes>) -> CallToolResult {
    let (status, body) = (answer.status(), answer.body());
    let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
    let advice = text(ADVICE_HEADER.as_str());
    let mut notes = Vec::new();
    let mut value = value(body);
    let is_error = !status.is_success();
    if is_error {
        let is_own = text("content-type").is_some_and(|kind| kind == "application/problem+json");
        if !is_own {
            value = json!({ "status": status.as_u16(), "answer": value });
        }
        if let Some(advice) = advice {
            value["advice"] = advice.into();
        }
    } else {
        notes.extend(advice);
        notes.extend(is_replayed(answer).then_some(
            "This is the answer to the same call made before, which was not sent again. To make it anew, \
             give a new idempotency_key.",
        ));
        if !value.is_object() {
            value = json!({ "answer": value });
        }
    }
    if let Some(seconds) = text(RETRY_AFTER.as_str()) {
        value["retry_after"] = seconds.into();
    }
    let is_whole = !is_error && body.starts_with(b"{");
    // As it came, since its numbers may have more digits than the structure keeps.
    let whole = str::from_utf8(body).ok().filter(|_| is_whole).map(str::to_owned);
    let content = whole.unwrap_or_else(|| value.to_string());
    let mut result = if is_error {
        CallToolResult::structured_error(value)
    } else {
        CallToolResult::structured(value)
    };
    let texts = [content.as_str()].into_iter().chain(notes);
    result.content = texts.map(ContentBlock::text).collect();
    result
}

/// The result of a call that did not reach a path of the proxy.
pub(super) fn refused(problem: &Problem) -> CallToolResult {
    CallToolResult::structured_error(problem.to_json())
}

/// The body as JSON, or as text.
pub(super) fn value(body: &Bytes) -> Value {
    if body.is_empty() {
        return json!({});
    }
    serde_json::from_slice(body).unwrap_or_else(|_| String::from_utf8_lossy(body).into())
}

/// Whether the answer is that of an earlier call under the same key.
pub(super) fn is_replayed(answer: &Response<Bytes>) -> bool {
    answer.headers().contains_key(REPLAYED)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(status: u16, headers: &[(&str, &str)], body: &'static str) -> (Value, Vec<String>, bool) {
        let mut answer = Response::builder().status(status);
        for (name, value) in headers {
            answer = answer.header(*name, *value);
        }
        let result = result(&answer.body(Bytes::from(body)).unwrap());
        let texts = result.content.iter().map(|text| text.as_text().unwrap().text.clone());
        let value = result.structured_content.unwrap();
        (value, texts.collect(), result.is_error.unwrap())
    }

    #[test]
    fn an_answer_is_structure_and_the_very_text() {
        assert_eq!(of(204, &[("retry-after", "3")], "").0, json!({ "retry_after": "3" }));
        let body = r#"{"a":1.10,"b":123456789012345678901234}"#;
        let (value, texts, is_error) = of(200, &[], body);
        assert_eq!(
            (value["a"].as_f64(), texts, is_error),
            (Some(1.1), vec![body.to_owned()], false)
        );
        assert_eq!(of(200, &[], "[1]").0, json!({ "answer": [1] }));
        assert_eq!(of(204, &[], "").0, json!({}));
        let (_, texts, _) = of(200, &[("idempotency-replayed", "true")], "{}");
        assert!(texts[1].contains("idempotency_key"), "{texts:?}");
    }

    #[test]
    fn a_refusal_is_a_result_with_the_problem_or_the_upstreams_words_and_the_advice() {
        let own = [("content-type", "application/problem+json"), ("retry-after", "7")];
        let (value, _, is_error) = of(429, &own, r#"{"code":"rate_exceeded"}"#);
        assert!(is_error);
        assert_eq!(value, json!({ "code": "rate_exceeded", "retry_after": "7" }));
        let advised = [("x-agentpmt-proxy-advice", "wait")];
        let (value, _, _) = of(409, &advised, r#"{"detail":"taken"}"#);
        let answer = json!({ "detail": "taken" });
        assert_eq!(value, json!({ "status": 409, "answer": answer, "advice": "wait" }));
        assert_eq!(of(502, &[], "<p>").0, json!({ "status": 502, "answer": "<p>" }));
    }
}
