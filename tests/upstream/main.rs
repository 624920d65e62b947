//! The proxy towards its upstream, and the sandbox that stands for it.

#![allow(clippy::unwrap_used)]

#[path = "../support/agents.rs"]
mod agents;
#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/common.rs"]
mod common;

mod abandoned;
mod buying;
mod events;
mod fault_control;
mod faults;
mod matrix;
mod paying;
mod reviews;
mod sandbox;
mod sandbox_credits;
mod sandbox_paid;
mod sandbox_signatures;
mod session;
mod spending;
mod tls;
mod trouble;
mod workflow_job;
