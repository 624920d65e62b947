//! `payments`: the payments on record, and the end of one that waits for its transaction.

use clap::{Args, Subcommand};
use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    config_args::ConfigArgs,
    failure::Failure,
    output::{complain, print, tell},
};
use crate::{
    config::Config,
    payment::AuthorizationNonce,
    store::{self, ListedPayment},
};

/// List the payments that are not known to be made, or end one
///
/// A payment is `open` while it can be cashed, `pending` while the API waits for its transaction, and else
/// `unknown`. All of these count. With `--all`, also those of the last 30 days that are `settled`, and those
/// that are `returned` and do not count.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
#[command(after_help = "Example:\n  agentpmt-proxy payments")]
pub(super) struct PaymentsCommand {
    #[command(subcommand)]
    command: Option<PaymentsSubcommand>,
    #[command(flatten)]
    list: ListPayments,
}

#[derive(Debug, Subcommand)]
enum PaymentsSubcommand {
    List(ListPayments),
    End(EndPayment),
}

/// List the payments, the last one first
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy payments list --all --json")]
struct ListPayments {
    /// Also those whose end is known
    #[arg(long)]
    all: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Wait no longer for the transaction of a purchase
///
/// Other purchases of the wallet wait for it otherwise. It goes on counting as if it was made. The same call
/// again is then a new purchase.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  agentpmt-proxy payments end \
                  0xabababababababababababababababababababababababababababababababab")]
struct EndPayment {
    /// The id of the payment
    #[arg(value_parser = id)]
    id: AuthorizationNonce,
}

fn id(text: &str) -> Result<AuthorizationNonce, &'static str> {
    text.parse().map_err(|_| "the id of a payment is 0x and 64 hexadecimal digits, as in its list")
}

impl PaymentsCommand {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let config = settings.load()?;
        match self.command.unwrap_or(PaymentsSubcommand::List(self.list)) {
            PaymentsSubcommand::List(list) => list.run(&config),
            PaymentsSubcommand::End(EndPayment { id }) => {
                store::end_payment(&config.database(), id, Timestamp::now())??;
                tell(&format!("Payment {id} is ended, and counts as made.\n"));
                Ok(())
            }
        }
    }
}

impl ListPayments {
    fn run(self, config: &Config) -> Result<(), Failure> {
        let mut found = store::payments(&config.database(), Timestamp::now())?;
        found.retain(|payment| self.all || !payment.state.is_known());
        if self.json {
            let found: Vec<Value> = found.iter().map(ListedPayment::to_json).collect();
            return print(&format!("{}\n", json!(found)));
        }
        if found.is_empty() {
            complain("there is no such payment");
        }
        found.iter().try_for_each(|payment| print(&format!("{}\n", line(payment, config))))
    }
}

/// A line for people. Its URL is one that the configuration lists.
fn line(payment: &ListedPayment, config: &Config) -> String {
    let ListedPayment { nonce, client, amount, demand: [accepted, resource], .. } = payment;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (asset, network) = (text(&accepted["asset"]), text(&accepted["network"]));
    let known = config.spending.assets.iter().find(|asset| Some(asset.address) == payment.asset);
    let amount = match known {
        Some(asset) => amount.to_amount(asset.decimals).to_string(),
        None => format!("{amount} base units"),
    };
    let recorded = payment.recorded.strftime("%Y-%m-%dT%H:%M:%SZ");
    let (state, url) = (payment.state.as_str(), text(&resource["url"]));
    let url = url.escape_default();
    format!(
        "{nonce}  {state:8}  {recorded}  {client} paid {amount} of {asset} on {network} for {url}"
    )
}
