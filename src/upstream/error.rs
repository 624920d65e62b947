//! Why there is no answer.

use std::error::Error;

use http::StatusCode;

/// The largest answer that is taken, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// Why there is no answer. [`UpstreamError::was_sent`] tells whether the call may have taken effect.
#[derive(Debug, Clone, thiserror::Error)]
pub enum UpstreamError {
    /// No connection, so the request did not go out.
    #[error("{url} cannot be reached: {cause}")]
    Unreachable {
        /// The upstream's address.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// There are connections, but the last calls failed, so this one was not sent.
    #[error("{url} keeps failing: {cause}")]
    Failing {
        /// The upstream's address.
        url: String,
        /// The failure of the last call.
        cause: String,
    },
    /// No answer before the deadline.
    #[error("{url} did not answer in time")]
    TimedOut {
        /// The upstream's address.
        url: String,
    },
    /// The connection broke after the request went out.
    #[error("the connection to {url} broke before the answer was complete: {cause}")]
    BrokenOff {
        /// The upstream's address.
        url: String,
        /// What the network said.
        cause: String,
    },
    /// It waited for one of `upstream.max_calls` permits in vain, so it was not sent.
    #[error("{most} other calls to {url} were in flight for as long as this one could wait")]
    Busy {
        /// The upstream's address.
        url: String,
        /// How many may be.
        most: usize,
    },
    /// It sends its callers elsewhere, and did not act on the call.
    #[error("{url} answers {}{}", named(*status), towards(origin.as_deref()))]
    Moved {
        /// The upstream's address.
        url: String,
        /// The status of its answer.
        status: StatusCode,
        /// The scheme and authority of its `Location`, if it has both. The rest may repeat what was sent.
        origin: Option<String>,
    },
    /// Something other than the API answers, with a web page or a redirect that is none.
    #[error("{url} answers {} without the API's JSON", named(*status))]
    Foreign {
        /// The upstream's address.
        url: String,
        /// The status of its answer.
        status: StatusCode,
    },
    /// The peer answered a read with bytes that are not HTTP.
    #[error("{url} does not speak HTTP: {cause}")]
    NotHttp {
        /// The upstream's address.
        url: String,
        /// The parser's error.
        cause: String,
    },
    /// The answer is about another job, so the answer to the call is lost.
    #[error("{url} answered about another job than was asked for")]
    OtherJob {
        /// The upstream's address.
        url: String,
    },
    /// The answer is larger than [`MAX_ANSWER`].
    #[error("the answer of {url} is larger than {} MiB", MAX_ANSWER / 1024 / 1024)]
    TooLarge {
        /// The upstream's address.
        url: String,
    },
}

impl UpstreamError {
    /// Whether the upstream may have acted on the request.
    pub fn was_sent(&self) -> bool {
        !matches!(
            self,
            Self::Unreachable { .. }
                | Self::Failing { .. }
                | Self::Busy { .. }
                | Self::Moved { .. }
        )
    }
}

/// A status with its name, if it has any.
pub(crate) fn named(status: StatusCode) -> String {
    let name = status.canonical_reason().map(|name| format!(" {name}")).unwrap_or_default();
    format!("{}{name}", status.as_str())
}

fn towards(origin: Option<&str>) -> String {
    origin.map(|origin| format!(" with a Location at {origin}")).unwrap_or_default()
}

/// The causes of an error, outermost first; the outermost of a client error says nothing that its
/// cause does not.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut texts = Vec::new();
    let mut next = error.source().or(Some(error));
    while let Some(cause) = next {
        // What follows such a text says the same in more words.
        texts.extend(Some(cause.to_string()).filter(|text| !text.starts_with("client error (")));
        next = cause.source();
    }
    texts.join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_without_a_name_is_its_number() {
        let told = |code| named(StatusCode::from_u16(code).unwrap());
        assert_eq!((told(502), told(499)), ("502 Bad Gateway".to_owned(), "499".to_owned()));
    }
}
