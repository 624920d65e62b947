//! `agentpmt-proxy`: a local signing proxy for the AgentPMT external API.
//!
//! Agents send unsigned HTTP requests; the proxy holds the wallet key and the session, hashes,
//! signs, and forwards.
//!
//! ```text
//! local request
//!   → guard      Host, Origin, transfer coding                         http
//!   → admit      client, its right, in-flight permit, rate             proxy, policy, store
//!   → body       size and time                                         http
//!   → Call       a row of ACTIONS + ids + query + body                 call, action, json
//!   → begin      rate, idempotency key, job, credits: in one decision  store
//!   → Permit     may this client make this call on this job            policy
//!   → attempt    a session nonce and a permit to send, then            proxy, sender, session
//!       Message      the text to sign; its Display is the text         message
//!       record       about to sign; begins the key's doubt             store
//!       Signature    EIP-191                                           signer
//!       upstream     one HTTP call, with a deadline                    upstream
//!       payment      of a 402, if the policy allows it                 payment, proxy
//!   → again?     decided without doing anything                        retry, refusal
//!   → settle     if an answer was lost: what became of the change      proxy, job_status
//!   → finish     outcome, stored answer, reservation, credits          store, reservation
//! local response: the upstream's status and body, without what the proxy keeps secret, or a problem
//! ```
//!
//! Two functions are that flow: [`proxy::Proxy::admit`] up to the body, and [`proxy::Proxy::call`] from
//! the call to its answer. An [`operation::Operation`] is the call on its way, and its
//! [`trace::Trace`] is told each step. The store, also called the ledger, has three moments:
//! [`begin`](store::Store::begin), [`record_attempt`](store::Store::record_attempt) and
//! [`finish`](store::Store::finish).
//!
//! [`protocol`] says what the upstream expects; comments name its sections. The modules below stand in
//! import order: a blank line is a layer, and a module imports only from layers above its own. The same
//! holds inside every folder.

pub mod clock;
pub mod files;
pub mod manual;
pub mod problems;
pub mod protocol;
mod tally;
pub mod types;
pub mod waiting;

mod body;
pub mod config;
pub mod json;

pub mod action;

pub mod call;
pub mod json_schema;
pub mod next_job;

pub mod openapi;

pub mod policy;
pub mod trace;

pub mod operation;

pub mod message;

pub mod payment;

pub mod signer;
pub mod store;
pub mod upstream;

mod credits;

mod job_list;
mod refusal;
pub mod session;
mod withheld;

mod reservation;
mod retry;

mod job_status;
mod sender;

pub mod proxy;

mod problem;

mod mcp;

pub mod http;
pub mod sandbox;

pub mod cli;
