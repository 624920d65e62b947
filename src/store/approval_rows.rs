//! Approvals as they are stored: all SQL about them.

use jiff::{SignedDuration, Timestamp};

use super::{
    approval::{Approval, ApprovalAnswer, ApprovalId},
    db::{Db, Row},
    error::Fault,
};
use crate::{payment::PaymentTerms, types::ClientId};

/// How long an approval is shown after its end.
const SHOWN: SignedDuration = SignedDuration::from_hours(24);

const COLUMNS: &str = "id, client, client_name, action, resource, network, asset, payee, amount, asked, ends, \
                       answer, answered_by, fingerprint, seal";

/// The name in errors.
const APPROVAL: &str = "approval";

fn stored(row: &Row<'_>) -> Result<Approval, Fault> {
    let answer = row.opt_text(11)?.map(|answer| -> Result<_, Fault> {
        let answer = ApprovalAnswer::from_str(answer).ok_or(Fault::Malformed(APPROVAL))?;
        Ok((answer, row.text(12)?.to_owned()))
    });
    Ok(Approval {
        id: row.parsed(0, APPROVAL)?,
        client: ClientId::new(row.int(1)?),
        client_name: row.text(2)?.to_owned(),
        action: row.text(3)?.to_owned(),
        terms: PaymentTerms {
            resource: row.text(4)?.to_owned(),
            network: row.parsed(5, APPROVAL)?,
            asset: row.parsed(6, APPROVAL)?,
            payee: row.parsed(7, APPROVAL)?,
            amount: row.parsed(8, APPROVAL)?,
        },
        asked: row.time(9)?,
        ends: row.time(10)?,
        answer: answer.transpose()?,
        fingerprint: row.hash(13)?,
        seal: row.opt_blob(14)?.map(<[u8]>::to_vec),
    })
}

/// All that are not forgotten, the last one first.
pub(super) fn all(db: &Db) -> Result<Vec<Approval>, Fault> {
    db.rows(&format!("SELECT {COLUMNS} FROM approvals ORDER BY asked DESC"), &[], stored)
}

/// When a client asked, after this moment.
pub(super) fn asked_after(
    db: &Db,
    client: ClientId,
    moment: Timestamp,
) -> Result<Vec<Timestamp>, Fault> {
    let sql = "SELECT asked FROM approvals WHERE client = ?1 AND asked > ?2 ORDER BY asked";
    db.rows(sql, &[client.number().into(), moment.into()], |row| row.time(0))
}

/// The one with this number.
pub(super) fn find(db: &Db, id: ApprovalId) -> Result<Option<Approval>, Fault> {
    let sql = format!("SELECT {COLUMNS} FROM approvals WHERE id = ?1");
    db.row(&sql, &[(&id.to_string()).into()], stored)
}

/// The last one of a client for the same call and payment, unless it was used or has ended.
pub(super) fn standing(
    db: &Db,
    client: ClientId,
    fingerprint: &[u8; 32],
    now: Timestamp,
) -> Result<Option<Approval>, Fault> {
    let sql = format!(
        "SELECT {COLUMNS} FROM approvals
         WHERE client = ?1 AND fingerprint = ?2 AND ends > ?3 AND (answer IS NULL OR answer <> 'used')
         ORDER BY asked DESC LIMIT 1"
    );
    db.row(&sql, &[client.number().into(), fingerprint.into(), now.into()], stored)
}

/// Adds one that waits, and forgets those that ended long ago.
pub(super) fn insert(db: &Db, approval: &Approval) -> Result<(), Fault> {
    let oldest = approval.asked.saturating_sub(SHOWN).unwrap_or(Timestamp::MIN);
    db.execute("DELETE FROM approvals WHERE ends <= ?1", &[oldest.into()])?;
    let Approval { id, client, client_name, action, terms, asked, ends, fingerprint, .. } =
        approval;
    let PaymentTerms { resource, network, asset, payee, amount } = terms;
    let (id, network, amount) = (id.to_string(), network.to_string(), amount.to_string());
    let [asset, payee] = [asset, payee].map(|address| address.to_string());
    let sql = "INSERT INTO approvals (id, client, client_name, action, resource, network, asset, payee, amount,
                                      asked, ends, fingerprint)
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12)";
    let row = [
        (&id).into(),
        client.number().into(),
        client_name.into(),
        action.into(),
        resource.into(),
        (&network).into(),
        (&asset).into(),
        (&payee).into(),
        (&amount).into(),
        (*asked).into(),
        (*ends).into(),
        fingerprint.into(),
    ];
    db.execute(sql, &row).map(drop)
}

/// Notes the answer, who gave it, and until when it counts.
pub(super) fn answer(db: &Db, approval: &Approval) -> Result<(), Fault> {
    let Approval { id, ends, answer, seal, .. } = approval;
    let Some((answer, by)) = answer else { return Ok(()) };
    let sql =
        "UPDATE approvals SET answer = ?2, answered_by = ?3, ends = ?4, seal = ?5 WHERE id = ?1";
    let id = id.to_string();
    let seal = seal.as_deref().into();
    db.execute(sql, &[(&id).into(), answer.as_str().into(), by.into(), (*ends).into(), seal])
        .map(drop)
}

/// Uses up one that is approved and has not ended; tells whether it was.
pub(super) fn use_up(db: &Db, id: ApprovalId, now: Timestamp) -> Result<bool, Fault> {
    let sql =
        "UPDATE approvals SET answer = 'used' WHERE id = ?1 AND answer = 'approved' AND ends > ?2";
    Ok(db.execute(sql, &[(&id.to_string()).into(), now.into()])? == 1)
}
