//! A new password for a key that has one already.

use std::path::PathBuf;

use clap::Args;
use secrecy::SecretString;

use super::{failure::Failure, password};

/// Where the new password comes from: a person at a prompt, or this file.
#[derive(Debug, Args)]
pub(super) struct NewPassword {
    /// File whose first line is the new password, instead of a prompt
    #[arg(long, value_name = "FILE")]
    new_password_file: Option<PathBuf>,
}

impl NewPassword {
    /// The new password; a person is asked this question and types it twice.
    pub(super) fn choose(&self, question: &str) -> Result<SecretString, Failure> {
        match &self.new_password_file {
            Some(path) => password::Source::File(path.clone()).choose(),
            None => password::choose_at_prompt(question, Failure::NoNewPassword),
        }
    }
}
