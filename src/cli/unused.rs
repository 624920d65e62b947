//! The warning that no running proxy uses a state.

use std::path;

use super::{failure::Failure, output::complain};
use crate::{config::Config, store::is_in_use};

/// Warns if no running proxy uses this state, since another state may have been meant.
pub(super) fn tell_if_unused(config: &Config) -> Result<(), Failure> {
    if !is_in_use(&config.database())? {
        let state = path::absolute(&config.state).unwrap_or_else(|_| config.state.clone());
        complain(format_args!(
            "no running proxy uses the state in {}, so this counts for one that is started with it \
             (name the state of another proxy with --state)",
            state.display()
        ));
    }
    Ok(())
}
