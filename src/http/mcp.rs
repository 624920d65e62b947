//! `/mcp`: the Model Context Protocol over HTTP, without sessions or streams.

use std::sync::Arc;

use axum::{
    Router,
    body::{Body, Bytes},
    extract::{Request, State},
    http::{
        self, HeaderValue,
        header::{AUTHORIZATION, HOST},
        request::Parts,
    },
    response::Response,
};
use http_body_util::Full;
use rmcp::transport::streamable_http_server::{
    StreamableHttpServerConfig, StreamableHttpService, session::never::NeverSessionManager,
};
use tower::ServiceExt;

use super::{
    body::{self, MAX_BODY},
    header::REQUEST_ID,
    peer::Peer,
    surface::{Authenticated, Surface},
};
use crate::{
    body::read,
    mcp::{Door, Mcp},
    problem::Problem,
    trace::Trace,
};

/// The path.
pub(super) const PATH: &str = "/mcp";

/// The service, which makes calls through the proxy's other routes.
pub(super) type Service = StreamableHttpService<Mcp<Inside>, NeverSessionManager>;

pub(super) fn service(routes: Router) -> Service {
    let mcp = Mcp::new(Inside(routes));
    let config = StreamableHttpServerConfig::default()
        .with_legacy_session_mode(false)
        .with_json_response(true)
        // The guard knows which hosts are ours.
        .disable_allowed_hosts()
        .with_max_request_body_bytes(MAX_BODY);
    StreamableHttpService::new(move || Ok(mcp.clone()), Arc::default(), config)
}

/// Reads one message of a known client, and answers it. Its call is counted on its own path.
pub(super) async fn message(
    service: Service,
    State(surface): State<Arc<Surface>>,
    Authenticated(client): Authenticated,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let permit = surface.proxy.permit(&client).map_err(|failure| Problem::refused(&failure));
    let (permit, body) = body::read_if(permit, &parts, body, surface.body_time).await?;
    // The call takes one for itself.
    drop(permit);
    let request = http::Request::from_parts(parts, Full::new(body));
    let (parts, body) = service.handle(request).await.into_parts();
    let Ok(body) = read(body, usize::MAX).await else { unreachable!("it is in memory") };
    let body = Body::from(surface.instance.backlog().count(body));
    Ok(Response::from_parts(parts, body))
}

/// The proxy's routes, inside of this process.
pub(super) struct Inside(Router);

impl Door for Inside {
    async fn send(
        &self,
        request: http::Request<Bytes>,
        outer: Option<&Parts>,
    ) -> Result<http::Response<Bytes>, String> {
        let mut request = request.map(Body::from);
        if let Some(outer) = outer {
            let headers = request.headers_mut();
            for name in [HOST, AUTHORIZATION] {
                headers.extend(outer.headers.get(&name).map(|value| (name, value.clone())));
            }
            let id = outer.extensions.get().map(|trace: &Arc<Trace>| trace.call_id.as_str());
            let id = id.and_then(|id| HeaderValue::from_str(id).ok());
            headers.extend(id.map(|id| (REQUEST_ID, id)));
            let peer: Option<&Peer> = outer.extensions.get();
            peer.cloned().map(|peer| request.extensions_mut().insert(peer));
        }
        let Ok(answer) = self.0.clone().oneshot(request).await;
        let (parts, body) = answer.into_parts();
        let body = read(body, usize::MAX).await.map_err(|error| error.to_string())?;
        Ok(http::Response::from_parts(parts, body))
    }
}
