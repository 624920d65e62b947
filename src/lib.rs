//! layout follows

pub mod types;

pub mod canonical;

pub mod action;

pub mod message;
