//! The variables that name a proxy for the upstream.

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

/// Checks the proxy variable that applies to the upstream: the HTTP client would ignore one that it
/// cannot read, and connect directly against the user's wish.
///
/// # Errors
/// The advice on what to set instead.
pub(super) fn check(
    upstream: &Uri,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let proxy =
        |all: &str, no: &str| Matcher::builder().all(all).no(no).build().intercept(upstream);
    let excepted = ["NO_PROXY", "no_proxy"].into_iter().find_map(&variable).unwrap_or_default();
    if proxy("http://proxy.example", &excepted).is_none() {
        return Ok(());
    }
    let set = |name| Some((name, variable(name).filter(|value| !value.is_empty())?));
    let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
    let Some((name, value)) = names.into_iter().find_map(set) else { return Ok(()) };
    let proxy = proxy(&value, "");
    if proxy.is_some_and(|proxy| matches!(proxy.uri().scheme_str(), Some("http" | "https"))) {
        return Ok(());
    }
    Err(format!("{name} is not the address of an HTTP proxy, as in http://host:3128"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_variable_that_is_no_proxy_is_refused() {
        let check = |given: &str| check_variables(&[("HTTPS_PROXY", given)]);
        for good in ["", "http://proxy:3128", "https://user:pw@proxy", "proxy:3128", "10.0.0.1:80"]
        {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in ["not a url", "ftp://proxy", "x://", "::bad", "socks5://proxy:1080"] {
            let error = check(bad).unwrap_err();
            assert!(error.contains("HTTPS_PROXY") && !error.contains(bad), "{bad}: {error}");
        }
    }

    #[test]
    fn a_proxy_variable_that_is_not_used_is_not_looked_at() {
        let socks = "socks5h://127.0.0.1:9";
        let good = "http://proxy:3128";
        assert!(check_variables(&[("ALL_PROXY", socks)]).is_err());
        for used in [("HTTPS_PROXY", good), ("NO_PROXY", "upstream.example"), ("no_proxy", "*")] {
            assert!(check_variables(&[("ALL_PROXY", socks), used]).is_ok(), "{used:?}");
        }
        assert!(check_variables(&[("ALL_PROXY", socks), ("NO_PROXY", "other.example")]).is_err());
    }

    fn check_variables(variables: &[(&str, &str)]) -> Result<(), String> {
        let upstream = Uri::from_static("https://upstream.example");
        let value = |name: &str| variables.iter().find(|(given, _)| *given == name);
        super::check(&upstream, |name| value(name).map(|(_, value)| (*value).to_owned()))
    }
}
