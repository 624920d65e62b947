//! The text that a wallet signs (protocol §2).

use std::fmt;

use sha3::{Digest, Keccak256};

use crate::{
    action::Binds,
    call::SignedCall,
    policy::SignedPermit,
    types::{RequestId, SessionNonce, Slug},
};

/// The text to sign: seven lines, joined by line feeds, none at the end. Its `Display` is the text.
///
/// It can only be made of a [`SignedPermit`] and of values that cannot hold a line break.
pub struct Message(String);

impl Message {
    /// The message that shows that the permitted wallet makes the call in the session of `nonce`.
    pub fn new(permit: SignedPermit<'_>, nonce: &SessionNonce, request: &RequestId) -> Self {
        let (call, wallet) = (permit.call(), permit.permit().wallet());
        let nonce = nonce.expose();
        let bound = bound_lines(call);
        let payload = call.payload().map(|json| json.hash().to_string());
        let payload = payload.unwrap_or_default();
        Self(format!(
            "agentpmt-external\n\
             wallet:{wallet}\n\
             session:{nonce}\n\
             request:{request}\n\
             {bound}\n\
             payload:{payload}"
        ))
    }

    /// The digest of the EIP-191 personal message: what the curve signs.
    pub fn eip191_digest(&self) -> [u8; 32] {
        let prefix = format!("\x19Ethereum Signed Message:\n{}", self.0.len());
        Keccak256::new_with_prefix(prefix).chain_update(&self.0).finalize().into()
    }
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Hides the text, which holds the session nonce.
impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Message([REDACTED])")
    }
}

/// The two lines that name the call.
fn bound_lines(signed: SignedCall<'_>) -> String {
    let call = signed.call();
    let action = call.action();
    match signed.binds() {
        Binds::Nothing => format!("action:{action}\nproduct:-"),
        Binds::Id => format!("action:{action}\nproduct:{}", call.id().map_or("-", Slug::as_str)),
        Binds::MethodAndPath => {
            let path = call.path();
            let path = path.strip_prefix("/api").unwrap_or(&path);
            format!("method:{}\npath:{path}", action.method)
        }
    }
}
