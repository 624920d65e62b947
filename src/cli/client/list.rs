//! `client list`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::cli::{
    failure::Failure,
    output::{complain, print},
};
use crate::{
    config::Config,
    store::{ClientRecord, Clients},
    types::Credential,
};

/// List the clients, with their limits and last use
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy client list --json")]
pub(in crate::cli) struct List {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl List {
    pub(super) fn run(self, config: &Config) -> Result<(), Failure> {
        let clients = Clients::open(&config.database())?.list()?;
        if self.json {
            let now = Timestamp::now();
            let rows: Vec<_> = clients.iter().map(|record| as_json(record, now)).collect();
            return print(&format!("{}\n", json!(rows)));
        }
        if clients.is_empty() {
            complain(
                "there is no client, so every program that reaches the proxy on this machine may do \
                 everything; add one: `agentpmt-proxy client add NAME --allow jobs`",
            );
            return Ok(());
        }
        print(&table(&clients, Timestamp::now()))
    }
}

fn as_json(record: &ClientRecord, now: Timestamp) -> Value {
    let ClientRecord { client, credential, created, revoked, last_used, credits_left, .. } = record;
    let text = |time: &Timestamp| time.to_string();
    json!({
        "name": client.name.as_str(),
        "access": access(record, now).to_lowercase(),
        "allow": client.allow.to_string(),
        "wallet": client.wallet.map(|wallet| wallet.to_string()),
        "rate": client.rate.map(|rate| rate.to_string()),
        "max_reservations": client.max_reservations,
        "max_credits": client.max_credits.map(|limit| limit.to_string()),
        "credits_left": credits_left.map(|left| left.to_string()),
        "spend": client.spend.map(|limit| limit.to_string()),
        "admin": client.admin,
        "known_by": credential.as_ref().map(known_by),
        "created": text(created),
        "expires": client.expires.as_ref().map(text),
        "revoked": revoked.as_ref().map(text),
        "last_used": last_used.as_ref().map(text),
    })
}

/// The headings of the columns, in order.
const HEADINGS: [&str; 7] =
    ["NAME", "ACCESS", "ALLOW", "KNOWN BY", "LAST USE", "EXPIRES", "LIMITS"];

/// A line for each client, below the headings.
fn table(clients: &[ClientRecord], now: Timestamp) -> String {
    let mut rows = vec![HEADINGS.map(str::to_owned)];
    rows.extend(clients.iter().map(|record| columns(record, now)));
    let widths: [usize; 7] = std::array::from_fn(|column| {
        rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default()
    });
    let line = |row: &[String; 7]| {
        let cells = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}"));
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

fn columns(record: &ClientRecord, now: Timestamp) -> [String; 7] {
    let ClientRecord { client, credential, last_used, credits_left, .. } = record;
    let time = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let limits = [
        client.admin.then(|| "admin".to_owned()),
        client.wallet.map(|wallet| format!("wallet {wallet}")),
        client.rate.map(|rate| rate.to_string()),
        client.max_reservations.map(|max| format!("at most {max} reservations")),
        client
            .max_credits
            .zip(*credits_left)
            .map(|(limit, left)| format!("{limit} of credits, {left} left")),
        client.spend.map(|limit| format!("pays {limit}")),
    ];
    let limits: Vec<_> = limits.into_iter().flatten().collect();
    let dash = || "-".to_owned();
    [
        client.name.to_string(),
        access(record, now).to_owned(),
        client.allow.to_string(),
        credential.as_ref().map_or_else(dash, known_by),
        last_used.map_or("never".to_owned(), time),
        client.expires.map_or("never".to_owned(), time),
        if limits.is_empty() { dash() } else { limits.join("; ") },
    ]
}

/// Whether a client may still call; in capitals if not.
fn access(ClientRecord { client, revoked, .. }: &ClientRecord, now: Timestamp) -> &'static str {
    match client.expires {
        _ if revoked.is_some() => "REVOKED",
        Some(end) if end <= now => "EXPIRED",
        _ => "active",
    }
}

fn known_by(credential: &Credential) -> String {
    match credential {
        Credential::Token(_) => "token".to_owned(),
        Credential::Certificate(hash) => format!("certificate {}", hex::encode(hash.as_bytes())),
        Credential::Uid(uid) => format!("uid {uid}"),
    }
}
