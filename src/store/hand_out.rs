//! Jobs that the proxy chooses for a client that asks for any: which job is whose, before it is reserved.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    db::Db,
    error::{Fault, StoreError},
    handle::Store,
    holding::running,
    journal::PATIENCE,
    keys::{Key, Keys, Standing},
    locks::Locked,
    reservations::{delete_pending, erase_ended, holds, holds_of, insert_pending},
    stored_answer::StoredAnswer,
};
use crate::{
    clock::Moment,
    policy::{Client, Denied},
    types::{Address, IdempotencyKey, Slug},
};

/// The ledger's answer to a client that asks for any job.
#[derive(Debug)]
pub enum HandOutBegun {
    /// It may have one.
    Started(JobClaim),
    /// Another of its requests with this key is at work.
    Running,
    /// Its key belongs to another request.
    KeyReused,
    /// It may not have one.
    Denied(Denied),
}

/// The key and the job that a request for any job holds until its end.
#[derive(Debug, Default)]
pub struct JobClaim {
    key: Option<Key>,
    /// The job that it has already, under its key.
    pub job: Option<Slug>,
    /// The answer with which it got that one, if the job was released before.
    pub answer: Option<Box<StoredAnswer>>,
    /// Keeps the key from other requests of this process.
    #[expect(dead_code, reason = "it is held")]
    locked: Option<Locked>,
}

impl JobClaim {
    /// The same without the lock, for the thread that writes.
    pub(super) fn unlocked(&self) -> Self {
        Self { key: self.key.clone(), job: self.job.clone(), answer: None, locked: None }
    }
}

impl Store {
    /// Begins to look for a job for a client: finds the one that its key has already, or whether it may have
    /// one more. Waits until the deadline for its other requests with the same key.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn begin_hand_out(
        &self,
        client: &Client,
        wallet: Address,
        key: Option<(&IdempotencyKey, [u8; 32])>,
        deadline: Instant,
    ) -> Result<HandOutBegun, StoreError> {
        let key = key.map(|(key, fingerprint)| {
            Key::of_hand_out(client.id, key, [wallet.to_string().as_bytes(), &fingerprint])
        });
        let names = key.iter().map(Key::lock_name).collect();
        let Some(locked) = self.0.locks.lock(names, deadline).await else {
            return Ok(HandOutBegun::Running);
        };
        self.follow_clock().await;
        let (inner, client) = (self.0.clone(), client.clone());
        let begun = self.read(move |db| {
            let keys = inner.keys(db);
            let standing = key.as_ref().map(|key| keys.standing(key, Moment::now().steady));
            let mut answered = match standing.transpose()? {
                Some(Standing::Answered(answer)) => Some(answer),
                Some(Standing::OfAnother) => return Ok(HandOutBegun::KeyReused),
                _ => None,
            };
            let job = answered.as_mut().map(take_name).transpose()?;
            if job.is_none()
                && let Err(denied) = check_number(db, &client, None, Timestamp::now())?
            {
                return Ok(HandOutBegun::Denied(denied));
            }
            let answer = answered.filter(|answer| !answer.body.is_empty()).map(Box::new);
            Ok(HandOutBegun::Started(JobClaim { key, job, answer, locked: None }))
        });
        Ok(match begun.await? {
            HandOutBegun::Started(claim) => {
                HandOutBegun::Started(JobClaim { locked: Some(locked), ..claim })
            }
            begun => begun,
        })
    }

    /// Has a job be that of a client, and of its key if it gave one, before it is reserved. The row whose
    /// number this returns keeps the job from other requests until [`Store::end_hand_out`].
    ///
    /// # Errors
    /// It could not be written, so the job is not the client's.
    pub async fn hand_out(
        &self,
        client: &Client,
        wallet: Address,
        job: &Slug,
        claim: &JobClaim,
    ) -> Result<Result<i64, Denied>, StoreError> {
        let unsaved = self.unsaved(wallet, job);
        let (inner, client, job) = (self.0.clone(), client.clone(), job.clone());
        let claim = claim.unlocked();
        self.write(move |db| {
            let (now, keys) = (Moment::now(), inner.keys(db));
            erase_ended(db, now.wall)?;
            if holds(db, wallet, &job, unsaved.as_ref())?.is_taken(now.wall) {
                return Ok(Err(Denied::Holder(job)));
            }
            if let Err(denied) = check_number(db, &client, Some((wallet, &job)), now.wall)? {
                return Ok(Err(denied));
            }
            let (status, headers) = (StatusCode::OK, HeaderMap::new());
            let nothing = StoredAnswer { status, headers, body: Bytes::new() };
            if !keep_key(&keys, &claim, &job, &nothing)? {
                return Ok(Err(Denied::Holder(job)));
            }
            insert_pending(db, wallet, &client, &job, now.wall).map(Ok)
        })
        .await
    }

    /// Has a job no longer be kept for a client, in the background: its reserve has ended, and is on record.
    pub async fn end_hand_out(&self, number: i64) {
        self.0.worker.leave(PATIENCE, move |db| delete_pending(db, number), drop).await;
    }
}

/// Whether a client may hold one more job, besides this one.
pub(super) fn check_number(
    db: &Db,
    client: &Client,
    besides: Option<(Address, &Slug)>,
    now: Timestamp,
) -> Result<Result<(), Denied>, Fault> {
    let Some(most) = client.max_reservations else { return Ok(Ok(())) };
    let wallet = besides.map(|(wallet, _)| wallet.to_string()).unwrap_or_default();
    let job = besides.map_or("", |(_, job)| job.as_str());
    let (running, until) = running(&holds_of(db, client.id, now)?, [&wallet, job], now);
    Ok(if running < most { Ok(()) } else { Err(Denied::TooManyReservations { running, until }) })
}

/// Has a job be that of the key of a claim, if that has one, with the answer for a repeat. False if another
/// process has found one meanwhile.
pub(super) fn keep_key(
    keys: &Keys<'_>,
    claim: &JobClaim,
    job: &Slug,
    answer: &StoredAnswer,
) -> Result<bool, Fault> {
    let (Some(key), now) = (&claim.key, Moment::now().steady) else { return Ok(true) };
    if let Standing::Answered(mut other) = keys.standing(key, now)?
        && Some(take_name(&mut other)?) != claim.job
    {
        return Ok(false);
    }
    let mut answer = answer.clone();
    let name = HeaderValue::from_str(job.as_str()).map_err(|_| Fault::Malformed(JOB_ID))?;
    answer.headers.insert(JOB, name);
    keys.claim(key, None, now)?;
    keys.keep(key, &answer)?;
    Ok(true)
}

/// The header of a kept answer that names its job.
const JOB: HeaderName = HeaderName::from_static("job");

/// The name in errors.
const JOB_ID: &str = "job id";

/// Takes the name of its job off a kept answer.
fn take_name(answer: &mut StoredAnswer) -> Result<Slug, Fault> {
    let name = answer.headers.remove(JOB);
    let text = name.as_ref().and_then(|name| name.to_str().ok());
    text.and_then(|text| text.parse().ok()).ok_or(Fault::Malformed(JOB_ID))
}
