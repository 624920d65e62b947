//! The path that a request to an unknown one probably meant.

use std::iter;

use axum::http::Method;

use super::OWN_PATHS;
use crate::{
    action::{Action, SESSION_PATH},
    config::nearest,
};

/// What the paths of the API begin with, which people forget.
const PREFIX: [&str; 2] = ["api", "external"];

/// Method and path of the call, or of the proxy's own path, whose segments differ from those of this
/// one by a few letters.
pub(super) fn nearest_path(actions: &[Action], path: &str) -> Option<String> {
    let given = segments(path);
    let calls = actions.iter().map(|action| (&action.method, action.path));
    let own = OWN_PATHS.iter().map(|(method, path)| (method, *path));
    let mut known = iter::once((&Method::POST, SESSION_PATH)).chain(calls).chain(own);
    known.find_map(|(method, path)| Some(format!("{method} {}", filled(path, &given)?)))
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
        for (path, meant) in [
            ("/job/list", "POST /api/external/jobs/list"),
            ("/api/external/jobs/list/", "POST /api/external/jobs/list"),
            ("//api/external//jobs/list", "POST /api/external/jobs/list"),
            ("/jobs/j-1/reserv", "POST /api/external/jobs/j-1/reserve"),
            ("/api/external/job/j1/workflow/w2", "PUT /api/external/jobs/j1/workflow/w2"),
            ("/auth/sesion", "POST /api/external/auth/session"),
            ("/healtz", "GET /healthz"),
            ("/proxy/Status", "GET /proxy/status"),
        ] {
            assert_eq!(nearest_path(ACTIONS, path).as_deref(), Some(meant), "{path}");
        }
        for path in
            ["", "/", "/nowhere", "/api/external", "/api/v2/jobs/list", "/jobs/j1/frobnicate"]
        {
            assert_eq!(nearest_path(ACTIONS, path), None, "{path}");
        }
    }
}
