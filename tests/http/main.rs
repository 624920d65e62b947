//! The local surface over real sockets: clients, their rights and limits, connections.

#![allow(clippy::unwrap_used)]

#[path = "../support/agents.rs"]
mod agents;
#[path = "../support/binary.rs"]
mod binary;
#[path = "../support/common.rs"]
mod common;

mod access_ended;
mod client_limits;
mod client_rights;
mod clients;
mod connections;
mod docs;
mod freeze;
mod job_list;
mod load;
mod mcp;
mod next;
mod release;
mod surface;
mod table;
