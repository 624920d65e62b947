//! `sandbox`: the upstream for trying out, by itself.

use std::{net::SocketAddr, time::Duration};

use clap::Args;

use super::{
    config_args::ConfigArgs, failure::Failure, listen, log, option::duration, output::announce,
    runtime, signals::Signals,
};
use crate::sandbox::{self, InjectedFault};

/// Start only the sandbox: an upstream for trying out
///
/// It checks signatures, reserves and reviews like the AgentPMT API, and keeps everything in memory.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  agentpmt-proxy sandbox --session 10s --fault slow:job_list:3\n  \
                        agentpmt-proxy serve --upstream http://127.0.0.1:8403"
)]
pub(super) struct SandboxCommand {
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8403")]
    #[arg(value_parser = loopback)]
    listen: SocketAddr,
    /// How long a session lives
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "15m")]
    session: Duration,
    /// How long a reservation runs
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30m")]
    reservation: Duration,
    /// How long a submission awaits its review
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "5s")]
    review: Duration,
    /// How many credits a wallet has at first
    #[arg(long, value_name = "NUMBER", default_value = "0")]
    #[arg(value_parser = clap::value_parser!(i64).range(0..=1_000_000_000))]
    credits: i64,
    /// Make the sandbox misbehave; --help lists the kinds
    #[arg(long = "fault", value_name = "KIND[:ACTION[:TIMES]]", long_help = fault_help())]
    faults: Vec<InjectedFault>,
}

impl SandboxCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let config = settings.load()?;
        log::start(&config.log)?;
        let listener = listen::bind(self.listen)?;
        let address = listen::local_address(&listener)?;
        let sandbox = sandbox::Sandbox::new(sandbox::Settings {
            session: self.session,
            reservation: self.reservation,
            review: self.review,
            credits: self.credits,
            ..sandbox::Settings::default()
        });
        self.faults.into_iter().for_each(|fault| sandbox.inject(fault));
        runtime::block_on(async {
            let listener = listen::hand_over(listener)?;
            let mut signals = Signals::catch()?;
            announce(format!(
                "the sandbox listens on http://{address}\n\
                 use it with: agentpmt-proxy serve --upstream http://{address}\n\
                 faults: POST http://{address}/sandbox/faults\n"
            ))?;
            // Running calls are not waited for: one that hangs would never end.
            tokio::select! {
                () = sandbox.serve(listener) => {}
                () = signals.next() => {}
            }
            Ok(())
        })
    }
}

/// For a port that other machines do not reach.
fn loopback(text: &str) -> Result<SocketAddr, &'static str> {
    let address = text.parse().ok().filter(|address: &SocketAddr| address.ip().is_loopback());
    address.ok_or("the sandbox listens on loopback only, as on 127.0.0.1:8403")
}

/// The long help of `--fault`, here and for `serve`.
pub(super) fn fault_help() -> String {
    let kinds = sandbox::KINDS.iter();
    let kinds = kinds.map(|kind| format!("\n  {:21} {}", kind.name(), kind.about()));
    format!(
        "Make the sandbox misbehave; may be given several times\n\n\
         ACTION is the name of a call such as job_complete, session, or any (the default).\n\
         With TIMES the fault strikes that often, else always.\n\nKINDS:{}",
        kinds.collect::<String>()
    )
}
