//! The ledger, which must survive: the journal of signatures, the answers to idempotency keys, the
//! reservations, and the clients.
//!
//! It is an SQLite database, which several processes may use at the same time. SQL stands beside the rules
//! that need it, and reaches the database through `db` alone, so that another one can stand behind that.
//!
//! One thread writes, and one reads (`worker`): no method blocks the runtime, all callers that wait share
//! the cost of one sync, and no read waits for a writer.
//!
//! Writes fail while the disk is full or the file cannot be written to, and succeed again when that
//! is over, without a restart. Reads go on meanwhile.

mod approval;
mod freeze;

mod arrivals;
mod credit_use;
mod deed;
mod denial;
mod error;
mod event;
mod holding;
mod inbox;
mod locks;
mod stored_answer;

mod db;
mod files;
mod losses;
mod refusals;
mod seal;

mod approval_rows;
mod boot;
mod client_rows;
mod credit_rows;
mod end;
mod new_file;
mod run;
mod schema;
mod usable;

mod head;
mod marker;
mod payment_rows;
mod record;

mod event_rows;
mod freeze_rows;

mod reservations;

mod copied;
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
mod events;
mod jobs;

mod begin;

mod finish;
mod journal;

mod approvals;
mod clients;
mod freezing;
mod hand_out;
mod payment_list;

mod payments;
mod release;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use self::{
    approval::{Approval, ApprovalAnswer, ApprovalId, ApprovalState},
    approvals::{ApprovalError, approvals, approve, deny},
    archive::archive,
    audit::{Breach, Broken, Journal, Verified, VerifyError},
    backup::backup,
    begin::{Begun, Claim, Grant, Started},
    client_rows::ClientRecord,
    clients::{Clients, ClientsError},
    deed::Deed,
    denial::{Caller, Denial},
    error::{Fault, StoreError},
    event::{Event, EventKind, RecordedEvent},
    event_rows::{EventPage, OpenSubmission},
    events::EventNews,
    exported::{Exported, ExportedError, verify_exported},
    finish::{CreditEnd, Finish, JobEnd, KeyEnd},
    freeze::{Freeze, FreezeOf},
    freezing::{freeze, thaw},
    hand_out::{HandOutBegun, JobClaim},
    handle::Store,
    journal::record_deed,
    keys::Doubt,
    payment_list::{EndPaymentError, ListedPayment, PaymentState, end_payment, payments},
    payments::{PaymentDecision, PaymentEnd, PaymentRequest, PaymentTurn},
    record::{Attempt, Record, RecordedOutcome},
    release::ReleasedJob,
    reservations::Reservation,
    run::is_in_use,
    stored_answer::StoredAnswer,
    usable::check_usable,
};
