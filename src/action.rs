//! The calls of the upstream, one row each. Everything that knows a call by name or path loops over
//! [`ACTIONS`].

use std::fmt;

use http::Method;

use crate::types::Slug;

/// Where a session begins. The proxy calls it for itself and answers it locally.
pub const SESSION_PATH: &str = "/api/external/auth/session";

/// The fields of the body of a signed call that hold its proof: written by the proxy, dropped from what
/// clients send (protocol §3).
pub const ENVELOPE: [&str; 4] = ["wallet_address", "session_nonce", "request_id", "signature"];

/// The field with what a tool or workflow is called with.
pub(crate) const PARAMETERS: &str = "parameters";

/// Every upstream call that the proxy makes (protocol §5).
pub static ACTIONS: &[Action] = &[
    Action {
        name: "job_list",
        summary: "List the open jobs and the wallet's own",
        method: Method::POST,
        path: "/api/external/jobs/list",
        query: &[],
        body: &[
            Field::Integer { name: "limit", min: 1, default: 50 },
            Field::Integer { name: "skip", min: 0, default: 0 },
        ],
        about: About::Job,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::Action, payload: Payload::Fields }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "job_reserve",
        summary: "Reserve a job and read its instructions",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/reserve",
        query: &[],
        body: &[],
        about: About::Job,
        needs: Needs::NotHeldByAnother,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Fields }),
        effect: Effect::Reserves,
        lookup: Lookup::JobStatus,
    },
    Action {
        name: "job_complete",
        summary: "Submit the proof of a reserved job",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/complete",
        query: &[],
        body: &[
            Field::Any { name: "proof_text" },
            Field::Any { name: "reservation_id" },
            Field::Any { name: "workflow_id" },
            Field::Any { name: "social_posts" },
        ],
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Body }),
        effect: Effect::Submits,
        lookup: Lookup::JobStatus,
    },
    Action {
        name: "job_status",
        summary: "Ask what became of a job and its submission",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/status",
        query: &[],
        body: &[],
        about: About::Job,
        needs: Needs::NotHeldByAnother,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Fields }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "job_workflow_create",
        summary: "Create the workflow of a reserved job",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/create",
        query: &[],
        body: WORKFLOW,
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::WorkflowToken,
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "job_workflow_update",
        summary: "Change the workflow of a reserved job",
        method: Method::PUT,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}",
        query: &[],
        body: WORKFLOW,
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::WorkflowToken,
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "job_workflow_publish",
        summary: "Publish the workflow of a reserved job",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}/publish",
        query: &[],
        body: &[],
        about: About::Job,
        needs: Needs::Held,
        proof: Proof::WorkflowToken,
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "balance",
        summary: "Read how many credits the wallet has",
        method: Method::POST,
        path: "/api/external/credits/balance",
        query: &[],
        body: &[],
        about: About::Nothing,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::Action, payload: Payload::Empty }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "credits_purchase",
        summary: "Buy credits and pay by x402",
        method: Method::POST,
        path: "/api/external/credits/purchase",
        query: &[],
        body: &[
            Field::Any { name: "wallet_address" },
            Field::Any { name: "credits" },
            Field::Any { name: "payment_method" },
            Field::Any { name: "request_id" },
            Field::Any { name: "transaction_hash" },
            Field::Any { name: "payer_wallet_address" },
            Field::Any { name: "sponsor_signature" },
        ],
        about: About::Nothing,
        needs: Needs::Nothing,
        proof: Proof::Payment,
        effect: Effect::Pays,
        lookup: Lookup::None,
    },
    Action {
        name: "tools",
        summary: "List the tools and their prices",
        method: Method::GET,
        path: "/api/external/tools",
        query: &["limit", "skip"],
        body: &[],
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::None,
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "tool_invoke",
        summary: "Use a tool and pay with credits",
        method: Method::POST,
        path: "/api/external/tools/{product_slug}/actions/{action_slug}/invoke",
        query: &[],
        body: TOOL,
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed {
            binds: Binds::MethodAndPath,
            payload: Payload::Object(PARAMETERS),
        }),
        effect: Effect::Spends,
        lookup: Lookup::Balance,
    },
    Action {
        name: "tool_pay",
        summary: "Use a tool and pay for this one call by x402",
        method: Method::POST,
        path: "/api/external/tools/{product_slug}/actions/{action_slug}/invoke",
        query: &["pay"],
        body: &[],
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::Payment,
        effect: Effect::Pays,
        lookup: Lookup::None,
    },
    Action {
        name: "invoke",
        summary: "Use a tool by its older call, which the server may no longer have",
        method: Method::POST,
        path: "/api/external/tools/{product_id}/invoke",
        query: &[],
        body: TOOL,
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed {
            binds: Binds::ActionAndId,
            payload: Payload::Object(PARAMETERS),
        }),
        effect: Effect::Spends,
        lookup: Lookup::Balance,
    },
    Action {
        name: "workflows",
        summary: "List the published workflows",
        method: Method::GET,
        path: "/api/external/workflows",
        query: &["limit", "skip"],
        body: &[],
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::None,
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_fetch",
        summary: "Read a workflow (unconfirmed)",
        method: Method::POST,
        path: "/api/external/workflows/{workflow_id}/fetch",
        query: &[],
        body: &[],
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Empty }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_start",
        summary: "Start a session of a workflow (unconfirmed)",
        method: Method::POST,
        path: "/api/external/workflows/{workflow_id}/start",
        query: &[],
        body: &[Field::Any { name: "instance_id" }],
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Given }),
        effect: Effect::Other,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_active",
        summary: "Read the sessions of workflows that run (unconfirmed)",
        method: Method::POST,
        path: "/api/external/workflows/active",
        query: &[],
        body: &[Field::Any { name: "instance_id" }],
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::Action, payload: Payload::Given }),
        effect: Effect::None,
        lookup: Lookup::None,
    },
    Action {
        name: "workflow_end",
        summary: "End a session of a workflow (unconfirmed)",
        method: Method::POST,
        path: "/api/external/workflows/{workflow_id}/end",
        query: &[],
        body: &[Field::Any { name: "workflow_session_id" }],
        about: About::Workflow,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds: Binds::ActionAndId, payload: Payload::Given }),
        effect: Effect::Other,
        lookup: Lookup::None,
    },
];

const TOOL: &[Field] = &[Field::Any { name: PARAMETERS }];

const WORKFLOW: &[Field] = &[
    Field::Any { name: "name" },
    Field::Any { name: "description" },
    Field::Any { name: "nodes" },
    Field::Any { name: "edges" },
];

/// One upstream call: a row of [`ACTIONS`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The name, which is also the `action` line of the signed message.
    pub name: &'static str,
    /// A few words about the call, for people.
    pub summary: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path, here and upstream, with `{…}` for each id. The first id is that of the job, product or
    /// workflow that the call is about.
    pub path: &'static str,
    /// The names that its query may have.
    pub query: &'static [&'static str],
    /// The fields of its body that are known. Others are sent as well.
    pub body: &'static [Field],
    /// The kind of thing that the call is about.
    pub about: About,
    /// The reservation that the call needs.
    pub needs: Needs,
    /// The proof that the upstream asks for.
    pub proof: Proof,
    /// The change that the call makes upstream.
    pub effect: Effect,
    /// The way to find out later whether it took effect.
    pub lookup: Lookup,
}

impl Action {
    /// Whether the call changes anything upstream.
    pub fn changes(&self) -> bool {
        self.effect != Effect::None
    }

    /// The row with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }

    /// The row of a table that takes the same route and is paid for by x402, if that is another row.
    pub fn paid_row(&self, table: &'static [Self]) -> Option<&'static Self> {
        table.iter().find(|row| row.proof == Proof::Payment && self.shares_route(row))
    }

    /// Whether another row of the table stands for the route of this one.
    pub fn is_paid_row(&self, table: &[Self]) -> bool {
        self.proof == Proof::Payment && table.iter().any(|row| row.shares_route(self))
    }

    fn shares_route(&self, other: &Self) -> bool {
        (&self.method, self.path) == (&other.method, other.path) && self.name != other.name
    }

    /// The names of the ids in the path, in order.
    pub fn id_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(id_name)
    }

    /// Whether the row has every name of this query.
    pub fn takes_query(&self, query: &str) -> bool {
        query.split('&').all(|pair| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            self.query.contains(&name)
        })
    }

    /// The path with these ids in it, in order. A [`Slug`] needs no escaping.
    pub fn path_with(&self, ids: &[Slug]) -> String {
        let mut ids = ids.iter();
        self.path.split('/').skip(1).fold(String::with_capacity(128), |path, segment| {
            let id = id_name(segment).map(|_| ids.next().map_or("", Slug::as_str));
            path + "/" + id.unwrap_or(segment)
        })
    }
}

/// The kind of thing that a call is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    /// Nothing that has an id.
    Nothing,
    /// A job, or all jobs.
    Job,
    /// A tool that is for sale, or all of them.
    Product,
    /// A workflow of its own, or all of them.
    Workflow,
}

/// The reservation that a call needs, of the job that it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// None.
    Nothing,
    /// Any, as long as no other client holds the job.
    NotHeldByAnother,
    /// A running one of the client.
    Held,
}

/// The change that a call makes upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// None: it may be made as often as the client likes.
    None,
    /// It reserves the job.
    Reserves,
    /// It submits the job's proof.
    Submits,
    /// It may spend credits of the wallet.
    Spends,
    /// It may move money.
    Pays,
    /// Something of which the proxy keeps nothing.
    Other,
}

/// The way to find out whether a change took effect, after its answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lookup {
    /// No call shows it.
    None,
    /// The `job_status` of its job shows it.
    JobStatus,
    /// The `balance` of the wallet is a hint, as other calls may have changed it.
    Balance,
}

/// The proof that the upstream asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Proof {
    /// None: the call is public.
    None,
    /// A signature of the wallet, in the envelope.
    Signature(Signed),
    /// The token of the job's reservation, in a header (protocol §7).
    WorkflowToken,
    /// A payment by x402, in a header, once the upstream has asked for one (protocol §9).
    Payment,
}

/// The parts of a call that its signature covers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed {
    /// The lines of the message that name the call.
    pub binds: Binds,
    /// The part of the body that is hashed.
    pub payload: Payload,
}

/// The lines of the message that name the call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Binds {
    /// `action:` and `product:-`.
    Action,
    /// `action:` and `product:` with the path's first id.
    ActionAndId,
    /// `method:` and `path:`, the path without `/api`.
    MethodAndPath,
}

/// The part of a body that the `payload` line is the hash of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// The whole body.
    Body,
    /// An object of the row's [body fields](Action::body). Others are sent unhashed.
    Fields,
    /// The value of this one field, an object.
    Object(&'static str),
    /// The value of `parameters` if it is there, else an object of the row's
    /// [body fields](Action::body) that are there. With neither, servers differ in the [`EmptyPayload`].
    Given,
    /// Nothing: the line is empty.
    Empty,
}

/// How a payload without anything in it is hashed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EmptyPayload {
    /// As the object `{}`.
    Object,
    /// Not at all: the line is empty.
    Line,
}

/// A field of a body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Field {
    /// An integer, filled in when it is absent and hashed.
    Integer {
        /// The field's name.
        name: &'static str,
        /// The least value that is taken; the upstream decides the largest.
        min: u64,
        /// The value when the field is absent.
        default: u64,
    },
    /// Any value, sent as it is given.
    Any {
        /// The field's name.
        name: &'static str,
    },
}

impl Field {
    /// The field's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Integer { name, .. } | Self::Any { name } => name,
        }
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

fn id_name(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_rows_share_a_name_and_those_that_share_a_route_differ_in_paying() {
        let mut names = HashSet::new();
        let mut routes = HashSet::new();
        for action in ACTIONS {
            assert!(names.insert(action.name), "{action} is there twice");
            if action.is_paid_row(ACTIONS) {
                continue;
            }
            assert!(
                routes.insert((&action.method, action.path)),
                "{action}'s route is there twice"
            );
        }
    }

    #[test]
    fn every_row_can_be_bound() {
        for action in ACTIONS {
            let ids = action.id_names().count();
            assert!(action.path.starts_with("/api/external/"), "{action}");
            match &action.proof {
                Proof::None | Proof::Payment => {}
                Proof::Signature(Signed { binds: Binds::Action, .. }) => {
                    assert_eq!(ids, 0, "{action}")
                }
                Proof::Signature(Signed { binds: Binds::ActionAndId, .. }) => {
                    assert_eq!(ids, 1, "{action}")
                }
                Proof::Signature(_) | Proof::WorkflowToken => assert!(ids >= 1, "{action}"),
            }
        }
    }

    #[test]
    fn the_first_id_is_of_what_the_row_is_about() {
        for action in ACTIONS {
            let first = action.id_names().next();
            let kind = format!("{:?}", action.about).to_lowercase();
            assert!(first.is_none_or(|id| id.starts_with(&kind)), "{action}");
            let is_about_one_job = action.about == About::Job && first.is_some();
            let asks_for_job = action.needs != Needs::Nothing
                || action.lookup == Lookup::JobStatus
                || action.proof == Proof::WorkflowToken
                || matches!(action.effect, Effect::Reserves | Effect::Submits);
            assert!(is_about_one_job || !asks_for_job, "{action}");
        }
    }
}
