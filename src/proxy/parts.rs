//! The parts that calls are made with: put together at the start, drained at the end.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderName;
use jiff::Timestamp;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    feed::Feed,
    in_flight::{InFlight, InFlightPermit, Overloaded},
    job_queue::JobQueues,
    prices::Prices,
    probe::Probe,
    reviews::Reviews,
};
use crate::{
    action::{ACTIONS, Action, Proof},
    operation::Operation,
    payment::Spending,
    policy::Client,
    sender::Sender,
    signer::Signer,
    store::{Reservation, Store, StoreError},
    types::Address,
    upstream::{Seen, Upstream},
};

/// The header of an answer that stands for one that was lost; its value is the call that was answered.
pub(crate) const ANSWER_HEADER: HeaderName = HeaderName::from_static("x-agentpmt-proxy-answer");

/// How many calls may be in flight unless it is said.
const IN_FLIGHT: usize = 1024;

/// How many requests may wait for each call that may be in flight.
const WAITING: usize = 4;

/// How long it is known whether records can be written.
const READY: Duration = Duration::from_millis(250);

/// How long it is known whether the upstream answers.
const REACHED: Duration = Duration::from_secs(1);

/// Wallets, their sessions, what is on record, and the way to the upstream.
#[derive(Debug)]
pub struct Proxy {
    actions: &'static [Action],
    pub(super) senders: BTreeMap<Address, Sender>,
    /// The default wallet, for clients without one of their own.
    pub(super) wallet: Address,
    pub(super) upstream: Upstream,
    pub(super) store: Store,
    pub(super) prices: Prices,
    pub(super) in_flight: InFlight,
    /// The permits of requests that wait, so that those take none from calls.
    waiting: InFlight,
    /// The reviews that clients wait for.
    pub(super) reviews: Reviews,
    /// The events that clients listen for.
    pub(super) feed: Feed,
    pub(super) queues: JobQueues,
    pub(super) tasks: TaskTracker,
    pub(super) ending: CancellationToken,
    /// Whether records can be written.
    writable: Probe,
    /// Whether the upstream answers.
    reached: Probe,
    pub(super) expose_workflow_token: AtomicBool,
    /// The policy of payments; without it, nothing is paid.
    pub(super) spending: Option<Arc<Spending>>,
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
        let proxy = Self {
            actions: ACTIONS,
            senders: BTreeMap::from([(wallet, sender)]),
            wallet,
            upstream,
            store,
            prices: Prices::default(),
            in_flight: InFlight::default(),
            waiting: InFlight::default(),
            reviews: Reviews::default(),
            feed: Feed::default(),
            queues: JobQueues::default(),
            tasks,
            ending,
            writable: Probe::new(READY),
            reached: Probe::new(REACHED),
            expose_workflow_token: AtomicBool::new(expose_workflow_token),
            spending: None,
        };
        proxy.set_max_in_flight(IN_FLIGHT);
        proxy
    }

    /// The same with a policy under which it pays.
    #[must_use]
    pub fn with_spending(self, spending: Option<Spending>) -> Self {
        Self { spending: spending.map(Arc::new), ..self }
    }

    /// The policy under which it pays, if it pays.
    pub fn spending(&self) -> Option<&Spending> {
        self.spending.as_deref()
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

    /// The policy under which the proxy pays for a call; none for one whose client pays, or asks after a
    /// transaction.
    pub(super) fn pays_for(&self, operation: &Operation) -> Option<&Arc<Spending>> {
        let call = &operation.call;
        let is_paid = call.action().proof == Proof::Payment && call.payment().is_none();
        self.spending.as_ref().filter(|_| is_paid && !call.asks_after_transaction())
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

    /// How many sessions each wallet has begun.
    pub(super) fn sessions_begun(&self) -> BTreeMap<Address, u64> {
        self.senders.iter().map(|(wallet, sender)| (*wallet, sender.sessions_begun())).collect()
    }

    /// The state of the upstream, by the last calls.
    pub fn upstream_seen(&self) -> Seen {
        self.upstream.seen()
    }

    /// Whether clients see a job's workflow token from now on.
    pub fn expose_workflow_token(&self, expose: bool) {
        self.expose_workflow_token.store(expose, Relaxed);
    }

    /// How many calls may be in flight from now on; four times as many requests may wait.
    pub fn set_max_in_flight(&self, most: usize) {
        self.in_flight.set_most(most);
        self.waiting.set_most(most.saturating_mul(WAITING));
    }

    /// Takes a permit for a request that waits for a change upstream. Meanwhile it needs no other.
    ///
    /// # Errors
    /// Too many wait.
    pub fn wait_permit(&self, client: &Client) -> Result<InFlightPermit, Overloaded> {
        self.waiting.take(&client.name).map_err(|_| Overloaded::Waiting)
    }

    /// The wallet that signs for a client.
    pub fn wallet_of(&self, client: &Client) -> Address {
        client.wallet.unwrap_or(self.wallet)
    }

    /// The ledger, for callers that have to know the clients.
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
        let mut running = self.store.reservations(Timestamp::now()).await?;
        running.retain(|held| client.admin || held.client == client.id);
        Ok(running)
    }

    /// From now on the proxy is not ready.
    pub fn end(&self) {
        self.ending.cancel();
    }

    /// Waits for the calls that run, also for those whose clients went away, and until
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
}
