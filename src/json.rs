//! JSON: the canonical text of a payload, on which both sides agree, and single values of an answer
//! whose shape is not guaranteed.
//!
//! `serde_json` checks the syntax; then a walk over the text takes it apart. A `serde_json::Value` would
//! not do. It rounds integers over 64 bits or, with arbitrary precision, takes an object with one
//! reserved key for a number; and of an answer of some megabytes it would take gigabytes.

mod encoding;
mod error;
mod string;
mod walk;

mod lenient;
mod number;

mod canonicalizer;
mod named;

mod canonical;

mod writer;

pub use self::{
    canonical::{CanonicalJson, Object, PayloadHash},
    error::JsonError,
};
pub(crate) use self::{
    encoding::{Encoding, decode},
    lenient::{JsonText, is_almost_json},
    named::{NamedValue, named},
    string::write_string,
    writer::ObjectWriter,
};
