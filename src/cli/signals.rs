//! What tells the process to end, or to read its configuration again.

use std::{
    fs::File,
    io::{self, IsTerminal, stderr, stdin, stdout},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::Failure;

/// SIGTERM and SIGINT, which end the process, and SIGUSR1 and SIGUSR2, which would. Caught from the
/// start and not only once somebody waits.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    user_1: Signal,
    user_2: Signal,
}

impl Signals {
    /// Has to be called within the runtime.
    pub(super) fn catch() -> Result<Self, Failure> {
        let all = || -> io::Result<_> {
            Ok(Self {
                terminate: signal(SignalKind::terminate())?,
                interrupt: signal(SignalKind::interrupt())?,
                user_1: signal(SignalKind::user_defined1())?,
                user_2: signal(SignalKind::user_defined2())?,
            })
        };
        all().map_err(|cause| Failure::Runtime { cause })
    }

    /// Waits for the next one that ends the process.
    pub(super) async fn next(&mut self) {
        loop {
            let ignored = tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.user_1.recv() => "SIGUSR1",
                _ = self.user_2.recv() => "SIGUSR2",
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

/// What a SIGHUP asks for.
pub(super) enum Hangup {
    Reload,
    /// The terminal was closed: an open wallet would be left behind.
    End,
}

impl Hangups {
    /// Has to be called within the runtime.
    pub(super) fn catch() -> Result<Self, Failure> {
        let terminal = Terminal::of_process();
        let signal = signal(SignalKind::hangup()).map_err(|cause| Failure::Runtime { cause })?;
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
