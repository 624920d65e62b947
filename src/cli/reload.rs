//! Reading the configuration again while the proxy runs.

use std::sync::{Arc, Mutex, PoisonError};

use super::{config_args::ConfigArgs, log::Log};
use crate::{
    config::Config,
    http::{Guard, Live, Tls},
    proxy::Proxy,
};

/// The parts that a reload needs and changes.
pub(super) struct Reload {
    /// Where the configuration comes from.
    pub(super) settings: ConfigArgs,
    /// The one that holds.
    pub(super) config: Mutex<Config>,
    pub(super) log: Log,
    pub(super) proxy: Arc<Proxy>,
}

impl Reload {
    /// Reads the configuration and what it names, and changes what may change. One call at a time.
    ///
    /// # Errors
    /// The mistakes, with which nothing is changed.
    pub(super) fn read(&self) -> Result<Live, String> {
        let next = self.settings.load().map_err(|failure| failure.to_string())?;
        let mut config = self.config.lock().unwrap_or_else(PoisonError::into_inner);
        let fixed = config.fixed_changes(&next);
        if !fixed.is_empty() {
            let fixed = fixed.join(", ");
            return Err(format!("these changes need a restart: {fixed}"));
        }
        let tls = Tls::load(&next.tls).map_err(|error| error.to_string())?;
        // Nothing fails from here on.
        self.log.set_level(next.log.level);
        self.proxy.expose_workflow_token(next.expose_workflow_token);
        self.proxy.set_max_in_flight(next.max_in_flight);
        let live = Live::new(tls, guard(&next));
        *config = next;
        Ok(live)
    }
}

/// The guard that a configuration asks for.
pub(super) fn guard(config: &Config) -> Guard {
    Guard {
        hosts: config.allowed_hosts.clone(),
        origins: config.allowed_origins.clone(),
        is_https: config.is_covered(),
    }
}
