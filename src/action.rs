//! The calls of the upstream, one row each, and a call that a client makes.
//!
//! Everything that knows an upstream call by name or path loops over [`ACTIONS`].

use std::fmt;

use http::Method;

use crate::{
    canonical::{CanonicalJson, JsonError, Object},
    types::{InvalidValue, Slug},
};

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
        changes: false,
        reserves: false,
    },
    Action {
        name: "job_reserve",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/reserve",
        proof: Proof::Signature(Signed { binds: Binds::Id, payload: Payload::Fields(&[]) }),
        changes: true,
        reserves: true,
    },
    Action {
        name: "job_complete",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/complete",
        proof: Proof::Signature(Signed { binds: Binds::Id, payload: Payload::Body }),
        changes: true,
        reserves: false,
    },
    Action {
        name: "job_status",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/status",
        proof: Proof::Signature(Signed { binds: Binds::Id, payload: Payload::Fields(&[]) }),
        changes: false,
        reserves: false,
    },
    Action {
        name: "job_workflow_create",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/create",
        proof: Proof::WorkflowToken,
        changes: true,
        reserves: false,
    },
    Action {
        name: "job_workflow_update",
        method: Method::PUT,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}",
        proof: Proof::WorkflowToken,
        changes: true,
        reserves: false,
    },
    Action {
        name: "job_workflow_publish",
        method: Method::POST,
        path: "/api/external/jobs/{job_id}/workflow/{workflow_id}/publish",
        proof: Proof::WorkflowToken,
        changes: true,
        reserves: false,
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
    /// Whether the call changes anything upstream.
    pub changes: bool,
    /// Whether the answer may hold the token of a reservation.
    pub reserves: bool,
}

impl Action {
    /// The row with this name.
    pub fn named(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }

    /// The names of the ids in the path, in order.
    pub fn id_names(&self) -> impl Iterator<Item = &'static str> {
        self.path.split('/').filter_map(id_name)
    }
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

/// Why something is not a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// An id of the path is not usable.
    #[error("{name} cannot be used: {source}")]
    Id {
        /// The id's name in the path.
        name: &'static str,
        /// What is wrong with it.
        source: InvalidValue,
    },
    /// The number of ids is not that of the path.
    #[error("the action takes {expected} id(s) in its path, not {given}")]
    IdCount {
        /// How many the path has.
        expected: usize,
        /// How many were given.
        given: usize,
    },
    /// The body is not a JSON object, or has no canonical form.
    #[error("the body cannot be used: {0}")]
    Body(#[from] JsonError),
    /// A field of the payload is not of its type.
    #[error("{name} must be an integer of at least {min}")]
    Field {
        /// The field's name.
        name: &'static str,
        /// The least value that is taken.
        min: u64,
    },
}

/// A call that is fit to be signed: ids checked, envelope dropped, fixed fields filled in.
#[derive(Debug, Clone)]
pub struct Call {
    action: &'static Action,
    ids: Vec<Slug>,
    body: Object,
}

impl Call {
    /// Checks the ids, in the order of the path, and the body; an empty body is `{}`.
    ///
    /// # Errors
    /// See [`CallError`].
    pub fn new<'a>(
        action: &'static Action,
        ids: impl IntoIterator<Item = &'a str>,
        body: &[u8],
    ) -> Result<Self, CallError> {
        let ids = parse_ids(action, ids)?;
        let mut body =
            if body.trim_ascii().is_empty() { Object::default() } else { Object::parse(body)? };
        body.retain(|name, _| !ENVELOPE.contains(&name));
        if let Proof::Signature(signed) = &action.proof {
            // Servers differ in whether they hash a top-level null; all agree when it is absent.
            body.retain(|_, value| value.as_str() != "null");
            complete_fields(&mut body, &signed.payload)?;
        }
        Ok(Self { action, ids, body })
    }

    /// The row of the table.
    pub fn action(&self) -> &'static Action {
        self.action
    }

    /// The path's first id, which is the job's for every call about a job.
    pub fn id(&self) -> Option<&Slug> {
        self.ids.first()
    }

    /// The body without the envelope.
    pub fn body(&self) -> &Object {
        &self.body
    }

    /// The path with its ids. A [`Slug`] needs no escaping.
    pub fn path(&self) -> String {
        let mut ids = self.ids.iter();
        let segments = self.action.path.split('/').map(|segment| match id_name(segment) {
            Some(_) => ids.next().map_or("", Slug::as_str),
            None => segment,
        });
        segments.collect::<Vec<_>>().join("/")
    }

    /// What is hashed, if anything.
    pub fn payload(&self, rule: &Payload) -> Option<CanonicalJson> {
        match rule {
            Payload::Body => Some(self.body.to_canonical()),
            Payload::Fields(fields) => {
                let mut payload = self.body.clone();
                payload.retain(|name, _| fields.iter().any(|field| field.name() == name));
                Some(payload.to_canonical())
            }
            Payload::FieldValue(name) => {
                let value = self.body.field(name).cloned();
                Some(value.unwrap_or_else(|| Object::default().to_canonical()))
            }
            Payload::Empty => None,
        }
    }
}

fn id_name(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}

fn parse_ids<'a>(
    action: &'static Action,
    ids: impl IntoIterator<Item = &'a str>,
) -> Result<Vec<Slug>, CallError> {
    let ids: Vec<&str> = ids.into_iter().collect();
    let expected = action.id_names().count();
    if ids.len() != expected {
        return Err(CallError::IdCount { expected, given: ids.len() });
    }
    let parse = |(name, id): (_, &str)| id.parse().map_err(|source| CallError::Id { name, source });
    action.id_names().zip(ids).map(parse).collect()
}

/// Checks the integers of a payload with fixed fields and fills in those that are absent.
fn complete_fields(body: &mut Object, payload: &Payload) -> Result<(), CallError> {
    let Payload::Fields(fields) = payload else { return Ok(()) };
    for field in *fields {
        let Field::Integer { name, min, default } = *field else { continue };
        match body.field(name) {
            None => body.insert(name, CanonicalJson::integer(default)),
            Some(value) if is_integer_from(value.as_str(), min) => {}
            Some(_) => return Err(CallError::Field { name, min }),
        }
    }
    Ok(())
}

/// Canonical integers have no leading zeros, so one that does not fit 64 bits is larger than `min`.
fn is_integer_from(text: &str, min: u64) -> bool {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits && text.parse().map_or(true, |value: u64| value >= min)
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    fn call(name: &str, ids: &[&str], body: &str) -> Result<Call, CallError> {
        Call::new(Action::named(name).unwrap(), ids.iter().copied(), body.as_bytes())
    }

    fn payload(call: &Call) -> String {
        let Proof::Signature(signed) = &call.action().proof else { panic!("not signed") };
        call.payload(&signed.payload).map(String::from).unwrap_or_default()
    }

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

    #[test]
    fn list_fields_are_filled_in_and_checked() {
        assert_eq!(payload(&call("job_list", &[], "").unwrap()), r#"{"limit":50,"skip":0}"#);
        let given = call("job_list", &[], r#"{"limit":1e1,"skip":null,"q":1}"#).unwrap();
        assert_eq!(payload(&given), r#"{"limit":10,"skip":0}"#);
        assert!(given.body().field("q").is_some());
        for body in [r#"{"limit":0}"#, r#"{"limit":"5"}"#, r#"{"limit":1.5}"#, r#"{"limit":[]}"#] {
            let error = call("job_list", &[], body).unwrap_err();
            assert_eq!(error, CallError::Field { name: "limit", min: 1 }, "{body}");
        }
        assert!(call("job_list", &[], r#"{"skip":-1}"#).is_err());
        assert!(call("job_list", &[], r#"{"limit":99999999999999999999999}"#).is_ok());
    }

    #[test]
    fn envelope_and_top_level_nulls_are_dropped() {
        let body = r#"{"signature":"0x","request_id":1,"session_nonce":[],"wallet_address":{},
            "proof_text":"x","workflow_id":null,"deep":{"signature":null}}"#;
        let call = call("job_complete", &["j1"], body).unwrap();
        assert_eq!(payload(&call), r#"{"deep":{"signature":null},"proof_text":"x"}"#);
    }

    #[test]
    fn a_body_that_is_not_signed_keeps_its_nulls() {
        let call = call("job_workflow_create", &["j1"], r#"{"edges":null,"signature":1}"#).unwrap();
        assert_eq!(call.body().to_canonical().as_str(), r#"{"edges":null}"#);
    }

    #[test]
    fn ids_stand_in_the_path_in_order() {
        let call = call("job_workflow_publish", &["j1", "w2"], "").unwrap();
        assert_eq!(call.path(), "/api/external/jobs/j1/workflow/w2/publish");
    }

    #[test]
    fn ids_that_could_change_the_path_are_refused() {
        for id in ["", "..", "a/b", "a?b", "a\nb", "a%2Fb"] {
            assert!(matches!(call("job_status", &[id], ""), Err(CallError::Id { .. })), "{id:?}");
        }
        assert!(matches!(call("job_status", &[], ""), Err(CallError::IdCount { .. })));
    }
}
