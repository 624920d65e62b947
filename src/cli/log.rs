//! Where log events go: standard error, as text for people or JSON for programs.

mod json;
mod writer;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env,
    io::{self, IsTerminal, Write},
    panic,
};

use tracing::Level;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, registry, reload::Handle,
    util::SubscriberInitExt,
};

use self::json::JsonLines;
pub(super) use self::writer::{flush, push};
use super::failure::Failure;
use crate::config::{LogConfig, LogFormat};

/// The log, whose level may change.
#[derive(Debug)]
pub(super) struct Log(Handle<Targets, Registry>);

/// Starts logging. Only this program's own events are taken, at every level: those of the HTTP
/// libraries may hold whole requests, with signatures and tokens in them.
///
/// # Errors
/// The system gives no thread to write with.
pub(super) fn start(config: &LogConfig) -> Result<Log, Failure> {
    writer::start().map_err(Failure::Runtime)?;
    let (own, handle) = tracing_subscriber::reload::Layer::new(own(config.level));
    let terminal = io::stderr().is_terminal();
    // As https://no-color.org asks.
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let layer = fmt::layer()
        .with_writer(|| StandardError)
        .with_target(false)
        // The queue takes every line, so there are none.
        .log_internal_errors(false);
    let layer = match config.format {
        LogFormat::Json => layer.event_format(JsonLines).boxed(),
        LogFormat::Auto if !terminal => layer.event_format(JsonLines).boxed(),
        _ => layer.with_ansi(terminal && !no_color).boxed(),
    };
    // Fails only if this process logs already.
    let _ = registry().with(own).with(layer).try_init();
    panic::set_hook(Box::new(|panic| {
        let backtrace = Backtrace::capture();
        let backtrace =
            (backtrace.status() == BacktraceStatus::Captured).then(|| backtrace.to_string());
        tracing::error!(backtrace, "{panic}");
    }));
    Ok(Log(handle))
}

impl Log {
    pub(super) fn set_level(&self, level: Level) {
        // Fails only if this process does not log by it.
        let _ = self.0.reload(own(level));
    }
}

/// Standard error, as [`writer`] writes it.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        push(bytes);
        Ok(bytes.len())
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
