//! The values that all routes share.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::FromRequestParts,
    http::{Method, request::Parts},
};

use super::{evidence::evidence, instance::Instance};
use crate::{policy::Client, problem::Problem, proxy::Proxy};

/// The values that all routes share.
pub(super) struct Surface {
    pub(super) proxy: Arc<Proxy>,
    pub(super) instance: Arc<Instance>,
    /// How long a body may take.
    pub(super) body_time: Duration,
    /// The method and path of every route.
    pub(super) routes: Vec<(Method, &'static str)>,
}

/// The client that makes a request which is no call.
pub(super) struct Authenticated(pub(super) Client);

impl FromRequestParts<Arc<Surface>> for Authenticated {
    type Rejection = Problem;

    async fn from_request_parts(
        parts: &mut Parts,
        surface: &Arc<Surface>,
    ) -> Result<Self, Problem> {
        let client = surface.proxy.identify(&evidence(parts)).await;
        client.map(Self).map_err(|failure| Problem::refused(&failure))
    }
}
