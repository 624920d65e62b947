//! Asking a person about a payment, and the answer, which only a command gives.

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
    journal::append_deed,
};
use crate::{operation::Operation, payment::PaymentTerms, policy::Denied};

/// How many payments of one client may wait.
const MOST: usize = 16;

/// Why an approval is as it was.
#[derive(Debug, thiserror::Error)]
pub enum ApprovalError {
    /// There is none with this number.
    #[error("there is no approval {0}; `agentpmt-proxy approvals` shows those there are")]
    Unknown(ApprovalId),
    /// It waits no longer.
    #[error("approval {id} is {} and takes no other answer; `agentpmt-proxy approvals` shows those that wait",
            state.as_str())]
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
    let all = file::must_exist(path).and_then(|()| approval_rows::all(&file::open(path)?));
    all.map_err(|fault| StoreError::new(path, fault.of_command()))
}

/// Approves or denies a payment that waits, by a command.
///
/// # Errors
/// It could not be read or written. Or there is none that waits, which is the inner error.
pub fn answer_approval(
    path: &Path,
    id: ApprovalId,
    answer: ApprovalAnswer,
    now: Timestamp,
) -> Result<Result<Approval, ApprovalError>, StoreError> {
    let done = file::must_exist(path).and_then(|()| {
        file::open(path)?.transaction(|db| {
            let Some(found) = approval_rows::find(db, id)? else {
                return Ok(Err(ApprovalError::Unknown(id)));
            };
            let state = found.state(now);
            if state != ApprovalState::Waiting {
                return Ok(Err(ApprovalError::Over { id, state }));
            }
            let (by, ends) = (user(), now + STANDS);
            approval_rows::answer(db, id, answer, &by, ends)?;
            append_deed(db, Deed::Answer(id, answer), &by)?;
            Ok(Ok(Approval { ends, answer: Some((answer, by)), ..found }))
        })
    });
    done.map_err(|fault: Fault| StoreError::new(path, fault.of_command()))
}

/// Uses up the approval of a payment of this call, given by its hash, in the transaction that records the
/// payment: then it returns nothing. Else it returns the approval that stands, or a new one that waits.
pub(super) fn ask(
    db: &Db,
    operation: &Operation,
    call: &[u8; 32],
    terms: PaymentTerms,
    now: Timestamp,
) -> Result<Option<Result<Approval, Denied>>, Fault> {
    let (client, fingerprint) = (&operation.client, fingerprint(call, &terms));
    if let Some(standing) = approval_rows::standing(db, client.id, &fingerprint, now)? {
        let is_used = approval_rows::use_up(db, standing.id, now)?;
        return Ok((!is_used).then_some(Ok(standing)));
    }
    let all = approval_rows::of_client(db, client.id, now)?;
    let waiting: Vec<_> =
        all.iter().filter(|one| one.state(now) == ApprovalState::Waiting).collect();
    if waiting.len() >= MOST {
        let until = waiting.iter().map(|one| one.ends).min().unwrap_or(now);
        return Ok(Some(Err(Denied::TooManyApprovals { until })));
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
    };
    approval_rows::insert(db, &asked, &fingerprint)?;
    Ok(Some(Ok(asked)))
}

/// A hash of all that makes it the same payment of the same call.
fn fingerprint(call: &[u8; 32], terms: &PaymentTerms) -> [u8; 32] {
    let PaymentTerms { resource, network, asset, payee, amount } = terms;
    let terms = format!("{network}\n{asset}\n{payee}\n{amount}\n{resource}");
    Sha256::new_with_prefix(call).chain_update(terms).finalize().into()
}

#[cfg(test)]
mod tests;
