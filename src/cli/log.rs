//! Where log events go: standard error, as text for people or JSON for programs.

mod json;

use std::io::{self, IsTerminal, Write};

use rustix::stdio::stderr;
use tracing::Level;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, registry, reload::Handle,
    util::SubscriberInitExt,
};

use self::json::JsonLines;
use crate::config::{LogConfig, LogFormat};

/// The log, whose level may change.
#[derive(Debug)]
pub(super) struct Log(Handle<Targets, Registry>);

/// Starts logging. Only this program's own events are taken, at every level: those of the HTTP
/// libraries may hold whole requests, with signatures and tokens in them.
pub(super) fn start(config: &LogConfig) -> Log {
    let (own, handle) = tracing_subscriber::reload::Layer::new(own(config.level));
    let terminal = io::stderr().is_terminal();
    let layer = fmt::layer()
        .with_writer(|| StandardError)
        .with_target(false)
        // It would be told to the same standard error, and end who logs.
        .log_internal_errors(false);
    let layer = match config.format {
        LogFormat::Json => layer.event_format(JsonLines).boxed(),
        LogFormat::Auto if !terminal => layer.event_format(JsonLines).boxed(),
        _ => layer.with_ansi(terminal).boxed(),
    };
    // Fails only if this process logs already.
    let _ = registry().with(own).with(layer).try_init();
    Log(handle)
}

impl Log {
    pub(super) fn set_level(&self, level: Level) {
        // Fails only if this process does not log by it.
        let _ = self.0.reload(own(level));
    }
}

/// Standard error without the lock of the standard library: an event is one write, and nobody waits
/// for that of another thread.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(rustix::io::write(stderr(), bytes)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn own(level: Level) -> Targets {
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        // Says that no connection can be accepted, as when the descriptors have run out.
        .with_target("axum::serve", Level::ERROR)
}
