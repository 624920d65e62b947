use std::fs;

use super::*;
use crate::store::{
    RecordedOutcome, Store,
    testing::{Folder, id, key, note, record},
};

/// A journal of six records: three calls with their outcomes.
async fn six_records() -> Folder {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..3 {
        record(&store, number).await.unwrap();
        store
            .outcome(&id(number), RecordedOutcome::Answered { status: 200, milliseconds: 7 })
            .await;
    }
    store.flush().await.unwrap();
    folder
}

fn verify(folder: &Folder) -> Result<u64, Broken> {
    match Journal::open(&folder.path()).unwrap().verify() {
        Ok(verified) => Ok(verified.records),
        Err(VerifyError::Broken(broken)) => Err(broken),
        Err(VerifyError::Store(error)) => panic!("{error}"),
    }
}

#[tokio::test]
async fn a_journal_holds_as_it_was_written() {
    let folder = six_records().await;
    assert_eq!(verify(&folder), Ok(6));
    let tail = Journal::open(&folder.path()).unwrap().tail(2).unwrap();
    assert_eq!(tail.iter().map(|record| record.seq).collect::<Vec<_>>(), [5, 6]);
    assert_eq!(tail[0].fields().unwrap().text("request_id").as_deref(), Some("request-2"));
    assert_eq!(tail[1].fields().unwrap().field("status").unwrap().as_str(), "200");
}

#[tokio::test]
async fn the_head_names_the_last_record_when_it_is_acknowledged() {
    let folder = Folder::new();
    let store = folder.open();
    let head = || Head::read(&folder.path()).unwrap().unwrap().end.seq;
    for number in 1..=5 {
        record(&store, number).await.unwrap();
        assert_eq!(head(), u64::from(2 * number - 1));
        // No caller waits for this one before the next.
        note(&store, number).await;
    }
    store.flush().await.unwrap();
    assert_eq!((head(), verify(&folder)), (10, Ok(10)));
}

#[test]
fn an_empty_journal_holds() {
    let folder = Folder::new();
    drop(folder.open());
    assert_eq!(verify(&folder), Ok(0));
}

#[tokio::test]
async fn every_kind_of_tampering_is_found() {
    let swap = "CREATE TEMP TABLE t AS SELECT * FROM journal;
                UPDATE journal SET (record, hash) =
                    (SELECT record, hash FROM t WHERE t.seq = 7 - journal.seq)
                WHERE seq IN (3, 4)";
    for (what, sql, seq, why) in [
        (
            "a field",
            "UPDATE journal SET record = replace(record, '\"agent\"', '\"nobody\"') WHERE seq = 3",
            3,
            Breach::Changed,
        ),
        ("a hash", "UPDATE journal SET hash = zeroblob(32) WHERE seq = 2", 2, Breach::Changed),
        ("half a hash", "UPDATE journal SET hash = x'00' WHERE seq = 2", 2, Breach::Changed),
        ("a space", "UPDATE journal SET record = record || ' ' WHERE seq = 6", 6, Breach::Changed),
        ("the first gone", "DELETE FROM journal WHERE seq = 1", 1, Breach::Missing),
        ("one gone", "DELETE FROM journal WHERE seq = 4", 4, Breach::Missing),
        (
            "one gone and the gap closed",
            "DELETE FROM journal WHERE seq = 4; UPDATE journal SET seq = seq - 1 WHERE seq > 4",
            4,
            Breach::Changed,
        ),
        ("two swapped", swap, 3, Breach::Changed),
        (
            "one put in",
            "INSERT INTO journal SELECT seq + 1, record, hash FROM journal WHERE seq = 6",
            7,
            Breach::Changed,
        ),
        (
            "one put before",
            "INSERT INTO journal SELECT -1, record, hash FROM journal WHERE seq = 6",
            1,
            Breach::Missing,
        ),
    ] {
        let folder = six_records().await;
        folder.tamper(sql);
        assert_eq!(verify(&folder), Err(Broken { seq, why }), "{what}");
    }
}

#[tokio::test]
async fn an_end_that_is_cut_off_or_written_anew_is_found_by_the_head() {
    let anew = "DELETE FROM journal;
                INSERT INTO journal VALUES (1, 'x', x'1cda');";
    for (sql, breach) in [
        ("DELETE FROM journal WHERE seq = 6", Breach::Gone),
        ("DELETE FROM journal", Breach::Gone),
        (anew, Breach::Changed),
    ] {
        let folder = six_records().await;
        folder.tamper(sql);
        let refused = Store::open(&folder.path(), &[key(1)]).unwrap_err();
        assert!(matches!(refused.fault(), Fault::RecordsLost { seq: 6, .. }), "{refused}");
        assert_eq!(verify(&folder).unwrap_err().why, breach, "{sql}");
    }
}

/// The limit of what stands in one folder, which the documentation of [`Journal`] states.
#[tokio::test]
async fn without_the_head_an_end_that_is_cut_off_shows_by_a_hash_that_was_kept() {
    let folder = six_records().await;
    let kept = Journal::open(&folder.path()).unwrap().verify().unwrap();
    assert!(kept.has_head);
    let store = folder.open();
    record(&store, 9).await.unwrap();
    let journal = Journal::open(&folder.path()).unwrap();
    assert_eq!(journal.holds(&kept.hash).ok(), Some(true), "it has grown");
    drop(store);
    fs::remove_file(head::path(&folder.path())).unwrap();
    folder.tamper("DELETE FROM journal WHERE seq >= 6");
    let verified = journal.verify().unwrap();
    assert_eq!((verified.records, verified.has_head), (5, false));
    assert!(!journal.holds(&kept.hash).unwrap() && journal.holds(&START).unwrap());
}

#[tokio::test]
async fn a_head_that_is_empty_or_cut_is_begun_anew() {
    for length in [0, 40, 100] {
        let folder = six_records().await;
        let path = head::path(&folder.path());
        let whole = fs::read(&path).unwrap();
        fs::write(&path, &whole[..length]).unwrap();
        assert!(!Journal::open(&folder.path()).unwrap().verify().unwrap().has_head);
        drop(folder.open());
        assert!(Journal::open(&folder.path()).unwrap().verify().unwrap().has_head);
        assert_eq!(fs::read(&path).unwrap().len(), whole.len());
    }
}

#[tokio::test]
async fn the_head_of_another_wallet_is_sealed_anew() {
    let folder = six_records().await;
    let path = head::path(&folder.path());
    let before = fs::read(&path).unwrap();
    drop(folder.open());
    assert!(fs::read(&path).unwrap() == before, "it was sealed by this one");
    drop(Store::open(&folder.path(), &[key(2)]).unwrap());
    assert!(fs::read(&path).unwrap() != before);
}

#[tokio::test]
async fn an_exported_line_holds_all_that_the_chain_needs() {
    use sha2::{Digest, Sha256};
    let folder = six_records().await;
    let mut previous = START.to_vec();
    let each = |record: Record| {
        let line = record.to_json_line();
        let rest = line.strip_prefix("{\"hash\":\"").unwrap();
        let (hash, rest) = rest.split_once("\",\"record\":").unwrap();
        let text = rest.strip_suffix('}').unwrap();
        previous = Sha256::new_with_prefix(&previous).chain_update(text).finalize().to_vec();
        assert_eq!(hash, hex::encode(&previous));
        Ok::<_, StoreError>(())
    };
    Journal::open(&folder.path()).unwrap().for_each(each).unwrap();
}

/// A page is read at one moment of the journal.
#[tokio::test]
async fn a_journal_is_read_while_it_is_written() {
    let folder = six_records().await;
    let store = folder.open();
    let journal = Journal::open(&folder.path()).unwrap();
    let mut seen = 0;
    let each = |_| {
        seen += 1;
        let id = id(9);
        let noted = store.outcome(&id, RecordedOutcome::Unknown);
        futures_util::FutureExt::now_or_never(noted).unwrap();
        Ok::<_, StoreError>(())
    };
    journal.for_each(each).unwrap();
    store.flush().await.unwrap();
    assert_eq!((seen, verify(&folder)), (6, Ok(12)));
}

/// A reader that is slow must not let the log grow.
#[tokio::test]
async fn the_log_is_brought_into_the_file_while_the_journal_is_read() {
    let folder = six_records().await;
    let writer = folder.db();
    writer.set_patience(std::time::Duration::ZERO).unwrap();
    let each = |_| {
        writer.run("UPDATE probe SET at = at + 1").unwrap();
        let is_blocked = writer.one("PRAGMA wal_checkpoint(TRUNCATE)", &[], |row| row.flag(0));
        assert_eq!(is_blocked, Ok(false));
        Ok::<_, StoreError>(())
    };
    Journal::open(&folder.path()).unwrap().for_each(each).unwrap();
}

#[test]
fn a_journal_that_is_not_there_is_missing() {
    let error = Journal::open(&Folder::new().path()).unwrap_err();
    assert!(error.is_missing());
    assert!(error.to_string().contains("proxy.db: there is no such file"), "{error}");
}
