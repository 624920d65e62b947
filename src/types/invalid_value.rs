//! Why a value is refused.

/// Why a value was refused. Its text says what is allowed; it never repeats the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidValue {
    /// Not `0x` and 40 hexadecimal digits.
    #[error("an address is 0x and 40 hexadecimal digits")]
    Address,
    /// Empty, too long, or with a character that a message line cannot hold.
    #[error("it must be 1 to 1024 printable ASCII characters without spaces")]
    Line,
    /// Not usable as one segment of a path.
    #[error("an id is 1 to 128 of the characters A-Z a-z 0-9 . _ ~ - and neither \".\" nor \"..\"")]
    Slug,
    /// A client's token, in a path, is no id.
    #[error("a token, which begins with apmt_, belongs into the Authorization header alone")]
    Token,
    /// Not the name of a client.
    #[error("a client's name is 1 to 64 of the characters A-Z a-z 0-9 . _ -")]
    ClientName,
    /// Not `0x` and 130 hexadecimal digits.
    #[error("a signature is 0x and 130 hexadecimal digits")]
    Signature,
    /// Not a decimal of a token.
    #[error("an amount is digits, with or without a point between them, such as 5 or 0.05")]
    Amount,
    /// Not a number of credits.
    #[error("credits are digits, with or without a point between them, such as 500 or 0.5")]
    Credits,
    /// Not a whole number of base units.
    #[error("an amount in base units is digits without leading zeros")]
    BaseUnits,
    /// Not the nonce of an authorisation.
    #[error("a nonce is 0x and 64 hexadecimal digits")]
    Nonce,
    /// Not the CAIP-2 name of an EVM chain.
    #[error("a network is eip155: and the number of its chain, such as eip155:8453")]
    Network,
}
