use std::{fs, os::unix::fs::PermissionsExt, path::Path, pin::pin};

use futures_util::{future::join_all, poll};
use jiff::Timestamp;
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};
use tokio::time::Instant;

use super::{
    db::Db,
    end::START,
    record::chained,
    run::Run,
    schema::{MIGRATIONS, migrate},
    seal::{Place, Seal},
    testing::{Folder, WALLET, at, client, id, key, limit_growth, note, operation, record, sign},
    *,
};
use crate::{
    clock::Moment,
    operation::Operation,
    policy::{Client, Denied},
    types::{ClientId, Credential},
};

fn verified(folder: &Folder) -> u64 {
    Journal::open(&folder.path()).unwrap().verify().unwrap().records
}

#[tokio::test]
async fn a_record_is_in_the_file_when_it_is_acknowledged() {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..5 {
        record(&store, number).await.unwrap();
        assert_eq!(verified(&folder), u64::from(number) + 1);
    }
}

/// The settings that "on the disk" rests on; a connection that was opened anew must have them too.
#[tokio::test]
async fn a_commit_is_synced_before_it_returns() {
    let folder = Folder::new();
    drop(folder.open());
    let connections = [file::open(&folder.path()), file::reopen(&folder.path())];
    for connection in connections.map(Result::unwrap) {
        let synchronous: Result<i64, _> =
            connection.one("PRAGMA synchronous", &[], |row| row.int(0));
        let mode = connection.one("PRAGMA journal_mode", &[], |row| Ok(row.text(0)?.to_owned()));
        assert_eq!((synchronous, mode.as_deref()), (Ok(2), Ok("wal")));
    }
}

/// The writer is held up by the lock of another process until all others wait.
#[tokio::test]
async fn those_who_wait_together_share_a_commit() {
    let folder = Folder::new();
    let store = folder.open();
    let other = folder.db();
    other.run("BEGIN IMMEDIATE").unwrap();
    let before = folder.commits();
    // All can go to the queue in one poll: tokio lets a task do 128 things before it must pause.
    let mut all = pin!(join_all((0..50).map(|number| record(&store, number))));
    assert!(poll!(&mut all).is_pending());
    other.run("ROLLBACK").unwrap();
    assert!(all.await.iter().all(Result::is_ok));
    assert_eq!(verified(&folder), 50);
    // The first may have set out before the others came.
    let commits = folder.commits() - before;
    assert!((1..=2).contains(&commits), "{commits} commits");
}

#[tokio::test]
async fn the_log_shrinks_again_after_it_had_to_grow() {
    let folder = Folder::new();
    let store = folder.open();
    let length = || fs::metadata(folder.path().with_extension("db-wal")).unwrap().len();
    let much = |db: &Db| db.run("CREATE TABLE much AS SELECT zeroblob(20000000)");
    store.write(much).await.unwrap();
    assert!(length() > 20_000_000);
    store.probe().await.unwrap();
    assert!(length() <= 8 << 20, "{}", length());
}

/// The lock is another process's until all reads are done.
#[tokio::test]
async fn no_read_waits_for_a_writer_and_every_change_does() {
    let folder = Folder::new();
    let limited = Client { rate: Some("2/h".parse().unwrap()), ..client("slow") };
    let (slow, plain) = (folder.add(&limited), folder.add(&client("plain")));
    let (store, now) = (folder.open(), Timestamp::now());
    let other = folder.db();
    other.run("BEGIN IMMEDIATE").unwrap();
    let caller = store.client_by(plain, now).await.unwrap().unwrap();
    let complete = operation(&caller, "job_complete", "");
    let mut change = pin!(sign(&store, &complete, 1));
    assert!(poll!(&mut change).is_pending());

    for credential in [slow, plain] {
        assert!(store.client_by(credential, now).await.unwrap().is_some());
    }
    assert!(store.has_clients().await.unwrap());
    assert!(store.reservations(now).await.unwrap().is_empty());
    let limited = store.client_by(slow, now).await.unwrap().unwrap();
    let counted = async || store.count(&limited, false, now).await.is_ok();
    assert_eq!([counted().await, counted().await, counted().await], [true, true, false]);
    let late = Instant::now() - known::KNOWN;
    let status = Operation { known_at: late, ..operation(&caller, "job_status", "") };
    assert!(matches!(store.begin(&status, Moment::now()).await.unwrap(), Begun::Started(_)));
    sign(&store, &status, 2).await.unwrap();
    let removed = Client { id: ClientId::new(99), ..caller.clone() };
    let of_another = sign(&store, &Operation { client: removed, ..status }, 3).await;
    assert!(of_another.unwrap_err().is_access_ended());

    assert!(poll!(&mut change).is_pending());
    other.run("ROLLBACK").unwrap();
    change.await.unwrap();
    store.flush().await.unwrap();
    assert!(folder.number("SELECT arrival FROM clients WHERE name = 'slow'") > 0, "it is counted");
}

#[tokio::test]
async fn a_full_disk_refuses_records_until_there_is_room() {
    let folder = Folder::new();
    let store = folder.open();
    limit_growth(&store, 4).await;
    let mut written = 0;
    let refused = loop {
        match record(&store, written).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(refused.is_full() && written > 0, "{refused}");
    assert!(refused.to_string().contains("proxy.db: the disk is full"), "{refused}");
    assert_eq!(verified(&folder), u64::from(written));
    limit_growth(&store, 1000).await;
    record(&store, written).await.unwrap();
    assert_eq!(verified(&folder), u64::from(written) + 1);
}

#[tokio::test]
async fn lost_records_are_counted_and_the_chain_goes_on() {
    // More than fit into the pages that are free.
    const RECORDS: u64 = 2000;
    let folder = Folder::new();
    let store = folder.open();
    limit_growth(&store, 0).await;
    for number in 0..RECORDS as u32 {
        note(&store, number).await;
    }
    // A disk that is full ends the whole transaction, so this may fail with the last of them.
    drop(store.flush().await);
    let lost = store.lost_records();
    assert!(lost > 0);
    assert_eq!(verified(&folder) + lost, RECORDS);
    limit_growth(&store, 1000).await;
    store.outcome(&id(1), RecordedOutcome::Unknown).await;
    store.flush().await.unwrap();
    assert_eq!((store.lost_records(), verified(&folder) + lost), (lost, RECORDS + 1));
}

#[tokio::test]
async fn a_connection_that_turned_read_only_is_replaced() {
    let folder = Folder::new();
    let store = folder.open();
    store.write(|db| db.run("PRAGMA query_only = TRUE")).await.unwrap();
    store.probe().await.unwrap();
    record(&store, 1).await.unwrap();
    assert_eq!(verified(&folder), 1);
}

#[cfg(unix)]
#[tokio::test]
async fn a_file_that_cannot_be_written_opens_and_is_read() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let store = folder.open();
    record(&store, 1).await.unwrap();
    drop(store);
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let state = folder.path().parent().unwrap().to_owned();
    let files: Vec<_> = fs::read_dir(&state).unwrap().map(|file| file.unwrap().path()).collect();
    files.iter().for_each(|file| mode(file, 0o400));
    mode(&state, 0o500);
    // Permissions do not bind root: for root, this shows only that nothing else goes wrong.
    let root = fs::OpenOptions::new().append(true).open(folder.path()).is_ok();
    let store = folder.open();
    assert_eq!(record(&store, 2).await.is_ok(), root);
    assert!(store.reservations(Timestamp::now()).await.unwrap().is_empty());
    mode(&state, 0o700);
    files.iter().for_each(|file| mode(file, 0o600));
    record(&store, 3).await.unwrap();
    assert_eq!(verified(&folder), if root { 3 } else { 2 });
}

#[tokio::test]
async fn two_stores_on_one_file_write_one_chain() {
    let folder = Folder::new();
    let stores = [folder.open(), folder.open()];
    let both = (0..100).map(|number| record(&stores[number as usize % 2], number));
    assert!(join_all(both).await.iter().all(Result::is_ok));
    assert_eq!(verified(&folder), 100);
}

#[test]
fn several_processes_may_make_the_file_at_once() {
    let folder = Folder::new();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8).map(|_| scope.spawn(|| drop(folder.open()))).collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
}

#[test]
fn a_file_of_a_newer_version_is_refused() {
    let folder = Folder::new();
    drop(folder.open());
    folder.tamper("PRAGMA user_version = 99");
    let refused = Store::open(&folder.path(), &[key(1)]).unwrap_err();
    assert!(refused.to_string().contains("a newer agentpmt-proxy has written it"), "{refused}");
    assert!(Journal::open(&folder.path()).is_err());
}

#[test]
fn a_file_that_is_no_database_is_refused() {
    let folder = Folder::new();
    fs::create_dir(folder.path().parent().unwrap()).unwrap();
    fs::write(folder.path(), "this is not a database, ".repeat(100)).unwrap();
    let refused = Store::open(&folder.path(), &[key(1)]).unwrap_err();
    assert!(matches!(refused.fault(), Fault::Corrupt(_)), "{refused:?}");
}

#[test]
fn a_database_of_another_program_is_refused_and_not_touched() {
    for sql in ["CREATE TABLE notes (a)", "CREATE TABLE journal (a); PRAGMA user_version = 2"] {
        let folder = Folder::new();
        fs::create_dir(folder.path().parent().unwrap()).unwrap();
        folder.tamper(sql);
        let before = folder.bytes();
        let refused = [
            Store::open(&folder.path(), &[key(1)]).unwrap_err(),
            Clients::open(&folder.path()).unwrap_err(),
            Journal::open(&folder.path()).unwrap_err(),
        ];
        assert!(refused.iter().all(|error| *error.fault() == Fault::Foreign), "{refused:?}");
        assert!(folder.bytes() == before, "it was changed");
    }
}

#[test]
fn a_file_whose_tables_were_removed_is_not_taken_for_a_new_one() {
    let folder = Folder::new();
    fs::create_dir(folder.path().parent().unwrap()).unwrap();
    folder.tamper("PRAGMA user_version = 5");
    let refused = Store::open(&folder.path(), &[key(1)]).unwrap_err();
    assert_eq!(*refused.fault(), Fault::Foreign);
}

#[test]
fn a_damaged_database_is_refused_without_a_value_that_was_stored() {
    let folder = Folder::new();
    drop(folder.open());
    folder.tamper(
        "PRAGMA writable_schema = ON;
         UPDATE sqlite_schema SET name = 'stored', sql = 'CREATE stored' WHERE name = 'probe';",
    );
    for refused in [
        Store::open(&folder.path(), &[key(1)]).unwrap_err(),
        Journal::open(&folder.path()).unwrap_err(),
    ] {
        let text = refused.to_string();
        assert!(text.contains("is damaged") && text.contains("from a copy"), "{text}");
        assert!(refused.is_damaged() && !text.contains("stored"), "{text}");
    }
}

#[test]
fn an_empty_file_has_no_journal_to_read() {
    let folder = Folder::new();
    fs::create_dir(folder.path().parent().unwrap()).unwrap();
    fs::write(folder.path(), "").unwrap();
    let refused = Journal::open(&folder.path()).unwrap_err();
    assert!(refused.is_missing(), "{refused}");
}

#[cfg(unix)]
#[tokio::test]
async fn the_folder_and_its_files_are_their_owners_alone() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let store = folder.open();
    store.show_alive().unwrap();
    let state = folder.path().parent().unwrap().to_owned();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(&state), 0o700);
    let files: Vec<_> = fs::read_dir(&state).unwrap().map(|file| file.unwrap().path()).collect();
    assert!(files.len() >= 4, "{files:?}");
    assert!(files.iter().all(|file| mode(file) == 0o600), "{files:?}");
}

#[test]
fn debug_shows_the_path_only() {
    let folder = Folder::new();
    let text = format!("{:?}", folder.open());
    assert_eq!(text, format!("Store {{ path: {:?}, .. }}", folder.path()));
}

/// Makes the file as an earlier version left it, with a journal of one record, and rows.
fn earlier(folder: &Folder, migrations: &[&str], fill: impl FnOnce(&Db)) {
    let state = folder.path().parent().unwrap().to_owned();
    fs::create_dir(&state).unwrap();
    let connection = folder.db();
    connection.run("PRAGMA journal_mode = WAL").unwrap();
    migrate(&connection, migrations).unwrap();
    let text = r#"{"kind":"signed","seq":1,"time":1800000000000}"#;
    let sql = "INSERT INTO journal VALUES (1, ?1, ?2)";
    connection.execute(sql, &[text.into(), (&chained(&START, text)).into()]).unwrap();
    fill(&connection);
    drop(connection);
    fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).unwrap();
    fs::set_permissions(folder.path(), PermissionsExt::from_mode(0o600)).unwrap();
}

/// As version 0.1.0 left it: without the marker, the head and the later tables.
#[tokio::test]
async fn a_state_of_the_first_version_keeps_its_clients_its_journal_and_its_reservations() {
    const FIRST_VERSION: usize = 5;
    let folder = Folder::new();
    let rows = "
        INSERT INTO clients (name, uid, allow, admin, created) VALUES ('ci', 7, 'all', 0, 0);
        INSERT INTO reservations VALUES ('{WALLET}', 'job1', 'ci', 'r-1', 1800000001000, NULL);";
    earlier(&folder, &MIGRATIONS[..FIRST_VERSION], |db| {
        db.run(&rows.replace("{WALLET}", WALLET)).unwrap();
    });

    for records in 1..=2 {
        let store = folder.open();
        let ci = store.client_by(Credential::Uid(7), at(0)).await.unwrap().unwrap();
        assert_eq!(ci.name.as_str(), "ci");
        assert_eq!(store.reservations(at(0)).await.unwrap()[0].job.as_str(), "job1");
        assert!(marker::stands(&folder.path()).unwrap());
        let verified = Journal::open(&folder.path()).unwrap().verify().unwrap();
        assert_eq!((verified.records, verified.has_head), (records, true));
        sign(&store, &operation(&ci, "job_complete", ""), 1).await.unwrap();
    }
}

#[tokio::test]
async fn a_state_of_an_older_version_that_is_in_use_is_not_changed_by_a_command_or_a_proxy() {
    let folder = Folder::new();
    earlier(&folder, &MIGRATIONS[..MIGRATIONS.len() - 1], |_| ());
    let older = Run::new(folder.path().parent().unwrap());
    older.show_alive().unwrap();
    let freeze = || freeze(&folder.path(), FreezeOf::Signatures);
    for error in [freeze().unwrap_err(), Store::open(&folder.path(), &[key(1)]).unwrap_err()] {
        assert_eq!(*error.fault(), Fault::OlderInUse);
    }
    drop(older);
    let frozen = freeze().unwrap();
    assert_eq!(folder.open().frozen().await.unwrap(), Some(frozen));
}

/// The rows of a version in which clients had no numbers: what they hold went by their names.
struct Unnumbered<'a> {
    db: &'a Db,
    seal: Seal,
}

impl Unnumbered<'_> {
    /// Of the names, `gone` is of a client that was removed.
    fn fill(&self) {
        let rows = "
            INSERT INTO clients (name, uid, allow, admin, created, max_reservations) VALUES
                ('ci', 7, 'all', 0, 20, 2), ('zoe', 8, 'all', 0, 10, NULL);
            INSERT INTO reservations (wallet, job, client, reservation_id, ends, workflow_token) VALUES
                ('{WALLET}', 'job1', 'ci', 'r-1', 1800001000000, NULL),
                ('{WALLET}', 'job4', 'gone', 'r-4', 1800001000000, NULL);
            INSERT INTO submissions VALUES ('{WALLET}', 'job2', 'zoe', 'r-2', 1800000000000);
            INSERT INTO pending_reservations (wallet, job, client, ends) VALUES
                ('{WALLET}', 'job3', 'ci', 1800001000000);";
        self.db.run(&rows.replace("{WALLET}", WALLET)).unwrap();
        let place = Place { what: "workflow token", row: [WALLET, "job1"] };
        let token = self.seal.seal(&place, b"the-token".to_vec()).unwrap();
        let sql = "UPDATE reservations SET workflow_token = ?1 WHERE job = 'job1'";
        self.db.execute(sql, &[token.as_slice().into()]).unwrap();
    }

    /// A row of a key that was claimed at the moment 0 by a process that is dead.
    fn answer(&self, client: &str, key: &str, call: [u8; 32], answer: Option<&[u8]>) {
        let place = Place { what: "answer", row: [client, key] };
        let sealed = answer.map(|answer| self.seal.seal(&place, answer.to_vec()).unwrap());
        let sql = "INSERT INTO answers (client, key, fingerprint, run, claimed, answer, quiet)
                   VALUES (?1, ?2, ?3, '67e55044-10b1-426f-9247-bb680e5fe0c8', ?4, ?5, ?6)";
        let [claimed, settles] = [at(0).into(), at(60).into()];
        let answer = sealed.as_deref().into();
        let row = [client.into(), key.into(), (&call).into(), claimed, answer, settles];
        self.db.execute(sql, &row).unwrap();
    }
}

fn hash(parts: &[&str]) -> [u8; 32] {
    Sha256::digest(parts.join("\n")).into()
}

#[tokio::test]
async fn a_state_without_numbers_of_clients_keeps_all_that_its_clients_had() {
    let folder = Folder::new();
    let before = MIGRATIONS.iter().position(|sql| sql.contains("numbered_clients")).unwrap();
    let reserve = hash(&[WALLET, "job_reserve", "/api/external/jobs/job1/reserve", "{}"]);
    let path = operation(&client("zoe"), "job_complete", "").call.path().replace("job1", "job2");
    let submitted = hex::encode(hash(&[WALLET, &path, r#""r-2""#]));
    let (submitted, proof) = (format!("completion {submitted}"), hash(&["{}"]));
    earlier(&folder, &MIGRATIONS[..before], |db| {
        let rows = Unnumbered { db, seal: Seal::new(&[key(1)]) };
        rows.fill();
        rows.answer("ci", "answered", reserve, Some(b"200\n\nreserved"));
        rows.answer("ci", "took-effect", reserve, Some(b"took effect\n[null,\"submitted\"]"));
        rows.answer("ci", "sent", reserve, None);
        rows.answer("boss", &submitted, proof, None);
        rows.answer("zoe", &submitted, proof, Some(b"200\n\nsubmitted"));
        for client in ["local", "gone"] {
            rows.answer(client, "answered", reserve, Some(b"200\n\nanother"));
        }
    });

    let store = folder.open();
    let found = async |uid| store.client_by(Credential::Uid(uid), at(1)).await.unwrap().unwrap();
    let (ci, zoe) = (found(7).await, found(8).await);
    assert_eq!((ci.id, zoe.id), (ClientId::new(2), ClientId::new(1)), "in the order of their age");
    assert_eq!(verified(&folder), 1);
    let owners = "SELECT group_concat(owner) FROM (SELECT owner FROM answers ORDER BY owner)";
    let owners = folder.db().one(owners, &[], |row| Ok(row.text(0)?.to_owned())).unwrap();
    assert_eq!(owners, "0,2,2,2,completions,removed gone");

    let job = |number: u32| format!("job{number}").parse().unwrap();
    let wallet = WALLET.parse().unwrap();
    let reservation = store.reservation(wallet, &job(1)).await.unwrap().unwrap();
    assert_eq!((reservation.client, reservation.client_name), (ci.id, ci.name.clone()));
    assert_eq!(reservation.workflow_token.unwrap().expose_secret(), "the-token");
    let mut holders = Vec::new();
    for number in 1..=4 {
        holders.push(store.holder(wallet, &job(number), ClientId::LOCAL, at(1)).await.unwrap());
    }
    let removed = ClientId::new(-1);
    assert_eq!(holders, [ci.id, zoe.id, ci.id, removed].map(Some));

    let moment = Moment { wall: at(1), steady: at(1) };
    let begin = async |client: &Client, action, job, key: Option<&str>| {
        let key = key.map(|key| key.parse().unwrap());
        let operation = Operation { key, ..Operation::of(client, action, job, "") };
        store.begin(&operation, moment).await.unwrap()
    };
    let body = |begun| match begun {
        Begun::Answered(answer) => answer.body,
        other => panic!("{other:?}"),
    };
    assert_eq!(body(begin(&ci, "job_reserve", "job1", Some("answered")).await), "reserved");
    for (key, has_died) in [("took-effect", false), ("sent", true)] {
        let begun = begin(&ci, "job_reserve", "job1", Some(key)).await;
        let Begun::Started(started) = begun else { panic!("{begun:?}") };
        let doubt = Doubt { settles_at: at(60), has_died, is_other: false };
        assert_eq!(started.doubt, Some(doubt), "{key}");
    }
    let third = begin(&ci, "job_reserve", "job9", None).await;
    let too_many = Denied::TooManyReservations { running: 2, until: at(1000) };
    assert!(matches!(&third, Begun::Denied(denied) if *denied == too_many), "{third:?}");
    assert_eq!(body(begin(&zoe, "job_complete", "job2", Some("new")).await), "submitted");
    let others = begin(&ci, "job_complete", "job2", None).await;
    assert!(matches!(others, Begun::Denied(Denied::Holder(_))), "{others:?}");
}
