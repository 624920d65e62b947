//! Where the wallet's password comes from. Never from an argument, which every user of the machine
//! could read.

use std::{
    env, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
};

use secrecy::SecretString;
use zeroize::Zeroizing;

use super::Failure;
use crate::config::Config;

/// The variable that may hold the password.
const VARIABLE: &str = "AGENTPMT_PROXY_PASSWORD";

/// The name of the systemd credential that may hold the password.
const CREDENTIAL: &str = "agentpmt-proxy.password";

/// Where a password comes from, the first that is there.
#[derive(Debug)]
pub(super) enum Source {
    Variable,
    File(PathBuf),
    Prompt,
}

impl Source {
    pub(super) fn of(config: &Config) -> Self {
        let credential =
            || Some(Path::new(&env::var_os("CREDENTIALS_DIRECTORY")?).join(CREDENTIAL));
        if env::var_os(VARIABLE).is_some() {
            return Self::Variable;
        }
        let file = config.password_file.clone();
        file.or_else(|| credential().filter(|path| path.exists())).map_or(Self::Prompt, Self::File)
    }

    /// The password of a wallet that there is.
    pub(super) fn read(&self) -> Result<SecretString, Failure> {
        self.ask("Password of the wallet: ")
    }

    /// The password for a new key file: a person types it twice.
    pub(super) fn choose(&self) -> Result<SecretString, Failure> {
        use secrecy::ExposeSecret;
        let password = self.ask("New password for the wallet: ")?;
        if password.expose_secret().is_empty() {
            return Err(Failure::EmptyPassword);
        }
        if matches!(self, Self::Prompt) {
            let again = prompt("The same again: ")?;
            if again.expose_secret() != password.expose_secret() {
                return Err(Failure::PasswordsDiffer);
            }
        }
        Ok(password)
    }

    /// Whether there is something to read; nobody is asked anything.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Variable | Self::Prompt => Ok(()),
            Self::File(path) => first_line(path).map(drop),
        }
    }

    /// For people, as in "the password comes from …".
    pub(super) fn describe(&self) -> String {
        match self {
            Self::Variable => VARIABLE.to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Prompt => "a prompt".to_owned(),
        }
    }

    fn ask(&self, question: &str) -> Result<SecretString, Failure> {
        match self {
            // A text that is not UTF-8 opens nothing, and the error says so.
            Self::Variable => Ok(env::var(VARIABLE).unwrap_or_default().into()),
            Self::File(path) => first_line(path),
            Self::Prompt => prompt(question),
        }
    }
}

/// Asks at the terminal, even if standard input is something else.
pub(super) fn prompt(text: &str) -> Result<SecretString, Failure> {
    let typed = rpassword::prompt_password(text);
    typed.map(SecretString::from).map_err(|error| match error.kind() {
        ErrorKind::UnexpectedEof => Failure::NothingTyped,
        _ => Failure::NoPassword,
    })
}

fn first_line(path: &Path) -> Result<SecretString, Failure> {
    let io = |cause| Failure::Io { doing: "read the password from", path: path.to_owned(), cause };
    let text = Zeroizing::new(fs::read_to_string(path).map_err(io)?);
    Ok(text.lines().next().unwrap_or_default().into())
}
