//! Listening on what the configuration names, before anything else is done.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener},
    os::unix::net::UnixListener,
    path::Path,
};

use jiff::Timestamp;
use listenfd::ListenFd;
use rustix::io::Errno;

use super::failure::Failure;
use crate::{
    config::{ClientsAre, Config, ListenAddress},
    http::{self, SocketFile},
    store::{ClientRecord, Clients},
};

/// Every socket that is listened on, ready for the runtime to take over.
pub(super) struct Listening {
    sockets: Vec<Socket>,
    /// Where they are: with the port that the system chose, and one for each that systemd passed.
    addresses: Vec<ListenAddress>,
}

/// How many free ports are tried until one is free on both loopback addresses.
const TRIES: usize = 16;

enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener, Option<SocketFile>),
}

impl Listening {
    /// Has to be called before there is a runtime: what systemd passed is taken out of the
    /// environment.
    pub(super) fn bind(config: &Config) -> Result<Self, Failure> {
        let mut sockets = Vec::new();
        for address in &config.listen {
            match address {
                ListenAddress::Tcp(address) => sockets.push(Socket::Tcp(bind(*address)?)),
                ListenAddress::Localhost(port) => {
                    sockets.extend(bind_loopback(*port)?.into_iter().map(Socket::Tcp));
                }
                ListenAddress::Unix(path) => {
                    let (listener, file) = SocketFile::bind(path, &config.socket)?;
                    sockets.push(Socket::Unix(listener, Some(file)));
                }
                ListenAddress::Systemd => sockets.extend(passed()?),
            }
        }
        let addresses: io::Result<Vec<_>> = sockets.iter().map(Socket::address).collect();
        let addresses = addresses.map_err(Failure::Runtime)?;
        let exposed = addresses.iter().find(|address| address.is_exposed());
        match exposed.filter(|_| !config.is_covered()) {
            // The configuration does not know what systemd passes.
            Some(address) => Err(Failure::Exposed(address.clone())),
            None => Ok(Self { sockets, addresses }),
        }
    }

    pub(super) fn addresses(&self) -> &[ListenAddress] {
        &self.addresses
    }

    /// Gives the sockets to the runtime. Has to be called within it.
    pub(super) fn hand_over(self) -> Result<Vec<http::Listener>, Failure> {
        let listener = |socket| match socket {
            Socket::Tcp(listener) => http::Listener::tcp(listener),
            Socket::Unix(listener, file) => http::Listener::unix(listener, file),
        };
        let listeners: io::Result<_> = self.sockets.into_iter().map(listener).collect();
        listeners.map_err(Failure::Runtime)
    }
}

impl Socket {
    fn address(&self) -> io::Result<ListenAddress> {
        Ok(match self {
            Self::Tcp(listener) => ListenAddress::Tcp(listener.local_addr()?),
            Self::Unix(listener, None) => {
                let address = listener.local_addr()?;
                ListenAddress::Unix(address.as_pathname().unwrap_or("?".as_ref()).to_owned())
            }
            // It was put there after it had begun to listen.
            Self::Unix(_, Some(file)) => ListenAddress::Unix(file.path().to_owned()),
        })
    }
}

/// A place as people write it: a URL, or `unix:PATH`.
pub(super) fn describe(address: &ListenAddress, config: &Config) -> String {
    match address {
        ListenAddress::Tcp(_) | ListenAddress::Localhost(_) => {
            format!("{}://{address}", scheme(config))
        }
        _ => address.to_string(),
    }
}

/// The protocol of the ports.
pub(super) fn scheme(config: &Config) -> &'static str {
    if config.tls.certificate.is_some() { "https" } else { "http" }
}

/// Fails if no client is known, while calls may come from other machines or clients are required.
pub(super) fn require_client(config: &Config, addresses: &[ListenAddress]) -> Result<(), Failure> {
    let exposed = addresses.iter().find(|address| address.is_exposed());
    let why = match exposed {
        Some(address) => format!("{address} is reached from other machines"),
        None if config.behind_tls_proxy => {
            "the proxy in front (behind_tls_proxy) is reached from other machines".to_owned()
        }
        None if config.clients == ClientsAre::Required => {
            "clients are required (clients = \"required\")".to_owned()
        }
        None => return Ok(()),
    };
    let database = config.database();
    if clients(&database)?.is_empty() { Err(Failure::NoClient { why, database }) } else { Ok(()) }
}

/// The line of `serve` and `check` that says who may call, and whether no client was added yet, so that
/// every program may.
pub(super) fn callers(
    config: &Config,
    addresses: &[ListenAddress],
) -> Result<(String, bool), Failure> {
    let clients = clients(&config.database())?;
    let now = Timestamp::now();
    let may_call = |record: &&ClientRecord| {
        record.revoked.is_none() && record.client.expires.is_none_or(|end| end > now)
    };
    let sockets_only = addresses.iter().all(|address| matches!(address, ListenAddress::Unix(_)));
    let text = match clients.iter().filter(may_call).count() {
        _ if clients.is_empty() && sockets_only => "every program of this user".to_owned(),
        _ if clients.is_empty() => "every program on this machine".to_owned(),
        0 => "none: every client is revoked or expired".to_owned(),
        1 => "1 client".to_owned(),
        count => format!("{count} clients"),
    };
    Ok((text, clients.is_empty()))
}

/// The clients of a database; one that is not there has none.
fn clients(database: &Path) -> Result<Vec<ClientRecord>, Failure> {
    match Clients::open(database) {
        Ok(clients) => Ok(clients.list()?),
        Err(error) if error.is_missing() => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Listens on a port of both loopback addresses, or of that which this machine has.
fn bind_loopback(port: u16) -> Result<Vec<TcpListener>, Failure> {
    let mut tries = 1..TRIES;
    loop {
        let first = bind((Ipv4Addr::LOCALHOST, port).into());
        let chosen = first.as_ref().ok().and_then(|listener| listener.local_addr().ok());
        let chosen = chosen.map_or(port, |address| address.port());
        let second = bind((Ipv6Addr::LOCALHOST, chosen).into());
        match (first, second) {
            (Ok(first), Ok(second)) => return Ok(vec![first, second]),
            (Ok(only), Err(error)) | (Err(error), Ok(only)) if is_missing(&error) => {
                return Ok(vec![only]);
            }
            (Ok(_), Err(_)) if port == 0 && tries.next().is_some() => {}
            (Err(error), _) | (_, Err(error)) => return Err(error),
        }
    }
}

/// Whether there is no such address on this machine, as without IPv6.
fn is_missing(error: &Failure) -> bool {
    let Failure::Listen { cause, .. } = error else { return false };
    cause.kind() == io::ErrorKind::AddrNotAvailable
        || cause.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

/// Listens on a port.
pub(super) fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|cause| Failure::Listen { address, cause })
}

/// Where a port is.
pub(super) fn local_address(listener: &TcpListener) -> Result<SocketAddr, Failure> {
    listener.local_addr().map_err(Failure::Runtime)
}

/// Gives a port to the runtime.
pub(super) fn hand_over(listener: TcpListener) -> Result<tokio::net::TcpListener, Failure> {
    let given = listener.set_nonblocking(true);
    let given = given.and_then(|()| tokio::net::TcpListener::from_std(listener));
    given.map_err(Failure::Runtime)
}

/// Every socket that systemd passes, as `sd_listen_fds(3)` has it.
fn passed() -> Result<Vec<Socket>, Failure> {
    let mut passed = ListenFd::from_env();
    let mut sockets = Vec::new();
    for index in 0..passed.len() {
        if let Ok(Some(listener)) = passed.take_tcp_listener(index) {
            sockets.push(Socket::Tcp(listener));
        } else if let Some(listener) = passed.take_unix_listener(index).map_err(Failure::Passed)? {
            sockets.push(Socket::Unix(listener, None));
        }
    }
    if sockets.is_empty() { Err(Failure::NonePassed) } else { Ok(sockets) }
}
