//! The work that the writing thread takes at once: its changes are one transaction.

use super::{
    db::Db,
    end::End,
    error::Fault,
    known::Known,
    losses::Losses,
    reader::Read,
    record::{Chain, Draft},
    writer::Writer,
};

/// One piece of work of the thread that writes.
pub(super) enum Task {
    /// A read that the other thread could not do.
    Read(Read),
    Change(Change),
}

/// A change, made in a transaction with others.
pub(super) enum Change {
    Write(Write),
    Record(Draft),
}

/// It is given the connection, in the transaction, or told why there is none.
#[expect(clippy::type_complexity, reason = "this struct is the name for it")]
pub(super) struct Write(Box<dyn FnOnce(Result<&Db, Fault>) -> WriteResult + Send>);

/// The result of a write, kept until it is known whether the transaction is on the disk.
struct WriteResult {
    fault: Option<Fault>,
    tell: Box<dyn FnOnce(Result<(), Fault>)>,
}

impl Task {
    /// Tells that it is not done.
    pub(super) fn refuse(self, fault: &Fault, losses: &Losses) {
        match self {
            Self::Read(read) => drop((read.0)(Err(fault.clone()))),
            Self::Change(Change::Write(write)) => {
                ((write.0)(Err(fault.clone())).tell)(Err(fault.clone()));
            }
            Self::Change(Change::Record(_)) => losses.hear(1, &Err(fault.clone())),
        }
    }
}

impl Write {
    /// Does all of the work or nothing of it, whatever becomes of the others in the transaction, and tells
    /// the result when that is on the disk.
    pub(super) fn new<T: 'static>(
        work: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
        tell: impl FnOnce(Result<T, Fault>) + Send + 'static,
    ) -> Self {
        Self(Box::new(move |db| {
            let result = db.and_then(|db| db.savepoint(work));
            let fault = result.as_ref().err().cloned();
            WriteResult { fault, tell: Box::new(move |committed| tell(committed.and(result))) }
        }))
    }
}

/// Does the tasks, reads first: every write that their callers know of was committed before.
pub(super) fn work(writer: &mut Writer, losses: &Losses, tasks: Vec<Task>) {
    let db = writer.take();
    let mut healthy = true;
    let mut changes = Vec::with_capacity(tasks.len());
    for task in tasks {
        match task {
            Task::Read(read) => healthy &= (read.0)(db.as_ref().map_err(Fault::clone)).is_none(),
            Task::Change(change) => changes.push(change),
        }
    }
    if !changes.is_empty() {
        commit_all(writer, db, losses, changes);
    } else if let Ok(db) = db
        && healthy
    {
        writer.put_back(db);
    }
}

/// Makes the changes in one transaction, and tells each when that is on the disk, or is not.
fn commit_all(writer: &mut Writer, db: Result<Db, Fault>, losses: &Losses, changes: Vec<Change>) {
    let db = db.and_then(|db| writer.begin(db));
    let mut batch = Batch {
        db: db.as_ref().map_err(Fault::clone),
        losses,
        chain: None,
        records: 0,
        answers: Vec::new(),
    };
    batch.renew(writer.known());
    changes.into_iter().for_each(|change| batch.add(change));
    let committed = batch.commit(|end, is_awaited| writer.head.follow(end, is_awaited));
    match (db, committed) {
        (Ok(db), Ok(())) => writer.put_back(db),
        // A full disk does a connection no harm.
        (Ok(db), Err(Fault::Full)) if db.rollback().is_ok() => writer.put_back(db),
        // Closing the connection undoes what could not be committed.
        _ => {}
    }
}

/// The changes of one transaction.
struct Batch<'c> {
    /// The connection, or why the transaction did not begin or has ended early.
    db: Result<&'c Db, Fault>,
    losses: &'c Losses,
    /// Where the journal ends, once that is known.
    chain: Option<Chain<'c>>,
    /// How many records of the background are in it.
    records: u64,
    answers: Vec<WriteResult>,
}

impl Batch<'_> {
    /// Renews what is known of the clients. If it fails, the next call that asks is told.
    fn renew(&mut self, known: &Known) {
        if let Err(fault) = self.db.as_ref().map_or(Ok(()), |db| known.renew_with(db)) {
            self.look_for_end(Some(&fault));
        }
    }

    fn add(&mut self, change: Change) {
        match change {
            Change::Write(write) => {
                // It may add a record of its own.
                self.chain = None;
                let answer = (write.0)(self.db.clone());
                self.look_for_end(answer.fault.as_ref());
                self.answers.push(answer);
            }
            Change::Record(draft) => match self.append(draft) {
                Ok(()) => self.records += 1,
                Err(fault) => {
                    self.look_for_end(Some(&fault));
                    self.losses.hear(1, &Err(fault));
                }
            },
        }
    }

    /// Needs no savepoint: it is one statement, which is done as a whole or not at all.
    fn append(&mut self, draft: Draft) -> Result<(), Fault> {
        let db = self.db.clone()?;
        match &mut self.chain {
            Some(chain) => chain.append(draft),
            none => none.insert(Chain::read(db)?).append(draft),
        }
    }

    /// A full disk or a failure to write may end the whole transaction.
    fn look_for_end(&mut self, fault: Option<&Fault>) {
        if self.db.as_ref().is_ok_and(|db| !db.is_in_transaction()) {
            self.db = Err(fault.cloned().unwrap_or(Fault::Stopped));
        }
    }

    /// Commits the transaction, passes on where the journal ends and whether a caller waits for that, and
    /// then tells each change whether it is on the disk.
    fn commit(self, follow: impl FnOnce(End, bool)) -> Result<(), Fault> {
        let committed = self.db.and_then(|db| {
            let end = self.chain.map_or_else(|| End::read(db), |chain| Ok(chain.end()))?;
            db.commit()?;
            follow(end, !self.answers.is_empty());
            Ok(())
        });
        self.losses.hear(self.records, &committed);
        self.answers.into_iter().for_each(|answer| (answer.tell)(committed.clone()));
        committed
    }
}

#[cfg(test)]
mod tests;
