//! `explain`: what would be hashed and signed for a call.

use clap::{
    Args,
    builder::{PossibleValue, PossibleValuesParser, TypedValueParser},
};
use jiff::Timestamp;
use serde_json::json;

use super::{config_args::ConfigArgs, failure::Failure, output::print, wallets};
use crate::{
    action::{ACTIONS, Action, Proof},
    call::Call,
    config::Config,
    message::Message,
    payment::{AuthorizationNonce, Challenge, Fresh, Spender, Spending},
    policy::{Client, SignedPermit},
    proxy::CallError,
    types::{Address, ClientId, RequestId, SessionNonce},
};

/// Print the payload, its hash and the message of a call; sign and send nothing
///
/// The session nonce and the request id, which only a real call has, stand as <session_nonce> and
/// <request_id>. Zeros stand for the wallet if none is known.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy explain job_list '{\"limit\": 5}'\n  \
                        agentpmt-proxy explain job_complete JOB_ID '{\"proof_text\": \"done\"}'")]
pub(super) struct Explain {
    /// The action
    #[arg(value_parser = action_parser())]
    action: &'static Action,
    /// The ids of its path, then the body as JSON
    #[arg(value_name = "ID_OR_JSON", num_args = 0..=3)]
    values: Vec<String>,
    /// The demand of a 402, as its PAYMENT-REQUIRED header or as JSON: print the typed data that would pay it
    #[arg(long, value_name = "BASE64_OR_JSON")]
    demand: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// The placeholder for a wallet that is not known.
const UNKNOWN: Address = Address::new([0; 20]);

/// The message that the wallet would sign.
struct Proven {
    /// The canonical payload; empty if nothing is hashed.
    payload: String,
    /// Its hash; empty if nothing is hashed.
    hash: String,
    message: String,
}

impl Explain {
    pub(super) fn run(self, settings: ConfigArgs) -> Result<(), Failure> {
        let config = settings.load()?;
        let (ids, body) = self.split();
        if self.action.id_names().next().is_some() && ids.iter().any(|id| id.starts_with('{')) {
            return Err(Failure::BodyForId(self.action));
        }
        let call = Call::new(self.action, ids.iter().map(String::as_str), body.as_bytes())?;
        if let Some(demand) = &self.demand {
            return print(&typed_data(&config, call, demand)?);
        }
        let wallet = wallet(&config);
        if let Some(wallet) = wallet
            && let Some(named) = call.other_wallet(wallet)
        {
            return Err(Failure::Refused(CallError::other_wallet(named, wallet).into()));
        }
        let permit =
            Client::local().permit(call, wallet.unwrap_or(UNKNOWN), None, Timestamp::now());
        let permit = permit.expect("the local client may do everything");
        let proven = permit.signed().map(prove);
        let call = permit.call();
        if self.json {
            return print(&as_json(call, wallet, proven));
        }
        print(&as_text(call, wallet, proven))
    }

    /// The ids that the path needs come first; what follows is the body.
    fn split(&self) -> (&[String], &str) {
        let needed = self.action.id_names().count();
        match self.values.split_last() {
            Some((body, ids)) if self.values.len() > needed => (ids, body),
            _ => (&self.values, ""),
        }
    }
}

/// Takes the name of an action; the help says what each is, and the error shows all names.
fn action_parser() -> impl TypedValueParser<Value = &'static Action> {
    PossibleValuesParser::new(ACTIONS.iter().map(value))
        .try_map(|name| Action::named(&name).ok_or("there is no such action"))
}

fn value(action: &Action) -> PossibleValue {
    PossibleValue::new(action.name).help(action.summary)
}

/// The wallet of the configuration, if it is known without a password.
fn wallet(config: &Config) -> Option<Address> {
    config.wallet.or_else(|| wallets::first(config).ok()?.key.wallet())
}

fn prove(permit: SignedPermit<'_>) -> Proven {
    let payload = permit.call().payload();
    // Both texts are printable and have no space, which is all that is asked of them.
    let nonce: SessionNonce = "<session_nonce>".parse().expect("a nonce");
    let request_id: RequestId = "<request_id>".parse().expect("a request id");
    Proven {
        hash: payload.as_ref().map(|payload| payload.hash().to_string()).unwrap_or_default(),
        payload: payload.map(String::from).unwrap_or_default(),
        message: Message::new(permit, &nonce, &request_id).to_string(),
    }
}

/// The typed data that would be signed to pay a demand now, if nothing was paid before. Zeros stand for the
/// nonce, which is random.
fn typed_data(config: &Config, call: Call, demand: &str) -> Result<String, Failure> {
    let refused = |error: CallError| Failure::Payment(Box::new(error));
    let spending = Spending::of(&config.spending).ok_or(Failure::NoSpending)?;
    let challenge = match demand.trim_start().starts_with('{') {
        true => Challenge::parse(demand.as_bytes()),
        false => Challenge::from_header(demand.as_bytes()),
    };
    let challenge = challenge.map_err(|error| refused(error.into()))?;
    let now = Timestamp::now();
    let permit = Client::local().permit(call, spending.wallet(), None, now);
    let permit = permit.expect("the local client may do everything");
    let spender = Spender { client: ClientId::LOCAL, limit: None, spent: &[], is_approved: true };
    let fresh = Fresh { nonce: AuthorizationNonce::new([0; 32]), now };
    let payment = spending.pay(&permit, &challenge, None, spender, fresh);
    let payment = payment.map_err(|error| refused(error.into()))?;
    Ok(format!("{:#}\n", payment.typed_data()))
}

fn as_json(call: &Call, wallet: Option<Address>, proven: Option<Proven>) -> String {
    let mut explanation = json!({
        "method": call.action().method.as_str(),
        "path": call.path(),
        "body": String::from(call.body().to_canonical()),
        "wallet": wallet.map(|wallet| wallet.to_string()),
        "signed": proven.is_some(),
    });
    if let Some(Proven { payload, hash, message }) = proven {
        explanation["payload"] = payload.into();
        explanation["hash"] = hash.into();
        explanation["message"] = message.into();
    }
    format!("{explanation}\n")
}

fn as_text(call: &Call, wallet: Option<Address>, proven: Option<Proven>) -> String {
    let request = format!("{} {}\n", call.action().method, call.path());
    let Some(Proven { payload, hash, message }) = proven else {
        let body = call.body().to_canonical();
        let reason = match call.action().proof {
            Proof::WorkflowToken => {
                "not signed: the proxy adds the workflow token of the job's reservation"
            }
            Proof::Payment => {
                "not signed: it is paid for by x402, once the API demands that; --demand shows how"
            }
            _ => "not signed: everyone may make this call",
        };
        return format!("{request}body     {}\n{reason}\n", body.as_str());
    };
    let wallet = match wallet {
        Some(wallet) => wallet.to_string(),
        None => "not known; zeros stand for its address".to_owned(),
    };
    let lines: String = message.lines().map(|line| format!("  {line}\n")).collect();
    format!("{request}wallet   {wallet}\npayload  {payload}\nsha-256  {hash}\nmessage\n{lines}")
}
