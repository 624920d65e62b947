//! TLS on the ports: what it is set up from, and the handshake.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    RootCertStore, ServerConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{WebPkiClientVerifier, danger::ClientCertVerifier},
};
use sha2::{Digest, Sha256};
use tokio::{
    io::{AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};
use zeroize::Zeroizing;

use crate::{
    config::TlsConfig,
    files::{self, Exposed},
};

/// The answer to plain HTTP on a port with TLS.
const PLAIN: &str = "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\ncontent-length: 66\r\n\
                     connection: close\r\n\r\n\
                     This port speaks TLS: use https:// instead of http:// to reach it\n";

/// A certificate with its key, and what certificates of clients are checked against.
#[derive(Clone)]
pub struct Tls(TlsAcceptor);

/// Why TLS cannot be set up. Each text names the file and says what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The operating system refused.
    #[error("cannot read {path}: {cause}; check the path and its permissions")]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        cause: io::Error,
    },
    /// Another user of the machine may read or change the private key, or change a certificate.
    #[error(transparent)]
    Exposed(#[from] Exposed),
    /// A file of certificates holds none.
    #[error("{0} holds no certificate in PEM; one begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate(PathBuf),
    /// The file of the key holds none that can be used.
    #[error(
        "{0} holds no unencrypted private key in PEM; one begins with \
         -----BEGIN PRIVATE KEY-----"
    )]
    NoKey(PathBuf),
    /// The certificate and the key cannot be used together.
    #[error("{certificate} cannot be used with {key}: {cause}; name a certificate and its own key")]
    Pair {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
        /// The error of the library.
        cause: rustls::Error,
    },
    /// Certificates of clients cannot be checked.
    #[error("{path} cannot be used to check certificates of clients: {cause}")]
    ClientCa {
        /// The file.
        path: PathBuf,
        /// The error of the library.
        cause: String,
    },
}

impl Tls {
    /// Reads what the configuration names; `None` if that is nothing.
    ///
    /// # Errors
    /// If a file cannot be read or used, or others may read the key.
    pub fn load(config: &TlsConfig) -> Result<Option<Self>, TlsError> {
        let (Some(certificate), Some(key)) = (&config.certificate, &config.key) else {
            return Ok(None);
        };
        let provider = Arc::new(ring::default_provider());
        let verifier = match &config.client_ca {
            Some(path) => client_verifier(path, &provider)?,
            None => WebPkiClientVerifier::no_client_auth(),
        };
        let pair =
            |cause| TlsError::Pair { certificate: certificate.clone(), key: key.clone(), cause };
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(pair)?
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates(certificate)?, private_key(key)?)
            .map_err(pair)?;
        server.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Some(Self(Arc::new(server).into())))
    }

    /// Shakes hands, and tells the SHA-256 of the certificate that the client showed.
    pub(super) async fn accept(
        &self,
        stream: TcpStream,
    ) -> io::Result<(TlsStream<TcpStream>, Option<[u8; 32]>)> {
        let stream = self.0.accept(stream).await?;
        let shown = stream.get_ref().1.peer_certificates().and_then(|chain| chain.first());
        let certificate = shown.map(|certificate| Sha256::digest(certificate).into());
        Ok((stream, certificate))
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Tls(..)")
    }
}

/// Whether the first byte of a connection is that of an HTTP method; TLS begins with 22.
pub(super) fn is_plain(first: u8) -> bool {
    first.is_ascii_alphabetic()
}

/// Answers plain HTTP, whatever it asks for.
pub(super) async fn refuse_plain(stream: &mut (impl AsyncWrite + Unpin)) -> io::Result<()> {
    stream.write_all(PLAIN.as_bytes()).await?;
    stream.shutdown().await
}

/// Certificates of clients are asked for, and not needed; one that is shown must be good.
fn client_verifier(
    path: &Path,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let failed = |cause: String| TlsError::ClientCa { path: path.to_owned(), cause };
    let mut roots = RootCertStore::empty();
    for certificate in certificates(path)? {
        roots.add(certificate).map_err(|error| failed(error.to_string()))?;
    }
    WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .allow_unauthenticated()
        .build()
        .map_err(|error| failed(error.to_string()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let file = files::open(path).map_err(io_error(path))?;
    files::check_unchangeable(path, &file.metadata().map_err(io_error(path))?)?;
    let mut pem = Vec::new();
    files::read_whole(&file, &mut pem).map_err(io_error(path))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.ok().filter(|found| !found.is_empty());
    found.ok_or_else(|| TlsError::NoCertificate(path.to_owned()))
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let file = files::open(path).map_err(io_error(path))?;
    files::check_secret(path, &file.metadata().map_err(io_error(path))?)?;
    let mut pem = Zeroizing::new(Vec::new());
    files::read_whole(&file, &mut pem).map_err(io_error(path))?;
    PrivateKeyDer::from_pem_slice(&pem).map_err(|_| TlsError::NoKey(path.to_owned()))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> TlsError {
    move |cause| TlsError::Io { path: path.to_owned(), cause }
}
