//! What a long history costs: to open the store, and to record one more call. And what a record of
//! the background costs, in CPU time: on the thread that leaves it and on the one that writes it.

#![allow(clippy::unwrap_used)]

use std::{
    fs,
    path::Path,
    thread,
    time::{Duration, Instant},
};

use agentpmt_proxy::{
    signer::Signer,
    store::{Entry, Outcome, Store},
    types::RequestId,
};
use rusqlite::Connection;
use tokio::runtime::Builder;

const SIZES: [u32; 2] = [0, 1_000_000];
const OPENINGS: usize = 51;
const RECORDS: usize = 501;
const READS: u32 = 50_000;

/// How many reads are recorded between two pauses, which are as long as the store waits for company:
/// as many as come in that time under load.
const AT_ONCE: u32 = 100;
const PAUSE: Duration = Duration::from_millis(20);

fn main() {
    let runtime = Builder::new_multi_thread().build().unwrap();
    let signer = Signer::random();
    println!(
        "{:>10} {:>12} {:>12} {:>12} {:>12}",
        "records", "open", "sign_record", "note: caller", "note: store"
    );
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
        let [caller, writer] = notes(&store, &signer);
        println!("{size:>10} {opening:>12.1?} {recording:>12.1?} {caller:>12.1?} {writer:>12.1?}");
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

/// The CPU time of a background record, on this thread and on the store's.
fn notes(store: &Store, signer: &Signer) -> [Duration; 2] {
    let runtime = Builder::new_current_thread().enable_time().build().unwrap();
    let entries: Vec<_> = (0..READS).map(|_| entry(signer)).collect();
    let outcome = Outcome::Answered { status: 200, milliseconds: 1 };
    let writer = thread_of_the_store();
    let before = [cpu("/proc/thread-self"), cpu(&writer)];
    for some in entries.chunks(AT_ONCE as usize) {
        runtime.block_on(async {
            for entry in some {
                store.note(entry).await;
                store.outcome(&entry.request_id, outcome).await;
            }
        });
        thread::sleep(PAUSE);
    }
    let caller = cpu("/proc/thread-self");
    runtime.block_on(store.flush()).unwrap();
    assert_eq!(store.lost_records(), 0);
    [caller - before[0], cpu(&writer) - before[1]].map(|time| time / (2 * READS))
}

/// The folder of the youngest thread of a store; those of stores that were closed may still end.
fn thread_of_the_store() -> String {
    let threads = fs::read_dir("/proc/self/task").unwrap().map(|thread| thread.unwrap());
    let of_a_store = threads.filter(|thread| {
        fs::read_to_string(thread.path().join("comm")).is_ok_and(|name| name.trim() == "store")
    });
    let id = of_a_store.map(|thread| thread.file_name().to_str().unwrap().parse::<u32>().unwrap());
    format!("/proc/self/task/{}", id.max().unwrap())
}

/// The time that a thread has run so far.
fn cpu(thread: &str) -> Duration {
    let text = fs::read_to_string(format!("{thread}/schedstat")).unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
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
