//! The local surface: the upstream's paths, unsigned, and the proxy's own.

mod backlog;
mod body;
mod connection_limiter;
mod connection_state;
mod header;
mod peer;
mod printable;
mod socket_file;
mod tls;
mod workers;

mod call_head;
mod evidence;
mod listener;
mod open_connections;
mod problem;
mod request_body;
mod wire;

mod guard;

mod instance;

mod server;
mod surface;

mod call;
mod events;
mod log;
mod mcp;
mod no_route;
mod own;
mod session;

mod docs;
mod next;
mod status;

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    handler::Handler,
    http::Method,
    middleware,
    routing::{self, MethodFilter, MethodRouter, on},
};

use self::surface::{Authenticated, Surface};
pub use self::{
    body::MAX_BODY,
    guard::Guard,
    instance::{Instance, Live},
    listener::Listener,
    peer::Peer,
    server::{Limits, serve},
    socket_file::{SocketError, SocketFile},
    tls::{Tls, TlsError},
    workers::Workers,
};
use crate::{
    action::{Action, SESSION_PATH},
    proxy::Proxy,
};

/// A method, the path that takes it, and its handler.
struct Route(Method, &'static str, MethodRouter<Arc<Surface>>);

/// The routes: one for each row of the proxy's table of calls, and its own.
pub fn router(proxy: Arc<Proxy>, limits: Limits, instance: Arc<Instance>) -> Router {
    let (get, post) = (Method::GET, Method::POST);
    let own = [
        Route::new(&post, SESSION_PATH, session::session),
        Route::new(&get, "/healthz", own::healthy),
        Route::new(&get, "/readyz", own::ready),
        Route::new(&post, "/proxy/jobs/next", next::next),
        Route::new(&get, "/proxy/reservations", own::reservations),
        Route::new(&post, "/proxy/reservations/{job_id}/release", own::release),
        Route::new(&get, "/proxy/status", own::status),
        Route::new(&get, "/proxy/events", events::events),
        Route::new(&post, "/proxy/reload", own::reload),
        Route::new(&get, "/proxy/approvals/{id}", own::approval),
        Route::new(&post, "/proxy/freeze", own::freeze),
        Route::new(&post, "/proxy/thaw", own::thaw),
        Route::new(&get, "/openapi.json", docs::document),
        Route::new(&get, "/llms.txt", docs::llms),
        Route::new(&get, "/docs", docs::page),
        Route::new(&get, "/docs/{*part}", docs::part),
    ];
    // Of rows that share a route, `call` takes the one that a request is for.
    let calls = proxy.actions().iter().filter(|action| !action.is_paid_row(proxy.actions()));
    let calls = calls.map(Route::of);
    let (mut router, mut routes) = (Router::new(), Vec::new());
    for Route(method, path, handler) in calls.chain(own) {
        router = router.route(path, handler);
        routes.push((method, path));
    }
    routes.push((Method::POST, mcp::PATH));
    let surface = Arc::new(Surface { proxy, instance, body_time: limits.body, routes });
    let guarded = |router: Router<Arc<Surface>>| {
        router
            .fallback(no_route::unknown_path)
            .method_not_allowed_fallback(no_route::wrong_method)
            .layer(middleware::from_fn_with_state(surface.clone(), log::request))
            .with_state(surface.clone())
    };
    // A tool call goes through the same guard and routes as any other request.
    let service = mcp::service(guarded(router.clone()));
    let message = move |state: State<_>, client: Authenticated, request: Request| {
        mcp::message(service.clone(), state, client, request)
    };
    guarded(router.route(mcp::PATH, routing::post(message)))
}

impl Route {
    fn new<T: 'static>(
        method: &Method,
        path: &'static str,
        handler: impl Handler<T, Arc<Surface>>,
    ) -> Self {
        // A row with a method that axum cannot route would show in every test.
        let filter = MethodFilter::try_from(method.clone()).expect("a method that can be routed");
        Self(method.clone(), path, on(filter, handler))
    }

    fn of(action: &'static Action) -> Self {
        if action.name == "job_status" {
            let handler = move |State(surface), Extension(trace), request| {
                status::status(action, surface, trace, request)
            };
            return Self::new(&action.method, action.path, handler);
        }
        let handler = move |State(surface), Extension(trace), request| {
            call::call(action, surface, trace, request)
        };
        Self::new(&action.method, action.path, handler)
    }
}

#[cfg(test)]
mod tests;
