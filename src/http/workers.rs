//! The threads that serve.

use std::{io, sync::Arc, thread};

use tokio::{
    runtime::{Builder, Handle},
    sync::oneshot,
};

/// Threads with a runtime each. A connection stays with one of them, so that what belongs to a call
/// is in the cache of one core and wakes no other thread. They end when the last clone is dropped.
#[derive(Debug, Clone)]
pub struct Workers(Arc<[WorkerThread]>);

#[derive(Debug)]
struct WorkerThread {
    runtime: Handle,
    /// One clone for every connection.
    load: Arc<()>,
    /// The thread ends when it is dropped.
    _end: Option<oneshot::Sender<()>>,
}

impl Workers {
    /// One for each core.
    ///
    /// # Errors
    /// The system does not give a thread or what its runtime needs.
    pub fn start() -> io::Result<Self> {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        (0..cores).map(|_| WorkerThread::start()).collect::<io::Result<_>>().map(Self)
    }

    /// The runtime of the caller alone, as for tests, which then have everything in one place.
    pub fn current() -> Self {
        let worker = WorkerThread { runtime: Handle::current(), load: Arc::default(), _end: None };
        Self([worker].into())
    }

    /// Has a connection served by the worker with the fewest.
    pub(super) fn serve<S>(&self, connection: impl FnOnce() -> S + Send + 'static)
    where
        S: Future<Output = ()> + Send,
    {
        let Some(worker) = self.0.iter().min_by_key(|worker| Arc::strong_count(&worker.load))
        else {
            // There always is one.
            return;
        };
        let load = worker.load.clone();
        worker.runtime.spawn(async move {
            connection().await;
            drop(load);
        });
    }
}

impl WorkerThread {
    fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel();
        thread::Builder::new().name("worker".to_owned()).spawn(move || {
            // Its error says that the sender was dropped, which is the sign.
            let _ = runtime.block_on(ended);
        })?;
        Ok(Self { runtime: handle, load: Arc::default(), _end: Some(end) })
    }
}
