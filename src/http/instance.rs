//! The running proxy as a whole: what it is, what of it may change, and how it is changed.

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};

use super::{backlog::Backlog, guard::Guard, tls::Tls};

/// The settings that a reload may change. A reload replaces the whole value, and each connection or
/// request reads it once, so it never sees half of a change.
#[derive(Debug)]
pub struct Live {
    pub(super) tls: Option<Tls>,
    pub(super) guard: Guard,
}

impl Live {
    /// These settings.
    pub fn new(tls: Option<Tls>, guard: Guard) -> Self {
        Self { tls, guard }
    }
}

/// One run of the proxy.
pub struct Instance {
    begun: Instant,
    listeners: Vec<String>,
    behind_proxy: bool,
    live: watch::Sender<Arc<Live>>,
    read: Box<ReadConfig>,
    /// Held while a reload runs, so that there is one at a time.
    reloading: Arc<AsyncMutex<()>>,
    last: Mutex<Option<LastReload>>,
    backlog: Backlog,
}

/// Reads the configuration again and returns the new settings, or what is wrong with them.
type ReadConfig = dyn Fn() -> Result<Live, String> + Send + Sync;

/// The last time that the configuration was read again.
#[derive(Debug, Clone)]
pub(super) struct LastReload {
    pub(super) at: Timestamp,
    /// The mistakes, with which nothing changed.
    pub(super) result: Result<(), String>,
}

impl Instance {
    /// An instance with these listeners and settings. A reload calls `read`, which may block. `read` must
    /// make its own changes last, after every step that can fail.
    pub fn new(
        listeners: Vec<String>,
        behind_proxy: bool,
        live: Live,
        read: impl Fn() -> Result<Live, String> + Send + Sync + 'static,
    ) -> Arc<Self> {
        Arc::new(Self {
            begun: Instant::now(),
            listeners,
            behind_proxy,
            live: watch::Sender::new(Arc::new(live)),
            read: Box::new(read),
            reloading: Arc::default(),
            last: Mutex::default(),
            backlog: Backlog::default(),
        })
    }

    /// The settings that apply now.
    pub(super) fn live(&self) -> Arc<Live> {
        self.live.borrow().clone()
    }

    /// Where it listens, as people write it.
    pub(super) fn listeners(&self) -> &[String] {
        &self.listeners
    }

    /// Whether a proxy in front passes on what others send.
    pub(super) fn is_behind_proxy(&self) -> bool {
        self.behind_proxy
    }

    /// The large answers that clients have not taken yet.
    pub(super) fn backlog(&self) -> &Backlog {
        &self.backlog
    }

    /// How long it has run.
    pub(super) fn uptime(&self) -> Duration {
        self.begun.elapsed()
    }

    /// The last reload, if there was any.
    pub(super) fn last_reload(&self) -> Option<LastReload> {
        lock(&self.last).clone()
    }

    /// Reads the configuration and the files it names again, as one step, also if no caller waits for
    /// its end.
    ///
    /// # Errors
    /// The mistakes; then everything is as it was.
    pub async fn reload(self: Arc<Self>) -> Result<(), String> {
        let lock = self.reloading.clone().lock_owned().await;
        let (told, result) = oneshot::channel();
        // No thread of the runtime, whose end would wait for a disk that does not answer.
        let thread = thread::Builder::new().name("reload".to_owned()).spawn(move || {
            let _ = told.send(self.reload_now());
            drop(lock);
        });
        thread.map_err(|cause| format!("there is no thread to reload with: {cause}"))?;
        result.await.unwrap_or_else(|_| Err("the reload broke off; the log says more".to_owned()))
    }

    fn reload_now(&self) -> Result<(), String> {
        let result = (self.read)().map(|live| {
            self.live.send_replace(Arc::new(live));
        });
        match &result {
            Ok(()) => tracing::info!("reloaded the configuration"),
            Err(mistakes) => tracing::error!(mistakes, "the reload was refused; nothing changed"),
        }
        *lock(&self.last) = Some(LastReload { at: Timestamp::now(), result: result.clone() });
        result
    }
}

impl fmt::Debug for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { listeners, live, last, .. } = self;
        let mut debug = f.debug_struct("Instance");
        debug.field("listeners", listeners).field("live", live).field("last", last);
        debug.finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

    use super::*;

    /// One whose first reload lets a page in, and whose second has a mistake.
    fn instance() -> Arc<Instance> {
        let reloads = AtomicUsize::new(0);
        let live = |origins| Live::new(None, Guard { origins, ..Guard::default() });
        Instance::new(Vec::new(), false, live(Vec::new()), move || {
            match reloads.fetch_add(1, SeqCst) {
                0 => Ok(live(vec!["https://app.example".to_owned()])),
                _ => Err("a mistake".to_owned()),
            }
        })
    }

    #[tokio::test]
    async fn a_reload_that_is_refused_leaves_all_as_it_was_and_is_remembered() {
        let instance = instance();
        assert!(instance.last_reload().is_none());
        instance.clone().reload().await.unwrap();
        assert_eq!(instance.live().guard.origins.len(), 1);
        assert_eq!(instance.last_reload().unwrap().result, Ok(()));
        let before = instance.live();
        assert_eq!(instance.clone().reload().await, Err("a mistake".to_owned()));
        assert!(Arc::ptr_eq(&before, &instance.live()));
        assert_eq!(instance.last_reload().unwrap().result, Err("a mistake".to_owned()));
    }

    #[test]
    fn a_reload_that_hangs_does_not_hold_up_the_end() {
        let (ended, end) = std::sync::mpsc::channel();
        let (_never, hanging) = std::sync::mpsc::channel::<()>();
        let hanging = Mutex::new(hanging);
        let instance =
            Instance::new(Vec::new(), false, Live::new(None, Guard::default()), move || {
                let _ = lock(&hanging).recv();
                Err("it hung".to_owned())
            });
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(async {
                tokio::spawn(instance.reload());
                tokio::task::yield_now().await;
            });
            drop(runtime);
            ended.send(()).unwrap();
        });
        end.recv_timeout(Duration::from_secs(60)).unwrap();
    }
}
