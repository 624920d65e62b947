//! layout follows

pub mod types;
