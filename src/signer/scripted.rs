//! A remote signer that does what a test says.

use tokio::sync::{Mutex, mpsc};

use super::{error::SignerError, local::LocalKey};
use crate::{message::Message, types::Signature};

/// Signs a message for each `true` that it is told, and fails for each `false`; it waits for both.
#[derive(Debug)]
pub struct Scripted {
    pub(super) key: LocalKey,
    verdicts: Mutex<mpsc::UnboundedReceiver<bool>>,
}

impl Scripted {
    pub(crate) fn new() -> (Self, mpsc::UnboundedSender<bool>) {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let (key, verdicts) = (LocalKey::random(), Mutex::new(verdicts));
        (Self { key, verdicts }, sender)
    }

    pub(super) async fn sign(&self, message: &Message) -> Result<Signature, SignerError> {
        match self.verdicts.lock().await.recv().await {
            Some(true) => Ok(self.key.sign(message)),
            _ => {
                let cause = "no answer of the key service".to_owned();
                Err(SignerError::Failed { wallet: self.key.address(), cause })
            }
        }
    }
}
