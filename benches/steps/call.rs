//! The whole of `Proxy::call`, from the bytes of a body to the upstream's answer.
//!
//! The upstream is a thread of this process that answers at once over loopback, so that the kernel's
//! part of a round trip is in the figure; `upstream` has little else in it. What comes before, the
//! client's connection, its HTTP and its token, is not in it.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::Arc,
    thread,
    time::Duration,
};

use agentpmt_proxy::{
    action::{Action, Effect},
    call::Call,
    config::{UpstreamConfig, UpstreamUrl},
    proxy::{Admission, Evidence, Proxy},
    signer::LocalKey,
    store::Store,
    trace::Trace,
    types::RequestId,
    upstream::{Answer, Request, Upstream},
};
use criterion::Criterion;
use http::Method;
use tokio::runtime::Runtime;

const JOB: &str = "68f0a1c27b3e4d5f60718201";
const SESSION: &str = r#"{"session_nonce":"0123456789abcdef0123456789abcdef","expires_in":86400}"#;

pub(crate) fn bench(criterion: &mut Criterion) {
    let runtime = Runtime::new().unwrap();
    let upstream = Upstream::new(&config(serve())).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let signer = LocalKey::random();
    let store = Store::open(&folder.path().join("proxy.db"), &[signer.seal_key()]).unwrap();

    let mut group = criterion.benchmark_group("call");
    group.bench_function("upstream", |b| {
        b.iter(|| {
            runtime.block_on(upstream.send(request(), upstream.deadline(Effect::None))).unwrap()
        });
    });
    let proxy = Arc::new(Proxy::new(signer.into(), upstream, store, false));
    // A read, which is on record later, and a change, which waits until it is on the disk.
    for (action, ids, body) in
        [("job_list", vec![], r#"{"limit": 10}"#), ("job_reserve", vec![JOB], "{}")]
    {
        group.bench_function(action, |b| {
            b.iter(|| {
                let answer = runtime.block_on(make(&proxy, action, &ids, body));
                assert!(answer.status.is_success());
            });
        });
    }
    group.finish();
    runtime.block_on(proxy.drained());
}

/// Makes a call as the owner of the process, from the door to the answer.
async fn make(proxy: &Arc<Proxy>, action: &str, ids: &[&str], body: &str) -> Answer {
    let action = Action::named(action).unwrap();
    let evidence = Evidence { is_owner: true, ..Evidence::default() };
    let trace = Arc::new(Trace::new(RequestId::random()));
    let admission = Admission { action, product: None, key: None, trace };
    let admitted = proxy.admit(&evidence, admission).await.unwrap();
    let call = Call::new(action, ids.iter().copied(), body.as_bytes()).unwrap();
    proxy.call(admitted, call).await.unwrap()
}

/// What goes out for a job_list, about as long as the signed one.
fn request() -> Request {
    Request {
        method: Method::POST,
        path: "/api/external/jobs/list".to_owned(),
        body: format!(r#"{{"limit":10,"signature":"{}","skip":0}}"#, "0".repeat(300)),
        workflow_token: None,
        payment: None,
        changes: false,
        job: None,
    }
}

fn config(port: u16) -> UpstreamConfig {
    UpstreamConfig {
        url: UpstreamUrl::on_this_machine(port),
        connect_timeout: Duration::from_secs(5),
        timeout: Duration::from_secs(30),
        change_timeout: Duration::from_secs(30),
        spend_timeout: Duration::from_secs(30),
        settle_time: Duration::from_secs(1),
        max_calls: 64,
    }
}

/// Serves until the process ends.
fn serve() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    thread::spawn(move || {
        for peer in listener.incoming() {
            thread::spawn(move || answer(peer.unwrap()));
        }
    });
    port
}

/// Answers each request; the next comes only when it is answered, and ends with the brace of its body.
fn answer(mut peer: TcpStream) {
    let job = format!(r#"{{"job_id":"{JOB}","title":"Sort tickets","reward_credits":500}}"#);
    let jobs = format!(r#"{{"jobs":[{}],"limit":10,"skip":0}}"#, [job.as_str(); 10].join(","));
    let (mut request, mut buffer) = (Vec::new(), vec![0; 64 << 10]);
    while let Ok(length @ 1..) = peer.read(&mut buffer) {
        request.extend_from_slice(&buffer[..length]);
        if request.ends_with(b"}") {
            let is_session = request.starts_with(b"POST /api/external/auth/session ");
            let body = if is_session { SESSION } else { &jobs };
            let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length";
            let answer = format!("{head}: {}\r\n\r\n{body}", body.len());
            peer.write_all(answer.as_bytes()).unwrap();
            request.clear();
        }
    }
}
