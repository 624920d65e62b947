//! `wait`: for scripts that start the proxy and then use it.

use std::time::Duration;

use clap::Args;
use reqwest::Client;
use tokio::time::{sleep, timeout};

use super::{Failure, Settings, duration, serve};

/// How long between two questions.
const PAUSE: Duration = Duration::from_millis(50);

/// Wait until the proxy is ready
///
/// It ends as soon as the proxy of this configuration answers /readyz with 200.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy serve --sandbox &\n  agentpmt-proxy wait")]
pub(super) struct Wait {
    /// Address and port where the proxy listens
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// How long to wait at most
    #[arg(long, value_name = "DURATION", value_parser = duration, default_value = "30s")]
    timeout: Duration,
}

impl Wait {
    pub(super) fn run(self, settings: Settings) -> Result<(), Failure> {
        let address = settings.load([("listen", self.listen)])?.listen;
        let ready = async {
            // Without a provider the client panics, though it speaks no TLS here.
            let _ = rustls::crypto::ring::default_provider().install_default();
            // A proxy on this machine is spoken to directly, and without TLS.
            let client = Client::builder().no_proxy().timeout(self.timeout).build();
            let client = client.map_err(|_| Failure::NotReady { address })?;
            while !is_ready(&client, &format!("http://{address}/readyz")).await {
                sleep(PAUSE).await;
            }
            Ok(())
        };
        serve::runtime()?.block_on(async {
            timeout(self.timeout, ready).await.unwrap_or(Err(Failure::NotReady { address }))
        })
    }
}

async fn is_ready(client: &Client, url: &str) -> bool {
    client.get(url).send().await.is_ok_and(|answer| answer.status().is_success())
}
