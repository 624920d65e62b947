//! The OpenAPI document, a page that shows it, and the manual. They hold no secret, so they need no token.
//!
//! The page is Swagger UI 5.35.0, whose bundle and style sheet are those of `swagger-ui-dist` on npm after
//! `gzip -9n`.

use std::{
    fmt::Write,
    sync::{Arc, LazyLock},
};

use axum::{
    body::Bytes,
    extract::{Path, State},
    http::{
        HeaderValue, Uri,
        header::{
            CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY,
            X_CONTENT_TYPE_OPTIONS,
        },
    },
    response::{IntoResponse, Response},
};

use super::{no_route::unknown_path, surface::Surface};
use crate::{
    manual::{TOPICS, Topic},
    openapi,
};

/// A page may load and call what is on its own origin, and may not be framed. The icons of the style sheet
/// are in it.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document().to_string().into());

static PAGE: LazyLock<Bytes> = LazyLock::new(|| {
    let mut topics = String::new();
    for topic in TOPICS {
        let (name, about) = (topic.name, topic.about());
        let _ = writeln!(topics, r#"<li><a href="/docs/manual/{name}">{name}</a>: {about}</li>"#);
    }
    include_str!("docs/index.html").replace("TOPICS", &topics).into()
});

pub(super) async fn document() -> Response {
    answer("application/json", DOCUMENT.clone())
}

pub(super) async fn page() -> Response {
    answer("text/html; charset=utf-8", PAGE.clone())
}

/// Leads agents to the texts that are for them, in the form of llms.txt.
pub(super) async fn llms() -> Response {
    answer("text/plain; charset=utf-8", Bytes::from_static(include_bytes!("docs/llms.txt")))
}

/// A part of the page, or a topic of the manual.
pub(super) async fn part(
    State(surface): State<Arc<Surface>>,
    Path(name): Path<String>,
    uri: Uri,
) -> Response {
    let topic = name.strip_prefix("manual/").and_then(Topic::named);
    if let Some(topic) = topic {
        return answer("text/plain; charset=utf-8", Bytes::from_static(topic.text.as_bytes()));
    }
    let (media_type, file, is_packed): (_, &'static [u8], _) = match &*name {
        "start.js" => ("text/javascript", include_bytes!("docs/start.js"), false),
        "swagger-ui-bundle.js" => {
            ("text/javascript", include_bytes!("docs/swagger-ui-bundle.js.gz"), true)
        }
        "swagger-ui.css" => ("text/css", include_bytes!("docs/swagger-ui.css.gz"), true),
        _ => return unknown_path(State(surface), uri).await.into_response(),
    };
    let mut response = answer(media_type, Bytes::from_static(file));
    if is_packed {
        let gzip = HeaderValue::from_static("gzip");
        response.headers_mut().insert(CONTENT_ENCODING, gzip);
    }
    response
}

fn answer(media_type: &'static str, body: Bytes) -> Response {
    let headers = [
        (CONTENT_TYPE, media_type),
        (CONTENT_SECURITY_POLICY, POLICY),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    (headers, body).into_response()
}
