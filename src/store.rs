//! What must survive: the journal of what was signed, the answers to idempotency keys, the
//! reservations, and the clients.
//!
//! It is an SQLite database. All SQL stands in this module, behind methods that say what they are
//! for, so that another database can come behind the same methods. Several processes may use one
//! file at the same time.
//!
//! A thread of its own writes (`worker`): no method blocks the runtime, and the cost of a sync is
//! shared by all who wait for one. Another one reads, and waits for no writer.
//!
//! Writes fail while the disk is full or the file cannot be written to, and succeed again when that
//! is over, without a restart. Reads go on meanwhile.

mod arrivals;
mod deed;
mod denial;
mod error;
mod holding;
mod inbox;
mod locks;
mod stored_answer;

mod db;
mod files;
mod losses;
mod refusals;
mod seal;

mod boot;
mod client_row;
mod end;
mod new_file;
mod run;
mod schema;
mod usable;

mod head;
mod marker;
mod record;
mod reservations;

mod file;
mod keys;

mod audit;
mod backup;
mod known;
mod reader;

mod exported;
mod writer;

mod archive;
mod batch;

mod worker;

mod handle;

mod callers;
mod jobs;

mod begin;

mod finish;
mod journal;

mod clients;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::{
    archive::archive,
    audit::{Breach, Broken, Journal, Verified, VerifyError},
    backup::backup,
    begin::{Begun, Claim, Grant, Started},
    clients::{ClientRecord, Clients, ClientsError},
    deed::Deed,
    denial::{Caller, Denial},
    error::{Fault, StoreError},
    exported::{Exported, ExportedError, verify_exported},
    finish::{Finish, JobEnd, KeyEnd},
    handle::Store,
    journal::record_deed,
    keys::Doubt,
    record::{Attempt, Outcome, Record},
    reservations::Reservation,
    stored_answer::StoredAnswer,
    usable::check_usable,
};
