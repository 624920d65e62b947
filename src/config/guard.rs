//! Which names the proxy answers to and which web pages may call it, as written in settings.

use std::net::IpAddr;

use reqwest::Url;

use super::value::InvalidSetting;

/// The host of an address that clients use, and its port if it is that one only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostName {
    /// In lower case; an IPv6 address in brackets.
    pub name: String,
    /// Without it, any.
    pub port: Option<u16>,
}

/// Names with commas between them; none in an empty text.
pub(super) fn hosts(text: &str) -> Result<Vec<HostName>, InvalidSetting> {
    items(text).map(|item| host(item).ok_or(InvalidSetting::Host)).collect()
}

/// Origins of web pages, as a browser writes them, with commas between them; none in an empty text.
pub(super) fn origins(text: &str) -> Result<Vec<String>, InvalidSetting> {
    items(text).map(|item| origin(item).ok_or(InvalidSetting::Origin)).collect()
}

fn items(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn host(text: &str) -> Option<HostName> {
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

fn origin(text: &str) -> Option<String> {
    let url = Url::parse(text).ok()?;
    let origin = url.origin();
    // What has no origin of its own is `null` to a browser, and so is every other such page.
    let is_whole =
        origin.is_tuple() && url.as_str().trim_end_matches('/') == origin.ascii_serialization();
    (is_whole && url.path() == "/").then(|| origin.ascii_serialization())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_a_name_or_an_address_with_or_without_a_port() {
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
            assert_eq!(hosts(text), Err(InvalidSetting::Host), "{text}");
        }
    }

    #[test]
    fn an_origin_is_scheme_host_and_port_as_a_browser_writes_it() {
        let parsed = origins("https://App.Example, http://localhost:3000,https://a.example:443/");
        let expected = ["https://app.example", "http://localhost:3000", "https://a.example"];
        assert_eq!(parsed.unwrap(), expected);
        for text in
            ["*", "null", "app.example", "https://a/b", "https://a?b", "file:///x", "https://u@a"]
        {
            assert_eq!(origins(text), Err(InvalidSetting::Origin), "{text}");
        }
    }
}
