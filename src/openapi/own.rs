//! The calls of the proxy's own.

use http::Method;

use self::OwnAnswer::{Events, Json, Nothing};
use crate::{
    action::{
        Field,
        JsonType::{self, Any, Boolean, Integer, Number, Object, Objects, Words},
        RESERVATION, SESSION_PATH,
    },
    next_job,
};

/// A call that the proxy answers itself.
pub(super) struct OwnCall {
    /// The name of its operation.
    pub(super) name: &'static str,
    /// A few words, for people.
    pub(super) summary: &'static str,
    pub(super) method: Method,
    pub(super) path: &'static str,
    pub(super) query: &'static [Field],
    pub(super) body: &'static [Field],
    pub(super) headers: &'static [Field],
    /// The statuses of good answers, each with its body.
    pub(super) answers: &'static [(&'static str, OwnAnswer)],
}

/// The body of a good answer.
pub(super) enum OwnAnswer {
    /// An object with these fields.
    Json(&'static [Field]),
    /// Server-sent events.
    Events,
    /// None.
    Nothing,
}

/// Every one of them, in the order of the router.
pub(super) static OWN: &[OwnCall] = &[
    OwnCall {
        name: "auth_session",
        summary: "Begin a session, which no call needs",
        method: Method::POST,
        path: SESSION_PATH,
        query: &[],
        body: &[Field::text("wallet_address", "The proxy's wallet.")],
        headers: &[],
        answers: &[("200", Json(SESSION))],
    },
    OwnCall {
        name: "healthz",
        summary: "Ask whether the process serves",
        method: Method::GET,
        path: "/healthz",
        query: &[],
        body: &[],
        headers: &[],
        answers: &[("200", Json(STATUS_WORD))],
    },
    OwnCall {
        name: "readyz",
        summary: "Ask whether calls can be made",
        method: Method::GET,
        path: "/readyz",
        query: &[Field::new("upstream", FLAG, "Asks whether the API answers, too.")],
        body: &[],
        headers: &[],
        answers: &[("200", Json(STATUS_WORD))],
    },
    OwnCall {
        name: "next_job",
        summary: "Reserve the best job there is, and wait for one",
        method: Method::POST,
        path: "/proxy/jobs/next",
        query: &[],
        body: next_job::FIELDS,
        headers: &[
            Field::text(
                "Idempotency-Key",
                "A word of your own: with the same, a repeat gets the same job.",
            ),
            Field::text("Prefer", "`wait=20` waits so many seconds, as the field does."),
        ],
        answers: &[("200", Json(RESERVATION)), ("204", Nothing)],
    },
    OwnCall {
        name: "reservations",
        summary: "List the reservations that the caller holds",
        method: Method::GET,
        path: "/proxy/reservations",
        query: &[],
        body: &[],
        headers: &[],
        answers: &[("200", Json(RESERVATIONS))],
    },
    OwnCall {
        name: "release_job",
        summary: "Give up a job that the caller holds, so that another client may have it",
        method: Method::POST,
        path: "/proxy/reservations/{job_id}/release",
        query: &[],
        body: &[],
        headers: &[],
        answers: &[("200", Json(RELEASED))],
    },
    OwnCall {
        name: "proxy_status",
        summary: "Read how the proxy is",
        method: Method::GET,
        path: "/proxy/status",
        query: &[],
        body: &[],
        headers: &[],
        answers: &[("200", Json(STATUS))],
    },
    OwnCall {
        name: "proxy_events",
        summary: "Listen for what happens to the caller's jobs",
        method: Method::GET,
        path: "/proxy/events",
        query: &[],
        body: &[],
        headers: &[Field::new(
            "Last-Event-ID",
            Integer { min: 0, max: None, default: None },
            "The id of the last event that came, to go on after it.",
        )],
        answers: &[("200", Events)],
    },
    OwnCall {
        name: "proxy_reload",
        summary: "Read the configuration again (admin)",
        method: Method::POST,
        path: "/proxy/reload",
        query: &[],
        body: &[],
        headers: &[],
        answers: &[("200", Json(STATUS_WORD))],
    },
    OwnCall {
        name: "approval",
        summary: "Read how a payment stands that waits for approval",
        method: Method::GET,
        path: "/proxy/approvals/{id}",
        query: &[],
        body: &[],
        headers: &[],
        answers: &[("200", Json(APPROVAL))],
    },
    OwnCall {
        name: "proxy_freeze",
        summary: "Stop every signature (admin)",
        method: Method::POST,
        path: "/proxy/freeze",
        query: &[Field::new("payments", FLAG, "Stops payments alone.")],
        body: &[],
        headers: &[],
        answers: &[("200", Json(FROZEN))],
    },
    OwnCall {
        name: "proxy_thaw",
        summary: "Sign again (admin with a token)",
        method: Method::POST,
        path: "/proxy/thaw",
        query: &[],
        body: &[],
        headers: &[],
        answers: &[("200", Json(FROZEN))],
    },
];

/// A name without a value.
const FLAG: JsonType = Words(&[""]);

const SESSION: &[Field] = &[
    Field::text("session_nonce", "`held-by-proxy`."),
    Field::text("wallet_address", "The proxy's wallet."),
    Field::new("expires_in", Number, "Seconds."),
    Field::text("expires_at", "A time (RFC 3339)."),
];

const STATUS_WORD: &[Field] = &[Field::text("status", "A word.")];

const RESERVATIONS: &[Field] = &[Field::new(
    "reservations",
    Objects(&[
        Field::text("job_id", "The job."),
        Field::text("wallet", "The wallet that has reserved it."),
        Field::text("client", "The client that holds it."),
        Field::text("reservation_id", "The id of the reservation."),
        Field::text("reserved_until", "Its end (RFC 3339)."),
        Field::new("seconds_left", Number, "The seconds until then."),
        Field::text("workflow_token", "`held-by-proxy`, if there is one."),
    ]),
    "The reservations; for an admin, those of all clients.",
)];

const RELEASED: &[Field] = &[
    Field::text("job_id", "The job."),
    Field::text("reserved_until", "Its end (RFC 3339)."),
    Field::new("seconds_left", Number, "The seconds until then."),
];

const STATUS: &[Field] = &[
    Field::text("version", "The version of the proxy."),
    Field::new("uptime_seconds", Number, "Seconds since it started."),
    Field::text("wallet", "The caller's wallet."),
    Field::new("wallets", Any, "All wallets, for an admin."),
    Field::new(
        "upstream",
        Object(&[
            Field::text("last_success", "A time (RFC 3339)."),
            Field::new("last_failure", Any, "A time, and why."),
            Field::text("unreachable_since", "A time (RFC 3339)."),
        ]),
        "What is seen of the API.",
    ),
    Field::new("listeners", Any, "Where it listens."),
    Field::new(
        "last_reload",
        Object(&[
            Field::text("at", "A time (RFC 3339)."),
            Field::new("ok", Boolean, "Whether it was taken."),
            Field::text("mistakes", "What is wrong with it."),
        ]),
        "The last time that the configuration was read again.",
    ),
    Field::new("frozen", Any, "What is frozen, by whom and since when."),
    Field::text("state", "The state folder, for an admin."),
    Field::new("spending", Any, "The wallet that pays and its limits, if it may pay."),
];

const APPROVAL: &[Field] = &[
    Field::text("id", "The id of the approval."),
    Field::text("state", "`waiting`, `approved`, `denied`, `used` or `expired`."),
    Field::text("client", "The client that would pay."),
    Field::text("action", "The call that is to be paid for."),
    Field::text("resource", "The URL that is to be paid for."),
    Field::text("network", "The network, such as `eip155:8453`."),
    Field::text("asset", "The contract of the token."),
    Field::text("payee", "The wallet that would be paid."),
    Field::text("amount", "The amount in base units of the token."),
    Field::text("asked", "When it was asked for (RFC 3339)."),
    Field::text("until", "When it ends unanswered (RFC 3339)."),
];

const FROZEN: &[Field] =
    &[Field::new("frozen", Any, "What is frozen, by whom and since when; else null.")];
