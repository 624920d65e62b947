//! The number of a client.

use std::fmt;

/// Tells a client from any other, also from one that had its name before. No number is used again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(i64);

impl ClientId {
    /// The number of the client `local`.
    pub const LOCAL: Self = Self(0);

    /// The client with this number in the database.
    pub const fn new(number: i64) -> Self {
        Self(number)
    }

    /// The number in the database.
    pub const fn number(self) -> i64 {
        self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
