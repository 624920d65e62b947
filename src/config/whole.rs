//! Cross-field checks: settings that contradict each other, and those that a reload cannot change.

use std::{collections::HashSet, path::PathBuf};

use super::settings::{Applies, Config, SETTINGS, TlsConfig};

impl Config {
    /// The file of the store, in the folder `state`.
    pub fn database(&self) -> PathBuf {
        self.state.join("proxy.db")
    }

    /// Whether what other machines send comes over TLS.
    pub fn is_covered(&self) -> bool {
        self.behind_tls_proxy || self.tls.certificate.is_some()
    }

    /// The settings that differ from another configuration and take effect only at a start.
    pub fn fixed_changes(&self, other: &Self) -> Vec<&'static str> {
        let fixed = SETTINGS.iter().filter(|setting| setting.applies == Applies::AtStart);
        let changed = fixed.filter(|setting| (setting.differs)(self, other));
        let changed = changed.map(|setting| setting.key);
        // A certificate may be renewed, but ports that speak TLS do so from the start.
        let tls = self.tls.certificate.is_some() != other.tls.certificate.is_some();
        changed.chain(tls.then_some("tls.certificate")).collect()
    }

    /// The settings that contradict others, each with the reason.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let mut found = Vec::new();
        let mut check = |key, is_wrong: bool, problem: &str| {
            found.extend(is_wrong.then(|| (key, problem.to_owned())));
        };
        check("listen", self.listen.is_empty(), "name at least one place to listen at");
        let addresses: HashSet<_> = self.wallets.iter().map(|wallet| wallet.address).collect();
        let is_twice = addresses.len() < self.wallets.len();
        check("wallets", is_twice, "a wallet stands there twice; name each once");
        check(
            "wallet",
            self.wallet
                .is_some_and(|wallet| !self.wallets.is_empty() && !addresses.contains(&wallet)),
            "it is none of [[wallets]]; name one of them, or add it there",
        );
        let is_own = |to| self.listen.iter().any(|address| address.takes(to));
        check(
            "upstream.url",
            self.upstream.url.addresses().any(is_own),
            "it is one of the addresses that this proxy listens on; set it to the API",
        );
        let TlsConfig { certificate, key, client_ca } = &self.tls;
        for (name, has, needs, other) in [
            ("tls.certificate", certificate, key, "tls.key"),
            ("tls.key", key, certificate, "tls.certificate"),
            ("tls.client_ca", client_ca, certificate, "tls.certificate"),
        ] {
            let is_alone = has.is_some() && needs.is_none();
            check(name, is_alone, &format!("it needs {other} as well"));
        }
        let exposed = self.listen.iter().find(|address| address.is_exposed());
        if let Some(address) = exposed.filter(|_| !self.is_covered()) {
            check(
                "listen",
                true,
                &format!(
                    "other machines reach {address}, and tokens must not cross the network in the clear, \
                 so it needs TLS: set tls.certificate and tls.key, or behind_tls_proxy = true if a \
                 proxy in front terminates TLS; or listen on loopback only (127.0.0.1, [::1] or \
                 localhost)"
                ),
            );
        }
        check(
            "spending.wallet",
            self.spending
                .wallet
                .is_some_and(|payer| !self.wallets.is_empty() && !addresses.contains(&payer)),
            "it is none of [[wallets]]; name one of them, or add it there",
        );
        found.extend(self.spending.contradictions());
        found
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
