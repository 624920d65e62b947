//! `serve`: the proxy itself.

use std::{
    net::Ipv4Addr,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use clap::Args;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::{
    config_args::ConfigArgs,
    environment,
    failure::Failure,
    listen::{self, Listening},
    log::{self, Log},
    output::announce,
    process,
    reload::{self, Reload},
    runtime::block_on,
    sandbox_state,
    signals::{Hangup, Hangups, Signals},
    unused::state_of,
    wallets::{self, Wallets},
};
use crate::{
    config::{ClientsAre, Config, ListenAddress, SpendingConfig, UpstreamConfig, UpstreamUrl},
    http::{self, Instance, Limits, Live, Tls, Workers},
    payment::Spending,
    proxy::Proxy,
    sandbox::{self, InjectedFault, Sandbox},
    signer::LocalKey,
    store::{Deed, Store},
    upstream::Upstream,
};

/// How long the requests that run when the process is told to end may take to come to their end.
const DRAIN: Duration = Duration::from_secs(30);

/// Start the proxy
///
/// Unlocks the wallet, listens, and signs and forwards calls, until it is interrupted.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy serve --sandbox\n  \
                        agentpmt-proxy serve --sandbox --fault cut_after:job_complete:1\n  \
                        agentpmt-proxy serve --sandbox --state sandbox-state\n  \
                        agentpmt-proxy serve --listen 127.0.0.1:9000")]
pub(super) struct Serve {
    /// Use a sandbox inside this program and a wallet of its own: nothing leaves this machine. Wallet and
    /// state are thrown away at the end, unless --state names a folder to keep
    #[arg(long, conflicts_with_all = ["upstream", "wallet", "keys", "password_file"])]
    sandbox: bool,
    /// Make the sandbox misbehave; --help lists the kinds
    #[arg(long = "fault", value_name = "KIND[:ACTION[:TIMES]]")]
    #[arg(long_help = super::sandbox::fault_help())]
    faults: Vec<InjectedFault>,
    /// Where to listen: ADDRESS:PORT, unix:PATH or systemd; may be given several times
    #[arg(long, value_name = "ADDRESS")]
    listen: Vec<String>,
    /// Scheme, host and port of the API
    #[arg(long, value_name = "URL")]
    upstream: Option<String>,
}

/// The parts that are made before the runtime.
pub(super) struct Start {
    sandbox: bool,
    /// Prints the text that says where it listens.
    say: fn(String) -> Result<(), Failure>,
    settings: ConfigArgs,
    config: Config,
    log: Log,
    tls: Option<Tls>,
    listening: Listening,
}

impl Serve {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        // Not by clap's `requires`, which is silent where the missing option conflicts with a given one.
        if !self.sandbox && !self.faults.is_empty() {
            return Err(Failure::FaultWithoutSandbox);
        }
        environment::move_password()?;
        let settings = settings.with("listen", self.listen).with("upstream.url", self.upstream);
        let (settings, _throw_away) = match self.sandbox {
            true => sandbox_state::settings(settings)?,
            false => (settings, None),
        };
        let start = Start::new(settings, self.sandbox, announce)?;
        if self.sandbox {
            return block_on(serve_sandbox(start, self.faults));
        }
        let wallets = wallets::unlock(&start.config)?;
        block_on(async {
            let upstream = start.config.upstream.clone();
            let text = banner(&start, &upstream.url.to_string(), &wallets)?;
            serve(start, &upstream, wallets, &text).await
        })
    }
}

impl Start {
    pub(super) fn new(
        settings: ConfigArgs,
        sandbox: bool,
        say: fn(String) -> Result<(), Failure>,
    ) -> Result<Self, Failure> {
        let config = settings.load()?;
        let log = log::start(&config.log)?;
        process::raise_descriptor_limit();
        let tls = Tls::load(&config.tls)?;
        // The port first, before a password is typed in vain.
        let listening = Listening::bind(&config)?;
        listen::require_client(&config, listening.addresses())?;
        Ok(Self { sandbox, say, settings, config, log, tls, listening })
    }
}

/// Serves until the process is told to end, then lets what runs come to its end: for at most
/// [`DRAIN`], or until it is told again.
///
/// By the time that `say` is called, clients can connect, and a signal ends the process in peace.
async fn serve_proxy(
    listeners: Vec<http::Listener>,
    limits: Limits,
    say: impl FnOnce() -> Result<(), Failure>,
    proxy: &Arc<Proxy>,
    instance: Arc<Instance>,
) -> Result<(), Failure> {
    let mut signals = Signals::catch()?;
    let mut hangups = Hangups::catch()?;
    say()?;
    let stop = CancellationToken::new();
    let router = http::router(proxy.clone(), limits, instance.clone());
    // Kept until the end: they also run the changes whose clients have gone.
    let workers = Workers::start().map_err(Failure::Runtime)?;
    let server =
        http::serve(listeners, router, limits, instance.clone(), workers.clone(), stop.clone());
    let mut done = pin!(async {
        server.await;
        proxy.drained().await;
    });
    loop {
        tokio::select! {
            () = &mut done => return Ok(()),
            () = signals.next() => break,
            hangup = hangups.next() => match hangup {
                // Its result is logged, and kept for requests that ask for it.
                Hangup::Reload => {
                    let (proxy, instance) = (proxy.clone(), instance.clone());
                    tokio::spawn(async move {
                        proxy.store().did(Deed::Reload, "SIGHUP").await;
                        instance.reload().await
                    });
                }
                Hangup::End => break,
            },
        }
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

pub(super) async fn serve_sandbox(start: Start, faults: Vec<InjectedFault>) -> Result<(), Failure> {
    let upstream = listen::bind((Ipv4Addr::LOCALHOST, 0).into())?;
    let address = listen::local_address(&upstream)?;
    let sandbox = Sandbox::new(sandbox::Settings::default());
    faults.into_iter().for_each(|fault| sandbox.inject(fault));
    let upstream = listen::hand_over(upstream)?;
    // It serves until the process ends: the proxy's last calls still need it.
    tokio::spawn(async move { sandbox.serve(upstream).await });
    let wallets = Wallets { first: sandbox_state::wallet(&start.config)?, others: Vec::new() };
    let upstream = "a sandbox inside this program; nothing leaves this machine";
    let text = banner(&start, upstream, &wallets)?
        + &format!("  sandbox   http://{address}  (faults: POST /sandbox/faults)\n")
        + &examples(&start)?;
    let url = UpstreamUrl::on_this_machine(address.port());
    let upstream = UpstreamConfig { url, ..start.config.upstream.clone() };
    serve(start, &upstream, wallets, &text).await
}

/// Serves with these wallets, which may be ones that the configuration does not know, as may the
/// upstream.
async fn serve(
    start: Start,
    upstream: &UpstreamConfig,
    wallets: Wallets,
    text: &str,
) -> Result<(), Failure> {
    let spending = payments(&start, &wallets);
    let Start { say, settings, config, log, tls, listening, .. } = start;
    let upstream = Upstream::new(upstream)?;
    let keys: Vec<_> = wallets.iter().map(LocalKey::seal_key).collect();
    let store = Store::open(&config.database(), &keys).map_err(Failure::of_state)?;
    if config.clients == ClientsAre::Required {
        store.require_clients();
    }
    if let Some(freeze) = store.frozen().await.map_err(Failure::of_state)? {
        let state = state_of(&config);
        tracing::warn!("{freeze}; `agentpmt-proxy thaw --state {}` ends that", state.display());
    }
    if let Err(error) = store.show_alive() {
        tracing::warn!(%error, "commands cannot see that this proxy runs");
    }
    let Wallets { first, others } = wallets;
    let proxy = Proxy::new(first.into(), upstream.clone(), store, config.expose_workflow_token);
    let proxy = proxy.with_spending(Spending::of(&spending));
    let proxy = Arc::new(others.into_iter().fold(proxy, |proxy, key| proxy.and_wallet(key.into())));
    let limits =
        Limits { connections_per_peer: config.max_connections_per_peer, ..Limits::default() };
    let names = listening.addresses().iter().map(|address| listen::describe(address, &config));
    let (names, behind_proxy) = (names.collect(), config.behind_tls_proxy);
    proxy.set_max_in_flight(config.max_in_flight);
    proxy.resume_events().await.map_err(Failure::of_state)?;
    let live = Live::new(tls, reload::guard(&config));
    let reload = Reload { settings, config: Mutex::new(config), log, proxy: proxy.clone() };
    let instance = Instance::new(names, behind_proxy, live, move || reload.read());
    let say = || say(text.to_owned());
    serve_proxy(listening.hand_over()?, limits, say, &proxy, instance).await
}

/// The payments that are allowed. In a sandbox its own wallet pays, whichever the configuration names.
fn payments(start: &Start, wallets: &Wallets) -> SpendingConfig {
    let spending = start.config.spending.clone();
    match spending.wallet {
        Some(_) if start.sandbox => {
            SpendingConfig { wallet: Some(wallets.first.address()), ..spending }
        }
        _ => spending,
    }
}

fn banner(start: &Start, upstream: &str, wallets: &Wallets) -> Result<String, Failure> {
    let places = start.listening.addresses().iter();
    let mut places = places.map(|address| listen::describe(address, &start.config));
    let first = places.next().unwrap_or_default();
    let others: String = places.map(|place| format!("  also on   {place}\n")).collect();
    let addresses = wallets.iter().map(|key| format!("  wallet    {}\n", key.address()));
    let (callers, all) = listen::callers(&start.config, start.listening.addresses())?;
    if all && !start.sandbox {
        tracing::warn!(
            "{callers} may call until you add a client: agentpmt-proxy client add NAME --allow jobs"
        );
    }
    let spending = payments(start, wallets);
    for doubt in spending.doubts() {
        tracing::warn!("{doubt}");
    }
    let payments = spending.describe();
    let payments = payments.map(|text| format!("  payments  {text}\n")).unwrap_or_default();
    let state = state_of(&start.config);
    let state = state.display();
    let add = match start.sandbox {
        true => {
            format!("  (add a client: agentpmt-proxy client add NAME --allow jobs --state {state})")
        }
        false => String::new(),
    };
    Ok(format!(
        "agentpmt-proxy {} listens on {first}\n{others}  upstream  {upstream}\n{}  callers   {callers}\n\
         {payments}  state     {state}{add}\n",
        env!("CARGO_PKG_VERSION"),
        addresses.collect::<String>(),
    ))
}

/// Lines to paste into a shell.
fn examples(start: &Start) -> Result<String, Failure> {
    let place = match start.listening.addresses().first() {
        Some(ListenAddress::Unix(path)) => {
            format!("--unix-socket {} -X POST http://localhost", path.display())
        }
        Some(address) => format!("-X POST {}", listen::describe(address, &start.config)),
        None => String::new(),
    };
    let certificate = start.config.tls.certificate.as_ref();
    let trust = certificate.map(|path| format!("--cacert {} ", path.display())).unwrap_or_default();
    let (_, all) = listen::callers(&start.config, start.listening.addresses())?;
    let (with, token) = match all {
        true => ("", ""),
        false => (", with the token of a client", "-H 'Authorization: Bearer TOKEN' "),
    };
    let (curl, job) = (format!("curl {trust}{token}{place}/api/external/jobs"), Sandbox::FIRST_JOB);
    Ok(format!(
        "\nTry it from another shell{with}:\n  {curl}/list\n  {curl}/{job}/reserve\n  {curl}/{job}/status\n"
    ))
}
