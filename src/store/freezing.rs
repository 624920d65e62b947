//! Freezing and thawing, for the proxy and for the commands.
//!
//! A change that is signed is recorded in the same transaction that finds no freeze. For reads, a freeze is
//! known as the clients are: under a lease, after which a freeze is acknowledged.

use std::path::Path;

use tokio::time::sleep;

use super::{
    db::Db,
    deed::user,
    error::{Fault, StoreError},
    file,
    freeze::{Freeze, FreezeOf},
    freeze_rows,
    handle::Store,
    journal::ACKNOWLEDGED,
};

impl Store {
    /// Freezes these, and returns the freeze that stands: an earlier one stays. Once this returns, no
    /// process on this file signs or pays what is frozen.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn freeze(&self, of: FreezeOf, by: &str) -> Result<Freeze, StoreError> {
        let by = by.to_owned();
        let frozen = self.write(move |db| freeze_rows::freeze(db, of, &by)).await?;
        sleep(ACKNOWLEDGED).await;
        Ok(frozen)
    }

    /// Ends every freeze; tells whether there was any.
    ///
    /// # Errors
    /// It could not be written.
    pub async fn thaw(&self, by: &str) -> Result<bool, StoreError> {
        let by = by.to_owned();
        let thawed = self.write(move |db| freeze_rows::thaw(db, &by)).await?;
        sleep(ACKNOWLEDGED).await;
        Ok(thawed)
    }

    /// The freeze that stands, that of signatures first. It is known as [`Store::client_by`] knows a client.
    ///
    /// # Errors
    /// It cannot be read.
    pub async fn frozen(&self) -> Result<Option<Freeze>, StoreError> {
        let known = &self.0.known;
        if let Some(freeze) = known.freeze() {
            return Ok(self.renewed(freeze));
        }
        let known = known.clone();
        self.read(move |db| known.find_freeze(db)).await
    }

    /// Refuses a signature while these are frozen: a freeze of signatures stops payments as well.
    ///
    /// # Errors
    /// They are, or it cannot be read whether they are.
    pub async fn check_unfrozen(&self, of: FreezeOf) -> Result<(), StoreError> {
        match self.frozen().await? {
            Some(freeze) if freeze.of == FreezeOf::Signatures || of == FreezeOf::Payments => {
                Err(StoreError::new(&self.0.path, Fault::Frozen(freeze)))
            }
            _ => Ok(()),
        }
    }
}

/// Freezes these by a command, in the database at this path, which must be there. See [`Store::freeze`].
///
/// # Errors
/// It could not be written.
pub fn freeze(path: &Path, of: FreezeOf) -> Result<Freeze, StoreError> {
    command(path, |db| freeze_rows::freeze(db, of, &user()))
}

/// Ends every freeze by a command; tells whether there was any.
///
/// # Errors
/// It could not be written.
pub fn thaw(path: &Path) -> Result<bool, StoreError> {
    command(path, |db| freeze_rows::thaw(db, &user()))
}

fn command<T>(path: &Path, work: impl FnOnce(&Db) -> Result<T, Fault>) -> Result<T, StoreError> {
    let done = file::change(path, work)?;
    std::thread::sleep(ACKNOWLEDGED);
    Ok(done)
}

#[cfg(test)]
mod tests;
