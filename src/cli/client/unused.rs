//! The warning that no running proxy uses a state.

use std::path;

use crate::{
    cli::{failure::Failure, output::complain},
    config::Config,
    store::Clients,
};

/// Warns if no running proxy uses this state, since another state may have been meant.
pub(super) fn tell_if_unused(clients: &Clients, config: &Config) -> Result<(), Failure> {
    if !clients.is_followed()? {
        let state = path::absolute(&config.state).unwrap_or_else(|_| config.state.clone());
        complain(format_args!(
            "no running proxy uses the state in {}, so this counts for one that is started with it \
             (name the state of another proxy with --state)",
            state.display()
        ));
    }
    Ok(())
}
