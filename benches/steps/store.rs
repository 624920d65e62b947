//! What it costs to open the store and to append to it, with a short history and with a long one.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use agentpmt_proxy::{
    action::Action,
    call::Call,
    operation::Operation,
    policy::Client,
    signer::LocalKey,
    store::{Attempt, Claim, Store},
    trace::Trace,
    types::RequestId,
};
use criterion::{BenchmarkId, Criterion};
use jiff::Timestamp;
use rusqlite::Connection;
use tokio::runtime::Builder;

/// How many records are there before.
const RECORDS: [u32; 2] = [0, 1_000_000];

/// As many notes as surely find room in the queue of the store.
const NOTES: u64 = 256;

pub(crate) fn bench(criterion: &mut Criterion) {
    let runtime = Builder::new_multi_thread().build().unwrap();
    let signer = LocalKey::random();
    let mut group = criterion.benchmark_group("store");
    group.sample_size(50);
    for records in RECORDS {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.db");
        let open = || Store::open(&path, &[signer.seal_key()]).unwrap();
        drop(open());
        fill(&path, records);

        group.bench_function(BenchmarkId::new("open", records), |b| b.iter_with_large_drop(open));
        let store = open();
        // Until it is on the disk, nobody else waiting.
        group.bench_function(BenchmarkId::new("sign_record", records), |b| {
            let complete = operation(&signer, "job_complete");
            b.iter(|| runtime.block_on(sign(&store, &complete)));
        });
        // With its share of the time until all of them are on the disk.
        group.bench_function(BenchmarkId::new("note", records), |b| {
            b.iter_custom(|count| {
                let begun = Instant::now();
                runtime.block_on(note(&store, &signer, count));
                begun.elapsed()
            });
        });
        assert_eq!(store.lost_records(), 0);
    }
    group.finish();
}

/// Records of the usual length. Nobody verifies them, so their hashes are any.
fn fill(path: &Path, records: u32) {
    let sql = r#"INSERT INTO journal (seq, record, hash)
        WITH RECURSIVE numbers (n) AS
            (SELECT 1 WHERE ?1 > 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
        SELECT n, printf('{"action":"job_complete","padding":"%s","seq":%d}',
                         hex(zeroblob(150)), n), randomblob(32) FROM numbers"#;
    Connection::open(path).unwrap().execute(sql, [records]).unwrap();
}

async fn note(store: &Store, signer: &LocalKey, count: u64) {
    let status = operation(signer, "job_status");
    for number in 1..=count {
        sign(store, &status).await;
        if number % NOTES == 0 || number == count {
            store.flush().await.unwrap();
        }
    }
}

fn operation(signer: &LocalKey, action: &str) -> Operation {
    let action = Action::named(action).expect("a row of the table");
    let call = Call::new(action, ["68f0a1c27b3e4d5f60718201"], b"").expect("a call");
    Operation {
        call,
        client: Client::local(),
        wallet: signer.address(),
        key: None,
        price: None,
        has_prices: false,
        known_at: tokio::time::Instant::now() + Duration::from_secs(3600),
        deadline: tokio::time::Instant::now(),
        trace: Arc::new(Trace::new(RequestId::random())),
    }
}

async fn sign(store: &Store, operation: &Operation) {
    let (call, request_id) = (&operation.call, &RequestId::random());
    let attempt = Attempt { operation, call, request_id, payload_hash: None, payment: None };
    store.record_attempt(attempt, &Claim::default(), Timestamp::now()).await.expect("a record");
}
