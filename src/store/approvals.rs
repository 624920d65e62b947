//! Asking a person about a payment, and the answer, which only a command gives.

use std::path::Path;

use jiff::Timestamp;
use sha2::{Digest, Sha256};

use super::{
    approval::{Approval, ApprovalAnswer, ApprovalId, ApprovalState, PaymentTerms, STANDS},
    approval_rows,
    db::Db,
    deed::{Deed, user},
    error::{Fault, StoreError},
    file,
    handle::Store,
    journal::append_deed,
};
use crate::{operation::Operation, policy::Denied};

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
    /// The approval of a payment for a call, which a hash stands for: one that stands, or a new one that
    /// waits. One that is approved is used up by [`Store::use_approval`] before the payment is signed.
    ///
    /// # Errors
    /// It could not be read or written. Or too many of the client wait, which is the inner error.
    pub async fn approval_of(
        &self,
        operation: &Operation,
        call: [u8; 32],
        terms: PaymentTerms,
        now: Timestamp,
    ) -> Result<Result<Approval, Denied>, StoreError> {
        let fingerprint = fingerprint(call, &terms);
        let asked = Approval {
            id: ApprovalId::random(),
            client: operation.client.id,
            client_name: operation.client.name.to_string(),
            action: operation.action().name.to_owned(),
            terms,
            asked: now,
            ends: now + STANDS,
            answer: None,
        };
        let ask = move |db: &Db| {
            if let Some(standing) = approval_rows::standing(db, asked.client, &fingerprint, now)? {
                return Ok(Ok(standing));
            }
            let all = approval_rows::of_client(db, asked.client, now)?;
            let waiting = all.iter().filter(|one| one.state(now) == ApprovalState::Waiting);
            if waiting.clone().count() >= MOST {
                let until = waiting.map(|one| one.ends).min().unwrap_or(now);
                return Ok(Err(Denied::TooManyApprovals { until }));
            }
            approval_rows::insert(db, &asked, &fingerprint)?;
            Ok(Ok(asked))
        };
        self.write(ask).await
    }

    /// Uses up an approval, for one payment. Tells whether it was approved and still stood.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn use_approval(&self, id: ApprovalId, now: Timestamp) -> Result<bool, StoreError> {
        self.write(move |db| approval_rows::use_up(db, id, now)).await
    }

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

/// A hash of all that makes it the same payment of the same call.
fn fingerprint(call: [u8; 32], terms: &PaymentTerms) -> [u8; 32] {
    let PaymentTerms { resource, network, asset, payee, amount } = terms;
    let terms = format!("{network}\n{asset}\n{payee}\n{amount}\n{resource}");
    Sha256::new_with_prefix(call).chain_update(terms).finalize().into()
}

#[cfg(test)]
mod tests;
