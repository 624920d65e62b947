//! What is kept: the journal, reservations, idempotency keys, and the files of the store.

#![allow(clippy::unwrap_used)]

#[path = "../support/agents.rs"]
mod agents;
#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/common.rs"]
mod common;
#[path = "../support/random.rs"]
mod random;

mod credits;
mod hammer;
mod idempotency;
mod journal;
mod lost_reserves;
mod reservations;
mod store;
mod trouble;
