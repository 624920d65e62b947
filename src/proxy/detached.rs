//! Work that becomes a detached task when the caller that awaits it goes away.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::runtime::Handle;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// A future that is spawned as a detached task if it is dropped before it completes. While a caller
/// awaits it, it runs in the caller's task, which saves spawning one.
pub(super) struct Detached<T: 'static> {
    /// `None` once it has completed.
    work: Option<Pin<Box<dyn Future<Output = T> + Send>>>,
    runtime: Handle,
    /// Counts it among the tracked tasks, whether it is spawned or not.
    running: TaskTrackerToken,
    unheard: fn(T),
}

impl<T> Detached<T> {
    /// Wraps a future, which counts among `tasks` until it completes. If this value is dropped first, the
    /// future goes on in the current runtime, and `unheard` gets its result.
    pub(super) fn new(
        work: impl Future<Output = T> + Send + 'static,
        tasks: &TaskTracker,
        unheard: fn(T),
    ) -> Self {
        let (runtime, running) = (Handle::current(), tasks.token());
        Self { work: Some(Box::pin(work)), runtime, running, unheard }
    }
}

impl<T> Future for Detached<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<T> {
        let Some(work) = &mut self.work else { return Poll::Pending };
        let value = ready!(work.as_mut().poll(context));
        self.work = None;
        Poll::Ready(value)
    }
}

impl<T: 'static> Drop for Detached<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        let (running, unheard) = (self.running.clone(), self.unheard);
        self.runtime.spawn(async move {
            unheard(work.await);
            drop(running);
        });
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::{self, Sender};

    use super::*;

    /// Work that ends when its gate opens, with what `unheard` is told.
    fn work(tasks: &TaskTracker, told: Sender<()>) -> (Sender<()>, Detached<Sender<()>>) {
        let (open, gate) = oneshot::channel();
        let work = async move {
            gate.await.unwrap();
            told
        };
        (open, Detached::new(work, tasks, |told| told.send(()).unwrap()))
    }

    #[tokio::test]
    async fn work_that_is_waited_for_is_no_task_and_is_heard_by_who_waits() {
        let tasks = TaskTracker::new();
        let (told, unheard) = oneshot::channel();
        let (open, work) = work(&tasks, told);
        open.send(()).unwrap();
        assert_eq!(tasks.len(), 1);
        drop(work.await);
        assert!(tasks.is_empty());
        assert!(unheard.await.is_err(), "no other task was told");
    }

    #[tokio::test]
    async fn work_that_nobody_waits_for_goes_on_to_its_end() {
        let tasks = TaskTracker::new();
        let (told, unheard) = oneshot::channel();
        let (open, mut work) = work(&tasks, told);
        tokio::select! {
            biased;
            _ = &mut work => panic!("its gate is shut"),
            () = std::future::ready(()) => drop(work),
        }
        tasks.close();
        open.send(()).unwrap();
        tasks.wait().await;
        assert_eq!(unheard.await, Ok(()));
    }
}
