//! The policy: which entry of a challenge is paid, if any.

use jiff::Timestamp;
use serde_json::{Value, json, value::RawValue};

use super::{
    challenge::{Challenge, Offer, Unfit},
    declined::{Declined, Limit},
    envelope::Payment,
    terms::PaymentTerms,
    typed_data::{Authorization, AuthorizationNonce, Domain},
};
use crate::{
    config::{AssetConfig, SpendingConfig},
    policy::{Permit, SpendLimit, SpendWindow},
    types::{Address, Amount, BaseUnits, ClientId, Network},
};

/// The longest time for which an authorisation is good, in seconds.
pub(crate) const MAX_SECONDS: u64 = 240;

/// How many credits one unit of a token buys.
const CREDITS: u128 = 100;

/// The policy of `[spending]`.
#[derive(Debug, Clone)]
pub struct Spending {
    wallet: Address,
    networks: Vec<Network>,
    assets: Vec<AssetConfig>,
    payees: Vec<Address>,
    resources: Vec<String>,
    /// The decimals of all assets.
    decimals: u8,
    max_per_call: BaseUnits,
    per_day: BaseUnits,
    per_month: BaseUnits,
    approve_above: Option<BaseUnits>,
}

/// The credits that a payment is to buy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Purchase {
    /// How many.
    pub credits: u64,
    /// The wallet that gets them.
    pub recipient: Address,
}

/// A payment that is on record, to be made again.
#[derive(Debug, Clone)]
pub struct PaymentRecord {
    /// The number of its authorisation.
    pub nonce: AuthorizationNonce,
    /// The end of its authorisation, in seconds since 1970.
    pub valid_before: u64,
    /// The entry of the challenge that is paid.
    pub accepted: String,
    /// The resource of the challenge.
    pub resource: String,
    /// The credits that it is to buy.
    pub purchase: Option<Purchase>,
    /// The body of a purchase.
    pub body: Option<String>,
    /// The transaction that is to settle it, once the upstream has told that.
    pub transaction_hash: Option<String>,
    /// The credits of the recipient before, as JSON, if no other call has changed them.
    pub balance_before: Option<String>,
}

/// The client that wants to pay, and what was paid before.
#[derive(Debug, Clone, Copy)]
pub struct Spender<'a> {
    /// The client.
    pub client: ClientId,
    /// Its own limit, which can only be narrower.
    pub limit: Option<SpendLimit>,
    /// All payments of the last 30 days that count, of every client, in any order.
    pub spent: &'a [Spent],
    /// Whether a person has approved this payment.
    pub is_approved: bool,
}

/// A payment that counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spent {
    /// The client that paid.
    pub client: ClientId,
    /// When it was recorded.
    pub at: Timestamp,
    /// How much it was.
    pub amount: BaseUnits,
}

/// The values that are new in every payment.
#[derive(Debug, Clone, Copy)]
pub struct Fresh {
    /// The number of the authorisation, at random.
    pub nonce: AuthorizationNonce,
    /// The time.
    pub now: Timestamp,
}

impl Spending {
    /// The policy of a configuration; `None` if it allows no payment.
    pub fn of(config: &SpendingConfig) -> Option<Self> {
        let decimals = config.assets.first()?.decimals;
        let units = |limit: Option<Amount>| limit?.to_base_units(decimals);
        Some(Self {
            wallet: config.wallet?,
            networks: config.networks.clone(),
            assets: config.assets.clone(),
            payees: config.payees.clone(),
            resources: config.resources.clone(),
            decimals,
            max_per_call: units(config.max_per_call)?,
            per_day: units(config.per_day)?,
            per_month: units(config.per_month)?,
            approve_above: match config.approve_above {
                Some(above) => Some(units(Some(above))?),
                None => None,
            },
        })
    }

    /// The limits, as a client sees them.
    pub fn to_json(&self) -> Value {
        let amount = |units: BaseUnits| units.to_amount(self.decimals).to_string();
        json!({
            "wallet": self.wallet.to_string(),
            "max_per_call": amount(self.max_per_call),
            "per_day": amount(self.per_day),
            "per_month": amount(self.per_month),
            "approve_above": self.approve_above.map(amount),
        })
    }

    /// The wallet that pays.
    pub fn wallet(&self) -> Address {
        self.wallet
    }

    /// The decimals of the amounts, which all tokens have.
    pub fn decimals(&self) -> u8 {
        self.decimals
    }

    /// Decides on a challenge that answered a permitted call: the cheapest entry that is allowed is paid,
    /// if its amount is within every limit.
    ///
    /// # Errors
    /// See [`Declined`].
    pub fn pay(
        &self,
        permit: &Permit,
        challenge: &Challenge,
        purchase: Option<Purchase>,
        spender: Spender<'_>,
        fresh: Fresh,
    ) -> Result<Payment, Declined> {
        let (offer, asset) = self.choose(permit, challenge)?;
        if let Some(Purchase { credits, .. }) = purchase {
            self.check_price(offer.amount, credits)?;
        }
        self.check_limits(offer.amount, spender, fresh.now)?;
        if !spender.is_approved {
            self.check_approval(&challenge.url, offer)?;
        }
        let seconds = offer.max_timeout_seconds.min(MAX_SECONDS);
        let now = u64::try_from(fresh.now.as_second()).unwrap_or(0);
        let end = (fresh.nonce, now + seconds);
        Ok(self.payment(&challenge.resource, offer, asset, purchase, end))
    }

    /// The payment that is on record, once more: the same authorisation, as long as the configuration
    /// allows its entry. It was counted when it was recorded.
    ///
    /// # Errors
    /// See [`Declined`].
    pub fn again(&self, permit: &Permit, record: &PaymentRecord) -> Result<Payment, Declined> {
        let challenge = Challenge::of_record(&record.resource, &record.accepted);
        let challenge = challenge.map_err(|_| Declined::NoOffer(vec![Unfit::Form]))?;
        let (offer, asset) = self.choose(permit, &challenge)?;
        let end = (record.nonce, record.valid_before);
        Ok(self.payment(&challenge.resource, offer, asset, record.purchase, end))
    }

    fn payment(
        &self,
        resource: &RawValue,
        offer: &Offer,
        asset: &AssetConfig,
        purchase: Option<Purchase>,
        (nonce, valid_before): (AuthorizationNonce, u64),
    ) -> Payment {
        let (from, to, value) = (self.wallet, offer.payee, offer.amount);
        let sponsored = purchase.filter(|purchase| purchase.recipient != self.wallet);
        Payment {
            domain: Domain {
                name: asset.name.clone(),
                version: asset.version.clone(),
                network: offer.network,
                contract: asset.address,
            },
            authorization: Authorization { from, to, value, valid_before, nonce },
            accepted: offer.verbatim.clone(),
            resource: resource.to_owned(),
            sponsored: sponsored.map(|purchase| (purchase.recipient, purchase.credits)),
        }
    }

    fn choose<'a>(
        &'a self,
        permit: &Permit,
        challenge: &'a Challenge,
    ) -> Result<(&'a Offer, &'a AssetConfig), Declined> {
        if permit.wallet() != self.wallet {
            return Err(Declined::Wallet { wallet: permit.wallet(), payer: self.wallet });
        }
        let call = permit.call();
        let url = || challenge.url.clone();
        if !challenge.is_for(&call.path()) {
            return Err(Declined::OtherResource { url: url(), path: call.path() });
        }
        if !self.resources.contains(&challenge.url) {
            return Err(Declined::Resource(url()));
        }
        if call.has_proof() {
            return Err(Declined::TwoProofs);
        }
        let mut unfit = Vec::new();
        let mut fit = Vec::new();
        for offer in &challenge.offers {
            match offer.as_ref().map_err(Clone::clone).and_then(|offer| self.check_offer(offer)) {
                Ok(chosen) => fit.push(chosen),
                Err(reason) => unfit.push(reason),
            }
        }
        let cheapest = fit.into_iter().min_by_key(|(offer, _)| offer.amount);
        cheapest.ok_or(Declined::NoOffer(unfit))
    }

    fn check_offer<'a>(&'a self, offer: &'a Offer) -> Result<(&'a Offer, &'a AssetConfig), Unfit> {
        let Offer { network, asset: contract, payee, .. } = *offer;
        if !self.networks.contains(&network) {
            return Err(Unfit::Network(network));
        }
        let is_it = |asset: &&AssetConfig| asset.address == contract && asset.may_be_on(network);
        let asset = self.assets.iter().find(is_it).ok_or(Unfit::Asset(contract, network))?;
        if (&asset.name, &asset.version) != (&offer.name, &offer.version) {
            return Err(Unfit::Domain(contract));
        }
        if !self.payees.contains(&payee) {
            return Err(Unfit::Payee(payee));
        }
        Ok((offer, asset))
    }

    /// Credits have a price, and a demand may not be above it.
    fn check_price(&self, amount: BaseUnits, credits: u64) -> Result<(), Declined> {
        let units = u128::from(credits) * 10_u128.pow(self.decimals.into()) / CREDITS;
        let price = BaseUnits::new(units);
        if amount <= price {
            return Ok(());
        }
        let to_amount = |units: BaseUnits| units.to_amount(self.decimals);
        Err(Declined::Price { amount: to_amount(amount), price: to_amount(price) })
    }

    fn check_limits(
        &self,
        units: BaseUnits,
        Spender { client, limit, spent, .. }: Spender<'_>,
        now: Timestamp,
    ) -> Result<(), Declined> {
        let amount = units.to_amount(self.decimals);
        if units > self.max_per_call {
            let most = self.max_per_call.to_amount(self.decimals);
            return Err(Declined::AboveLimit { limit: Limit::PerCall, most, amount });
        }
        let own = limit.map(|own| {
            // A limit that the token cannot express allows nothing.
            let most = own.amount.to_base_units(self.decimals).unwrap_or(BaseUnits::new(0));
            (Limit::Client(own.into()), most, own.window)
        });
        let of_all = [
            (Limit::PerDay, self.per_day, SpendWindow::Day),
            (Limit::PerMonth, self.per_month, SpendWindow::Month),
        ];
        for (limit, most, window) in own.into_iter().chain(of_all) {
            let is_own = matches!(limit, Limit::Client(_));
            let counts = |spent: &&Spent| !is_own || spent.client == client;
            let spent = spent.iter().filter(counts);
            self.check_window(limit, most, window, spent, units, now)?;
        }
        Ok(())
    }

    fn check_approval(&self, url: &str, offer: &Offer) -> Result<(), Declined> {
        let Some(above) = self.approve_above.filter(|above| offer.amount > *above) else {
            return Ok(());
        };
        let terms = PaymentTerms {
            resource: url.to_owned(),
            network: offer.network,
            asset: offer.asset,
            payee: offer.payee,
            amount: offer.amount.to_amount(self.decimals),
        };
        Err(Declined::Unapproved { above: above.to_amount(self.decimals), terms: Box::new(terms) })
    }

    /// Checks one limit over the time before now.
    fn check_window<'a>(
        &self,
        limit: Limit,
        most: BaseUnits,
        window: SpendWindow,
        spent: impl Iterator<Item = &'a Spent>,
        units: BaseUnits,
        now: Timestamp,
    ) -> Result<(), Declined> {
        let amount = units.to_amount(self.decimals);
        let Some(room) = most.number().checked_sub(units.number()) else {
            let most = most.to_amount(self.decimals);
            return Err(Declined::AboveLimit { limit, most, amount });
        };
        let mut counted: Vec<_> =
            spent.map(|spent| (window.end_of(spent.at), spent.amount.number())).collect();
        counted.retain(|(end, _)| *end > now);
        counted.sort();
        let mut sum = counted.iter().fold(0_u128, |sum, (_, units)| sum.saturating_add(*units));
        if sum <= room {
            return Ok(());
        }
        let left = BaseUnits::new(most.number().saturating_sub(sum)).to_amount(self.decimals);
        let mut until = now;
        for (end, units) in counted {
            (sum, until) = (sum.saturating_sub(units), end);
            if sum <= room {
                break;
            }
        }
        Err(Declined::LimitReached { limit, left, until, amount })
    }
}
