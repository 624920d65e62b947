//! Asking a person about a payment, and the answer, which only a command gives. An answer that approves is
//! sealed with the key of the wallet, so it takes the wallet's password.

use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    approval::{Approval, ApprovalAnswer, ApprovalId, ApprovalState, STANDS},
    approval_rows,
    db::Db,
    deed::{Deed, user},
    error::{Fault, StoreError},
    file,
    handle::Store,
    head::Head,
    record::append_deed,
    seal::{Place, Seal},
};
use crate::{
    operation::Operation,
    payment::{PaymentTerms, Purchase},
    policy::Denied,
    types::SealKey,
};

/// How often a client may have a person asked in an hour, also if the answer was no.
const MOST: usize = 16;

/// Why an approval is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// There is none with this number.
    #[error(
        "there is no approval {0}; `agentpmt-proxy approvals`, with the same --state, shows those there are"
    )]
    Unknown(ApprovalId),
    /// The key is that of another wallet.
    #[error(
        "the proxy on this state uses another wallet than the password opened; name its wallet with \
         --wallet and --keys, to approve {0}"
    )]
    OtherWallet(ApprovalId),
    /// It waits no longer.
    #[error("approval {id} is {} and takes no other answer; `agentpmt-proxy approvals`, with the same \
             --state, shows those that are waiting", state.as_str())]
    Over {
        /// Its number.
        id: ApprovalId,
        /// How it stands.
        state: ApprovalState,
    },
}

impl Store {
    /// The approval with this number.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn approval(&self, id: ApprovalId) -> Result<Option<Approval>, StoreError> {
        self.read(move |db| approval_rows::find(db, id)).await
    }
}

/// All approvals of the database at this path that ended less than a day ago or not yet, the last one first.
///
/// # Errors
/// They cannot be read.
pub fn approvals(path: &Path) -> Result<Vec<Approval>, StoreError> {
    file::read(path, approval_rows::all)
}

/// Approves a payment that waits, by a command that has the key of the proxy's wallet.
///
/// # Errors
/// It could not be read or written. Or the approval stays as it was, which is the inner error.
pub fn approve(
    path: &Path,
    id: ApprovalId,
    key: SealKey,
    now: Timestamp,
) -> Result<Result<Approval, ApprovalError>, StoreError> {
    let seal = Seal::new(&[key]);
    command(path, id, |db, found| {
        // A copy that was only restored has none.
        if Head::read(path)?.is_some_and(|head| !head.is_sealed_by(&seal)) {
            return Ok(Err(ApprovalError::OtherWallet(id)));
        }
        let state = found.state(now);
        if state != ApprovalState::Waiting {
            return Ok(Err(ApprovalError::Over { id, state }));
        }
        let words = found.sealed_words(now + STANDS);
        let seal = seal.seal(&place(&id.to_string(), &words), Vec::new())?;
        answer(db, Approval { seal: Some(seal), ..found }, ApprovalAnswer::Approved, now).map(Ok)
    })
}

/// Denies a payment that waits, or takes back its approval before it is used, by a command.
///
/// # Errors
/// It could not be read or written. Or the approval stays as it was, which is the inner error.
pub fn deny(
    path: &Path,
    id: ApprovalId,
    now: Timestamp,
) -> Result<Result<Approval, ApprovalError>, StoreError> {
    command(path, id, |db, found| {
        let state = found.state(now);
        let is_open = matches!(
            state,
            ApprovalState::Waiting | ApprovalState::Answered(ApprovalAnswer::Approved)
        );
        if !is_open {
            return Ok(Err(ApprovalError::Over { id, state }));
        }
        answer(db, Approval { seal: None, ..found }, ApprovalAnswer::Denied, now).map(Ok)
    })
}

/// Does the work on the approval with this number, in a transaction.
fn command(
    path: &Path,
    id: ApprovalId,
    work: impl FnOnce(&Db, Approval) -> Result<Result<Approval, ApprovalError>, Fault>,
) -> Result<Result<Approval, ApprovalError>, StoreError> {
    file::change(path, |db| match approval_rows::find(db, id)? {
        Some(found) => work(db, found),
        None => Ok(Err(ApprovalError::Unknown(id))),
    })
}

fn answer(
    db: &Db,
    found: Approval,
    answer: ApprovalAnswer,
    now: Timestamp,
) -> Result<Approval, Fault> {
    let (by, ends) = (user(), now + STANDS);
    append_deed(db, Deed::Answer(found.id, answer), &by)?;
    let answered = Approval { ends, answer: Some((answer, by)), ..found };
    approval_rows::answer(db, &answered)?;
    Ok(answered)
}

/// Uses up the approval of a payment of this call, in the transaction that records the payment: then it
/// returns nothing. Else it returns the approval that stands, or a new one that waits.
pub(super) fn ask(
    db: &Db,
    seal: &Seal,
    operation: &Operation,
    purchase: Option<Purchase>,
    terms: PaymentTerms,
    now: Timestamp,
) -> Result<Option<Result<Approval, Denied>>, Fault> {
    let (client, fingerprint) = (&operation.client, fingerprint(operation, purchase, &terms));
    if let Some(standing) = approval_rows::standing(db, client.id, &fingerprint, now)? {
        let is_used = approval_rows::use_up(db, standing.id, now)?;
        if is_used {
            check_seal(seal, &standing)?;
        }
        return Ok((!is_used).then_some(Ok(standing)));
    }
    let before = now.saturating_sub(STANDS).unwrap_or(Timestamp::MIN);
    let asked = approval_rows::asked_after(db, client.id, before)?;
    if let Some(over) = asked.len().checked_sub(MOST) {
        return Ok(Some(Err(Denied::TooManyApprovals { until: asked[over] + STANDS })));
    }
    let asked = Approval {
        id: ApprovalId::random(),
        client: client.id,
        client_name: client.name.to_string(),
        action: operation.action().name.to_owned(),
        terms,
        asked: now,
        ends: now + STANDS,
        answer: None,
        fingerprint,
        seal: None,
    };
    approval_rows::insert(db, &asked)?;
    Ok(Some(Ok(asked)))
}

/// Refuses an approval that no command gave that had the key of the wallet.
fn check_seal(seal: &Seal, approval: &Approval) -> Result<(), Fault> {
    let (id, words) = (approval.id.to_string(), approval.sealed_words(approval.ends));
    seal.open(&place(&id, &words), approval.seal.clone().unwrap_or_default()).map(drop)
}

fn place<'a>(id: &'a str, words: &'a str) -> Place<'a> {
    Place { what: "approval", row: [id, words] }
}

/// A hash of all that makes it the same payment: for credits, how many are bought for which wallet, however the
/// body is written; for a tool, its parameters.
fn fingerprint(
    operation: &Operation,
    purchase: Option<Purchase>,
    terms: &PaymentTerms,
) -> [u8; 32] {
    let bought = match purchase {
        Some(Purchase { credits, recipient }) => format!("{credits} for {recipient}"),
        None => operation.call.body().to_canonical().as_str().to_owned(),
    };
    let PaymentTerms { resource, network, asset, payee, amount } = terms;
    let target = operation.call.target();
    let terms = format!("{network}\n{asset}\n{payee}\n{amount}\n{resource}\n{target}\n{bought}");
    Sha256::digest(terms).into()
}

#[cfg(test)]
mod tests;
