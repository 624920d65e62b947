//! An upstream that answers as it is told to and remembers what it was asked.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use agentpmt_proxy::{action::SESSION_PATH, types::Address};
use axum::{
    Router,
    body::{Body, to_bytes},
    extract::State,
    response::Response,
};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, StatusCode, header};
use tokio::net::TcpListener;

use super::{arrival, contains};

/// The session and the token of every reservation, unless the script says otherwise.
pub(crate) const NONCE: &str = "nonce-0f4c1b7a92d35e86";
pub(crate) const TOKEN: &str = "token-6b0e93f7c2a85d14";

/// Marks what comes from here; the proxy passes such a header on.
pub(crate) const MARK: &str = "x-ratelimit-stub";

/// An answer to give.
#[derive(Clone)]
pub(crate) struct Scripted {
    /// To the next call for a session, or to the next other call.
    pub(crate) session: bool,
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

/// An answer that was given.
#[derive(Debug, Clone)]
pub(crate) struct Given {
    pub(crate) path: String,
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    /// The value of the header for the token, if the request had one.
    pub(crate) workflow_token: Option<HeaderValue>,
}

#[derive(Clone, Default)]
pub(crate) struct Stub(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The wallet of the input at hand; requests of another come late and count for nothing.
    wallet: Option<Address>,
    script: VecDeque<Scripted>,
    given: Vec<Given>,
    /// What is wrong with what arrived.
    faults: Vec<String>,
}

impl Stub {
    /// Serves on a free port of this machine.
    pub(crate) async fn serve() -> (Self, u16) {
        let stub = Self::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let router = Router::new().fallback(answer).with_state(stub.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        (stub, port)
    }

    pub(crate) fn begin(&self, wallet: Address, script: Vec<Scripted>) {
        *self.lock() = Inner { wallet: Some(wallet), script: script.into(), ..Inner::default() };
    }

    /// What was given since it was last asked, sessions left out.
    pub(crate) fn given(&self) -> Vec<Given> {
        std::mem::take(&mut self.lock().given)
    }

    /// That nothing arrived that should not have.
    pub(crate) fn end(&self) {
        let inner = std::mem::take(&mut *self.lock());
        assert!(inner.faults.is_empty(), "{:#?}", inner.faults);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn answer(State(stub): State<Stub>, request: Request<Body>) -> Response {
    let (head, body) = request.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let mut inner = stub.lock();
    let Some(wallet) = inner.wallet else { return late() };
    let session = head.uri.path() == SESSION_PATH;
    let is_signed = session || contains(&body, "\"wallet_address\"");
    if is_signed && !contains(&body, &wallet.to_string()) {
        return late();
    }
    let next = inner.script.iter().position(|scripted| scripted.session == session);
    let scripted = next.and_then(|next| inner.script.remove(next));
    let scripted = scripted.unwrap_or_else(|| usual(session, head.uri.path()));
    if !session {
        inner.faults.extend(arrival::check(&head, &body, wallet).err());
        inner.given.push(Given {
            path: head.uri.path().to_owned(),
            status: scripted.status,
            body: if has_body(scripted.status) { scripted.body.clone() } else { Bytes::new() },
            workflow_token: head.headers.get("x-job-workflow-token").cloned(),
        });
    }
    let mut response = Response::new(Body::from(scripted.body));
    *response.status_mut() = scripted.status;
    *response.headers_mut() = scripted.headers;
    response.headers_mut().insert(MARK, HeaderValue::from_static("1"));
    response
}

fn late() -> Response {
    let mut response = Response::default();
    *response.status_mut() = StatusCode::GONE;
    response
}

/// HTTP has no body with these.
fn has_body(status: StatusCode) -> bool {
    ![StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED].contains(&status)
}

fn usual(session: bool, path: &str) -> Scripted {
    let body = if session {
        format!(r#"{{"session_nonce":"{NONCE}","expires_in":900}}"#)
    } else if path.ends_with("/reserve") {
        format!(
            r#"{{"job":{{"reservation_id":"r-1"}},"workflow_access":{{"access_token":"{TOKEN}"}}}}"#
        )
    } else {
        r#"{"ok":true}"#.to_owned()
    };
    let json = HeaderValue::from_static("application/json");
    Scripted {
        session,
        status: StatusCode::OK,
        headers: [(header::CONTENT_TYPE, json)].into_iter().collect(),
        body: body.into(),
    }
}
