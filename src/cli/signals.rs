//! The signals that end the process, or have it read its configuration again.

use std::{
    fs::File,
    future::poll_fn,
    io::{self, IsTerminal, stderr, stdin, stdout},
    task::Poll,
};

use rustix::process;
use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
};

use super::failure::Failure;

/// Signals without a meaning here, which would end the process silently. SIGQUIT may still end it.
const WITHOUT_MEANING: [(&str, process::Signal); 6] = [
    ("SIGUSR1", process::Signal::USR1),
    ("SIGUSR2", process::Signal::USR2),
    ("SIGALRM", process::Signal::ALARM),
    ("SIGVTALRM", process::Signal::VTALARM),
    ("SIGPROF", process::Signal::PROF),
    ("SIGIO", process::Signal::IO),
];

/// The same of Linux alone.
#[cfg(target_os = "linux")]
const OF_SYSTEM: [(&str, process::Signal); 1] = [("SIGPWR", process::Signal::POWER)];
#[cfg(not(target_os = "linux"))]
const OF_SYSTEM: [(&str, process::Signal); 0] = [];

/// Has a write that meets the limit of a file's size fail, as on a full disk, and not end the process.
pub(super) fn outlive_full_files() -> Result<(), Failure> {
    let catch = || {
        let runtime = Builder::new_current_thread().enable_io().build()?;
        // Once caught, a signal stays so.
        runtime.block_on(async { caught(process::Signal::XFSZ).map(drop) })
    };
    catch().map_err(Failure::Runtime)
}

fn caught(name: process::Signal) -> io::Result<Signal> {
    signal(SignalKind::from_raw(name.as_raw()))
}

/// SIGTERM and SIGINT, which end the process, and signals to ignore. Caught from the start, so that none is
/// missed.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    ignored: Vec<(&'static str, Signal)>,
}

impl Signals {
    /// Has to be called within the runtime.
    pub(super) fn catch() -> Result<Self, Failure> {
        let all = || -> io::Result<_> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                ignored: WITHOUT_MEANING
                    .into_iter()
                    .chain(OF_SYSTEM)
                    .map(|(name, signal)| Ok((name, caught(signal)?)))
                    .collect::<io::Result<_>>()?,
            })
        };
        all().map_err(Failure::Runtime)
    }

    /// Waits for the next one that ends the process.
    pub(super) async fn next(&mut self) {
        loop {
            let ignored = &mut self.ignored;
            let ignored = poll_fn(|context| {
                let come = ignored.iter_mut().find_map(|(name, signal)| {
                    signal.poll_recv(context).is_ready().then_some(*name)
                });
                come.map_or(Poll::Pending, Poll::Ready)
            });
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                name = ignored => name,
            };
            tracing::warn!("ignored {ignored}; SIGHUP reloads, SIGTERM ends the proxy");
        }
    }
}

/// SIGHUP, caught: it no longer ends the process by itself.
pub(super) struct Hangups {
    signal: Signal,
    terminal: Terminal,
}

/// The reload that a SIGHUP asks for.
pub(super) enum Hangup {
    Reload,
    /// The terminal was closed: an open wallet would be left behind.
    End,
}

impl Hangups {
    /// Has to be called within the runtime.
    pub(super) fn catch() -> Result<Self, Failure> {
        let terminal = Terminal::of_process();
        let signal = signal(SignalKind::hangup()).map_err(Failure::Runtime)?;
        Ok(Self { signal, terminal })
    }

    /// Waits for the next one.
    pub(super) async fn next(&mut self) -> Hangup {
        self.signal.recv().await;
        if self.terminal.ends() { Hangup::End } else { Hangup::Reload }
    }
}

/// The terminal that the process was started from.
struct Terminal {
    /// Whether one of the standard streams is a terminal.
    is_used: bool,
    /// Whether there is one at all.
    is_there: bool,
}

impl Terminal {
    fn of_process() -> Self {
        // As by nohup: the process is to outlive its terminal.
        if ignores_hangups() {
            return Self { is_used: false, is_there: false };
        }
        let is_used = stdin().is_terminal() || stdout().is_terminal() || stderr().is_terminal();
        Self { is_used, is_there: has_terminal() }
    }

    /// Whether a SIGHUP ends what runs on it.
    fn ends(&self) -> bool {
        self.is_used || self.is_there && !has_terminal()
    }
}

fn has_terminal() -> bool {
    File::open("/dev/tty").is_ok()
}

/// Whether the process was started with SIGHUP ignored, as far as the system tells.
fn ignores_hangups() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ignored = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    // A bit for each signal, of which SIGHUP is the first.
    ignored
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 == 1)
}
