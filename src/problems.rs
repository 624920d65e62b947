//! The problems that the proxy itself tells of, a row each: for the journal, the manual and every face.

use http::StatusCode;

/// Whether the same request may be sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// The same request would be refused again, or has done what it can.
    Never,
    /// Nothing was changed upstream, so it may be sent again.
    Safe,
    /// It may have taken effect: ask for the job's status first.
    CheckFirst,
}

impl Retry {
    /// The word for programs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Never => "never",
            Self::Safe => "safe",
            Self::CheckFirst => "check_first",
        }
    }

    /// The advice.
    pub fn advice(self) -> &'static str {
        match self {
            Self::Never => "the same request would be refused again, so change it first",
            Self::Safe => "it had no effect, so send it again later",
            Self::CheckFirst => {
                "it may have taken effect, so ask for the job's status before you send it again"
            }
        }
    }
}

/// A kind of problem: a row of [`PROBLEMS`].
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    /// The stable word for programs. Each has one cause.
    pub code: &'static str,
    /// The status of its HTTP answer.
    pub status: StatusCode,
    /// Its meaning, in a few words.
    pub title: &'static str,
    /// Whether the same request may be sent again, unless its problem says otherwise.
    pub retry: Retry,
}

macro_rules! problems {
    ($($name:ident: $status:ident, $code:literal, $title:literal, $retry:ident;)*) => {
        $(
            pub(crate) const $name: Kind = Kind {
                code: $code,
                status: StatusCode::$status,
                title: $title,
                retry: Retry::$retry,
            };
        )*

        /// Every problem of the proxy's own.
        pub const PROBLEMS: &[Kind] = &[$($name),*];
    };
}

problems! {
    INVALID_BODY: BAD_REQUEST, "invalid_body", "The body cannot be used", Never;
    INVALID_FIELD: BAD_REQUEST, "invalid_field", "A field cannot be used", Never;
    INVALID_ID: BAD_REQUEST, "invalid_id", "An id cannot be used", Never;
    TWO_PROOFS: BAD_REQUEST, "two_proofs", "The call has more than one proof", Never;
    QUERY_NOT_TAKEN: BAD_REQUEST, "query_not_taken", "The query string cannot be used", Never;
    BODY_UNREADABLE: BAD_REQUEST, "body_unreadable", "The body broke off", Safe;
    BODY_SLOW: REQUEST_TIMEOUT, "body_slow", "The body took too long", Safe;
    TRANSFER_CODING: NOT_IMPLEMENTED, "transfer_coding", "The transfer coding is not supported", Never;
    CONTENT_CODING: UNSUPPORTED_MEDIA_TYPE, "content_coding", "The content coding is not supported", Never;
    UNKNOWN_PATH: NOT_FOUND, "unknown_path", "There is no such path", Never;
    LOCAL_WALLETS: NOT_FOUND, "wallets_are_local", "Wallets are made locally", Never;
    UNKNOWN_APPROVAL: NOT_FOUND, "unknown_approval", "There is no such approval", Never;
    WRONG_METHOD: METHOD_NOT_ALLOWED, "wrong_method", "The path takes another method", Never;
    NO_WORKFLOW_TOKEN: CONFLICT, "no_workflow_token", "No workflow token is held", Never;
    OTHER_WALLET: CONFLICT, "other_wallet", "The body names another wallet", Never;
    KEY_IN_USE: CONFLICT, "idempotency_key_in_use", "The call with this key is still in progress", CheckFirst;
    BODY_TOO_LARGE: PAYLOAD_TOO_LARGE, "body_too_large", "The body is too large", Never;
    KEY_REUSED: UNPROCESSABLE_ENTITY, "idempotency_key_reused", "The idempotency key belongs to another call", Never;
    INVALID_KEY: BAD_REQUEST, "invalid_idempotency_key", "The idempotency key cannot be used", Never;
    INTERNAL: INTERNAL_SERVER_ERROR, "internal_error", "The proxy failed", Never;
    JOURNAL_UNAVAILABLE: SERVICE_UNAVAILABLE, "journal_unavailable", "The journal cannot be used", Safe;
    NOT_SIGNED: SERVICE_UNAVAILABLE, "not_signed", "The signer did not sign", Safe;
    FROZEN: SERVICE_UNAVAILABLE, "frozen", "Signatures or payments are frozen", Safe;
    OVERLOADED: SERVICE_UNAVAILABLE, "overloaded", "Too many calls are in flight", Safe;
    RELOAD_REFUSED: UNPROCESSABLE_ENTITY, "reload_refused", "The new configuration is refused", Never;
    OUTCOME_UNKNOWN: GATEWAY_TIMEOUT, "outcome_unknown", "The answer to a change was lost", CheckFirst;
    WRONG_HOST: MISDIRECTED_REQUEST, "wrong_host", "The host is not this proxy", Never;
    FOREIGN_PAGE: FORBIDDEN, "foreign_page", "Web pages may not use the wallet", Never;
    UNAUTHENTICATED: UNAUTHORIZED, "unauthenticated", "The caller is not known", Never;
    MALFORMED_AUTHORIZATION: UNAUTHORIZED, "malformed_authorization", "The Authorization header is malformed", Never;
    MISTYPED_TOKEN: UNAUTHORIZED, "mistyped_token", "The token is damaged", Never;
    UNKNOWN_TOKEN: UNAUTHORIZED, "unknown_token", "No client has this token", Never;
    JOB_TOKEN: UNAUTHORIZED, "job_token_not_taken", "The job's token does not belong in Authorization", Never;
    NOT_ALLOWED: FORBIDDEN, "not_allowed", "The client may not do that", Never;
    ACCESS_ENDED: FORBIDDEN, "access_ended", "The client's access has ended", Never;
    HELD_BY_ANOTHER: CONFLICT, "held_by_another", "Another client holds the job", Never;
    ALREADY_SUBMITTED: CONFLICT, "already_submitted", "A proof is already submitted", Never;
    NOT_RESERVED: CONFLICT, "not_reserved", "The client has not reserved the job", Never;
    TOO_FAST: TOO_MANY_REQUESTS, "rate_exceeded", "The client calls too often", Safe;
    TOO_MANY_RESERVATIONS: TOO_MANY_REQUESTS, "too_many_reservations", "The client holds too many jobs", Safe;
    TOO_MANY_APPROVALS: TOO_MANY_REQUESTS, "too_many_approvals", "A person was asked too often", Safe;
    CREDIT_LIMIT: TOO_MANY_REQUESTS, "credit_limit_reached", "The client has too few credits left", Safe;
    PRICE_UNKNOWN: CONFLICT, "price_unknown", "The price of the call is not known", Safe;
    PAYMENT_NOT_ALLOWED: FORBIDDEN, "payment_not_allowed", "The payment is not allowed", Never;
    SPENDING_LIMIT: TOO_MANY_REQUESTS, "spending_limit", "A limit of payments is reached", Safe;
    PAYMENT_OPEN: CONFLICT, "payment_open", "Another payment is not settled", Safe;
    PAYMENT_DEMAND: BAD_GATEWAY, "payment_demand", "The demand of a payment cannot be read", Never;
    PAYMENT_REFUSED: BAD_GATEWAY, "payment_refused", "The upstream refused the payment", Safe;
    UPSTREAM_UNREACHABLE: BAD_GATEWAY, "upstream_unreachable", "The upstream cannot be reached", Safe;
    UPSTREAM_MOVED: BAD_GATEWAY, "upstream_moved", "The upstream has moved", Never;
    UPSTREAM_FOREIGN: BAD_GATEWAY, "upstream_foreign", "Something other than the API answered", Never;
    SESSION_FAILED: BAD_GATEWAY, "session_failed", "The upstream did not begin a session", Safe;
    UPSTREAM_BROKE_OFF: BAD_GATEWAY, "upstream_broke_off", "The upstream's answer broke off", Never;
    ANSWER_TOO_LARGE: BAD_GATEWAY, "answer_too_large", "The upstream's answer is too large", Never;
    ANSWER_UNCHECKED: BAD_GATEWAY, "answer_unchecked", "The answer could not be checked", Safe;
    UPSTREAM_TIMEOUT: GATEWAY_TIMEOUT, "upstream_timeout", "The upstream did not answer in time", Never;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_problems_have_one_code() {
        let codes: HashSet<_> = PROBLEMS.iter().map(|kind| kind.code).collect();
        assert_eq!(codes.len(), PROBLEMS.len());
    }
}
