use std::sync::mpsc::{Receiver, channel};

use super::*;
use crate::store::testing::Folder;

/// Work that counts what is in the table `probe` up by one and then does what `then` says.
fn count(
    then: impl FnOnce(&Connection) -> Result<(), Fault> + Send + 'static,
) -> (Job, Receiver<Result<(), Fault>>) {
    let (sender, receiver) = channel();
    let work = move |connection: &Connection| {
        connection.execute_batch("UPDATE probe SET at = at + 1")?;
        then(connection)
    };
    (Job::Write(Write::new(work, move |result| sender.send(result).unwrap())), receiver)
}

/// A database, its connection, and the count in it.
fn database() -> (Folder, Connection, impl Fn() -> i64) {
    let folder = Folder::new();
    let connection = file::open(&folder.path()).unwrap();
    let other = folder.sqlite();
    let read = move || other.query_row("SELECT at FROM probe", [], |row| row.get(0)).unwrap();
    (folder, connection, read)
}

#[test]
fn a_batch_is_one_commit_and_everyone_hears_after_it() {
    let (folder, connection, counted) = database();
    let before = folder.commits();
    let (jobs, results): (Vec<_>, Vec<_>) = (0..10).map(|_| count(|_| Ok(()))).unzip();
    assert!(work(Some(connection), &folder.path(), jobs).is_some());
    assert!(results.iter().all(|result| result.recv() == Ok(Ok(()))));
    assert_eq!((counted(), folder.commits() - before), (10, 1));
}

#[test]
fn work_that_fails_is_undone_without_harm_to_its_neighbours() {
    let (folder, connection, counted) = database();
    let (first, first_result) = count(|_| Ok(()));
    let (fails, failed) = count(|_| Err(Fault::NotClaimed));
    let (last, last_result) = count(|_| Ok(()));
    assert!(work(Some(connection), &folder.path(), vec![first, fails, last]).is_some());
    assert_eq!(failed.recv(), Ok(Err(Fault::NotClaimed)));
    assert_eq!((first_result.recv(), last_result.recv()), (Ok(Ok(())), Ok(Ok(()))));
    assert_eq!(counted(), 2);
}

/// Some failures end the whole transaction; nothing of it may then count as done.
#[test]
fn a_transaction_that_ends_early_is_done_for_nobody() {
    let (folder, connection, counted) = database();
    let (first, first_result) = count(|_| Ok(()));
    let (ends, ended) = count(|connection| {
        connection.execute_batch("ROLLBACK")?;
        Err(Fault::Full)
    });
    let (last, last_result) = count(|_| Ok(()));
    let connection = work(Some(connection), &folder.path(), vec![first, ends, last]);
    for result in [first_result, ended, last_result] {
        assert_eq!(result.recv(), Ok(Err(Fault::Full)));
    }
    assert_eq!(counted(), 0);
    let (again, result) = count(|_| Ok(()));
    work(connection, &folder.path(), vec![again]);
    assert_eq!((result.recv(), counted()), (Ok(Ok(())), 1));
}

#[test]
fn work_is_refused_when_the_file_has_gone() {
    let (folder, connection, _) = database();
    drop(connection);
    std::fs::remove_file(folder.path()).unwrap();
    let (job, result) = count(|_| Ok(()));
    assert!(work(None, &folder.path(), vec![job]).is_none());
    assert!(matches!(result.recv(), Ok(Err(Fault::Io { .. }))));
    assert!(!folder.path().exists());
}
