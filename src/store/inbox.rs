//! The queues of the thread that writes, and when it takes from them.
//!
//! A task that a caller waits for is done at once. Tasks in the background wait a moment for more, so that
//! many records share the cost of one sync; they go along with the next task that is written anyway.

use std::{
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Relaxed, SeqCst},
            fence,
        },
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use tokio::sync::mpsc::{self, error::TryRecvError};

/// How many tasks with a caller may wait; further callers wait for room.
const NOW: usize = 1024;

/// How many tasks in the background may wait: many, so that no caller has to wait for room when the disk is
/// slow for a moment.
const LATER: usize = 4096;

/// How many tasks of either kind are taken at once.
const BATCH: usize = 1024;

/// How long tasks in the background wait for more.
const PATIENCE: Duration = Duration::from_millis(20);

/// Where tasks are put. The thread ends when this is dropped and all tasks are done.
pub(super) struct Outbox<J> {
    /// For tasks with a caller that waits: call [`Outbox::wake`] after it.
    pub(super) now: mpsc::Sender<J>,
    /// For tasks in the background: call [`Outbox::nudge`] after it.
    pub(super) later: mpsc::Sender<J>,
    bell: Bell,
}

/// Where the thread takes its tasks from.
pub(super) struct Inbox<J> {
    now: mpsc::Receiver<J>,
    later: mpsc::Receiver<J>,
    /// When the tasks in the background have waited long enough; `None` if there are none.
    due: Option<Instant>,
    idle: Arc<AtomicBool>,
}

/// Wakes the thread, also when it is dropped, which is after the queues are closed.
struct Bell {
    thread: Thread,
    /// Whether the thread sleeps until it is woken.
    idle: Arc<AtomicBool>,
}

/// Both ends, before there is a thread.
pub(super) fn inbox<J>() -> (Inbox<J>, impl FnOnce(Thread) -> Outbox<J>) {
    let (now, now_receiver) = mpsc::channel(NOW);
    let (later, later_receiver) = mpsc::channel(LATER);
    let idle = Arc::new(AtomicBool::new(false));
    let inbox = Inbox { now: now_receiver, later: later_receiver, due: None, idle: idle.clone() };
    (inbox, |thread| Outbox { now, later, bell: Bell { thread, idle } })
}

impl<J> Outbox<J> {
    /// Wakes the thread, because a caller waits for its task.
    pub(super) fn wake(&self) {
        self.bell.thread.unpark();
    }

    /// Wakes the thread for background tasks if it is idle, or if the queue has a whole batch.
    pub(super) fn nudge(&self) {
        // Pairs with the fence before the thread parks: either it sees this task, or we see that it is idle.
        fence(SeqCst);
        let is_idle = self.bell.idle.load(Relaxed) && self.bell.idle.swap(false, Relaxed);
        if is_idle || self.later.capacity() < LATER - BATCH {
            self.wake();
        }
    }
}

impl Drop for Bell {
    fn drop(&mut self) {
        self.thread.unpark();
    }
}

impl<J> Inbox<J> {
    /// Waits for tasks. `None` when no more can come; no tasks if there are none at the time `until`.
    /// `writes` tells whether a task takes the background along.
    pub(super) fn next_batch(
        &mut self,
        writes: impl Fn(&J) -> bool,
        until: Option<Instant>,
    ) -> Option<Vec<J>> {
        loop {
            let mut tasks = Vec::new();
            let open = take(&mut self.now, BATCH, &mut tasks);
            let is_due = self.due.is_some_and(|due| due <= Instant::now());
            let writes = tasks.iter().any(&writes);
            if is_due || !open || self.later.len() >= BATCH || writes {
                let waited = std::mem::take(&mut tasks);
                // All that was put before a write comes before it, however much it is.
                let most = if writes { self.later.len() } else { BATCH };
                take(&mut self.later, most, &mut tasks);
                self.due = None;
                tasks.extend(waited);
            }
            match tasks.is_empty() {
                false => return Some(tasks),
                true if !open => return None,
                true if until.is_some_and(|until| until <= Instant::now()) => return Some(tasks),
                true => self.wait(until),
            }
        }
    }

    /// Sleeps until there may be something to do, or until that time.
    fn wait(&mut self, until: Option<Instant>) {
        if self.due.is_none() && !self.later.is_empty() {
            self.due = Some(Instant::now() + PATIENCE);
        }
        let left = |time: Instant| time.saturating_duration_since(Instant::now());
        match self.due {
            Some(due) => thread::park_timeout(left(until.map_or(due, |until| until.min(due)))),
            None => {
                self.idle.store(true, Relaxed);
                // Pairs with the fence in `nudge`: either we see its task, or it sees that we are idle.
                fence(SeqCst);
                if self.now.is_empty() && self.later.is_empty() && !self.now.is_closed() {
                    match until {
                        Some(until) => thread::park_timeout(left(until)),
                        None => thread::park(),
                    }
                }
                self.idle.store(false, Relaxed);
            }
        }
    }
}

/// Takes the tasks that are there, but no more than `most`; false if the queue is closed and empty.
fn take<J>(queue: &mut mpsc::Receiver<J>, most: usize, tasks: &mut Vec<J>) -> bool {
    for _ in 0..most {
        match queue.try_recv() {
            Ok(task) => tasks.push(task),
            Err(TryRecvError::Empty) => return true,
            Err(TryRecvError::Disconnected) => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Negative numbers are writes.
    fn is_write(task: &i32) -> bool {
        *task < 0
    }

    fn both() -> (Inbox<i32>, Outbox<i32>) {
        let (inbox, outbox) = inbox();
        (inbox, outbox(thread::current()))
    }

    #[test]
    fn background_waits_for_a_write_and_comes_before_it() {
        let (mut inbox, outbox) = both();
        outbox.later.try_send(-1).unwrap();
        outbox.now.try_send(1).unwrap();
        assert_eq!(
            inbox.next_batch(is_write, None),
            Some(vec![1]),
            "a read does not take it along"
        );
        outbox.now.try_send(-2).unwrap();
        outbox.now.try_send(2).unwrap();
        assert_eq!(inbox.next_batch(is_write, None), Some(vec![-1, -2, 2]));
    }

    #[test]
    fn background_alone_is_done_after_a_moment() {
        let (mut inbox, outbox) = both();
        for task in [-1, -2] {
            outbox.later.try_send(task).unwrap();
            outbox.nudge();
        }
        assert_eq!(inbox.next_batch(is_write, None), Some(vec![-1, -2]));
    }

    #[test]
    fn a_batch_is_bounded_and_much_does_not_wait() {
        let (mut inbox, outbox) = both();
        (0..LATER as i32).for_each(|task| outbox.later.try_send(-1 - task).unwrap());
        let sizes: Vec<_> =
            (0..LATER / BATCH).map(|_| inbox.next_batch(is_write, None).unwrap().len()).collect();
        assert_eq!(sizes, [BATCH; LATER / BATCH]);
    }

    #[test]
    fn all_that_was_left_before_a_write_comes_before_it() {
        let (mut inbox, outbox) = both();
        (0..LATER as i32).for_each(|task| outbox.later.try_send(-1 - task).unwrap());
        outbox.now.try_send(i32::MIN).unwrap();
        let batch = inbox.next_batch(is_write, None).unwrap();
        assert_eq!((batch.len(), batch.last()), (LATER + 1, Some(&i32::MIN)));
    }

    #[test]
    fn after_the_last_handle_all_is_done_and_then_no_more() {
        let (mut inbox, outbox) = both();
        outbox.later.try_send(-1).unwrap();
        outbox.now.try_send(1).unwrap();
        drop(outbox);
        let mut done = Vec::new();
        while let Some(tasks) = inbox.next_batch(is_write, None) {
            done.extend(tasks);
        }
        done.sort_unstable();
        assert_eq!(done, [-1, 1]);
    }

    #[test]
    fn a_sleeping_thread_hears_of_work_of_either_kind_and_of_the_end() {
        let (mut inbox, outbox) = inbox();
        let (done, results) = std::sync::mpsc::channel();
        let thread = thread::spawn(move || {
            while let Some(tasks) = inbox.next_batch(is_write, None) {
                done.send(tasks).unwrap();
            }
        });
        let outbox = outbox(thread.thread().clone());
        outbox.later.try_send(-1).unwrap();
        outbox.nudge();
        assert_eq!(results.recv(), Ok(vec![-1]));
        outbox.now.try_send(1).unwrap();
        outbox.wake();
        assert_eq!(results.recv(), Ok(vec![1]));
        drop(outbox);
        thread.join().unwrap();
    }

    #[test]
    fn a_thread_with_something_to_do_at_a_time_waits_no_longer() {
        let (mut inbox, outbox) = inbox();
        let _outbox: Outbox<i32> = outbox(thread::current());
        let soon = Instant::now() + Duration::from_millis(5);
        assert_eq!(inbox.next_batch(is_write, Some(soon)), Some(Vec::new()));
        assert!(Instant::now() >= soon);
    }
}
