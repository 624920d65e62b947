//! `agentpmt-proxy`: a local signing proxy for the AgentPMT external API.
//!
//! Agents send unsigned HTTP requests; the proxy holds the wallet key and the session, hashes,
//! signs, and forwards.
//!
//! ```text
//! local request
//!   → guard      Host, Origin, size, time                     http
//!   → Client     who calls                                    http, store
//!   → Call       a row of ACTIONS + path values + body        http, call, action, canonical
//!   → rate       how often the client calls                   policy, store
//!   → claim      of its idempotency key, if it has one        proxy, store
//!   → Permit     may this client make this call               policy
//!   → nonce      a live session of the wallet                 session
//!   → permits    to use a remote signer, and to send          sender, upstream
//!   → Message    the text to sign; its Display is the text    message
//!   → journal    about to sign                                store
//!   → Signature  EIP-191                                      sender, signer
//!   → upstream   one HTTP call, with a deadline               upstream
//!   → journal    outcome                                      store
//!   → again?     or ask what became of it                     retry, job_status
//! local response: the upstream's status and body, without what the proxy keeps secret
//! ```
//!
//! [`proxy::Proxy::call`] is that flow; what the upstream expects stands in [`protocol`], whose
//! sections the comments name. The modules below stand in import order: a blank line is a
//! layer, and a module imports only from layers above its own. The same holds inside every folder.

pub mod clock;
pub mod files;
pub mod manual;
pub mod problems;
pub mod protocol;
mod tally;
pub mod types;

mod body;
pub mod config;
pub mod json;

pub mod action;

pub mod call;

pub mod policy;
pub mod trace;

pub mod operation;

pub mod message;

pub mod payment;

pub mod signer;
pub mod store;
pub mod upstream;

mod credits;
mod refusal;
pub mod session;
mod withheld;

mod reservation;
mod retry;

mod job_status;
mod sender;

pub mod proxy;

mod problem;

pub mod http;
pub mod sandbox;

pub mod cli;
