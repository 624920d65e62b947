//! Where log events go: standard error, as text for people or JSON for programs.

use std::io::{IsTerminal, stderr};

use tracing::Level;
use tracing_subscriber::{
    Layer, filter::Targets, fmt, layer::SubscriberExt, registry, util::SubscriberInitExt,
};

use crate::config::{LogConfig, LogFormat};

/// Starts logging. Only this program's own events are taken, at every level: those of the HTTP
/// libraries may hold whole requests, with signatures and tokens in them.
pub(super) fn start(config: &LogConfig) {
    let own = Targets::new()
        .with_target(env!("CARGO_CRATE_NAME"), config.level)
        // Says that no connection can be accepted, as when the descriptors have run out.
        .with_target("axum::serve", Level::ERROR);
    let terminal = stderr().is_terminal();
    let layer = fmt::layer().with_writer(stderr).with_target(false);
    let layer = match config.format {
        LogFormat::Json => layer.json().flatten_event(true).boxed(),
        LogFormat::Auto if !terminal => layer.json().flatten_event(true).boxed(),
        _ => layer.with_ansi(terminal).boxed(),
    };
    // Fails only if this process logs already.
    let _ = registry().with(layer.with_filter(own)).try_init();
}
