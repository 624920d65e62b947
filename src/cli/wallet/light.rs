//! The cost of unlocking a key file.

use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use crate::{cli::output::complain, signer::keystore::ScryptCost};

/// How many characters make a password long.
const LONG: usize = 16;

/// Whether a key file is to be cheap to unlock.
#[derive(Debug, Args)]
pub(in crate::cli) struct Light {
    /// Make unlocking take 4 MiB of memory instead of 256; choose a longer password then
    #[arg(long)]
    light: bool,
}

impl Light {
    /// The cost; a password that is short for the light one is warned of.
    pub(super) fn cost(&self, password: &SecretString) -> ScryptCost {
        if !self.light {
            return ScryptCost::STANDARD;
        }
        if password.expose_secret().chars().count() < LONG {
            complain(format_args!(
                "warning: the password has fewer than {LONG} characters, and --light lets a thief try \
                 many in a short time; choose a longer one with `agentpmt-proxy wallet passwd --light`"
            ));
        }
        ScryptCost::LIGHT
    }
}
