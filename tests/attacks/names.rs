//! Whose name a request bears: `Host` and the target, `Origin` and what else a browser says.

use agentpmt_proxy::{
    config::HostName,
    http::Guard,
    sandbox::{Sandbox, Settings},
};

use crate::common::{TestProxy, serve_sandbox};

/// A call without a body to a target, with these lines of head.
fn call(target: &str, head: &str) -> String {
    format!("POST {target} HTTP/1.1\n{head}connection: close\ncontent-length: 0\n\n")
}

/// The list of jobs, with these lines of head.
fn list(head: &str) -> String {
    call("/api/external/jobs/list", head)
}

async fn guarded() -> TestProxy {
    let sandbox = Sandbox::new(Settings::default());
    let upstream = serve_sandbox(&sandbox).await;
    TestProxy::in_front_of(sandbox, upstream, |options| {
        let name = "proxy.example".to_owned();
        options.guard = Guard {
            hosts: vec![HostName { name, port: None }],
            origins: vec!["https://app.example".to_owned()],
            is_https: false,
        };
    })
    .await
}

/// The port of the proxy in place of `$PORT`.
fn with_port(proxy: &TestProxy, head: &str) -> String {
    head.replace("$PORT", &proxy.address.port().to_string())
}

#[tokio::test]
async fn a_host_that_is_not_ours_is_refused() {
    let proxy = guarded().await;
    let heads = [
        "host: evil.example\n",
        "host: evil.example:$PORT\n",
        "host: localhost.evil.example:$PORT\n",
        "host: 127.0.0.1.evil.example:$PORT\n",
        "host: evil.example#127.0.0.1:$PORT\n",
        "host: evil.example@127.0.0.1:$PORT\n",
        "host: 127.0.0.1:$PORT@evil.example\n",
        "host: 127.0.0.1:$PORT, evil.example\n",
        "host: 127.0.0.1:$PORT evil.example\n",
        "host: 127.0.0.1:$PORT/evil.example\n",
        "host: http://127.0.0.1:$PORT\n",
        "host: localhost.:$PORT\n",
        "host: localhost:1\n",
        "host: localhost:0$PORT0\n",
        "host: localhost\n",
        "host: 127.1:$PORT\n",
        "host: 0x7f000001:$PORT\n",
        "host: 2130706433:$PORT\n",
        "host: 0177.0.0.1:$PORT\n",
        "host: 0.0.0.0:$PORT\n",
        "host: 127.0.0.2:$PORT\n",
        "host: [::1]:$PORT\n",
        "host: [::ffff:127.0.0.1]:$PORT\n",
        "host: sub.proxy.example\n",
        "host: proxy.example.\n",
        "host: xn--lcalhost-54a:$PORT\n",
        "host: l\u{f6}calhost:$PORT\n",
        "host: \u{c0}\u{ae}\n",
        "host:\n",
        "",
        "host: $HOST\nhost: $HOST\n",
        "host: $HOST\nhost: evil.example\n",
        "host: evil.example\nhost: $HOST\n",
        "host: evil.example\nx-forwarded-host: $HOST\n",
        "host: evil.example\nforwarded: host=127.0.0.1\nx-original-host: $HOST\n",
        "host: evil.example\nx-forwarded-for: 127.0.0.1\nx-real-ip: 127.0.0.1\n",
    ];
    let text = |head: &str| with_port(&proxy, &list(head));
    proxy.repels(heads.map(|head| (head, text(head), "421 wrong_host"))).await;
}

#[tokio::test]
async fn who_names_another_host_is_told_which_and_where_the_proxy_is() {
    let proxy = guarded().await;
    let own = proxy.address;
    for (head, words) in [
        ("host: evil.example:1\n", "the Host header is evil.example:1,"),
        ("host: \"a\\b\"\n", "the Host header is \\\\\\\"a"),
        ("host: 127.0.0.1\n", "the Host header is 127.0.0.1,"),
        ("", "there is no Host header,"),
        ("host: $HOST\nhost: $HOST\n", "there are several Host headers,"),
    ] {
        let answer = proxy.raw(&list(head)).await;
        assert!(answer.contains(words), "{words}: {answer}");
        assert!(answer.contains(&format!("use {own}, where")), "{answer}");
    }
    let target = call("http://evil.example/api/external/jobs/list", "host: $HOST\n");
    let answer = proxy.raw(&target).await;
    assert!(answer.contains("the target of the request is at evil.example,"), "{answer}");
}

#[tokio::test]
async fn a_target_with_another_authority_is_refused() {
    let proxy = guarded().await;
    let path = "/api/external/jobs/list";
    let rows = [
        (format!("http://evil.example{path}"), "421 wrong_host"),
        (format!("http://evil.example:$PORT{path}"), "421 wrong_host"),
        (format!("http://127.0.0.1:$PORT@evil.example{path}"), "421 wrong_host"),
        (format!("http://evil.example@127.0.0.1:$PORT{path}"), "421 wrong_host"),
        (format!("//evil.example{path}"), "404 unknown_path"),
        (format!("///evil.example{path}"), "404 unknown_path"),
        ("evil.example:443".to_owned(), "421 wrong_host"),
        ("*".to_owned(), "404 unknown_path"),
    ];
    let text = |target: &str| with_port(&proxy, &call(target, "host: $HOST\n"));
    proxy.repels(rows.iter().map(|(target, expected)| (target, text(target), *expected))).await;
}

#[tokio::test]
async fn what_a_page_of_another_origin_sends_is_refused() {
    let proxy = guarded().await;
    let heads = [
        "origin: null\n",
        "origin:\n",
        "origin: https://evil.example\n",
        "origin: http://app.example\n",
        "origin: https://app.example:443\n",
        "origin: https://app.example:8443\n",
        "origin: https://app.example/\n",
        "origin: https://app.example.\n",
        "origin: https://APP.example\n",
        "origin: HTTPS://app.example\n",
        "origin: https://sub.app.example\n",
        "origin: https://app.example.evil.example\n",
        "origin: https://evilapp.example\n",
        "origin: https://app.example@evil.example\n",
        "origin: https://app.example https://evil.example\n",
        "origin: https://app.example, https://evil.example\n",
        "origin: https://app.example\norigin: https://evil.example\n",
        "origin: https://app.example\norigin: https://app.example\n",
        "origin: https://app.ex\u{e4}mple\n",
        "origin: https://$HOST\n",
        "origin: http://$HOST/\n",
        "origin: http://127.0.0.1\n",
        "origin: http://127.0.0.1:1\n",
        "origin: http://localhost\n",
        "origin: http://localhost:$PORT\n",
        "origin: http://$HOST\nsec-fetch-site: same-site\n",
        "origin: http://$HOST\nsec-fetch-site: cross-site\n",
        "origin: http://$HOST\nsec-fetch-site: none\n",
        "origin: http://$HOST\nsec-fetch-site: same-origin\nsec-fetch-site: cross-site\n",
        "origin: http://$HOST\norigin: http://$HOST\n",
        "origin: file://\n",
        "origin: chrome-extension://abcdefghijklmnop\n",
        "sec-fetch-site: cross-site\n",
        "sec-fetch-site: same-site\n",
        "sec-fetch-site: Same-Origin\n",
        "sec-fetch-site: same-origin, cross-site\n",
        "sec-fetch-site: same-origin\nsec-fetch-site: cross-site\n",
        "sec-fetch-site: new-word\n",
        "sec-fetch-site:\n",
        "sec-fetch-site: same-origin\norigin: https://evil.example\n",
        "x-forwarded-host: app.example\norigin: https://evil.example\n",
    ];
    let text = |head| with_port(&proxy, &list(&format!("host: $HOST\n{head}")));
    proxy.repels(heads.map(|head| (head, text(head), "403 foreign_page"))).await;
}

#[tokio::test]
async fn a_form_and_whatever_else_a_page_can_send_is_refused() {
    let proxy = guarded().await;
    let page = "host: $HOST\nconnection: close\norigin: https://evil.example\n";
    let json = r#"{"limit":1,"a":"=b"}"#;
    let post = "POST /api/external/jobs/list HTTP/1.1\n";
    let simple =
        |kind: &str| format!("{post}{page}content-type: {kind}\ncontent-length: 20\n\n{json}");
    let preflight = "access-control-request-method: POST\n\
                     access-control-request-headers: content-type\n";
    let rows = [
        ("text/plain", simple("text/plain")),
        ("form", simple("application/x-www-form-urlencoded")),
        ("multipart", simple("multipart/form-data; boundary=x")),
        ("beacon", simple("application/json")),
        ("null of a sandboxed frame", simple("text/plain").replace("https://evil.example", "null")),
        (
            "fetch before Origin",
            simple("text/plain")
                .replace("origin: https://evil.example", "sec-fetch-site: cross-site"),
        ),
        ("preflight", format!("OPTIONS /api/external/jobs/list HTTP/1.1\n{page}{preflight}\n")),
        (
            "preflight for the private network",
            format!(
                "OPTIONS /api/external/jobs/list HTTP/1.1\n{page}{preflight}access-control-request-private-network: true\n\n"
            ),
        ),
        ("reload", format!("POST /proxy/reload HTTP/1.1\n{page}content-length: 0\n\n")),
        (
            "image",
            format!("GET /proxy/status HTTP/1.1\n{page}\n").replace(
                "origin: https://evil.example",
                "sec-fetch-site: cross-site\nsec-fetch-dest: image",
            ),
        ),
        (
            "websocket",
            format!(
                "GET /api/external/jobs/list HTTP/1.1\n{page}upgrade: websocket\nsec-websocket-version: 13\nsec-websocket-key: MDEyMzQ1Njc4OWFiY2RlZg==\n\n"
            ),
        ),
    ];
    proxy.repels(rows.iter().map(|(trick, text)| (trick, text, "403 foreign_page"))).await;
    for (trick, text) in &rows {
        let answer = proxy.raw(text).await;
        assert!(!answer.contains("access-control-"), "{trick}: {answer}");
    }
}

#[tokio::test]
async fn the_same_without_the_trick_is_signed() {
    let proxy = guarded().await;
    let heads = [
        "host: $HOST\n",
        "host: localhost:$PORT\n",
        "host: LOCALHOST:$PORT\n",
        "host: proxy.example\n",
        "host: Proxy.Example:9\n",
        "host: $HOST\norigin: https://app.example\n",
        "host: $HOST\norigin: https://app.example\nsec-fetch-site: cross-site\n",
        "host: $HOST\nsec-fetch-site: none\n",
        "host: $HOST\nsec-fetch-site: same-origin\n",
        "host: $HOST\norigin: http://$HOST\n",
        "host: $HOST\norigin: http://$HOST\nsec-fetch-site: same-origin\n",
        "host: localhost:$PORT\norigin: http://localhost:$PORT\n",
        "host: $HOST\nx-forwarded-host: evil.example\nx-forwarded-for: 192.0.2.1\n",
    ];
    let text = |head: &str| with_port(&proxy, &list(head));
    proxy.signs(heads.map(|head| (head, text(head), "200"))).await;
    let absolute = call("http://localhost:$PORT/api/external/jobs/list", "host: $HOST\n");
    proxy.signs([("absolute form", &with_port(&proxy, &absolute), "200")]).await;
}

#[tokio::test]
async fn before_the_host_is_known_no_body_is_asked_for() {
    let proxy = guarded().await;
    let expecting = |host: &str, more: &str| {
        format!(
            "POST /api/external/jobs/list HTTP/1.1\nhost: {host}\nconnection: close\n{more}\
             expect: 100-continue\ncontent-length: 11\n\n"
        )
    };
    proxy
        .repels([
            ("foreign host", &expecting("evil.example", ""), "421 wrong_host"),
            ("foreign page", &expecting("$HOST", "origin: null\n"), "403 foreign_page"),
        ])
        .await;
    let asked = expecting("$HOST", "") + "{\"limit\":1}";
    proxy.signs([("own host", &asked, "100, 200")]).await;
}
