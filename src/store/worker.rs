//! The one thread that has the database.
//!
//! It takes what waits, runs what is to be written in one transaction, and answers when that is on the
//! disk. So the cost of a sync is
//! shared by all who wait for one, and nobody on the runtime waits for the disk but for its own
//! answer.
//!
//! It has the only connection of the process, so that closing that one suffices to start afresh:
//! SQLite shares what it knows of a file among all connections of a process, also that the file was
//! read-only when the first was opened.

use std::{
    io,
    path::{Path, PathBuf},
    thread,
    time::Duration,
};

use rusqlite::{Connection, MAIN_DB};
use tokio::sync::{mpsc::error::SendTimeoutError, oneshot};

use super::{
    error::Fault,
    file,
    inbox::{Outbox, inbox},
};

/// The handle of the thread; the thread ends when it is dropped and all work is done.
pub(super) struct Worker(Outbox<Job>);

impl Worker {
    /// Starts the thread.
    pub(super) fn start(path: PathBuf, connection: Connection) -> io::Result<Self> {
        let (mut inbox, outbox) = inbox();
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            let mut connection = Some(connection);
            while let Some(jobs) = inbox.next_batch(|job| matches!(job, Job::Write(_))) {
                connection = work(connection, &path, jobs);
            }
        })?;
        Ok(Self(outbox(thread.thread().clone())))
    }

    /// Reads what is on the disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = oneshot::channel();
        let read = Read(Box::new(move |connection| {
            let result = connection.and_then(read);
            let fault = result.as_ref().err().cloned();
            // Nobody listens any more if the caller has gone.
            drop(sender.send(result));
            fault
        }));
        self.now(Job::Read(read)).await?;
        receiver.await.unwrap_or(Err(Fault::Stopped))
    }

    /// Reads what is on the disk, when nobody waits for what is found. It is not done if there is too
    /// much to do.
    pub(super) fn read_soon(
        &self,
        read: impl FnOnce(&Connection) -> Result<(), Fault> + Send + 'static,
    ) {
        let read = Read(Box::new(move |connection| connection.and_then(read).err()));
        if self.0.now.try_send(Job::Read(read)).is_ok() {
            self.0.wake();
        }
    }

    /// Does the work and waits until it is on the disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = oneshot::channel();
        // If the caller has gone, the work is done all the same.
        let write = Write::new(work, move |result| drop(sender.send(result)));
        self.now(Job::Write(write)).await?;
        receiver.await.unwrap_or(Err(Fault::Stopped))
    }

    async fn now(&self, job: Job) -> Result<(), Fault> {
        self.0.now.send(job).await.map_err(|_| Fault::Stopped)?;
        self.0.wake();
        Ok(())
    }

    /// Leaves the work to be done soon, and `done` hears what came of it. Waits for room in the queue,
    /// but no longer than `patience`; then the work is not done.
    pub(super) async fn leave(
        &self,
        patience: Duration,
        work: impl FnOnce(&Connection) -> Result<(), Fault> + Send + 'static,
        done: impl FnOnce(Result<(), Fault>) + Send + 'static,
    ) {
        match self.0.later.send_timeout(Job::Write(Write::new(work, done)), patience).await {
            Ok(()) => self.0.nudge(),
            Err(SendTimeoutError::Timeout(job)) => job.refuse(&Fault::Behind),
            Err(SendTimeoutError::Closed(job)) => job.refuse(&Fault::Stopped),
        }
    }
}

/// One piece of work.
enum Job {
    Read(Read),
    Write(Write),
}

/// It is given the connection, or told why there is none, and returns what went wrong.
#[expect(clippy::type_complexity, reason = "this struct is the name for it")]
struct Read(Box<dyn FnOnce(Result<&Connection, Fault>) -> Option<Fault> + Send>);

/// It is given the connection, in a transaction with others, or told why there is none.
#[expect(clippy::type_complexity, reason = "this struct is the name for it")]
struct Write(Box<dyn FnOnce(Result<&mut Connection, Fault>) -> Answer + Send>);

/// What came of something written, kept until it is known whether the transaction holds.
struct Answer {
    fault: Option<Fault>,
    tell: Box<dyn FnOnce(Result<(), Fault>)>,
}

impl Job {
    fn refuse(self, fault: &Fault) {
        match self {
            Self::Read(read) => drop((read.0)(Err(fault.clone()))),
            Self::Write(write) => ((write.0)(Err(fault.clone())).tell)(Err(fault.clone())),
        }
    }
}

impl Write {
    fn new<T: 'static>(
        work: impl FnOnce(&Connection) -> Result<T, Fault> + Send + 'static,
        tell: impl FnOnce(Result<T, Fault>) + Send + 'static,
    ) -> Self {
        Self(Box::new(move |transaction| {
            let result = transaction.and_then(|connection| run(connection, work));
            let fault = result.as_ref().err().cloned();
            Answer { fault, tell: Box::new(move |committed| tell(committed.and(result))) }
        }))
    }
}

/// Does all of the work or nothing of it, whatever becomes of the others in the transaction.
fn run<T>(
    connection: &mut Connection,
    work: impl FnOnce(&Connection) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let savepoint = connection.savepoint()?;
    let value = work(&savepoint)?;
    savepoint.commit()?;
    Ok(value)
}

/// Does what waits, and returns the connection if it is still of use. What is read comes first: all
/// that its callers know to be written is on the disk already.
fn work(connection: Option<Connection>, path: &Path, jobs: Vec<Job>) -> Option<Connection> {
    let connection = match connection.map_or_else(|| file::open_to_write(path), Ok) {
        Ok(connection) => connection,
        Err(fault) => {
            jobs.into_iter().for_each(|job| job.refuse(&fault));
            return None;
        }
    };
    let mut healthy = true;
    let mut writes = Vec::new();
    for job in jobs {
        match job {
            Job::Read(read) => healthy &= (read.0)(Ok(&connection)).is_none(),
            Job::Write(write) => writes.push(write),
        }
    }
    if !writes.is_empty() {
        return write(connection, path, writes);
    }
    healthy.then_some(connection)
}

/// Does the work in one transaction and answers each when that is on the disk, or is not.
fn write(connection: Connection, path: &Path, writes: Vec<Write>) -> Option<Connection> {
    let mut connection = match begin(connection, path) {
        Ok(connection) => connection,
        Err(fault) => {
            writes.into_iter().for_each(|write| Job::Write(write).refuse(&fault));
            return None;
        }
    };
    let mut ended = Ok(());
    let mut answers = Vec::with_capacity(writes.len());
    for write in writes {
        let answer = (write.0)(ended.clone().map(|()| &mut connection));
        // A full disk or a failure to write may end the whole transaction.
        if let Some(fault) = &answer.fault
            && ended.is_ok()
            && connection.is_autocommit()
        {
            ended = Err(fault.clone());
        }
        answers.push(answer);
    }
    let committed = ended.and_then(|()| Ok(connection.execute_batch("COMMIT")?));
    answers.into_iter().for_each(|answer| (answer.tell)(committed.clone()));
    match committed {
        Ok(()) => Some(connection),
        // A full disk does a connection no harm.
        Err(Fault::Full) if undo(&connection).is_ok() => Some(connection),
        // Closing it undoes what could not be committed.
        Err(_) => None,
    }
}

/// Begins a transaction. A file that was opened while it was read-only stays so, hence the second
/// try with a connection that is new.
fn begin(connection: Connection, path: &Path) -> Result<Connection, Fault> {
    match begin_with(&connection) {
        Ok(()) => return Ok(connection),
        Err(Fault::ReadOnly | Fault::Io { .. }) => drop(connection),
        Err(fault) => return Err(fault),
    }
    let connection = file::open_to_write(path)?;
    begin_with(&connection)?;
    Ok(connection)
}

fn begin_with(connection: &Connection) -> Result<(), Fault> {
    // SQLite lets a transaction begin on a read-only file, and refuses what is written in it.
    if connection.is_readonly(MAIN_DB)? {
        return Err(Fault::ReadOnly);
    }
    Ok(connection.execute_batch("BEGIN IMMEDIATE")?)
}

fn undo(connection: &Connection) -> Result<(), Fault> {
    if connection.is_autocommit() { Ok(()) } else { Ok(connection.execute_batch("ROLLBACK")?) }
}

#[cfg(test)]
mod tests;
