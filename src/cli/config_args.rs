//! The options of the command line that give settings.

use std::{env, path::PathBuf};

use super::failure::Failure;
use crate::config::Config;

/// The part of the configuration that the command line gives.
#[derive(Debug, Clone)]
pub(super) struct ConfigArgs {
    file: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
}

impl ConfigArgs {
    pub(super) fn of_file(file: Option<PathBuf>) -> Self {
        Self { file, flags: Vec::new() }
    }

    pub(super) fn has(&self, key: &str) -> bool {
        self.flags.iter().any(|(given, _)| *given == key)
    }

    /// The same with the values of one more option.
    pub(super) fn with(
        mut self,
        key: &'static str,
        values: impl IntoIterator<Item = String>,
    ) -> Self {
        self.flags.extend(values.into_iter().map(|value| (key, value)));
        self
    }

    /// The options by which `serve` gets the same, but for the wallet.
    pub(super) fn as_options(&self) -> String {
        let file = self.file.as_ref().map(|path| ("config", path.display().to_string()));
        let flags = self.flags.iter().filter(|(key, _)| *key != "wallet").cloned();
        let option = |(key, value): (&str, String)| {
            format!(" --{} {}", key.replace('_', "-"), in_shell(&value))
        };
        file.into_iter().chain(flags).map(option).collect()
    }

    pub(super) fn load(&self) -> Result<Config, Failure> {
        Ok(Config::load(self.file.as_deref(), env::vars_os(), &self.flags)?)
    }
}

/// A word as a shell reads it.
fn in_shell(word: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-+,:@%".contains(c);
    let quoted = || format!("'{}'", word.replace('\'', r"'\''"));
    if !word.is_empty() && word.chars().all(is_plain) { word.to_owned() } else { quoted() }
}
