//! Why a text has no canonical form.

/// The deepest nesting of arrays and objects that is taken.
pub(super) const MAX_DEPTH: usize = 128;

/// The most digits of an integer that Python reads.
pub(super) const MAX_DIGITS: usize = 4300;

/// Why a text has no canonical form. Lines and columns count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum JsonError {
    /// Not JSON (RFC 8259), or not UTF-8.
    #[error("it is not JSON: {0}")]
    Syntax(String),
    /// JSON, but not an object, where one is needed.
    #[error("it is JSON, but not an object: it must look like {{\"name\": value}}")]
    NotAnObject,
    /// Text in another encoding.
    #[error("it is UTF-16 or UTF-32, not UTF-8: send it as UTF-8")]
    Utf16,
    /// Half of a surrogate pair, which no UTF-8 text can hold.
    #[error(
        "the string at line {line} column {column} holds half of a surrogate pair (\\uD800 to \\uDFFF)"
    )]
    LoneSurrogate {
        /// Where the half stands.
        line: usize,
        /// Where it stands in the line, in bytes.
        column: usize,
    },
    /// An integer that servers in Python refuse to read.
    #[error("an integer has more than {MAX_DIGITS} digits")]
    IntegerTooLong,
    /// The double nearest to the number is infinite.
    #[error("a number is too large for a double (the largest is about 1.8e308)")]
    NumberTooLarge,
    /// Deeper than 128 levels.
    #[error("arrays and objects are nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}
