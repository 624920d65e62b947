//! `journal`: what was signed, and what came of it.

mod entry;

mod tail;

use std::path::Path;

use clap::{Args, Subcommand};

use self::tail::Tail;
use super::{Failure, Settings, print, tell};
use crate::store::{Journal as Records, Record};

/// Read the journal of what was signed
///
/// It needs no wallet and no password, and works while the proxy runs.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  agentpmt-proxy journal tail")]
pub(super) enum Journal {
    Tail(Tail),
    Verify(Verify),
    Export(Export),
}

/// Check that no record was changed or removed
///
/// It reads the whole journal, says how many records hold, and prints the hash of the last one; or it
/// names the first that does not hold and fails. That the last records were cut off does not show,
/// nor that somebody wrote the whole journal anew: keep the hash elsewhere, and look for it in a
/// later `export`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy journal verify > hash && echo good")]
pub(super) struct Verify {}

/// Print every record as a line of JSON
///
/// `hash` is SHA-256 of the 32 bytes of the hash before (zeros for the first) and of the text of
/// `record`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy journal export > journal.jsonl")]
pub(super) struct Export {}

impl Journal {
    pub(super) fn run(self, settings: Settings) -> Result<(), Failure> {
        let path = settings.load([])?.database();
        match self {
            Self::Tail(tail) => tail.run(&path),
            Self::Verify(_) => verify(&path),
            Self::Export(_) => export(&path),
        }
    }
}

fn verify(path: &Path) -> Result<(), Failure> {
    let verified = Records::open(path)?.verify()?;
    let hash = hex::encode(verified.hash);
    print(&format!("{hash}\n"))?;
    tell(&format!("{} records hold; this is the hash of the last.\n", verified.records));
    Ok(())
}

fn export(path: &Path) -> Result<(), Failure> {
    Records::open(path)?.for_each(|record| print_json(&record))
}

fn print_json(record: &Record) -> Result<(), Failure> {
    print(&format!("{}\n", record.to_json_line()))
}
