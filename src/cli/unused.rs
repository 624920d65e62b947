//! The folder of the state, and the warning that no running proxy uses it.

use std::path::{self, PathBuf};

use super::{failure::Failure, output::complain};
use crate::{config::Config, store::is_in_use};

/// Warns if no running proxy uses this state, since another state may have been meant.
pub(super) fn tell_if_unused(config: &Config) -> Result<(), Failure> {
    if !is_in_use(&config.database())? {
        let state = state_of(config);
        complain(format_args!(
            "no running proxy uses the state in {}, so this counts for one that is started with it \
             (name the state of another proxy with --state)",
            state.display()
        ));
    }
    Ok(())
}

/// The folder of the state, for people.
pub(super) fn state_of(config: &Config) -> PathBuf {
    path::absolute(&config.state).unwrap_or_else(|_| config.state.clone())
}
