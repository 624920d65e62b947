//! The cost of a call in credits, as answers tell of it (protocol §6).

use serde_json::Value;

/// The price of a call, and the balance after it was paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Charge {
    pub(super) price: i64,
    pub(super) balance: i64,
}

impl Charge {
    /// The answer with the fields of a call that may have cost something.
    pub(super) fn beside(self, mut answer: Value) -> Value {
        answer["price_credits"] = self.price.into();
        answer["charged_credits"] = self.price.into();
        answer["balance_credits"] = self.balance.into();
        answer["balance_usd"] = usd(self.balance).into();
        answer["credit_source"] = "wallet".into();
        answer
    }
}

/// 100 credits are 1 USD.
pub(super) fn usd(credits: i64) -> String {
    format!("{}.{:02}", credits / 100, credits % 100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hundred_credits_are_a_dollar() {
        assert_eq!([0, 5, 100, 12_345].map(usd), ["0.00", "0.05", "1.00", "123.45"]);
    }
}
