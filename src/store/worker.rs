//! The threads of the store: one writes, and one reads.
//!
//! The writer takes the changes that wait, makes them in one transaction, and answers when that is on the
//! disk, so that all callers that wait share the cost of one sync. The reader waits for no writer. What it
//! cannot read, for instance because other files stand at the path, is left to the writer, which opens them
//! anew.

use std::{io, sync::Arc, thread, time::Duration};

use tokio::sync::{
    mpsc::{
        self,
        error::{SendTimeoutError, TrySendError},
    },
    oneshot,
};

use super::{
    batch::{Change, Task, Write, work},
    db::Db,
    error::Fault,
    inbox::{Inbox, Outbox, inbox},
    losses::Losses,
    reader::{Read, Reader},
    record::Draft,
    writer::Writer,
};

/// How many reads may wait; further callers wait for room.
const READS: usize = 1024;

/// The handle of the threads; they end when it is dropped and all work is done.
pub(super) struct Worker {
    reads: mpsc::Sender<Read>,
    outbox: Arc<Outbox<Task>>,
    losses: Arc<Losses>,
}

impl Worker {
    /// Starts the threads. Records of the background that are lost are counted in `losses`.
    pub(super) fn start(writer: Writer, losses: Arc<Losses>) -> io::Result<Self> {
        let (inbox, outbox) = inbox();
        let (reader, lost) = (writer.reader(), losses.clone());
        let thread = thread::Builder::new().name("store".to_owned());
        let thread = thread.spawn(move || write_loop(inbox, writer, &lost))?;
        let outbox = Arc::new(outbox(thread.thread().clone()));
        let (reads, to_read) = mpsc::channel(READS);
        let writes = outbox.clone();
        let thread = thread::Builder::new().name("store-reads".to_owned());
        thread.spawn(move || read_loop(to_read, &reader, &writes))?;
        Ok(Self { reads, outbox, losses })
    }

    /// Reads what is on the disk.
    pub(super) async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = oneshot::channel();
        let read = Read(Box::new(move |db| {
            let result = db.and_then(read);
            let fault = result.as_ref().err().cloned();
            // The caller may have gone.
            drop(sender.send(result));
            fault
        }));
        self.reads.send(read).await.map_err(|_| Fault::Stopped)?;
        receiver.await.unwrap_or(Err(Fault::Stopped))
    }

    /// Reads what is on the disk in the background. If too much waits, it is not read.
    pub(super) fn read_soon(&self, read: impl FnOnce(&Db) -> Result<(), Fault> + Send + 'static) {
        drop(self.reads.try_send(Read(Box::new(move |db| db.and_then(read).err()))));
    }

    /// Does the work and waits until it is on the disk. If the caller goes, the work is done all the same.
    pub(super) async fn write<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Db) -> Result<T, Fault> + Send + 'static,
    ) -> Result<T, Fault> {
        let (sender, receiver) = oneshot::channel();
        let write = Write::new(work, move |result| drop(sender.send(result)));
        let task = Task::Change(Change::Write(write));
        self.outbox.now.send(task).await.map_err(|_| Fault::Stopped)?;
        self.outbox.wake();
        receiver.await.unwrap_or(Err(Fault::Stopped))
    }

    /// Leaves the work to be done soon; `done` is given its result. Waits for room in the queue, but no
    /// longer than `patience`; then the work is not done.
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
        let (task, fault) = match later.try_send(Task::Change(change)) {
            Ok(()) => return self.outbox.nudge(),
            Err(TrySendError::Closed(task)) => (task, Fault::Stopped),
            Err(TrySendError::Full(task)) => match later.send_timeout(task, patience).await {
                Ok(()) => return self.outbox.nudge(),
                Err(SendTimeoutError::Timeout(task)) => (task, Fault::Behind),
                Err(SendTimeoutError::Closed(task)) => (task, Fault::Stopped),
            },
        };
        task.refuse(&fault, &self.losses);
    }
}

/// The thread that writes.
fn write_loop(mut inbox: Inbox<Task>, mut writer: Writer, losses: &Losses) {
    let is_change = |task: &Task| matches!(task, Task::Change(_));
    while let Some(tasks) = inbox.next_batch(is_change, writer.head.due()) {
        match tasks.is_empty() {
            true => writer.head.write(),
            false => work(&mut writer, losses, tasks),
        }
    }
    writer.head.write();
}

/// The thread that reads.
fn read_loop(mut reads: mpsc::Receiver<Read>, reader: &Reader, writes: &Outbox<Task>) {
    while let Some(read) = reads.blocking_recv() {
        let Some(left) = reader.read(read) else { continue };
        match writes.now.blocking_send(Task::Read(left)) {
            Ok(()) => writes.wake(),
            Err(refused) => refused.0.refuse(&Fault::Stopped, &Losses::default()),
        }
    }
}
