//! The payments as they are stored: all SQL about them.

use jiff::{SignedDuration, Timestamp};

use super::{
    boot::{Clock, boot},
    db::{Db, Param, Row},
    error::Fault,
};
use crate::{
    payment::{AuthorizationNonce, MAX_SECONDS, Payment, PaymentRecord, Purchase, Spent},
    types::{Address, BaseUnits, ClientId},
};

/// How long payments are summed.
const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

/// How long after the end of an authorisation it is surely over, by whatever clock, in seconds.
pub(super) const MARGIN: i64 = 30;

/// How long after that the upstream surely has booked the credits of a purchase, in seconds.
const BOOKED: i64 = 600;

/// When an authorisation has ended, in seconds by the clock as it stands now, which may have been set since it
/// was recorded. The upstream chooses the end, but not how soon another payment is made.
const ENDED: &str = "max(valid_before, recorded / 1000 + ?1)
                     + CASE WHEN boot = ?2 THEN (?3 - ahead) / 1000 ELSE 0 END";

/// How many that are too old are removed when one is added.
const PURGED: i64 = 16;

/// A payment before it is signed.
pub(super) struct NewPayment<'a> {
    pub(super) payment: &'a Payment,
    pub(super) client: ClientId,
    pub(super) fingerprint: &'a [u8; 32],
    pub(super) purchase: Option<Purchase>,
    /// The body of a purchase.
    pub(super) body: Option<&'a str>,
    /// The credits of the recipient before the purchase, as JSON.
    pub(super) balance: Option<&'a str>,
    pub(super) now: Timestamp,
}

/// An open payment, and when its authorisation is surely over.
pub(super) struct OpenPayment {
    pub(super) record: PaymentRecord,
    pub(super) fingerprint: [u8; 32],
    /// None as long as the upstream waits for a transaction.
    pub(super) over: Option<Timestamp>,
    /// Whether other purchases do not wait for it.
    pub(super) lets_others: bool,
}

/// All payments that count.
pub(super) fn spent(db: &Db, now: Timestamp) -> Result<Vec<Spent>, Fault> {
    let sql = "SELECT client, recorded, amount FROM payments
               WHERE recorded > ?1 AND state <> 'returned'";
    let since = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    db.rows(sql, &[since.into()], |row| {
        let amount: u64 = row.int(2)?;
        Ok(Spent {
            client: ClientId::new(row.int(0)?),
            at: row.time(1)?,
            amount: BaseUnits::new(amount.into()),
        })
    })
}

/// The payments of a wallet that may still be cashed.
pub(super) fn open(db: &Db, payer: Address, now: Timestamp) -> Result<Vec<OpenPayment>, Fault> {
    let sql = format!(
        "SELECT nonce, valid_before, accepted, resource, credits, recipient, transaction_hash,
                fingerprint, {ENDED} AS ended, balance_before, body, lets_others
         FROM payments WHERE state = 'open' AND payer = ?4
             AND (ended > ?5 OR transaction_hash IS NOT NULL AND recorded > ?6)"
    );
    let (payer, least) = (payer.to_string(), now.as_second() - MARGIN);
    // A transaction that never settles is given up when the payment is no longer summed.
    let oldest = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    let [longest, boot, ahead] = clock();
    let params = [longest, boot, ahead, (&payer).into(), least.into(), oldest.into()];
    db.rows(&sql, &params, open_payment)
}

/// All payments that are summed, the last one first, by these columns: the nonce, the name of the client, the
/// amount, the entry, the resource, when it was recorded, when its authorisation has ended, the transaction, the
/// state, and whether it lets others by.
pub(super) fn all<T>(
    db: &Db,
    now: Timestamp,
    read: impl FnMut(&Row<'_>) -> Result<T, Fault>,
) -> Result<Vec<T>, Fault> {
    let sql = format!(
        "SELECT nonce,
                coalesce((SELECT name FROM clients WHERE id = client),
                         CASE client WHEN ?4 THEN 'local' ELSE 'removed' END),
                amount, accepted, resource, recorded, {ENDED}, transaction_hash, state, lets_others
         FROM payments WHERE recorded > ?5 ORDER BY recorded DESC, nonce"
    );
    let oldest = now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    let [longest, boot, ahead] = clock();
    let local = ClientId::LOCAL.number();
    db.rows(&sql, &[longest, boot, ahead, local.into(), oldest.into()], read)
}

/// Notes that a payment counts as made, whatever became of it.
pub(super) fn end(db: &Db, nonce: &str) -> Result<(), Fault> {
    let sql = "UPDATE payments SET state = 'settled' WHERE nonce = ?1 AND state = 'open'";
    db.execute(sql, &[nonce.into()]).map(drop)
}

/// The values of [`ENDED`].
fn clock() -> [Param<'static>; 3] {
    [MAX_SECONDS.into(), boot().into(), Clock::now().map(|clock| clock.ahead).into()]
}

/// The name in errors.
pub(super) const PAYMENT: &str = "payment";

fn open_payment(row: &Row<'_>) -> Result<OpenPayment, Fault> {
    let malformed = Fault::Malformed(PAYMENT);
    let recipient: Option<Address> = row.opt_parsed(5, PAYMENT)?;
    let nonce: AuthorizationNonce = row.parsed(0, PAYMENT)?;
    let valid_before: i64 = row.int(1)?;
    let record = PaymentRecord {
        nonce,
        valid_before: valid_before.try_into().map_err(|_| malformed.clone())?,
        accepted: row.text(2)?.to_owned(),
        resource: row.text(3)?.to_owned(),
        purchase: row
            .opt_int(4)?
            .zip(recipient)
            .map(|(credits, recipient)| Purchase { credits, recipient }),
        body: row.opt_text(10)?.map(str::to_owned),
        transaction_hash: row.opt_text(6)?.map(str::to_owned),
        balance_before: row.opt_text(9)?.map(str::to_owned),
    };
    let fingerprint = row.opt_hash(7)?.ok_or(malformed.clone())?;
    let over = Timestamp::from_second(row.int::<i64>(8)?.saturating_add(MARGIN));
    let over = over.map_err(|_| malformed)?;
    let over = record.transaction_hash.is_none().then_some(over);
    Ok(OpenPayment { record, fingerprint, over, lets_others: row.flag(11)? })
}

/// Adds a payment, which counts from now on.
pub(super) fn insert(db: &Db, new: &NewPayment<'_>) -> Result<(), Fault> {
    let authorization = new.payment.authorization();
    let amount = i64::try_from(authorization.value.number());
    // The limits are below that.
    let amount = amount.map_err(|_| Fault::Malformed("amount"))?;
    let (nonce, payer) = (authorization.nonce.to_string(), authorization.from.to_string());
    let recipient = new.purchase.map(|purchase| purchase.recipient.to_string());
    let sql = "INSERT INTO payments (nonce, payer, client, fingerprint, amount, recorded,
                                     valid_before, state, accepted, resource, credits, recipient,
                                     balance_before, boot, ahead, body)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, 'open', ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15)";
    let [_, boot, ahead] = clock();
    let row: [Param<'_>; 15] = [
        (&nonce).into(),
        (&payer).into(),
        new.client.number().into(),
        new.fingerprint.into(),
        amount.into(),
        new.now.into(),
        authorization.valid_before.into(),
        new.payment.accepted().into(),
        new.payment.resource().into(),
        new.purchase.map(|purchase| purchase.credits).into(),
        recipient.as_ref().into(),
        new.balance.into(),
        boot,
        ahead,
        new.body.into(),
    ];
    db.execute(sql, &row)?;
    let sql = "DELETE FROM payments WHERE nonce IN
                   (SELECT nonce FROM payments WHERE recorded <= ?1 ORDER BY recorded LIMIT ?2)";
    let oldest = new.now.saturating_sub(KEPT).unwrap_or(Timestamp::MIN);
    db.execute(sql, &[oldest.into(), PURGED.into()])?;
    Ok(())
}

/// Whether a call was paid for, or may have been: a payment that was sent is not taken for one that was not,
/// whatever a balance shows.
pub(super) fn may_be_paid(db: &Db, fingerprint: &[u8; 32]) -> Result<bool, Fault> {
    let sql = "SELECT EXISTS (SELECT 1 FROM payments
                              WHERE fingerprint = ?1 AND (state <> 'returned' OR sent > 0))";
    db.one(sql, &[fingerprint.into()], |row| row.flag(0))
}

/// Notes that the open payment of a call has settled.
pub(super) fn settle(db: &Db, fingerprint: &[u8; 32]) -> Result<(), Fault> {
    let sql = "UPDATE payments SET state = 'settled' WHERE fingerprint = ?1 AND state = 'open'";
    db.execute(sql, &[fingerprint.into()]).map(drop)
}

/// Notes that an open payment does not count, unless some process may have sent it.
pub(super) fn give_back(db: &Db, nonce: &str) -> Result<(), Fault> {
    let sql = "UPDATE payments SET state = 'returned'
               WHERE nonce = ?1 AND state = 'open' AND sent = 0";
    db.execute(sql, &[nonce.into()]).map(drop)
}

/// Gives back the amount of a purchase whose authorisation has ended and whose credits have not arrived: the
/// wallet that was to get them has the balance of before, and no call through this proxy has spent any. At most
/// one a day, as a balance is the upstream's own word.
pub(super) fn give_back_not_arrived(
    db: &Db,
    recipient: Address,
    balance: &str,
    now: Timestamp,
) -> Result<(), Fault> {
    let sql = format!(
        "UPDATE payments SET state = 'returned' WHERE nonce IN
             (SELECT nonce FROM payments
              WHERE state = 'open' AND recipient = ?4 AND transaction_hash IS NULL
                  AND balance_before = ?5 AND {ENDED} <= ?6 LIMIT 1)
             AND NOT EXISTS (SELECT 1 FROM payments
                             WHERE state = 'returned' AND sent > 0 AND recorded > ?7)"
    );
    let (recipient, ended) = (recipient.to_string(), now.as_second() - MARGIN - BOOKED);
    let day = now.saturating_sub(SignedDuration::from_hours(24)).unwrap_or(Timestamp::MIN);
    let [longest, boot, ahead] = clock();
    let params =
        [longest, boot, ahead, (&recipient).into(), balance.into(), ended.into(), day.into()];
    db.execute(&sql, &params).map(drop)
}

/// Forgets the balances of before, as a call is about to be made that may spend credits of this wallet.
pub(super) fn forget_balances(db: &Db, wallet: Address) -> Result<(), Fault> {
    let sql = "UPDATE payments SET balance_before = NULL WHERE state = 'open' AND recipient = ?1";
    db.execute(sql, &[(&wallet.to_string()).into()]).map(drop)
}

/// Notes that an open payment is about to be sent.
pub(super) fn mark_sent(db: &Db, nonce: &str) -> Result<(), Fault> {
    let sql = "UPDATE payments SET sent = sent + 1 WHERE nonce = ?1 AND state = 'open'";
    if db.execute(sql, &[nonce.into()])? == 0 { Err(Fault::PaymentOver) } else { Ok(()) }
}

/// Notes that an attempt that was about to send a payment has not.
pub(super) fn unmark_sent(db: &Db, nonce: &str) -> Result<(), Fault> {
    let sql = "UPDATE payments SET sent = sent - 1 WHERE nonce = ?1";
    db.execute(sql, &[nonce.into()]).map(drop)
}

/// Notes that no other purchase waits for this one any more.
pub(super) fn let_others(db: &Db, nonce: &str) -> Result<(), Fault> {
    let sql = "UPDATE payments SET lets_others = TRUE WHERE nonce = ?1";
    db.execute(sql, &[nonce.into()]).map(drop)
}

/// Notes the transaction that is to settle a payment, or that there is none any more.
pub(super) fn set_transaction(db: &Db, nonce: &str, hash: Option<&String>) -> Result<(), Fault> {
    let sql = "UPDATE payments SET transaction_hash = ?2 WHERE nonce = ?1";
    db.execute(sql, &[nonce.into(), hash.into()]).map(drop)
}
