//! `freeze` and `thaw`: no signature, or no payment, until it is ended.

use clap::Args;

use super::{config_args::ConfigArgs, failure::Failure, output::tell, unused::tell_if_unused};
use crate::store::{self, FreezeOf};

/// Stop every signature or every payment, at once
///
/// When this returns, no proxy on this state signs a call any more, nor sends one with a job's token, also
/// after a restart, until `thaw`. Such calls get 503 with the code `frozen`. Calls that need no proof go on.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy freeze\n  agentpmt-proxy freeze --payments")]
pub(super) struct FreezeCommand {
    /// Stop payments alone
    #[arg(long)]
    payments: bool,
}

/// End what `freeze` began
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy thaw")]
pub(super) struct ThawCommand {}

impl FreezeCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let not_frozen = |cause| Failure::NotFrozen(Box::new(cause));
        let config = settings.load().map_err(not_frozen)?;
        let of = if self.payments { FreezeOf::Payments } else { FreezeOf::Signatures };
        let freeze = store::freeze(&config.database(), of);
        let freeze = freeze.map_err(|error| not_frozen(error.into()))?;
        let payments = if freeze.of == of { "" } else { ", and payments with them" };
        let options = settings.as_options();
        tell(&format!("Done: {freeze}{payments}, until `agentpmt-proxy thaw{options}`.\n"));
        tell_if_unused(&config)
    }
}

impl ThawCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let config = settings.load()?;
        let thawed = store::thaw(&config.database())?;
        tell(if thawed { "Nothing is frozen any more.\n" } else { "Nothing was frozen.\n" });
        tell_if_unused(&config)
    }
}
