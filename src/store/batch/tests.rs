use std::sync::{
    Arc,
    mpsc::{Receiver, channel},
};

use super::*;
use crate::store::{
    Journal, file, files,
    known::Known,
    record::RecordedOutcome,
    run::Run,
    seal::Seal,
    testing::{Folder, at, id, key},
};

/// Work that counts what is in the table `probe` up by one and then does what `then` says.
fn count(
    then: impl FnOnce(&Db) -> Result<(), Fault> + Send + 'static,
) -> (Task, Receiver<Result<(), Fault>>) {
    let (sender, receiver) = channel();
    let work = move |db: &Db| {
        db.run("UPDATE probe SET at = at + 1")?;
        then(db)
    };
    (
        Task::Change(Change::Write(Write::new(work, move |result| sender.send(result).unwrap()))),
        receiver,
    )
}

/// A database, its writer, and the count in it.
fn database() -> (Folder, Writer, impl Fn() -> i64) {
    let folder = Folder::new();
    let db = file::open(&folder.path()).unwrap();
    let seal = Arc::new(Seal::new(&[key(1)]));
    let run = Arc::new(Run::new(files::folder(&folder.path())));
    let known = Arc::new(Known::new(&folder.path()));
    let writer = Writer::new(&folder.path(), db, seal, known, &run).unwrap();
    let other = folder.db();
    let read = move || other.one("SELECT at FROM probe", &[], |row| row.int(0)).unwrap();
    (folder, writer, read)
}

#[test]
fn a_batch_is_one_commit_and_everyone_hears_after_it() {
    let (folder, mut writer, counted) = database();
    let before = folder.commits();
    let (tasks, results): (Vec<_>, Vec<_>) = (0..10).map(|_| count(|_| Ok(()))).unzip();
    work(&mut writer, &Losses::default(), tasks);
    assert!(results.iter().all(|result| result.recv() == Ok(Ok(()))));
    assert_eq!((counted(), folder.commits() - before), (10, 1));
}

#[test]
fn work_that_fails_is_undone_without_harm_to_its_neighbours() {
    let (_folder, mut writer, counted) = database();
    let (first, first_result) = count(|_| Ok(()));
    let (fails, failed) = count(|_| Err(Fault::NotClaimed));
    let (last, last_result) = count(|_| Ok(()));
    work(&mut writer, &Losses::default(), vec![first, fails, last]);
    assert_eq!(failed.recv(), Ok(Err(Fault::NotClaimed)));
    assert_eq!((first_result.recv(), last_result.recv()), (Ok(Ok(())), Ok(Ok(()))));
    assert_eq!(counted(), 2);
}

/// Some failures end the whole transaction; nothing of it may then count as done.
#[test]
fn a_transaction_that_ends_early_is_done_for_nobody() {
    let (_folder, mut writer, counted) = database();
    let (first, first_result) = count(|_| Ok(()));
    let (ends, ended) = count(|db| {
        db.run("ROLLBACK")?;
        Err(Fault::Full)
    });
    let (last, last_result) = count(|_| Ok(()));
    work(&mut writer, &Losses::default(), vec![first, ends, last]);
    for result in [first_result, ended, last_result] {
        assert_eq!(result.recv(), Ok(Err(Fault::Full)));
    }
    assert_eq!(counted(), 0);
    let (again, result) = count(|_| Ok(()));
    work(&mut writer, &Losses::default(), vec![again]);
    assert_eq!((result.recv(), counted()), (Ok(Ok(())), 1));
}

#[test]
fn work_is_refused_when_the_file_has_gone() {
    let (folder, mut writer, _) = database();
    std::fs::remove_file(folder.path()).unwrap();
    for _ in 0..2 {
        let (task, result) = count(|_| Ok(()));
        work(&mut writer, &Losses::default(), vec![task]);
        assert_eq!(result.recv(), Ok(Err(Fault::Gone)));
        assert!(!folder.path().exists());
    }
}

fn draft(number: u32) -> Draft {
    Draft::outcome(&id(number), RecordedOutcome::Unknown, at(0))
}

/// The ids in the journal, which holds.
fn recorded(folder: &Folder) -> Vec<String> {
    let journal = Journal::open(&folder.path()).unwrap();
    journal.verify().unwrap();
    let records = journal.tail(99).unwrap().into_iter();
    records.map(|record| record.fields().unwrap().text("request_id").unwrap()).collect()
}

#[test]
fn records_of_the_background_and_of_those_who_wait_form_one_chain() {
    let (folder, mut writer, _) = database();
    let before = folder.commits();
    let (appends, appended) = count(|db| Chain::read(db)?.append(draft(2)));
    let (fails, failed) = count(|db| {
        Chain::read(db)?.append(draft(3))?;
        Err(Fault::NotClaimed)
    });
    let record = |number| Task::Change(Change::Record(draft(number)));
    let tasks = vec![record(0), record(1), appends, record(4), fails, record(5)];
    let losses = Losses::default();
    work(&mut writer, &losses, tasks);
    assert_eq!((appended.recv(), failed.recv()), (Ok(Ok(())), Ok(Err(Fault::NotClaimed))));
    assert_eq!(recorded(&folder), [0, 1, 2, 4, 5].map(|number| id(number).to_string()));
    assert_eq!((losses.count(), folder.commits() - before), (0, 1));
}

#[test]
fn all_records_of_a_transaction_that_ends_early_are_lost_and_counted() {
    let (folder, mut writer, _) = database();
    let (ends, _ended) = count(|db| {
        db.run("ROLLBACK")?;
        Err(Fault::Full)
    });
    let record = |number| Task::Change(Change::Record(draft(number)));
    let tasks = vec![record(0), record(1), ends, record(2)];
    let losses = Losses::default();
    work(&mut writer, &losses, tasks);
    assert_eq!((losses.count(), recorded(&folder).len()), (3, 0));
    work(&mut writer, &losses, vec![record(3)]);
    assert_eq!((losses.count(), recorded(&folder)), (3, vec![id(3).to_string()]));
}
