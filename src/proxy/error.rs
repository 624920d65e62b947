//! Why a call has no answer of the upstream.

use jiff::Timestamp;

use super::in_flight::Overloaded;
use crate::{
    job_status::JobStatus,
    payment::{Declined, InvalidChallenge},
    policy::Denied,
    problems::{self, Kind},
    session::SessionError,
    signer::SignerError,
    store::{Reservation, StoreError},
    types::{Address, InvalidToken, Slug},
    upstream::UpstreamError,
};

/// Why a caller is not known. Nothing was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unauthenticated {
    /// It shows nothing by which a client is known.
    #[error(
        "the caller is not known; send the token that `agentpmt-proxy client add` printed, as in \
         Authorization: Bearer apmt_…"
    )]
    NoEvidence,
    /// No client has its token.
    #[error(
        "no client has this token, or it was revoked; ask the operator of the proxy for a new one, with \
         `agentpmt-proxy client add`"
    )]
    UnknownToken,
    /// Its token is none of a client, on a call that needs a job's workflow token.
    #[error(
        "the Authorization header holds no token of this proxy; if it is the job's workflow token, leave the \
         header out: the proxy has kept that token and adds it itself. The header is for the client's own \
         token, as in Authorization: Bearer apmt_…"
    )]
    JobToken,
    /// Its token is none.
    #[error("the Authorization header cannot be used: {0}")]
    Token(InvalidToken),
}

/// Why a call has no answer of the upstream.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The caller is not known. Nothing was sent.
    #[error(transparent)]
    Unauthenticated(#[from] Unauthenticated),
    /// Too many calls are in flight. Nothing was sent.
    #[error(transparent)]
    Overloaded(#[from] Overloaded),
    /// There is no session, so the call had no effect.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// There is no signature, so nothing was sent.
    #[error(transparent)]
    NotSigned(#[from] SignerError),
    /// The upstream did not answer; the error knows whether the call may have had an effect.
    #[error(transparent)]
    Upstream(#[from] UpstreamError),
    /// A record could not be written or read. Nothing was signed.
    #[error("{0}")]
    Store(#[from] StoreError),
    /// The client may not make the call. Nothing was sent.
    #[error(transparent)]
    Denied(#[from] Denied),
    /// Another client has reserved the job while its status was asked for. The answer is not told.
    #[error("job {0} was reserved by another client while it was asked for")]
    HeldMeanwhile(Slug),
    /// The list of jobs cannot be read, and other clients hold jobs that may be in it. It is not told.
    #[error("the API's list of jobs cannot be read, and other clients hold jobs that may be in it")]
    Unchecked,
    /// The client is bound to a wallet whose key is not here. Nothing was sent.
    #[error("this proxy does not hold the key of wallet {0}, to which the client is bound")]
    WalletNotHeld(Address),
    /// The body names a wallet that is not the one that signs and is paid. Nothing was sent.
    #[error("wallet_address in the body is {named}, but {wallet} would sign and be paid")]
    OtherWallet {
        /// The value in the body.
        named: String,
        /// The wallet of the client.
        wallet: Address,
    },
    /// A workflow call for a job whose workflow token is not held. Nothing was sent.
    #[error("no workflow token is held for job {0}")]
    NoWorkflowToken(Slug),
    /// The key was used for another call. Nothing was sent.
    #[error("the Idempotency-Key was used for another call")]
    KeyReused,
    /// Another request is at work on the call with this key, or on the same completion.
    #[error("the call is still being made")]
    KeyInUse,
    /// The answer to a change was lost, and it is not known whether it took effect.
    #[error("the answer to the call was lost")]
    OutcomeUnknown {
        /// The status of the job.
        seen: Box<JobStatus>,
        /// Before that, the upstream may still be at work on it.
        settles_at: Option<Timestamp>,
    },
    /// The policy of payments does not allow it. Nothing was signed.
    #[error(transparent)]
    Declined(#[from] Declined),
    /// The upstream demands a payment in a form that is not known. Nothing was signed.
    #[error("the upstream demands a payment, but {0}")]
    Demand(#[from] InvalidChallenge),
    /// The upstream demanded a payment when there was no time to make it. Nothing was paid.
    #[error("the upstream demands a payment, but there is too little time left to make it")]
    NotInTime,
    /// The upstream answered a payment with another demand.
    #[error("the upstream refused the payment")]
    PaymentRefused {
        /// When its authorisation ends.
        until: Timestamp,
    },
    /// The upstream answered a payment with another demand that was sent to it before.
    #[error("the upstream refused the payment, which was sent to it before")]
    PaymentRefusedAgain {
        /// When its authorisation ends.
        until: Timestamp,
        /// For a purchase, the credits of the recipient before the payment, as JSON.
        before: Option<String>,
        /// The same credits since.
        now: Option<String>,
    },
    /// The answer to a call that was paid for was lost.
    #[error("the answer to the call was lost, and it was paid for")]
    PaymentUnknown {
        /// When the authorisation of the payment ends; `None` if that has been.
        until: Option<Timestamp>,
    },
    /// The answer to a call that may have spent credits was lost.
    #[error("the answer to the call was lost")]
    SpendingUnknown {
        /// The balance of credits that was last seen before, as JSON.
        before: Option<String>,
        /// The balance since.
        now: Option<String>,
    },
    /// The answer to a reserve was lost, and to reserve once more brought no instructions.
    #[error("job {job} is reserved, but its instructions came only with an answer that was lost")]
    InstructionsLost {
        /// The job.
        job: Slug,
        /// When its reservation ends.
        ends: Timestamp,
        /// The status of the job.
        seen: Box<JobStatus>,
        /// The reservation, if it is not remembered yet.
        unseen: Option<Box<Reservation>>,
    },
    /// The client went away before it could be sent, so it was not.
    #[error("the client went away before the call could be sent, so it was not")]
    Abandoned,
    /// The call ended early through a fault of this program.
    #[error("the call ended early inside the proxy")]
    Aborted,
}

impl Unauthenticated {
    /// Its row among the problems.
    pub(crate) fn kind(self) -> &'static Kind {
        match self {
            Self::NoEvidence => &problems::UNAUTHENTICATED,
            Self::JobToken => &problems::JOB_TOKEN,
            Self::UnknownToken | Self::Token(InvalidToken::Foreign) => &problems::UNKNOWN_TOKEN,
            Self::Token(InvalidToken::Mistyped) => &problems::MISTYPED_TOKEN,
            Self::Token(_) => &problems::MALFORMED_AUTHORIZATION,
        }
    }
}

impl CallError {
    pub(super) fn unknown(seen: JobStatus, settles_at: Option<Timestamp>) -> Self {
        Self::OutcomeUnknown { seen: Box::new(seen), settles_at }
    }

    /// The body names a wallet that is not this one; no more of it is told than an address is long.
    pub(crate) fn other_wallet(named: &str, wallet: Address) -> Self {
        Self::OtherWallet { named: named.chars().take(42).collect(), wallet }
    }

    /// Whether the call may have taken effect upstream.
    pub(super) fn may_have_had_effect(&self) -> bool {
        match self {
            Self::Upstream(error) => error.was_sent(),
            Self::OutcomeUnknown { .. }
            | Self::SpendingUnknown { .. }
            | Self::PaymentRefused { .. }
            | Self::PaymentRefusedAgain { .. }
            | Self::PaymentUnknown { .. }
            | Self::InstructionsLost { .. }
            | Self::Aborted => true,
            _ => false,
        }
    }

    /// Whether it is for all clients that signatures are frozen.
    pub(super) fn is_freeze(&self) -> bool {
        matches!(self, Self::Store(error) if error.freeze().is_some())
    }

    /// Why the client was not let through, as the `code` that it gets, if it was not.
    pub(super) fn denial(&self) -> Option<&'static str> {
        let kind = match self {
            Self::Unauthenticated(error) => error.kind(),
            Self::Denied(denied) => denied.kind(),
            Self::Declined(declined) => declined.kind(),
            Self::Store(error) if error.is_access_ended() => &problems::ACCESS_ENDED,
            Self::Store(error) if error.freeze().is_some() => &problems::FROZEN,
            Self::HeldMeanwhile(_) => &problems::HELD_BY_ANOTHER,
            Self::WalletNotHeld(_) => &problems::NOT_ALLOWED,
            Self::OtherWallet { .. } => &problems::OTHER_WALLET,
            _ => return None,
        };
        Some(kind.code)
    }
}
