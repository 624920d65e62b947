//! The upstream's answer: whether it is the API's, and by how much the clocks differ.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Uri, header};
use http_body_util::LengthLimitError;
use hyper::body::{Body, Incoming};
use jiff::{SignedDuration, Timestamp, fmt::rfc2822};

use super::error::{MAX_ANSWER, Unanswered, causes, named};
use crate::{
    body, clock,
    json::{JsonText, is_almost_json},
    types::Slug,
};

/// The upstream's headers that a client gets to see; hop-by-hop headers, cookies and anything that
/// gives a browser rights are not among them.
const PASSED_HEADERS: [HeaderName; 6] = [
    header::CONTENT_TYPE,
    header::CONTENT_ENCODING,
    header::RETRY_AFTER,
    PAYMENT_REQUIRED,
    HeaderName::from_static(RECEIPTS[0]),
    HeaderName::from_static(RECEIPTS[1]),
];

/// The headers that tell of a payment that was taken (protocol §9.1).
const RECEIPTS: [&str; 2] = ["payment-response", "x-payment-response"];

/// The header with the challenge of a 402 (protocol §9.1).
pub const PAYMENT_REQUIRED: HeaderName = HeaderName::from_static("payment-required");

/// An answer of the upstream, as far as it is passed on.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// The headers that are passed on.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// How far this machine's clock is ahead of the upstream's; zero if they agree, or if that is not
    /// known. What the upstream says of times holds by its own.
    pub clock_ahead: SignedDuration,
}

impl Answer {
    /// Reads an answer to its end.
    pub(super) async fn read(
        response: Response<Incoming>,
        changes: bool,
    ) -> Result<Self, Unanswered> {
        let status = response.status();
        if status.is_informational() {
            return Err(Unanswered::BrokenOff(format!("it ended with {}", named(status))));
        }
        if is_moved(status, changes) {
            let origin = response.headers().get(header::LOCATION).and_then(origin);
            return Err(Unanswered::Moved { status, origin });
        }
        let headers = passed_headers(response.headers());
        let clock_ahead = clock_ahead(response.headers(), Timestamp::now());
        let body = read_body(response.into_body()).await?;
        if is_foreign(status, &body, changes) {
            return Err(Unanswered::Foreign(status));
        }
        Ok(Self { status, headers, body, clock_ahead })
    }

    /// Whether the body is JSON, as the API's is, or was that before something cut or changed it.
    pub(crate) fn is_json(&self) -> bool {
        JsonText::parse(&self.body).is_some() || is_almost_json(&self.body)
    }

    /// Whether it leaves open what became of a payment, as something other than the API may have sent it
    /// after the API has acted.
    pub(crate) fn leaves_payment_open(&self) -> bool {
        let status = self.status;
        let tells = status.is_success() || status == StatusCode::CONFLICT;
        let has_receipt = RECEIPTS.iter().any(|name| self.headers.contains_key(*name));
        status.is_server_error()
            || status == StatusCode::REQUEST_TIMEOUT
            || tells && !has_receipt && !self.is_json()
    }

    /// The time by the upstream's clock.
    pub(crate) fn upstream_now(&self) -> Timestamp {
        let now = Timestamp::now();
        now.checked_sub(self.clock_ahead).unwrap_or(now)
    }

    /// A time that has come by the upstream's clock and by this machine's.
    pub(crate) fn past(&self) -> Timestamp {
        self.upstream_now().min(Timestamp::now())
    }
}

async fn read_body(body: Incoming) -> Result<Bytes, Unanswered> {
    // One that announces too much is not read at all.
    if body.size_hint().lower() > MAX_ANSWER as u64 {
        return Err(Unanswered::TooLarge);
    }
    body::read(body, MAX_ANSWER).await.map_err(|error| match error.is::<LengthLimitError>() {
        true => Unanswered::TooLarge,
        false => Unanswered::BrokenOff(causes(&*error)),
    })
}

/// Whether a redirect means that the call had no effect: 307 and 308 always, 301 and 302 only for a read.
/// After a change they may mean what 303 means: it was made, and the result is elsewhere.
fn is_moved(status: StatusCode, changes: bool) -> bool {
    matches!(status.as_u16(), 307 | 308) || !changes && is_moved_or_done(status)
}

/// Whether a redirect may mean "made, see elsewhere" as well as "make the call elsewhere".
fn is_moved_or_done(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302)
}

/// Whether something other than the API answered, and would again. HTML in answer to a change is let
/// through: the change may have been made, so its outcome is looked up.
fn is_foreign(status: StatusCode, body: &[u8], changes: bool) -> bool {
    if status.is_redirection() {
        return is_moved_or_done(status) || !is_almost_json(body);
    }
    let is_passing = status.is_server_error() || status == StatusCode::TOO_MANY_REQUESTS;
    !changes && !is_passing && body.trim_ascii_start().starts_with(b"<")
}

/// Whether an answer is a gateway's word that nothing stands behind it: no JSON, and no time to wait.
pub(super) fn is_of_gateway(answer: &Answer) -> bool {
    matches!(answer.status.as_u16(), 502..=504 | 520..=527)
        && !answer.headers.contains_key(header::RETRY_AFTER)
        && !is_almost_json(&answer.body)
}

/// Whether a good answer names a job, and not the one that was asked for.
pub(super) fn names_another(answer: &Answer, job: &Slug) -> bool {
    let body = JsonText::parse(&answer.body).filter(|_| answer.status.is_success());
    let paths = [&["job_id"][..], &["job", "job_id"]];
    let named = paths.iter().filter_map(|path| body?.at(path).and_then(JsonText::text));
    let named: Vec<String> = named.collect();
    !named.is_empty() && !named.iter().any(|named| job.is_same(named))
}

/// Where a `Location` leads, as `upstream.url` takes it.
fn origin(location: &HeaderValue) -> Option<String> {
    let uri: Uri = location.to_str().ok()?.parse().ok()?;
    let (scheme, host) = (uri.scheme_str()?, uri.host()?);
    let port = uri.port().map(|port| format!(":{port}")).unwrap_or_default();
    Some(format!("{scheme}://{host}{port}"))
}

/// How far `now` is ahead of the `Date` of an answer, unless the two are about the same.
fn clock_ahead(headers: &HeaderMap, now: Timestamp) -> SignedDuration {
    let date = headers.get(header::DATE).and_then(|date| date.to_str().ok());
    let date = date.and_then(|date| rfc2822::parse(date).ok());
    let ahead = date.map(|date| now.duration_since(date.timestamp())).unwrap_or_default();
    if ahead.abs() > clock::TOLERANCE { ahead } else { SignedDuration::ZERO }
}

fn passed_headers(headers: &HeaderMap) -> HeaderMap {
    let passed = |name: &HeaderName| {
        PASSED_HEADERS.contains(name)
            || name.as_str().starts_with("ratelimit")
            || name.as_str().starts_with("x-ratelimit-")
    };
    let pairs = headers.iter().filter(|(name, _)| passed(name));
    pairs.map(|(name, value)| (name.clone(), value.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_by_more_than_some_seconds_are_told_apart() {
        let now = "2026-02-16T12:00:00.9Z".parse().unwrap();
        let ahead = |date: &str| {
            let headers = HeaderMap::from_iter([(header::DATE, date.parse().unwrap())]);
            clock_ahead(&headers, now).as_millis()
        };
        assert_eq!(ahead("Mon, 16 Feb 2026 11:57:55 GMT"), 125_900);
        assert_eq!(ahead("Mon, 16 Feb 2026 12:30:00 GMT"), -1_799_100);
        assert_eq!(ahead("Mon, 16 Feb 2026 11:59:56 GMT"), 0);
        for unusable in ["", "soon", "2026-02-16T11:00:00Z", "Mon, 99 Feb 2026 11:57:55 GMT"] {
            assert_eq!(ahead(unusable), 0, "{unusable}");
        }
        assert_eq!(clock_ahead(&HeaderMap::new(), now), SignedDuration::ZERO);
    }
}
