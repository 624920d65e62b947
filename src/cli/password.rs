//! Where the wallet's password comes from. Never from an argument, which every user of the machine
//! could read.

use std::{
    env,
    fs::File,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use secrecy::{ExposeSecret, SecretString};
use zeroize::Zeroizing;

use super::{
    config_args::ConfigArgs,
    environment::{self, MAX_PASSWORD, VARIABLE},
    failure::Failure,
    output::complain,
    secret,
};
use crate::{
    config::Config,
    files,
    signer::{
        LocalKey,
        keystore::{KeyFileError, KeystoreError, LockedKey},
    },
};

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
        if environment::has_password() {
            return Self::Variable;
        }
        let file = config.password_file.clone();
        file.or_else(|| credential().filter(|path| path.exists())).map_or(Self::Prompt, Self::File)
    }

    /// The same for a command that a person has to mean: the file of the configuration, which every program
    /// of the user can read, does not count.
    pub(super) fn of_person(settings: &ConfigArgs, config: &Config) -> Self {
        let is_given = environment::has_password() || settings.has("password_file");
        if is_given { Self::of(config) } else { Self::Prompt }
    }

    /// The key of a wallet that there is, and the password that unlocked it.
    pub(super) fn unlock(&self, key: &LockedKey) -> Result<(LocalKey, SecretString), Failure> {
        let whose = key.wallet().map_or("the wallet".to_owned(), |wallet| wallet.to_string());
        let password = self.ask(&format!("Password of {whose}: "))?;
        Ok((self.unlock_with(key, &password)?, password))
    }

    /// The key of a wallet, unlocked with a password that came from here.
    pub(super) fn unlock_with(
        &self,
        key: &LockedKey,
        password: &SecretString,
    ) -> Result<LocalKey, Failure> {
        key.unlock(password).map_err(|error| self.blame(error, password))
    }

    /// The password for a new key file: a person types it twice.
    pub(super) fn choose(&self) -> Result<SecretString, Failure> {
        const QUESTION: &str = "New password for the wallet: ";
        match self {
            Self::Prompt => choose_at_prompt(QUESTION, Failure::NoPassword),
            _ => self.not_empty(self.ask(QUESTION)?),
        }
    }

    fn not_empty(&self, password: SecretString) -> Result<SecretString, Failure> {
        if password.expose_secret().is_empty() {
            return Err(Failure::EmptyPassword(self.describe()));
        }
        Ok(password)
    }

    /// Whether there is something to read; no prompt is shown.
    pub(super) fn check(&self) -> Result<(), Failure> {
        match self {
            Self::Variable => variable().map(drop),
            Self::File(path) => first_line(path).map(drop),
            Self::Prompt => Ok(()),
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
            Self::Variable => variable(),
            Self::File(path) => first_line(path),
            Self::Prompt => prompt(question, Failure::NoPassword),
        }
    }

    /// Says of a wrong password where it came from.
    fn blame(&self, error: KeystoreError, password: &SecretString) -> Failure {
        let empty = match self {
            _ if !password.expose_secret().is_empty() => "",
            Self::File(_) => ", which is empty or begins with an empty line",
            _ => ", and is empty",
        };
        match error {
            KeystoreError::File { cause: KeyFileError::WrongPassword, .. } => {
                let origin = format!("{}{empty}", self.describe());
                Failure::WrongPassword { cause: error, origin }
            }
            _ => error.into(),
        }
    }
}

/// Asks twice for a new password.
pub(super) fn choose_at_prompt(
    question: &str,
    failed: impl Fn(io::Error) -> Failure,
) -> Result<SecretString, Failure> {
    let password = Source::Prompt.not_empty(prompt(question, &failed)?)?;
    let again = prompt("The same again: ", failed)?;
    if again.expose_secret() != password.expose_secret() {
        return Err(Failure::PasswordsDiffer);
    }
    Ok(password)
}

/// Asks at the terminal, even if standard input is something else; `failed` is for a terminal that
/// is not there or does not work.
pub(super) fn prompt(
    text: &str,
    failed: impl FnOnce(io::Error) -> Failure,
) -> Result<SecretString, Failure> {
    let typed = rpassword::prompt_password(text).map(Zeroizing::new);
    typed.map(|typed| typed.as_str().into()).map_err(|cause| match cause.kind() {
        ErrorKind::UnexpectedEof => Failure::NothingTyped,
        _ => failed(cause),
    })
}

/// The password in the variable, which [`Source::of`] has seen to be set, without the line break at its
/// end that `$(…)` would have taken, and many a tool leaves.
fn variable() -> Result<SecretString, Failure> {
    let io = |cause| Failure::Io { doing: "read", path: "standard input".into(), cause };
    let bytes = environment::password().map_err(io)?;
    let text = str::from_utf8(&bytes).map_err(|_| Failure::PasswordNotUtf8)?;
    let line = text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line));
    Ok(line.unwrap_or(text).into())
}

fn first_line(path: &Path) -> Result<SecretString, Failure> {
    let io = |cause| Failure::Io { doing: "read the password from", path: path.to_owned(), cause };
    let file = File::open(path).map_err(io)?;
    // No error, since containers mount their secrets so. The bits of the group say nothing: with an
    // access list, as systemd gives a credential, they are the most that anybody on it may do.
    let metadata = file.metadata().map_err(io)?;
    if metadata.permissions().mode() & 0o004 != 0 {
        let (closing, path) = (files::closing(path, &metadata), path.display());
        complain(format_args!(
            "warning: other users of this machine may read the wallet's password in {path}; \
             unless that is meant, {closing}"
        ));
    }
    // Enough for the longest password with the end of its line.
    let bytes = secret::read(file, MAX_PASSWORD + 2).map_err(io)?;
    let line = bytes.split_inclusive(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = str::from_utf8(line).map_err(|cause| io(io::Error::other(cause)))?;
    let password = line.lines().next().unwrap_or_default();
    if password.len() > MAX_PASSWORD {
        return Err(Failure::LongPassword(path.display().to_string()));
    }
    Ok(password.into())
}
