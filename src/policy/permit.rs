//! The permission to make one call.

use jiff::Timestamp;

use super::{client::Client, denied::Denied};
use crate::{
    action::{Action, Lookup, Needs},
    call::{Call, PaymentProof, SignedCall},
    json::CanonicalJson,
    types::{Address, ClientId, ClientName, Slug},
};

/// A call that a client may make with a wallet. Only [`Client::permit`] makes one.
#[derive(Debug, Clone)]
pub struct Permit {
    call: Call,
    wallet: Address,
    client: ClientName,
    is_status_probe: bool,
}

impl Client {
    /// Permits a call with this wallet. `holder` is the client that holds a running reservation of
    /// the call's job with this wallet through this proxy.
    ///
    /// A row that needs a reservation is denied to every other client. While one client holds a job, no
    /// other may ask even for its status, since an answer may contain the private instructions.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn permit(
        &self,
        call: Call,
        wallet: Address,
        holder: Option<ClientId>,
        now: Timestamp,
    ) -> Result<Permit, Denied> {
        self.check(call.action(), wallet, now)?;
        if let Some(job) = call.job() {
            self.check_holder(call.action(), job, holder)?;
        }
        Ok(Permit { call, wallet, client: self.name.clone(), is_status_probe: false })
    }

    /// Whether the access of the client lasts.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn check_access(&self, now: Timestamp) -> Result<(), Denied> {
        match self.expires.filter(|end| *end <= now) {
            Some(ended) => Err(Denied::Expired { client: self.name.clone(), ended }),
            None => Ok(()),
        }
    }

    /// Whether the client may make such a call at all, whichever client holds the job.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn check(
        &self,
        action: &'static Action,
        wallet: Address,
        now: Timestamp,
    ) -> Result<(), Denied> {
        let client = || self.name.clone();
        self.check_access(now)?;
        if !self.allow.has(action) {
            return Err(Denied::Action { client: client(), action });
        }
        if self.wallet.is_some_and(|own| own != wallet) {
            return Err(Denied::Wallet { client: client(), wallet });
        }
        Ok(())
    }

    /// Whether the client may make a call on a job that this client holds.
    ///
    /// # Errors
    /// See [`Denied`].
    pub fn check_holder(
        &self,
        action: &Action,
        job: &Slug,
        holder: Option<ClientId>,
    ) -> Result<(), Denied> {
        match (action.needs, holder) {
            _ if self.admin => Ok(()),
            (Needs::Nothing, _) => Ok(()),
            (_, Some(holder)) if holder != self.id => Err(Denied::Holder(job.clone())),
            (Needs::Held, None) => Err(Denied::NotHeld(job.clone())),
            _ => Ok(()),
        }
    }
}

impl Permit {
    /// The call.
    pub fn call(&self) -> &Call {
        &self.call
    }

    /// The call as one to sign, if a signature is its proof.
    pub fn signed(&self) -> Option<SignedPermit<'_>> {
        let call = self.call.signed()?;
        Some(SignedPermit { call, permit: self })
    }

    /// The wallet that signs it.
    pub fn wallet(&self) -> Address {
        self.wallet
    }

    /// The client that makes it.
    pub fn client(&self) -> &ClientName {
        &self.client
    }

    /// Whether the proxy asks for itself what became of a call.
    pub fn is_status_probe(&self) -> bool {
        self.is_status_probe
    }

    /// The permission for the second request of a call that is paid, which has a payment, or one more
    /// field, or both.
    pub(crate) fn repeated(
        &self,
        payment: Option<PaymentProof>,
        field: Option<(&str, CanonicalJson)>,
    ) -> Self {
        Self { call: self.call.repeated(payment, field), ..self.clone() }
    }

    /// The permission to ask what became of the call, if another call shows it. The proxy asks for
    /// itself, so the client need not have the right to.
    pub fn status_probe(&self) -> Option<Self> {
        match self.call.action().lookup {
            Lookup::None => None,
            Lookup::JobStatus => self.probe("job_status"),
            Lookup::Balance => self.balance_probe(),
        }
    }

    /// The permission to ask for the credits of the wallet, as the proxy does for itself.
    pub(crate) fn balance_probe(&self) -> Option<Self> {
        self.probe("balance")
    }

    fn probe(&self, action: &str) -> Option<Self> {
        let job = self.call.job().map(Slug::as_str);
        let call = Call::new(Action::named(action)?, job, b"").ok()?;
        Some(Self { call, is_status_probe: true, ..self.clone() })
    }
}

/// A permitted call whose proof is a signature: only such a one becomes a message.
#[derive(Debug, Clone, Copy)]
pub struct SignedPermit<'a> {
    call: SignedCall<'a>,
    permit: &'a Permit,
}

impl<'a> SignedPermit<'a> {
    /// The call.
    pub fn call(self) -> SignedCall<'a> {
        self.call
    }

    /// The same in the other form that servers take for it, if there are two.
    pub(crate) fn in_other_form(self) -> Option<Self> {
        Some(Self { call: self.call.in_other_form()?, ..self })
    }

    /// The permission for it.
    pub fn permit(self) -> &'a Permit {
        self.permit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ACTIONS;

    const WALLET: Address = Address::new([1; 20]);
    const OWN: ClientId = ClientId::new(1);

    fn name(text: &str) -> ClientName {
        text.parse().unwrap()
    }

    fn now() -> Timestamp {
        "2026-02-16T00:00:00Z".parse().unwrap()
    }

    /// A client that may make every call and nothing else.
    fn client(allow: &str) -> Client {
        let allow = allow.parse().unwrap();
        Client { id: OWN, name: name("ci"), allow, admin: false, ..Client::local() }
    }

    fn call(action: &'static Action) -> Call {
        let ids = ["job1", "w1"].into_iter().take(action.id_names().count());
        Call::new(action, ids, br#"{"parameters":{}}"#).unwrap()
    }

    fn named(action: &str) -> Call {
        call(Action::named(action).unwrap())
    }

    /// Why each call on a job is denied, in the order of the table.
    fn denials(client: &Client, holder: Option<i64>) -> Vec<Option<&'static str>> {
        let holder = holder.map(ClientId::new);
        let about_a_job = ACTIONS.iter().filter(|action| call(action).job().is_some());
        let permit = |action| client.permit(call(action), WALLET, holder, now());
        about_a_job.map(|action| permit(action).err().map(|denied| denied.kind().code)).collect()
    }

    #[test]
    fn only_the_calls_that_are_allowed_are_permitted() {
        let reader = client("read");
        let permit = reader.permit(named("job_list"), WALLET, None, now()).unwrap();
        assert_eq!((permit.call().action().name, permit.wallet()), ("job_list", WALLET));
        assert_eq!((permit.client(), permit.is_status_probe()), (&name("ci"), false));
        let denied = reader.permit(named("job_reserve"), WALLET, None, now()).unwrap_err();
        let action = Action::named("job_reserve").unwrap();
        assert_eq!(denied, Denied::Action { client: name("ci"), action });
        assert!(denied.to_string().contains("--allow job_reserve"), "{denied}");
        // The right to act on the reservations of others is not one to make any call.
        let admin = Client { admin: true, ..reader };
        assert!(admin.permit(named("job_complete"), WALLET, None, now()).is_err());
    }

    #[test]
    fn a_client_with_a_wallet_may_use_no_other() {
        let own = Client { wallet: Some(WALLET), ..client("jobs") };
        let other = Address::new([2; 20]);
        assert!(own.permit(named("job_list"), WALLET, None, now()).is_ok());
        let denied = own.permit(named("job_list"), other, None, now()).unwrap_err();
        assert_eq!(denied, Denied::Wallet { client: name("ci"), wallet: other });
    }

    #[test]
    fn a_client_may_do_nothing_from_its_end_on() {
        let ends = |end: &str| Client { expires: Some(end.parse().unwrap()), ..client("jobs") };
        let permit = |client: &Client| client.permit(named("job_list"), WALLET, None, now());
        assert!(permit(&ends("2026-02-16T00:00:01Z")).is_ok());
        assert_eq!(permit(&ends("2026-02-16T00:00:00Z")).unwrap_err().kind().code, "access_ended");
    }

    #[test]
    fn the_holder_of_a_job_may_make_every_call_on_it() {
        assert_eq!(denials(&client("jobs"), Some(OWN.number())), [None; 6]);
    }

    #[test]
    fn a_job_of_another_client_is_out_of_reach() {
        assert_eq!(denials(&client("jobs"), Some(2)), [Some("held_by_another"); 6]);
    }

    #[test]
    fn a_job_that_nobody_holds_is_reserved_and_looked_at_but_not_completed() {
        let not_held = Some("not_reserved");
        let expected = [None, not_held, None, not_held, not_held, not_held];
        assert_eq!(denials(&client("jobs"), None), expected);
    }

    #[test]
    fn an_admin_and_the_local_client_may_act_for_others() {
        let admin = Client { admin: true, ..client("jobs") };
        for client in [admin, Client::local()] {
            assert_eq!(denials(&client, Some(2)), [None; 6]);
            assert_eq!(denials(&client, None), [None; 6]);
        }
    }

    #[test]
    fn the_proxy_may_look_at_the_job_of_a_call_whose_client_may_not() {
        let blind = client("job_complete");
        let permit = blind.permit(named("job_complete"), WALLET, Some(OWN), now()).unwrap();
        let probe = permit.status_probe().unwrap();
        assert_eq!(probe.call().path(), "/api/external/jobs/job1/status");
        assert_eq!((probe.client(), probe.wallet()), (&name("ci"), WALLET));
        assert!(probe.is_status_probe());
        assert!(blind.permit(named("job_status"), WALLET, Some(OWN), now()).is_err());
        let list = Client::local().permit(named("job_list"), WALLET, None, now()).unwrap();
        assert!(list.status_probe().is_none());
    }
}
