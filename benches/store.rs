//! What a long history costs: to open the store, and to record one more call.

#![allow(clippy::unwrap_used)]

use std::{
    path::Path,
    time::{Duration, Instant},
};

use agentpmt_proxy::{
    signer::Signer,
    store::{Entry, Store},
    types::RequestId,
};
use rusqlite::Connection;
use tokio::runtime::Builder;

const SIZES: [u32; 2] = [0, 1_000_000];
const OPENINGS: usize = 51;
const RECORDS: usize = 501;

fn main() {
    let runtime = Builder::new_multi_thread().build().unwrap();
    let signer = Signer::random();
    println!("{:>10} {:>12} {:>12}", "records", "open", "sign_record");
    for size in SIZES {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.db");
        drop(Store::open(&path, &[signer.seal_key()]).unwrap());
        fill(&path, size);
        let open = || Store::open(&path, &[signer.seal_key()]).unwrap();
        let opening = median((0..OPENINGS).map(|_| timed(|| drop(open()))));
        let store = open();
        let recording = median((0..RECORDS).map(|_| {
            let entry = entry(&signer);
            timed(|| runtime.block_on(store.sign_record(&entry, None)).unwrap())
        }));
        println!("{size:>10} {opening:>12.1?} {recording:>12.1?}");
    }
}

/// Records of the usual length. Nobody verifies them, so their hashes are any.
fn fill(path: &Path, size: u32) {
    let sql = r#"INSERT INTO journal (seq, record, hash)
        WITH RECURSIVE numbers (n) AS
            (SELECT 1 WHERE ?1 > 0 UNION ALL SELECT n + 1 FROM numbers WHERE n < ?1)
        SELECT n, printf('{"action":"job_complete","padding":"%s","seq":%d}',
                         hex(zeroblob(150)), n), randomblob(32) FROM numbers"#;
    Connection::open(path).unwrap().execute(sql, [size]).unwrap();
}

fn entry(signer: &Signer) -> Entry {
    Entry {
        request_id: RequestId::random(),
        call_id: RequestId::random(),
        client: "local".to_owned(),
        wallet: signer.address(),
        action: "job_complete",
        product: Some("68f0a1c27b3e4d5f60718201".parse().unwrap()),
        payload_hash: None,
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn median(times: impl Iterator<Item = Duration>) -> Duration {
    let mut times: Vec<_> = times.collect();
    times.sort_unstable();
    times[times.len() / 2]
}
