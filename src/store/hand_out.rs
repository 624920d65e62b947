//! Jobs that the proxy chooses for a client that asks for any: which job is whose, before it is reserved.

use bytes::Bytes;
use http::{HeaderMap, StatusCode};
use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    db::Db,
    error::{Fault, StoreError},
    handle::Store,
    holding::running,
    journal::PATIENCE,
    keys::{Key, Standing},
    locks::Locked,
    reservations::{delete_pending, holds, holds_of, insert_pending},
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

/// What a request for any job holds until its end.
#[derive(Debug, Default)]
pub struct JobClaim {
    key: Option<Key>,
    /// The job that it has already, under its key.
    pub job: Option<Slug>,
    /// Keeps the key from other requests of this process.
    #[expect(dead_code, reason = "it is held")]
    locked: Option<Locked>,
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
            let job = match standing.transpose()? {
                Some(Standing::Answered(answer)) => Some(named(&answer)?),
                Some(Standing::OfAnother) => return Ok(HandOutBegun::KeyReused),
                _ => None,
            };
            if job.is_none()
                && let Err(denied) = check_number(db, &client, None, Timestamp::now())?
            {
                return Ok(HandOutBegun::Denied(denied));
            }
            Ok(HandOutBegun::Started(JobClaim { key, job, locked: None }))
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
        let (key, before) = (claim.key.clone(), claim.job.clone());
        self.write(move |db| {
            let (now, keys) = (Moment::now(), inner.keys(db));
            if holds(db, wallet, &job, unsaved.as_ref())?.is_taken(now.wall) {
                return Ok(Err(Denied::Holder(job)));
            }
            if let Err(denied) = check_number(db, &client, Some((wallet, &job)), now.wall)? {
                return Ok(Err(denied));
            }
            if let Some(key) = &key {
                match keys.standing(key, now.steady)? {
                    // Another process was faster.
                    Standing::Answered(other) if Some(named(&other)?) != before => {
                        return Ok(Err(Denied::Holder(job)));
                    }
                    _ => {}
                }
                keys.claim(key, None, now.steady)?;
                keys.keep(key, &naming(&job))?;
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
fn check_number(
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

/// A key keeps the job in place of an answer.
fn naming(job: &Slug) -> StoredAnswer {
    let body = Bytes::copy_from_slice(job.as_str().as_bytes());
    StoredAnswer { status: StatusCode::OK, headers: HeaderMap::new(), body }
}

fn named(answer: &StoredAnswer) -> Result<Slug, Fault> {
    let text = str::from_utf8(&answer.body).ok().and_then(|text| text.parse().ok());
    text.ok_or(Fault::Malformed("job id"))
}
