//! The tokens that may be paid, and the other values of `[spending]`.

use reqwest::Url;
use toml::de::DeValue;

use super::{
    given::{Given, Value},
    mistake::{InvalidSetting, Mistakes},
    value::{text, wallet},
};
use crate::types::{Address, Amount, Network};

/// The fields of a table of `[[spending.assets]]`. All must be there.
pub(super) const FIELDS: [&str; 4] = ["address", "decimals", "name", "version"];

/// A token that may be paid.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AssetConfig {
    /// Its contract, which is also the `verifyingContract` of what is signed.
    pub address: Address,
    /// How many digits of an amount stand behind the point.
    pub decimals: u8,
    /// The `name` of its EIP-712 domain.
    pub name: String,
    /// The `version` of its EIP-712 domain.
    pub version: String,
}

/// A USDC contract of protocol §9.1.
struct KnownToken {
    network: Network,
    address: &'static str,
    /// Name and version of its domain, where they are known.
    domain: Option<(&'static str, &'static str)>,
}

const KNOWN: [KnownToken; 6] = [
    KnownToken {
        network: Network::new(8453),
        address: "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913",
        domain: Some(("USD Coin", "2")),
    },
    KnownToken {
        network: Network::new(42161),
        address: "0xaf88d065e77c8cc2239327c5edb3a432268e5831",
        domain: None,
    },
    KnownToken {
        network: Network::new(10),
        address: "0x0b2c639c533813f4aa9d7837caf62653d097ff85",
        domain: None,
    },
    KnownToken {
        network: Network::new(137),
        address: "0x3c499c542cef5e3811e1192ce70d8cc03d5c3359",
        domain: None,
    },
    KnownToken {
        network: Network::new(43114),
        address: "0xb97ef9ef8734c71904d8002f8b6bc66dd9c48a6e",
        domain: None,
    },
    KnownToken {
        network: Network::new(84532),
        address: "0x036cbd53842c5426634e7929541ec2318f3dcf7e",
        domain: Some(("USDC", "2")),
    },
];

impl AssetConfig {
    /// Whether the contract may be on this network: a known one is on its own alone.
    pub fn may_be_on(&self, network: Network) -> bool {
        self.known().is_none_or(|known| known.network == network)
    }

    fn known(&self) -> Option<&'static KnownToken> {
        let address = self.address.to_string();
        KNOWN.iter().find(|known| known.address == address)
    }
}

impl Given<'_> {
    /// An array of tables, each with the fields of an [`AssetConfig`].
    pub(super) fn assets(&self) -> Result<Vec<AssetConfig>, Mistakes> {
        self.all(Given::asset)
    }

    fn asset(&self) -> Result<AssetConfig, Mistakes> {
        let (mut address, mut digits) = (None, None);
        let (mut name, mut version) = (None, None);
        self.fields(&FIELDS, FIELDS.len(), |field, given| match field {
            "address" => given.one(wallet).map(|value| address = Some(value)),
            "decimals" => given.one(decimals).map(|value| digits = Some(value)),
            "name" => given.one(quoted).map(|value| name = Some(value)),
            _ => given.one(quoted).map(|value| version = Some(value)),
        })?;
        let all = address.zip(digits).zip(name.zip(version));
        // `fields` has seen that they are there.
        let ((address, decimals), (name, version)) = all.ok_or(Mistakes(Vec::new()))?;
        let asset = AssetConfig { address, decimals, name, version };
        match asset.known().and_then(|known| known.domain) {
            Some(domain) if domain != (&*asset.name, &*asset.version) => {
                let (name, version) = domain;
                let problem = format!("the domain of {address} is {name:?}, version {version:?}");
                Err(self.mistake(InvalidSetting(problem)))
            }
            _ => Ok(asset),
        }
    }
}

fn decimals(given: &Given<'_>) -> Result<u8, InvalidSetting> {
    let decimals = match given.value {
        Value::Toml(DeValue::Integer(number)) => {
            u8::from_str_radix(number.as_str(), number.radix()).ok()
        }
        _ => return Err(given.wrong_type("a number such as 6")),
    };
    decimals.filter(|decimals| *decimals <= 18).ok_or("expected a whole number up to 18".into())
}

pub(super) fn amount(given: &Given<'_>) -> Result<Amount, InvalidSetting> {
    Ok(quoted(given)?.parse()?)
}

/// A text that is easily taken for a number.
fn quoted(given: &Given<'_>) -> Result<String, InvalidSetting> {
    let number = match given.value {
        Value::Toml(DeValue::Integer(number)) => number.as_str(),
        Value::Toml(DeValue::Float(number)) => number.as_str(),
        _ => return text(given),
    };
    let wrong = given.wrong_type("a string in quotes");
    let name = given.key.rsplit('.').next().unwrap_or_default();
    Err(InvalidSetting(format!("{wrong}: write {name} = \"{number}\"")))
}

/// A URL as every parser writes it.
pub(super) fn resource(given: &Given<'_>) -> Result<String, InvalidSetting> {
    let text = given.text()?;
    if text.contains('*') {
        return Err(
            "there are no wildcards; list each URL in full, as the API's demand has it".into()
        );
    }
    let url = Url::parse(text).ok().filter(Url::has_host);
    url.map(String::from)
        .ok_or("expected a whole URL, such as https://www.agentpmt.com/api/external/…".into())
}
