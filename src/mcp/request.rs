//! A tool call as a request of HTTP.

use std::fmt::Write;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Request, header::CONTENT_TYPE};
use serde_json::{Map, Value};

use super::tool::{KEY, McpTool};
use crate::{
    problem::Problem,
    problems::{INVALID_FIELD, INVALID_ID, INVALID_KEY},
};

/// The header that a key comes in.
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");

/// A tool call whose arguments stand where its row wants them.
#[derive(Debug, Clone)]
pub(super) struct ToolRequest {
    method: Method,
    /// The path and the query.
    target: String,
    body: Bytes,
    /// The key that the client gave.
    pub(super) key: Option<HeaderValue>,
}

impl ToolRequest {
    /// Fails if an argument cannot stand where it belongs; the proxy checks all else.
    pub(super) fn new(tool: &McpTool, mut arguments: Map<String, Value>) -> Result<Self, Problem> {
        check_numbers(&arguments)?;
        let mut target = String::new();
        for segment in tool.path.split('/').skip(1) {
            target.push('/');
            match segment.strip_prefix('{').and_then(|segment| segment.strip_suffix('}')) {
                None => target.push_str(segment),
                Some(name) => escape(&mut target, &id(name, arguments.remove(name))?),
            }
        }
        let mut separator = if target.contains('?') { '&' } else { '?' };
        for name in &tool.query {
            if let Some(value) = arguments.remove(*name).filter(|value| !value.is_null()) {
                let _ = write!(target, "{separator}{name}=");
                escape(&mut target, &text(&value));
                separator = '&';
            }
        }
        let key = arguments.remove(KEY).filter(|_| tool.changes());
        let key = key.filter(|key| !key.is_null()).map(|key| key_of(&key)).transpose()?;
        let body = match arguments.is_empty() {
            true => Bytes::new(),
            false => Value::Object(arguments).to_string().into(),
        };
        Ok(Self { method: tool.method.clone(), target, body, key })
    }

    /// A plain read of one of the proxy's own paths.
    pub(super) fn get(path: &str) -> Self {
        Self { method: Method::GET, target: path.to_owned(), body: Bytes::new(), key: None }
    }

    /// All that makes it the same call again.
    pub(super) fn parts(&self) -> [&[u8]; 3] {
        [self.method.as_str().as_bytes(), self.target.as_bytes(), &self.body]
    }

    /// Whether an id in its path is this one, as servers read it.
    pub(super) fn names(&self, id: &str) -> bool {
        self.target.split(['/', '?']).any(|part| part.eq_ignore_ascii_case(id))
    }

    /// The request under a key.
    pub(super) fn http(&self, key: Option<HeaderValue>) -> Request<Bytes> {
        let mut request = Request::new(self.body.clone());
        *request.method_mut() = self.method.clone();
        // Every byte that a path may not have is escaped.
        *request.uri_mut() = self.target.parse().unwrap_or_default();
        let headers = request.headers_mut();
        if !self.body.is_empty() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(key.map(|key| (IDEMPOTENCY_KEY, key)));
        request
    }
}

fn id(name: &str, value: Option<Value>) -> Result<String, Problem> {
    let id = value.filter(|value| !value.is_null()).as_ref().map(text).filter(|id| !id.is_empty());
    id.ok_or_else(|| {
        Problem::new(&INVALID_ID, format!("{name} is missing; nothing was sent: give it as text"))
    })
}

fn key_of(value: &Value) -> Result<HeaderValue, Problem> {
    let key = HeaderValue::from_str(&text(value));
    key.map_err(|_| {
        let detail = "idempotency_key must be 1 to 1024 printable ASCII characters without spaces; \
                      nothing was sent";
        Problem::new(&INVALID_KEY, detail)
    })
}

/// A value as it stands in a path, a query or a header.
fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Appends a text with every byte escaped that is not unreserved (RFC 3986 §2.3).
fn escape(target: &mut String, text: &str) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            target.push(char::from(byte));
        } else {
            let _ = write!(target, "%{byte:02X}");
        }
    }
}

/// Refuses integers that were changed when the arguments were read: beyond 64 bits, they became doubles.
fn check_numbers(arguments: &Map<String, Value>) -> Result<(), Problem> {
    let mut values: Vec<&Value> = arguments.values().collect();
    while let Some(value) = values.pop() {
        match value {
            Value::Array(items) => values.extend(items),
            Value::Object(fields) => values.extend(fields.values()),
            Value::Number(number) if is_inexact(number) => {
                let detail = format!(
                    "the number {number} is beyond 64 bits, which are all that is read here; nothing was \
                     sent: send it as text"
                );
                return Err(Problem::new(&INVALID_FIELD, detail));
            }
            _ => {}
        }
    }
    Ok(())
}

fn is_inexact(number: &serde_json::Number) -> bool {
    const BEYOND: f64 = 18_446_744_073_709_551_616.0;
    number.is_f64() && number.as_f64().is_some_and(|value| value.abs() >= BEYOND)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn request(name: &str, arguments: Value) -> Result<ToolRequest, &'static str> {
        let arguments = arguments.as_object().unwrap().clone();
        ToolRequest::new(McpTool::named(name).unwrap(), arguments).map_err(|p| p.kind.code)
    }

    fn parts(request: &ToolRequest) -> [&str; 3] {
        request.parts().map(|part| str::from_utf8(part).unwrap())
    }

    #[test]
    fn arguments_stand_in_path_query_body_and_header() {
        let update = json!({
            "job_id": "j1", "workflow_id": "w/2", "name": "n", "idempotency_key": "k"
        });
        let update = request("job_workflow_update", update).unwrap();
        let path = "/api/external/jobs/j1/workflow/w%2F2";
        assert_eq!(parts(&update), ["PUT", path, r#"{"name":"n"}"#]);
        let http = update.http(update.key.clone());
        assert_eq!(http.headers()["idempotency-key"], "k");
        assert_eq!(http.uri().path(), path);
        let tools = request("tools", json!({ "limit": 3, "skip": null })).unwrap();
        assert_eq!(parts(&tools), ["GET", "/api/external/tools?limit=3", ""]);
        let list = request("job_list", json!({ "idempotency_key": "k" })).unwrap();
        assert_eq!(parts(&list)[2], r#""#);
    }

    #[test]
    fn an_argument_that_cannot_be_passed_on_as_it_came_is_refused() {
        assert_eq!(request("job_status", json!({})).unwrap_err(), "invalid_id");
        assert_eq!(request("job_status", json!({ "job_id": null })).unwrap_err(), "invalid_id");
        let key = json!({ "job_id": "j", "idempotency_key": "\n" });
        assert_eq!(request("job_reserve", key).unwrap_err(), "invalid_idempotency_key");
        let text =
            r#"{"product_slug":"p","action_slug":"a","parameters":[123456789012345678901234]}"#;
        let large: Value = serde_json::from_str(text).unwrap();
        assert_eq!(request("tool_invoke", large).unwrap_err(), "invalid_field");
        assert!(request("job_list", json!({ "limit": u64::MAX, "x": 1.5 })).is_ok());
    }
}
