//! The flow of one call, from an unsigned request to the upstream's answer, whatever breaks between.

mod admit;
mod attempts;
mod detached;
mod error;
mod finish;
mod in_flight;
mod probe;
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
use tokio::time::{Instant, sleep};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{
    admit::{Admission, Admitted, Evidence},
    error::{CallError, Unauthenticated},
    in_flight::{InFlightPermit, Overloaded},
};
use self::{
    attempts::Attempts,
    detached::Detached,
    finish::{Found, replayed},
    in_flight::InFlight,
    probe::Probe,
    settle::{Earlier, Settled},
};
use crate::{
    action::{ACTIONS, Action, Needs, Proof},
    call::{Call, RESERVATION_ID},
    clock::Moment,
    operation::Operation,
    policy::{Client, Denied},
    reservation,
    retry::{Next, Tries},
    sender::Sender,
    signer::Signer,
    store::{Begun, Claim, Denial, Grant, Reservation, Started, Store, StoreError},
    trace::Step,
    types::Address,
    upstream::{Answer, Seen, Upstream},
};

/// How many calls may be in flight unless it is said.
const IN_FLIGHT: usize = 1024;

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
    in_flight: InFlight,
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
        let in_flight = InFlight::default();
        in_flight.set_most(IN_FLIGHT);
        Self {
            actions: ACTIONS,
            senders: BTreeMap::from([(wallet, sender)]),
            wallet,
            upstream,
            store,
            in_flight,
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

    /// How many calls may be in flight from now on.
    pub fn set_max_in_flight(&self, most: usize) {
        self.in_flight.set_most(most);
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
        let mut running = self.store.reservations(Timestamp::now()).await?;
        running.retain(|held| client.admin || held.client == client.id);
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
    pub async fn call(
        self: &Arc<Self>,
        admitted: Admitted,
        call: Call,
    ) -> Result<Answer, CallError> {
        let (_, result) = self.detached(admitted, call).await;
        result
    }

    /// The call as work that goes on when its client goes away. Apart from [`Proxy::call`], whose future
    /// would hold all of it beside the box that it is in.
    fn detached(
        self: &Arc<Self>,
        admitted: Admitted,
        call: Call,
    ) -> Detached<(Call, Result<Answer, CallError>)> {
        let proxy = self.clone();
        let running = async move {
            let Admitted { admission, client, known_at, permit: _permit } = admitted;
            let Admission { key, trace, .. } = admission;
            let wallet = proxy.wallet_of(&client);
            let deadline = proxy.upstream.deadline(call.action().changes());
            let mut operation = Operation { call, client, wallet, key, known_at, deadline, trace };
            let run = AssertUnwindSafe(proxy.run(&mut operation)).catch_unwind();
            let result = run.await.unwrap_or(Err(CallError::Aborted));
            (operation.call, result)
        };
        Detached::new(running, &self.tasks, log_unheard)
    }

    async fn run(self: &Arc<Self>, operation: &mut Operation) -> Result<Answer, CallError> {
        let result = self.make(operation).await;
        if let Some(reason) = result.as_ref().err().and_then(CallError::denial) {
            self.store.denied(&Denial::of(operation, reason)).await;
        }
        result
    }

    /// The flow of one call.
    async fn make(self: &Arc<Self>, operation: &mut Operation) -> Result<Answer, CallError> {
        let wallet = operation.wallet;
        let sender = self.senders.get(&wallet).ok_or(CallError::WalletNotHeld { wallet })?;
        if let Some(named) = operation.call.other_wallet(wallet) {
            return Err(CallError::other_wallet(named, wallet));
        }
        let begun = self.begin(operation).await?;
        operation.trace.tell(Step::Begun);
        let Started { grant, doubt, claim } = match begun {
            Begun::Started(started) => *started,
            Begun::Answered(answer) => return Ok(replayed(answer)),
            Begun::Denied(denied) => return Err(denied.into()),
            Begun::KeyReused => return Err(CallError::KeyReused),
            Begun::Running => return Err(CallError::KeyInUse),
        };
        if let Some(id) = grant.as_ref().ok().and_then(|grant| grant.reservation_id.clone()) {
            operation.call.fill_in(RESERVATION_ID, id);
        }
        // What may be made twice is made again, as nothing would show what became of it.
        let doubt = doubt.filter(|_| !operation.action().method.is_idempotent());
        let settled = match doubt {
            Some(doubt) => Some(self.settle_earlier(operation, sender, &claim, doubt).await),
            None => None,
        };
        let was_reserved = matches!(settled, Some(Ok(Settled::Reserved(_))));
        let is_other = doubt.is_some_and(|doubt| doubt.is_other)
            && matches!(settled, Some(Ok(Settled::Submitted(_))));
        let result = match settled.transpose() {
            Ok(Some(Settled::Submitted(answer))) => Ok(answer),
            Ok(earlier) => self.perform(operation, sender, grant, earlier, &claim).await,
            Err(error) => Err(error),
        };
        let earlier = Found { was_reserved, is_other };
        let result = self.finish(operation, claim, result, earlier).await;
        match operation.job().filter(|_| is_other) {
            Some(job) => Err(Denied::Submitted { job: job.clone() }.into()),
            None => result,
        }
    }

    /// Makes the call, if its client may.
    async fn perform(
        &self,
        operation: &Operation,
        sender: &Sender,
        grant: Result<Grant, Denied>,
        earlier: Option<Settled>,
        claim: &Claim,
    ) -> Result<Answer, CallError> {
        let Operation { call, client, wallet, .. } = operation;
        let grant = grant?;
        let permit = &client.permit(call.clone(), *wallet, grant.holder, Timestamp::now())?;
        let workflow_token = match (operation.job(), &call.action().proof) {
            (Some(job), Proof::WorkflowToken) => {
                let token = grant.reservation.as_ref().and_then(reservation::token_header);
                Some(token.ok_or_else(|| CallError::NoWorkflowToken { job: job.clone() })?)
            }
            _ => None,
        };
        let attempts = Attempts { operation, permit, sender, claim, workflow_token };
        let answer = self.attempt(&attempts, earlier.and_then(Earlier::of)).await?;
        self.check_still(operation).await?;
        Ok(answer)
    }

    /// What the upstream tells of a job may be for its holder alone, and who holds it may have changed
    /// while it was asked: what another client may see was not let through for this one.
    async fn check_still(&self, operation: &Operation) -> Result<(), CallError> {
        let Operation { client, wallet, .. } = operation;
        let action = operation.action();
        let is_shown = action.needs != Needs::Nothing && !action.changes() && !client.admin;
        let Some(job) = operation.job().filter(|_| is_shown) else { return Ok(()) };
        match self.store.holder(*wallet, job, client.id, Timestamp::now()).await? {
            Some(holder) if holder != client.id => {
                Err(CallError::HeldMeanwhile { job: job.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Begins the call, which waits while another process is at work on the same.
    async fn begin(&self, operation: &Operation) -> Result<Begun, StoreError> {
        if !self.store.decides(operation) {
            return Ok(Begun::Started(Box::default()));
        }
        let mut pauses = Tries::new(false, operation.deadline);
        loop {
            let begun = self.store.begin(operation, Moment::now()).await?;
            match pauses.pause(Instant::now()) {
                Next::Again(pause) if matches!(begun, Begun::Running) => sleep(pause).await,
                _ => return Ok(begun),
            }
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
