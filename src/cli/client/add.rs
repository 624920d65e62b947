//! `client add`.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, stdout},
    os::{fd::AsFd, unix::fs::MetadataExt},
    path::{Path, PathBuf},
};

use clap::Args;
use jiff::Timestamp;
use rustls::pki_types::{CertificateDer, pem::PemObject};
use serde_json::json;

use super::limits::without_effect;
use crate::cli::{
    failure::Failure,
    output::{complain, print_while_read, tell},
};
use crate::{
    cli::{
        option::{count, moment, number},
        sandbox_state,
        unused::tell_if_unused,
    },
    config::Config,
    files,
    policy::{Allow, Client, CreditLimit, Rate, SpendLimit},
    signer::keystore::Keystore,
    store::Clients,
    types::{CertificateHash, ClientId, ClientName, ClientToken, Credential},
};

/// Add a client, and print its token
///
/// The token is printed once, and nothing else on standard output: only its hash is kept. With --uid or
/// --certificate, the client is known by that instead. A name that was revoked may be added again, as
/// for a new token: the client then has the reservations that it had.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  agentpmt-proxy client add ci --allow jobs --rate 10/s \
                        --max-reservations 3 --expires 30d\n  \
                        TOKEN=$(agentpmt-proxy client add bot --allow jobs)\n  \
                        agentpmt-proxy client add board --allow read --uid 1001")]
pub(in crate::cli) struct Add {
    /// The client's name, as the journal shows it: 1 to 64 of A-Z a-z 0-9 . _ -
    name: ClientName,
    /// Calls that it may make, with commas between: jobs, tools or workflows (every call about them),
    /// read (every call that changes nothing), all (every call), or names of actions such as
    /// job_list,job_status
    #[arg(long, value_name = "all|read|jobs|tools|workflows|ACTION,…")]
    allow: Option<Allow>,
    /// The one wallet it may use; without it, any
    #[arg(long, value_name = "ADDRESS")]
    wallet: Option<String>,
    /// How often it may call: 10/s, 600/m, 5/h or 100/d, and so many at once after a pause
    #[arg(long, value_name = "COUNT/PERIOD")]
    rate: Option<Rate>,
    /// How many jobs it may hold at a time
    #[arg(long, value_name = "COUNT", value_parser = count)]
    max_reservations: Option<u32>,
    /// How many credits it may spend in 24 hours or 30 days: 500/day or 5000/month
    #[arg(long, value_name = "CREDITS/PERIOD", allow_hyphen_values = true)]
    max_credits: Option<CreditLimit>,
    /// How much it may have the proxy pay in 24 hours or 30 days, in the token's unit: 5/day or 50/month
    #[arg(long, value_name = "AMOUNT/PERIOD", allow_hyphen_values = true)]
    spend: Option<SpendLimit>,
    /// When its access ends: in 30d, or at a time such as 2027-01-31T00:00:00Z
    #[arg(long, value_name = "TIME", value_parser = expiry)]
    expires: Option<Timestamp>,
    /// Let it act on the reservations of other clients, reload the configuration, freeze and thaw
    #[arg(long)]
    admin: bool,
    /// Recognise it by its user id, at the proxy's unix socket, instead of a token
    #[arg(long, value_name = "UID", value_parser = number, conflicts_with = "certificate")]
    uid: Option<u32>,
    /// Recognise it by this TLS certificate, a PEM file, instead of a token
    #[arg(long, value_name = "FILE")]
    certificate: Option<PathBuf>,
    /// Print JSON: its name, its token if it has one, and whether it is the first client
    #[arg(long)]
    json: bool,
}

/// The credential of the new client, and how the command shows it.
struct NewCredential {
    credential: Credential,
    token: Option<ClientToken>,
    /// The sentence for standard error that explains the credential.
    text: String,
}

impl Add {
    pub(super) fn run(self, config: &Config) -> Result<(), Failure> {
        let NewCredential { credential, token, text } = self.known_by()?;
        if token.is_some() && is_thrown_away() {
            return Err(not_shown(io::Error::other("it is closed, or /dev/null")));
        }
        let json = self.json;
        let client = self.client(config)?;
        for warning in without_effect(&client, &config.spending) {
            complain(format_args!("warning: {warning}"));
        }
        let mut clients = Clients::create(&config.database())?;
        let first = clients.add(&client, &credential, Timestamp::now())?;
        if let Some(wallet) = client.wallet
            && let Err(error) = Keystore::new(&config.keys).find(Some(wallet))
            && sandbox_state::keystore(config).find(Some(wallet)).is_err()
        {
            complain(format_args!(
                "warning: {} has no wallet that it may use: {error}",
                client.name
            ));
        }
        let token = token.as_ref().map(ClientToken::expose);
        let name = client.name.as_str();
        let shown = match (json, token) {
            (true, _) => format!("{}\n", json!({"name": name, "token": token, "first": first})),
            (false, Some(token)) => format!("{token}\n"),
            (false, None) => String::new(),
        };
        let is_shown = print_while_read(&shown).and_then(|is_read| match is_read {
            false if token.is_some() => Err(not_shown(ErrorKind::BrokenPipe.into())),
            _ => Ok(()),
        });
        if let Err(failure) = is_shown {
            take_back(&mut clients, &client.name);
            return Err(failure);
        }
        if json {
            return tell_if_unused(config);
        }
        tell(&text);
        if first {
            tell("It is the first client: from now on every caller has to be one.\n");
        }
        tell_if_unused(config)
    }

    fn client(self, config: &Config) -> Result<Client, Failure> {
        Ok(Client {
            // It gets its own as it is added.
            id: ClientId::LOCAL,
            name: self.name,
            allow: self.allow.ok_or(Failure::NoAllow)?,
            // `--wallet` is also the global option, so its checked value is in `config`. A wallet that is
            // only configured does not bind the client.
            wallet: config.wallet.filter(|_| self.wallet.is_some()),
            rate: self.rate,
            max_reservations: self.max_reservations,
            max_credits: self.max_credits,
            spend: self.spend,
            admin: self.admin,
            expires: self.expires,
        })
    }

    fn known_by(&self) -> Result<NewCredential, Failure> {
        let name = &self.name;
        if let Some(uid) = self.uid {
            let text = format!("{name} is every caller with the user id {uid}.\n");
            return Ok(NewCredential { credential: Credential::Uid(uid), token: None, text });
        }
        if let Some(path) = &self.certificate {
            let text = format!("{name} is every caller with the certificate {}.\n", path.display());
            let credential = Credential::Certificate(certificate(path)?);
            return Ok(NewCredential { credential, token: None, text });
        }
        let token = ClientToken::random();
        let text = format!(
            "This is the token of {name}. It is not shown again. {name} sends it with every call, \
             in the header\nAuthorization: Bearer TOKEN\n"
        );
        Ok(NewCredential { credential: Credential::Token(token.hash()), token: Some(token), text })
    }
}

/// Whether what is printed is lost. A standard output that is closed is `/dev/null` by now.
fn is_thrown_away() -> bool {
    let out = stdout().as_fd().try_clone_to_owned().map(File::from);
    let device = out.and_then(|out| out.metadata()).map(|out| out.rdev());
    let null = fs::metadata("/dev/null").map(|null| null.rdev());
    matches!((device, null), (Ok(device), Ok(null)) if device == null)
}

fn not_shown(cause: io::Error) -> Failure {
    let doing = "add the client without showing its token on";
    Failure::Io { doing, path: "standard output".into(), cause }
}

/// Removes a client whose token is lost.
fn take_back(clients: &mut Clients, name: &ClientName) {
    let taken = clients.revoke(name, Timestamp::now()).and_then(|()| clients.remove(name));
    complain(match taken {
        Ok(_) => format!("{name} is removed again, since its token is lost"),
        Err(error) => {
            format!("the token of {name} is lost, so revoke it: client revoke {name} ({error})")
        }
    });
}

/// The hash of the first certificate of a PEM file, which is the end entity's.
fn certificate(path: &Path) -> Result<CertificateHash, Failure> {
    let io = |cause| Failure::Io { doing: "read the certificate", path: path.to_owned(), cause };
    let pem = files::read(path).map_err(io)?;
    let certificate = CertificateDer::from_pem_slice(&pem);
    let certificate = certificate.map_err(|_| Failure::NoCertificate(path.to_owned()))?;
    Ok(CertificateHash::of(&certificate))
}

fn expiry(text: &str) -> Result<Timestamp, &'static str> {
    let end = moment(text, |now, span| now.checked_add(span));
    end.filter(|end| *end > Timestamp::now()).ok_or(
        "expected a length of time such as 30d, or a time that is to come, such as \
         2027-01-31T00:00:00Z",
    )
}
