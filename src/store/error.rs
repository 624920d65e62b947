//! The faults of the store.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::freeze::Freeze;
use crate::files::Exposed;

/// Why the store did not do what it was asked. Its text is complete: it names the file, says what
/// happened, and what to do.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}: {fault}", path.display())]
pub struct StoreError {
    path: PathBuf,
    fault: Fault,
}

impl StoreError {
    pub(super) fn new(path: &Path, fault: Fault) -> Self {
        Self { path: path.to_owned(), fault }
    }

    /// The folder of the state.
    pub fn folder(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    /// The fault.
    pub fn fault(&self) -> &Fault {
        &self.fault
    }

    /// Whether there is no such file, or nothing in it.
    pub fn is_missing(&self) -> bool {
        matches!(self.fault, Fault::Missing)
    }

    /// Whether another user of the machine may change the file or its folder.
    pub fn is_exposed(&self) -> bool {
        matches!(self.fault, Fault::Exposed(_))
    }

    /// Whether the file is not what was written: damaged, or without what it held.
    pub fn is_damaged(&self) -> bool {
        matches!(
            self.fault,
            Fault::Corrupt(_)
                | Fault::Empty
                | Fault::Foreign
                | Fault::ClientsLost(_)
                | Fault::RecordsLost { .. }
        )
    }

    /// Whether a call was neither claimed nor recorded since its client may not call any more.
    pub fn is_access_ended(&self) -> bool {
        matches!(self.fault, Fault::AccessEnded)
    }

    /// Whether a call was not recorded since its payment was over.
    pub fn is_payment_over(&self) -> bool {
        matches!(self.fault, Fault::PaymentOver)
    }

    /// The freeze for which a call was not signed.
    pub fn freeze(&self) -> Option<&Freeze> {
        match &self.fault {
            Fault::Frozen(freeze) => Some(freeze),
            _ => None,
        }
    }

    /// Whether a command found no room, or no right, to write.
    pub fn is_unwritable(&self) -> bool {
        matches!(self.fault, Fault::NoRoom | Fault::NotWritable)
    }

    /// Whether nothing can be written because the disk or a quota is full.
    pub fn is_full(&self) -> bool {
        matches!(self.fault, Fault::Full)
    }
}

/// A fault of the store. No text of one has a stored value in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The file is to be read, and is not there, or nothing was ever written to it.
    #[error(
        "there is no such file, or nothing in it; `agentpmt-proxy serve` makes it, in the folder of \
         --state"
    )]
    Missing,
    /// The file that is open stands at its path no more, or was emptied.
    #[error(
        "it was removed, moved or emptied while the proxy runs; restore it with its -wal file, and the \
         proxy goes on by itself; after a restart, the proxy uses the file at this path"
    )]
    Gone,
    /// Another database stands in the place of the one that was open.
    #[error(
        "it was replaced while the proxy runs, by one whose journal does not hold record {0}, \
         the last that is known here; bring the right one back, and the proxy goes on by itself, or \
         restart the proxy to accept this one"
    )]
    Replaced(u64),
    /// Another user of the machine may change it or its folder.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// The disk or a quota is full.
    #[error(
        "the disk is full, so nothing can be recorded; free some space, and the proxy goes on by \
         itself"
    )]
    Full,
    /// The file, its folder or its disk takes no writes.
    #[error(
        "it cannot be written to; make the file, its folder and its disk writable, and the proxy \
         goes on by itself"
    )]
    ReadOnly,
    /// The disk or a quota was full when a command began or wrote.
    #[error("the disk is full; free some space, and run this again")]
    NoRoom,
    /// The disk or a quota was full when a copy was written, or the disk or its folder took no writes.
    #[error("{0} write the copy to another disk or folder")]
    NoRoomForCopy(&'static str),
    /// A copy was to be written into a folder that is not there.
    #[error("the folder {} does not exist; make it, or name another", .0.display())]
    NoFolder(PathBuf),
    /// The file, its folder or its disk took no writes when a command began or wrote.
    #[error(
        "it cannot be written to; make the file, its folder and its disk writable, and run this again"
    )]
    NotWritable,
    /// Another process held the write lock for longer than a write may wait.
    #[error("another process keeps it locked; end that process, or wait until it is done")]
    Busy,
    /// More is to be recorded than the disk takes.
    #[error("the disk takes records more slowly than they come; use a faster one")]
    Behind,
    /// The content is no database, or a damaged one.
    #[error(
        "it is damaged or no database ({0}); bring it back from a copy in a new folder, or, to begin \
         anew, move its folder away"
    )]
    Corrupt(String),
    /// A database without tables, where there should be records.
    #[error(
        "it holds no tables: what it held is lost, perhaps with its -wal file; bring it back from a \
         copy in a new folder, or, to begin anew, move its folder away"
    )]
    Empty,
    /// There were clients, and now there are none, so the database was lost.
    #[error(
        "clients were added to it, as {} says, and they are lost; bring it back from a copy in a new \
         folder, or, to begin anew, move its folder away: then every program on this machine may call \
         until a client is added", .0.display()
    )]
    ClientsLost(PathBuf),
    /// Its journal ends before a record that was written, so it was cut, or an older one was put in
    /// its place.
    #[error(
        "record {seq} of its journal was written, as {} says, and is not in it: records were lost, or \
         an older copy stands in its place; bring it back from a copy in a new folder, or, to go on \
         with what is there, remove {} and run `agentpmt-proxy thaw` once it has started: a change whose \
         record is lost may then be made twice",
        head.display(), head.display()
    )]
    RecordsLost {
        /// The number of the record.
        seq: u64,
        /// The file that says so.
        head: PathBuf,
    },
    /// Records were moved into an archive while they were read.
    #[error("records were moved into an archive meanwhile; run this again")]
    Overtaken,
    /// A copy was to be written where the database cannot write.
    #[error("the path is not UTF-8; name another one")]
    PathNotUtf8,
    /// A database that another program has made, or whose tables were removed.
    #[error(
        "it is a database, but not one of agentpmt-proxy, or its tables were removed; it was not \
         touched: name another folder with --state, or bring it back from a copy"
    )]
    Foreign,
    /// A later version of this program has written it.
    #[error(
        "a newer agentpmt-proxy has written it (schema {found}; this one knows {known}); use that \
         version, or another folder with --state"
    )]
    NewerSchema {
        /// The version of the schema in the file.
        found: usize,
        /// The newest version that is known here.
        known: usize,
    },
    /// An older version of this program uses it.
    #[error(
        "an older agentpmt-proxy uses it, and would not know of the change, so nothing was changed: end \
         that process, and run this again"
    )]
    OlderInUse,
    /// A sealed value does not open.
    #[error(
        "a stored {0} does not open with this wallet's key: it was sealed for another wallet, or \
         altered; use the wallet it was stored for, or another folder with --state"
    )]
    Sealed(&'static str),
    /// A value in the file is not of its form.
    #[error("a stored {0} has a form that this program does not write; the file was altered")]
    Malformed(&'static str),
    /// An answer is settled for a key that this run of the process has not claimed.
    #[error("the answer's Idempotency-Key is not claimed by this process; this is a bug")]
    NotClaimed,
    /// The access of a call's client ended while the call was being made.
    #[error("the client's access has ended")]
    AccessEnded,
    /// Another process has noted the end of a payment that was to be sent.
    #[error("the payment is over: it was settled, or given back")]
    PaymentOver,
    /// Signatures or payments are frozen.
    #[error("{0}; `agentpmt-proxy thaw` ends that")]
    Frozen(Freeze),
    /// The thread of the store has ended.
    #[error("the store has stopped; restart the proxy")]
    Stopped,
    /// The operating system refused.
    #[error("cannot {doing}: {cause}; check the path, its permissions and its disk")]
    Io {
        /// The attempted step, as a verb.
        doing: &'static str,
        /// The error of the operating system or the database.
        cause: String,
    },
    /// The database refused a statement for a reason that should not arise.
    #[error("a statement failed: {0}; this is a bug")]
    Statement(String),
}

impl Fault {
    /// The same for a command, which ends with it: only a running proxy goes on by itself.
    pub(super) fn of_command(self) -> Self {
        match self {
            Self::Full => Self::NoRoom,
            Self::ReadOnly => Self::NotWritable,
            other => other,
        }
    }

    /// The same for a copy that a command writes, beside the database.
    pub(super) fn of_copy(self) -> Self {
        match self {
            Self::Full => Self::NoRoomForCopy("the disk is full; free some space, or"),
            Self::ReadOnly => Self::NoRoomForCopy("it cannot be written to;"),
            other => other,
        }
    }

    /// The error of the operating system about an attempted step.
    pub(super) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |cause| match cause.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Io { doing, cause: cause.to_string() },
        }
    }
}
