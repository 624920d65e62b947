//! Where log events go: standard error, as text for people or JSON for programs.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::{
    Layer, Registry, filter::Targets, fmt, layer::SubscriberExt, registry, reload::Handle,
    util::SubscriberInitExt,
};

use crate::config::{LogConfig, LogFormat};

/// The log, whose level may change.
#[derive(Debug)]
pub(super) struct Log(Handle<Targets, Registry>);

/// Starts logging. Only this program's own events are taken, at every level: those of the HTTP
/// libraries may hold whole requests, with signatures and tokens in them.
pub(super) fn start(config: &LogConfig) -> Log {
    let (own, handle) = tracing_subscriber::reload::Layer::new(own(config.level));
    let terminal = stderr().is_terminal();
    let layer = fmt::layer().with_writer(stderr).with_target(false);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Auto if !terminal => layer.json().flatten_event(true).boxed(),
        _ => layer.with_ansi(terminal).boxed(),
    };
    // Fails only if this process logs already.
    let _ = registry().with(layer.with_filter(own)).try_init();
    Log(handle)
}

impl Log {
    pub(super) fn set_level(&self, level: Level) {
        // Fails only if this process does not log by it.
        let _ = self.0.reload(own(level));
    }
}

fn own(level: Level) -> Targets {
    Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), level)
        // Says that no connection can be accepted, as when the descriptors have run out.
        .with_target("axum::serve", Level::ERROR)
}
