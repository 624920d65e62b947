//! The program: reads the command line, runs it, and turns its failure into an exit code.

use std::{io::ErrorKind, process::ExitCode};

use agentpmt_proxy::{
    call::InvalidCall,
    cli::{self, Cli, Failure},
    http::{SocketError, TlsError},
    signer::keystore::{KdfError, KeyFileError, KeystoreError},
    store::{ApprovalError, ClientsError, EndPaymentError, ExportedError},
};
use clap::Parser;

// It gives free memory back without being asked, by a thread that other systems do not have.
#[cfg(all(feature = "jemalloc", target_os = "linux", target_env = "gnu"))]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let failure = Cli::parse().run().err();
    cli::end(failure.as_ref());
    failure.as_ref().map_or(ExitCode::SUCCESS, exit_code)
}

/// 1 and 2 as usual, otherwise the codes of BSD's `sysexits.h`.
fn exit_code(failure: &Failure) -> ExitCode {
    const EX_USAGE: u8 = 2;
    const EX_DATAERR: u8 = 65;
    const EX_NOINPUT: u8 = 66;
    const EX_UNAVAILABLE: u8 = 69;
    const EX_CANTCREAT: u8 = 73;
    const EX_IOERR: u8 = 74;
    const EX_NOPERM: u8 = 77;
    const EX_CONFIG: u8 = 78;
    ExitCode::from(match failure {
        Failure::NotFrozen(cause) => return exit_code(cause),
        Failure::Journal(_) | Failure::NoSuchHash { .. } => 1,
        Failure::KeyAsArgument
        | Failure::NoAllow
        | Failure::BodyForId(_)
        | Failure::FaultWithoutSandbox
        | Failure::ProxyUrl(_)
        | Failure::Call(InvalidCall::IdCount { .. }) => EX_USAGE,
        Failure::Exported { cause, .. } => match cause {
            ExportedError::Broken(_) => 1,
            ExportedError::Io(cause) if cause.kind() == ErrorKind::NotFound => EX_NOINPUT,
            ExportedError::Io(_) => EX_IOERR,
            _ => EX_DATAERR,
        },
        Failure::Config(_) | Failure::NoSpending | Failure::PayerNotHeld(_) => EX_CONFIG,
        Failure::Keystore(error) => match error {
            KeystoreError::Empty(_)
            | KeystoreError::Several { .. }
            | KeystoreError::Missing { .. } => EX_NOINPUT,
            KeystoreError::Exposed(_) => EX_NOPERM,
            KeystoreError::File { cause: KeyFileError::Kdf(KdfError::Memory(_)), .. } => {
                EX_UNAVAILABLE
            }
            KeystoreError::File { .. } => EX_DATAERR,
            KeystoreError::Exists { .. } => EX_CANTCREAT,
            KeystoreError::Io { cause, .. } if cause.kind() == ErrorKind::NotFound => EX_NOINPUT,
            KeystoreError::Io { cause, .. } if cause.kind() == ErrorKind::AlreadyExists => {
                EX_CANTCREAT
            }
            KeystoreError::Io { .. } => EX_IOERR,
        },
        Failure::Clients(error) => match error {
            ClientsError::Reserved(_) => EX_USAGE,
            ClientsError::Exists(_) | ClientsError::Taken(_) | ClientsError::Active(_) => {
                EX_CANTCREAT
            }
            ClientsError::Unknown(_) => EX_NOINPUT,
            ClientsError::Store(error) if error.is_exposed() => EX_NOPERM,
            ClientsError::Store(error) if error.is_damaged() => EX_DATAERR,
            ClientsError::Store(_) => EX_IOERR,
        },
        Failure::Approval(ApprovalError::Unknown(_)) => EX_NOINPUT,
        Failure::Approval(ApprovalError::Over { .. }) => EX_DATAERR,
        Failure::EndPayment(EndPaymentError::NoPayment(_)) => EX_NOINPUT,
        Failure::EndPayment(_) => EX_DATAERR,
        Failure::WrongPassword { .. }
        | Failure::RefusedBy { .. }
        | Failure::Approval(ApprovalError::OtherWallet(_)) => EX_NOPERM,
        Failure::NoCertificate(_)
        | Failure::Call(_)
        | Failure::Refused(_)
        | Failure::Payment(_)
        | Failure::Key(_)
        | Failure::Token(_)
        | Failure::NotMcp(_)
        | Failure::PasswordNotUtf8
        | Failure::LongPassword(_) => EX_DATAERR,
        Failure::NoPassword(_)
        | Failure::NoNewPassword(_)
        | Failure::NotConfirmed(_)
        | Failure::NoKeyTyped(_)
        | Failure::NothingTyped
        | Failure::EmptyPassword(_)
        | Failure::PasswordsDiffer
        | Failure::NoKey => EX_NOINPUT,
        Failure::FileExists(_)
        | Failure::NoTemporary { .. }
        | Failure::Socket(SocketError::NoSocket(_) | SocketError::NoFolder { .. }) => EX_CANTCREAT,
        Failure::Socket(SocketError::NoGroup(_))
        | Failure::Exposed(_)
        | Failure::NoClient { .. }
        | Failure::NowhereToAsk => EX_CONFIG,
        Failure::Tls(error) => match error {
            TlsError::Exposed(_) => EX_NOPERM,
            TlsError::Io { .. } => EX_NOINPUT,
            _ => EX_DATAERR,
        },
        Failure::Socket(_)
        | Failure::Passed(_)
        | Failure::NonePassed
        | Failure::Listen { .. }
        | Failure::NoClientOf(_)
        | Failure::NoAnswerFrom { .. }
        | Failure::NotReady(_)
        | Failure::NotReached(_)
        | Failure::Client(_)
        | Failure::Runtime(_)
        | Failure::Rerun(_)
        | Failure::OpenMemory(_) => EX_UNAVAILABLE,
        Failure::Store(error) if error.is_missing() => EX_NOINPUT,
        Failure::Store(error) if error.is_exposed() => EX_NOPERM,
        Failure::Store(error) if error.is_damaged() => EX_DATAERR,
        Failure::Io { cause, .. } if cause.kind() == ErrorKind::NotFound => EX_NOINPUT,
        Failure::Io { cause, .. } if cause.kind() == ErrorKind::AlreadyExists => EX_CANTCREAT,
        Failure::Store(_) | Failure::State(_) | Failure::Io { .. } => EX_IOERR,
    })
}
