//! Why a command failed. Each text says what to do.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    action::CallError,
    config::Mistakes,
    signer::{InvalidKey, keystore::KeysError},
    upstream::ClientError,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration has mistakes.
    #[error("the configuration cannot be used:\n{0}")]
    Config(#[from] Mistakes),
    /// There is no usable key file.
    #[error(transparent)]
    Keys(#[from] KeysError),
    /// What was given as a private key is none.
    #[error(transparent)]
    Key(#[from] InvalidKey),
    /// There is nobody to ask for a password.
    #[error(
        "the wallet's password is needed, and there is no terminal to ask for it: set \
         password_file or AGENTPMT_PROXY_PASSWORD"
    )]
    NoPassword,
    /// The two passwords that were typed differ.
    #[error("the two passwords differ; run the command again")]
    PasswordsDiffer,
    /// A new key file needs a password.
    #[error("the password is empty; a wallet needs one")]
    EmptyPassword,
    /// The address cannot be listened on.
    #[error("{}", cannot_listen(.address, .cause))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        cause: io::Error,
    },
    /// The HTTPS client cannot start.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// There is no such action.
    #[error("there is no action {given}; the actions are: {known}")]
    UnknownAction {
        /// What was given.
        given: String,
        /// The names of all actions.
        known: String,
    },
    /// What was given is no call.
    #[error("{0}")]
    Call(#[from] CallError),
    /// The operating system gave no thread, socket or signal to serve with.
    #[error("cannot serve: {cause}")]
    Runtime {
        /// What the system said.
        cause: io::Error,
    },
    /// The operating system refused.
    #[error("cannot {doing} {}: {cause}", .path.display())]
    Io {
        /// What was tried, as in `read`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
}

fn cannot_listen(address: &SocketAddr, cause: &io::Error) -> String {
    let advice = match cause.kind() {
        io::ErrorKind::AddrInUse => {
            "; stop the program that uses the port, or choose another with --listen, as in \
             --listen 127.0.0.1:0 for any free one"
        }
        io::ErrorKind::PermissionDenied => "; choose a port above 1023 with --listen",
        _ => "",
    };
    format!("cannot listen on {address}: {cause}{advice}")
}
