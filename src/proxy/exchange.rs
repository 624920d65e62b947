//! One call with the upstream, with as many tries as it needs and may have.

use std::sync::atomic::Ordering::Relaxed;

use futures_util::future::join;
use http::HeaderValue;
use jiff::Timestamp;
use tokio::time::{Instant, sleep, timeout};

use super::{
    CallError, Incoming, Proxy,
    settle::{Earlier, Lost, Settled, is_silent},
};
use crate::{
    action::{self, Action, Effect, Lookup, Needs},
    call::Call,
    canonical::CanonicalJson,
    clock,
    job_status::JobStatus,
    policy::{Denied, Permit, SignedPermit},
    reservation::{self, RESERVATION_ID, Reserved},
    retry::{Next, Outcome, Tries},
    sender::{Origin, Sender, Try},
    store::{Opening, Pending, StoreError},
    types::{Address, Slug},
    upstream::Answer,
};

/// A permitted call on its way.
pub(super) struct Exchange<'a> {
    pub(super) permit: Permit,
    pub(super) sender: &'a Sender,
    pub(super) origin: Origin,
    /// When it has to be over.
    pub(super) deadline: Instant,
}

/// What will show the upstream that the call may be made.
enum Proof<'a> {
    None,
    Signature(SignedPermit<'a>),
    WorkflowToken(HeaderValue),
}

/// A call that a client asks for, as it is made.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) incoming: &'a Incoming,
    pub(super) sender: &'a Sender,
    /// With what was filled in.
    pub(super) call: &'a Call,
    /// The key that it has claimed.
    pub(super) key: Option<&'a str>,
}

impl Proxy {
    /// Finds out what became of an earlier try of a call, on which the upstream may be at work until
    /// `quiet`.
    ///
    /// # Errors
    /// Nobody can tell whether it took effect.
    pub(super) async fn settle_earlier(
        &self,
        asked: Asked<'_>,
        quiet: Timestamp,
    ) -> Result<Settled, CallError> {
        let Asked { incoming: Incoming { client, .. }, sender, call, .. } = asked;
        // The earlier try was permitted, so the client held the job then. If its time ends just now, the
        // call stays in doubt.
        let now = Timestamp::now();
        let permit = client.permit(call.clone(), sender.wallet(), Some(&client.name), now);
        let left_in_doubt = |_| CallError::unknown(JobStatus::default(), Some(quiet));
        let permit = permit.map_err(left_in_doubt)?;
        match self.settle(&Exchange::new(asked, permit), quiet).await {
            // If it is the reservation that is held already, its instructions may be lost all the same.
            Err(CallError::OutcomeUnknown { seen, .. })
                if seen.took_effect(call.action().effect) == Some(true) =>
            {
                Ok(Settled::Reserved(Lost::new(seen, quiet)))
            }
            settled => settled,
        }
    }

    /// Makes a call if the client may.
    pub(super) async fn perform(
        &self,
        asked: Asked<'_>,
        earlier: Option<Earlier>,
    ) -> Result<Answer, CallError> {
        let Asked { incoming, sender, call, .. } = asked;
        let client = &incoming.client;
        let (wallet, now) = (sender.wallet(), Timestamp::now());
        // Whether a job can be reserved is decided as the reserve is counted.
        let Action { needs, effect, .. } = call.action();
        let asks_holder = !client.admin && *needs != Needs::Nothing && *effect != Effect::Reserves;
        let holder = match call.job() {
            Some(job) if asks_holder => self.store.holder(wallet, job, &client.name, now).await?,
            _ => None,
        };
        let mut permit = client.permit(call.clone(), wallet, holder.as_ref(), now)?;
        self.complete(&mut permit).await?;
        let pending = self.open(&permit, now).await?;
        let result = self.exchange(Exchange::new(asked, permit), earlier).await;
        if let Some(pending) = pending {
            self.close(pending, &result).await;
        }
        if result.is_ok() {
            self.check_still(incoming, wallet).await?;
        }
        Ok(self.without_tokens(incoming.call.action(), result?))
    }

    /// A token that comes with another answer than one to a reserve is none for clients either.
    fn without_tokens(&self, action: &Action, mut answer: Answer) -> Answer {
        let is_kept = action.effect == Effect::Reserves && answer.status.is_success();
        if !is_kept
            && !self.expose_workflow_token.load(Relaxed)
            && let Some(body) = reservation::without_tokens(&answer.body)
        {
            answer.body = body;
        }
        answer
    }

    /// What the upstream tells of a job may be for its holder alone, and who holds it may have changed
    /// while it was asked: what another client may see was not let through for this one.
    async fn check_still(&self, incoming: &Incoming, wallet: Address) -> Result<(), CallError> {
        let Incoming { call, client, .. } = incoming;
        let is_shown = |action: &Action| action.needs != Needs::Nothing && !action.changes();
        let Some(job) = call.job().filter(|_| !client.admin && is_shown(call.action())) else {
            return Ok(());
        };
        match self.store.holder(wallet, job, &client.name, Timestamp::now()).await? {
            Some(holder) if holder != client.name => {
                Err(CallError::HeldMeanwhile { job: job.clone() })
            }
            _ => Ok(()),
        }
    }

    /// Tries until there is an answer, or no time left.
    async fn exchange(
        &self,
        exchange: Exchange<'_>,
        mut earlier: Option<Earlier>,
    ) -> Result<Answer, CallError> {
        let Exchange { permit, sender, deadline, .. } = &exchange;
        let changes = permit.call().action().changes();
        let proof = self.proof(permit).await?;
        let is_replay = earlier.is_some();
        let last_try = sender.upstream().last_try(changes, *deadline);
        let patience = sender.upstream().patience();
        let method = &permit.call().action().method;
        let tries = Tries::new(changes, last_try).with_patience(patience).told_soon();
        let mut tries = tries.of_method(method);
        loop {
            let tried = match (exchange.try_once(&proof, last_try).await, earlier) {
                (Err(_), Some(Earlier::Reserved(lost))) if !is_replay => {
                    return Err(self.instructions_lost(permit, lost).await);
                }
                (tried, before) => {
                    earlier = before;
                    tried?
                }
            };
            let mut next = tries.next(&tried.outcome, Instant::now());
            if let Next::Again(pause) = next {
                // What waits to be sent is dropped when the process ends.
                if timeout(pause, self.ending.cancelled()).await.is_ok() && !pause.is_zero() {
                    next = Next::Return;
                }
            }
            match next {
                Next::Return => {
                    let ended = self.answered(permit, tried.outcome).await;
                    return match earlier {
                        Some(earlier) => Box::pin(self.undoubted(&exchange, ended, earlier)).await,
                        None => ended,
                    };
                }
                Next::Again(_) => {}
                Next::Renew => tried.nonce.iter().for_each(|nonce| sender.forget(nonce)),
                Next::Settle => {
                    let settle_time = sender.upstream().settle_time(is_silent(&tried.outcome));
                    let quiet = clock::now() + settle_time;
                    let kept = self.prolong(&exchange, quiet);
                    let settled = join(self.settle(&exchange, quiet), kept);
                    let settled = Box::pin(settled).await.0;
                    if is_borne_out(permit, &tried.outcome, &settled) {
                        return self.answered(permit, tried.outcome).await;
                    }
                    let next = tries.pause(Instant::now());
                    let had_reserved = matches!(earlier, Some(Earlier::Reserved(_)));
                    earlier = Some(match (settled?, &next) {
                        (Settled::Submitted(answer), _) => return Ok(answer),
                        (Settled::NotMade(_), Next::Again(_)) => Earlier::InDoubt(quiet),
                        (Settled::NotMade(seen), _) => {
                            return Err(CallError::unknown(seen, Some(quiet)));
                        }
                        // To reserve once more may bring the instructions.
                        (Settled::Reserved(lost), Next::Again(_)) if !had_reserved => {
                            Earlier::Reserved(lost)
                        }
                        (Settled::Reserved(lost), _) => {
                            return Err(self.instructions_lost(permit, lost).await);
                        }
                    });
                    if let Next::Again(pause) = next {
                        sleep(pause).await;
                    }
                }
            }
        }
    }

    /// Has whoever takes over the key of a change, should this process end, wait as long.
    async fn prolong(&self, exchange: &Exchange<'_>, quiet: Timestamp) {
        let Some(key) = &exchange.origin.key else { return };
        let client = exchange.permit.client().as_str();
        if let Err(error) = self.store.prolong(client, key, quiet).await {
            tracing::error!(%error, "how long a change may be under way is not on record");
        }
    }

    /// Adds what the proxy knows of the reservation: a completion that lacks its `reservation_id` gets
    /// it. Whether one comes too late the upstream decides, as this machine's clock may be wrong.
    async fn complete(&self, permit: &mut Permit) -> Result<(), CallError> {
        let call = permit.call();
        let Some(job) = call.job().filter(|_| call.action().effect == Effect::Submits).cloned()
        else {
            return Ok(());
        };
        let given = call.body().field(RESERVATION_ID).cloned();
        let Some(held) = self.reservations.of(permit.wallet(), &job).await? else {
            return self.check_not_submitted(permit, &job).await;
        };
        let id = held.reservation_id.as_deref().map(CanonicalJson::string);
        if let (None, Some(id)) = (given, id) {
            permit.fill_in(RESERVATION_ID, id);
        }
        Ok(())
    }

    /// A call that needs a reservation does not go up once the proof of the job was submitted, unless
    /// it names another reservation than that was for.
    async fn check_not_submitted(&self, permit: &Permit, job: &Slug) -> Result<(), CallError> {
        let submission = self.reservations.submission(permit.wallet(), job).await?;
        let Some(submission) = submission else { return Ok(()) };
        let given = permit.call().body().field(RESERVATION_ID).cloned();
        let own = submission.reservation_id.as_deref().map(CanonicalJson::string);
        if given.is_some() && given != own {
            return Ok(());
        }
        Err(Denied::Submitted { job: job.clone() }.into())
    }

    /// Counts a reserve before it is sent, where there are clients to count for.
    async fn open(&self, permit: &Permit, now: Timestamp) -> Result<Option<Pending>, CallError> {
        let call = permit.call();
        let Some(job) = call.job().filter(|_| call.action().effect == Effect::Reserves) else {
            return Ok(None);
        };
        if permit.client().is_local() {
            return Ok(None);
        }
        match self.store.open_reservation(permit, job, now).await? {
            Opening::Opened(pending) => Ok(Some(pending)),
            Opening::Held => Err(Denied::Holder { job: job.clone() }.into()),
            Opening::TooMany { running, until } => {
                Err(CallError::TooManyReservations { running, until })
            }
        }
    }

    /// Ends the count of a reserve, unless it may have succeeded without a reservation to show for it.
    async fn close(&self, pending: Pending, result: &Result<Answer, CallError>) {
        if result.as_ref().is_err_and(CallError::may_have_had_effect) {
            return;
        }
        let past = result.as_ref().map_or(Timestamp::MIN, Answer::past);
        if let Err(error) = self.store.drop_pending(pending, past).await {
            tracing::warn!(%error, "a reserve that has ended still counts");
        }
    }

    /// What will show the upstream that the call may be made.
    async fn proof<'a>(&self, permit: &'a Permit) -> Result<Proof<'a>, CallError> {
        if let Some(signed) = permit.signed() {
            return Ok(Proof::Signature(signed));
        }
        if permit.call().action().proof == action::Proof::None {
            return Ok(Proof::None);
        }
        let job = permit.call().job().ok_or(CallError::Aborted)?;
        let reservation = self.reservations.of(permit.wallet(), job).await?;
        let token = reservation.as_ref().and_then(reservation::token_header);
        let Some(token) = token else {
            self.check_not_submitted(permit, job).await?;
            return Err(CallError::NoWorkflowToken { job: job.clone() });
        };
        Ok(Proof::WorkflowToken(token))
    }

    /// The end of a call, and what is remembered of it.
    async fn answered(&self, permit: &Permit, outcome: Outcome) -> Result<Answer, CallError> {
        let answer = match outcome {
            Outcome::Answered(answer, _) => answer,
            Outcome::NoSession(error) => return Err(error.into()),
            Outcome::NoAnswer(error) => return Err(error.into()),
            Outcome::Abandoned => return Err(CallError::Abandoned),
        };
        let call = permit.call();
        match (call.action().effect, call.job()) {
            (Effect::Reserves, Some(job)) if answer.status.is_success() => {
                Ok(Box::pin(self.keep_reservation(permit, job, answer)).await)
            }
            (Effect::Submits, Some(job)) if answer.status.is_success() => {
                Box::pin(self.reservations.submitted(permit, job, answer.past())).await;
                Ok(answer)
            }
            _ => Ok(answer),
        }
    }

    /// Remembers a reservation and withholds its workflow token.
    async fn keep_reservation(&self, permit: &Permit, job: &Slug, mut answer: Answer) -> Answer {
        let reserved = Reserved::parse(&answer.body);
        if !reserved.is_as_expected {
            tracing::warn!(
                %job,
                "the answer to a reserve is not the JSON that was expected; what could be found in \
                 it is remembered, and whatever stands behind access_token is withheld"
            );
        }
        let client = permit.client().to_string();
        let (job, ahead) = (job.clone(), answer.clock_ahead);
        let reservation = reserved.reservation(job, permit.wallet(), client, ahead);
        self.reservations.keep(reservation, answer.past()).await;
        let exposes = self.expose_workflow_token.load(Relaxed);
        if let Some(body) = reserved.without_token.filter(|_| !exposes) {
            answer.body = body;
        }
        answer
    }
}

impl<'a> Exchange<'a> {
    fn new(asked: Asked<'a>, permit: Permit) -> Self {
        let Asked { incoming, sender, call, key } = asked;
        let Incoming { known, call_id, trail, .. } = incoming;
        let changes = call.action().changes();
        let origin = Origin {
            call_id: call_id.clone(),
            key: key.map(str::to_owned),
            is_fetched_later: changes && incoming.key.is_some(),
            trail: Some(trail.clone()),
            known: *known,
        };
        Self { permit, sender, origin, deadline: sender.upstream().deadline(changes) }
    }

    async fn try_once(&self, proof: &Proof<'_>, last_try: Instant) -> Result<Try, StoreError> {
        let changes = self.permit.call().action().changes();
        let deadline = self.sender.upstream().one_try(changes, last_try);
        match proof {
            Proof::Signature(signed) => {
                self.sender.try_signed(*signed, &self.origin, deadline).await
            }
            Proof::None => self.try_unsigned(None, deadline).await,
            Proof::WorkflowToken(token) => self.try_unsigned(Some(token.clone()), deadline).await,
        }
    }

    async fn try_unsigned(
        &self,
        token: Option<HeaderValue>,
        deadline: Instant,
    ) -> Result<Try, StoreError> {
        let sent = self.sender.try_unsigned(&self.permit, token, &self.origin, deadline);
        Box::pin(sent).await
    }
}

/// Whether a good answer that is no JSON is the upstream's all the same: the change took effect, or
/// is one of which nobody can tell more.
fn is_borne_out(permit: &Permit, outcome: &Outcome, settled: &Result<Settled, CallError>) -> bool {
    let is_good = matches!(outcome, Outcome::Answered(answer, _) if answer.status.is_success());
    let took_effect = matches!(settled, Ok(Settled::Submitted(_) | Settled::Reserved(_)));
    let is_unseen = permit.call().action().lookup == Lookup::None;
    is_good && (took_effect || is_unseen && settled.is_err())
}
