//! A row of the table.

use std::fmt;

use http::Method;

use super::{
    field::Field,
    rule::{About, Effect, Lookup, Needs, Proof},
};
use crate::types::Slug;

/// One upstream call: a row of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Action {
    /// The name, which is also the `action` line of the signed message.
    pub name: &'static str,
    /// A few words about the call, for people.
    pub summary: &'static str,
    /// A longer text, for agents: what it is for, and what comes before and after it.
    pub description: &'static str,
    /// The HTTP method.
    pub method: Method,
    /// The path, here and upstream, with `{…}` for each id. The first id is that of the job, product or
    /// workflow that the call is about.
    pub path: &'static str,
    /// The fields that its query may have.
    pub query: &'static [Field],
    /// The fields of its body that are known. Others are sent as well.
    pub body: &'static [Field],
    /// A body that the sandbox takes, as JSON; empty if the call needs none.
    pub example: &'static str,
    /// The fields of its answer that are known. Any may be absent or null.
    pub answer: &'static [Field],
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
        ids_of(self.path)
    }

    /// Whether the row has every name of this query.
    pub fn takes_query(&self, query: &str) -> bool {
        query.split('&').all(|pair| {
            let name = pair.split_once('=').map_or(pair, |(name, _)| name);
            self.query.iter().any(|field| field.name == name)
        })
    }

    /// The path with these ids in it, in order. A [`Slug`] needs no escaping.
    pub fn path_with(&self, ids: &[Slug]) -> String {
        if ids.is_empty() {
            return self.path.to_owned();
        }
        let mut ids = ids.iter();
        self.path.split('/').skip(1).fold(String::with_capacity(128), |path, segment| {
            let id = id_name(segment).map(|_| ids.next().map_or("", Slug::as_str));
            path + "/" + id.unwrap_or(segment)
        })
    }
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// The names of the ids in a path, in order.
pub(crate) fn ids_of(path: &'static str) -> impl Iterator<Item = &'static str> {
    path.split('/').filter_map(id_name)
}

fn id_name(segment: &'static str) -> Option<&'static str> {
    segment.strip_prefix('{')?.strip_suffix('}')
}
