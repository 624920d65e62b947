//! `wait`: for scripts that start the proxy and then use it.

use std::time::Duration;

use clap::Args;
use reqwest::Client;
use tokio::time::{sleep, timeout};

use super::{
    config_args::ConfigArgs, failure::Failure, listen, option::duration, remote::base, runtime,
};
use crate::config::ListenAddress;

/// How long between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Wait until the proxy is ready
///
/// It ends as soon as the proxy of this configuration answers /readyz with 200, or with --upstream
/// /readyz?upstream.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy serve --sandbox &\n  agentpmt-proxy wait")]
pub(super) struct Wait {
    /// Where the proxy listens: ADDRESS:PORT or unix:PATH
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<String>,
    /// Wait until the proxy reaches the upstream too
    #[arg(long)]
    upstream: bool,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

impl Wait {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let config = settings.with("listen", self.listen).load()?;
        let address = config.listen.iter().find(|address| **address != ListenAddress::Systemd);
        let address = address.ok_or(Failure::NowhereToAsk)?;
        let not_ready = || match (self.upstream, address.clone()) {
            (true, address) => Failure::NotReached(address),
            (false, address) => Failure::NotReady(address),
        };
        let ready = async {
            let client = client(address, self.timeout).map_err(|_| not_ready())?;
            let path = if self.upstream { "/readyz?upstream" } else { "/readyz" };
            let url = format!("{}{path}", base(address, listen::scheme(&config)));
            while !is_ready(&client, &url).await {
                sleep(PAUSE).await;
            }
            Ok(())
        };
        runtime::block_on(async {
            timeout(self.timeout, ready).await.unwrap_or_else(|_| Err(not_ready()))
        })
    }
}

fn client(address: &ListenAddress, time: Duration) -> reqwest::Result<Client> {
    // Without a provider the client panics, though it may speak no TLS here.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // A proxy on this machine is spoken to directly. Whatever certificate it shows is taken: it is
    // told nothing, and without TLS it would be believed as well.
    let client = Client::builder().no_proxy().timeout(time).tls_danger_accept_invalid_certs(true);
    match address {
        ListenAddress::Unix(path) => client.unix_socket(path.as_path()).build(),
        _ => client.build(),
    }
}

async fn is_ready(client: &Client, url: &str) -> bool {
    client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
}
