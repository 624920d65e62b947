//! Jobs that their clients release: the wallet has them upstream until their end, so another client may have
//! one with the time that is left, and with the answer to its reserve, which has the instructions.

use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};

use super::{
    boot,
    callers::access_ended,
    db::Row,
    deed::Deed,
    error::{Fault, StoreError},
    event::Event,
    event_rows,
    freeze::FreezeOf,
    freeze_rows,
    hand_out::{JobClaim, check_number, keep_key},
    handle::{Inner, Store},
    record::append_deed,
    reservations::kept_answer,
    stored_answer::StoredAnswer,
};
use crate::{
    policy::{Client, Denied},
    types::{Address, ClientId, Slug},
};

/// A job with less time left is given to no other client.
const LEAST: SignedDuration = SignedDuration::from_mins(1);

/// A job that its client has released.
#[derive(Debug, Clone)]
pub struct ReleasedJob {
    /// The job.
    pub job: Slug,
    /// The wallet that has it.
    pub wallet: Address,
    /// When its reservation ends.
    pub ends: Timestamp,
    /// The answer to its reserve, for the next client; `None` if it was lost.
    pub answer: Option<StoredAnswer>,
}

impl Store {
    /// Releases a job that a client holds, or for an admin any. It counts for that client no more, and no
    /// client holds it.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn release(
        &self,
        client: &Client,
        job: &Slug,
        now: Timestamp,
    ) -> Result<Result<ReleasedJob, Denied>, StoreError> {
        let (inner, client, job) = (self.0.clone(), client.clone(), job.clone());
        self.write(move |db| {
            boot::follow(db)?;
            let sql = format!(
                "SELECT {COLUMNS} FROM reservations
                 WHERE state = 'reserved' AND NOT released AND ends > ?1 AND job = ?2"
            );
            let held =
                db.rows(&sql, &[now.into(), job.as_str().into()], |row| read(&inner, row))?;
            let is_held = !held.is_empty();
            let own = |(_, holder, _): &(i64, ClientId, _)| client.admin || *holder == client.id;
            let Some((number, _, released)) = held.into_iter().find(own) else {
                return Ok(Err(if is_held { Denied::Holder(job) } else { Denied::NotHeld(job) }));
            };
            db.execute("UPDATE reservations SET released = 1 WHERE id = ?1", &[number.into()])?;
            let deed = Deed::Release(released.wallet, &released.job);
            append_deed(db, deed, client.name.as_str())?;
            Ok(Ok(released))
        })
        .await
    }

    /// The released jobs of a wallet that another client may have, the first to end first.
    ///
    /// # Errors
    /// They cannot be read.
    pub async fn released(
        &self,
        wallet: Address,
        now: Timestamp,
    ) -> Result<Vec<ReleasedJob>, StoreError> {
        self.follow_clock().await;
        let inner = self.0.clone();
        self.read(move |db| {
            let sql = format!(
                "SELECT {COLUMNS} FROM reservations
                 WHERE state = 'reserved' AND released AND ends > ?1 AND wallet = ?2
                     AND answer IS NOT NULL ORDER BY ends"
            );
            let wallet = wallet.to_string();
            let params = [(now + LEAST).into(), wallet.as_str().into()];
            db.rows(&sql, &params, |row| Ok(read(&inner, row)?.2))
        })
        .await
    }

    /// Gives a released job to a client, and to its key if it gave one. Returns the answer to its reserve,
    /// with the seconds that are left.
    ///
    /// # Errors
    /// It could not be written, so the job is not the client's; the client's access has ended, or signatures
    /// are frozen.
    pub async fn take_released(
        &self,
        client: &Client,
        wallet: Address,
        job: &Slug,
        claim: &JobClaim,
        now: Timestamp,
    ) -> Result<Result<StoredAnswer, Denied>, StoreError> {
        let (inner, client, job, claim) =
            (self.0.clone(), client.clone(), job.clone(), claim.unlocked());
        self.write(move |db| {
            boot::follow(db)?;
            if access_ended(db, client.id, now)? {
                return Err(Fault::AccessEnded);
            }
            freeze_rows::check(db, FreezeOf::Signatures)?;
            if let Err(denied) = check_number(db, &client, Some((wallet, &job)), now)? {
                return Ok(Err(denied));
            }
            let sql = format!(
                "SELECT {COLUMNS} FROM reservations
                 WHERE state = 'reserved' AND released AND ends > ?1 AND wallet = ?2 AND job = ?3"
            );
            let address = wallet.to_string();
            let params = [now.into(), address.as_str().into(), job.as_str().into()];
            let found = db.row(&sql, &params, |row| read(&inner, row))?;
            let Some((number, _, released)) = found else {
                return Ok(Err(Denied::Holder(job)));
            };
            let Some(answer) = released.answer else { return Ok(Err(Denied::Holder(job))) };
            let left = released.ends.duration_since(now).as_secs();
            let body = with_seconds_left(&answer.body, left).unwrap_or(answer.body);
            let answer = StoredAnswer { body, ..answer };
            if !keep_key(&inner.keys(db), &claim, &released.job, &answer)? {
                return Ok(Err(Denied::Holder(job)));
            }
            let sql =
                "UPDATE reservations SET released = 0, told = 0, client = ?2, client_name = ?3
                       WHERE id = ?1";
            let name = client.name.as_str();
            db.execute(sql, &[number.into(), client.id.number().into(), name.into()])?;
            append_deed(db, Deed::TakeReleased(wallet, &released.job), name)?;
            let holder = (client.id, client.name.clone());
            let made = Event::reservation_made(holder, wallet, released.job, released.ends);
            event_rows::tell(db, &made, now)?;
            Ok(Ok(answer))
        })
        .await
    }
}

/// The columns that [`read`] takes.
const COLUMNS: &str = "id, client, wallet, job, ends, answer";

/// The number of a reservation, its client, and the job.
fn read(inner: &Inner, row: &Row<'_>) -> Result<(i64, ClientId, ReleasedJob), Fault> {
    let job = ReleasedJob {
        wallet: row.parsed(2, "wallet address")?,
        job: row.parsed(3, "job id")?,
        ends: row.time(4)?,
        // An answer that does not open is another wallet's.
        answer: kept_answer(row, [2, 3, 5], &inner.seal).ok().flatten(),
    };
    Ok((row.int(0)?, ClientId::new(row.int(1)?), job))
}

/// A JSON object with one more field in front.
fn with_seconds_left(body: &[u8], seconds: i64) -> Option<Bytes> {
    let text = str::from_utf8(body).ok()?;
    let (before, fields) = text.split_once('{').filter(|(before, _)| before.trim().is_empty())?;
    let comma = if fields.trim_start().starts_with('}') { "" } else { "," };
    Some(format!("{before}{{\"seconds_left\":{seconds}{comma}{fields}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seconds_that_are_left_stand_in_front() {
        let with = |body: &str| with_seconds_left(body.as_bytes(), 7);
        assert_eq!(with(r#" {"a":{}} "#).unwrap(), r#" {"seconds_left":7,"a":{}} "#);
        assert_eq!(with("{ }").unwrap(), r#"{"seconds_left":7 }"#);
        for body in ["", "[{}]", "text {"] {
            assert!(with(body).is_none(), "{body}");
        }
    }
}
