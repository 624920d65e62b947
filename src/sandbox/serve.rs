//! Serving with connections that can be cut: a router under `axum::serve` can only answer.

use std::convert::Infallible;

use axum::{
    Router,
    response::{IntoResponse, Response},
    serve::Listener,
};
use hyper::{
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinSet,
};

/// Serves for ever. All connections are closed when the future is dropped.
pub(super) async fn serve(mut listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            (stream, _) = Listener::accept(&mut listener) => {
                connections.spawn(serve_connection(stream, router.clone()));
            }
            // Takes away what is over.
            Some(_) = connections.join_next() => {}
        }
    }
}

/// In place of an answer: the connection is closed, and nothing is written to it any more.
pub(super) fn cut() -> Response {
    let mut response = ().into_response();
    response.extensions_mut().insert(Cut);
    response
}

#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the connection was to be cut")]
struct Cut;

async fn serve_connection(stream: TcpStream, router: Router) {
    let router = TowerToHyperService::new(router);
    // An error of the service makes the server drop the connection as it is.
    let service = service_fn(move |request| {
        let answer = router.call(request);
        async move {
            let Ok::<_, Infallible>(answer) = answer.await;
            answer.extensions().get().map_or(Ok(()), |cut: &Cut| Err(*cut)).map(|()| answer)
        }
    });
    // It fails when it is cut and when the client goes away: both are expected.
    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}
