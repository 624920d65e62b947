//! Idempotency keys: what a call under one finds, and what it leaves.
//!
//! A client may give a key to a change. A completion also has a key of its own, which is the same for all
//! clients, so that the proof for a reservation goes out once whatever key it comes with.

use std::time::Instant;

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use super::{
    db::{Db, Param},
    error::Fault,
    reservations::Reservation,
    run::Run,
    seal::{Place, Seal},
    stored_answer::{StoredAnswer, TOOK_EFFECT},
};
use crate::{
    action::{ACTIONS, Effect},
    call::RESERVATION_ID,
    json::CanonicalJson,
    operation::Operation,
    types::{Address, ClientId, IdempotencyKey},
};

/// How long an answer is kept.
const KEPT: SignedDuration = SignedDuration::from_hours(24);

/// How many that are too old are removed when one is added.
const PURGED: i64 = 4;

/// The owner of the completions' own keys.
const COMPLETIONS: &str = "completions";

/// The name in errors.
const ANSWER: &str = "answer";

/// A key of one call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Key {
    /// The number of the client that gave it, or [`COMPLETIONS`].
    owner: String,
    text: String,
    /// A hash of all that makes it the same call.
    fingerprint: [u8; 32],
    /// The fingerprint of the same call paid for by its client instead of the proxy, or the other way round.
    twin: Option<[u8; 32]>,
}

/// An earlier attempt under a key, which may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Doubt {
    /// When the call settles upstream, by the steady clock: it takes no effect after that, as far as is known.
    pub settles_at: Timestamp,
    /// Whether another process made it and has died, at a time that is not known, so that its answer may
    /// have been lost long after the call was sent.
    pub has_died: bool,
    /// Whether it was a completion with another proof, or the other side was to pay: the client or the proxy.
    pub is_other: bool,
}

impl Doubt {
    /// That of a call which has settled, though it is not known what became of it.
    pub(super) fn long_ago(is_other: bool) -> Self {
        Self { settles_at: Timestamp::UNIX_EPOCH, has_died: false, is_other }
    }
}

/// How a key stands.
#[derive(Debug)]
pub(super) enum Standing {
    /// No call has it.
    Free,
    /// The call was answered.
    Answered(StoredAnswer),
    /// It belongs to another call.
    OfAnother,
    /// Another process makes the call.
    Running,
    /// The call was sent, and what made it ended without an outcome, so it may have taken effect.
    InDoubt(Doubt),
}

/// The means to judge a key by, besides its row.
pub(super) struct Keys<'a> {
    pub(super) db: &'a Db,
    pub(super) seal: &'a Seal,
    pub(super) run: &'a Run,
    pub(super) before: &'a Before,
}

impl Key {
    /// The key that the client gave to a change.
    pub(super) fn given(operation: &Operation) -> Option<Self> {
        let key = operation.change_key()?;
        let body = operation.call.body().to_canonical();
        let (wallet, path) = (operation.wallet.to_string(), operation.call.target());
        let parts = [&wallet, operation.action().name, &path, body.as_str()];
        let (owner, text) = (operation.client.id.to_string(), key.as_str().to_owned());
        let (unpaid, paid) = (hash(parts), || hash([parts.join("\n").as_str(), "paid"]));
        let (fingerprint, twin) = match (operation.action().effect, operation.call.payment()) {
            (Effect::Pays, Some(_)) => (paid(), Some(unpaid)),
            (Effect::Pays, None) => (unpaid, Some(paid())),
            _ => (unpaid, None),
        };
        Some(Self { owner, text, fingerprint, twin })
    }

    /// The key that the client gave to a request for any job. What it leaves is the job that was chosen.
    pub(super) fn of_hand_out(client: ClientId, key: &IdempotencyKey, request: [&[u8]; 2]) -> Self {
        let (owner, text) = (format!("next {client}"), key.as_str().to_owned());
        Self { owner, text, fingerprint: Sha256::digest(request.concat()).into(), twin: None }
    }

    /// A completion's own. The reservation is in it, as JSON, since the body may name it or not.
    pub(super) fn of_completion(
        operation: &Operation,
        reservation: Option<&CanonicalJson>,
    ) -> Self {
        let text = completion(operation.wallet, &operation.call.path(), reservation);
        let body = operation.call.body().to_canonical_of(|name| name != RESERVATION_ID);
        let fingerprint = hash([body.as_str()]);
        Self { owner: COMPLETIONS.to_owned(), text, fingerprint, twin: None }
    }

    /// Its name among the locks of the process.
    pub(super) fn lock_name(&self) -> String {
        format!("{} {}", self.owner, self.text)
    }
}

/// A row of the table.
struct KeyRow {
    fingerprint: Vec<u8>,
    run: String,
    settles: Option<i64>,
    answer: Option<Vec<u8>>,
    sealed_for: Option<String>,
}

impl Keys<'_> {
    /// How a key stands, whose lock this process holds: a row of this run was left by a call that ended
    /// without an outcome.
    pub(super) fn standing(&self, key: &Key, now: Timestamp) -> Result<Standing, Fault> {
        let Some(found) = self.find(key, now)? else { return Ok(Standing::Free) };
        let is_other = found.fingerprint != key.fingerprint;
        // A completion without an answer gives way to one with another proof, once it is settled.
        let gives_way = key.owner == COMPLETIONS && found.answer.is_none();
        let is_twin = key.twin.is_some_and(|twin| found.fingerprint == twin);
        if is_other && !gives_way && !is_twin {
            return Ok(Standing::OfAnother);
        }
        if let Some(sealed) = found.answer {
            let sealed_for = found.sealed_for.as_deref();
            let opened = self.seal.open(&place(key, sealed_for), sealed)?;
            if opened.starts_with(TOOK_EFFECT) {
                return in_doubt(found.settles.unwrap_or_default(), false, false);
            }
            let answer = StoredAnswer::from_bytes(&opened);
            return answer.map(Standing::Answered).ok_or(Fault::Malformed(ANSWER));
        }
        let has_died = found.run != self.run.name();
        if has_died && self.run.is_alive(&found.run)? {
            return Ok(Standing::Running);
        }
        match found.settles {
            Some(settles) => in_doubt(settles, has_died, is_other),
            None => Ok(Standing::Free),
        }
    }

    fn find(&self, key: &Key, now: Timestamp) -> Result<Option<KeyRow>, Fault> {
        let sql = "SELECT fingerprint, run, settles, answer, sealed_for FROM answers
                   WHERE owner = ?1 AND key = ?2 AND claimed > ?3";
        let oldest = self.before.oldest(now);
        let params = [key.owner.as_str().into(), key.text.as_str().into(), oldest.into()];
        self.db.row(sql, &params, |row| {
            Ok(KeyRow {
                fingerprint: row.blob(0)?.to_owned(),
                run: row.text(1)?.to_owned(),
                settles: row.opt_int(2)?,
                answer: row.opt_blob(3)?.map(<[u8]>::to_vec),
                sealed_for: row.opt_text(4)?.map(str::to_owned),
            })
        })
    }

    /// Claims the key for this run. A live key keeps its age, and one in doubt keeps its fingerprint until
    /// [`Keys::mark_sent`].
    pub(super) fn claim(
        &self,
        key: &Key,
        doubt: Option<Doubt>,
        now: Timestamp,
    ) -> Result<(), Fault> {
        let oldest = self.before.oldest(now);
        self.purge(oldest)?;
        let sql = "INSERT INTO answers (owner, key, fingerprint, run, claimed, settles)
                   VALUES (?1, ?2, ?3, ?4, ?5, ?6)
                   ON CONFLICT (owner, key) DO UPDATE SET
                       run = excluded.run, answer = NULL, settles = excluded.settles,
                       fingerprint = CASE WHEN excluded.settles IS NULL
                           THEN excluded.fingerprint ELSE answers.fingerprint END,
                       claimed = CASE WHEN answers.claimed > ?7
                           THEN answers.claimed ELSE excluded.claimed END";
        self.db.execute(
            sql,
            &[
                key.owner.as_str().into(),
                key.text.as_str().into(),
                (&key.fingerprint).into(),
                self.run.name().as_str().into(),
                now.into(),
                doubt.map(|doubt| doubt.settles_at).into(),
                oldest.into(),
            ],
        )?;
        Ok(())
    }

    /// Notes that the call of a claimed key is being sent, and when it settles. A later settle time stays.
    pub(super) fn mark_sent(&self, key: &Key, settles_at: Timestamp) -> Result<(), Fault> {
        let sql = "UPDATE answers SET fingerprint = ?4,
                       settles = CASE WHEN settles > ?5 THEN settles ELSE ?5 END
                   WHERE owner = ?1 AND key = ?2 AND run = ?3";
        self.change(key, sql, &[(&key.fingerprint).into(), settles_at.into()])
    }

    /// Moves only the settle time: a key in doubt keeps the fingerprint of its earlier attempt.
    pub(super) fn prolong(&self, key: &Key, settles_at: Timestamp) -> Result<(), Fault> {
        let sql = "UPDATE answers SET settles = CASE WHEN settles > ?4 THEN settles ELSE ?4 END
                   WHERE owner = ?1 AND key = ?2 AND run = ?3";
        self.change(key, sql, &[settles_at.into()])
    }

    /// Has a completion that is in doubt for a reservation be so for the one that renews it too.
    pub(super) fn carry_over(&self, renewal: &[Reservation; 2]) -> Result<(), Fault> {
        let completes = ACTIONS.iter().filter(|action| action.effect == Effect::Submits);
        for action in completes {
            let [before, after] = renewal.each_ref().map(|reservation| {
                let path = action.path_with(std::slice::from_ref(&reservation.job));
                let id = reservation.reservation_id.as_deref().map(CanonicalJson::string);
                completion(reservation.wallet, &path, id.as_ref())
            });
            let sql = "INSERT INTO answers (owner, key, fingerprint, run, claimed, settles)
                       SELECT owner, ?3, fingerprint, run, claimed, settles FROM answers
                       WHERE owner = ?1 AND key = ?2 AND answer IS NULL AND settles IS NOT NULL
                       ON CONFLICT DO NOTHING";
            let params = [COMPLETIONS.into(), before.as_str().into(), after.as_str().into()];
            self.db.execute(sql, &params)?;
        }
        Ok(())
    }

    /// Keeps the answer to the call of a claimed key, sealed.
    pub(super) fn keep(&self, key: &Key, answer: &StoredAnswer) -> Result<(), Fault> {
        let sealed = self.seal.seal(&place(key, None), answer.to_bytes())?;
        let sql = "UPDATE answers SET answer = ?4, sealed_for = NULL
                   WHERE owner = ?1 AND key = ?2 AND run = ?3";
        self.change(key, sql, &[sealed.as_slice().into()])
    }

    /// Forgets a claimed key, as its call was surely not made.
    pub(super) fn release(&self, key: &Key) -> Result<(), Fault> {
        let sql = "DELETE FROM answers
                   WHERE owner = ?1 AND key = ?2 AND run = ?3 AND answer IS NULL";
        let name = self.run.name();
        let params = [key.owner.as_str().into(), key.text.as_str().into(), name.as_str().into()];
        self.db.execute(sql, &params)?;
        Ok(())
    }

    fn change(&self, key: &Key, sql: &str, more: &[Param<'_>]) -> Result<(), Fault> {
        let name = self.run.name();
        let mut params =
            vec![key.owner.as_str().into(), key.text.as_str().into(), name.as_str().into()];
        params.extend_from_slice(more);
        let changed = self.db.execute(sql, &params)?;
        if changed == 1 { Ok(()) } else { Err(Fault::NotClaimed) }
    }

    fn purge(&self, oldest: i64) -> Result<(), Fault> {
        let sql = "DELETE FROM answers WHERE (owner, key) IN
                       (SELECT owner, key FROM answers WHERE claimed <= ?1 ORDER BY claimed LIMIT ?2)";
        self.db.execute(sql, &[oldest.into(), PURGED.into()])?;
        Ok(())
    }
}

/// The age of keys that earlier runs have claimed. How long ago that was, only the wall clock tells,
/// which may have been set meanwhile.
pub(super) struct Before {
    newest: Option<i64>,
    opened: Instant,
}

impl Before {
    pub(super) fn read(db: &Db) -> Result<Self, Fault> {
        let newest = db.row("SELECT max(claimed) FROM answers", &[], |row| row.opt_int(0))?;
        Ok(Self { newest: newest.flatten(), opened: Instant::now() })
    }

    /// When the oldest key that still counts was claimed, in milliseconds of Unix time. Those of earlier
    /// runs age while this one lasts.
    pub(super) fn oldest(&self, now: Timestamp) -> i64 {
        let (now, passed) = (now.as_millisecond(), self.opened.elapsed().as_millis() as i64);
        let kept = KEPT.as_millis() as i64;
        let newest = self.newest.filter(|_| passed < kept).map(|newest| newest + passed);
        newest.map_or(now, |newest| newest.min(now)).saturating_sub(kept)
    }
}

fn in_doubt(settles: i64, has_died: bool, is_other: bool) -> Result<Standing, Fault> {
    let settles_at = Timestamp::from_millisecond(settles).map_err(|_| Fault::Malformed("time"))?;
    Ok(Standing::InDoubt(Doubt { settles_at, has_died, is_other }))
}

/// The place that an answer is sealed for. The first version sealed it for the name of the client.
fn place<'a>(key: &'a Key, sealed_for: Option<&'a str>) -> Place<'a> {
    Place { what: ANSWER, row: [sealed_for.unwrap_or(&key.owner), &key.text] }
}

/// The text of a completion's own key.
fn completion(wallet: Address, path: &str, reservation: Option<&CanonicalJson>) -> String {
    let reservation = reservation.map_or("-", CanonicalJson::as_str);
    let hash = hash([&wallet.to_string(), &path.to_ascii_lowercase(), reservation]);
    format!("completion {}", hex::encode(hash))
}

fn hash<const N: usize>(parts: [&str; N]) -> [u8; 32] {
    Sha256::digest(parts.join("\n")).into()
}
