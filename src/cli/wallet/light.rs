//! What unlocking a key file costs.

use clap::Args;

use crate::signer::keystore::ScryptCost;

/// Whether a key file is to be cheap to unlock.
#[derive(Debug, Args)]
pub(in crate::cli) struct Light {
    /// Let unlocking take 4 MiB of memory instead of 256: choose a long password then
    #[arg(long)]
    light: bool,
}

impl Light {
    pub(super) fn cost(&self) -> ScryptCost {
        if self.light { ScryptCost::LIGHT } else { ScryptCost::STANDARD }
    }
}
