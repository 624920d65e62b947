//! Why a command failed. Each text says what to do.

use std::{io, net::SocketAddr, path::PathBuf};

use crate::{
    action::Action,
    call::InvalidCall,
    config::{ListenAddress, Mistakes},
    http::{SocketError, TlsError},
    policy::Allow,
    proxy::CallError,
    signer::{InvalidKey, keystore::KeystoreError},
    store::{
        ApprovalError, Broken, ClientsError, EndPaymentError, ExportedError, StoreError,
        VerifyError,
    },
    types::{Address, InvalidToken},
    upstream::ClientError,
};

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// The configuration has mistakes.
    #[error("the configuration cannot be used:\n{0}")]
    Config(#[from] Mistakes),
    /// There is no usable key file.
    #[error("{}", no_usable_key(.0))]
    Keystore(#[from] KeystoreError),
    /// The input is no private key.
    #[error("{0}; a key file is imported by its path: `agentpmt-proxy wallet import FILE`")]
    Key(#[from] InvalidKey),
    /// No private key came.
    #[error(
        "standard input is empty; a private key is expected there, as in \
         `agentpmt-proxy wallet import < key.txt`"
    )]
    NoKey,
    /// A private key was given where a path belongs. The text does not repeat it.
    #[error(
        "a private key must not be an argument, which other users and the shell's history see; \
         run `agentpmt-proxy wallet import` and paste it there"
    )]
    KeyAsArgument,
    /// The password did not open the key file.
    #[error("{cause}; the password came from {origin}")]
    WrongPassword {
        /// The error of the key file.
        cause: KeystoreError,
        /// Where the password came from.
        origin: String,
    },
    /// The password in the variable is no text.
    #[error("the password in AGENTPMT_PROXY_PASSWORD is not UTF-8; set it in UTF-8")]
    PasswordNotUtf8,
    /// There is no terminal to ask for the password.
    #[error(
        "the wallet's password is needed, and there is no terminal to ask for it ({0}); set \
         AGENTPMT_PROXY_PASSWORD, or name a file with --password-file"
    )]
    NoPassword(io::Error),
    /// There is no terminal to ask for a new password.
    #[error(
        "a new password is needed, and there is no terminal to ask for it ({0}); name a file that \
         holds it with --new-password-file"
    )]
    NoNewPassword(io::Error),
    /// The export of this wallet's key was not confirmed.
    #[error(
        "nothing was exported, since the last 4 digits of {0} were not typed; type them when \
         asked, or pass them on standard input"
    )]
    NotConfirmed(Address),
    /// There is no terminal to ask for a private key.
    #[error(
        "there is no terminal to ask for the private key ({0}); pass it on standard input, as in \
         `agentpmt-proxy wallet import < key.txt`"
    )]
    NoKeyTyped(io::Error),
    /// The input at the prompt ended without a line.
    #[error("nothing was typed; run the command again")]
    NothingTyped,
    /// The two passwords that were typed differ.
    #[error("the two passwords differ; run the command again")]
    PasswordsDiffer,
    /// A new key file needs a password, and the one from this place is empty.
    #[error("the password from {0} is empty; a wallet needs one")]
    EmptyPassword(String),
    /// The password from this place is longer than any that is taken.
    #[error("the password from {0} is longer than 4096 bytes; give the wallet a shorter one")]
    LongPassword(String),
    /// The program could not be run again without the password in its environment.
    #[error(
        "the password cannot be taken out of the environment ({0}); instead of setting \
         AGENTPMT_PROXY_PASSWORD, name a file with --password-file"
    )]
    Rerun(io::Error),
    /// The address cannot be listened on.
    #[error("{}", cannot_listen(.address, .cause))]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// The unix socket cannot be listened on.
    #[error(transparent)]
    Socket(#[from] SocketError),
    /// Systemd passed something that cannot be listened on.
    #[error(
        "systemd passed something other than a listening stream socket: {0}; use ListenStream= in the \
         .socket unit"
    )]
    Passed(io::Error),
    /// Systemd passed nothing.
    #[error(
        "systemd passed no socket; `listen = \"systemd\"` is for a service that a .socket unit starts"
    )]
    NonePassed,
    /// The socket that systemd passed at this address is open to other machines, without TLS.
    #[error(
        "systemd passed a socket on {0}, which other machines reach, and tokens must not cross \
         the network in the clear, so it needs TLS: set tls.certificate and tls.key, or \
         behind_tls_proxy = true if a proxy in front terminates TLS"
    )]
    Exposed(ListenAddress),
    /// Callers have to be clients, and there is none.
    #[error(
        "{why}, and {} holds no client that may call; add one with: agentpmt-proxy client add NAME \
         --allow jobs; or, if it held some before, restore that file from a copy", database.display()
    )]
    NoClient {
        /// Why they have to be.
        why: String,
        /// Where clients would be.
        database: PathBuf,
    },
    /// Nothing was frozen.
    #[error("NOTHING IS FROZEN: {0}; {advice}", advice = not_frozen(.0))]
    NotFrozen(Box<Failure>),
    /// An approval is as it was.
    #[error(transparent)]
    Approval(#[from] ApprovalError),
    /// A payment is not one to end.
    #[error(transparent)]
    EndPayment(#[from] EndPaymentError),
    /// TLS cannot be set up.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// No proxy became ready at this address in time.
    #[error("no proxy was ready on {0} in time; start it with: agentpmt-proxy serve")]
    NotReady(ListenAddress),
    /// No proxy at this address reached the upstream in time.
    #[error(
        "no proxy on {0} reached the upstream in time; if one runs there, GET /proxy/status \
         and its log say why"
    )]
    NotReached(ListenAddress),
    /// Only systemd knows where the proxy listens.
    #[error("only systemd knows where the proxy listens; name the place with --listen")]
    NowhereToAsk,
    /// The URL of the proxy cannot be used.
    #[error(
        "--url {0} cannot be used: give https://HOST:PORT, http://HOST:PORT for this machine (tokens \
         must not cross the network in the clear), or unix:PATH"
    )]
    ProxyUrl(String),
    /// The token in the variable is none.
    #[error("AGENTPMT_PROXY_TOKEN: {0}; `agentpmt-proxy client add` prints one")]
    Token(InvalidToken),
    /// The client of a running proxy cannot be made.
    #[error("the proxy cannot be reached: {0}")]
    NoClientOf(reqwest::Error),
    /// A running proxy did not answer.
    #[error("the proxy at {place} did not answer ({cause}); start it with: agentpmt-proxy serve")]
    NoAnswerFrom {
        /// Where it was asked.
        place: String,
        /// Why.
        cause: reqwest::Error,
    },
    /// A running proxy refused.
    #[error("the proxy at {place} refused: {detail}")]
    RefusedBy {
        /// Where it was asked.
        place: String,
        /// Its reason and what to do.
        detail: String,
    },
    /// The program at standard input does not speak the protocol.
    #[error("standard input does not begin as MCP does: {0}; an MCP client starts this command")]
    NotMcp(Box<rmcp::service::ServerInitializeError>),
    /// A fault was asked for, and no sandbox that could have it.
    #[error("--fault needs --sandbox: faults belong to the sandbox, not to a real upstream")]
    FaultWithoutSandbox,
    /// The HTTPS client cannot start.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The state of a proxy cannot be written.
    #[error("{0}, or name a folder on another disk with --state")]
    State(StoreError),
    /// The journal is not as it was written.
    #[error(transparent)]
    Journal(#[from] Broken),
    /// The journal does not hold what it held.
    #[error(
        "no record of the journal has the hash {hash}: its end was cut off, it was written anew or \
         replaced, or the record was moved into an archive; the {records} records that are there form one chain"
    )]
    NoSuchHash {
        /// The hash that was expected.
        hash: String,
        /// How many records there are.
        records: u64,
    },
    /// A file of records does not hold.
    #[error("{}: {cause}", path.display())]
    Exported {
        /// The file.
        path: PathBuf,
        /// Why.
        cause: ExportedError,
    },
    /// The clients stay as they are.
    #[error(transparent)]
    Clients(ClientsError),
    /// A client was to be added, and nothing said what it may call.
    #[error(
        "say with --allow what the client may call, as in --allow jobs; there are {}",
        Allow::words()
    )]
    NoAllow,
    /// This file holds no certificate.
    #[error("{} holds no certificate in PEM form (-----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// The body of a call to this action stands where an id belongs.
    #[error("{}", no_id(.0))]
    BodyForId(&'static Action),
    /// The proxy would refuse the call.
    #[error("{0}; leave the field out, or name the wallet with --wallet")]
    Refused(Box<CallError>),
    /// A demand would not be paid.
    #[error("{0}; nothing would be paid")]
    Payment(Box<CallError>),
    /// The wallet that is to pay is none that would be opened.
    #[error(
        "spending.wallet is {0}, and this proxy would not open its key: name a wallet that it signs with \
         (`agentpmt-proxy wallet list` shows those that have a key file), or add that one under [[wallets]]"
    )]
    PayerNotHeld(Address),
    /// Nothing is paid at all.
    #[error(
        "nothing is paid without [spending] in the configuration: see `agentpmt-proxy manual paying`"
    )]
    NoSpending,
    /// The arguments make no call.
    #[error("{0}")]
    Call(#[from] InvalidCall),
    /// The operating system does not let this process close its memory.
    #[error(
        "the memory of this process cannot be protected from other programs ({0}); allow it to \
         call setrlimit and prctl"
    )]
    OpenMemory(io::Error),
    /// The operating system gave no thread, socket or signal to serve with.
    #[error("cannot serve: {0}")]
    Runtime(io::Error),
    /// There is no room for the folder of a sandbox.
    #[error(
        "cannot make the sandbox's folder in {} (TMPDIR): {cause}; set TMPDIR, or name a folder with \
         --state", folder.display()
    )]
    NoTemporary {
        /// Where it was to be.
        folder: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// This file was to be written, and is there.
    #[error("{} is there already, and nothing was written; name a new file", .0.display())]
    FileExists(PathBuf),
    /// The operating system refused.
    #[error("cannot {doing} {}: {cause}", .path.display())]
    Io {
        /// The attempted step, as in `read the key file`.
        doing: &'static str,
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
}

impl Failure {
    /// For the state that a proxy is to use: only a proxy may be given another one.
    pub(super) fn of_state(error: StoreError) -> Self {
        if error.is_unwritable() { Self::State(error) } else { Self::Store(error) }
    }
}

/// The text of the library, and what only the command line can add to it.
fn no_usable_key(error: &KeystoreError) -> String {
    match error {
        KeystoreError::Empty(_) => format!(
            "there is no wallet yet: {error}, or try the proxy without one: \
             `agentpmt-proxy serve --sandbox`"
        ),
        KeystoreError::Several { .. } => format!("{error}, as in --wallet ADDRESS"),
        _ => error.to_string(),
    }
}

impl From<VerifyError> for Failure {
    fn from(error: VerifyError) -> Self {
        match error {
            VerifyError::Broken(broken) => Self::Journal(broken),
            VerifyError::Store(error) => Self::Store(error),
        }
    }
}

impl From<ClientsError> for Failure {
    fn from(error: ClientsError) -> Self {
        match error {
            ClientsError::Store(error) => Self::Store(error),
            error => Self::Clients(error),
        }
    }
}

/// The way to stop a proxy all the same.
fn not_frozen(cause: &Failure) -> &'static str {
    match cause {
        Failure::Store(error) if error.is_missing() => {
            "name the state of the running proxy with --state, which it printed as it started, or send \
             it POST /proxy/freeze"
        }
        _ => "to stop a proxy that runs at once, end its process",
    }
}

fn no_id(action: &Action) -> String {
    let names: Vec<_> = action.id_names().collect();
    let (needed, shown) = (names.join(" and a "), names.join(" ").to_uppercase());
    format!("{action} needs a {needed} before the body, as in explain {action} {shown} '{{…}}'")
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
