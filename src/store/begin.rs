//! The first moment of a call: whether it goes on, decided on rate, keys and job together.

use tokio::time::Instant;

use super::{
    callers::access_ended,
    client_rows, credit_rows,
    db::Db,
    error::{Fault, StoreError},
    handle::{Inner, Store},
    holding::{Holds, running},
    keys::{Doubt, Key, Keys, Standing},
    locks::Locked,
    reservations::{Reservation, holds, holds_of, insert_pending, reservation},
    stored_answer::StoredAnswer,
};
use crate::{
    action::{Effect, Needs, Proof},
    call::RESERVATION_ID,
    clock::Moment,
    json::CanonicalJson,
    operation::Operation,
    policy::{CreditLimit, Denied},
    types::{ClientId, Slug},
};

/// The ledger's answer to a call before anything of it is signed.
#[derive(Debug)]
pub enum Begun {
    /// The call was made before under its key, and answered so.
    Answered(StoredAnswer),
    /// Another request or process is at work on the same call.
    Running,
    /// Its key belongs to another call.
    KeyReused,
    /// It must not be made.
    Denied(Denied),
    /// It goes on.
    Started(Box<Started>),
}

/// A call that goes on, until [`Store::finish`].
#[derive(Debug)]
pub struct Started {
    /// The state of its job, or why it may not be made anew: that only if there is a `doubt` to settle.
    pub grant: Result<Grant, Denied>,
    /// The earlier attempt under its key that may have taken effect.
    pub doubt: Option<Doubt>,
    /// The keys and rows that it holds in the ledger.
    pub claim: Claim,
}

/// The state of the job of a call that may be made.
#[derive(Debug, Default)]
pub struct Grant {
    /// The client that holds it.
    pub holder: Option<ClientId>,
    /// The id of the reservation that a completion is for, if the client did not name it.
    pub reservation_id: Option<CanonicalJson>,
    /// The reservation, for a call that needs its workflow token.
    pub reservation: Option<Reservation>,
}

/// The keys and rows that a call holds until its end. If it is dropped before, as by a panic, its keys are free
/// at once, and in doubt if it was sent.
#[derive(Debug, Default)]
#[must_use = "a call that has begun is to be finished"]
pub struct Claim {
    /// The key that shows whether the call was sent.
    pub(super) key: Option<Key>,
    /// The client's key of a completion, which only keeps the answer.
    pub(super) alias: Option<Key>,
    /// The row that counts a reserve.
    pub(super) pending: Option<i64>,
    /// The hold of the credits that it may be charged.
    pub(super) credits: Option<i64>,
    /// Keeps the keys from other calls of this process.
    pub(super) locked: Option<Locked>,
}

impl Store {
    /// Begins a call: counts a change against its client's rate, claims its keys, and finds out whether it
    /// may be made on its job. All is decided in one step, for all processes on this file, and on the disk
    /// when this returns. It waits until the deadline for calls of this process with the same key.
    ///
    /// # Errors
    /// It could not be written, or the client's access has ended; nothing may be sent, and all is left as
    /// it was.
    pub async fn begin(&self, operation: &Operation, now: Moment) -> Result<Begun, StoreError> {
        let is_written = is_keyed(operation) || is_counted(operation);
        if !is_written && !asks(operation) {
            return Ok(Begun::Started(Box::default()));
        }
        let (given, job) = (Key::given(operation), operation.job());
        let names: Vec<_> = given.iter().map(Key::lock_name).chain(job_lock(operation)).collect();
        let Some(locked) = self.0.locks.lock(names, operation.deadline).await else {
            return Ok(Begun::Running);
        };
        if is_keyed(operation) {
            // Others see by it that this process lives.
            self.show_alive()?;
        }
        let unsaved = job.and_then(|job| self.unsaved(operation.wallet, job));
        let beginning = Beginning { operation: operation.clone(), given, unsaved, now };
        let inner = self.0.clone();
        let decide = move |db: &Db| {
            let client = &beginning.operation.client;
            if access_ended(db, client.id, now.wall)? {
                return Err(Fault::AccessEnded);
            }
            let Some(rate) = client.rate.filter(|_| beginning.operation.action().changes()) else {
                return beginning.decide(&inner, db);
            };
            let last = client_rows::arrival(db, client.id)?;
            let arrival = match rate.admit(last, now.wall) {
                Err(wait) => {
                    inner.arrivals.learn(client.id, last);
                    return Ok(Begun::Denied(client.too_fast(rate, wait)));
                }
                Ok(arrival) => arrival,
            };
            let begun = beginning.decide(&inner, db)?;
            // A call that has to begin again is counted when it does.
            if !matches!(begun, Begun::Running) {
                client_rows::set_arrival(db, client.id, arrival)?;
            }
            Ok(begun)
        };
        let mut begun = if is_written {
            self.write(decide).await?
        } else {
            self.follow_clock().await;
            self.read(decide).await?
        };
        if let Begun::Started(started) = &mut begun {
            started.claim.locked = Some(locked);
        }
        Ok(begun)
    }
}

/// The name of the lock of a completion: the same whatever reservation it names.
fn job_lock(operation: &Operation) -> Option<String> {
    let job = operation.job().filter(|_| operation.is_completion())?;
    Some(format!("completion {} {}", operation.wallet, job.as_str().to_ascii_lowercase()))
}

impl Default for Started {
    fn default() -> Self {
        Self { grant: Ok(Grant::default()), doubt: None, claim: Claim::default() }
    }
}

/// A call that is about to begin.
struct Beginning {
    operation: Operation,
    given: Option<Key>,
    /// The reservation of its job, if that is not on record yet.
    unsaved: Option<Reservation>,
    now: Moment,
}

/// Whether a call has a key, of its client or as a completion.
fn is_keyed(operation: &Operation) -> bool {
    operation.change_key().is_some() || operation.is_completion()
}

/// Whether something is written for a call even without a key.
fn is_counted(operation: &Operation) -> bool {
    let is_limited = operation.client.rate.is_some();
    let is_counted = is_limited && operation.action().changes();
    is_counted || counts_reserve(operation) || credit_limit(operation).is_some()
}

/// Whether a call is a reserve, and there are other clients to count it for.
fn counts_reserve(operation: &Operation) -> bool {
    reserves(operation) && operation.client.id != ClientId::LOCAL
}

/// The limit of the credits that a call may spend.
fn credit_limit(operation: &Operation) -> Option<CreditLimit> {
    let spends = operation.action().effect == Effect::Spends;
    operation.client.max_credits.filter(|_| spends)
}

/// Whether something has to be known of the job of a call.
fn asks(operation: &Operation) -> bool {
    let is_asked = operation.action().needs != Needs::Nothing;
    operation.job().is_some() && is_asked && !operation.client.admin || needs_token(operation)
}

fn reserves(operation: &Operation) -> bool {
    operation.action().effect == Effect::Reserves
}

fn needs_token(operation: &Operation) -> bool {
    operation.action().proof == Proof::WorkflowToken
}

impl Beginning {
    /// Whether the call goes on, as far as its keys and its job tell.
    fn decide(&self, inner: &Inner, db: &Db) -> Result<Begun, Fault> {
        let (keys, now) = (inner.keys(db), self.now);
        let mut doubt =
            match self.given.as_ref().map(|key| keys.standing(key, now.steady)).transpose()? {
                None | Some(Standing::Free) => None,
                Some(Standing::InDoubt(doubt)) => Some(doubt),
                Some(Standing::Answered(answer)) => return Ok(Begun::Answered(answer)),
                Some(Standing::Running) => return Ok(Begun::Running),
                Some(Standing::OfAnother) => return Ok(Begun::KeyReused),
            };
        let mut claim = Claim { key: self.given.clone(), ..Claim::default() };
        let job = self.operation.job();
        let find = |job| holds(db, self.operation.wallet, job, self.unsaved.as_ref());
        let holds = job.map_or(Ok(Holds::default()), find)?;
        let grant = |job| self.grant(inner, db, job, &holds);
        let mut grant = job.map_or(Ok(Ok(Grant::default())), grant)?;
        if let Some(job) = job.filter(|_| self.operation.is_completion() && grant.is_ok()) {
            let named = self.operation.call.body().field(RESERVATION_ID);
            let (own, standing) = self.own_key(&keys, &holds, named)?;
            match standing {
                Standing::Free => {}
                Standing::InDoubt(own) => doubt = Some(own),
                Standing::Answered(answer) => return self.answer_again(&keys, answer),
                Standing::Running => return Ok(Begun::Running),
                Standing::OfAnother => {
                    return Ok(Begun::Denied(Denied::Submitted(job.clone())));
                }
            }
            // Its own key shows whether the proof was sent; the client's only keeps the answer.
            (claim.alias, claim.key) = (claim.key.take(), Some(own));
            if holds.is_submitted(named) {
                grant = Err(Denied::Submitted(job.clone()));
            }
        }
        match (&grant, job) {
            (Err(denied), _) if doubt.is_none() => return Ok(Begun::Denied(denied.clone())),
            (Ok(_), Some(job)) if counts_reserve(&self.operation) => {
                let Operation { client, wallet, .. } = &self.operation;
                claim.pending = Some(insert_pending(db, *wallet, client, job, now.wall)?);
            }
            _ => {}
        }
        // Where an earlier attempt is in doubt, its hold stays, and the call is not made.
        if let Some(limit) = credit_limit(&self.operation).filter(|_| doubt.is_none()) {
            match self.hold_credits(db, limit)? {
                Ok(hold) => claim.credits = Some(hold),
                Err(denied) => return Ok(Begun::Denied(denied)),
            }
        }
        for (key, doubt) in [(&claim.key, doubt), (&claim.alias, None)] {
            key.as_ref().map_or(Ok(()), |key| keys.claim(key, doubt, now.steady))?;
        }
        Ok(Begun::Started(Box::new(Started { grant, doubt, claim })))
    }

    /// The key of a completion for the reservation that it names, or else for the one that is known, and how
    /// that key stands.
    fn own_key(
        &self,
        keys: &Keys<'_>,
        holds: &Holds,
        named: Option<&CanonicalJson>,
    ) -> Result<(Key, Standing), Fault> {
        let known = || holds.reservation_id().map(CanonicalJson::string);
        let reservation = named.cloned().or_else(known);
        let own = Key::of_completion(&self.operation, reservation.as_ref());
        let standing = match keys.standing(&own, self.now.steady)? {
            // The answer may be that to an earlier reservation, of which no id was known either.
            Standing::Answered(_) if holds.may_be_anew(named) => {
                Standing::InDoubt(Doubt::long_ago(false))
            }
            Standing::OfAnother if holds.may_be_anew(named) => {
                Standing::InDoubt(Doubt::long_ago(true))
            }
            standing => standing,
        };
        Ok((own, standing))
    }

    /// The state of the job for the call, or why the client may not make it.
    fn grant(
        &self,
        inner: &Inner,
        db: &Db,
        job: &Slug,
        holds: &Holds,
    ) -> Result<Result<Grant, Denied>, Fault> {
        let Operation { client, wallet, call, .. } = &self.operation;
        let now = self.now.wall;
        if reserves(&self.operation) {
            if holds.is_reserved_by_another(client.id, now) && !client.admin {
                return Ok(Err(Denied::Holder(job.clone())));
            }
            let limited = client.max_reservations.map(|max| -> Result<_, Fault> {
                let all = holds_of(db, client.id, now)?;
                let (running, until) = running(&all, [&wallet.to_string(), job.as_str()], now);
                Ok((running >= max).then_some(Denied::TooManyReservations { running, until }))
            });
            let denied = limited.transpose()?.flatten();
            return Ok(denied.map_or(Ok(Grant::default()), Err));
        }
        let holder = holds.holder(client.id, now).map(|hold| hold.client);
        if let Err(denied) = client.check_holder(call.action(), job, holder) {
            return Ok(Err(denied));
        }
        let mut grant = Grant { holder, ..Grant::default() };
        if self.operation.is_completion() && call.body().field(RESERVATION_ID).is_none() {
            // Not the id of a submission: that only tells keys apart.
            let held = holds.reserved().and_then(|hold| hold.reservation_id.as_deref());
            grant.reservation_id = held.map(CanonicalJson::string);
        }
        if needs_token(&self.operation) {
            grant.reservation = match &self.unsaved {
                Some(unsaved) => Some(unsaved.clone()),
                None => reservation(db, &inner.seal, *wallet, job)?,
            };
            if grant.reservation.is_none() && holds.submitted().is_some() {
                return Ok(Err(Denied::Submitted(job.clone())));
            }
        }
        Ok(Ok(grant))
    }

    /// Holds the credits that the call may be charged until it is over, and counts them as if that was then.
    fn hold_credits(&self, db: &Db, limit: CreditLimit) -> Result<Result<i64, Denied>, Fault> {
        let (Operation { client, deadline, price, .. }, now) = (&self.operation, self.now.steady);
        if price.is_none() && self.operation.has_prices {
            return Ok(Err(Denied::PriceUnknown(client.name.clone())));
        }
        let counted = credit_rows::in_use(db, client.id, now)?;
        let credits = match counted.hold(client, limit, *price) {
            Ok(credits) => credits,
            Err(denied) => return Ok(Err(denied)),
        };
        let ends = limit.ends(now + deadline.saturating_duration_since(Instant::now()));
        credit_rows::hold(db, client.id, credits, ends, now).map(Ok)
    }

    /// Keeps the answer to a completion under the client's key as well.
    fn answer_again(&self, keys: &Keys<'_>, answer: StoredAnswer) -> Result<Begun, Fault> {
        if let Some(given) = &self.given {
            keys.claim(given, None, self.now.steady)?;
            keys.keep(given, &answer)?;
        }
        Ok(Begun::Answered(answer))
    }
}

#[cfg(test)]
mod tests;
