//! Requests that reach no route: to an unknown path, or with a method that the path does not take.

use std::{iter, sync::Arc};

use axum::{
    extract::{MatchedPath, Request, State},
    http::{Method, Uri, header::HOST},
};

use super::{peer::Peer, printable::printable, surface::Surface};
use crate::{
    config::nearest,
    problem::Problem,
    problems::{LOCAL_WALLETS, UNKNOWN_PATH, WRONG_METHOD},
};

/// The first segments of the API's paths, which people forget.
const PREFIX: [&str; 2] = ["api", "external"];

/// The last segment of the call that makes a wallet on the server (protocol §5.2).
const NEW_WALLET: &str = "agentaddress";

pub(super) async fn unknown_path(State(surface): State<Arc<Surface>>, uri: Uri) -> Problem {
    let routes = surface.routes.iter();
    let text = |(method, path): &(Method, &str)| format!("{method} {path}");
    let (calls, own): (Vec<_>, Vec<_>) =
        routes.map(text).partition(|route| route.contains(" /api/external/"));
    let path = printable(uri.path());
    if segments(uri.path()).last() == Some(&NEW_WALLET) {
        let detail = format!(
            "{path} would make a wallet on the server and send its private key over the network, so this \
             proxy does not offer it: make one here, with `agentpmt-proxy wallet new`; nothing was sent"
        );
        return Problem::new(&LOCAL_WALLETS, detail);
    }
    let meant = nearest_route(&surface.routes, &path);
    let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
    let detail = format!(
        "{meant}there is nothing at {path}; the calls are: {}; the proxy's own paths are: {}",
        calls.join(", "),
        own.join(", ")
    );
    Problem::new(&UNKNOWN_PATH, detail)
}

pub(super) async fn wrong_method(State(surface): State<Arc<Surface>>, request: Request) -> Problem {
    let route = request.extensions().get().map_or("", MatchedPath::as_str);
    let right = surface.routes.iter().find(|(_, path)| *path == route);
    let right = right.map(|(method, _)| method.clone()).unwrap_or_default();
    let (method, path) = (request.method(), printable(request.uri().path()));
    let place = place(&surface, &request);
    let detail =
        format!("{path} takes {right}, not {method}; with curl: curl -X {right} {place}{path}");
    Problem::new(&WRONG_METHOD, detail)
}

/// Where a request went, as curl takes it.
fn place(surface: &Surface, request: &Request) -> String {
    let peer: Option<&Peer> = request.extensions().get();
    if peer.is_some_and(|peer| peer.local.is_none()) {
        return "--unix-socket … http://localhost".to_owned();
    }
    let scheme = if surface.instance.live().tls.is_some() { "https" } else { "http" };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    format!("{scheme}://{host}")
}

/// Method and path of the route whose segments differ from those of this path by a few letters, or that has
/// one more.
fn nearest_route(routes: &[(Method, &'static str)], path: &str) -> Option<String> {
    let given = segments(path);
    let near = |fill: fn(&'static str, &[&str]) -> Option<String>| {
        let filled = |(method, path): &(Method, &'static str)| {
            Some(format!("{method} {}", fill(path, &given)?))
        };
        routes.iter().find_map(filled)
    };
    near(filled).or_else(|| near(with_one_more))
}

/// A known path that is near if one of its segments is added to a given one.
fn with_one_more(known: &'static str, given: &[&str]) -> Option<String> {
    let segments = segments(known);
    // Where a path ends with an id, any last word would fit.
    segments.last().filter(|last| !is_id(last))?;
    let more = |at: usize| {
        let has_word = segments.iter().enumerate().any(|(other, part)| other != at && !is_id(part));
        let added = [&given[..at], &[segments[at]], &given[at..]].concat();
        filled(known, &added).filter(|_| has_word)
    };
    let places = (0..segments.len()).filter(|at| *at <= given.len());
    // An id first, for which no other segment is then taken.
    let (ids, words): (Vec<_>, Vec<_>) = places.partition(|at| is_id(segments[*at]));
    ids.into_iter().chain(words).find_map(more)
}

/// A known path with the ids of a given one, if it is near.
fn filled(known: &'static str, given: &[&str]) -> Option<String> {
    let segments = segments(known);
    let mut pairs = segments.iter().zip(given);
    let is_near = |(known, given): (&&'static str, &&str)| {
        is_id(known) || nearest(given, iter::once(*known)).is_some()
    };
    if segments.len() != given.len() || !pairs.all(is_near) {
        return None;
    }
    let mut ids = segments.iter().zip(given).filter(|(known, _)| is_id(known)).map(|(_, id)| *id);
    let mut fill = |part| if is_id(part) { ids.next() } else { Some(part) };
    Some(known.split('/').map(&mut fill).collect::<Option<Vec<_>>>()?.join("/"))
}

fn segments(path: &str) -> Vec<&str> {
    let all: Vec<_> = path.split('/').filter(|segment| !segment.is_empty()).collect();
    all.strip_prefix(&PREFIX).map(<[_]>::to_vec).unwrap_or(all)
}

fn is_id(segment: &str) -> bool {
    segment.starts_with('{')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ACTIONS;

    #[test]
    fn a_path_that_is_nearly_one_is_met_with_it() {
        let calls = ACTIONS.iter().map(|action| (action.method.clone(), action.path));
        let own = [(Method::GET, "/healthz"), (Method::GET, "/proxy/status")];
        let routes: Vec<_> = calls.chain(own).collect();
        for (path, meant) in [
            ("/job/list", "POST /api/external/jobs/list"),
            ("/api/external/jobs/list/", "POST /api/external/jobs/list"),
            ("//api/external//jobs/list", "POST /api/external/jobs/list"),
            ("/jobs/j-1/reserv", "POST /api/external/jobs/j-1/reserve"),
            ("/api/external/job/j1/workflow/w2", "PUT /api/external/jobs/j1/workflow/w2"),
            ("/healtz", "GET /healthz"),
            ("/proxy/Status", "GET /proxy/status"),
            ("/balance", "POST /api/external/credits/balance"),
            ("/api/external/credits", "POST /api/external/credits/balance"),
            (
                "/tools/word-count/actions/invoke",
                "POST /api/external/tools/word-count/actions/{action_slug}/invoke",
            ),
        ] {
            assert_eq!(nearest_route(&routes, path).as_deref(), Some(meant), "{path}");
        }
        for path in
            ["", "/", "/nowhere", "/api/external", "/api/v2/jobs/list", "/jobs/j1/frobnicate"]
        {
            assert_eq!(nearest_route(&routes, path), None, "{path}");
        }
    }
}
