//! Paths that could lead elsewhere, here or upstream.

use crate::common::{GENERAL_JOB, TestProxy};

fn call(path: &str) -> String {
    format!("POST {path} HTTP/1.1\nhost: $HOST\nconnection: close\ncontent-length: 0\n\n")
}

#[tokio::test]
async fn a_path_that_is_no_call_to_the_letter_is_refused() {
    let proxy = TestProxy::start().await;
    let rows = [
        ("/api/external/jobs/%2e%2e/status", "400 invalid_id"),
        ("/api/external/jobs/../status", "400 invalid_id"),
        ("/api/external/jobs/%2e/status", "400 invalid_id"),
        ("/api/external/jobs/.%2e/status", "400 invalid_id"),
        ("/api/external/jobs/%252e%252e/status", "400 invalid_id"),
        ("/api/external/jobs/a%2fb/status", "400 invalid_id"),
        ("/api/external/jobs/a%5cb/status", "400 invalid_id"),
        ("/api/external/jobs/a\\b/status", "400 invalid_id"),
        ("/api/external/jobs/a;b=c/status", "400 invalid_id"),
        ("/api/external/jobs/a%3bb/status", "400 invalid_id"),
        ("/api/external/jobs/a%00/status", "400 invalid_id"),
        ("/api/external/jobs/a%0a/status", "400 invalid_id"),
        ("/api/external/jobs/a%0d%0aproduct:b/status", "400 invalid_id"),
        ("/api/external/jobs/a%20b/status", "400 invalid_id"),
        ("/api/external/jobs/a%23/status", "400 invalid_id"),
        ("/api/external/jobs/a%3f/status", "400 invalid_id"),
        ("/api/external/jobs/%61%25/status", "400 invalid_id"),
        ("/api/external/jobs/a%zz/status", "400 invalid_id"),
        ("/api/external/jobs/a%/status", "400 invalid_id"),
        ("/api/external/jobs/%u0061/status", "400 invalid_id"),
        ("/api/external/jobs/%c0%ae%c0%ae/status", "400 invalid_id"),
        ("/api/external/jobs/%e0%80%af/status", "400 invalid_id"),
        ("/api/external/jobs/%ff/status", "400 invalid_id"),
        ("/api/external/jobs/%e2%80%a8/status", "400 invalid_id"),
        ("/api/external/jobs/%ef%bc%8e%ef%bc%8e/status", "400 invalid_id"),
        ("/api/external/jobs/{job_id}/status", "400 invalid_id"),
        ("/api/external/jobs/*/status", "400 invalid_id"),
        ("/api/external/jobs/a:b/status", "400 invalid_id"),
        ("/api/external/jobs/a@b/status", "400 invalid_id"),
        ("/api/external/jobs/a+b/status", "400 invalid_id"),
        ("/api/external/jobs//status", "400 invalid_id"),
        ("/api/external/jobs/a/workflow/../publish", "400 invalid_id"),
        ("/api/external/jobs/a/../list", "404 unknown_path"),
        ("/api/external/jobs/a/status/../../list", "404 unknown_path"),
        ("/api/external/../external/jobs/list", "404 unknown_path"),
        ("/api/external/./jobs/list", "404 unknown_path"),
        ("/api/external//jobs/list", "404 unknown_path"),
        ("//api/external/jobs/list", "404 unknown_path"),
        ("/api/external/jobs/list/", "404 unknown_path"),
        ("/api/external/jobs/list;a=b", "404 unknown_path"),
        ("/api/external/jobs/list%00", "404 unknown_path"),
        ("/api/external/jobs/list%20", "404 unknown_path"),
        ("/api/external/jobs/list.json", "404 unknown_path"),
        ("/api/external/jobs/l%69st", "404 unknown_path"),
        ("/api/external/jobs%2flist", "404 unknown_path"),
        ("/api/external/Jobs/list", "404 unknown_path"),
        ("/API/external/jobs/list", "404 unknown_path"),
        ("/healthz/../api/external/jobs/list", "404 unknown_path"),
        ("/api/external/credits/gift", "404 unknown_path"),
        ("/api/external/agentaddress", "404 wallets_are_local"),
        ("/api/external/agentaddress/", "404 wallets_are_local"),
        ("/api/external/v1/agentaddress?a=b", "404 wallets_are_local"),
        ("/agentaddress", "404 wallets_are_local"),
        ("/api/external/agentaddress/x", "404 unknown_path"),
        ("/api/external/sandbox/faults", "404 unknown_path"),
        ("/sandbox/faults", "404 unknown_path"),
        ("/api/external/jobs/list?limit=1", "400 query_not_taken"),
        ("/api/external/jobs/list?&", "400 query_not_taken"),
        ("/api/external/jobs/a/status?job_id=b", "400 query_not_taken"),
        ("/api/external/jobs/a/status?/../../b", "400 query_not_taken"),
        ("/api/external/jobs/\u{c0}\u{ae}/status", "400"),
        ("/api/external/jobs/\u{e4}/status", "400"),
        ("/api/external/jobs/a␀/status", "400"),
        ("/api/external/jobs/a␍/status", "400"),
        ("/api/external/jobs/a␊/status", "400"),
        ("/api/external/jobs/a b/status", "400"),
        ("/api/external/jobs/a\tb/status", "400"),
        ("/api/external/jobs/a\u{7f}/status", "400"),
        ("/api/external/jobs/\"<>/status", "400"),
        ("api/external/jobs/list", "400"),
        ("\\api\\external\\jobs\\list", "400"),
    ];
    proxy.repels(rows.map(|(path, expected)| (path, call(path), expected))).await;
}

#[tokio::test]
async fn a_target_without_end_is_refused() {
    let proxy = TestProxy::start().await;
    let long = |length| format!("/api/external/jobs/{}/status", "a".repeat(length));
    let rows = [(129, "400 invalid_id"), (15_000, "400 invalid_id"), (70_000, "431")];
    let rows = rows.map(|(length, expected)| (length.to_string(), call(&long(length)), expected));
    proxy.repels(rows).await;
}

#[tokio::test]
async fn the_same_without_the_trick_is_signed() {
    let proxy = TestProxy::start().await;
    let status = call(&format!("/api/external/jobs/{GENERAL_JOB}/status"));
    // The upstream has no such jobs, and says so.
    let odd = call("/api/external/jobs/..a~-_.9/status");
    let escaped = call("/api/external/jobs/%61/status");
    // What stands behind it is for whoever asks, and no server gets to see it.
    let fragment = call("/api/external/jobs/list#/../x");
    let rows = [
        ("job", status, "200"),
        ("odd", odd, "404"),
        ("escaped", escaped, "404"),
        ("fragment", fragment, "200"),
    ];
    proxy.signs(rows).await;
}
