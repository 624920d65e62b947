//! Cross-field checks: settings that contradict each other, and those that a reload cannot change.

use super::{Config, ListenAddress, settings::SETTINGS, value::InvalidSetting};
use crate::types::Address;

impl Config {
    /// Whether what other machines send comes over TLS.
    pub fn is_covered(&self) -> bool {
        self.behind_tls_proxy || self.tls.certificate.is_some()
    }

    /// Whether a wallet is one of those that are opened, as far as the settings name them.
    fn opens(&self, wallet: Address) -> bool {
        self.wallets.is_empty() || self.wallets.iter().any(|opened| opened.address == wallet)
    }

    /// The settings that differ from another configuration and take effect only at a start.
    pub fn fixed_changes(&self, other: &Self) -> Vec<&'static str> {
        let changed =
            SETTINGS.iter().filter(|s| s.fixed.is_some_and(|differs| differs(self, other)));
        changed.map(|setting| setting.key).collect()
    }

    /// The settings that contradict others, each with the reason.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, InvalidSetting)> {
        let tls = &self.tls;
        let exposed = self.listen.iter().find_map(|address| match address {
            ListenAddress::Tcp(exposed) if address.is_exposed() => Some(*exposed),
            _ => None,
        });
        let is_own = |to| self.listen.iter().any(|address| address.takes(to));
        let found = [
            (
                "wallet",
                self.wallet.is_some_and(|wallet| !self.opens(wallet)),
                InvalidSetting::NotAmong,
            ),
            ("upstream.url", self.upstream.url.addresses().any(is_own), InvalidSetting::OwnAddress),
            (
                "tls.certificate",
                tls.certificate.is_some() && tls.key.is_none(),
                InvalidSetting::Alone("tls.key"),
            ),
            (
                "tls.key",
                tls.key.is_some() && tls.certificate.is_none(),
                InvalidSetting::Alone("tls.certificate"),
            ),
            (
                "tls.client_ca",
                tls.client_ca.is_some() && tls.certificate.is_none(),
                InvalidSetting::Alone("tls.certificate"),
            ),
        ];
        let exposed = exposed.filter(|_| !self.is_covered());
        let exposed = exposed.map(|address| ("listen", InvalidSetting::Exposed(address)));
        let wrong = found.into_iter().filter(|(_, is_so, _)| *is_so);
        wrong.map(|(key, _, problem)| (key, problem)).chain(exposed).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::iter;

    use super::*;

    /// The configuration of this text, or its mistakes without the name of the file.
    fn load(text: &str) -> Result<Config, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}:", path.display());
        Config::load(Some(&path), iter::empty(), &[])
            .map_err(|m| m.to_string().lines().map(|line| line.replace(&prefix, "")).collect())
    }

    #[test]
    fn an_exposed_address_needs_tls_or_a_proxy_that_has_it() {
        let listen = "listen = ['127.0.0.1:1', '0.0.0.0:2']\n";
        let mistakes = load(&format!("\n{listen}")).unwrap_err();
        let [mistake] = &*mistakes else { panic!("{mistakes:?}") };
        for words in
            ["2: listen: ", "0.0.0.0:2", "tls.certificate", "tls.key", "behind_tls_proxy = true"]
        {
            assert!(mistake.contains(words), "{words}: {mistake}");
        }
        for cover in ["behind_tls_proxy = true", "tls = {certificate = 'c', key = 'k'}"] {
            assert!(load(&format!("{listen}{cover}")).unwrap().is_covered(), "{cover}");
        }
    }

    #[test]
    fn an_upstream_is_not_the_proxy_itself() {
        let says = "upstream.url: it is one of the addresses that this proxy listens on; set it to the API";
        let load = |listen: &str, url: &str| {
            let cover = "behind_tls_proxy = true";
            load(&format!("{cover}\nlisten = '{listen}'\n[upstream]\nurl = '{url}'"))
        };
        for (listen, url) in [
            ("127.0.0.1:9961", "http://127.0.0.1:9961"),
            ("127.0.0.1:9961", "http://localhost:9961"),
            ("localhost:9961", "http://[::1]:9961"),
            ("unix:p,[::1]:80", "http://localhost"),
            ("0.0.0.0:443", "https://127.0.0.1"),
            ("192.0.2.1:443", "https://192.0.2.1"),
        ] {
            assert_eq!(load(listen, url).unwrap_err(), [format!("4: {says}")], "{listen} {url}");
        }
        for (listen, url) in [
            ("127.0.0.1:9961", "http://127.0.0.1:9962"),
            ("127.0.0.1:9961", "http://[::1]:9961"),
            ("127.0.0.1:0", "http://127.0.0.1:0"),
            ("localhost:9961,systemd", "http://127.0.0.2:9961"),
            ("0.0.0.0:443", "https://www.agentpmt.com"),
        ] {
            assert!(load(listen, url).is_ok(), "{listen} {url}");
        }
    }

    #[test]
    fn half_of_tls_is_a_mistake() {
        let cases = [
            ("[tls]\ncertificate = 'c'", "2: tls.certificate: it needs tls.key as well"),
            ("[tls]\nkey = 'k'", "2: tls.key: it needs tls.certificate as well"),
            ("[tls]\n\nclient_ca = 'a'", "3: tls.client_ca: it needs tls.certificate as well"),
        ];
        for (text, expected) in cases {
            assert_eq!(load(text).unwrap_err(), [expected]);
        }
    }

    #[test]
    fn a_reload_may_renew_tls_but_not_begin_it() {
        let changes = |from: &str, to: &str| load(from).unwrap().fixed_changes(&load(to).unwrap());
        let tls = "[tls]\ncertificate = 'c'\nkey = 'k'";
        let renewed = "[tls]\ncertificate = 'd'\nkey = 'l'\nclient_ca = 'm'";
        let live = "max_in_flight = 1\nexpose_workflow_token = true\nlog.level = 'warn'\n";
        let absolute = "keys = '/k'\nstate = '/s'\n";
        let with = |text: &str| format!("{absolute}{text}");
        assert_eq!(changes(&with(tls), &with(&format!("{live}{renewed}"))), [] as [&str; 0]);
        assert_eq!(changes(&with(""), &with(tls)), ["tls.certificate"]);
        assert_eq!(changes(&with(tls), &with("")), ["tls.certificate"]);
        let fixed = "listen = 'unix:/x'\n[upstream]\ntimeout = '1s'\n[log]\nformat = 'json'";
        let expected = ["listen", "upstream.timeout", "log.format"];
        assert_eq!(changes(&with(""), &with(fixed)), expected);
    }
}
