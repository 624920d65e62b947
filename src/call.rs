//! A call that a client makes: a row of [`ACTIONS`], the ids of its path, and
//! its body (protocol §3–§5).

use std::{fmt, sync::Arc};

use http::{HeaderName, HeaderValue};
use sha2::{Digest, Sha256};

use crate::{
    action::{
        ACTIONS, About, Action, Binds, ENVELOPE, EmptyPayload, Field, JsonType, PARAMETERS,
        Payload, Proof, Signed,
    },
    json::{CanonicalJson, JsonError, Object},
    types::{Address, InvalidValue, Slug, TOKEN_PREFIX},
};

/// The field of the envelope that says who is to be paid.
pub(crate) const WALLET: &str = "wallet_address";

/// The field that names the transaction of a payment, in answers and in purchases (protocol §9.2).
pub(crate) const TRANSACTION: &str = "transaction_hash";

/// The field by which a payer gives the credits of a purchase to another wallet (protocol §9.4).
pub(crate) const SPONSOR_SIGNATURE: &str = "sponsor_signature";

/// The field that names a reservation, in answers and in completions.
pub(crate) const RESERVATION_ID: &str = "reservation_id";

/// Why something is no call. Nothing was signed or sent.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidCall {
    /// An id of the path is not usable.
    #[error("{}; {source}", unusable(.name, .given))]
    Id {
        /// The id's name in the path.
        name: &'static str,
        /// The value in its place.
        given: String,
        /// The reason.
        source: InvalidValue,
    },
    /// The number of ids is not that of the path.
    #[error("{action} is a call to {}: {}", .action.path, ids_of(action, *given))]
    IdCount {
        /// The action.
        action: &'static Action,
        /// How many ids were given.
        given: usize,
    },
    /// The body is not a JSON object, or has no canonical form.
    #[error("the body cannot be used: {0}")]
    Body(#[from] JsonError),
    /// There is a payment, and the envelope of a signed call as well.
    #[error(
        "there is a payment header, and session_nonce and signature in the body: leave out the one or \
         the other, as a call has one proof"
    )]
    TwoProofs,
    /// A call of a tool that the proxy pays for holds nothing but its parameters wrapped, as the signed call
    /// takes them.
    #[error(
        "with ?pay=x402 the body is what the tool needs, not an object in {PARAMETERS}: send the parameters \
         bare, or leave ?pay=x402 out to pay with credits"
    )]
    Wrapped,
    /// A field of the payload is not of its type.
    #[error("{name} must be an integer of at least {min}")]
    Field {
        /// The field's name.
        name: &'static str,
        /// The least value that is taken.
        min: u64,
    },
    /// The field whose value is the payload is no object.
    #[error(
        "{action} takes what the tool needs as an object in {name}, as in {{\"{name}\": {{…}}}}, and \
         leaves other fields unsigned{}",
        or_pay(action)
    )]
    NoObject {
        /// The action.
        action: &'static Action,
        /// The field's name.
        name: &'static str,
    },
}

/// The other way to use a path that can be paid for, for an error.
fn or_pay(action: &Action) -> &'static str {
    match action.paid_row(ACTIONS) {
        Some(_) => {
            "; to pay for this call by x402 instead of with credits, send the parameters bare, with \
             ?pay=x402 or with a payment header"
        }
        None => "",
    }
}

/// The most characters of an unusable id that an error repeats.
const MAX_REPEATED: usize = 64;

/// How many ids an action takes, for an error.
fn ids_of(action: &Action, given: usize) -> String {
    match action.id_names().count() {
        0 => format!("it takes no id, and {given} came before the body"),
        _ => format!("it needs each id in that path, not {given}"),
    }
}

/// The beginning of the error for an unusable id. It repeats the id in ASCII, since a terminal obeys
/// other characters, and up to [`MAX_REPEATED`], so that none fills the log; a token is not
/// repeated at all.
fn unusable(name: &str, given: &str) -> String {
    if given.is_empty() {
        return format!("{name} is empty");
    }
    if given.contains(TOKEN_PREFIX) {
        return format!("{name} cannot be used");
    }
    let repeated: String = given.escape_default().take(MAX_REPEATED).collect();
    let more = if given.escape_default().nth(MAX_REPEATED).is_some() { "…" } else { "" };
    format!("{name} \"{repeated}{more}\" cannot be used")
}

/// A call that is fit to be sent: ids checked and, if it is one to sign, envelope dropped and fixed fields
/// filled in.
#[derive(Debug, Clone)]
pub struct Call {
    action: &'static Action,
    ids: Vec<Slug>,
    query: Option<String>,
    body: Arc<Object>,
    /// The wallet of the envelope, as JSON.
    wallet: Option<CanonicalJson>,
    /// The body as it came, of a call that is paid for by x402.
    bare: Option<Arc<str>>,
    payment: Option<PaymentProof>,
}

/// A payment header. Until it is cashed, any holder can cash it, so it does not print.
#[derive(Clone, PartialEq, Eq)]
pub struct PaymentProof {
    /// The name under which it is sent.
    pub name: HeaderName,
    /// Its value.
    pub value: HeaderValue,
}

impl PaymentProof {
    /// The SHA-256 of the value.
    pub fn hash(&self) -> [u8; 32] {
        Sha256::digest(self.value.as_bytes()).into()
    }
}

impl fmt::Debug for PaymentProof {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PaymentProof([REDACTED])")
    }
}

impl Call {
    /// Checks the ids, in the order of the path, and the body; an empty body is `{}`.
    ///
    /// # Errors
    /// See [`InvalidCall`].
    pub fn new<'a>(
        action: &'static Action,
        ids: impl IntoIterator<Item = &'a str>,
        body: &[u8],
    ) -> Result<Self, InvalidCall> {
        let ids = parse_ids(action, ids)?;
        // A body is UTF-8 if it can be parsed.
        let bare = || Some(str::from_utf8(body).unwrap_or_default().into());
        let is_bare = action.proof == Proof::Payment && !body.trim_ascii().is_empty();
        let bare = if is_bare { bare() } else { None };
        // PowerShell and others mark UTF-8 as such.
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
        let mut body =
            if body.trim_ascii().is_empty() { Object::default() } else { Object::parse(body)? };
        let mut wallet = None;
        // On other calls the names of the envelope are fields like any other, and nulls stay.
        if let Proof::Signature(signed) = &action.proof {
            wallet = body.field(WALLET).cloned();
            body.retain(|name, _| !ENVELOPE.contains(&name));
            // Servers differ in whether they hash a null at the top of a payload; all agree when it is
            // absent.
            drop_nulls(&mut body);
            if let Payload::Object(name) = signed.payload {
                let given = body.field(name).filter(|value| value.as_str().starts_with('{'));
                let given = given.ok_or(InvalidCall::NoObject { action, name })?;
                let mut parameters = Object::parse(given.as_str().as_bytes())?;
                drop_nulls(&mut parameters);
                body.insert(name, parameters.to_canonical());
            }
            if signed.payload == Payload::Fields {
                complete_fields(&mut body, action.body)?;
            }
        }
        Ok(Self { action, ids, query: None, body: Arc::new(body), wallet, bare, payment: None })
    }

    /// The same with the payment of its client, which passes as it came.
    ///
    /// # Errors
    /// The body has the other proof as well; or the proxy would pay for a use of a tool whose parameters stand
    /// where the signed call has them.
    pub fn with_payment(self, payment: Option<PaymentProof>) -> Result<Self, InvalidCall> {
        if payment.is_some() && self.has_proof() {
            return Err(InvalidCall::TwoProofs);
        }
        if payment.is_none() && self.is_wrapped() {
            return Err(InvalidCall::Wrapped);
        }
        Ok(Self { payment, ..self })
    }

    /// Whether it is a use of a tool that is paid for, and holds an object in `parameters` and nothing else.
    fn is_wrapped(&self) -> bool {
        let is_paid_tool = self.action.proof == Proof::Payment && !self.is_purchase();
        let wrapped = self.body.field(PARAMETERS).filter(|value| value.as_str().starts_with('{'));
        let others = || self.body.to_canonical_of(|name| name != PARAMETERS);
        is_paid_tool && wrapped.is_some() && others().as_str() == "{}"
    }

    /// Whether the body holds the proof of a signed call.
    pub(crate) fn has_proof(&self) -> bool {
        ["session_nonce", "signature"].iter().all(|name| self.body.field(name).is_some())
    }

    /// The same with a query that the row takes.
    #[must_use]
    pub fn with_query(self, query: Option<&str>) -> Self {
        Self { query: query.map(str::to_owned), ..self }
    }

    /// The second request of a call that is paid: the same with a payment, or with one more field, or both
    /// (protocol §9.2, §9.4).
    #[must_use]
    pub(crate) fn repeated(
        &self,
        payment: Option<PaymentProof>,
        field: Option<(&str, CanonicalJson)>,
    ) -> Self {
        let mut call = Self { payment, ..self.clone() };
        if let Some((name, value)) = field {
            call.fill_in(name, value);
            call.bare = None;
        }
        call
    }

    /// The same with no more of its body than the fields of its row that a client may give, in canonical form. So
    /// a purchase that the proxy pays for has nothing in it that the proxy has not read.
    #[must_use]
    pub(crate) fn of_known_fields(mut self) -> Self {
        let known = |name: &str| self.action.body.iter().any(|field| field.name == name);
        Arc::make_mut(&mut self.body).retain(|name, _| known(name) && name != SPONSOR_SIGNATURE);
        self.bare = None;
        self
    }

    /// The row of the table.
    pub fn action(&self) -> &'static Action {
        self.action
    }

    /// The id of what it is about, if that is one thing.
    pub fn product(&self) -> Option<&Slug> {
        self.ids.first()
    }

    /// Whether a call that is paid for is one for credits and not for a tool.
    pub fn is_purchase(&self) -> bool {
        self.product().is_none()
    }

    /// Whether it asks after the transaction of an earlier payment. Among the parameters of a tool, that name
    /// says nothing.
    pub fn asks_after_transaction(&self) -> bool {
        self.is_purchase() && self.body.field(TRANSACTION).is_some()
    }

    /// The job that it is about, if that is one job.
    pub fn job(&self) -> Option<&Slug> {
        self.product().filter(|_| self.action.about == About::Job)
    }

    /// The body, of a call to sign without the envelope.
    pub fn body(&self) -> &Object {
        &self.body
    }

    /// The body as it is sent, if that is not its canonical form: what is paid for goes up byte for byte.
    pub fn bare(&self) -> Option<&str> {
        self.bare.as_deref()
    }

    /// The payment in its header.
    pub fn payment(&self) -> Option<&PaymentProof> {
        self.payment.as_ref()
    }

    /// The wallet that the client's envelope names, if that is not the one that signs.
    pub fn other_wallet(&self, own: Address) -> Option<&str> {
        other_wallet(self.wallet.as_ref()?.as_str(), own)
    }

    /// Sets a field that the client left out.
    pub fn fill_in(&mut self, name: &str, value: CanonicalJson) {
        Arc::make_mut(&mut self.body).insert(name, value);
    }

    /// The path with its ids.
    pub fn path(&self) -> String {
        self.action.path_with(&self.ids)
    }

    /// The path and the query, as they are sent.
    pub fn target(&self) -> String {
        let path = self.path();
        self.query.iter().fold(path, |path, query| path + "?" + query)
    }

    /// The call as one to sign, if a signature is its proof.
    pub fn signed(&self) -> Option<SignedCall<'_>> {
        match &self.action.proof {
            Proof::Signature(rule) => {
                Some(SignedCall { call: self, rule, form: EmptyPayload::Object })
            }
            Proof::None | Proof::WorkflowToken | Proof::Payment => None,
        }
    }
}

/// A call whose proof is a signature: only such a one becomes a message.
#[derive(Debug, Clone, Copy)]
pub struct SignedCall<'a> {
    call: &'a Call,
    rule: &'static Signed,
    form: EmptyPayload,
}

impl<'a> SignedCall<'a> {
    /// The call.
    pub fn call(self) -> &'a Call {
        self.call
    }

    /// The lines of the message that name the call.
    pub fn binds(self) -> &'static Binds {
        &self.rule.binds
    }

    /// The same call, signed in the other form that servers take for it (protocol §5.2).
    pub(crate) fn in_other_form(self) -> Option<Self> {
        let is_given = self.rule.payload != Payload::Given
            || self.call.body.field(PARAMETERS).is_some()
            || self.payload()?.as_str() != "{}";
        (!is_given).then_some(Self { form: EmptyPayload::Line, ..self })
    }

    /// The payload to hash, if the row has one.
    pub fn payload(self) -> Option<CanonicalJson> {
        let body = &self.call.body;
        let fields = || {
            let fields = self.call.action.body;
            body.to_canonical_of(|name| fields.iter().any(|field| field.name == name))
        };
        match &self.rule.payload {
            Payload::Body => Some(body.to_canonical()),
            Payload::Fields => Some(fields()),
            Payload::Object(name) => body.field(name).cloned(),
            Payload::Given if self.form == EmptyPayload::Line => None,
            Payload::Given => Some(body.field(PARAMETERS).cloned().unwrap_or_else(fields)),
            Payload::Empty => None,
        }
    }
}

/// The wallet that the JSON of a `wallet_address` names, if it is another than this; `null` and an empty
/// string name none.
pub(crate) fn other_wallet(json: &str, own: Address) -> Option<&str> {
    let named = json.trim_matches('"');
    let is_none = named.is_empty() || json == "null";
    // Some write the digits alone, or `0X`.
    let digits = named.strip_prefix("0x").or_else(|| named.strip_prefix("0X")).unwrap_or(named);
    let is_own = || format!("0x{digits}").parse() == Ok(own);
    (!is_none && !is_own()).then_some(named)
}

fn parse_ids<'a>(
    action: &'static Action,
    ids: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Slug>, InvalidCall> {
    let ids: Vec<&str> = ids.into_iter().collect();
    if ids.len() != action.id_names().count() {
        return Err(InvalidCall::IdCount { action, given: ids.len() });
    }
    let parse = |(name, id): (_, &str)| {
        id.parse().map_err(|source| InvalidCall::Id { name, given: id.to_owned(), source })
    };
    action.id_names().zip(ids).map(parse).collect()
}

/// Checks the integers of a payload with fixed fields and fills in those that are absent.
fn complete_fields(body: &mut Object, fields: &[Field]) -> Result<(), InvalidCall> {
    for field in fields {
        let Field {
            name, json_type: JsonType::Integer { min, default: Some(default), .. }, ..
        } = *field
        else {
            continue;
        };
        match body.field(name) {
            None => body.insert(name, CanonicalJson::integer(default)),
            Some(value) if is_integer_from(value.as_str(), min) => {}
            Some(_) => return Err(InvalidCall::Field { name, min }),
        }
    }
    Ok(())
}

fn drop_nulls(body: &mut Object) {
    body.retain(|_, value| value.as_str() != "null");
}

/// Canonical integers have no leading zeros, so one that does not fit 64 bits is larger than `min`.
fn is_integer_from(text: &str, min: u64) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && text.parse().map_or(true, |value: u64| value >= min)
}

#[cfg(test)]
mod tests;
