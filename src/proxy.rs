//! The flow of one call, from an unsigned request to the upstream's answer, whatever breaks between.

mod admit;
mod ended;
mod error;
mod exchange;
mod once;
mod outliving;
mod place;
mod probe;
mod reservations;
mod settle;

use std::{
    collections::BTreeMap,
    panic::AssertUnwindSafe,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::FutureExt;
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    admit::Asking,
    error::CallError,
    place::{NoPlace, Place, Places},
};
use self::{outliving::Outliving, probe::Probe, reservations::Reservations};
use crate::{
    action::{ACTIONS, Action},
    call::Call,
    policy::Client,
    sender::Sender,
    signer::Signer,
    store::{Caller, Denial, Reservation, Store, StoreError},
    trail::Trail,
    turns::Turns,
    types::{Address, IdempotencyKey, RequestId},
    upstream::{Answer, Seen, Upstream},
};

/// A request of a client.
#[derive(Debug)]
pub struct Incoming {
    /// The call it asks for.
    pub call: Call,
    /// Its id, which is also in its answer.
    pub call_id: RequestId,
    /// Who makes it.
    pub client: Client,
    /// When that was looked up.
    pub known: Instant,
    /// The key under which a change is made at most once.
    pub key: Option<IdempotencyKey>,
    /// What becomes of it, for its log event.
    pub trail: Arc<Trail>,
    /// Its place among the calls in flight.
    pub place: Place,
}

/// How long it is known whether records can be written.
const READY: Duration = Duration::from_millis(250);

/// How long it is known whether the upstream answers.
const REACHED: Duration = Duration::from_secs(1);

/// Wallets, their sessions, what is on record, and the way to the upstream.
#[derive(Debug)]
pub struct Proxy {
    actions: &'static [Action],
    senders: BTreeMap<Address, Sender>,
    /// The wallet of clients that are bound to none.
    wallet: Address,
    upstream: Upstream,
    store: Store,
    reservations: Reservations,
    turns: Turns,
    tasks: TaskTracker,
    ending: CancellationToken,
    /// Whether records can be written.
    writable: Probe,
    /// Whether the upstream answers.
    reached: Probe,
    expose_workflow_token: AtomicBool,
}

impl Proxy {
    /// A proxy that signs with `signer`. Nothing is sent before the first call.
    pub fn new(
        signer: Signer,
        upstream: Upstream,
        store: Store,
        expose_workflow_token: bool,
    ) -> Self {
        let wallet = signer.address();
        let sender = Sender::new(signer, upstream.clone(), store.clone());
        let (tasks, ending) = (TaskTracker::new(), CancellationToken::new());
        Self {
            actions: ACTIONS,
            senders: BTreeMap::from([(wallet, sender)]),
            wallet,
            upstream,
            reservations: Reservations::new(store.clone(), tasks.clone(), ending.clone()),
            store,
            turns: Turns::default(),
            tasks,
            ending,
            writable: Probe::new(READY),
            reached: Probe::new(REACHED),
            expose_workflow_token: AtomicBool::new(expose_workflow_token),
        }
    }

    /// The same with another table of calls.
    #[must_use]
    pub fn with_actions(self, actions: &'static [Action]) -> Self {
        Self { actions, ..self }
    }

    /// The same with one more wallet, for clients that are bound to it.
    #[must_use]
    pub fn and_wallet(mut self, signer: Signer) -> Self {
        let sender = Sender::new(signer, self.upstream.clone(), self.store.clone());
        self.senders.entry(sender.wallet()).or_insert(sender);
        self
    }

    /// The calls that it makes.
    pub fn actions(&self) -> &'static [Action] {
        self.actions
    }

    /// The wallets that can sign, the one of clients that are bound to none first.
    pub fn wallets(&self) -> Vec<Address> {
        let mut wallets: Vec<_> = self.senders.keys().copied().collect();
        wallets.sort_by_key(|wallet| (*wallet != self.wallet, *wallet));
        wallets
    }

    /// What the last calls showed of the upstream.
    pub fn upstream_seen(&self) -> Seen {
        self.upstream.seen()
    }

    /// Whether clients see a job's workflow token from now on.
    pub fn expose_workflow_token(&self, expose: bool) {
        self.expose_workflow_token.store(expose, Relaxed);
    }

    /// The wallet that signs for a client.
    pub fn wallet_of(&self, client: &Client) -> Address {
        client.wallet.unwrap_or(self.wallet)
    }

    /// What is on record, for who has to know the clients.
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Whether calls can be made: the process is not ending, and records could be written a quarter
    /// of a second ago or later. So those who ask do not use up the disk.
    pub async fn is_ready(&self) -> bool {
        let probe = async { self.store.probe().await.is_ok() };
        self.writable.ask(probe).await && !self.ending.is_cancelled()
    }

    /// Whether the upstream answers, as was seen a second ago or later.
    pub async fn is_upstream_reached(&self) -> bool {
        self.reached.ask(async { self.upstream.probe().await.is_ok() }).await
    }

    /// The reservations that run, as far as a client may see them: its own, or for an admin all.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn reservations(&self, client: &Client) -> Result<Vec<Reservation>, StoreError> {
        let mut running = self.reservations.running().await?;
        running.retain(|held| client.admin || held.client == client.name.as_str());
        Ok(running)
    }

    /// From now on the proxy is not ready.
    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Waits for the calls that run, also for those of which nobody waits for the answer, and until
    /// everything is on record. No call may begin afterwards.
    pub async fn drained(&self) {
        self.tasks.close();
        self.tasks.wait().await;
        self.flush().await;
    }

    /// Waits until everything so far is on record, in the one file that people copy.
    pub async fn flush(&self) {
        if let Err(error) = self.store.flush().await {
            tracing::error!(%error, "the last records are lost");
        }
        if let Err(error) = self.store.checkpoint().await {
            tracing::warn!(%error, "the -wal file beside the database still belongs to it");
        }
    }

    /// Makes one call and returns the upstream's answer.
    ///
    /// Once it is sent, it runs to its end even if the client goes away, so that a change is not left
    /// without anyone to hear its outcome, and a read keeps its place as long as the upstream is at
    /// work on it. While it waits to be sent, only a change under a key does.
    ///
    /// # Errors
    /// See [`CallError`]; an answer of the upstream is never an error, whatever its status.
    pub async fn call(self: &Arc<Self>, incoming: Incoming) -> Result<Answer, CallError> {
        let (_, result) = self.begin(incoming).await;
        result
    }

    /// The call as work that outlives its client. Apart from [`Proxy::call`], whose future would hold
    /// all of it beside the box that it is in.
    fn begin(self: &Arc<Self>, incoming: Incoming) -> Outliving<(Call, Result<Answer, CallError>)> {
        let proxy = self.clone();
        let running = async move {
            let run = AssertUnwindSafe(proxy.run(&incoming)).catch_unwind();
            let result = run.await.unwrap_or(Err(CallError::Aborted));
            (incoming.call, result)
        };
        Outliving::new(running, &self.tasks, log_unheard)
    }

    async fn run(&self, incoming: &Incoming) -> Result<Answer, CallError> {
        let result = self.run_as_client(incoming).await;
        if let Some(reason) = result.as_ref().err().and_then(CallError::denial) {
            self.store.denied(&self.denial(incoming, reason)).await;
        }
        result
    }

    async fn run_as_client(&self, incoming: &Incoming) -> Result<Answer, CallError> {
        let Incoming { call, client, .. } = incoming;
        let wallet = self.wallet_of(client);
        let sender = self.senders.get(&wallet).ok_or(CallError::WalletNotHeld { wallet })?;
        let now = Timestamp::now();
        client.check(call.action(), wallet, now)?;
        if let Some(named) = call.other_wallet(wallet) {
            return Err(CallError::other_wallet(named, wallet));
        }
        self.make(incoming, sender).await
    }

    fn denial(&self, incoming: &Incoming, reason: &'static str) -> Denial {
        let Incoming { call, client, call_id, .. } = incoming;
        Denial {
            call_id: call_id.clone(),
            caller: Caller::Client(client.name.clone()),
            wallet: Some(self.wallet_of(client)),
            action: call.action().name,
            product: call.product().cloned(),
            reason,
        }
    }
}

/// A client that goes away gets no answer, and the log event of its request does not know what became
/// of the call: this one does.
fn log_unheard((call, result): (Call, Result<Answer, CallError>)) {
    let (action, path) = (call.action().name, call.path());
    match result {
        Ok(answer) => {
            let status = answer.status.as_u16();
            tracing::warn!(action, path, status, "the client went away before its answer");
        }
        Err(error) => {
            tracing::warn!(action, path, %error, "the client went away before its answer")
        }
    }
}
