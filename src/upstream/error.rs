//! Why there is no answer.

use std::error::Error;

use http::StatusCode;

/// The largest answer that is taken, in bytes.
pub const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// The upstream gave no answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{}", why.text(url))]
pub struct UpstreamError {
    /// The upstream's address.
    pub url: String,
    /// Why there is no answer.
    pub why: Unanswered,
}

/// Why a request has no answer. A text is the cause as the network or a parser tells it.
#[derive(Debug, Clone)]
pub enum Unanswered {
    /// There was no connection, so the request was not sent.
    Unreachable(String),
    /// There are connections, but the last calls failed, so this one was not sent.
    Failing(String),
    /// There was no answer before the deadline.
    TimedOut,
    /// The connection broke after the request was sent.
    BrokenOff(String),
    /// All upstream permits, so many as `upstream.max_calls` says, were taken until the call could wait no
    /// longer, so it was not sent.
    Busy(usize),
    /// The upstream redirects, and did not act on the call.
    Moved {
        /// The status of its answer.
        status: StatusCode,
        /// The scheme and authority of its `Location`, if it has both. The rest may repeat what was sent.
        origin: Option<String>,
    },
    /// Something other than the API answers: with a web page, or with a redirect that is none.
    Foreign(StatusCode),
    /// The peer answered a read with bytes that are not HTTP.
    NotHttp(String),
    /// The answer names another job than the call, so it belongs to another call.
    OtherJob,
    /// The answer is larger than [`MAX_ANSWER`].
    TooLarge,
}

impl UpstreamError {
    /// Whether the upstream may have acted on the request.
    pub fn was_sent(&self) -> bool {
        self.why.was_sent()
    }

    /// Whether the request left, so that something has what was in it.
    pub(crate) fn has_left(&self) -> bool {
        self.why.was_sent() || matches!(self.why, Unanswered::Moved { .. })
    }
}

impl Unanswered {
    /// Whether the upstream may have acted on the request.
    pub(crate) fn was_sent(&self) -> bool {
        use Unanswered::{Busy, Failing, Moved, Unreachable};
        !matches!(self, Unreachable(_) | Failing(_) | Busy(_) | Moved { .. })
    }

    /// The sentence for an upstream with this address.
    fn text(&self, url: &str) -> String {
        match self {
            Self::Unreachable(cause) => format!("{url} cannot be reached: {cause}"),
            Self::Failing(cause) => format!("{url} fails again and again: {cause}"),
            Self::TimedOut => format!("{url} did not answer in time"),
            Self::BrokenOff(cause) => {
                format!("the connection to {url} broke before the answer was complete: {cause}")
            }
            Self::Busy(most) => {
                format!("{most} other calls were being made to {url} all the time")
            }
            Self::Moved { status, origin } => {
                let origin = origin.as_ref().map(|origin| format!(" with a Location at {origin}"));
                format!("{url} answers {}{}", named(*status), origin.unwrap_or_default())
            }
            Self::Foreign(status) => {
                format!("{url} answers {} without the API's JSON", named(*status))
            }
            Self::NotHttp(cause) => format!("{url} does not speak HTTP: {cause}"),
            Self::OtherJob => format!("{url} gave the answer to another call than it was asked"),
            Self::TooLarge => {
                let most = MAX_ANSWER / 1024 / 1024;
                format!("the answer of {url} is larger than {most} MiB")
            }
        }
    }
}

/// A status with its name, if it has any.
pub(crate) fn named(status: StatusCode) -> String {
    let name = status.canonical_reason().map(|name| format!(" {name}")).unwrap_or_default();
    format!("{}{name}", status.as_str())
}

/// The causes of an error, outermost first, without an outermost one that only repeats its cause.
pub(super) fn causes(error: &dyn Error) -> String {
    let mut texts = Vec::new();
    let mut next = error.source().or(Some(error));
    while let Some(cause) = next {
        // The cause of such an error says the same in more words.
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
