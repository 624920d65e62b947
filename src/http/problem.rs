//! Problems of the HTTP surface, and how each problem is written (RFC 9457), so that no client takes it for
//! an answer of the upstream.

use std::{net::SocketAddr, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde_json::json;

use super::{MAX_BODY, OWN_PATHS, nearest_path::nearest_path};
pub(super) use crate::problem::Problem;
use crate::{
    action::{Action, SESSION_PATH},
    problems::{self, Kind},
    session::ERROR_TYPE,
    types::{ClientName, RequestId},
};

/// The header that tells our errors from the upstream's; its value is the error's code.
pub(super) const ERROR_HEADER: HeaderName = HeaderName::from_static("x-agentpmt-proxy-error");

/// The whole response, with the headers that others gave it.
pub(super) fn write(problem: &Problem, request_id: &RequestId, mut headers: HeaderMap) -> Response {
    let Problem { kind, detail, retry, retry_after, more } = problem;
    let Kind { status, code, title, .. } = **kind;
    let mut body = json!({
        "type": format!("{ERROR_TYPE}{code}"),
        "title": title,
        "status": status.as_u16(),
        "detail": detail,
        "code": code,
        "request_id": request_id.as_str(),
        "retry": retry.as_str(),
    });
    for (name, value) in more {
        body[name] = value.clone();
    }
    headers.remove(header::CONTENT_LENGTH);
    let media_type = HeaderValue::from_static("application/problem+json");
    headers.insert(header::CONTENT_TYPE, media_type);
    headers.insert(ERROR_HEADER, HeaderValue::from_static(code));
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Bearer realm=\"agentpmt-proxy\"");
        headers.insert(header::WWW_AUTHENTICATE, challenge);
    }
    headers.extend(retry_after.clone().map(|after| (header::RETRY_AFTER, after)));
    (status, headers, body.to_string()).into_response()
}

/// As a response, a problem is empty until the middleware, which knows the request id, writes it.
impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.kind.status.into_response();
        response.extensions_mut().insert(self);
        response
    }
}

impl Problem {
    pub(super) fn unknown_path(actions: &[Action], path: &str) -> Self {
        let mut calls = vec![format!("POST {SESSION_PATH}")];
        calls.extend(actions.iter().map(|action| format!("{} {}", action.method, action.path)));
        let own: Vec<_> =
            OWN_PATHS.iter().map(|(method, path)| format!("{method} {path}")).collect();
        let meant = nearest_path(actions, path);
        let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
        let detail = format!(
            "{meant}there is nothing at {path}; the calls are: {}; the proxy's own paths are: {}",
            calls.join(", "),
            own.join(", ")
        );
        Self::new(&problems::UNKNOWN_PATH, detail)
    }

    /// `right` is the method that would do, and `url` where, as curl takes it.
    pub(super) fn wrong_method(method: &Method, path: &str, right: &Method, url: &str) -> Self {
        let detail =
            format!("{path} takes {right}, not {method}; with curl: curl -X {right} {url}");
        Self::new(&problems::WRONG_METHOD, detail)
    }

    pub(super) fn reload_refused(mistakes: String) -> Self {
        Self::new(&problems::RELOAD_REFUSED, format!("everything is as it was: {mistakes}"))
    }

    pub(super) fn query_not_taken(action: &Action) -> Self {
        let detail = match action.query {
            [] => format!(
                "{action} takes no query string; send the fields in a JSON body, as in \
                 {{\"limit\": 10}}"
            ),
            names => {
                format!("the query of {action} may have only these names: {}", names.join(", "))
            }
        };
        Self::new(&problems::QUERY_NOT_TAKEN, detail)
    }

    pub(super) fn body_too_large() -> Self {
        let detail = format!("the body is larger than {} KiB; send less", MAX_BODY / 1024);
        Self::new(&problems::BODY_TOO_LARGE, detail)
    }

    pub(super) fn unreadable_body() -> Self {
        let detail = "the body broke off before its end; send the request again";
        Self::new(&problems::BODY_UNREADABLE, detail)
    }

    pub(super) fn slow_body(time: Duration) -> Self {
        let detail = format!(
            "the body did not arrive within {} s of the head; nothing was sent, so send the call again",
            time.as_secs()
        );
        Self::new(&problems::BODY_SLOW, detail)
    }

    pub(super) fn transfer_coding() -> Self {
        let detail = "the only Transfer-Encoding that is supported is chunked, once; send the body \
                      with a Content-Length, or in plain chunks";
        Self::new(&problems::TRANSFER_CODING, detail)
    }

    pub(super) fn content_coding(coding: &str) -> Self {
        let coding = if coding.is_empty() { "without a value" } else { coding };
        let detail = format!(
            "the body has Content-Encoding {coding}, and none is supported; nothing was sent: send the \
             JSON as it is, without that header"
        );
        Self::new(&problems::CONTENT_CODING, detail)
    }

    /// `given` says which host the request names, and `local` is where it arrived.
    pub(super) fn wrong_host(given: &str, local: Option<SocketAddr>) -> Self {
        let own = local.map_or_else(|| "localhost".to_owned(), |local| local.to_string());
        let detail = format!(
            "{given}, which is not this proxy: use {own}, where the request arrived, or add the name \
             to allowed_hosts"
        );
        Self::new(&problems::WRONG_HOST, detail)
    }

    /// `origin` is that of the page, if it says one.
    pub(super) fn foreign_page(origin: Option<&str>) -> Self {
        let detail = match origin {
            Some(origin) => format!(
                "the request comes from the web page {origin}, and pages may not use the wallet; to \
                 allow it, add {origin} to allowed_origins"
            ),
            None => {
                "the request comes from a web page that does not say its origin, and pages may \
                     not use the wallet; a page that says it can be added to allowed_origins"
                    .to_owned()
            }
        };
        Self::new(&problems::FOREIGN_PAGE, detail)
    }

    pub(super) fn not_admin(client: &ClientName) -> Self {
        let detail = format!(
            "client {client} may not reload the configuration; ask the operator of the proxy for a \
             client that may, with `agentpmt-proxy client add … --admin`, or send SIGHUP"
        );
        Self::new(&problems::NOT_ALLOWED, detail)
    }

    pub(super) fn invalid_idempotency_key() -> Self {
        let detail = "Idempotency-Key must be given once, as 1 to 1024 printable ASCII characters \
                      without spaces; nothing was sent";
        Self::new(&problems::INVALID_KEY, detail)
    }
}
