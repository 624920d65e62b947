//! Standard error, written by a thread of its own: no other thread waits for its reader.
//!
//! Lines wait in a queue of bounded size. A line that finds no room is dropped and counted, and how
//! many were is logged once lines can be written again.

use std::{
    io, mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    thread::{self, ThreadId},
    time::Duration,
};

use rustix::{io::Errno, stdio::stderr};

/// The most bytes that wait to be written: some thousand lines.
const ROOM: usize = 1 << 20;

/// The most bytes of one write, unless a line is longer. A pipe takes so many at once, and does not
/// mix them with those of other processes.
const CHUNK: usize = 4096;

/// How long to let lines come before the next write: to wake the thread for each of them would cost
/// more than to write it.
const GATHER: Duration = Duration::from_millis(1);

/// How long to wait before the next try, where standard error was set not to wait.
const PAUSE: Duration = Duration::from_millis(10);

/// How long the end of the process waits for a reader who takes nothing.
const PATIENCE: Duration = Duration::from_secs(1);

/// The queue of this process, once it logs.
static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();

#[derive(Default)]
struct Queue {
    waiting: Mutex<Waiting>,
    /// Tells the thread that there is something to write.
    filled: Condvar,
    /// Tells who waits for the end that something was written.
    written: Condvar,
}

#[derive(Default)]
struct Waiting {
    lines: Vec<u8>,
    /// How many lines were dropped and not yet told.
    dropped: usize,
    /// How many writes have ended.
    writes: usize,
    /// Whether the thread waits for lines, with nothing left to write.
    is_idle: bool,
    /// The thread, whose own lines always find room.
    writer: Option<ThreadId>,
}

/// Starts the thread, if it does not run yet.
///
/// # Errors
/// The system gives no thread.
pub(super) fn start() -> io::Result<()> {
    let queue = Arc::new(Queue::default());
    if QUEUE.set(queue.clone()).is_ok() {
        thread::Builder::new().name("log".to_owned()).spawn(move || queue.write())?;
    }
    Ok(())
}

/// Puts whole lines into the queue; `false` if there is none.
pub(in crate::cli) fn push(lines: &[u8]) -> bool {
    QUEUE.get().map(|queue| queue.push(lines)).is_some()
}

/// Waits until the queue is written, or a reader has taken nothing for [`PATIENCE`].
pub(in crate::cli) fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush();
    }
}

impl Queue {
    fn push(&self, lines: &[u8]) {
        let mut waiting = self.lock();
        let has_room = waiting.lines.len() + lines.len() <= ROOM;
        if !has_room && waiting.writer != Some(thread::current().id()) {
            waiting.dropped += 1;
            return;
        }
        waiting.lines.extend_from_slice(lines);
        if mem::take(&mut waiting.is_idle) {
            drop(waiting);
            self.filled.notify_one();
        }
    }

    /// Writes what comes, for ever.
    fn write(&self) {
        let mut batch = Vec::new();
        self.lock().writer = Some(thread::current().id());
        loop {
            self.take(&mut batch);
            let mut rest = &*batch;
            while !rest.is_empty() {
                let (chunk, after) = rest.split_at(chunk(rest));
                let lost = write(chunk).map_or_else(|_| lines(chunk), |()| 0);
                let mut waiting = self.lock();
                waiting.writes += 1;
                waiting.dropped += lost;
                let dropped = if lost == 0 { mem::take(&mut waiting.dropped) } else { 0 };
                drop(waiting);
                self.written.notify_all();
                if dropped > 0 {
                    tracing::error!(dropped, "log lines were dropped: standard error took none");
                }
                rest = after;
            }
            batch.clear();
            thread::sleep(GATHER);
        }
    }

    /// Waits for lines, and takes them all.
    fn take(&self, batch: &mut Vec<u8>) {
        let mut waiting = self.lock();
        while waiting.lines.is_empty() {
            waiting.is_idle = true;
            self.written.notify_all();
            waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        waiting.is_idle = false;
        mem::swap(&mut waiting.lines, batch);
    }

    fn flush(&self) {
        let mut waiting = self.lock();
        while !waiting.is_idle {
            let before = waiting.writes;
            let waited = self.written.wait_timeout_while(waiting, PATIENCE, |waiting| {
                !waiting.is_idle && waiting.writes == before
            });
            let (now, time) = waited.unwrap_or_else(PoisonError::into_inner);
            if time.timed_out() {
                return;
            }
            waiting = now;
        }
    }

    /// Nothing here panics while it holds the lock.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The length of what is written at once: whole lines, and at least one.
fn chunk(lines: &[u8]) -> usize {
    let is_end = |byte: &u8| *byte == b'\n';
    let last = lines.iter().take(CHUNK).rposition(is_end);
    last.or_else(|| lines.iter().position(is_end)).map_or(lines.len(), |end| end + 1)
}

fn lines(chunk: &[u8]) -> usize {
    chunk.iter().filter(|byte| **byte == b'\n').count()
}

/// Writes all of it, without the lock of the standard library's standard error.
fn write(mut bytes: &[u8]) -> Result<(), Errno> {
    while !bytes.is_empty() {
        match rustix::io::write(stderr(), bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => thread::sleep(PAUSE),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
