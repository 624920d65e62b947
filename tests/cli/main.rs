//! The program as a process: its commands, signals, listeners, files and output.

#![allow(clippy::unwrap_used)]

#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/clock.rs"]
mod clock;
#[path = "../support/common.rs"]
mod common;
#[path = "../support/random.rs"]
mod random;
#[path = "../support/tap.rs"]
mod tap;

mod approvals;
mod callers;
mod client;
mod crash;
mod crash_next;
mod credits;
mod events;
mod freeze;
mod leaks;
mod listen;
mod log_events;
mod lost_state;
mod paid_crash;
mod payments;
mod process;
mod reload;
mod serve;
mod shutdown;
mod tls;
mod usage;
mod wallet;
mod wallet_copy;
mod wallets;
