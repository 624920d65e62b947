//! A remote signer that does what a test says.

use tokio::sync::{Mutex, mpsc};

use super::{error::SignerError, local::LocalKey};
use crate::{message::Message, types::Signature};

/// The step that the signer takes with the next message.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Script {
    Sign,
    Fail,
    Panic,
}

/// Waits for each message to be told what to do with it.
#[derive(Debug)]
pub struct Scripted {
    pub(super) key: LocalKey,
    verdicts: Mutex<mpsc::UnboundedReceiver<Script>>,
}

impl Scripted {
    pub(crate) fn new() -> (Self, mpsc::UnboundedSender<Script>) {
        let (sender, verdicts) = mpsc::unbounded_channel();
        let (key, verdicts) = (LocalKey::random(), Mutex::new(verdicts));
        (Self { key, verdicts }, sender)
    }

    pub(super) async fn sign(&self, message: &Message) -> Result<Signature, SignerError> {
        match self.verdicts.lock().await.recv().await {
            Some(Script::Sign) => Ok(self.key.sign(message)),
            Some(Script::Panic) => panic!("as the test says"),
            Some(Script::Fail) | None => {
                let cause = "no answer of the key service".to_owned();
                Err(SignerError::Failed { wallet: self.key.address(), cause })
            }
        }
    }
}
