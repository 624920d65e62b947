//! An upstream whose certificate does not fit, before the real program.

use std::{net::SocketAddr, sync::Arc};

use agentpmt_proxy::{
    sandbox::{Sandbox, Settings},
    store::Journal,
};
use futures_util::future::join_all;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use serde_json::Value;
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::spawn_blocking,
};
use tokio_rustls::TlsAcceptor;

use crate::{
    binary::{Home, PASSWORD},
    common::serve_sandbox,
};

type Issuer = CertifiedIssuer<'static, KeyPair>;

/// Somebody who may vouch for others.
fn issuer() -> Issuer {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What an upstream shows, for this name and with something about it changed.
fn certificate(
    issuer: Option<&Issuer>,
    name: &str,
    change: impl FnOnce(&mut CertificateParams),
) -> ServerConfig {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    let certificate = match issuer {
        Some(issuer) => params.signed_by(&key, issuer),
        None => params.self_signed(&key),
    };
    let chain = vec![CertificateDer::from(certificate.unwrap().der().to_vec())];
    let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
    let _ = rustls::crypto::ring::default_provider().install_default();
    ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key).unwrap()
}

/// Ends TLS in front of a sandbox.
async fn serve_tls(sandbox: &Sandbox, config: ServerConfig) -> SocketAddr {
    let behind = serve_sandbox(sandbox).await;
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut behind = TcpStream::connect(behind).await.unwrap();
                let _ = copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    address
}

/// What the program says to a call before this upstream, if it trusts `root` and nobody else; and how
/// many records there are then, and how many requests arrived.
async fn call(root: &Issuer, config: ServerConfig) -> (u16, Value, u64, u64) {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_tls(&sandbox, config).await;
    let home = Home::with_wallet().with_password(PASSWORD);
    home.write("roots.pem", &root.pem());
    let roots = home.path("roots.pem");
    let home = home.with("SSL_CERT_FILE", roots.to_str().unwrap());
    // It would try again for as long as it has.
    let home = home.with("AGENTPMT_PROXY_UPSTREAM__TIMEOUT", "6s");
    let asked = spawn_blocking(move || {
        let server = home.serve(&["serve", "--upstream", &format!("https://{upstream}")]);
        let (status, body) = server.request("POST", "/api/external/jobs/list");
        server.signal("TERM");
        let records =
            Journal::open(&home.path("state/proxy.db")).unwrap().verify().unwrap().records;
        (status, serde_json::from_str(&body).unwrap(), records)
    });
    let (status, body, records) = asked.await.unwrap();
    (status, body, records, sandbox.counts().requests)
}

#[tokio::test]
async fn an_upstream_whose_certificate_does_not_fit_gets_nothing() {
    let (root, other) = (issuer(), issuer());
    let own = "127.0.0.1";
    let server_auth = |_: &mut CertificateParams| {};
    let rows = [
        ("another name", certificate(Some(&root), "www.example", server_auth)),
        ("another address", certificate(Some(&root), "127.0.0.2", server_auth)),
        ("its own word", certificate(None, own, server_auth)),
        ("the word of a stranger", certificate(Some(&other), own, server_auth)),
        (
            "over",
            certificate(Some(&root), own, |params| params.not_after = date_time_ymd(2001, 1, 1)),
        ),
        (
            "still to begin",
            certificate(Some(&root), own, |params| params.not_before = date_time_ymd(2990, 1, 1)),
        ),
        (
            "that of a client",
            certificate(Some(&root), own, |params| {
                params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
            }),
        ),
    ];
    let calls = rows.map(async |(trick, config)| (trick, call(&root, config).await));
    for (trick, (status, body, records, requests)) in join_all(calls).await {
        assert_eq!((status, records, requests), (502, 0, 0), "{trick}: {body}");
        let expected = (&"upstream_unreachable".into(), &"safe".into());
        assert_eq!((&body["code"], &body["retry"]), expected, "{trick}");
        let detail = body["detail"].as_str().unwrap();
        assert!(detail.contains("certificate"), "{trick}: {detail}");
    }
}

#[tokio::test]
async fn an_upstream_whose_certificate_fits_is_called() {
    let root = issuer();
    let (status, body, records, requests) =
        call(&root, certificate(Some(&root), "127.0.0.1", |_| {})).await;
    assert_eq!((status, records, requests), (200, 2, 2), "{body}");
}
