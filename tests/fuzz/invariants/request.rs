//! The path of a request: everything between a client and the upstream.

use axum::body::Body;
use http::{HeaderMap, HeaderValue, Method, Request, Uri};

use super::{
    Text, contains, parts,
    stub::{MARK, NONCE, TOKEN},
    world::{Answered, exchange},
};

/// The paths that the proxy answers itself.
const OWN: [&str; 4] = ["/healthz", "/readyz", "/proxy/reservations", "/api/external/auth/session"];

/// How many requests of an input are looked at.
const MOST: usize = 4;

/// The input is a sequence of requests.
///
/// - Every answer is a problem, the upstream's, or that of a path of the proxy's own.
/// - What arrives upstream is a row of the table and signed by the wallet.
/// - No answer holds the session's nonce or a workflow token.
pub(crate) fn check(bytes: &[u8]) {
    let requests: Vec<_> = parts(bytes).take(MOST).filter_map(request).collect();
    let asked: Vec<_> =
        requests.iter().map(|one| (one.method().clone(), one.uri().clone())).collect();
    // A client that has a secret may have it repeated.
    let secrets = [NONCE, TOKEN].map(|secret| &secret[..secret.len() - 8]);
    let secrets = secrets.into_iter().filter(|secret| !contains(bytes, secret));
    let secrets: Vec<_> = secrets.collect();
    let mut before = Vec::new();
    exchange(requests, Vec::new(), |index, answered| {
        let (method, uri) = &asked[index];
        if answered.headers.contains_key("idempotency-replayed") {
            assert!(before.contains(&(answered.status, answered.body.clone())), "{answered:?}");
        } else {
            check_answer(method, uri, &answered);
        }
        before.push((answered.status, answered.body.clone()));
        for secret in &secrets {
            assert!(!contains(&answered.body, secret), "{secret} in {answered:?}");
        }
    });
}

/// A request as HTTP allows it; what it does not allow, the server would have refused.
fn request(part: &[u8]) -> Option<Request<Body>> {
    let text = Text::of(part);
    let mut words = text.first.splitn(2, |byte| *byte == b' ');
    let method = Method::from_bytes(words.next()?).ok()?;
    let uri = Uri::try_from(words.next()?).ok()?;
    let mut request = Request::new(Body::from(text.body.to_vec()));
    *request.method_mut() = method;
    *request.uri_mut() = uri;
    *request.headers_mut() = with_host(text.headers);
    Some(request)
}

fn with_host(mut headers: HeaderMap) -> HeaderMap {
    headers.entry("host").or_insert(HeaderValue::from_static("127.0.0.1:8402"));
    headers
}

fn check_answer(method: &Method, uri: &Uri, answered: &Answered) {
    assert!(answered.headers.contains_key("x-request-id"), "{method} {uri}: {answered:?}");
    if answered.is_problem() && method == Method::HEAD && answered.body.is_empty() {
        return;
    }
    if answered.is_problem() {
        return answered.check_problem();
    }
    if answered.headers.contains_key(MARK) {
        let last = answered.given.last().expect("an answer of the upstream that it did not give");
        return assert_eq!(answered.status, last.status);
    }
    assert!(OWN.contains(&uri.path()), "{method} {uri}: {answered:?}");
    assert!(answered.status.is_success(), "{method} {uri}: {answered:?}");
}
