//! The rules of a call: the values of the columns of the table.

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
    /// An object of the row's body fields. Others are sent unhashed.
    Fields,
    /// The value of this one field, an object.
    Object(&'static str),
    /// The value of `parameters` if it is there, else an object of the row's
    /// body fields that are there. With neither, servers differ in the [`EmptyPayload`].
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
