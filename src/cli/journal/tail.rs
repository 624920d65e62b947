//! `journal tail`: a line for each call, with what came of it.

use std::{
    collections::{HashMap, VecDeque},
    path::Path,
    thread::sleep,
    time::Duration,
};

use clap::Args;
use jiff::Timestamp;

use super::entry::Entry;
use crate::{
    action::Action,
    cli::{
        failure::Failure,
        option::{moment, number},
        output::{complain, print_while_read},
    },
    json::Object,
    store::{Journal, Record},
    types::ClientName,
};

/// How often new records are looked for.
const POLL: Duration = Duration::from_millis(200);

/// Show the last calls, and what came of each
///
/// A signed call is shown with its status and duration; NO OUTCOME means that it is still running, or
/// was cut off when the proxy died. A denied call is shown with the reason, and with the number of
/// calls that the line stands for. What was done to the proxy itself is shown too: clients added,
/// revoked and removed, reloads, copies of keys, freezes; and events, as they were told.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy journal tail -n 50 --changes\n  \
                        agentpmt-proxy journal tail -f --client ci\n  \
                        agentpmt-proxy journal tail --since 2h --job 68f0a1c27b3e4d5f60718201")]
pub(in crate::cli) struct Tail {
    /// How many calls
    #[arg(short, long, value_name = "COUNT", default_value_t = 20, value_parser = number)]
    number: u32,
    /// Keep running, and show each call when it has ended
    #[arg(short, long)]
    follow: bool,
    /// Only those of this client
    #[arg(long, value_name = "NAME")]
    client: Option<ClientName>,
    /// Only those about this job
    #[arg(long, value_name = "ID")]
    job: Option<String>,
    /// Only those that change something
    #[arg(long)]
    changes: bool,
    /// Only those since a time such as 2027-01-31T00:00:00Z, or 2h for two hours ago
    #[arg(long, value_name = "TIME", value_parser = past)]
    since: Option<Timestamp>,
    /// Print JSON, one call a line
    #[arg(long)]
    json: bool,
}

impl Tail {
    pub(super) fn run(self, path: &Path) -> Result<(), Failure> {
        let journal = Journal::open(path)?;
        let (entries, last) = self.last(&journal)?;
        if last == 0 {
            complain("the journal is empty: no call was signed or refused with this state yet");
        } else if entries.is_empty() {
            complain("no record matches --client, --job, --changes or --since");
        }
        for entry in &entries {
            self.show(entry)?;
        }
        if self.follow { self.follow(&journal, entries, last) } else { Ok(()) }
    }

    /// The last entries that match the options, in order, and the number of the last record.
    fn last(&self, journal: &Journal) -> Result<(VecDeque<Entry>, u64), Failure> {
        let (mut entries, mut outcomes) = (VecDeque::new(), HashMap::new());
        let mut page = journal.before(u64::MAX, Journal::PAGE)?;
        let last = page.first().map_or(0, |record| record.seq);
        while let Some(first) = page.last().map(|record| record.seq) {
            for record in page {
                let fields = record.fields().unwrap_or_default();
                if entries.len() == self.number as usize || self.is_too_old(&fields) {
                    return Ok((entries, last));
                }
                // The outcome of a call stands behind it, so it was met before.
                let id = fields.text("request_id");
                if is_outcome(&fields) {
                    outcomes.insert(id, fields);
                } else {
                    let outcome = id.and_then(|id| outcomes.remove(&Some(id)));
                    let entry = Entry { seq: record.seq, fields, outcome };
                    if self.wants(&entry.fields) {
                        entries.push_front(entry);
                    }
                }
            }
            page = journal.before(first, Journal::PAGE)?;
        }
        Ok((entries, last))
    }

    /// Shows the records after these entries and this record, until the output is closed.
    fn follow(
        &self,
        journal: &Journal,
        entries: VecDeque<Entry>,
        mut last: u64,
    ) -> Result<(), Failure> {
        let open = entries.into_iter().filter(Entry::is_open);
        let mut open: HashMap<_, _> = open.map(|entry| (entry.request_id(), entry)).collect();
        loop {
            let page = journal.after(last, Journal::PAGE)?;
            if page.is_empty() {
                sleep(POLL);
            }
            for record in page {
                last = record.seq;
                if let Some(entry) = self.next(&record, &mut open)
                    && !self.show(&entry)?
                {
                    return Ok(());
                }
            }
        }
    }

    /// The entry that a record completes, if it is wanted.
    fn next(&self, record: &Record, open: &mut HashMap<Option<String>, Entry>) -> Option<Entry> {
        let fields = record.fields().unwrap_or_default();
        if is_outcome(&fields) {
            let entry = open.remove(&fields.text("request_id"))?;
            return Some(Entry { outcome: Some(fields), ..entry });
        }
        let entry = Entry { seq: record.seq, fields, outcome: None };
        if !self.wants(&entry.fields) {
            return None;
        }
        if !entry.is_open() {
            return Some(entry);
        }
        open.insert(entry.request_id(), entry);
        None
    }

    /// Prints an entry; tells whether the output is still open.
    fn show(&self, entry: &Entry) -> Result<bool, Failure> {
        let line = if self.json { entry.to_json() } else { entry.to_string() };
        print_while_read(&format!("{line}\n"))
    }

    fn wants(&self, fields: &Object) -> bool {
        let is_of = |client: &ClientName| {
            ["client", "by"].iter().any(|of| fields.text(of).as_deref() == Some(client.as_str()))
        };
        let is_about = |job: &String| {
            fields.text("product").is_some_and(|product| product.eq_ignore_ascii_case(job))
        };
        self.client.as_ref().is_none_or(is_of)
            && self.job.as_ref().is_none_or(is_about)
            && (!self.changes || changes(fields))
    }

    /// Whether a record is from before the time that is asked for; none before it is newer.
    fn is_too_old(&self, fields: &Object) -> bool {
        let time = fields.field("time").and_then(|time| time.as_str().parse().ok());
        self.since.zip(time).is_some_and(|(since, time): (_, i64)| time < since.as_millisecond())
    }
}

fn is_outcome(fields: &Object) -> bool {
    fields.text("kind").as_deref() == Some("outcome")
}

/// Whether a record is about a change, be it of a job or of the proxy itself.
fn changes(fields: &Object) -> bool {
    let action = fields.text("action").unwrap_or_default();
    Action::named(&action).is_none_or(Action::changes)
}

pub(super) fn past(text: &str) -> Result<Timestamp, &'static str> {
    moment(text, |now, span| now.checked_sub(span))
        .ok_or("expected a length of time such as 2h, or a time such as 2027-01-31T00:00:00Z")
}
