//! Keeps web pages out. A browser sends what a page wants to any address, this one too, and only says
//! where it wants it (`Host`) and who wants it (`Origin`, `Sec-Fetch-Site`).

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
};

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, Method, Uri,
        header::{
            AUTHORIZATION, CONNECTION, CONTENT_TYPE, HOST, ORIGIN, RETRY_AFTER, TRANSFER_ENCODING,
        },
        uri::Authority,
    },
    middleware::Next,
    response::{IntoResponse, Response},
};
use tower::{Layer, ServiceExt};
use tower_http::cors::CorsLayer;

use super::{
    header::{ERROR, IDEMPOTENCY_KEY, LAST_EVENT_ID, PAYMENT_ANSWERS, PAYMENTS, REQUEST_ID},
    peer::Peer,
    printable::printable,
};
use crate::{
    config::HostName,
    problem::Problem,
    problems::{FOREIGN_PAGE, TRANSFER_CODING, WRONG_HOST},
    proxy::{ADVICE_HEADER, ANSWER_HEADER},
    waiting::PREFER,
};

/// The relation of the page's origin to the target's (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// How it is fetched, and for what.
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Paths that only tell whether the proxy is there, to whatever name it is asked by.
const HEALTH: [&str; 2] = ["/healthz", "/readyz"];

/// Which names the proxy answers to, and which pages may call it.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Besides loopback names and the address that a connection reached.
    pub hosts: Vec<HostName>,
    /// As browsers write them.
    pub origins: Vec<String>,
    /// Whether browsers reach the proxy by `https`.
    pub is_https: bool,
}

/// Answers an allowed page with the CORS headers that its browser needs.
pub(super) async fn answer_page(origin: HeaderValue, request: Request, next: Next) -> Response {
    let Ok::<_, Infallible>(response) = cors(origin).layer(next).oneshot(request).await;
    response
}

/// Whether a browser opens the documentation for a person, who may have followed a link of any page. In a
/// frame, or as a part of a page, that is no visit.
fn is_visit(headers: &HeaderMap, path: &str) -> bool {
    let is = |name, value| headers.get_all(name).iter().eq([value]);
    (path == "/docs" || path.starts_with("/docs/manual/"))
        && !headers.contains_key(ORIGIN)
        && is(SEC_FETCH_MODE, "navigate")
        && is(SEC_FETCH_DEST, "document")
}

/// Whether the body comes as it is or in chunks. No client has a use for `gzip, chunked` or for `chunked`
/// twice, which servers read in different ways.
fn is_framed_plainly(headers: &HeaderMap) -> bool {
    let mut codings = headers.get_all(TRANSFER_ENCODING).iter();
    match (codings.next(), codings.next()) {
        (Some(coding), None) => coding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (first, _) => first.is_none(),
    }
}

/// Tells the browser that a page of this origin may call; for other pages and programs, there is
/// nothing to tell.
fn cors(origin: HeaderValue) -> CorsLayer {
    let allowed = [AUTHORIZATION, CONTENT_TYPE, IDEMPOTENCY_KEY, LAST_EVENT_ID, PREFER, REQUEST_ID];
    let exposed = [ERROR, REQUEST_ID, RETRY_AFTER, ADVICE_HEADER, ANSWER_HEADER];
    CorsLayer::new()
        .allow_origin(origin)
        .allow_methods([Method::GET, Method::POST, Method::PUT])
        .allow_headers(allowed.into_iter().chain(PAYMENTS).collect::<Vec<_>>())
        .expose_headers(exposed.into_iter().chain(PAYMENT_ANSWERS).collect::<Vec<_>>())
        .allow_private_network(true)
}

impl Guard {
    /// Refuses what comes from a page that is not allowed, or is meant for another server; gives the
    /// origin of a page that is allowed, for [`answer_page`].
    #[expect(clippy::result_large_err, reason = "it is an answer")]
    pub(super) fn check(&self, request: &Request) -> Result<Option<HeaderValue>, Response> {
        if !is_framed_plainly(request.headers()) {
            // A server in between may see the end of this request elsewhere, so nothing that follows it
            // is read.
            let detail = "the only Transfer-Encoding that is supported is chunked, once; send the body \
                          with a Content-Length, or in plain chunks";
            let problem = Problem::new(&TRANSFER_CODING, detail);
            return Err(([(CONNECTION, "close")], problem).into_response());
        }
        let local = request.extensions().get().and_then(|peer: &Peer| peer.local);
        let checked = self.check_head(request.headers(), request.uri(), local);
        checked.map_err(IntoResponse::into_response)
    }

    /// The origin of the page that a request comes from, if it is one that may call.
    fn check_head(
        &self,
        headers: &HeaderMap,
        uri: &Uri,
        local: Option<SocketAddr>,
    ) -> Result<Option<HeaderValue>, Problem> {
        let host = match HEALTH.contains(&uri.path()) {
            true => None,
            false => Some(self.check_host(headers, uri, local)?),
        };
        let checked = self.check_page(headers, host);
        // Only what is refused is looked at again: other calls pay nothing for it.
        checked
            .or_else(|problem| if is_visit(headers, uri.path()) { Ok(None) } else { Err(problem) })
    }

    /// Refuses foreign hosts: by DNS rebinding a page's own name can resolve to the proxy, but `Host` still
    /// has that name. Returns the host.
    fn check_host<'a>(
        &self,
        headers: &'a HeaderMap,
        uri: &Uri,
        local: Option<SocketAddr>,
    ) -> Result<&'a HeaderValue, Problem> {
        let wrong = |given: &str| wrong_host(given, local);
        let mut given = headers.get_all(HOST).iter();
        let host = match (given.next(), given.next()) {
            (Some(host), None) => host,
            (None, _) => return Err(wrong("there is no Host header")),
            (Some(_), Some(_)) => return Err(wrong("there are several Host headers")),
        };
        let is_served = |host: &Authority| self.serves(host, local);
        if !Authority::try_from(host.as_bytes()).is_ok_and(|host| is_served(&host)) {
            let host = String::from_utf8_lossy(host.as_bytes());
            return Err(wrong(&format!("the Host header is {}", printable(&host))));
        }
        match uri.authority().filter(|target| !is_served(target)) {
            Some(target) => {
                let target = printable(target.as_str());
                Err(wrong(&format!("the target of the request is at {target}")))
            }
            None => Ok(host),
        }
    }

    /// Whether a host is one of ours. Nothing else reaches a unix socket, which has no address.
    fn serves(&self, host: &Authority, local: Option<SocketAddr>) -> bool {
        let name = host.host().to_ascii_lowercase();
        let port = port(host);
        let Ok(port) = port else { return false };
        if self.hosts.iter().any(|own| own.name == name && (own.port.is_none() || own.port == port))
        {
            return true;
        }
        let Some(local) = local else { return name == "localhost" };
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        let is_ours = match bare.parse::<IpAddr>() {
            Ok(address) => local.ip().to_canonical() == address,
            Err(_) => name == "localhost" && local.ip().to_canonical().is_loopback(),
        };
        // Without a port, it is the one of the scheme.
        is_ours && port.map_or([80, 443].contains(&local.port()), |port| port == local.port())
    }

    /// Programs that are no browsers send neither header. Pages of the proxy itself need no CORS headers.
    fn check_page(
        &self,
        headers: &HeaderMap,
        host: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Problem> {
        let mut origins = headers.get_all(ORIGIN).iter();
        let own = match (origins.next(), origins.next()) {
            (Some(origin), None) if self.allows(origin) => return Ok(Some(origin.clone())),
            (Some(origin), None) if self.is_own(origin, host) => &["same-origin"][..],
            (Some(origin), None) if origin != "null" => {
                let origin = String::from_utf8_lossy(origin.as_bytes());
                return Err(foreign_page(Some(&printable(&origin))));
            }
            (Some(_), _) => return Err(foreign_page(None)),
            (None, _) => &["same-origin", "none"],
        };
        let mut sites = headers.get_all(SEC_FETCH_SITE).iter();
        if sites.all(|site| own.iter().any(|own| site == own)) {
            Ok(None)
        } else {
            Err(foreign_page(None))
        }
    }

    fn allows(&self, origin: &HeaderValue) -> bool {
        self.origins.iter().any(|allowed| origin == allowed)
    }

    /// Whether an origin is the proxy's at this host, which was accepted. Another port is another server.
    fn is_own(&self, origin: &HeaderValue, host: Option<&HeaderValue>) -> bool {
        let scheme: &[u8] = if self.is_https { b"https://" } else { b"http://" };
        let named = origin.as_bytes().strip_prefix(scheme);
        named.is_some() && named == host.map(HeaderValue::as_bytes)
    }
}

/// `given` says which host the request names, and `local` is where it arrived.
fn wrong_host(given: &str, local: Option<SocketAddr>) -> Problem {
    let own = local.map_or_else(|| "localhost".to_owned(), |local| local.to_string());
    let detail = format!(
        "{given}, which is not this proxy: use {own}, where the request arrived, or add the name to \
         allowed_hosts"
    );
    Problem::new(&WRONG_HOST, detail)
}

/// `origin` is that of the page, if it says one.
fn foreign_page(origin: Option<&str>) -> Problem {
    let detail = match origin {
        Some(origin) => format!(
            "the request comes from the web page {origin}, and pages may not use the wallet; to allow it, \
             add {origin} to allowed_origins"
        ),
        None => "the request comes from a web page that does not say its origin, and pages may not use the \
                 wallet; a page that says it can be added to allowed_origins"
            .to_owned(),
    };
    Problem::new(&FOREIGN_PAGE, detail)
}

/// The port of a host, if it has one. A name of a user before the host, or an empty port, is none
/// that a client of ours sends.
fn port(host: &Authority) -> Result<Option<u16>, ()> {
    let text = host.as_str();
    match host.port_u16() {
        _ if text.contains('@') || text.ends_with(':') => Err(()),
        None if text.len() != host.host().len() => Err(()),
        port => Ok(port),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guard() -> Guard {
        let named = |name: &str, port| HostName { name: name.to_owned(), port };
        Guard {
            hosts: vec![named("proxy.example", None), named("other.example", Some(1))],
            origins: vec!["https://app.example".to_owned()],
            is_https: false,
        }
    }

    fn passes(headers: &[(&HeaderName, &str)], uri: &str, local: &str) -> bool {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        guard().check_head(&map, &uri.parse().unwrap(), local.parse().ok()).is_ok()
    }

    fn serves(host: &str, local: &str) -> bool {
        passes(&[(&HOST, host)], "/proxy/status", local)
    }

    #[test]
    fn loopback_names_and_the_reached_address_are_ours_with_our_port() {
        for host in [
            "127.0.0.1:8402",
            "localhost:8402",
            "LocalHost:8402",
            "proxy.example",
            "Proxy.Example:9",
            "other.example:1",
        ] {
            assert!(serves(host, "127.0.0.1:8402"), "{host}");
        }
        assert!(serves("[::1]:8402", "[::1]:8402") && serves("localhost:8402", "[::1]:8402"));
        assert!(serves("10.1.2.3:8402", "10.1.2.3:8402"));
        assert!(serves("localhost", "127.0.0.1:80") && serves("localhost", "127.0.0.1:443"));
        assert!(serves("localhost", "") && serves("localhost:1", ""), "over a unix socket");
    }

    #[test]
    fn any_other_name_is_somebody_elses() {
        for host in [
            "evil.example",
            "evil.example:8402",
            "localhost",
            "localhost:1",
            "127.0.0.1",
            "127.0.0.1:80",
            "127.0.0.2:8402",
            "127.1:8402",
            "2130706433:8402",
            "0x7f000001:8402",
            "0.0.0.0:8402",
            "localhost.:8402",
            "localhost.evil.example:8402",
            "me@localhost:8402",
            "localhost:",
            "localhost:08402x",
            "[::1]:8402",
            "[::ffff:127.0.0.1]:8402",
            "other.example",
            "sub.proxy.example",
            "",
        ] {
            assert!(!serves(host, "127.0.0.1:8402"), "{host}");
        }
        assert!(!serves("localhost:8402", "10.1.2.3:8402"), "nor is localhost another machine");
        assert!(!serves("evil.example", ""), "nor over a unix socket");
    }

    #[test]
    fn one_host_is_named_and_the_target_has_no_other() {
        let local = "127.0.0.1:8402";
        assert!(!passes(&[], "/proxy/status", local));
        let twice = [(&HOST, "127.0.0.1:8402"), (&HOST, "127.0.0.1:8402")];
        assert!(!passes(&twice, "/proxy/status", local));
        let host = [(&HOST, "127.0.0.1:8402")];
        assert!(passes(&host, "http://localhost:8402/proxy/status", local));
        assert!(!passes(&host, "http://evil.example/proxy/status", local));
        assert!(passes(&[], "/healthz", local) && passes(&[], "/readyz", local));
    }

    #[test]
    fn what_a_page_sends_is_refused_unless_its_origin_is_listed() {
        let from = |more: &[(&HeaderName, &str)]| {
            let headers = [&[(&HOST, "127.0.0.1:8402")], more].concat();
            passes(&headers, "/proxy/status", "127.0.0.1:8402")
        };
        assert!(from(&[]) && from(&[(&ORIGIN, "https://app.example")]));
        assert!(from(&[(&ORIGIN, "https://app.example"), (&SEC_FETCH_SITE, "cross-site")]));
        for origin in [
            "null",
            "",
            "http://app.example",
            "https://app.example:444",
            "https://sub.app.example",
            "https://app.example.evil.example",
            "https://APP.example",
            "https://evil.example",
        ] {
            assert!(!from(&[(&ORIGIN, origin)]), "{origin:?}");
        }
        let two = [(&ORIGIN, "https://app.example"), (&ORIGIN, "https://evil.example")];
        assert!(!from(&two));
        for site in ["cross-site", "same-site", "", "Same-Origin", "none, cross-site"] {
            assert!(!from(&[(&SEC_FETCH_SITE, site)]), "{site:?}");
        }
        assert!(from(&[(&SEC_FETCH_SITE, "same-origin")]) && from(&[(&SEC_FETCH_SITE, "none")]));
        assert!(!from(&[(&SEC_FETCH_SITE, "none"), (&SEC_FETCH_SITE, "cross-site")]));
    }

    #[test]
    fn a_page_of_the_proxy_itself_may_call_and_one_of_another_port_name_or_scheme_may_not() {
        let passes = |guard: &Guard, path: &str, host: &str, more: &[(&HeaderName, &str)]| {
            let headers = [&[(&HOST, host)], more].concat();
            let headers = headers
                .iter()
                .map(|(name, value)| ((*name).clone(), HeaderValue::from_str(value).unwrap()));
            let local = "127.0.0.1:8402".parse().ok();
            guard.check_head(&headers.collect(), &path.parse().unwrap(), local).ok()
        };
        let is_own = |guard: &Guard, host: &str, origin: &str| {
            passes(guard, "/proxy/status", host, &[(&ORIGIN, origin)]) == Some(None)
        };
        let (http, https) = (guard(), Guard { is_https: true, ..guard() });
        for host in ["127.0.0.1:8402", "localhost:8402", "proxy.example", "proxy.example:9"] {
            for (own, other) in [(&http, &https), (&https, &http)] {
                let scheme = if own.is_https { "https" } else { "http" };
                let origin = format!("{scheme}://{host}");
                assert!(is_own(own, host, &origin), "{origin}");
                assert!(!is_own(other, host, &origin), "{origin}");
            }
        }
        for (host, origin) in [
            ("127.0.0.1:8402", "http://127.0.0.1:8403"),
            ("127.0.0.1:8402", "http://127.0.0.1"),
            ("127.0.0.1:8402", "http://localhost:8402"),
            ("127.0.0.1:8402", "http://127.0.0.1:8402/"),
            ("127.0.0.1:8402", "127.0.0.1:8402"),
            ("proxy.example", "http://proxy.example:9"),
            ("proxy.example:9", "http://proxy.example"),
            ("evil.example:8402", "http://evil.example:8402"),
        ] {
            assert!(!is_own(&http, host, origin), "{origin} of {host}");
        }
        let (host, origin) = ("127.0.0.1:8402", (&ORIGIN, "http://127.0.0.1:8402"));
        let from = |site| passes(&http, "/proxy/status", host, &[origin, (&SEC_FETCH_SITE, site)]);
        assert!(from("same-origin").is_some());
        for site in ["none", "same-site", "cross-site", ""] {
            assert!(from(site).is_none(), "{site}");
        }
        let rebound = [(&ORIGIN, "http://evil.example:8402")];
        assert!(passes(&http, "/healthz", "evil.example:8402", &rebound).is_none());
    }

    #[test]
    fn a_person_may_open_the_documentation_from_any_page_and_nothing_else() {
        let visit = |path: &str, headers: &[(&HeaderName, &str)]| {
            let headers = [&[(&HOST, "127.0.0.1:8402"), (&SEC_FETCH_SITE, "cross-site")], headers];
            passes(&headers.concat(), path, "127.0.0.1:8402")
        };
        let opens = [(&SEC_FETCH_MODE, "navigate"), (&SEC_FETCH_DEST, "document")];
        assert!(visit("/docs", &opens) && visit("/docs/manual/api", &opens));
        for path in ["/docs/start.js", "/docs/", "/openapi.json", "/proxy/status", "/healthz"] {
            assert!(!visit(path, &opens), "{path}");
        }
        for (mode, dest) in [("navigate", "iframe"), ("no-cors", "document"), ("no-cors", "script")]
        {
            let fetches = [(&SEC_FETCH_MODE, mode), (&SEC_FETCH_DEST, dest)];
            assert!(!visit("/docs", &fetches), "{mode} {dest}");
        }
        let from = |origin| [&opens[..], &[(&ORIGIN, origin)]].concat();
        assert!(!visit("/docs", &from("null")) && !visit("/docs", &from("https://evil.example")));
        let elsewhere = [&[(&HOST, "evil.example:8402")], &opens[..]].concat();
        assert!(!passes(&elsewhere, "/docs", "127.0.0.1:8402"));
    }
}
