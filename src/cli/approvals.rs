//! `approvals`: the payments that a person is asked about, and the answer.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::{complain, print, tell},
    password::Source,
    sandbox_state, wallets,
};
use crate::{
    config::Config,
    payment::PaymentTerms,
    store::{self, Approval, ApprovalError, ApprovalId},
};

/// List the payments that wait for approval, approve or deny them
///
/// A payment above the setting `spending.approve_above` is not signed before it is approved here. It waits
/// for an hour; an approval counts for an hour, for one payment. No client can approve.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Example:\n  agentpmt-proxy approvals")]
pub(super) struct ApprovalsCommand {
    #[command(subcommand)]
    command: Option<ApprovalsSubcommand>,
    #[command(flatten)]
    list: ListApprovals,
}

#[derive(Debug, Subcommand)]
enum ApprovalsSubcommand {
    List(ListApprovals),
    Approve(Approve),
    Deny(Deny),
}

/// List the payments, the last one first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy approvals list --json")]
struct ListApprovals {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Let a payment be made, once
///
/// It takes the wallet's password, from AGENTPMT_PROXY_PASSWORD, the file of --password-file or a prompt. The
/// client then sends the same call again.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  agentpmt-proxy approvals approve 5ff41667-9cb0-4b43-a080-a7349a6b44ad"
)]
struct Approve {
    /// The id of the payment
    id: ApprovalId,
}

/// Refuse a payment, or take back its approval before it is used
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  agentpmt-proxy approvals deny 5ff41667-9cb0-4b43-a080-a7349a6b44ad"
)]
struct Deny {
    /// The id of the payment
    id: ApprovalId,
}

impl ApprovalsCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let config = settings.load()?;
        match self.command.unwrap_or(ApprovalsSubcommand::List(self.list)) {
            ApprovalsSubcommand::List(list) => list.run(&config),
            ApprovalsSubcommand::Approve(Approve { id }) => approve(&settings, &config, id),
            ApprovalsSubcommand::Deny(Deny { id }) => {
                tell_answer(&store::deny(&config.database(), id, Timestamp::now())??)
            }
        }
    }
}

impl ListApprovals {
    fn run(self, config: &Config) -> Result<(), Failure> {
        let (all, now) = (store::approvals(&config.database())?, Timestamp::now());
        if self.json {
            let all: Vec<Value> = all.iter().map(|approval| approval.to_json(now)).collect();
            return print(&format!("{}\n", json!(all)));
        }
        if all.is_empty() {
            complain("no payment waits for approval, or did in the last day");
        }
        all.iter().try_for_each(|approval| print(&format!("{}\n", line(approval, now))))
    }
}

/// A line for people. Its URL is one that the configuration lists.
fn line(approval: &Approval, now: Timestamp) -> String {
    let Approval { id, client_name, action, terms, ends, .. } = approval;
    let PaymentTerms { resource, network, asset, payee, amount } = terms;
    let (state, ends) = (approval.state(now).as_str(), ends.strftime("%Y-%m-%dT%H:%M:%SZ"));
    format!(
        "{id}  {state:8}  until {ends}  {client_name}: {action} pays {amount} of {asset} on {network} to \
         {payee} for {resource}"
    )
}

fn approve(settings: &ConfigArgs, config: &Config, id: ApprovalId) -> Result<(), Failure> {
    let path = &config.database();
    // A person sees what the password is for.
    let all = store::approvals(path)?;
    let found = all.iter().find(|approval| approval.id == id);
    let found = found.ok_or(ApprovalError::Unknown(id))?;
    tell(&format!("{}\n", line(found, Timestamp::now())));
    // The password of a sandbox is no secret.
    if let Some(key) = sandbox_state::existing_wallet(config) {
        match store::approve(path, id, key.seal_key(), Timestamp::now())? {
            Err(ApprovalError::OtherWallet(_)) => {}
            approved => return tell_answer(&approved?),
        }
    }
    let wallets::LockedWallet { key, .. } = wallets::first(config)?;
    let (key, _) = Source::of_person(settings, config).unlock(&key)?;
    tell_answer(&store::approve(path, id, key.seal_key(), Timestamp::now())??)
}

fn tell_answer(approval: &Approval) -> Result<(), Failure> {
    tell(&format!("{}\n", line(approval, Timestamp::now())));
    Ok(())
}
