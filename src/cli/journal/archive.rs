//! `journal archive`: old records, moved into a file.

use std::path::{Path, PathBuf};

use clap::Args;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

use super::tail::past;
use crate::{
    cli::{
        failure::Failure,
        output::{check_new, print, tell},
    },
    store::archive,
};

/// How old a record has to be: calls, reserves and completions of that time may still be under way.
const AGE: SignedDuration = SignedDuration::from_hours(1);

/// Move old records into a new file
///
/// The file has the form of `export`, and is on the disk before anything is removed. The journal goes on
/// from the hash of the last record that was moved, which is printed: `verify` checks the rest, and
/// `verify FILE` the file. The database does not shrink, but uses the room again. It works while the
/// proxy runs, and is recorded itself.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy journal archive --before 90d journal-1.jsonl")]
pub(in crate::cli) struct Archive {
    /// Records from before a time such as 2027-01-31T00:00:00Z, or 90d for 90 days ago
    #[arg(long, value_name = "TIME", value_parser = old)]
    before: Timestamp,
    /// The file to write, which must be new
    file: PathBuf,
    /// Print JSON: the number of records, the number of the last, and its hash
    #[arg(long)]
    json: bool,
}

impl Archive {
    pub(super) fn run(self, path: &Path) -> Result<(), Failure> {
        let file = self.file.display().to_string();
        check_new(&self.file)?;
        let archived = archive(path, self.before, &self.file)?;
        if self.json {
            let row = archived.map(|archived| {
                let hash = hex::encode(archived.hash);
                json!({"records": archived.records, "last": archived.last, "hash": hash})
            });
            return print(&format!("{}\n", json!(row)));
        }
        let Some(archived) = archived else {
            tell(&format!("No record is from before {}; nothing was written.\n", self.before));
            return Ok(());
        };
        print(&format!("{}\n", hex::encode(archived.hash)))?;
        tell(&format!(
            "{} records are in {file}, up to number {}; this is the hash of that one, from which the \
             journal goes on.\n",
            archived.records, archived.last
        ));
        Ok(())
    }
}

fn old(text: &str) -> Result<Timestamp, &'static str> {
    let before = past(text)?;
    let is_old = Timestamp::now().duration_since(before) >= AGE;
    is_old.then_some(before).ok_or("the records of the last hour stay, as calls may be under way")
}
