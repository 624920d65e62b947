use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use super::*;
use crate::store::{
    Attempt, ExportedError, Verified,
    testing::{Folder, at, client, id, operation, record},
    verify_exported,
};

/// Writes records of so many seconds, one each.
fn write(folder: &Folder, seconds: impl IntoIterator<Item = u32>) {
    let db = file::open(&folder.path()).unwrap();
    db.begin().unwrap();
    let mut chain = Chain::read(&db).unwrap();
    for second in seconds {
        let (operation, request_id) =
            (operation(&client("agent"), "job_complete", ""), &id(second));
        let (operation, call) = (&operation, &operation.call);
        let attempt = Attempt { operation, call, request_id, payload_hash: None, payment: None };
        chain.append(Draft::signed(&attempt, at(second.into()))).unwrap();
    }
    db.commit().unwrap();
}

fn beside(folder: &Folder, name: &str) -> PathBuf {
    folder.path().parent().unwrap().parent().unwrap().join(name)
}

fn verify(folder: &Folder) -> Verified {
    Journal::open(&folder.path()).unwrap().verify().unwrap()
}

fn export(folder: &Folder) -> Vec<String> {
    let mut lines = Vec::new();
    let each = |line: &str| {
        lines.push(line.to_owned());
        Ok::<_, StoreError>(())
    };
    Journal::open(&folder.path()).unwrap().export(each).unwrap();
    lines
}

#[tokio::test]
async fn old_records_are_in_the_file_and_the_journal_goes_on_from_them() {
    let folder = Folder::new();
    let store = folder.open();
    write(&folder, 0..6);
    let exported = export(&folder);
    let first = beside(&folder, "1.jsonl");
    let moved = archive(&folder.path(), at(4), &first).unwrap().unwrap();
    assert_eq!((moved.records, moved.last), (4, 4));
    let lines = fs::read_to_string(&first).unwrap();
    assert_eq!(lines.lines().collect::<Vec<_>>(), exported[..4]);
    assert_eq!(fs::metadata(&first).unwrap().permissions().mode() & 0o777, 0o600);
    // That it was done is on record.
    let Verified { records, archived, .. } = verify(&folder);
    assert_eq!((records, archived), (3, 4));

    record(&store, 7).await.unwrap();
    assert_eq!(verify(&folder).records, 4);
    let second = beside(&folder, "2.jsonl");
    let again = archive(&folder.path(), at(9), &second).unwrap().unwrap();
    assert_eq!((again.records, again.last), (3, 7), "the last that a proxy has written stays");
    assert_eq!(verify(&folder).archived, 7);
    assert_eq!(verify_exported(&first, None).unwrap(), moved);
    assert_eq!(verify_exported(&second, None).unwrap(), again);
    assert_eq!(verify_exported(&second, Some(moved)).unwrap(), again);
    verify_exported(&first, Some(again)).unwrap_err();
    assert!(Journal::open(&folder.path()).unwrap().holds(&again.hash).unwrap());

    // An export that is kept goes on from the archives, too.
    let third = beside(&folder, "3.jsonl");
    fs::write(&third, export(&folder).join("\n")).unwrap();
    let last = verify_exported(&third, Some(again)).unwrap();
    assert_eq!(last.hash, verify(&folder).hash);
    drop(store);
    record(&folder.open(), 8).await.unwrap();
    assert_eq!(verify(&folder).records, 3);
}

#[test]
fn nothing_is_moved_that_does_not_hold_or_into_a_file_that_is_there() {
    let folder = Folder::new();
    drop(folder.open());
    write(&folder, 0..6);
    let file = beside(&folder, "1.jsonl");
    assert!(archive(&folder.path(), at(0), &file).unwrap().is_none());
    assert!(!file.exists());
    fs::write(&file, "kept").unwrap();
    archive(&folder.path(), at(4), &file).unwrap_err();
    assert_eq!((fs::read_to_string(&file).unwrap().as_str(), verify(&folder).records), ("kept", 6));
    folder
        .tamper("UPDATE journal SET record = replace(record, '\"agent\"', '\"x\"') WHERE seq = 3");
    let other = beside(&folder, "2.jsonl");
    let refused = archive(&folder.path(), at(4), &other).unwrap_err();
    assert!(refused.to_string().contains("record 3"), "{refused}");
    assert_eq!((other.exists(), export(&folder).len()), (false, 6));
}

#[test]
fn an_archive_that_was_altered_does_not_hold() {
    let folder = Folder::new();
    drop(folder.open());
    write(&folder, 0..6);
    let file = beside(&folder, "1.jsonl");
    archive(&folder.path(), at(4), &file).unwrap().unwrap();
    let whole = fs::read_to_string(&file).unwrap();
    let lines: Vec<_> = whole.lines().collect();
    let [changed, cut, first, empty] = [
        whole.replacen("\"agent\"", "\"another\"", 1),
        [lines[0], lines[2]].join("\n"),
        lines[1..].join("\n"),
        String::new(),
    ];
    for text in [changed, cut, first] {
        fs::write(&file, &text).unwrap();
        let refused = verify_exported(&file, None).unwrap_err();
        assert!(matches!(refused, ExportedError::Broken(_)), "{text}: {refused}");
    }
    fs::write(&file, empty).unwrap();
    assert!(matches!(verify_exported(&file, None), Err(ExportedError::Empty)));
    fs::write(&file, lines[0].to_owned() + "\nno record").unwrap();
    assert!(matches!(verify_exported(&file, None), Err(ExportedError::Line(2))));
}

/// So many that they are removed in several transactions.
#[test]
fn the_journal_holds_between_the_transactions_that_remove_many() {
    let folder = Folder::new();
    drop(folder.open());
    let many = BATCH as u32 * 2 + 2;
    write(&folder, 0..many);
    let file = beside(&folder, "1.jsonl");
    std::thread::scope(|scope| {
        let moving = scope.spawn(|| archive(&folder.path(), at(many.into()), &file).unwrap());
        while !moving.is_finished() {
            verify(&folder);
        }
        // The last one stays.
        assert_eq!(moving.join().unwrap().unwrap().records, u64::from(many) - 1);
    });
    assert_eq!(verify(&folder).records, 2);
}

#[tokio::test]
async fn a_store_whose_last_record_was_moved_goes_on_when_it_is_opened_anew() {
    let folder = Folder::new();
    let idle = folder.open();
    record(&idle, 0).await.unwrap();
    let busy = folder.open();
    write(&folder, 0..6);
    record(&busy, 1).await.unwrap();
    let moved = archive(&folder.path(), at(9), &beside(&folder, "1.jsonl")).unwrap();
    assert_eq!(moved.unwrap().last, 7);
    fs::remove_file(folder.path().with_extension("db-shm")).unwrap();
    record(&idle, 2).await.unwrap();
}
