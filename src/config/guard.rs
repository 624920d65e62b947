//! Which names the proxy answers to and which web pages may call it, as written in settings.

use std::net::IpAddr;

use reqwest::Url;

use super::{given::Given, mistake::InvalidSetting};

/// The host of an address that clients use, and its port if it is that one only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    /// In lower case; an IPv6 address in brackets.
    pub name: String,
    /// Without it, any.
    pub port: Option<u16>,
}

pub(super) fn host(given: &Given<'_>) -> Result<HostName, InvalidSetting> {
    parse_host(given.text()?).ok_or(
        "expected the name or address of a host, with or without a port, such as proxy.example"
            .into(),
    )
}

/// The origin of a web page, as a browser writes it.
pub(super) fn origin(given: &Given<'_>) -> Result<String, InvalidSetting> {
    parse_origin(given.text()?)
        .ok_or("expected scheme, host and port of a web page, such as https://app.example".into())
}

fn parse_host(text: &str) -> Option<HostName> {
    // An address without brackets would have its last part taken for a port.
    if text.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()) {
        return None;
    }
    let (name, port) = match text.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, Some(port.parse().ok()?)),
        _ => (text, None),
    };
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b".-_".contains(&byte);
    let is_name = !name.is_empty() && name.bytes().all(known);
    let is_address = || {
        let inner = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        inner.is_some_and(|inner| inner.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6()))
    };
    (is_name || is_address()).then(|| HostName { name: name.to_ascii_lowercase(), port })
}

fn parse_origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let origin = url.origin();
    // A browser sends `null` for every page without an origin of its own.
    let is_whole =
        origin.is_tuple() && url.as_str().trim_end_matches('/') == origin.ascii_serialization();
    (is_whole && url.path() == "/").then(|| origin.ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
        let hosts = |text| Given::of_variable(text).each(host);
        let parsed = hosts("Proxy.Example, proxy:8402,10.0.0.1:1,[::1], [::1]:2,").unwrap();
        let texts: Vec<_> = parsed.iter().map(|host| (host.name.as_str(), host.port)).collect();
        let expected = [
            ("proxy.example", None),
            ("proxy", Some(8402)),
            ("10.0.0.1", Some(1)),
            ("[::1]", None),
            ("[::1]", Some(2)),
        ];
        assert_eq!(texts, expected);
        assert_eq!(hosts(""), Ok(vec![]));
        for text in
            ["*", "http://a", "a b", "a/b", "a:x", "a:70000", "::1", "[a]", "a@b", ":1", "ä"]
        {
            assert!(hosts(text).unwrap_err().to_string().contains("of a host"), "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_as_a_browser_writes_it() {
        let origins = |text| Given::of_variable(text).each(origin);
        let parsed = origins("https://App.Example, http://localhost:3000,https://a.example:443/");
        let expected = ["https://app.example", "http://localhost:3000", "https://a.example"];
        assert_eq!(parsed.unwrap(), expected);
        for text in
            ["*", "null", "app.example", "https://a/b", "https://a?b", "file:///x", "https://u@a"]
        {
            assert!(origins(text).unwrap_err().to_string().contains("of a web page"), "{text}");
        }
    }
}
