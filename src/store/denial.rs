//! The record of a call that was denied.

use crate::{
    canonical::{CanonicalJson, Object},
    types::{Address, ClientName, RequestId, Slug},
};

/// A call that was denied, so that nothing was signed or sent. It holds no credential.
#[derive(Debug, Clone)]
pub struct Denial {
    /// The id of the local request, its `x-request-id`.
    pub call_id: RequestId,
    /// Who called.
    pub caller: Caller,
    /// Whose key was to sign, if that was known by then.
    pub wallet: Option<Address>,
    /// The name of the action.
    pub action: &'static str,
    /// What it was to be done to, if the call names it.
    pub product: Option<Slug>,
    /// Why, in a word, such as that of [`Denied::reason`](crate::policy::Denied::reason).
    pub reason: &'static str,
}

/// Who made a call that was denied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Caller {
    /// A client.
    Client(ClientName),
    /// Nobody that is known: what there is to tell, such as an address or a user id.
    Unknown(String),
}

impl Denial {
    pub(super) fn fields(&self) -> Object {
        let mut fields = Object::default();
        let mut text = |name: &str, text: &str| fields.insert(name, CanonicalJson::string(text));
        text("kind", "denied");
        text("call_id", self.call_id.as_str());
        match &self.caller {
            Caller::Client(name) => text("client", name.as_str()),
            Caller::Unknown(from) => text("from", from),
        }
        if let Some(wallet) = self.wallet {
            text("wallet", &wallet.to_string());
        }
        text("action", self.action);
        if let Some(product) = &self.product {
            text("product", product.as_str());
        }
        text("reason", self.reason);
        fields
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_denial_names_the_client_or_what_is_known_of_who_called() {
        let denial = |caller| Denial {
            call_id: "c-1".parse().unwrap(),
            caller,
            wallet: None,
            action: "job_list",
            product: None,
            reason: "token",
        };
        let text = |caller| denial(caller).fields().to_canonical().as_str().to_owned();
        assert_eq!(
            text(Caller::Client("ci".parse().unwrap())),
            r#"{"action":"job_list","call_id":"c-1","client":"ci","kind":"denied","reason":"token"}"#
        );
        assert_eq!(
            text(Caller::Unknown("uid 7".into())),
            r#"{"action":"job_list","call_id":"c-1","from":"uid 7","kind":"denied","reason":"token"}"#
        );
    }
}
