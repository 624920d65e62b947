//! The thread that writes, and the thread that reads.
//!
//! The one takes what waits, runs what is to be written in one transaction, and answers when that is
//! on the disk. So the cost of a sync is shared by all who wait for one, and nobody on the runtime waits
//! for the disk but for its own answer.
//!
//! The other reads meanwhile. When it cannot, because other files stand at the path or for any other
//! reason, the first one reads, after it has opened anew what has to be.

use std::{io, sync::Arc, thread, time::Duration};

use tokio::sync::{
    mpsc::{
        self,
        error::{SendTimeoutError, TrySendError},
    },
    oneshot,
};

use super::{
    db::Db,
    end::End,
    error::Fault,
    inbox::{Outbox, inbox},
    losses::Losses,
    reader::Read,
    record::{Chain, Draft},
    writer::Writer,
};

/// How many reads may wait; who comes then waits for room.
const READS: usize = 1024;

/// The handle of the threads; they end when it is dropped and all work is done.
pub(super) struct Worker {
    reads: mpsc::Sender<Read>,
    outbox: Arc<Outbox<Job>>,
    losses: Arc<Losses>,
}

impl Worker {
    /// Starts the threads. The one that writes counts the records of the background that are lost.
    pub(super) fn start(mut writer: Writer, losses: Arc<Losses>) -> io::Result<Self> {
        let (mut inbox, outbox) = inbox();
        let lost = losses.clone();
        let reader = writer.reader();
        let thread = thread::Builder::new().name("store".to_owned()).spawn(move || {
            let changes = |job: &Job| matches!(job, Job::Change(_));
            while let Some(jobs) = inbox.next_batch(changes, writer.head_is_due()) {
                match jobs.is_empty() {
                    true => writer.write_head(),
                    false => work(&mut writer, &lost, jobs),
                }
            }
            writer.write_head();
        })?;
        let outbox = Arc::new(outbox(thread.thread().clone()));
        let (reads, mut to_read) = mpsc::channel(READS);
        let writes = outbox.clone();
        thread::Builder::new().name("store-reads".to_owned()).spawn(move || {
            while let Some(read) = to_read.blocking_recv() {
                let left = reader.read(read).map(|read| writes.now.blocking_send(Job::Read(read)));
                match left {
                    Some(Ok(())) => writes.wake(),
                    Some(Err(refused)) => refused.0.refuse(&Fault::Stopped, &Losses::default()),
                    None => {}
                }
            }
        })?;
        Ok(Self { reads, outbox, losses })
    }

    /// Reads what is on the disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = oneshot::channel();
        let read = Read::new(move |connection| {
            let result = connection.and_then(read);
            let fault = result.as_ref().err().cloned();
            // Nobody listens any more if the caller has gone.
            drop(sender.send(result));
            fault
        });
        self.reads.send(read).await.map_err(|_| Fault::Stopped)?;
        receiver.await.unwrap_or(Err(Fault::Stopped))
    }

    /// Reads what is on the disk, when nobody waits for what is found. It is not done if there is too
    /// much to do.
    pub(super) fn read_soon(&self, read: impl FnOnce(&Db) -> Result<(), Fault> + Send + 'static) {
        let read = Read::new(move |connection| connection.and_then(read).err());
        // One that is dropped is not missed.
        drop(self.reads.try_send(read));
    }

    /// Does the work and waits until it is on the disk.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = oneshot::channel();
        // If the caller has gone, the work is done all the same.
        let write = Write::new(work, move |result| drop(sender.send(result)));
        let job = Job::Change(Change::Write(write));
        self.outbox.now.send(job).await.map_err(|_| Fault::Stopped)?;
        self.outbox.wake();
        receiver.await.unwrap_or(Err(Fault::Stopped))
    }

    /// Leaves the work to be done soon, and `done` hears what came of it. Waits for room in the queue,
    /// but no longer than `patience`; then the work is not done.
    pub(super) async fn leave(
        &self,
        patience: Duration,
        work: impl FnOnce(&Db) -> Result<(), Fault> + Send + 'static,
        done: impl FnOnce(Result<(), Fault>) + Send + 'static,
    ) {
        self.later(Change::Write(Write::new(work, done)), patience).await;
    }

    /// Leaves a record to be written soon. Waits for room in the queue, but no longer than `patience`;
    /// then the record is lost.
    pub(super) async fn record(&self, draft: Draft, patience: Duration) {
        self.later(Change::Record(draft), patience).await;
    }

    async fn later(&self, change: Change, patience: Duration) {
        let later = &self.outbox.later;
        let (job, fault) = match later.try_send(Job::Change(change)) {
            Ok(()) => return self.outbox.nudge(),
            Err(TrySendError::Closed(job)) => (job, Fault::Stopped),
            Err(TrySendError::Full(job)) => match later.send_timeout(job, patience).await {
                Ok(()) => return self.outbox.nudge(),
                Err(SendTimeoutError::Timeout(job)) => (job, Fault::Behind),
                Err(SendTimeoutError::Closed(job)) => (job, Fault::Stopped),
            },
        };
        job.refuse(&fault, &self.losses);
    }
}

/// One piece of work of the thread that writes.
enum Job {
    /// What the other thread could not read.
    Read(Read),
    Change(Change),
}

/// What is done in a transaction with others.
enum Change {
    Write(Write),
    Record(Draft),
}

/// It is given the connection, in a transaction with others, or told why there is none.
#[expect(clippy::type_complexity, reason = "this struct is the name for it")]
struct Write(Box<dyn FnOnce(Result<&Db, Fault>) -> Answer + Send>);

/// What came of something written, kept until it is known whether the transaction holds.
struct Answer {
    fault: Option<Fault>,
    tell: Box<dyn FnOnce(Result<(), Fault>)>,
}

impl Job {
    fn refuse(self, fault: &Fault, losses: &Losses) {
        match self {
            Self::Read(read) => drop(read.run(Err(fault.clone()))),
            Self::Change(change) => change.refuse(fault, losses),
        }
    }
}

impl Change {
    fn refuse(self, fault: &Fault, losses: &Losses) {
        match self {
            Self::Write(write) => ((write.0)(Err(fault.clone())).tell)(Err(fault.clone())),
            Self::Record(_) => losses.hear(1, &Err(fault.clone())),
        }
    }
}

impl Write {
    fn new<T: 'static>(
        work: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
        tell: impl FnOnce(Result<T, Fault>) + Send + 'static,
    ) -> Self {
        Self(Box::new(move |transaction| {
            let result = transaction.and_then(|db| db.savepoint(work));
            let fault = result.as_ref().err().cloned();
            Answer { fault, tell: Box::new(move |committed| tell(committed.and(result))) }
        }))
    }
}

/// Runs a batch of jobs, reads first: every write that their callers know of was committed before.
fn work(writer: &mut Writer, losses: &Losses, jobs: Vec<Job>) {
    let connection = match writer.take() {
        Ok(connection) => connection,
        Err(fault) => return jobs.into_iter().for_each(|job| job.refuse(&fault, losses)),
    };
    let mut healthy = true;
    let mut changes = Vec::with_capacity(jobs.len());
    for job in jobs {
        match job {
            Job::Read(read) => healthy &= read.run(Ok(&connection)).is_none(),
            Job::Change(change) => changes.push(change),
        }
    }
    if !changes.is_empty() {
        write(writer, connection, losses, changes);
    } else if healthy {
        writer.put_back(connection);
    }
}

/// Does the work in one transaction and answers each when that is on the disk, or is not.
fn write(writer: &mut Writer, connection: Db, losses: &Losses, changes: Vec<Change>) {
    let connection = match begin(writer, connection) {
        Ok(connection) => connection,
        Err(fault) => return changes.into_iter().for_each(|change| change.refuse(&fault, losses)),
    };
    let mut transaction = Transaction::new(&connection, losses);
    changes.into_iter().for_each(|change| transaction.add(change));
    match transaction.commit(|end, is_awaited| writer.hear_end(end, is_awaited)) {
        Ok(()) => writer.put_back(connection),
        // A full disk does a connection no harm.
        Err(Fault::Full) if connection.rollback().is_ok() => writer.put_back(connection),
        // Closing it undoes what could not be committed.
        Err(_) => {}
    }
}

/// A transaction that was begun.
struct Transaction<'c> {
    connection: &'c Db,
    losses: &'c Losses,
    /// Why it has ended before its time, if it has.
    ended: Result<(), Fault>,
    /// Where the journal ends, once that is known.
    chain: Option<Chain<'c>>,
    /// How many records of the background are in it.
    records: u64,
    answers: Vec<Answer>,
}

impl<'c> Transaction<'c> {
    fn new(connection: &'c Db, losses: &'c Losses) -> Self {
        let answers = Vec::new();
        Self { connection, losses, ended: Ok(()), chain: None, records: 0, answers }
    }

    fn add(&mut self, change: Change) {
        match change {
            Change::Write(write) => {
                // It may add a record of its own.
                self.chain = None;
                let answer = (write.0)(self.ended.clone().map(|()| self.connection));
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
        self.ended.clone()?;
        match &mut self.chain {
            Some(chain) => chain.append(draft),
            none => none.insert(Chain::read(self.connection)?).append(draft),
        }
    }

    /// A full disk or a failure to write may end the whole transaction.
    fn look_for_end(&mut self, fault: Option<&Fault>) {
        if self.ended.is_ok() && !self.connection.is_in_transaction() {
            self.ended = Err(fault.cloned().unwrap_or(Fault::Stopped));
        }
    }

    /// Commits it, says where the journal ends and whether anyone waits for that, and then tells everyone
    /// whether it holds.
    fn commit(self, hear_end: impl FnOnce(End, bool)) -> Result<(), Fault> {
        let committed = self.ended.and_then(|()| {
            let end =
                self.chain.map_or_else(|| End::read(self.connection), |chain| Ok(chain.end()));
            let end = end?;
            self.connection.commit()?;
            hear_end(end, !self.answers.is_empty());
            Ok(())
        });
        self.losses.hear(self.records, &committed);
        self.answers.into_iter().for_each(|answer| (answer.tell)(committed.clone()));
        committed
    }
}

/// Begins a transaction. A file that was opened while it was read-only stays so, hence the second
/// try with a connection that is new.
fn begin(writer: &mut Writer, connection: Db) -> Result<Db, Fault> {
    match begin_with(&connection) {
        Ok(()) => return Ok(connection),
        Err(Fault::ReadOnly | Fault::Io { .. }) => drop(connection),
        Err(fault) => return Err(fault),
    }
    let connection = writer.open_anew()?;
    begin_with(&connection)?;
    Ok(connection)
}

fn begin_with(connection: &Db) -> Result<(), Fault> {
    if connection.is_read_only()? {
        return Err(Fault::ReadOnly);
    }
    connection.begin()
}

#[cfg(test)]
mod tests;
