//! Where requests go, and what they hold.

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, Uri, header, uri};
use http_body_util::Full;

use super::connections::USER_AGENT;
use crate::{call::PaymentProof, types::Slug};

/// The header for the token of a job's reservation (protocol §7).
pub const WORKFLOW_TOKEN: HeaderName = HeaderName::from_static("x-job-workflow-token");

const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// One HTTP request, ready to be sent.
#[derive(Debug, Default)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The path, beginning with `/`, and the query.
    pub path: String,
    /// The body, JSON.
    pub body: String,
    /// The value of `X-Job-Workflow-Token`, if the call needs it.
    pub workflow_token: Option<HeaderValue>,
    /// The header that pays for it.
    pub payment: Option<PaymentProof>,
    /// Whether it changes something upstream.
    pub changes: bool,
    /// The job that it is about.
    pub job: Option<Slug>,
}

/// The upstream's scheme and authority, and the `Host` header for them.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) uri: Uri,
    host: HeaderValue,
}

impl Target {
    pub(super) fn of(url: &str) -> Result<Self, http::Error> {
        let uri: Uri = url.parse()?;
        let host = uri.authority().map_or("", |authority| authority.as_str());
        let host = HeaderValue::from_str(host)?;
        Ok(Self { uri, host })
    }

    /// The request as it goes to this target.
    pub(super) fn address(
        &self,
        request: Request,
    ) -> Result<http::Request<Full<Bytes>>, http::Error> {
        let Request { method, path, body, workflow_token, payment, .. } = request;
        let mut parts = self.uri.clone().into_parts();
        parts.path_and_query = Some(uri::PathAndQuery::try_from(path)?);
        let mut request = http::Request::new(Full::from(body));
        *request.method_mut() = method;
        *request.uri_mut() = Uri::from_parts(parts)?;
        let headers = request.headers_mut();
        // Room for the headers below and for the length.
        headers.reserve(8);
        headers.insert(header::HOST, self.host.clone());
        headers.insert(header::USER_AGENT, USER_AGENT);
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::ACCEPT, JSON);
        // The proxy has to read an answer to withhold secrets from it.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        if let Some(token) = workflow_token {
            headers.insert(WORKFLOW_TOKEN, token);
        }
        if let Some(PaymentProof { name, value }) = payment {
            headers.insert(name, value);
        }
        Ok(request)
    }
}
