//! TLS on the ports: the handshake, certificates of clients, and renewal while the program runs.

use std::{
    fs::{self, Permissions},
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::Command,
    time::Duration,
};

use agentpmt_proxy::{
    config::TlsConfig,
    http::{self, Guard, Limits, Listener, Live, Peer, Tls, Workers},
};
use axum::{Extension, Router, routing::get};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Client, ClientBuilder, Identity};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use crate::{
    binary::{Home, PASSWORD, Server, WALLET, until},
    common::{self, instance},
};

/// So that a test fails instead of hanging.
const LONG: Duration = Duration::from_secs(60);

/// A certificate for 127.0.0.1 that vouches for itself, and its key, in PEM.
fn self_signed() -> (String, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    (made.cert.pem(), made.signing_key.serialize_pem())
}

/// A folder to run in, with a certificate that is configured; and the certificate.
fn home() -> (Home, String) {
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write(
        "proxy.toml",
        "[tls]\ncertificate = 'tls.crt'\nkey = 'tls.key'\n[log]\nlevel = 'debug'",
    );
    let certificate = renew(&home);
    (home, certificate)
}

/// Writes a new certificate and its key.
fn renew(home: &Home) -> String {
    let (certificate, key) = self_signed();
    home.write("tls.crt", &certificate);
    home.write("tls.key", &key);
    certificate
}

/// A client that trusts this certificate alone, with more to choose.
fn trusting(certificate: &str) -> ClientBuilder {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let certificate = Certificate::from_pem(certificate.as_bytes()).unwrap();
    Client::builder().no_proxy().tls_certs_only([certificate])
}

async fn get_json(client: &Client, server: &Server, path: &str) -> Value {
    common::json(client.get(format!("{}{path}", server.place)).send().await.unwrap()).await
}

#[tokio::test]
async fn ports_speak_tls_and_unix_sockets_do_not() {
    let (home, certificate) = home();
    let mut server =
        home.serve_where_told(&["serve", "--listen", "127.0.0.1:0", "--listen", "unix:p.sock"]);
    assert_eq!(server.place, format!("https://{}", server.address));
    assert_eq!(server.line(), "  also on   unix:p.sock");
    let client = trusting(&certificate).build().unwrap();
    assert_eq!(get_json(&client, &server, "/proxy/status").await["wallet"], WALLET);
    let other = trusting(&self_signed().0).build().unwrap();
    assert!(other.get(format!("{}/readyz", server.place)).send().await.is_err());
    home.run(&["wait", "--listen", "unix:p.sock"]).ok();
    home.run(&["wait", "--listen", &server.address.to_string()]).ok();
}

#[test]
fn plain_http_on_a_port_with_tls_is_told_so_and_noted() {
    let (home, _) = home();
    let server = home.serve(&["serve"]);
    let mut plain = TcpStream::connect(server.address).unwrap();
    plain.set_read_timeout(Some(LONG)).unwrap();
    plain.write_all(b"POST /readyz HTTP/1.1\r\nhost: p\r\ncontent-length: 9\r\n\r\n").unwrap();
    let mut answer = String::new();
    plain.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 400 "), "{answer}");
    assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{answer}");
    assert!(body.contains("speaks TLS") && body.contains("https://"), "{answer}");
    drop(plain);
    // It is noted after the connection is closed.
    let notes = || server.log().lines().filter(|line| line.contains("plain HTTP")).count();
    until(|| notes() > 0);
    assert_eq!(notes(), 1, "{}", server.log());
}

#[tokio::test]
async fn a_renewed_certificate_is_shown_after_a_signal_and_old_connections_live_on() {
    let (home, old) = home();
    let server = home.serve(&["serve"]);
    let client = trusting(&old).build().unwrap();
    get_json(&client, &server, "/healthz").await;
    let new = renew(&home);
    let hang_up = format!("kill -HUP {}", server.id());
    assert!(Command::new("sh").args(["-c", &hang_up]).status().unwrap().success());
    // It could not connect anew: it does not trust the new certificate.
    let reloaded = async {
        while get_json(&client, &server, "/proxy/status").await["last_reload"]["ok"] != true {}
    };
    timeout(LONG, reloaded).await.unwrap();
    let fresh = trusting(&old).build().unwrap();
    assert!(fresh.get(format!("{}/healthz", server.place)).send().await.is_err());
    let fresh = trusting(&new).build().unwrap();
    get_json(&fresh, &server, "/healthz").await;
}

#[tokio::test]
async fn with_a_broken_certificate_a_reload_changes_nothing_and_says_so() {
    let (home, certificate) = home();
    let server = home.serve(&["serve"]);
    let client = trusting(&certificate).build().unwrap();
    home.write("tls.crt", "-----BEGIN CERTIFICATE-----\nmilk\n-----END CERTIFICATE-----\n");
    let refused = client.post(format!("{}/proxy/reload", server.place)).send().await.unwrap();
    let problem = common::problem(refused).await;
    assert_eq!(problem["code"], "reload_refused");
    let fresh = trusting(&certificate).build().unwrap();
    let last = get_json(&fresh, &server, "/proxy/status").await["last_reload"].clone();
    assert_eq!(last["ok"], false);
    let words = "tls.crt cannot be used with";
    for text in [&problem["detail"], &last["mistakes"]] {
        assert!(text.as_str().unwrap().contains(words), "{text}");
    }
    server.logs(words);
}

#[test]
fn certificates_that_cannot_be_used_are_told_at_the_start() {
    let (home, _) = home();
    let serve = ["serve", "--listen", "127.0.0.1:0"];
    for command in [&serve[..], &["check"]] {
        renew(&home);
        home.set_mode("tls.crt", 0o646);
        home.run(command).fails(77, &["tls.crt may be changed", "mode 646", "chmod go-w "]);
        renew(&home);
        home.set_mode("tls.key", 0o640);
        home.run(command).fails(77, &["tls.key is open", "mode 640", "chmod 600 "]);
        home.write("tls.key", &self_signed().1);
        home.run(command).fails(65, &["tls.crt cannot be used with", "tls.key", "its own key"]);
        home.write("tls.key", "milk");
        home.run(command).fails(65, &["tls.key holds no unencrypted private key"]);
        home.write("tls.crt", "");
        home.run(command).fails(65, &["tls.crt holds no certificate"]);
        fs::remove_file(home.path("tls.crt")).unwrap();
        home.run(command).fails(66, &["cannot read", "tls.crt"]);
    }
}

#[test]
fn check_says_that_ports_speak_tls() {
    let (home, _) = home();
    let checked = home.run(&["check", "--json"]).json();
    assert_eq!(checked["listen"], "https://localhost:8402");
}

#[test]
fn with_tls_other_machines_still_need_a_client() {
    let (home, _) = home();
    let ran = home.run(&["serve", "--listen", "0.0.0.0:0"]);
    ran.fails(78, &["0.0.0.0:", "no client", "agentpmt-proxy client add NAME --allow jobs"]);
}

/// Who can show a certificate to whom.
struct Vouched {
    folder: TempDir,
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Vouched {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = self_signed();
        for (name, text) in [("crt", &certificate), ("key", &key)] {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
        }
        let issuer = issuer();
        fs::write(folder.path().join("ca"), issuer.pem()).unwrap();
        Self { folder, issuer }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A client that trusts the server.
    fn client(&self) -> ClientBuilder {
        trusting(&fs::read_to_string(self.path("crt")).unwrap())
    }

    /// Serves what it sees of its peer: whether it is local, and its certificate in hex.
    async fn serve(&self, limits: Limits) -> SocketAddr {
        let [certificate, key, client_ca] = ["crt", "key", "ca"].map(|name| Some(self.path(name)));
        let tls = Tls::load(&TlsConfig { certificate, key, client_ca }).unwrap();
        let see = |Extension(peer): Extension<Peer>| async move {
            format!("{} {:?}", peer.is_local(), peer.certificate.map(hex::encode))
        };
        let router = Router::new().route("/", get(see));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (listeners, stop) = (vec![Listener::Tcp(listener)], CancellationToken::new());
        let instance = instance(Live::new(tls, Guard::default()));
        tokio::spawn(http::serve(listeners, router, limits, instance, Workers::current(), stop));
        address
    }
}

fn issuer() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate from this issuer with its key, and its SHA-256 in hex.
fn identity(issuer: &CertifiedIssuer<'static, KeyPair>) -> (Identity, String) {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(["agent".to_owned()]).unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let pem = certificate.pem() + &key.serialize_pem();
    (Identity::from_pem(pem.as_bytes()).unwrap(), hex::encode(Sha256::digest(certificate.der())))
}

#[tokio::test]
async fn a_certificate_of_a_client_is_asked_for_checked_and_not_needed() {
    let vouched = Vouched::new();
    let address = vouched.serve(Limits::default()).await;
    let url = format!("https://{address}/");
    let seen =
        async |client: ClientBuilder| client.build().unwrap().get(&url).send().await?.text().await;
    assert_eq!(seen(vouched.client()).await.unwrap(), "true None");
    let (good, fingerprint) = identity(&vouched.issuer);
    let expected = format!("true Some({fingerprint:?})");
    assert_eq!(seen(vouched.client().identity(good)).await.unwrap(), expected);
    let (unknown, _) = identity(&issuer());
    assert!(seen(vouched.client().identity(unknown)).await.is_err());
}

#[tokio::test]
async fn a_handshake_has_the_time_of_a_head() {
    let vouched = Vouched::new();
    let limits = Limits { head: Duration::from_millis(50), ..Limits::default() };
    let address = vouched.serve(limits).await;
    let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
    // The first bytes of a good handshake, and no more.
    stream.write_all(&[22, 3, 1, 2, 0]).await.unwrap();
    let mut answer = Vec::new();
    timeout(LONG, stream.read_to_end(&mut answer)).await.unwrap().unwrap();
    assert!(answer.is_empty(), "{answer:?}");
}
