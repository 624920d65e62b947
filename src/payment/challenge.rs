//! The challenge of a 402: what the upstream would take as a payment (protocol §9.1).

use base64::{Engine, engine::general_purpose::STANDARD};
use reqwest::Url;
use serde::Deserialize;
use serde_json::value::RawValue;

use crate::types::{Address, BaseUnits, Network};

/// The most entries that a challenge may have.
const MAX_OFFERS: usize = 32;

/// The most bytes of its resource and of each entry, as they are stored and sent back.
const MAX_PART: usize = 8 << 10;

/// A challenge. Its entries are kept as they stand, to be sent back verbatim.
#[derive(Debug, Clone)]
pub struct Challenge {
    pub(super) resource: Box<RawValue>,
    /// The URL that is to be paid for, as every parser writes it.
    pub(super) url: String,
    pub(super) offers: Vec<Result<Offer, Unfit>>,
}

/// An entry of a challenge whose fields are all there.
#[derive(Debug, Clone)]
pub(super) struct Offer {
    pub(super) verbatim: Box<RawValue>,
    pub(super) network: Network,
    pub(super) asset: Address,
    pub(super) payee: Address,
    pub(super) amount: BaseUnits,
    pub(super) max_timeout_seconds: u64,
    pub(super) name: String,
    pub(super) version: String,
}

/// Why a challenge cannot be read. It never repeats the challenge.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChallenge {
    /// The header is not base64.
    #[error("the PAYMENT-REQUIRED header is not base64")]
    Encoding,
    /// It is not JSON, or a field is missing, is there twice or is of another type.
    #[error(
        "the challenge is not one of x402: a field is missing, is there twice or has another type"
    )]
    Form,
    /// It is of another version.
    #[error("the challenge is not of version 2 of x402")]
    Version,
    /// It has too many entries.
    #[error("the challenge has more than {MAX_OFFERS} entries")]
    Length,
    /// Its resource or an entry is too long.
    #[error("the resource or an entry of the challenge has more than {MAX_PART} bytes")]
    Part,
}

/// Why an entry of a challenge is not paid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    /// A field is missing, or is of another type.
    #[error("it lacks a field, or a field has another type")]
    Form,
    /// Its scheme is not `exact` by EIP-3009.
    #[error(
        "its scheme is not \"exact\" with an EIP-3009 authorisation, the only one that is paid"
    )]
    Scheme,
    /// Its network is no EVM chain.
    #[error("its network is not an EVM chain (eip155:…)")]
    ForeignNetwork,
    /// Its token does not say its domain.
    #[error("it lacks extra.name or extra.version, the token's domain")]
    NoDomain,
    /// Its network is not listed.
    #[error("network {0} is not in spending.networks")]
    Network(Network),
    /// Its token is not listed.
    #[error("token {0} on {1} is not in spending.assets")]
    Asset(Address, Network),
    /// Its domain is not the one that is listed.
    #[error("the domain that it gives for token {0} is not the one in spending.assets")]
    Domain(Address),
    /// Its payee is not listed.
    #[error("payee {0} is not in spending.payees")]
    Payee(Address),
    /// It asks for nothing.
    #[error("its amount is 0")]
    Nothing,
    /// It leaves no time.
    #[error("its maxTimeoutSeconds is 0")]
    NoTime,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Demand<'a> {
    x402_version: u64,
    #[serde(borrow)]
    resource: &'a RawValue,
    #[serde(borrow)]
    accepts: Vec<&'a RawValue>,
}

#[derive(Deserialize)]
struct Resource {
    url: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct RawOffer {
    scheme: String,
    network: String,
    amount: String,
    asset: String,
    pay_to: String,
    max_timeout_seconds: u64,
    extra: Option<Extra>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Extra {
    name: Option<String>,
    version: Option<String>,
    asset_transfer_method: Option<String>,
}

impl Challenge {
    /// The challenge in the value of a `PAYMENT-REQUIRED` header.
    ///
    /// # Errors
    /// See [`InvalidChallenge`].
    pub fn from_header(value: &[u8]) -> Result<Self, InvalidChallenge> {
        Self::parse(&STANDARD.decode(value).map_err(|_| InvalidChallenge::Encoding)?)
    }

    /// The challenge of a payment that is made again: its resource and the entry that was chosen.
    pub(super) fn of_record(resource: &str, accepted: &str) -> Result<Self, InvalidChallenge> {
        let text = format!(r#"{{"x402Version":2,"resource":{resource},"accepts":[{accepted}]}}"#);
        Self::parse(text.as_bytes())
    }

    /// Whether the URL has this path, with or without the `/api` at its beginning.
    pub(super) fn is_for(&self, path: &str) -> bool {
        let paths = [path, path.strip_prefix("/api").unwrap_or(path)];
        Url::parse(&self.url).is_ok_and(|url| paths.contains(&url.path()))
    }

    /// The challenge that is this JSON, as the body of a 402 may be.
    ///
    /// # Errors
    /// See [`InvalidChallenge`].
    pub fn parse(json: &[u8]) -> Result<Self, InvalidChallenge> {
        let demand: Demand<'_> =
            serde_json::from_slice(json).map_err(|_| InvalidChallenge::Form)?;
        if demand.x402_version != 2 {
            return Err(InvalidChallenge::Version);
        }
        if demand.accepts.len() > MAX_OFFERS {
            return Err(InvalidChallenge::Length);
        }
        let is_long = |part: &&RawValue| part.get().len() > MAX_PART;
        if is_long(&demand.resource) || demand.accepts.iter().any(is_long) {
            return Err(InvalidChallenge::Part);
        }
        let resource: Resource =
            serde_json::from_str(demand.resource.get()).map_err(|_| InvalidChallenge::Form)?;
        let url = Url::parse(&resource.url).map_err(|_| InvalidChallenge::Form)?;
        Ok(Self {
            resource: demand.resource.to_owned(),
            url: url.into(),
            offers: demand.accepts.into_iter().map(offer).collect(),
        })
    }
}

fn offer(verbatim: &RawValue) -> Result<Offer, Unfit> {
    let entry: RawOffer = serde_json::from_str(verbatim.get()).map_err(|_| Unfit::Form)?;
    let Some(extra) = entry.extra else { return Err(Unfit::NoDomain) };
    let is_eip3009 = extra.asset_transfer_method.is_none_or(|method| method == "eip3009");
    if entry.scheme != "exact" || !is_eip3009 {
        return Err(Unfit::Scheme);
    }
    let network = entry.network.parse().map_err(|_| Unfit::ForeignNetwork)?;
    let (Some(name), Some(version)) = (extra.name, extra.version) else {
        return Err(Unfit::NoDomain);
    };
    let offer = Offer {
        verbatim: verbatim.to_owned(),
        network,
        asset: entry.asset.parse().map_err(|_| Unfit::Form)?,
        payee: entry.pay_to.parse().map_err(|_| Unfit::Form)?,
        amount: entry.amount.parse().map_err(|_| Unfit::Form)?,
        max_timeout_seconds: entry.max_timeout_seconds,
        name,
        version,
    };
    match offer {
        Offer { max_timeout_seconds: 0, .. } => Err(Unfit::NoTime),
        offer if offer.amount.number() == 0 => Err(Unfit::Nothing),
        offer => Ok(offer),
    }
}
