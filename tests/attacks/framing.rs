//! Where one request ends and the next begins, and what is no HTTP/1.1 at all.

use crate::common::TestProxy;

/// A head whose call would be signed, still open for more lines.
const LIST: &str = "POST /api/external/jobs/list HTTP/1.1\nhost: $HOST\n";

/// A whole request that would be signed if it were read as one.
const SMUGGLED: &str = "POST /api/external/jobs/list HTTP/1.1\nhost: $HOST\ncontent-length: 0\n\n";

fn list(rest: &str) -> String {
    format!("{LIST}connection: close\n{rest}")
}

#[tokio::test]
async fn a_request_of_doubtful_length_is_refused() {
    let proxy = TestProxy::start().await;
    let rows = [
        ("content-length: +2\n\n{}", "400"),
        ("content-length: -1\n\n{}", "400"),
        ("content-length: 2, 2\n\n{}", "400"),
        ("content-length: 2\ncontent-length: 3\n\n{} ", "400"),
        ("content-length: 0x2\n\n{}", "400"),
        ("content-length: 2.0\n\n{}", "400"),
        ("content-length:\n\n{}", "400"),
        ("content-length: two\n\n{}", "400"),
        ("content-length: 99999999999999999999\n\n{}", "400"),
        ("content-length: 18446744073709551615\n\n{}", "431"),
        ("content-length : 2\n\n{}", "400"),
        ("content-length\t: 2\n\n{}", "400"),
        (" content-length: 2\n\n{}", "400"),
        ("transfer-encoding: identity\n\n{}", "400"),
        ("transfer-encoding: gzip\n\n{}", "400"),
        ("transfer-encoding: chunked, gzip\n\n2\n{}\n0\n\n", "400"),
        ("transfer-encoding: chunked\ntransfer-encoding: identity\n\n2\n{}\n0\n\n", "400"),
        ("transfer-encoding: xchunked\n\n2\n{}\n0\n\n", "400"),
        ("transfer-encoding: \"chunked\"\n\n2\n{}\n0\n\n", "400"),
        ("transfer-encoding:\u{b}chunked\n\n2\n{}\n0\n\n", "400"),
        ("transfer-encoding:\n\n2\n{}\n0\n\n", "400"),
        ("transfer-encoding: gzip, chunked\n\n2\n{}\n0\n\n", "501 transfer_coding"),
        ("transfer-encoding: chunked, chunked\n\n2\n{}\n0\n\n", "501 transfer_coding"),
        (
            "transfer-encoding: identity\ntransfer-encoding: chunked\n\n2\n{}\n0\n\n",
            "501 transfer_coding",
        ),
    ];
    proxy.repels(rows.map(|(rest, expected)| (rest, list(rest), expected))).await;
}

#[tokio::test]
async fn bad_chunks_are_refused() {
    let proxy = TestProxy::start().await;
    let rows = [
        "g\n{}\n0\n\n",
        "-2\n{}\n0\n\n",
        "+2\n{}\n0\n\n",
        "0x2\n{}\n0\n\n",
        " 2\n{}\n0\n\n",
        "\n2\n{}\n0\n\n",
        "2{}\n0\n\n",
        "2\n{} \n0\n\n",
        "2\n{}0\n\n",
        "2␊{}\n0\n\n",
        "2␍{}\n0\n\n",
        "2\n{}␊0\n\n",
        "2;a=␊b\n{}\n0\n\n",
        "2;a=␍b\n{}\n0\n\n",
        "10000000000000002\n{}\n0\n\n",
        "fffffffffffffffff\n{}\n0\n\n",
        "2\n{}\n0\nx␀: y\n\n",
        "2\n{}\n0\nx : y\n\n",
        "2\n{}\n0\nx: y␊z\n\n",
    ];
    let text = |rest| list(&format!("transfer-encoding: chunked\n\n{rest}"));
    proxy.repels(rows.map(|rest| (rest, text(rest), "400 body_unreadable"))).await;
}

#[tokio::test]
async fn a_head_that_can_be_read_in_two_ways_is_refused() {
    let proxy = TestProxy::start().await;
    let end = "connection: close\ncontent-length: 0\n\n";
    let rows = [
        ("obs-fold", format!("{LIST}x-a: b\n c: d\n{end}"), "400"),
        (
            "folded host",
            format!("POST /api/external/jobs/list HTTP/1.1\nhost:\n $HOST\n{end}"),
            "400",
        ),
        (
            "space before the first line of head",
            format!("POST /api/external/jobs/list HTTP/1.1\n host: $HOST\n{end}"),
            "400",
        ),
        (
            "space before a colon",
            format!("POST /api/external/jobs/list HTTP/1.1\nhost : $HOST\n{end}"),
            "400",
        ),
        ("line without a colon", format!("{LIST}x-a\n{end}"), "400"),
        ("line without a name", format!("{LIST}: a\n{end}"), "400"),
        ("NUL in a value", format!("{LIST}x-a: b␀c\n{end}"), "400"),
        ("NUL in a name", format!("{LIST}x-␀a: b\n{end}"), "400"),
        ("CR in a value", format!("{LIST}x-a: b␍c: d\n{end}"), "400"),
        ("DEL in a value", format!("{LIST}x-a: b\u{7f}\n{end}"), "400"),
        ("byte above ASCII in a name", format!("{LIST}x-\u{e4}: b\n{end}"), "400"),
        (
            "CR as the end of a line",
            format!("POST /api/external/jobs/list HTTP/1.1␍host: $HOST\n{end}"),
            "400",
        ),
        (
            "two spaces in the first line",
            format!("POST  /api/external/jobs/list HTTP/1.1\nhost: $HOST\n{end}"),
            "400",
        ),
        (
            "tab in the first line",
            format!("POST\t/api/external/jobs/list HTTP/1.1\nhost: $HOST\n{end}"),
            "400",
        ),
        (
            "word behind the version",
            format!("POST /api/external/jobs/list HTTP/1.1 x\nhost: $HOST\n{end}"),
            "400",
        ),
    ];
    proxy.repels(rows).await;
}

#[tokio::test]
async fn what_is_not_http_1_1_is_no_call() {
    let proxy = TestProxy::start().await;
    let end = "host: $HOST\nconnection: close\ncontent-length: 0\n\n";
    let path = "/api/external/jobs/list";
    let rows = [
        (
            "HTTP/1.0 without Host",
            format!("POST {path} HTTP/1.0\ncontent-length: 0\n\n"),
            "421 wrong_host",
        ),
        (
            "HTTP/1.0 in chunks",
            format!(
                "POST {path} HTTP/1.0\nhost: $HOST\ntransfer-encoding: chunked\n\n2\n{{}}\n0\n\n"
            ),
            "400",
        ),
        ("HTTP/0.9", format!("POST {path}\n\n"), "400"),
        ("HTTP/1.2", format!("POST {path} HTTP/1.2\n{end}"), "400"),
        ("HTTP/2.0", format!("POST {path} HTTP/2.0\n{end}"), "400"),
        ("http/1.1", format!("POST {path} http/1.1\n{end}"), "400"),
        ("HTTP/2 preface", "PRI * HTTP/2.0\n\nSM\n\n".to_owned(), "closed"),
        ("TLS", "\u{16}\u{3}\u{1}\u{2}␀\u{1}␀\u{1}\u{fc}\u{3}\u{3}".to_owned(), "400"),
        ("CONNECT", format!("CONNECT evil.example:443 HTTP/1.1\n{end}"), "421 wrong_host"),
        ("CONNECT to ourselves", format!("CONNECT $HOST HTTP/1.1\n{end}"), "404 unknown_path"),
        ("TRACE", format!("TRACE {path} HTTP/1.1\ncookie: secret\n{end}"), "405 wrong_method"),
        ("OPTIONS", format!("OPTIONS {path} HTTP/1.1\n{end}"), "405 wrong_method"),
        ("OPTIONS *", format!("OPTIONS * HTTP/1.1\n{end}"), "404 unknown_path"),
        ("GET", format!("GET {path} HTTP/1.1\n{end}"), "405 wrong_method"),
        ("HEAD", format!("HEAD {path} HTTP/1.1\n{end}"), "405 wrong_method"),
        ("post", format!("post {path} HTTP/1.1\n{end}"), "405 wrong_method"),
        ("own method", format!("SIGN {path} HTTP/1.1\n{end}"), "405 wrong_method"),
        (
            "method override",
            format!("GET {path} HTTP/1.1\nx-http-method-override: POST\n{end}"),
            "405 wrong_method",
        ),
        (
            "websocket",
            format!(
                "GET {path} HTTP/1.1\nupgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\nhost: $HOST\nconnection: upgrade, close\n\n"
            ),
            "405 wrong_method",
        ),
    ];
    proxy.repels(rows).await;
    let upgrade = format!(
        "POST {path} HTTP/1.1\nupgrade: h2c\nhttp2-settings: AAMAAABkAAQAAP__\nhost: $HOST\nconnection: upgrade, http2-settings, close\ncontent-length: 0\n\n"
    );
    proxy.signs([("h2c stays HTTP/1.1", &upgrade, "200")]).await;
    let old = format!("POST {path} HTTP/1.0\nhost: $HOST\ncontent-length: 0\n\n");
    proxy.signs([("HTTP/1.0 with Host", &old, "200")]).await;
}

#[tokio::test]
async fn a_request_within_another_is_not_read() {
    let proxy = TestProxy::start().await;
    let session = "POST /api/external/auth/session HTTP/1.1\nhost: $HOST\n";
    let length = SMUGGLED.replace("$HOST", &proxy.address.to_string()).replace('\n', "\r\n").len();
    let rows = [
        (
            "in a body",
            format!("{session}connection: close\ncontent-length: {length}\n\n{SMUGGLED}"),
            "200",
        ),
        (
            "in a chunk",
            format!(
                "{session}connection: close\ntransfer-encoding: chunked\n\n{length:x}\n{SMUGGLED}\n0\n\n"
            ),
            "200",
        ),
        (
            "CL.TE",
            format!(
                "{session}content-length: {}\ntransfer-encoding: chunked\n\n0\n\n{SMUGGLED}",
                length + 5
            ),
            "200",
        ),
        (
            "TE.CL",
            format!(
                "{session}transfer-encoding: chunked\ncontent-length: 4\n\n{length:x}\n{SMUGGLED}\n0\n\n"
            ),
            "200",
        ),
        (
            "TE.TE",
            format!("{session}transfer-encoding: chunked, chunked\n\n0\n\n{SMUGGLED}"),
            "501 transfer_coding",
        ),
        ("behind a refusal", format!("{session}content-length: +0\n\n{SMUGGLED}"), "400"),
        (
            "behind the last request",
            format!("{session}connection: close\ncontent-length: 0\n\n{SMUGGLED}"),
            "200",
        ),
        (
            "foreign host behind a good one",
            format!(
                "{session}content-length: 0\n\n{}",
                list("content-length: 0\n\n").replace("$HOST", "evil.example")
            ),
            "200, 421 wrong_host",
        ),
        (
            "page behind a program",
            format!(
                "{session}content-length: 0\n\n{}",
                list("origin: null\ncontent-length: 0\n\n")
            ),
            "200, 403 foreign_page",
        ),
    ];
    proxy.repels(rows).await;
    let both = format!("{session}content-length: 0\n\n{}", list("content-length: 0\n\n"));
    proxy.signs([("a good one behind a good one", &both, "200, 200")]).await;
}

#[tokio::test]
async fn trailers_are_no_head() {
    let proxy = TestProxy::start().await;
    let trailers = |head: &str| {
        format!(
            "POST /api/external/jobs/list HTTP/1.1\n{head}connection: close\ntransfer-encoding: chunked\ntrailer: host, authorization, origin\n\n2\n{{}}\n0\nhost: $HOST\nauthorization: Bearer x\norigin: https://evil.example\n\n"
        )
    };
    proxy
        .repels([
            ("foreign host", &trailers("host: evil.example\n"), "421 wrong_host"),
            ("no host", &trailers(""), "421 wrong_host"),
        ])
        .await;
    proxy.signs([("own host", &trailers("host: $HOST\n"), "200")]).await;
}

#[tokio::test]
async fn the_same_without_the_trick_is_signed() {
    let proxy = TestProxy::start().await;
    let rows = [
        ("length", "content-length: 2\n\n{}"),
        ("length twice", "content-length: 2\ncontent-length: 2\n\n{}"),
        ("leading zeros", "content-length: 0002\n\n{}"),
        ("chunks", "transfer-encoding: chunked\n\n1\n{\n1\n}\n0\n\n"),
        ("Chunks", "Transfer-Encoding: Chunked\n\n02;a=b\n{}\n0\n\n"),
        ("bytes above ASCII in a value", "x-a: \u{e4}\ncontent-length: 0\n\n"),
    ];
    proxy.signs(rows.map(|(trick, rest)| (trick, list(rest), "200"))).await;
    let lf = list("content-length: 0\n\n").replace('\n', "␊");
    proxy.signs([("LF at the end of each line", &lf, "200")]).await;
}
