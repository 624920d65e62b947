//! Changes that are made at most once: under a key of their client, and each completion under its own.

use futures_util::future::BoxFuture;
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep, timeout_at};

use super::{
    CallError, Incoming, Proxy,
    ended::{Ended, replayed},
    exchange::Asked,
    settle::{Earlier, Settled},
};
use crate::{
    action::Effect,
    call::Call,
    canonical::CanonicalJson,
    clock,
    policy::{Client, Denied},
    reservation::RESERVATION_ID,
    retry::{Next, Tries},
    sender::Sender,
    store::{Claim, StoreError, StoredAnswer},
    types::{Address, IdempotencyKey},
    upstream::Answer,
};

/// A key under which a change is made at most once.
struct Key {
    text: String,
    /// A hash of all that makes it the same call.
    fingerprint: [u8; 32],
    /// Whether it is a completion's own.
    is_own: bool,
    /// Whether it is a completion's for a reservation whose id is not known: all of its job have it.
    is_of_any: bool,
}

impl Proxy {
    /// Makes a call; a completion, and a change under a key of its client, at most once.
    pub(super) async fn make(
        &self,
        incoming: &Incoming,
        sender: &Sender,
    ) -> Result<Answer, CallError> {
        let Incoming { call, key, .. } = incoming;
        let asked = Asked { incoming, sender, call, key: None };
        match key.as_ref().filter(|_| call.action().changes()) {
            // In a box, like all that is rare, so that no other call keeps room for it.
            Some(key) => {
                let key = Key::given(key, call, sender.wallet());
                Box::pin(self.once(asked, &key)).await
            }
            None if is_completion(call) => self.complete_once(asked).await,
            None => self.perform(asked, None).await,
        }
    }

    /// Makes a completion under its own key, so that it goes out once whatever key its client gives it,
    /// if any.
    fn complete_once<'a>(&'a self, asked: Asked<'a>) -> BoxFuture<'a, Result<Answer, CallError>> {
        Box::pin(async move {
            let (call, key) = self.own_key(asked).await?;
            self.once(Asked { call: &call, key: Some(&key.text), ..asked }, &key).await
        })
    }

    /// Makes a change at most once, and answers it the same every time.
    async fn once(&self, asked: Asked<'_>, key: &Key) -> Result<Answer, CallError> {
        let Asked { incoming, sender, call, .. } = asked;
        let client = incoming.client.name.as_str();
        let deadline = sender.upstream().deadline(true);
        let turn = timeout_at(deadline, self.turns.take(client, &key.text)).await;
        let _turn = turn.map_err(|_| CallError::KeyInUse)?;
        self.doubt_if_reserved(asked, key).await?;
        let (in_doubt, is_other) = match self.claim(asked, key, deadline).await? {
            Claim::Done(answer) => return Ok(replayed(answer)),
            Claim::Mismatch => return Err(key.taken(call)),
            Claim::Running => return Err(CallError::KeyInUse),
            Claim::New => (None, false),
            Claim::Interrupted { quiet, has_died: false, is_other } => (Some(quiet), is_other),
            Claim::Interrupted { quiet, has_died: true, is_other } => {
                let quiet = sender.upstream().quiet_after_death(quiet, clock::now());
                (Some(quiet), is_other)
            }
        };
        // What may be made twice is made again, as nothing would show what became of it.
        let in_doubt = in_doubt.filter(|_| !call.action().method.is_idempotent());
        let settled = match in_doubt {
            Some(quiet) => self.settle_earlier(asked, quiet).await.map(Some),
            None => Ok(None),
        };
        let is_reserved = matches!(settled, Ok(Some(Settled::Reserved(_))));
        let other_is_submitted = is_other && matches!(settled, Ok(Some(Settled::Submitted(_))));
        let result = match settled {
            Ok(Some(Settled::Submitted(answer))) => Ok(answer),
            Ok(Some(Settled::Reserved(lost))) => {
                self.claimed(asked, key, Some(Earlier::Reserved(lost))).await
            }
            Ok(_) => match self.take_over(client, key, is_other).await {
                Ok(()) => self.claimed(asked, key, in_doubt.map(Earlier::InDoubt)).await,
                Err(error) => Err(error.into()),
            },
            Err(error) => Err(error),
        };
        let kept = match Ended::with(&result) {
            // A completion that was refused may be sent again, as when its reservation is known again.
            Ended::Known(answer) if !is_completion(call) || answer.status.is_success() => {
                self.settle_key(asked, key, &answer).await
            }
            // The next request with this key reserves once more.
            Ended::NotMade if is_reserved => self.store.abandon(client, &key.text, None).await,
            // The next request with this key asks what became of it; a completion's own key knows when.
            Ended::Unknown { quiet } => {
                let quiet = quiet.filter(|_| key.is_own || !is_completion(call));
                self.store.abandon(client, &key.text, quiet).await
            }
            Ended::Known(_) | Ended::NotMade => self.store.release(client, &key.text).await,
        };
        if let Err(error) = kept {
            tracing::error!(%error, "what became of an idempotency key is not on record");
        }
        if other_is_submitted { Err(key.taken(call)) } else { result }
    }

    /// Doubts the stored answer to a completion whose reservation id is not known, if the job is held
    /// again: the answer may be of an earlier reservation, so the status is asked before it is repeated.
    async fn doubt_if_reserved(&self, asked: Asked<'_>, key: &Key) -> Result<(), StoreError> {
        let client = &asked.incoming.client;
        let Some(job) = asked.call.job().filter(|_| key.is_of_any) else { return Ok(()) };
        let held = self.reservations.of(asked.sender.wallet(), job).await?;
        match held {
            Some(held) if client.admin || held.client == client.name.as_str() => {
                self.store.doubt(client.name.as_str(), &key.text).await
            }
            _ => Ok(()),
        }
    }

    /// Keeps the answer to a change; to a reserve with its reservation, if that is not on record yet.
    async fn settle_key(
        &self,
        asked: Asked<'_>,
        key: &Key,
        answer: &StoredAnswer,
    ) -> Result<(), StoreError> {
        let client = asked.incoming.client.name.as_str();
        let unsaved = self.reservations.unsaved_of(asked.sender.wallet(), asked.call);
        self.store.settle(client, &key.text, answer, unsaved.as_ref()).await?;
        unsaved.iter().for_each(|reservation| self.reservations.is_saved(reservation));
        Ok(())
    }

    /// Makes a change whose key is claimed.
    async fn claimed(
        &self,
        asked: Asked<'_>,
        key: &Key,
        earlier: Option<Earlier>,
    ) -> Result<Answer, CallError> {
        if is_completion(asked.call) && !key.is_own {
            return self.complete_once(asked).await;
        }
        self.perform(Asked { key: Some(&key.text), ..asked }, earlier).await
    }

    /// From now on the key is that of this call, after another was surely not made.
    async fn take_over(&self, client: &str, key: &Key, is_other: bool) -> Result<(), StoreError> {
        if is_other {
            self.store.take_over(client, &key.text, key.fingerprint).await?;
        }
        Ok(())
    }

    /// Claims the key of a change. It waits while another process works on the same. Whose access has
    /// ended while it waited claims nothing.
    async fn claim(
        &self,
        asked: Asked<'_>,
        key: &Key,
        deadline: Instant,
    ) -> Result<Claim, StoreError> {
        let Client { name, added, .. } = &asked.incoming.client;
        let mut pauses = Tries::new(false, deadline);
        loop {
            let (now, fingerprint) = (clock::now(), key.fingerprint);
            let (name, text, added) = (name.as_str(), &key.text, *added);
            let claim = match key.is_own {
                true => self.store.claim_in_doubt(name, added, text, fingerprint, now).await,
                false => self.store.claim(name, added, text, fingerprint, now).await,
            };
            if claim.as_ref().is_err_and(StoreError::is_access_ended) {
                self.store.denied(&self.denial(asked.incoming, "access_ended")).await;
            }
            let claim = claim?;
            match pauses.pause(Instant::now()) {
                Next::Again(pause) if claim == Claim::Running => sleep(pause).await,
                _ => return Ok(claim),
            }
        }
    }

    /// A completion's own key, and the completion with the reservation that it is for, as far as that is
    /// known. A submitted job has no other until it is reserved again.
    async fn own_key(&self, asked: Asked<'_>) -> Result<(Call, Key), CallError> {
        let (wallet, mut call) = (asked.sender.wallet(), asked.call.clone());
        let job = call.job().cloned().ok_or(CallError::Aborted)?;
        let mut reservation = call.body().field(RESERVATION_ID).cloned();
        if reservation.is_none() {
            let held = self.reservations.of(wallet, &job).await?;
            reservation = held.and_then(|held| held.reservation_id).map(text);
            reservation.iter().for_each(|id| call.fill_in(RESERVATION_ID, id.clone()));
        }
        if reservation.is_none() {
            let submitted = self.reservations.submission(wallet, &job).await?;
            reservation = submitted.and_then(|submitted| submitted.reservation_id).map(text);
        }
        let key = Key::own(&call, wallet, reservation.as_ref().map(CanonicalJson::as_str));
        Ok((call, key))
    }
}

impl Key {
    fn given(key: &IdempotencyKey, call: &Call, wallet: Address) -> Self {
        let body = call.body().to_canonical();
        let parts = [&wallet.to_string(), call.action().name, &call.target(), body.as_str()];
        Self {
            text: key.as_str().to_owned(),
            fingerprint: hash(parts),
            is_own: false,
            is_of_any: false,
        }
    }

    /// The reservation is in the key, since it may be filled in or not. No client can give a key with a
    /// space in it.
    fn own(call: &Call, wallet: Address, reservation: Option<&str>) -> Self {
        let path = call.path().to_ascii_lowercase();
        let is_of_any = reservation.is_none();
        let text = hex::encode(hash([&wallet.to_string(), &path, reservation.unwrap_or("-")]));
        let body = call.body().to_canonical_of(|name| name != RESERVATION_ID);
        let (text, fingerprint) = (format!("completion {text}"), hash([body.as_str()]));
        Self { text, fingerprint, is_own: true, is_of_any }
    }

    /// Why a call that is not the one of this key is refused.
    fn taken(&self, call: &Call) -> CallError {
        match call.job() {
            Some(job) if self.is_own => Denied::Submitted { job: job.clone() }.into(),
            _ => CallError::KeyReused,
        }
    }
}

fn is_completion(call: &Call) -> bool {
    call.action().effect == Effect::Submits
}

fn hash<const N: usize>(parts: [&str; N]) -> [u8; 32] {
    Sha256::digest(parts.join("\n")).into()
}

fn text(text: String) -> CanonicalJson {
    CanonicalJson::string(&text)
}
