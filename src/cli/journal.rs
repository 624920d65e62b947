//! `journal`: what was signed, and what came of it.

mod entry;

mod tail;

mod archive;

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde_json::json;

use self::{archive::Archive, tail::Tail};
use super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::{complain, print, tell},
};
use crate::store::{Deed, Exported, Journal, Verified, record_deed, verify_exported};

/// Read the journal of what was signed
///
/// It needs no wallet and no password, and works while the proxy runs.
#[derive(Debug, Subcommand)]
#[command(after_help = "Example:\n  agentpmt-proxy journal tail")]
pub(super) enum JournalCommand {
    Tail(Tail),
    Verify(Verify),
    Export(Export),
    Archive(Archive),
}

/// Check that the records form one chain, and that its end is there
///
/// It reads the whole journal, says how many records hold, and prints the hash of the last one; or it
/// fails and names the first record that does not hold. An end that was cut off shows by the file
/// journal-head in the state folder, which names the last record that the proxy wrote. A user who can
/// write to the folder can remove that file, or put an older state back as a whole: against that, keep
/// the hash elsewhere, and give it to --expect later.
///
/// With files of `archive` or `export`, it checks these instead, each from where the one before ended,
/// and says whether the journal of the state goes on from there.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy journal verify > hash\n  \
                        agentpmt-proxy journal verify --expect $(cat hash)\n  \
                        agentpmt-proxy journal verify journal-1.jsonl journal-2.jsonl")]
pub(super) struct Verify {
    /// Files that `archive` or `export` wrote, in order
    #[arg(value_name = "FILE", conflicts_with = "expect")]
    files: Vec<PathBuf>,
    /// A hash that was printed before: fail unless its record is still in the journal
    #[arg(long, value_name = "HASH", value_parser = hash)]
    expect: Option<[u8; 32]>,
    /// Print JSON: the number of records, the hash of the last, and what else is known of them
    #[arg(long)]
    json: bool,
}

/// Print every record as a line of JSON
///
/// `hash` is SHA-256 of the 32 bytes of the hash before (zeros for the first) and of the text of
/// `record`. If records before them were archived, the first line tells the hash of the last of those as
/// `previous`. The export itself is recorded.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy journal export > journal.jsonl")]
pub(super) struct Export {}

impl JournalCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let path = settings.load()?.database();
        match self {
            Self::Tail(tail) => tail.run(&path),
            Self::Verify(verify) => verify.run(&path),
            Self::Export(_) => export(&path),
            Self::Archive(archive) => archive.run(&path),
        }
    }
}

impl Verify {
    fn run(self, path: &Path) -> Result<(), Failure> {
        if !self.files.is_empty() {
            return self.run_on_files(path);
        }
        let journal = Journal::open(path)?;
        let Verified { records, archived, hash, has_head } = journal.verify()?;
        if let Some(expected) = self.expect
            && !journal.holds(&expected)?
        {
            return Err(Failure::NoSuchHash { hash: hex::encode(expected), records });
        }
        let hash = hex::encode(hash);
        if self.json {
            let verified = json!({
                "records": records, "archived": archived, "hash": hash, "head": has_head
            });
            return print(&format!("{verified}\n"));
        }
        print(&format!("{hash}\n"))?;
        tell(&format!("{records} records hold; this is the hash of the last.\n"));
        if archived > 0 {
            tell(&format!("The {archived} before them are in archives.\n"));
        }
        if !has_head {
            tell(
                "There is no file journal-head, as in a copy, so an end that was cut off does not \
                 show; --expect finds it, with a hash that you kept.\n",
            );
        }
        Ok(())
    }

    fn run_on_files(self, path: &Path) -> Result<(), Failure> {
        let (mut earlier, mut all) = (None, 0);
        for file in self.files {
            let verified = verify_exported(&file, earlier)
                .map_err(|cause| Failure::Exported { path: file, cause })?;
            all += verified.records;
            earlier = Some(verified);
        }
        let Some(Exported { last, hash, .. }) = earlier else { return Ok(()) };
        let goes_on = match Journal::open(path) {
            Ok(journal) => Some(journal.holds(&hash)?),
            Err(error) if error.is_missing() => None,
            Err(error) => return Err(error.into()),
        };
        let hash = hex::encode(hash);
        if self.json {
            let verified =
                json!({"records": all, "last": last, "hash": hash, "journal_goes_on": goes_on});
            return print(&format!("{verified}\n"));
        }
        print(&format!("{hash}\n"))?;
        tell(&format!("{all} records hold; this is the hash of the last, number {last}.\n"));
        match goes_on {
            Some(true) => tell("The journal of this state goes on from there.\n"),
            Some(false) => tell(
                "The journal of this state does not go on from there: it is of another state, or \
                 there are later archives.\n",
            ),
            None => {}
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
    let journal = Journal::open(path)?;
    // A full disk is no reason not to read it.
    if let Err(error) = record_deed(path, Deed::JournalExport) {
        complain(format_args!("warning: this export is not recorded in the journal: {error}"));
    }
    journal.export(|line| print(&format!("{line}\n")))
}
