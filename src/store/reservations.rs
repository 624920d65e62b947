//! The jobs that clients hold: reserves under way, reservations, and submissions.

use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret, SecretString};

use super::{
    boot,
    db::{Db, Row},
    error::Fault,
    event::Event,
    event_rows,
    holding::{Hold, HoldState, Holds, surely_over},
    seal::{Place, Seal},
    stored_answer::StoredAnswer,
};
use crate::{
    call::RESERVATION_ID,
    clock,
    operation::Operation,
    policy::Client,
    types::{Address, ClientId, ClientName, Slug},
};

/// How long a reserve counts whose outcome is unknown: as long as a reservation runs.
const COUNTED: SignedDuration = SignedDuration::from_mins(30);

/// How long a reservation is remembered after its end.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How long a job stays its client's after its proof was submitted.
const SUBMITTED: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How many that are too old are removed when a job changes.
const PURGED: i64 = 16;

/// A job that was reserved through this proxy.
#[derive(Debug, Clone)]
pub struct Reservation {
    /// The job.
    pub job: Slug,
    /// The wallet that holds it.
    pub wallet: Address,
    /// The client that reserved it.
    pub client: ClientId,
    /// The name of that client.
    pub client_name: ClientName,
    /// The upstream's id of the reservation.
    pub reservation_id: Option<String>,
    /// When it ends.
    pub ends: Timestamp,
    /// The token of the job's workflow calls. It is sealed at rest.
    pub workflow_token: Option<SecretString>,
    /// The answer to its reserve, which is kept until its end for the client that may have the job after
    /// this one. It is sealed at rest, and not read with the rest.
    pub answer: Option<Box<StoredAnswer>>,
}

impl Reservation {
    /// Whether it is that of a job, however its id is spelled.
    pub(super) fn is_of(&self, wallet: Address, job: &Slug) -> bool {
        self.wallet == wallet && self.job.is_same(job.as_str())
    }

    /// Whether `operation`, which ends now, renewed this: it was this client's or an admin's, and began while
    /// this still ran. Upstream, all clients are one wallet.
    pub(super) fn is_renewed_by(&self, operation: &Operation, now: Timestamp) -> bool {
        let begun = now - operation.known_at.elapsed();
        let Operation { client, .. } = operation;
        (client.admin || client.id == self.client) && self.ends + clock::TOLERANCE > begun
    }

    /// A renewal with the id and the token of the one before, where its answer brought none (protocol §6).
    pub(super) fn renewing(mut self, before: &Self) -> Self {
        self.reservation_id = self.reservation_id.or_else(|| before.reservation_id.clone());
        self.workflow_token = self.workflow_token.or_else(|| before.workflow_token.clone());
        self
    }

    /// The event that it was made.
    fn made(&self) -> Event {
        let client = (self.client, self.client_name.clone());
        Event::reservation_made(client, self.wallet, self.job.clone(), self.ends)
    }

    fn hold(&self) -> Hold {
        Hold {
            client: self.client,
            client_name: self.client_name.to_string(),
            wallet: self.wallet.to_string(),
            job: self.job.to_string(),
            state: HoldState::Reserved,
            ends: self.ends.as_millisecond(),
            reservation_id: self.reservation_id.clone(),
        }
    }
}

/// All holds of a job. A reservation that is not on record yet takes the place of what [`keep`] removes.
pub(super) fn holds(
    db: &Db,
    wallet: Address,
    job: &Slug,
    unsaved: Option<&Reservation>,
) -> Result<Holds, Fault> {
    let sql = format!("SELECT {HOLD} FROM reservations WHERE wallet = ?1 AND job = ?2");
    let wallet = wallet.to_string();
    let mut holds = db.rows(&sql, &[wallet.as_str().into(), job.as_str().into()], hold)?;
    if let Some(unsaved) = unsaved {
        holds.retain(|hold| hold.state == HoldState::Pending);
        holds.push(unsaved.hold());
    }
    Ok(Holds(holds))
}

/// Whether there is a hold of another client than the one that asks.
pub(super) fn exist_of_others(db: &Db, asks: ClientId) -> Result<bool, Fault> {
    // In two parts, each of which an index finds.
    let sql = "SELECT 1 FROM reservations WHERE client < ?1 UNION ALL
               SELECT 1 FROM reservations WHERE client > ?1 LIMIT 1";
    Ok(db.row(sql, &[asks.number().into()], |_| Ok(()))?.is_some())
}

/// The reservations of all wallets that have not ended, the first to end first. A workflow token that
/// does not open, since it is another wallet's, is left out.
pub(super) fn reserved(db: &Db, seal: &Seal, now: Timestamp) -> Result<Vec<Reservation>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM reservations
         WHERE state = 'reserved' AND NOT released AND ends > ?1 ORDER BY ends"
    );
    db.rows(&sql, &[now.into()], |row| read(row, token(row, seal).ok().flatten()))
}

/// All holds of a client that have not ended.
pub(super) fn holds_of(db: &Db, client: ClientId, now: Timestamp) -> Result<Vec<Hold>, Fault> {
    let sql = format!("SELECT {HOLD} FROM reservations WHERE client = ?1 AND ends > ?2");
    db.rows(&sql, &[client.number().into(), now.into()], hold)
}

const HOLD: &str = "client, client_name, wallet, job,
                    CASE WHEN released THEN 'released' ELSE state END, ends, reservation_id";

fn hold(row: &Row<'_>) -> Result<Hold, Fault> {
    Ok(Hold {
        client: ClientId::new(row.int(0)?),
        client_name: row.text(1)?.to_owned(),
        wallet: row.text(2)?.to_owned(),
        job: row.text(3)?.to_owned(),
        state: HoldState::from_str(row.text(4)?).ok_or(Fault::Malformed("state"))?,
        ends: row.int(5)?,
        reservation_id: row.opt_text(6)?.map(str::to_owned),
    })
}

const COLUMNS: &str = "wallet, job, client, client_name, reservation_id, ends, workflow_token";

/// The reservation of a job, with its token.
pub(super) fn reservation(
    db: &Db,
    seal: &Seal,
    wallet: Address,
    job: &Slug,
) -> Result<Option<Reservation>, Fault> {
    row_of(db, wallet, job, |row| read(row, token(row, seal)?))
}

fn row_of(
    db: &Db,
    wallet: Address,
    job: &Slug,
    read: impl FnOnce(&Row<'_>) -> Result<Reservation, Fault>,
) -> Result<Option<Reservation>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM reservations
                       WHERE wallet = ?1 AND job = ?2 AND state = 'reserved'"
    );
    let wallet = wallet.to_string();
    db.row(&sql, &[wallet.as_str().into(), job.as_str().into()], read)
}

fn read(row: &Row<'_>, workflow_token: Option<SecretString>) -> Result<Reservation, Fault> {
    Ok(Reservation {
        wallet: row.parsed(0, "wallet address")?,
        job: row.parsed(1, "job id")?,
        client: ClientId::new(row.int(2)?),
        client_name: row.parsed(3, "client")?,
        reservation_id: row.opt_text(4)?.map(str::to_owned),
        ends: row.time(5)?,
        workflow_token,
        answer: None,
    })
}

/// The name in errors.
const TOKEN: &str = "workflow token";

fn token(row: &Row<'_>, seal: &Seal) -> Result<Option<SecretString>, Fault> {
    let Some(sealed) = row.opt_blob(6)? else { return Ok(None) };
    let opened = seal.open(&place(row.text(0)?, row.text(1)?), sealed.to_vec())?;
    let token = std::str::from_utf8(&opened).map_err(|_| Fault::Malformed(TOKEN))?;
    Ok(Some(token.into()))
}

/// The name in errors.
const ANSWER: &str = "answer to a reserve";

/// The answer to the reserve of a job, if it is kept, from these columns: wallet, job and answer.
pub(super) fn kept_answer(
    row: &Row<'_>,
    [wallet, job, answer]: [usize; 3],
    seal: &Seal,
) -> Result<Option<StoredAnswer>, Fault> {
    let Some(sealed) = row.opt_blob(answer)? else { return Ok(None) };
    let place = Place { what: ANSWER, row: [row.text(wallet)?, row.text(job)?] };
    let opened = seal.open(&place, sealed.to_vec())?;
    StoredAnswer::from_bytes(&opened).map(Some).ok_or(Fault::Malformed(ANSWER))
}

fn place<'a>(wallet: &'a str, job: &'a str) -> Place<'a> {
    Place { what: TOKEN, row: [wallet, job] }
}

/// A hold as it is written.
struct NewHold<'a> {
    wallet: &'a str,
    job: &'a str,
    client: ClientId,
    client_name: &'a str,
    state: HoldState,
    ends: Timestamp,
    /// When it is to be forgotten.
    forgotten: Timestamp,
    reservation_id: Option<&'a str>,
    token: Option<&'a [u8]>,
    answer: Option<&'a [u8]>,
}

/// A hold that was written.
struct Inserted {
    /// The number of its row.
    number: i64,
    /// Until when events are recorded.
    events_until: Timestamp,
}

/// Counts a reserve that is about to be sent. Returns the number of its row.
pub(super) fn insert_pending(
    db: &Db,
    wallet: Address,
    client: &Client,
    job: &Slug,
    now: Timestamp,
) -> Result<i64, Fault> {
    let ends = now + COUNTED;
    let hold = NewHold {
        wallet: &wallet.to_string(),
        job: job.as_str(),
        client: client.id,
        client_name: client.name.as_str(),
        state: HoldState::Pending,
        ends,
        forgotten: ends + clock::TOLERANCE,
        reservation_id: None,
        token: None,
        answer: None,
    };
    Ok(hold.insert(db)?.number)
}

/// Ends the count of a reserve.
pub(super) fn delete_pending(db: &Db, number: i64) -> Result<(), Fault> {
    db.execute("DELETE FROM reservations WHERE id = ?1", &[number.into()])?;
    Ok(())
}

/// Remembers a reservation, in place of an earlier one of the same job and of what was submitted for that.
/// Returns both if it renews the earlier one.
pub(super) fn keep(
    db: &Db,
    seal: &Seal,
    reservation: &Reservation,
    operation: &Operation,
    now: Timestamp,
) -> Result<Option<[Reservation; 2]>, Fault> {
    let before = row_of(db, reservation.wallet, &reservation.job, |row| {
        read(row, token(row, seal).ok().flatten())
    });
    let before = before?.filter(|before| before.is_renewed_by(operation, now));
    let reservation = match &before {
        Some(before) => &reservation.clone().renewing(before),
        None => reservation,
    };
    let (wallet, job) = (reservation.wallet.to_string(), reservation.job.as_str());
    delete(db, &wallet, job, "state <> 'pending'")?;
    erase_ended(db, now)?;
    let token = reservation.workflow_token.as_ref();
    let sealed =
        |token: &SecretString| seal.seal(&place(&wallet, job), token.expose_secret().into());
    let token = token.map(sealed).transpose()?;
    let place = Place { what: ANSWER, row: [&wallet, job] };
    let sealed = |answer: &StoredAnswer| seal.seal(&place, answer.to_bytes());
    let answer = reservation.answer.as_deref().map(sealed).transpose()?;
    let hold = NewHold {
        wallet: &wallet,
        job,
        client: reservation.client,
        client_name: reservation.client_name.as_str(),
        state: HoldState::Reserved,
        ends: reservation.ends,
        forgotten: reservation.ends + KEPT,
        reservation_id: reservation.reservation_id.as_deref(),
        token: token.as_deref(),
        answer: answer.as_deref(),
    };
    if hold.insert(db)?.events_until > now {
        event_rows::append(db, &reservation.made(), now)?;
    }
    Ok(before.map(|before| [before, reservation.clone()]))
}

/// Forgets all holds of a job, as its proof is submitted. The job stays its holder's, or else this
/// client's.
pub(super) fn submit(
    db: &Db,
    operation: &Operation,
    job: &Slug,
    unsaved: Option<&Reservation>,
    now: Timestamp,
) -> Result<(), Fault> {
    let Operation { client, wallet, call, .. } = operation;
    let holds = holds(db, *wallet, job, unsaved)?;
    let holder = holds.holder(client.id, now);
    let holder = holder.map(|hold| (hold.client, hold.client_name.as_str()));
    let (client, client_name) = holder.unwrap_or((client.id, client.name.as_str()));
    // A submission that is seen once more, as after a lost answer, may be told without its reservation.
    let known = holds.reservation_id();
    let named = call.body().text(RESERVATION_ID);
    let (wallet, job) = (wallet.to_string(), job.as_str());
    delete(db, &wallet, job, "TRUE")?;
    let hold = NewHold {
        wallet: &wallet,
        job,
        client,
        client_name,
        state: HoldState::Submitted,
        ends: now,
        forgotten: now + SUBMITTED,
        reservation_id: named.as_deref().or(known),
        token: None,
        answer: None,
    };
    hold.insert(db).map(drop)
}

impl NewHold<'_> {
    fn insert(&self, db: &Db) -> Result<Inserted, Fault> {
        boot::follow(db)?;
        let sql =
            "INSERT INTO reservations (wallet, job, client, client_name, state, ends, forgotten,
                                             boot, reservation_id, workflow_token, answer)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11)
                   RETURNING id, (SELECT until FROM listening)";
        let params = [
            self.wallet.into(),
            self.job.into(),
            self.client.number().into(),
            self.client_name.into(),
            self.state.as_str().into(),
            self.ends.into(),
            self.forgotten.into(),
            boot::boot().into(),
            self.reservation_id.into(),
            self.token.into(),
            self.answer.into(),
        ];
        db.one(sql, &params, |row| Ok(Inserted { number: row.int(0)?, events_until: row.time(1)? }))
    }
}

/// Erases the answers to reserves whose reservations have ended.
pub(super) fn erase_ended(db: &Db, now: Timestamp) -> Result<(), Fault> {
    let sql = "UPDATE reservations SET answer = NULL WHERE answer IS NOT NULL AND ends <= ?1";
    db.execute(sql, &[surely_over(now).into()]).map(drop)
}

fn delete(db: &Db, wallet: &str, job: &str, which: &str) -> Result<(), Fault> {
    let sql = format!("DELETE FROM reservations WHERE wallet = ?1 AND job = ?2 AND {which}");
    db.execute(&sql, &[wallet.into(), job.into()])?;
    Ok(())
}

/// Forgets what is too old at `past`, a time that has surely come: not by a clock that is wrong.
pub(super) fn purge(db: &Db, past: Timestamp) -> Result<(), Fault> {
    let sql = "DELETE FROM reservations WHERE id IN
                   (SELECT id FROM reservations WHERE forgotten <= ?1 ORDER BY forgotten LIMIT ?2)";
    db.execute(sql, &[past.into(), PURGED.into()])?;
    Ok(())
}

#[cfg(test)]
mod tests;
