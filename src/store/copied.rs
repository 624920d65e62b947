//! A copy of the database in the place of the one that a proxy used. It does not know of what was signed
//! and paid since it was made, nor of a freeze: so nothing is signed until a person thaws it.

use std::path::Path;

use super::{db::Db, error::Fault, freeze::FreezeOf, freeze_rows, head};

/// The name for the journal and in the freeze.
const BY: &str = "the first start of a restored copy";

/// Freezes all signatures if the database is a copy. A proxy does it as it opens the database, before it
/// begins a head.
pub(super) fn freeze_copy(database: &Path, db: &Db) -> Result<(), Fault> {
    if !head::is_of_copy(database, db)? {
        return Ok(());
    }
    db.transaction(|db| freeze_rows::freeze(db, FreezeOf::Signatures, BY))?;
    tracing::warn!(
        path = %head::path(database).display(),
        "it is not there, as in a restored copy: what was signed, spent, paid, frozen and revoked since \
         the copy was made is not known, and approvals that were used count again; so nothing is signed \
         until `agentpmt-proxy thaw`"
    );
    Ok(())
}
