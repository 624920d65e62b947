//! The whole proxy in one thread, in front of an upstream that is made up.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::{Arc, LazyLock, Mutex, PoisonError},
    time::Duration,
};

use agentpmt_proxy::{
    config::{UpstreamConfig, UpstreamUrl},
    http::{self as surface, Guard, Instance, Limits, Live, Peer},
    proxy::Proxy,
    signer::LocalKey,
    store::Store,
    upstream::Upstream,
};
use axum::body::{Body, to_bytes};
use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use serde_json::Value;
use tokio::runtime::{self, Runtime};

use super::stub::{Given, Scripted, Stub};

/// As long as a call may take: too short for a pause between two tries, so that no input takes long.
const PATIENCE: Duration = Duration::from_millis(400);

/// What the inputs share, since it takes long to make.
struct World {
    runtime: Runtime,
    stub: Stub,
    upstream: Upstream,
    /// How many inputs there were. Each gets a wallet of its own, so that the upstream tells a
    /// request that comes late.
    count: u64,
}

static WORLD: LazyLock<Mutex<World>> = LazyLock::new(|| Mutex::new(World::new()));

impl World {
    fn new() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (stub, port) = runtime.block_on(Stub::serve());
        let config = UpstreamConfig {
            url: UpstreamUrl::on_this_machine(port),
            connect_timeout: PATIENCE,
            timeout: PATIENCE,
            change_timeout: PATIENCE,
            spend_timeout: PATIENCE,
            settle_time: PATIENCE,
            max_calls: 64,
        };
        Self { runtime, stub, upstream: Upstream::new(&config).unwrap(), count: 0 }
    }
}

/// An answer to a client.
#[derive(Debug)]
pub(crate) struct Answered {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// What the upstream was asked meanwhile, and gave.
    pub(crate) given: Vec<Given>,
}

/// Sends requests to a new proxy, one after the other, whose upstream answers as it is told to. Each
/// answer goes to `check`. What arrives upstream is checked as well.
pub(crate) fn exchange(
    requests: Vec<Request<Body>>,
    script: Vec<Scripted>,
    mut check: impl FnMut(usize, Answered),
) {
    let mut world = WORLD.lock().unwrap_or_else(PoisonError::into_inner);
    world.count += 1;
    let signer = LocalKey::from_hex(&format!("{:064x}", world.count)).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("proxy.db"), &[signer.seal_key()]).unwrap();
    let World { runtime, stub, upstream, .. } = &*world;
    stub.begin(signer.address(), script);
    let proxy = Arc::new(Proxy::new(signer.into(), upstream.clone(), store, false));
    runtime.block_on(async {
        let live = Live::new(None, Guard::default());
        let instance = Instance::new(Vec::new(), false, live, || Err(String::new()));
        let router = surface::router(proxy.clone(), Limits::default(), instance);
        let service = TowerToHyperService::new(router);
        for (index, mut request) in requests.into_iter().enumerate() {
            request.extensions_mut().insert(peer());
            let (head, body) = service.call(request).await.unwrap().into_parts();
            let body = to_bytes(body, usize::MAX).await.unwrap();
            let given = stub.given();
            check(index, Answered { status: head.status, headers: head.headers, body, given });
        }
        proxy.drained().await;
    });
    stub.end();
}

/// A program on this machine that has reached the usual port.
fn peer() -> Peer {
    let here = IpAddr::from(Ipv4Addr::LOCALHOST);
    Peer {
        address: Some(here),
        local: Some((here, 8402).into()),
        uid: None,
        certificate: None,
        passes_on: false,
    }
}

impl Answered {
    pub(crate) fn is_problem(&self) -> bool {
        self.headers.contains_key("x-agentpmt-proxy-error")
    }

    /// That it is a whole problem document, and no fault of the proxy.
    pub(crate) fn check_problem(&self) {
        let text = |name: &str| self.headers[name].to_str().unwrap();
        assert_eq!(text("content-type"), "application/problem+json");
        let problem: Value = serde_json::from_slice(&self.body).unwrap();
        assert_eq!(problem["status"], self.status.as_u16(), "{problem}");
        assert_eq!(problem["code"], text("x-agentpmt-proxy-error"), "{problem}");
        assert_eq!(problem["request_id"], text("x-request-id"), "{problem}");
        for member in ["type", "title", "detail", "retry"] {
            assert!(problem[member].is_string(), "{member} in {problem}");
        }
        assert_ne!(problem["code"], "internal_error", "{problem}");
    }
}
