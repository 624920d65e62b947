//! What needs neither a listener nor a process: text, bytes, and the repository's own files.

#![allow(clippy::unwrap_used)]

mod corpus;
mod layers;
mod openapi;
mod properties;
mod readme;
mod vectors;
