//! The text that a wallet signs (protocol §2).

use std::fmt::{self, Write};

use sha3::{Digest, Keccak256};

use crate::{
    action::Binds,
    call::SignedCall,
    json::PayloadHash,
    policy::SignedPermit,
    types::{RequestId, SessionNonce, Slug},
};

/// The length of most messages, in bytes.
const USUAL_LENGTH: usize = 320;

/// The text to sign: seven lines, joined by line feeds, none at the end. Its `Display` is the text.
///
/// It can only be made of a [`SignedPermit`] and of values that cannot hold a line break.
pub struct Message {
    text: String,
    payload_hash: Option<PayloadHash>,
}

impl Message {
    /// The message that shows that the permitted wallet makes the call in the session of `nonce`.
    pub fn new(permit: SignedPermit<'_>, nonce: &SessionNonce, request: &RequestId) -> Self {
        let (call, wallet) = (permit.call(), permit.permit().wallet());
        let payload_hash = call.payload().map(|json| json.hash());
        let mut text = String::with_capacity(USUAL_LENGTH);
        // Writing into a `String` cannot fail.
        let _ = write!(
            text,
            "agentpmt-external\n\
             wallet:{wallet}\n\
             session:{nonce}\n\
             request:{request}\n",
            nonce = nonce.expose()
        );
        let _ = write_bound_lines(&mut text, call);
        text.push_str("\npayload:");
        if let Some(hash) = payload_hash {
            let _ = write!(text, "{hash}");
        }
        Self { text, payload_hash }
    }

    /// The hash of the canonical payload, if the call has one.
    pub fn payload_hash(&self) -> Option<PayloadHash> {
        self.payload_hash
    }

    /// The digest of the EIP-191 personal message, which is signed.
    pub fn eip191_digest(&self) -> [u8; 32] {
        eip191_digest(&self.text)
    }
}

/// The digest of the EIP-191 personal message that is this text.
pub(crate) fn eip191_digest(text: &str) -> [u8; 32] {
    let prefix = format!("\x19Ethereum Signed Message:\n{}", text.len());
    Keccak256::new_with_prefix(prefix).chain_update(text).finalize().into()
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// Hides the text, which holds the session nonce.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Message([REDACTED])")
    }
}

/// Writes the two lines that bind the signature to the call.
fn write_bound_lines(text: &mut String, signed: SignedCall<'_>) -> fmt::Result {
    let call = signed.call();
    let action = call.action();
    match signed.binds() {
        Binds::Action => write!(text, "action:{action}\nproduct:-"),
        Binds::ActionAndId => {
            write!(text, "action:{action}\nproduct:{}", call.product().map_or("-", Slug::as_str))
        }
        Binds::MethodAndPath => {
            let path = call.path();
            let path = path.strip_prefix("/api").unwrap_or(&path);
            write!(text, "method:{}\npath:{path}", action.method)
        }
    }
}
