//! `backup`: a copy of the state.

use std::path::PathBuf;

use clap::Args;

use super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::{check_new, complain, tell},
};
use crate::store::{Deed, backup, record_deed};

/// Copy the state into one new file
///
/// It works while the proxy runs. The file holds clients, journal, reservations and stored answers, and
/// no key; workflow tokens and answers are sealed with the wallet's. To restore it, end the proxy, move
/// the state folder away, make it anew for its owner alone, and put the file there as proxy.db.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy backup proxy-2026-11-27.db")]
pub(super) struct Backup {
    /// The file to write, which must be new
    file: PathBuf,
}

impl Backup {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let database = settings.load()?.database();
        check_new(&self.file)?;
        // A full disk is no reason to have no copy.
        if let Err(error) = record_deed(&database, Deed::Backup) {
            if error.is_damaged() {
                return Err(error.into());
            }
            complain(format_args!("warning: this copy is not recorded in the journal: {error}"));
        }
        backup(&database, &self.file)?;
        tell(&format!("{} is a copy of the whole state.\n", self.file.display()));
        Ok(())
    }
}
