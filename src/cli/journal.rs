//! `journal`: what was signed, and what came of it.

use std::{collections::HashSet, path::Path};

use clap::{Args, Subcommand};
use jiff::Timestamp;

use super::{Failure, Settings, number, print, tell};
use crate::{
    canonical::Object,
    store::{Journal as Records, Record},
};

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

/// Show the last records
///
/// A call has one record before it is signed and one for its outcome. A call without outcome runs,
/// or was cut off with the proxy. A call that was denied has one record, with the reason.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy journal tail -n 50")]
pub(super) struct Tail {
    /// How many records
    #[arg(short, long, value_name = "COUNT", default_value_t = 20, value_parser = number)]
    number: u32,
    /// Print JSON, one record a line
    #[arg(long)]
    json: bool,
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

impl Tail {
    fn run(self, path: &Path) -> Result<(), Failure> {
        let records = Records::open(path)?.tail(self.number)?;
        if self.json {
            return records.iter().try_for_each(print_json);
        }
        let fields: Vec<_> = records.iter().map(|r| r.fields().unwrap_or_default()).collect();
        // The outcome of a call always comes after it, so it is among the last as well.
        let outcomes = fields.iter().filter(|fields| is(fields, "outcome"));
        let ended: HashSet<_> = outcomes.map(|fields| fields.text("request_id")).collect();
        records.iter().zip(&fields).try_for_each(|(record, fields)| {
            let open = is(fields, "signed") && !ended.contains(&fields.text("request_id"));
            print(&as_line(record, fields, open))
        })
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

fn is(fields: &Object, kind: &str) -> bool {
    fields.text("kind").as_deref() == Some(kind)
}

/// A line for people. What a record lacks is a dash.
fn as_line(record: &Record, fields: &Object, open: bool) -> String {
    let text = |name| fields.text(name).unwrap_or_else(|| "-".to_owned());
    let number = |name| fields.field(name).map_or("-", |value| value.as_str());
    let time = number("time").parse().ok().and_then(|time| Timestamp::from_millisecond(time).ok());
    let time =
        time.map_or("-".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string());
    let [kind, action, product, client] = ["kind", "action", "product", "client"].map(text);
    let what = match kind.as_str() {
        "signed" => {
            let open = if open { "  NO OUTCOME" } else { "" };
            format!("{action} {product} for {client}{open}")
        }
        "denied" => {
            let caller = fields.text("client").unwrap_or_else(|| text("from"));
            format!("{action} {product} for {caller}: {}", text("reason"))
        }
        _ => match fields.text("outcome").as_deref() {
            Some("answered") => format!("{} in {} ms", number("status"), number("milliseconds")),
            Some("not_sent") => "not sent".to_owned(),
            _ => "unknown".to_owned(),
        },
    };
    // What was denied never got an id to go upstream under.
    let id = fields.text("request_id").unwrap_or_else(|| text("call_id"));
    format!("{:>7}  {time}  {kind:7}  {id}  {what}\n", record.seq)
}
