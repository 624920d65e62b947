//! The calls of the upstream, one row each. Everything that knows a call by name or path loops over
//! [`ACTIONS`].

use std::fmt;

use http::Method;

use crate::types::Slug;

/// Where a session begins. The proxy calls it for itself and answers it locally.
pub const SESSION_PATH: &str = "/api/external/auth/session";

/// The fields of a body that hold the proof: written by the proxy, dropped from what clients send
/// (protocol §3).
pub const ENVELOPE: [&str; 4] = ["wallet_address", "session_nonce", "request_id", "signature"];

/// Every upstream call that the proxy makes (protocol §5).
pub static ACTIONS: &[Action] = &[
    Action {
        name: "job_list",
        method: Method::POST,
        path: "/api/external/jobs/list",
        proof: Proof::Signature(Signed {
            binds: Binds::Nothing,
            payload: Payload::Fields(&[
                Field::Integer { name: "limit", min: 1, default: 50 },
                Field::Integer { name: "skip", min: 0, default: 0 },
            ]),
        }),
        effect: Effect::None,
    },
    Action {
        name: "job_reserve",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/reserve",
        proof: Proof::Signature(Signed { binds: Binds::Id, payload: Payload::Fields(&[]) }),
        effect: Effect::Reserves,
    },
    Action {
        name: "job_complete",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/complete",
        proof: Proof::Signature(Signed { binds: Binds::Id, payload: Payload::Body }),
        effect: Effect::Submits,
    },
    Action {
        name: "job_status",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/status",
        proof: Proof::Signature(Signed { binds: Binds::Id, payload: Payload::Fields(&[]) }),
        effect: Effect::None,
    },
    Action {
        name: "job_workflow_create",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/create",
        proof: Proof::WorkflowToken,
        effect: Effect::Edits,
    },
    Action {
        name: "job_workflow_update",
        method: Method::PUT,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}",
        proof: Proof::WorkflowToken,
        effect: Effect::Edits,
    },
    Action {
        name: "job_workflow_publish",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}/publish",
        proof: Proof::WorkflowToken,
        effect: Effect::Edits,
    },
];

/// One upstream call: a row of [`ACTIONS`].
#[derive(Debug, PartialEq, Eq)]
pub struct Action {
    /// The name, which is also the `action` line of the signed message.
    pub name: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path, here and upstream, with `{…}` for each id.
    pub path: &'static str,
    /// What shows the upstream that the call may be made.
    pub proof: Proof,
    /// What the call changes upstream.
    pub effect: Effect,
}

impl Action {
    /// Whether the call changes anything upstream.
    pub fn changes(&self) -> bool {
        self.effect != Effect::None
    }

    /// Whether the call is one about jobs: the first id of its path, if it has any, is a job's.
    pub fn is_about_jobs(&self) -> bool {
        self.path.starts_with("/api/external/jobs/")
    }

    /// The row with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }

    /// The names of the ids in the path, in order.
    pub fn id_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(id_name)
    }

    /// The path with these ids in it, in order. A [`Slug`] needs no escaping.
    pub fn path_with(&self, ids: &[Slug]) -> String {
        let mut ids = ids.iter();
        let segments = self.path.split('/').map(|segment| match id_name(segment) {
            Some(_) => ids.next().map_or("", Slug::as_str),
            None => segment,
        });
        segments.collect::<Vec<_>>().join("/")
    }
}

/// What a call changes upstream, which decides whether and how it may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// Nothing: it may be made as often as anyone likes.
    None,
    /// It reserves the job; `job_status` tells whether it did.
    Reserves,
    /// It submits the job's proof; `job_status` tells whether it did.
    Submits,
    /// It changes something that no other call shows.
    Edits,
}

/// What shows the upstream that a call may be made.
#[derive(Debug, PartialEq, Eq)]
pub enum Proof {
    /// A signature of the wallet, in the envelope.
    Signature(Signed),
    /// The token of the job's reservation, in a header (protocol §7).
    WorkflowToken,
}

/// What a signature covers.
#[derive(Debug, PartialEq, Eq)]
pub struct Signed {
    /// What the signature binds besides wallet, session, request and payload.
    pub binds: Binds,
    /// What is hashed.
    pub payload: Payload,
}

/// The lines of the message that name the call.
#[derive(Debug, PartialEq, Eq)]
pub enum Binds {
    /// `action:` and `product:-`.
    Nothing,
    /// `action:` and `product:` with the path's id.
    Id,
    /// `method:` and `path:`, the path without `/api`.
    MethodAndPath,
}

/// What the `payload` line is the hash of.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload {
    /// The whole body.
    Body,
    /// An object of these fields; the body may hold others, which are sent unhashed.
    Fields(&'static [Field]),
    /// The value of this one field, `{}` if it is absent.
    FieldValue(&'static str),
    /// Nothing: the line is empty.
    Empty,
}

/// A field of a payload with fixed fields.
#[derive(Debug, PartialEq, Eq)]
pub enum Field {
    /// An integer, filled in when it is absent.
    Integer {
        /// The field's name.
        name: &'static str,
        /// The least value that is taken; the upstream decides the largest.
        min: u64,
        /// The value when the field is absent.
        default: u64,
    },
    /// Any value, part of the payload only when it is given.
    Optional {
        /// The field's name.
        name: &'static str,
    },
}

impl Field {
    /// The field's name.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Integer { name, .. } | Self::Optional { name } => name,
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
    fn no_two_rows_share_a_name_or_a_route() {
        let mut names = HashSet::new();
        let mut routes = HashSet::new();
        for action in ACTIONS {
            assert!(names.insert(action.name), "{action} is there twice");
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
                Proof::Signature(Signed { binds: Binds::Nothing, .. }) => {
                    assert_eq!(ids, 0, "{action}")
                }
                Proof::Signature(Signed { binds: Binds::Id, .. }) => assert_eq!(ids, 1, "{action}"),
                Proof::Signature(_) | Proof::WorkflowToken => assert!(ids >= 1, "{action}"),
            }
        }
    }
}
