//! Moving the oldest records into a file.

use std::{
    io::{BufWriter, Write},
    path::Path,
    thread,
    time::Duration,
};

use jiff::Timestamp;

use super::{
    audit::{Journal, VerifyError},
    db::Db,
    deed::{Deed, user},
    end::End,
    error::{Fault, StoreError},
    exported::Exported,
    file, head, new_file,
    record::{Chain, Draft, Record},
};

/// How many records are removed in one transaction: a proxy waits for it no longer than for another's
/// writes.
const BATCH: u64 = 5000;

/// How long the lock is left to others after each.
const PAUSE: Duration = Duration::from_millis(20);

/// Moves the records from before a time, up to the first that is not, into a new file for its owner
/// alone, in the form of [`Journal::export`]. The last record stays, and so does the last that a proxy is
/// known to have written. `None`, and no file, if there is none to move.
///
/// The file is whole and on the disk before anything is removed. Then the journal begins with the hash
/// of the last record that was removed, at every moment and in one transaction with its removal; so the
/// process may end at any time.
///
/// # Errors
/// The records do not hold, and all stay; or the file or the database cannot be written, or the file is
/// there already.
pub fn archive(
    path: &Path,
    before: Timestamp,
    archive: &Path,
) -> Result<Option<Exported>, VerifyError> {
    let of_database = |fault: Fault| StoreError::new(path, fault.of_command());
    let journal = Journal::open(path)?;
    journal.check_end()?;
    let begin = journal.begin()?;
    let newest = head::Head::read(path).map_err(of_database)?;
    // After a loss of power it must not be an older one, whose record was moved.
    head::sync(path).map_err(of_database)?;
    // A head that was only begun names no record.
    let newest = newest.map(|head| head.end.seq).filter(|seq| *seq > 0);
    let stays = newest.unwrap_or(u64::MAX).min(journal.last()?);
    let of_archive = |fault: Fault| StoreError::new(archive, fault.of_copy());
    let mut file = BufWriter::new(new_file::make(archive).map_err(of_archive)?);
    let moves =
        |record: &Record| record.seq < stays && record.time().is_none_or(|time| time < before);
    let end = write(&journal, begin, moves, |line| {
        writeln!(file, "{line}").map_err(Fault::io("write it")).map_err(of_archive)
    })?;
    if end == begin {
        return Ok(None);
    }
    let file = file.into_inner().map_err(|failed| Fault::io("write it")(failed.into_error()));
    file.and_then(|file| new_file::name(file, archive)).map_err(of_archive)?;
    let db = file::open(path).map_err(of_database)?;
    remove(&db, begin, end).map_err(of_database)?;
    Ok(Some(Exported { records: end.seq - begin.seq, last: end.seq, hash: end.hash }))
}

/// Writes the records after `begin`, up to the first that is not moved. Returns where the chain ends then.
fn write(
    journal: &Journal,
    begin: End,
    moves: impl Fn(&Record) -> bool,
    mut write: impl FnMut(&str) -> Result<(), StoreError>,
) -> Result<End, VerifyError> {
    let mut end = begin;
    loop {
        let page = journal.after(end.seq, Journal::PAGE)?;
        if page.is_empty() {
            return Ok(end);
        }
        for record in page {
            if !moves(&record) {
                return Ok(end);
            }
            end = end.and(&record)?;
            write(&record.to_json_line_after(&begin))?;
        }
    }
}

/// Removes the records after `begin` up to `end`, and has the journal begin after them.
fn remove(db: &Db, mut begin: End, end: End) -> Result<(), Fault> {
    let mut deed = Some(Deed::JournalArchive(end.seq));
    while begin.seq < end.seq {
        begin = db.transaction(|db| {
            if End::before(db)? != begin {
                return Err(Fault::Overtaken);
            }
            if let Some(deed) = deed.take() {
                Chain::read(db)?.append(Draft::admin(deed, &user(), Timestamp::now()))?;
            }
            let seq = end.seq.min(begin.seq + BATCH);
            let sql = "SELECT hash FROM journal WHERE seq = ?1";
            let hash = db.one(sql, &[seq.into()], |row| row.hash(0))?;
            db.execute("DELETE FROM journal WHERE seq <= ?1", &[seq.into()])?;
            db.execute("UPDATE archived SET seq = ?1, hash = ?2", &[seq.into(), (&hash).into()])?;
            Ok(End { seq, hash })
        })?;
        thread::sleep(PAUSE);
    }
    Ok(())
}

#[cfg(test)]
mod tests;
