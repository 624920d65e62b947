//! `serve`: the proxy itself.

use std::{
    net::{Ipv4Addr, SocketAddr, TcpListener},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use clap::Args;
use tokio::{runtime::Runtime, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{Failure, Settings, environment, log, password, print, process, signals::Signals};
use crate::{
    config::{Config, UpstreamUrl},
    http::{self, Limits},
    proxy::Proxy,
    sandbox::{self, Fault, Sandbox},
    signer::{Signer, keystore::Keystore},
    store::Store,
    types::Address,
    upstream::Upstream,
};

/// How long the requests that run when the process is told to end may take to come to their end.
const DRAIN: Duration = Duration::from_secs(30);

/// Start the proxy
///
/// Unlocks the wallet, listens, and signs and forwards what it is sent, until it is interrupted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy serve --sandbox\n  \
                        agentpmt-proxy serve --sandbox --fault cut_after:job_complete:1\n  \
                        agentpmt-proxy serve --listen 127.0.0.1:9000")]
pub(super) struct Serve {
    /// Use a sandbox inside this program and a throw-away wallet: nothing leaves this machine
    #[arg(long, conflicts_with_all = ["upstream", "wallet", "keys", "password_file"])]
    sandbox: bool,
    /// Make the sandbox misbehave; --help lists the kinds
    #[arg(long = "fault", value_name = "KIND[:ACTION[:TIMES]]", requires = "sandbox")]
    #[arg(long_help = super::sandbox::fault_help())]
    faults: Vec<Fault>,
    /// Address and port to listen on
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Scheme, host and port of the API
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

impl Serve {
    pub(super) fn run(self, settings: Settings) -> Result<(), Failure> {
        environment::move_password()?;
        let flags = [("listen", self.listen), ("upstream.url", self.upstream)];
        let config = settings.load(flags)?;
        log::start(&config.log);
        process::raise_descriptor_limit();
        // The port first: whoever has to type a password should not do it in vain.
        let listener = bind(config.listen)?;
        if self.sandbox {
            return runtime()?.block_on(serve_sandbox(config, listener, self.faults));
        }
        let signer = unlock(&config)?;
        runtime()?.block_on(async {
            let text = banner(&listener, &config.upstream.url.to_string(), signer.address())?;
            serve(config, signer, listener, &text).await
        })
    }
}

/// The runtime of every command that serves.
pub(super) fn runtime() -> Result<Runtime, Failure> {
    Runtime::new().map_err(|cause| Failure::Runtime { cause })
}

/// Listens before anything else is done, in a way that the runtime can take over.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    let failed = |cause| Failure::Listen { address, cause };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Serves until the process is told to end, then lets what runs come to its end: for at most [`DRAIN`], or until it is told again.
///
/// The text is printed first: whoever has read it can connect, and can end the process in peace.
async fn serve_proxy(
    listener: TcpListener,
    limits: Limits,
    text: &str,
    proxy: &Arc<Proxy>,
) -> Result<(), Failure> {
    let listener = hand_over(listener)?;
    let mut signals = Signals::catch()?;
    print(text)?;
    let stop = CancellationToken::new();
    let router = http::router(proxy.clone(), limits);
    let server = http::serve(listener, router, limits, stop.clone());
    let mut done = pin!(async {
        server.await;
        proxy.drained().await;
    });
    tokio::select! {
        () = &mut done => return Ok(()),
        () = signals.next() => {}
    }
    tracing::info!("ending: the calls that run come to their end; a second signal ends them now");
    proxy.end();
    stop.cancel();
    tokio::select! {
        () = done => {}
        () = signals.next() => {}
        () = sleep(DRAIN) => {
            tracing::warn!("calls were still running at the end; ask for the status of their jobs");
            proxy.flush().await;
        }
    }
    Ok(())
}

/// Gives a listener to the runtime.
pub(super) fn hand_over(listener: TcpListener) -> Result<tokio::net::TcpListener, Failure> {
    tokio::net::TcpListener::from_std(listener).map_err(|cause| Failure::Runtime { cause })
}

/// Opens the wallet, once and before there is a runtime: the key derivation takes about a second, and
/// no async thread waits for it.
fn unlock(config: &Config) -> Result<Signer, Failure> {
    let key = Keystore::new(&config.keys).find(config.wallet)?;
    let (signer, _) = password::Source::of(config).unlock(&key)?;
    Ok(signer)
}

async fn serve_sandbox(
    mut config: Config,
    listener: TcpListener,
    faults: Vec<Fault>,
) -> Result<(), Failure> {
    let upstream = bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = local_address(&upstream)?;
    // The wallet is thrown away, and so is what only its key opens.
    let state = tempfile::tempdir().map_err(|cause| Failure::Runtime { cause })?;
    config.state = state.path().to_owned();
    config.upstream.url = UpstreamUrl::on_this_machine(address.port());
    let sandbox = Sandbox::new(sandbox::Settings::default());
    faults.into_iter().for_each(|fault| sandbox.inject(fault));
    let upstream = hand_over(upstream)?;
    // It serves until the process ends: the proxy's last calls still need it.
    tokio::spawn(async move { sandbox.serve(upstream).await });
    let signer = Signer::random();
    let upstream = "a sandbox inside this program; nothing leaves this machine";
    let text = banner(&listener, upstream, signer.address())?
        + &format!("  sandbox   http://{address}  (faults: POST /sandbox/faults)\n")
        + &examples(&listener)?;
    serve(config, signer, listener, &text).await
}

async fn serve(
    config: Config,
    signer: Signer,
    listener: TcpListener,
    text: &str,
) -> Result<(), Failure> {
    let upstream = Upstream::new(&config.upstream)?;
    let store = Store::open(&config.database(), &signer.seal_key())?;
    let proxy = Proxy::new(signer, upstream, store, config.expose_workflow_token);
    let proxy = Arc::new(proxy);
    let limits = Limits { in_flight: config.max_in_flight, ..Limits::default() };
    serve_proxy(listener, limits, text, &proxy).await
}

fn banner(listener: &TcpListener, upstream: &str, wallet: Address) -> Result<String, Failure> {
    Ok(format!(
        "agentpmt-proxy {} listens on http://{}\n  upstream  {upstream}\n  wallet    {wallet}\n",
        env!("CARGO_PKG_VERSION"),
        local_address(listener)?
    ))
}

/// Lines to paste into a shell.
fn examples(listener: &TcpListener) -> Result<String, Failure> {
    let jobs = format!("http://{}/api/external/jobs", local_address(listener)?);
    let job = Sandbox::FIRST_JOB;
    Ok(format!(
        "\nTry it from another shell:\n  \
         curl -X POST {jobs}/list\n  \
         curl -X POST {jobs}/{job}/reserve\n  \
         curl -X POST {jobs}/{job}/status\n"
    ))
}

pub(super) fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(|cause| Failure::Runtime { cause })
}
