//! The entries that `journal tail` prints: a signed call joined with its outcome, or another record.

use std::fmt;

use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::json::Object;

/// A record, and that of its outcome if it has one.
pub(super) struct Entry {
    pub(super) seq: u64,
    pub(super) fields: Object,
    pub(super) outcome: Option<Object>,
}

impl Entry {
    pub(super) fn request_id(&self) -> Option<String> {
        self.fields.text("request_id")
    }

    /// Whether it is a call that runs, or was cut off.
    pub(super) fn is_open(&self) -> bool {
        self.outcome.is_none() && self.kind() == "signed"
    }

    /// The fields of the record and of its outcome, on one line.
    pub(super) fn to_json(&self) -> String {
        let map = |fields: &Object| -> Map<String, Value> {
            serde_json::from_str(fields.to_canonical().as_str()).unwrap_or_default()
        };
        let mut all = map(&self.fields);
        let outcome = self.outcome.as_ref().map(map).unwrap_or_default();
        let outcome = outcome.into_iter();
        all.extend(outcome.filter(|(name, _)| !["kind", "seq", "time"].contains(&name.as_str())));
        Value::from(all).to_string()
    }

    fn kind(&self) -> String {
        self.fields.text("kind").unwrap_or_default()
    }

    /// The last column: the status and duration of a call, or the reason why there is none.
    fn result(&self) -> String {
        let Some(outcome) = &self.outcome else {
            return match self.kind().as_str() {
                "signed" => "NO OUTCOME".to_owned(),
                "denied" => format!("denied: {}{}", text(&self.fields, "reason"), self.times()),
                "admin" => "done".to_owned(),
                "event" => "told".to_owned(),
                "payment" => format!("{} recorded", text(&self.fields, "amount")),
                _ => "-".to_owned(),
            };
        };
        match outcome.text("outcome").as_deref() {
            Some("answered") => {
                format!("{} in {} ms", number(outcome, "status"), number(outcome, "milliseconds"))
            }
            Some("not_signed") => "not signed".to_owned(),
            Some("not_sent") => "not sent".to_owned(),
            _ => "outcome unknown".to_owned(),
        }
    }

    /// How many calls the record stands for, if they are more than one.
    fn times(&self) -> String {
        self.fields
            .field("times")
            .map_or(String::new(), |times| format!(" {} times", times.as_str()))
    }
}

/// A line for people. What a record lacks is a dash.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first = |names: &[&str]| names.iter().find_map(|name| self.fields.text(name));
        let dash = || "-".to_owned();
        let who = first(&["by", "client", "from"]).unwrap_or_else(dash);
        let action = first(&["action", "event"]).unwrap_or_else(dash);
        // An admin record names a client or a wallet, and a call the job or other thing it is about.
        let to = match self.kind().as_str() {
            "admin" => &["client", "wallet"][..],
            "payment" => &["payee"],
            _ => &["product"],
        };
        let to = first(to).unwrap_or_else(dash);
        let (seq, time, result) = (self.seq, time(&self.fields), self.result());
        write!(f, "{seq:>7}  {time}  {who:12}  {action:20}  {to:24}  {result}")
    }
}

fn text(fields: &Object, name: &str) -> String {
    fields.text(name).unwrap_or_else(|| "-".to_owned())
}

fn number<'f>(fields: &'f Object, name: &str) -> &'f str {
    fields.field(name).map_or("-", |value| value.as_str())
}

fn time(fields: &Object) -> String {
    let time = number(fields, "time").parse().ok();
    let time = time.and_then(|time| Timestamp::from_millisecond(time).ok());
    time.map_or("-".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string())
}
