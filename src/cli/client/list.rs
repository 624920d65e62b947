//! `client list`.

use clap::Args;
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Failure, complain, print};
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
            let rows: Vec<_> = clients.iter().map(as_json).collect();
            return print(&format!("{}\n", json!(rows)));
        }
        if clients.is_empty() {
            complain(
                "there is no client, so everyone who reaches the proxy on this machine may do \
                 everything; add one: `agentpmt-proxy client add NAME --allow jobs`",
            );
        }
        clients.iter().try_for_each(|record| print(&as_line(record)))
    }
}

fn as_json(record: &ClientRecord) -> Value {
    let ClientRecord { client, credential, revoked, last_used } = record;
    let text = |time: &Timestamp| time.to_string();
    json!({
        "name": client.name.as_str(),
        "allow": client.allow.to_string(),
        "wallet": client.wallet.map(|wallet| wallet.to_string()),
        "rate": client.rate.map(|rate| rate.to_string()),
        "max_reservations": client.max_reservations,
        "admin": client.admin,
        "known_by": credential.as_ref().map(known_by),
        "created": client.added.as_ref().map(text),
        "expires": client.expires.as_ref().map(text),
        "revoked": revoked.as_ref().map(text),
        "last_used": last_used.as_ref().map(text),
    })
}

/// The client, what it may call, and what else there is to say of it.
fn as_line(ClientRecord { client, credential, revoked, last_used, .. }: &ClientRecord) -> String {
    let time = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let notes = [
        Some(client.allow.to_string()),
        client.admin.then(|| "admin".to_owned()),
        client.wallet.map(|wallet| format!("wallet {wallet}")),
        client.rate.map(|rate| rate.to_string()),
        client.max_reservations.map(|max| format!("at most {max} reservations")),
        credential.as_ref().map(|credential| format!("by {}", known_by(credential))),
        client.expires.map(|end| format!("expires {}", time(end))),
        Some(last_used.map_or("never used".to_owned(), |at| format!("last used {}", time(at)))),
        revoked.map(|at| format!("REVOKED {}", time(at))),
    ];
    let notes: Vec<_> = notes.into_iter().flatten().collect();
    format!("{:20}  {}\n", client.name.as_str(), notes.join("; "))
}

fn known_by(credential: &Credential) -> String {
    match credential {
        Credential::Token(_) => "token".to_owned(),
        Credential::Certificate(hash) => format!("certificate {}", hex::encode(hash.as_bytes())),
        Credential::Uid(uid) => format!("uid {uid}"),
    }
}
