//! The door, before a body is read: who calls, whether its call may be made at all and is not too much,
//! and whether there is room.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::{
    error::{CallError, Unauthenticated},
    evidence::Evidence,
    in_flight::InFlightPermit,
    parts::Proxy,
};
use crate::{
    action::{Action, Proof},
    policy::Client,
    store::{Caller, Denial},
    trace::{Step, Trace},
    types::{Address, Credential, IdempotencyKey, InvalidToken, Slug},
};

/// The head of a call, before its body is read.
#[derive(Debug)]
pub struct Admission {
    /// The row of the table.
    pub action: &'static Action,
    /// The id of what it is about, if that is usable.
    pub product: Option<Slug>,
    /// The key under which a change is made at most once.
    pub key: Option<IdempotencyKey>,
    /// Its trace.
    pub trace: Arc<Trace>,
}

/// A call that may be made, for [`Proxy::call`].
#[derive(Debug)]
pub struct Admitted {
    pub(super) admission: Admission,
    pub(super) client: Client,
    /// When that was looked up.
    pub(super) known_at: Instant,
    pub(super) permit: InFlightPermit,
}

/// A row of the table, for the calls that the proxy makes of itself.
pub(super) fn action(name: &str) -> Result<&'static Action, CallError> {
    Action::named(name).ok_or(CallError::Aborted)
}

impl Proxy {
    /// Lets a call through that its client may make now, and counts it. That it may not is on record.
    ///
    /// # Errors
    /// See [`CallError`]; nothing may be read or sent.
    pub async fn admit(
        &self,
        evidence: &Evidence,
        admission: Admission,
    ) -> Result<Admitted, CallError> {
        let known_at = Instant::now();
        let known = match check_token(evidence, admission.action) {
            Ok(()) => self.client(evidence).await,
            Err(error) => Err(error.into()),
        };
        let client = match known {
            Ok(client) => client,
            Err(error) => {
                let caller = Caller::Unknown(evidence.to_string());
                return Err(self.refused(&admission, caller, None, error).await);
            }
        };
        let (action, wallet) = (admission.action, self.wallet_of(&client));
        admission.trace.name(&client.name, action, admission.product.clone());
        let permit = async {
            client.check(action, wallet, Timestamp::now())?;
            if !self.senders.contains_key(&wallet) {
                return Err(CallError::WalletNotHeld(wallet));
            }
            self.count(&client, action.changes()).await
        }
        .await;
        match permit {
            Ok(permit) => {
                admission.trace.tell(Step::Admitted);
                Ok(Admitted { admission, client, known_at, permit })
            }
            Err(error) => {
                let caller = Caller::Client(client.name);
                Err(self.refused(&admission, caller, Some(wallet), error).await)
            }
        }
    }

    /// Admits one more call for a client that was admitted: it is not counted, and needs a permit of its own.
    ///
    /// # Errors
    /// Too many are in flight.
    pub(super) fn readmit(
        &self,
        admission: Admission,
        client: Client,
        known_at: Instant,
    ) -> Result<Admitted, CallError> {
        let permit = self.permit(&client)?;
        admission.trace.name(&client.name, admission.action, admission.product.clone());
        Ok(Admitted { admission, client, known_at, permit })
    }

    /// The client that makes a request which is no call.
    ///
    /// # Errors
    /// It is not known, or its access has ended.
    pub async fn identify(&self, evidence: &Evidence) -> Result<Client, CallError> {
        let client = self.client(evidence).await?;
        client.check_access(Timestamp::now())?;
        Ok(client)
    }

    /// Takes an in-flight permit for a request of a client, which may be no call, and counts the request, as
    /// far as this process knows. [`Store::begin`](crate::store::Store::begin) counts a change for all processes.
    ///
    /// # Errors
    /// There were too many, or too many are in flight; nothing may be read or sent.
    pub async fn count(&self, client: &Client, changes: bool) -> Result<InFlightPermit, CallError> {
        let permit = self.permit(client)?;
        match (client.rate, self.store.count(client, changes, Timestamp::now()).await) {
            (Some(rate), Err(wait)) => Err(client.too_fast(rate, wait).into()),
            _ => Ok(permit),
        }
    }

    /// Takes an in-flight permit for a request of a client that is not counted.
    ///
    /// # Errors
    /// Too many are in flight; nothing may be read or sent.
    pub fn permit(&self, client: &Client) -> Result<InFlightPermit, CallError> {
        Ok(self.in_flight.take(&client.name)?)
    }

    async fn client(&self, evidence: &Evidence) -> Result<Client, CallError> {
        let (now, store) = (Timestamp::now(), &self.store);
        match &evidence.token {
            Some(Ok(token)) => {
                let client = store.client_by(Credential::Token(token.hash()), now).await?;
                let unknown = || match token.is_intact() {
                    true => Unauthenticated::UnknownToken,
                    false => Unauthenticated::Token(InvalidToken::Mistyped),
                };
                return Ok(client.ok_or_else(unknown)?);
            }
            // Before there is any client, one that is not ours is meant for another program.
            Some(Err(invalid)) if store.has_clients().await? => {
                return Err(Unauthenticated::Token(*invalid).into());
            }
            _ => {}
        }
        let certificate = evidence.certificate.map(Credential::Certificate);
        for credential in certificate.into_iter().chain(evidence.uid.map(Credential::Uid)) {
            if let Some(client) = store.client_by(credential, now).await? {
                return Ok(client);
            }
        }
        if evidence.is_owner && !store.has_clients().await? {
            return Ok(Client::local());
        }
        Err(Unauthenticated::NoEvidence.into())
    }

    /// Records a call that was refused, and why.
    pub(super) async fn refused(
        &self,
        admission: &Admission,
        caller: Caller,
        wallet: Option<Address>,
        error: CallError,
    ) -> CallError {
        let Some(reason) = error.denial() else { return error };
        let Admission { trace, action, product, .. } = admission;
        let (call_id, product) = (trace.call_id.clone(), product.clone());
        let denial = Denial { call_id, caller, wallet, action: action.name, product, reason };
        self.store.denied(&denial).await;
        error
    }
}

/// Refuses what is no token of ours on a call that needs a job's workflow token: programs after older texts
/// of the API send that token in its place (protocol §7).
fn check_token(evidence: &Evidence, action: &Action) -> Result<(), Unauthenticated> {
    let is_foreign = matches!(evidence.token, Some(Err(InvalidToken::Foreign)));
    let is_workflow_call = action.proof == Proof::WorkflowToken;
    if is_foreign && is_workflow_call { Err(Unauthenticated::JobToken) } else { Ok(()) }
}
