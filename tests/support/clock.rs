//! A program whose wall clock can be set.

#![allow(dead_code, clippy::unwrap_used)]
#![cfg(target_os = "linux")]

use std::{fs, process::Command};

use crate::binary::{Home, PASSWORD};

/// A home with a wallet, whose program has a wall clock that is ahead by as much as [`set_ahead`] says.
pub(crate) fn with_a_clock_to_set() -> Home {
    let home = Home::with_wallet().with_password(PASSWORD);
    let library = home.path("ahead.so");
    let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/ahead.c");
    let mut compiler = Command::new("cc");
    let compiled = compiler.args(["-shared", "-fPIC", source, "-o"]).arg(&library).status();
    assert!(compiled.unwrap().success());
    let ahead = home.path("ahead");
    home.with("LD_PRELOAD", library.to_str().unwrap()).with("CLOCK_AHEAD", ahead.to_str().unwrap())
}

pub(crate) fn set_ahead(home: &Home, seconds: i64) {
    fs::write(home.path("ahead"), seconds.to_string()).unwrap();
}
