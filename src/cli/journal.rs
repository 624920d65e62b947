//! `journal`: what was signed, and what came of it.

mod entry;

mod tail;

use std::path::Path;

use clap::{Args, Subcommand};
use serde_json::json;

use self::tail::Tail;
use super::{Failure, Settings, print, tell};
use crate::store::{Journal as Records, Record, Verified};

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

/// Check that the records form one chain, and that its end is there
///
/// It reads the whole journal, says how many records hold, and prints the hash of the last one; or it
/// names the first that does not hold and fails. An end that was cut off shows by the file journal-head
/// in the state folder, which names the last record that the proxy wrote. Whoever can write the folder
/// can remove that file, or put an older state back as a whole: against that, keep the hash elsewhere,
/// and ask for it later.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy journal verify > hash\n  \
                        agentpmt-proxy journal verify --expect $(cat hash)")]
pub(super) struct Verify {
    /// A hash that was printed before: fail unless its record is still there, whatever came after it
    #[arg(long, value_name = "HASH", value_parser = hash)]
    expect: Option<[u8; 32]>,
    /// Print JSON: the number of records, the hash of the last, and whether there was a journal-head
    #[arg(long)]
    json: bool,
}

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
            Self::Verify(verify) => verify.run(&path),
            Self::Export(_) => export(&path),
        }
    }
}

impl Verify {
    fn run(self, path: &Path) -> Result<(), Failure> {
        let journal = Records::open(path)?;
        let Verified { records, hash, has_head } = journal.verify()?;
        if let Some(expected) = self.expect
            && !journal.holds(&expected)?
        {
            return Err(Failure::NoSuchHash { hash: hex::encode(expected), records });
        }
        let hash = hex::encode(hash);
        if self.json {
            let verified = json!({"records": records, "hash": hash, "head": has_head});
            return print(&format!("{verified}\n"));
        }
        print(&format!("{hash}\n"))?;
        tell(&format!("{records} records hold; this is the hash of the last.\n"));
        if !has_head {
            tell(
                "There is no journal-head, as in a copy: it does not show whether the end was cut \
                 off, unless a hash that was kept is given to --expect.\n",
            );
        }
        Ok(())
    }
}

fn hash(text: &str) -> Result<[u8; 32], &'static str> {
    let mut hash = [0; 32];
    let decoded = hex::decode_to_slice(text.trim(), &mut hash);
    decoded.map(|()| hash).map_err(|_| "expected 64 hexadecimal digits, as `journal verify` prints")
}

fn export(path: &Path) -> Result<(), Failure> {
    Records::open(path)?.for_each(|record| print_json(&record))
}

fn print_json(record: &Record) -> Result<(), Failure> {
    print(&format!("{}\n", record.to_json_line()))
}
