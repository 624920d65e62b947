//! The OpenAPI document, as it is committed, so that a change of it shows.

use agentpmt_proxy::openapi;

#[test]
fn the_committed_document_is_that_of_the_program() {
    let committed = include_str!("../vectors/openapi.json");
    assert!(
        committed == format!("{:#}\n", openapi::document()),
        "write it anew and look at the changes: cargo run -- openapi >tests/vectors/openapi.json"
    );
}
