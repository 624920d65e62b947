//! The record of what was done to the proxy itself.

use rustix::process::getuid;

use super::{
    approval::{ApprovalAnswer, ApprovalId},
    freeze::FreezeOf,
};
use crate::{
    payment::AuthorizationNonce,
    types::{Address, ClientName, Slug},
};

/// An administrative act, for the journal: everything but calls. It holds no credential.
#[derive(Debug, Clone, Copy)]
pub enum Deed<'a> {
    /// A client was added.
    ClientAdd(&'a ClientName),
    /// A client was revoked.
    ClientRevoke(&'a ClientName),
    /// A client was taken off the list.
    ClientRemove(&'a ClientName),
    /// The key of a wallet is about to be copied.
    WalletExport(Address),
    /// The state is about to be copied.
    Backup,
    /// The journal is about to be printed.
    JournalExport,
    /// The records up to this number were moved into an archive.
    JournalArchive(u64),
    /// The configuration is about to be read again.
    Reload,
    /// Signatures or payments were frozen.
    Freeze(FreezeOf),
    /// Every freeze was ended.
    Thaw,
    /// A client has released a job of this wallet.
    Release(Address, &'a Slug),
    /// A client has taken a job of this wallet that was released.
    TakeReleased(Address, &'a Slug),
    /// A payment was approved or denied.
    Answer(ApprovalId, ApprovalAnswer),
    /// A payment that waited for its transaction was ended by hand.
    EndPayment(AuthorizationNonce),
}

impl Deed<'_> {
    /// Its name in the journal.
    pub(super) fn name(&self) -> &'static str {
        match self {
            Self::ClientAdd(_) => "client_add",
            Self::ClientRevoke(_) => "client_revoke",
            Self::ClientRemove(_) => "client_remove",
            Self::WalletExport(_) => "wallet_export",
            Self::Backup => "backup",
            Self::JournalExport => "journal_export",
            Self::JournalArchive(_) => "journal_archive",
            Self::Reload => "reload",
            Self::Freeze(FreezeOf::Signatures) => "freeze",
            Self::Freeze(FreezeOf::Payments) => "freeze_payments",
            Self::Thaw => "thaw",
            Self::Release(..) => "job_release",
            Self::TakeReleased(..) => "job_take",
            Self::Answer(_, ApprovalAnswer::Denied) => "payment_deny",
            Self::Answer(..) => "payment_approve",
            Self::EndPayment(_) => "payment_end",
        }
    }

    pub(super) fn client(&self) -> Option<&ClientName> {
        match self {
            Self::ClientAdd(name) | Self::ClientRevoke(name) | Self::ClientRemove(name) => {
                Some(name)
            }
            _ => None,
        }
    }

    pub(super) fn approval(&self) -> Option<ApprovalId> {
        match self {
            Self::Answer(id, _) => Some(*id),
            _ => None,
        }
    }

    pub(super) fn payment(&self) -> Option<AuthorizationNonce> {
        match self {
            Self::EndPayment(nonce) => Some(*nonce),
            _ => None,
        }
    }

    /// The number of the last record that was moved into an archive.
    pub(super) fn archived(&self) -> Option<u64> {
        match self {
            Self::JournalArchive(last) => Some(*last),
            _ => None,
        }
    }

    pub(super) fn job(&self) -> Option<&Slug> {
        match self {
            Self::Release(_, job) | Self::TakeReleased(_, job) => Some(job),
            _ => None,
        }
    }

    pub(super) fn wallet(&self) -> Option<Address> {
        match self {
            Self::WalletExport(wallet)
            | Self::Release(wallet, _)
            | Self::TakeReleased(wallet, _) => Some(*wallet),
            _ => None,
        }
    }
}

/// The user of this command, as the journal names it.
pub(super) fn user() -> String {
    format!("uid {}", getuid().as_raw())
}
