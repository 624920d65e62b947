//! The store as the rest of the program and a person at a shell see it.

use std::{
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
    time::Duration,
};

use agentpmt_proxy::{
    action::Action,
    call::Call,
    clock::Moment,
    operation::Operation,
    policy::Client,
    signer::LocalKey,
    store::{
        Attempt, Begun, Caller, Claim, CreditEnd, Denial, Doubt, Finish, JobEnd, Journal, KeyEnd,
        RecordedOutcome, Reservation, Store, StoredAnswer,
    },
    trace::Trace,
    types::{ClientId, RequestId},
};
use http::{HeaderMap, StatusCode};
use jiff::{SignedDuration, Timestamp};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::time::Instant;

/// A folder, and a wallet whose store is in it.
struct Home {
    folder: TempDir,
    signer: LocalKey,
}

impl Home {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), signer: LocalKey::random() }
    }

    fn state(&self) -> PathBuf {
        self.folder.path().join("state")
    }

    fn database(&self) -> PathBuf {
        self.state().join("proxy.db")
    }

    fn open(&self) -> Store {
        Store::open(&self.database(), &[self.signer.seal_key()]).unwrap()
    }

    /// A call of the client `agent`.
    fn operation(&self, action: &str, ids: &[&str]) -> Operation {
        let client = Client { name: "agent".parse().unwrap(), ..Client::local() };
        let ids = ids.iter().copied();
        Operation {
            call: Call::new(Action::named(action).unwrap(), ids, b"{}").unwrap(),
            client,
            wallet: self.signer.address(),
            key: None,
            price: None,
            has_prices: false,
            known_at: Instant::now(),
            deadline: Instant::now() + Duration::from_secs(60),
            trace: Arc::new(Trace::new("call-1".parse().unwrap())),
        }
    }

    /// The record of an attempt; of a change, it is on the disk when this returns.
    async fn sign(&self, store: &Store, operation: &Operation, number: u32) {
        let (call, request_id) = (&operation.call, &request_id(number));
        let attempt = Attempt { operation, call, request_id, payload_hash: None, payment: None };
        store.record_attempt(attempt, &Claim::default(), Timestamp::now()).await.unwrap();
    }

    /// A call with a key.
    fn keyed(&self) -> Operation {
        let key = Some("key".parse().unwrap());
        Operation { key, ..self.operation("job_reserve", &["job1"]) }
    }

    async fn complete(&self, store: &Store, number: u32) {
        self.sign(store, &self.operation("job_complete", &["job1"]), number).await;
    }

    /// Two calls, of which the second has no outcome.
    async fn write_three_records(&self, store: &Store) {
        self.complete(store, 1).await;
        let outcome = RecordedOutcome::Answered { status: 200, milliseconds: 12 };
        store.outcome(&request_id(1), outcome).await;
        self.complete(store, 2).await;
    }

    /// What the program prints about the journal.
    fn journal(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_agentpmt-proxy"));
        command.current_dir(self.folder.path()).arg("journal").args(arguments);
        command.arg("--state").arg(self.state()).output().unwrap()
    }
}

fn request_id(number: u32) -> RequestId {
    format!("request-{number}").parse().unwrap()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

fn tamper(database: &Path, sql: &str) {
    rusqlite::Connection::open(database).unwrap().execute_batch(sql).unwrap();
}

#[tokio::test]
async fn everything_is_there_after_a_restart() {
    let home = Home::new();
    let now = Timestamp::now();
    let answer = StoredAnswer {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        body: "{\"success\":true}".into(),
    };
    let store = home.open();
    home.write_three_records(&store).await;
    let reserve = |job: &str, key: &str| {
        let reserve = home.operation("job_reserve", &[job]);
        Operation { key: Some(key.parse().unwrap()), ..reserve }
    };
    let (done, cut_off) = (reserve("job1", "done"), reserve("job2", "cut-off"));
    let begin = async |store: &Store, operation: &Operation| {
        store.begin(operation, Moment { wall: now, steady: now }).await.unwrap()
    };
    let Begun::Started(started) = begin(&store, &done).await else { panic!("not started") };
    let reservation = Reservation {
        job: "job1".parse().unwrap(),
        wallet: home.signer.address(),
        client: ClientId::LOCAL,
        client_name: "agent".parse().unwrap(),
        reservation_id: Some("reservation-1".into()),
        ends: now + SignedDuration::from_mins(30),
        workflow_token: Some("the-token".into()),
        answer: None,
    };
    let job = JobEnd::Reserved(reservation.clone());
    let key = KeyEnd::Answered(answer.clone());
    let finish = Finish {
        key,
        job,
        credits: CreditEnd::Free,
        is_pending: false,
        is_settled: false,
        past: now,
    };
    store.finish(&done, &started.claim, &finish, now).await.unwrap();
    let Begun::Started(started) = begin(&store, &cut_off).await else { panic!("not started") };
    let settles_at = Timestamp::from_second(now.as_second() + 10).unwrap();
    let (operation, call, request_id) = (&cut_off, &cut_off.call, &request_id(3));
    let attempt = Attempt { operation, call, request_id, payload_hash: None, payment: None };
    store.record_attempt(attempt, &started.claim, settles_at).await.unwrap();
    drop((started, store));

    let store = home.open();
    let again = begin(&store, &done).await;
    assert!(matches!(&again, Begun::Answered(again) if *again == answer), "{again:?}");
    let Begun::Started(started) = begin(&store, &cut_off).await else { panic!("not started") };
    let doubt = Doubt { settles_at, has_died: true, is_other: false };
    assert_eq!(started.doubt, Some(doubt));
    let found = store.reservation(reservation.wallet, &reservation.job).await.unwrap().unwrap();
    assert_eq!(found.workflow_token.unwrap().expose_secret(), "the-token");
    assert_eq!(store.reservations(now).await.unwrap().len(), 1);
    assert_eq!(Journal::open(&home.database()).unwrap().verify().unwrap().records, 4);
}

#[tokio::test]
async fn tail_shows_a_line_a_call_with_what_came_of_it() {
    let home = Home::new();
    let store = home.open();
    home.write_three_records(&store).await;
    let output = home.journal(&["tail"]);
    assert!(output.status.success(), "{output:?}");
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(words(lines[0]), ["1", "agent", "job_complete", "job1", "200", "in", "12", "ms"]);
    assert_eq!(words(lines[1]), ["3", "agent", "job_complete", "job1", "NO", "OUTCOME"]);
    let last = home.journal(&["tail", "-n", "2", "--json"]);
    let calls: Vec<serde_json::Value> =
        text(&last.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!((&calls[0]["seq"], &calls[0]["action"]), (&1.into(), &"job_complete".into()));
    assert_eq!((&calls[0]["status"], &calls[0]["milliseconds"]), (&200.into(), &12.into()));
    assert_eq!((&calls[1]["seq"], &calls[1]["outcome"]), (&3.into(), &serde_json::Value::Null));
}

/// The words of a line, but for its time.
fn words(line: &str) -> Vec<&str> {
    let mut words: Vec<_> = line.split_whitespace().collect();
    assert!(words.remove(1).ends_with('Z'), "{line}");
    words
}

#[tokio::test]
async fn tail_shows_the_calls_of_a_client_or_job_the_changes_or_those_since_a_time() {
    let home = Home::new();
    let store = home.open();
    let calls: [(&str, &str, &[&str]); 4] = [
        ("agent", "job_list", &[]),
        ("agent", "job_complete", &["job1"]),
        ("other", "job_complete", &["job2"]),
        ("other", "job_status", &["job1"]),
    ];
    for (number, (client, action, ids)) in (1..).zip(calls) {
        let client = Client { name: client.parse().unwrap(), ..Client::local() };
        let operation = Operation { client, ..home.operation(action, ids) };
        home.sign(&store, &operation, number).await;
    }
    store.flush().await.unwrap();
    let shown = |args: &[&str]| {
        let output = home.journal(&[&["tail"], args].concat());
        assert!(output.status.success(), "{output:?}");
        let lines = text(&output.stdout).lines();
        lines.map(|line| words(line)[0].parse().unwrap()).collect::<Vec<u32>>()
    };
    assert_eq!(shown(&[]), [1, 2, 3, 4]);
    assert_eq!(shown(&["-n", "3"]), [2, 3, 4]);
    assert_eq!(shown(&["--client", "agent"]), [1, 2]);
    assert_eq!(shown(&["--client", "agent", "-n", "1"]), [2], "the last that fits");
    assert_eq!(shown(&["--job", "JOB1"]), [2, 4]);
    assert_eq!(shown(&["--changes"]), [2, 3]);
    assert_eq!(shown(&["--changes", "--client", "other", "--job", "job2"]), [3]);
    assert_eq!(shown(&["--since", "1h"]), [1, 2, 3, 4]);
    assert!(shown(&["--since", "2999-01-31T00:00:00Z"]).is_empty());
    let output = home.journal(&["tail", "--client", "nobody"]);
    assert!(text(&output.stderr).contains("no record matches"), "{output:?}");
    let output = home.journal(&["tail", "--since", "yesterday"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("such as 2h"), "{output:?}");
}

#[tokio::test]
async fn tail_tells_how_many_denied_calls_a_record_stands_for() {
    let home = Home::new();
    let store = home.open();
    let denial = Denial {
        call_id: "call-1".parse().unwrap(),
        caller: Caller::Client("ci".parse().unwrap()),
        wallet: None,
        action: "job_list",
        product: None,
        reason: "rate",
    };
    for _ in 0..100 {
        store.denied(&denial).await;
    }
    store.flush().await.unwrap();
    let output = home.journal(&["tail", "-n", "2"]);
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert!(lines[0].ends_with("denied: rate"), "{lines:?}");
    assert!(lines[1].ends_with("denied: rate 40 times"), "{lines:?}");
}

#[tokio::test]
async fn an_empty_journal_says_so() {
    let home = Home::new();
    let store = home.open();
    let output = home.journal(&["tail"]);
    assert!(output.status.success() && output.stdout.is_empty(), "{output:?}");
    assert!(text(&output.stderr).contains("the journal is empty"), "{output:?}");
    drop(store);
}

#[tokio::test]
async fn tail_follows_each_call_to_its_end_until_nobody_reads() {
    let home = Home::new();
    let store = home.open();
    home.write_three_records(&store).await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_agentpmt-proxy"));
    command.args(["journal", "tail", "-f", "-n", "1", "--state"]).arg(home.state());
    let mut child = command.stdout(std::process::Stdio::piped()).spawn().unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let (told, lines) = std::sync::mpsc::sync_channel(0);
    std::thread::spawn(move || {
        let lines = std::io::BufRead::lines(output).map_while(Result::ok);
        // It ends, and with it the reading, once the test takes no more.
        lines.take_while(|line| told.send(line.clone()).is_ok()).for_each(drop);
    });
    let next = || lines.recv_timeout(std::time::Duration::from_secs(60)).unwrap();
    assert!(next().ends_with("NO OUTCOME"));
    store.outcome(&request_id(2), RecordedOutcome::NotSent).await;
    assert!(next().ends_with("not sent"));
    home.complete(&store, 3).await;
    store.outcome(&request_id(3), RecordedOutcome::Answered { status: 409, milliseconds: 7 }).await;
    assert_eq!(words(&next())[1..], ["agent", "job_complete", "job1", "409", "in", "7", "ms"]);
    drop(lines);
    let mut number = 4;
    let ended = loop {
        if let Some(ended) = child.try_wait().unwrap() {
            break ended;
        }
        home.complete(&store, number).await;
        store.outcome(&request_id(number), RecordedOutcome::Unknown).await;
        assert!(number < 100_000);
        number += 1;
    };
    assert!(ended.success());
}

#[tokio::test]
async fn tail_shows_what_was_denied_to_whom_and_why() {
    let home = Home::new();
    let store = home.open();
    let denial = Denial {
        call_id: "call-1".parse().unwrap(),
        caller: Caller::Client("ci".parse().unwrap()),
        wallet: Some(home.signer.address()),
        action: "job_complete",
        product: Some("job1".parse().unwrap()),
        reason: "holder",
    };
    store.denied(&denial).await;
    let caller = Caller::Unknown("user id 7".to_owned());
    store.denied(&Denial { caller, reason: "unknown", ..denial }).await;
    store.flush().await.unwrap();
    let output = home.journal(&["tail"]);
    let lines: Vec<_> = text(&output.stdout).lines().collect();
    assert_eq!(lines.len(), 2, "{output:?}");
    assert_eq!(words(lines[0])[1..], ["ci", "job_complete", "job1", "denied:", "holder"]);
    assert_eq!(words(lines[1])[3..], ["7", "job_complete", "job1", "denied:", "unknown"]);
    assert_eq!(Journal::open(&home.database()).unwrap().verify().unwrap().records, 2);
}

#[tokio::test]
async fn verify_counts_what_holds_and_names_what_does_not() {
    let home = Home::new();
    home.write_three_records(&home.open()).await;
    let output = home.journal(&["verify"]);
    let exported = home.journal(&["export"]);
    let lines = text(&exported.stdout).lines();
    let lines: Vec<serde_json::Value> =
        lines.map(|line| serde_json::from_str(line).unwrap()).collect();
    let hash = lines[2]["hash"].as_str().unwrap();
    assert_eq!(text(&output.stdout), format!("{hash}\n"), "{output:?}");
    assert_eq!(lines[3]["record"]["action"], "journal_export", "that it was printed is on record");
    assert!(text(&output.stderr).starts_with("3 records hold"), "{output:?}");

    tamper(&home.database(), "DELETE FROM journal WHERE seq = 2");
    let output = home.journal(&["verify"]);
    assert_eq!(output.status.code(), Some(1));
    let expected = "agentpmt-proxy: the journal was altered: record 2 is missing; the records \
                    before it hold\n";
    assert_eq!(text(&output.stderr), expected);
}

/// Writes records of 100 to 98 days ago, and returns the hash of the second.
fn write_old_records(database: &Path) -> String {
    let connection = rusqlite::Connection::open(database).unwrap();
    let mut hashes = vec![[0; 32]];
    for (seq, days) in [(1, 100), (2, 99), (3, 98)] {
        let time = (Timestamp::now() - SignedDuration::from_hours(24 * days)).as_millisecond();
        let record =
            format!(r#"{{"action":"job_list","kind":"signed","seq":{seq},"time":{time}}}"#);
        let hash = Sha256::new_with_prefix(hashes[seq - 1]).chain_update(&record).finalize().into();
        let row = rusqlite::params![seq, record, hash];
        connection.execute("INSERT INTO journal VALUES (?1, ?2, ?3)", row).unwrap();
        hashes.push(hash);
    }
    hex::encode(hashes[2])
}

#[tokio::test]
async fn old_records_are_archived_and_both_parts_verify() {
    let home = Home::new();
    let store = home.open();
    let hash = write_old_records(&home.database());
    home.complete(&store, 1).await;
    let file = home.folder.path().join("old.jsonl");
    let file = file.to_str().unwrap();
    let before = (Timestamp::now() - SignedDuration::from_hours(24 * 98 + 1)).to_string();
    let archive = |before: &str| home.journal(&["archive", "--before", before, file]);
    let output = archive("10m");
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    assert!(text(&output.stderr).contains("the last hour stay"), "{output:?}");
    let output = archive("2001-01-01T00:00:00Z");
    assert!(text(&output.stderr).contains("nothing was written"), "{output:?}");

    let output = archive(&before);
    assert_eq!(text(&output.stdout), format!("{hash}\n"), "{output:?}");
    assert!(text(&output.stderr).starts_with("2 records are in "), "{output:?}");
    assert_eq!(archive(&before).status.code(), Some(73), "it writes over no file");
    let output = home.journal(&["verify"]);
    assert!(text(&output.stderr).starts_with("3 records hold"), "{output:?}");
    assert!(text(&output.stderr).contains("The 2 before them are in archives"), "{output:?}");
    let output = home.journal(&["verify", file]);
    assert_eq!(text(&output.stdout), format!("{hash}\n"), "{output:?}");
    assert!(text(&output.stderr).contains("goes on from there"), "{output:?}");
    let tail = home.journal(&["tail", "--changes"]);
    let last = text(&tail.stdout).lines().last().unwrap();
    assert!(last.contains("uid ") && last.contains("journal_archive"), "{last}");
    // The proxy that ran all the time goes on.
    home.complete(&store, 2).await;
    assert_eq!(Journal::open(&home.database()).unwrap().verify().unwrap().records, 4);

    std::fs::write(file, text(&std::fs::read(file).unwrap()).replacen("job_list", "job_lost", 1))
        .unwrap();
    let output = home.journal(&["verify", file]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        text(&output.stderr).contains("old.jsonl: the journal was altered: record 1"),
        "{output:?}"
    );
}

#[test]
fn without_a_store_the_commands_say_so() {
    let home = Home::new();
    for command in ["tail", "verify", "export"] {
        let output = home.journal(&[command]);
        assert_eq!(output.status.code(), Some(66), "{output:?}");
        assert!(text(&output.stderr).contains("state/proxy.db: there is no such file"));
        assert!(!home.state().exists());
    }
}

#[test]
fn every_command_has_help_with_an_example() {
    let home = Home::new();
    for command in
        [&["--help"][..], &["tail", "--help"], &["verify", "--help"], &["export", "--help"]]
    {
        let output = home.journal(command);
        let (_, example) = text(&output.stdout).split_once("\nExample").unwrap();
        assert!(example.contains(":\n  agentpmt-proxy journal"), "{output:?}");
    }
}

/// A process that dies drops its lock, however it dies: here it is killed while it holds a claim.
#[cfg(unix)]
#[tokio::test]
async fn a_claim_is_running_while_its_process_lives_and_free_when_it_was_killed() {
    let signer = LocalKey::from_hex(&"42".repeat(32)).unwrap();
    if let Some(database) = std::env::var_os("STORE_TEST_CLAIM_AND_HANG") {
        let store = Store::open(Path::new(&database), &[signer.seal_key()]).unwrap();
        let home = Home { signer, ..Home::new() };
        let begun = store.begin(&home.keyed(), Moment::now()).await.unwrap();
        assert!(matches!(begun, Begun::Started(_)), "{begun:?}");
        println!("claimed");
        return std::future::pending().await;
    }
    let home = Home { signer, ..Home::new() };
    let name = "store::a_claim_is_running_while_its_process_lives_and_free_when_it_was_killed";
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env("STORE_TEST_CLAIM_AND_HANG", home.database())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let output = std::io::BufReader::new(child.stdout.take().unwrap());
    let claimed = std::io::BufRead::lines(output).any(|line| line.unwrap().contains("claimed"));
    assert!(claimed);
    let store = home.open();
    let begun = store.begin(&home.keyed(), Moment::now()).await.unwrap();
    assert!(matches!(begun, Begun::Running), "{begun:?}");
    child.kill().unwrap();
    child.wait().unwrap();
    let begun = store.begin(&home.keyed(), Moment::now()).await.unwrap();
    let Begun::Started(started) = begun else { panic!("{begun:?}") };
    assert_eq!(started.doubt, None, "nothing was sent");
}
