//! `sandbox`: the upstream for trying out, by itself.

use std::time::Duration;

use clap::Args;
use jiff::SignedDuration;

use super::{Failure, Settings, log, serve};
use crate::sandbox;

/// Start only the sandbox: an upstream for trying out
///
/// It checks signatures, reserves and reviews like the AgentPMT API, and keeps everything in memory.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy sandbox --session 10s\n  \
                        agentpmt-proxy serve --upstream http://127.0.0.1:8403")]
pub(super) struct Sandbox {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8403")]
    listen: String,
    /// How long a session lives
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "15m")]
    session: Duration,
    /// How long a reservation runs
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30m")]
    reservation: Duration,
    /// How long a submission awaits its review
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    review: Duration,
}

impl Sandbox {
    pub(super) fn run(self, settings: Settings) -> Result<(), Failure> {
        let config = settings.load([("listen", Some(self.listen))])?;
        log::start(&config.log);
        let listener = serve::bind(config.listen)?;
        let address = serve::local_address(&listener)?;
        let sandbox = sandbox::Sandbox::new(sandbox::Settings {
            session: self.session,
            reservation: self.reservation,
            review: self.review,
        });
        serve::runtime()?.block_on(async {
            let text = format!(
                "the sandbox listens on http://{address}\n\
                 use it with: agentpmt-proxy serve --upstream http://{address}\n"
            );
            serve::serve_router(listener, sandbox.router(), &text, async {}).await
        })
    }
}

fn duration(text: &str) -> Result<Duration, String> {
    let duration: Option<SignedDuration> = text.parse().ok().filter(SignedDuration::is_positive);
    duration
        .map(|duration| duration.unsigned_abs())
        .ok_or_else(|| "expected a duration with its unit, such as 10s or 15m".to_owned())
}
