//! The state of `serve --sandbox`, and in it the wallet that only a sandbox knows.

use std::{
    env,
    fs::Permissions,
    io::{self, ErrorKind},
    os::unix::fs::PermissionsExt,
};

use secrecy::SecretString;
use tempfile::TempDir;

use super::{config_args::ConfigArgs, failure::Failure, output::complain};
use crate::{
    config::{ClientsAre, Config},
    files,
    signer::{
        LocalKey,
        keystore::{Keystore, KeystoreError, ScryptCost},
    },
};

/// The folder of the wallet, in that of the state.
const FOLDER: &str = "sandbox-wallet";

/// The password of its key file. It is no secret: the wallet never has anything.
const PASSWORD: &str = "sandbox";

/// The settings with a state that no other proxy has: where the command line says, else in a folder
/// that is gone with the returned value. The state of a configuration is not the sandbox's, and a new
/// one has no clients that could be required.
pub(super) fn settings(settings: ConfigArgs) -> Result<(ConfigArgs, Option<TempDir>), Failure> {
    if settings.has("state") {
        return Ok((settings, None));
    }
    if settings.load()?.clients == ClientsAre::Required {
        complain(
            "clients = \"required\" is ignored: the state of this sandbox is new and has no clients; \
             to require them, name a state that has some with --state",
        );
    }
    let io = Failure::Runtime;
    let mut builder = tempfile::Builder::new();
    builder.prefix("agentpmt-sandbox-").permissions(Permissions::from_mode(0o700));
    let folder = builder.tempdir().map_err(|cause| Failure::NoTemporary {
        folder: env::temp_dir(),
        cause: files::without_path(cause),
    })?;
    let path = folder.path().to_str().map(str::to_owned);
    let path = path.ok_or_else(|| io(io::Error::from(ErrorKind::InvalidFilename)))?;
    let settings = settings.with("state", [path]).with("clients", ["optional".to_owned()]);
    Ok((settings, Some(folder)))
}

/// Where the wallet is.
pub(super) fn keystore(config: &Config) -> Keystore {
    Keystore::new(config.state.join(FOLDER))
}

/// The wallet of the state, if it has one.
pub(super) fn existing_wallet(config: &Config) -> Option<LocalKey> {
    keystore(config).find(None).ok()?.unlock(&SecretString::from(PASSWORD)).ok()
}

/// The wallet of the state, which is made if there is none.
pub(super) fn wallet(config: &Config) -> Result<LocalKey, Failure> {
    let keystore = keystore(config);
    let password = SecretString::from(PASSWORD);
    match keystore.find(None) {
        Err(KeystoreError::Empty(_)) => {
            let key = LocalKey::random();
            keystore.save(&key, &password, ScryptCost::LIGHT)?;
            Ok(key)
        }
        found => Ok(found?.unlock(&password)?),
    }
}
