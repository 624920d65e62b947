//! A freeze: nothing is signed, or nothing is paid, until it is ended.

use std::fmt;

use jiff::Timestamp;

/// A freeze that stands, for all processes on the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Freeze {
    /// The signatures that it stops.
    pub of: FreezeOf,
    /// The user or the client that froze it, as the journal names it.
    pub by: String,
    /// When it was frozen.
    pub since: Timestamp,
}

/// The signatures that a freeze stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FreezeOf {
    /// Every call that needs a proof, and so every payment as well.
    Signatures,
    /// Every payment.
    Payments,
}

impl FreezeOf {
    /// The word for programs, which is also stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Signatures => "signatures",
            Self::Payments => "payments",
        }
    }

    pub(super) fn from_str(text: &str) -> Option<Self> {
        [Self::Signatures, Self::Payments].into_iter().find(|of| of.as_str() == text)
    }
}

impl fmt::Display for Freeze {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { of, by, since } = self;
        let since = since.strftime("%Y-%m-%dT%H:%M:%SZ");
        write!(f, "{} are frozen since {since} by {by}", of.as_str())
    }
}
