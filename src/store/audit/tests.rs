use super::*;
use crate::store::{
    Outcome,
    testing::{Folder, entry, id},
};

/// A journal of six records: three calls with their outcomes.
async fn six_records() -> Folder {
    let folder = Folder::new();
    let store = folder.open();
    for number in 0..3 {
        store.sign_record(&entry(number), None).await.unwrap();
        store.outcome(&id(number), Outcome::Answered { status: 200, milliseconds: 7 }).await;
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

/// The limit of a chain without a secret, which the documentation of [`Journal`] states.
#[tokio::test]
async fn a_journal_whose_end_is_cut_off_holds_but_ends_in_another_hash() {
    let folder = six_records().await;
    let before = Journal::open(&folder.path()).unwrap().verify().unwrap();
    folder.tamper("DELETE FROM journal WHERE seq = 6");
    let after = Journal::open(&folder.path()).unwrap().verify().unwrap();
    assert_eq!(after.records, 5);
    assert_ne!(after.hash, before.hash);
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

/// What is read is one moment of the journal.
#[tokio::test]
async fn a_journal_is_read_while_it_is_written() {
    let folder = six_records().await;
    let store = folder.open();
    let journal = Journal::open(&folder.path()).unwrap();
    let mut seen = 0;
    let each = |_| {
        seen += 1;
        futures_util::FutureExt::now_or_never(store.note(&entry(9))).unwrap();
        Ok::<_, StoreError>(())
    };
    journal.for_each(each).unwrap();
    store.flush().await.unwrap();
    assert_eq!((seen, verify(&folder)), (6, Ok(12)));
}

#[test]
fn a_journal_that_is_not_there_is_missing() {
    let error = Journal::open(&Folder::new().path()).unwrap_err();
    assert!(error.is_missing());
    assert!(error.to_string().contains("proxy.db: there is no such file"), "{error}");
}
