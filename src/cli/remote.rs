//! A running proxy, as its clients reach it.

use std::{
    env,
    fmt::Display,
    fs,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::PathBuf,
};

use bytes::Bytes;
use http::{Method, Request, Response, request::Parts};
use reqwest::{Certificate, Client, RequestBuilder};

use super::{config_args::ConfigArgs, failure::Failure, listen};
use crate::{
    config::{Config, ListenAddress, UpstreamUrl},
    mcp::Door,
    types::ClientToken,
};

/// The variable that holds the token of the client.
pub(super) const TOKEN: &str = "AGENTPMT_PROXY_TOKEN";

/// The scheme of an address that is the path of a unix socket.
const UNIX: &str = "unix:";

/// Where a proxy is reached.
#[derive(Debug, Clone)]
pub(super) struct ProxyPlace {
    socket: Option<PathBuf>,
    /// Scheme, host and port.
    base: String,
    /// The certificate that the proxy itself shows.
    certificate: Option<PathBuf>,
}

impl ProxyPlace {
    /// The place with this name, or else that of the configuration, where a unix socket goes first: it tells
    /// the proxy which user asks.
    pub(super) fn new(url: Option<&str>, settings: &ConfigArgs) -> Result<Self, Failure> {
        let socket = |path| Self {
            socket: Some(path),
            base: "http://localhost".to_owned(),
            certificate: None,
        };
        match url {
            Some(url) => match url.strip_prefix(UNIX) {
                Some(path) => Ok(socket(path.into())),
                None => {
                    let base: UpstreamUrl =
                        url.parse().map_err(|_| Failure::ProxyUrl(url.to_owned()))?;
                    Ok(Self { socket: None, base: base.to_string(), certificate: None })
                }
            },
            None => {
                let config = settings.load()?;
                let unix = config.listen.iter().find_map(|address| match address {
                    ListenAddress::Unix(path) => Some(path.clone()),
                    _ => None,
                });
                unix.map_or_else(|| Self::of_port(&config), |path| Ok(socket(path)))
            }
        }
    }

    fn of_port(config: &Config) -> Result<Self, Failure> {
        let address = config.listen.iter().find(|address| **address != ListenAddress::Systemd);
        let address = address.ok_or(Failure::NowhereToAsk)?;
        let base = base(address, listen::scheme(config));
        Ok(Self { socket: None, base, certificate: config.tls.certificate.clone() })
    }

    /// The URL, if other programs can reach it by one.
    pub(super) fn url(&self) -> Option<&str> {
        self.socket.is_none().then_some(self.base.as_str())
    }
}

/// As [`ProxyPlace::new`] takes it.
impl Display for ProxyPlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.socket {
            Some(path) => write!(f, "{UNIX}{}", path.display()),
            None => f.write_str(&self.base),
        }
    }
}

/// The URL of a place of this machine. A proxy that listens on every address is asked at loopback.
pub(super) fn base(address: &ListenAddress, scheme: &str) -> String {
    match address {
        ListenAddress::Tcp(address) => {
            let ip = match address.ip() {
                IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
                IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
                ip => ip,
            };
            format!("{scheme}://{}", SocketAddr::new(ip, address.port()))
        }
        ListenAddress::Localhost(port) => {
            format!("{scheme}://{}", SocketAddr::from((Ipv4Addr::LOCALHOST, *port)))
        }
        _ => "http://localhost".to_owned(),
    }
}

/// The proxy at a place, for the client that the token is of.
pub(super) struct Remote {
    place: ProxyPlace,
    client: Client,
    token: Option<ClientToken>,
}

impl Remote {
    pub(super) fn new(place: ProxyPlace) -> Result<Self, Failure> {
        // Without a provider the client panics, though it may speak no TLS here.
        let _ = rustls::crypto::ring::default_provider().install_default();
        // A proxy on this machine is spoken to directly.
        let mut client = Client::builder().no_proxy();
        if let Some(path) = &place.certificate {
            let io = |cause| Failure::Io { doing: "read", path: path.clone(), cause };
            let pem = fs::read(path).map_err(io)?;
            let own = Certificate::from_pem_bundle(&pem).map_err(Failure::NoClientOf)?;
            client = client.tls_certs_merge(own);
        }
        if let Some(path) = &place.socket {
            client = client.unix_socket(path.as_path());
        }
        let client = client.build().map_err(Failure::NoClientOf)?;
        let token = env::var(TOKEN).ok().filter(|token| !token.is_empty());
        let token = token.map(|token| token.parse()).transpose().map_err(Failure::Token)?;
        Ok(Self { place, client, token })
    }

    /// A GET of a path.
    pub(super) fn get(&self, path: &str) -> RequestBuilder {
        self.request(Method::GET, path)
    }

    fn request(&self, method: Method, path: impl Display) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.place.base));
        match &self.token {
            Some(token) => request.bearer_auth(token.expose()),
            None => request,
        }
    }

    pub(super) fn place(&self) -> &ProxyPlace {
        &self.place
    }

    async fn answer(&self, request: Request<Bytes>) -> reqwest::Result<Response<Bytes>> {
        let (parts, body) = request.into_parts();
        let request = self.request(parts.method, parts.uri).headers(parts.headers);
        let answer = request.body(body).send().await?;
        let (status, headers) = (answer.status(), answer.headers().clone());
        let mut response = Response::new(answer.bytes().await?);
        (*response.status_mut(), *response.headers_mut()) = (status, headers);
        Ok(response)
    }
}

impl Door for Remote {
    async fn send(
        &self,
        request: Request<Bytes>,
        _: Option<&Parts>,
    ) -> Result<Response<Bytes>, String> {
        let answer = self.answer(request).await;
        answer.map_err(|error| {
            let place = &self.place;
            let advice = match error.is_connect() {
                true => "nothing was sent: start it with agentpmt-proxy serve, then call again",
                false => "call again with the same arguments to ask for the answer",
            };
            format!("the proxy at {place} did not answer ({}); {advice}", error.without_url())
        })
    }
}
