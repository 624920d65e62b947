//! Attacks, as tables of bytes on a real socket.

#![allow(clippy::unwrap_used)]

#[path = "../binary/mod.rs"]
mod binary;
#[path = "../common/mod.rs"]
mod common;

mod bodies;
mod callers;
mod certificates;
mod framing;
mod names;
mod paths;
mod upstream;
mod wire;
