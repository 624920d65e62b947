//! The password in the environment, where other programs could see it as long as the process lives.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    os::unix::{ffi::OsStringExt, process::CommandExt},
    process::Command,
};

use zeroize::Zeroizing;

use super::{failure::Failure, secret};

/// The variable that may hold the password.
pub(super) const VARIABLE: &str = "AGENTPMT_PROXY_PASSWORD";

/// The variable that [`move_password`] leaves instead. It says that the password is what standard
/// input holds.
const MOVED: &str = "AGENTPMT_PROXY_PASSWORD_ON_STDIN";

/// In bytes. A pipe holds at least this much, so that writing it does not wait for a reader.
pub(super) const MAX_PASSWORD: usize = 4096;

/// Whether the environment holds a password, or held one.
pub(super) fn has_password() -> bool {
    [VARIABLE, MOVED].into_iter().any(|name| env::var_os(name).map(wiped).is_some())
}

/// The password in the variable, or where [`move_password`] has put it: there it is read once.
pub(super) fn password() -> io::Result<Zeroizing<Vec<u8>>> {
    match env::var_os(VARIABLE) {
        Some(password) => Ok(wiped(password)),
        None => secret::read(secret::input()?, MAX_PASSWORD),
    }
}

/// Takes the password out of the environment, if it is there.
///
/// No process can empty the environment that it was started with, so the program is run again, in
/// the same process and with the same arguments. The password waits in a pipe meanwhile, as the
/// standard input of the new run.
pub(super) fn move_password() -> Result<(), Failure> {
    let Some(password) = env::var_os(VARIABLE).map(wiped) else { return Ok(()) };
    if password.len() > MAX_PASSWORD {
        return Err(Failure::LongPassword(VARIABLE.to_owned()));
    }
    let io = Failure::Rerun;
    let (reader, mut writer) = io::pipe().map_err(io)?;
    writer.write_all(&password).map_err(io)?;
    let mut arguments = env::args_os();
    let mut command = Command::new(env::current_exe().map_err(io)?);
    command.env_remove(VARIABLE).env(MOVED, "1").stdin(reader);
    arguments.next().map(|name| command.arg0(name));
    // It comes back only if it fails.
    Err(io(command.args(arguments).exec()))
}

fn wiped(text: OsString) -> Zeroizing<Vec<u8>> {
    Zeroizing::new(text.into_vec())
}
