//! How many calls run at once.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::{instance::Instance, problem::Problem};
use crate::proxy::Place;

/// Lets a call in if there is a place for it; otherwise it is refused at once, before its body is
/// read. The call keeps its place until its end, also if its client goes away.
pub(super) async fn admit(
    State(instance): State<Arc<Instance>>,
    mut request: Request,
    next: Next,
) -> Response {
    match instance.live().places.clone().try_acquire_owned() {
        Ok(place) => {
            request.extensions_mut().insert(Place(Arc::new(place)));
            next.run(request).await
        }
        Err(_) => Problem::overloaded().into_response(),
    }
}
