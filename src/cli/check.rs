//! `check`: whether `serve` would start, and what it would do.

use clap::Args;
use serde_json::json;

use super::{Failure, Settings, password, print};
use crate::{config::Config, signer::keystore::Keys, upstream::Upstream};

/// Check the configuration and the key file, and print what `serve` would do
///
/// Nothing is sent, listened on or unlocked.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy check --config proxy.toml")]
pub(super) struct Check {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Scheme, host and port of the API
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl Check {
    pub(super) fn run(self, settings: Settings) -> Result<(), Failure> {
        let config = settings.load([("listen", self.listen), ("upstream.url", self.upstream)])?;
        let rows = rows(&config)?;
        if self.json {
            let rows: serde_json::Map<_, _> =
                rows.into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect();
            return print(&format!("{}\n", json!(rows)));
        }
        rows.iter().try_for_each(|(name, value)| print(&format!("{name:14}{value}\n")))
    }
}

fn rows(config: &Config) -> Result<[(&'static str, String); 6], Failure> {
    Upstream::new(&config.upstream)?;
    let key = Keys::new(&config.keys).find(config.wallet)?.load()?;
    let source = config.source.as_ref().map(|path| path.display().to_string());
    let wallet = key.wallet().map(|wallet| wallet.to_string());
    Ok([
        ("configuration", source.unwrap_or_else(|| "no file; defaults".to_owned())),
        ("listen", format!("http://{}", config.listen)),
        ("upstream", config.upstream.url.to_string()),
        ("wallet", wallet.unwrap_or_else(|| "known once it is unlocked".to_owned())),
        ("key_file", key.path().display().to_string()),
        ("password_from", password::Source::of(config).describe()),
    ])
}
