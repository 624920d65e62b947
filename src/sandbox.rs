//! An upstream inside this binary, for developing an agent without credits and for tests over real
//! sockets.
//!
//! It imitates the server of the protocol: sessions that end, signatures checked by recovering the
//! signer, reservations that expire, a review that pays. It keeps its state in memory. With the proxy
//! it shares plain values, canonical JSON and the table of calls; the message it works out for itself,
//! from the bytes that it received.

mod charge;
mod counts;
mod header;
mod seed;
mod serve;
mod settings;
mod time;

mod error;

mod credits;
mod fault;
mod form;
mod verify;

mod armed;
mod graph;
mod session;
mod tool;
mod transfer;

mod bill;
mod facilitator;
mod workflow;

mod job;

mod board;
mod workflow_session;

mod api;

mod control;
mod paid;
mod strike;

mod routes;

use axum::{Router, middleware::from_fn_with_state};
use tokio::net::TcpListener;

pub use self::{
    api::Sandbox,
    counts::Counts,
    credits::LedgerEntry,
    facilitator::TakenPayment,
    fault::{FaultKind, FaultTarget, InjectedFault, InvalidFault, KINDS},
    settings::Settings,
    time::duration,
};

impl Sandbox {
    /// Serves the protocol (§1, §5), under the faults that are armed, and beside it the control path
    /// `/sandbox/…`. It never ends; when the future is dropped, all its connections are closed.
    pub async fn serve(&self, listener: TcpListener) {
        let strike = from_fn_with_state(self.clone(), strike::strike);
        let calls = routes::counted(self, routes::router(self).layer(strike));
        serve::serve(listener, calls.merge(control::router(self))).await;
    }

    /// The protocol alone, for a server of the caller's: there no fault strikes.
    pub fn router(&self) -> Router {
        routes::counted(self, routes::router(self))
    }
}
