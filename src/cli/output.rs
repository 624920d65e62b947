//! Results, on standard output or in a file, and words for people, on standard error.

use std::{
    fmt::Display,
    io::{ErrorKind, Write, stderr},
    path::Path,
    thread,
};

use super::{failure::Failure, log};

/// Prints to standard output. A reader that has gone away, as in `… | head`, is no failure.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    print_while_read(text).map(drop)
}

/// The same; tells whether the reader is still there.
pub(super) fn print_while_read(text: &str) -> Result<bool, Failure> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(cause) if cause.kind() == ErrorKind::BrokenPipe => Ok(false),
        Err(cause) => Err(Failure::Io { doing: "write to", path: "standard output".into(), cause }),
    }
}

/// Prints to standard output from a thread of its own: what serves waits for no reader.
pub(super) fn announce(text: String) -> Result<(), Failure> {
    let printing = move || {
        if let Err(failure) = print(&text) {
            complain(failure);
        }
    };
    let thread = thread::Builder::new().name("print".to_owned()).spawn(printing);
    thread.map(drop).map_err(Failure::Runtime)
}

/// Says why the command failed, if it did, and ends the log. A proxy waits for no reader of its
/// standard error.
pub fn end(failure: Option<&Failure>) {
    if let Some(failure) = failure {
        complain(failure);
    }
    log::flush();
}

/// Tells people more than the result, on standard error.
pub(super) fn tell(text: &str) {
    let _ = stderr().write_all(text.as_bytes());
}

/// Writes to standard error, which may be closed.
pub(super) fn complain(what: impl Display) {
    let line = format!("agentpmt-proxy: {what}\n");
    if !log::push(line.as_bytes()) {
        let _ = stderr().write_all(line.as_bytes());
    }
}

/// Refuses a file to write that is there already.
pub(super) fn check_new(path: &Path) -> Result<(), Failure> {
    match path.symlink_metadata() {
        Ok(_) => Err(Failure::FileExists(path.to_owned())),
        Err(_) => Ok(()),
    }
}
