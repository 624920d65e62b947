//! Cross-field checks of `[spending]`.

use std::fmt::Write;

use super::{asset::AssetConfig, settings::SpendingConfig};
use crate::types::{Amount, BaseUnits};

impl SpendingConfig {
    /// The payments that it allows, for people; `None` if it allows none.
    pub fn describe(&self) -> Option<String> {
        let (wallet, call) = (self.wallet?, self.max_per_call?);
        let (day, month) = (self.per_day?, self.per_month?);
        let mut text =
            format!("from {wallet}, at most {call} a call, {day} in 24 hours, {month} in 30 days");
        if let Some(above) = self.approve_above {
            // A string takes all that is written to it.
            let _ = write!(text, "; above {above} only if approved");
        }
        Some(text)
    }

    /// The limits that have no effect beside others, each with the reason.
    pub fn doubts(&self) -> Vec<String> {
        let limits = [
            ("max_per_call", self.max_per_call),
            ("per_day", self.per_day),
            ("per_month", self.per_month),
        ];
        let mut doubts = Vec::new();
        for (at, (name, limit)) in limits.iter().enumerate() {
            let less =
                limits[at + 1..].iter().find(|(_, other)| self.units(*other) < self.units(*limit));
            if let (Some(limit), Some((other, Some(less)))) = (limit, less) {
                doubts.push(format!(
                    "spending.{name} is {limit}, and spending.{other} lets no more than {less} be paid"
                ));
            }
        }
        if let (Some(above), Some(most)) = (self.approve_above, self.max_per_call)
            && self.units(Some(above)) >= self.units(Some(most))
        {
            doubts.push(format!(
                "spending.approve_above is {above}, and spending.max_per_call lets no more than {most} be \
                 paid, so no payment waits for approval"
            ));
        }
        doubts
    }

    fn units(&self, amount: Option<Amount>) -> Option<BaseUnits> {
        amount?.to_base_units(self.assets.first()?.decimals)
    }

    /// The settings that lack others or contradict them: if there is any, all but `approve_above` must be.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, String)> {
        let limits = [
            ("spending.max_per_call", self.max_per_call),
            ("spending.per_day", self.per_day),
            ("spending.per_month", self.per_month),
        ];
        let all_limits = limits.into_iter().chain([("spending.approve_above", self.approve_above)]);
        let mut is_there = vec![
            ("spending.wallet", self.wallet.is_some()),
            ("spending.networks", !self.networks.is_empty()),
            ("spending.payees", !self.payees.is_empty()),
            ("spending.resources", !self.resources.is_empty()),
            ("spending.assets", !self.assets.is_empty()),
        ];
        is_there.extend(limits.iter().map(|(key, limit)| (*key, limit.is_some())));
        let is_begun = is_there.iter().any(|(_, there)| *there) || self.approve_above.is_some();
        let lacking = is_there.into_iter().filter(|(_, there)| is_begun && !there);
        let mut found: Vec<_> = lacking
            .map(|(key, _)| {
                (key, "without it nothing is paid; set it, or leave out [spending]".to_owned())
            })
            .collect();
        let Some(decimals) = self.assets.first().map(|asset| asset.decimals) else { return found };
        if self.assets.iter().any(|asset| asset.decimals != decimals) {
            let problem = "the limits count all tokens together, so all need the same decimals";
            found.push(("spending.assets", problem.to_owned()));
        }
        let is_nowhere =
            |asset: &AssetConfig| !self.networks.iter().any(|network| asset.may_be_on(*network));
        let lost = self.assets.iter().find(|asset| is_nowhere(asset));
        if let Some(asset) = lost.filter(|_| !self.networks.is_empty()) {
            let address = asset.address;
            found.push(("spending.assets", format!("{address} is on none of spending.networks")));
        }
        for (key, limit) in all_limits {
            let Some(limit) = limit else { continue };
            let units = limit.to_base_units(decimals).map(|units| i64::try_from(units.number()));
            if !matches!(units, Some(Ok(1..))) {
                let problem = format!(
                    "expected more than 0, with at most {decimals} digits behind the point, and less \
                     than 2^63 of the smallest unit"
                );
                found.push((key, problem));
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, iter};

    use super::super::settings::Config;

    const WHOLE: &str = "[spending]
        wallet = '0x17c5185167401eD00cF5F5b2fc97D9BBfDb7D025'
        networks = ['eip155:8453', 'eip155:84532']
        payees = '0x1111111111111111111111111111111111111111'
        resources = ['https://www.agentpmt.com/api/external/credits/purchase']
        max_per_call = '5'
        per_day = '20.5'
        per_month = '100'
        [[spending.assets]]
        address = '0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913'
        decimals = 6
        name = 'USD Coin'
        version = '2'";

    /// The configuration of a text, or its mistakes without the name of the file.
    fn load(text: &str) -> Result<Config, Vec<String>> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("p.toml");
        fs::write(&path, text).unwrap();
        let prefix = format!("{}:", path.display());
        Config::load(Some(&path), iter::empty(), &[])
            .map_err(|m| m.to_string().lines().map(|line| line.replace(&prefix, "")).collect())
    }

    #[test]
    fn spending_is_read_as_it_is_written() {
        let spending = load(WHOLE).unwrap().spending;
        assert_eq!(spending.networks.len(), 2);
        assert_eq!(spending.per_day.unwrap().to_string(), "20.5");
        assert_eq!(spending.approve_above, None);
        let asset = &spending.assets[0];
        assert_eq!((&*asset.name, &*asset.version, asset.decimals), ("USD Coin", "2", 6));
        assert!(asset.may_be_on(spending.networks[0]) && !asset.may_be_on(spending.networks[1]));
    }

    #[test]
    fn it_is_told_what_is_allowed_and_which_limits_have_no_effect() {
        let of = |text: &str| load(text).unwrap().spending;
        let whole = of(WHOLE);
        assert_eq!((of("").describe(), whole.doubts()), (None, Vec::new()));
        let allowed = "from 0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025, at most 5 a call, 20.5 in 24 \
                       hours, 100 in 30 days";
        assert_eq!(whole.describe().unwrap(), allowed);
        let odd = WHOLE.replace("'5'", "'20.50'\napprove_above = '20.5'").replace("'100'", "'20'");
        let odd = of(&odd);
        assert!(odd.describe().unwrap().ends_with("; above 20.5 only if approved"));
        assert_eq!(
            odd.doubts(),
            [
                "spending.max_per_call is 20.5, and spending.per_month lets no more than 20 be paid",
                "spending.per_day is 20.5, and spending.per_month lets no more than 20 be paid",
                "spending.approve_above is 20.5, and spending.max_per_call lets no more than 20.5 be paid, \
                 so no payment waits for approval",
            ]
        );
    }

    #[test]
    fn spending_is_whole_or_not_there() {
        let whole: Vec<_> = WHOLE.split("[[spending").next().unwrap().lines().skip(1).collect();
        for line in whole.iter().filter(|line| !line.trim().is_empty()) {
            let key = line.split_whitespace().next().unwrap();
            let expected = format!(
                "spending.{key}: without it nothing is paid; set it, or leave out [spending]"
            );
            assert_eq!(load(&WHOLE.replace(line, "")).unwrap_err(), [expected]);
        }
        let only = load("[spending]\napprove_above = '1'").unwrap_err();
        assert_eq!(only.len(), 8, "{only:#?}");
    }

    #[test]
    fn every_mistake_of_spending_has_its_line() {
        for (from, to, expected) in [
            (
                "'5'",
                "5.0",
                "6: spending.max_per_call: expected a string in quotes, found float: write max_per_call = \"5.0\"",
            ),
            (
                "'2'",
                "2",
                "13: spending.assets.version: expected a string in quotes, found integer: write",
            ),
            ("'5'", "'5e0'", "6: spending.max_per_call: an amount is digits"),
            ("'5'", "'-5'", "6: spending.max_per_call: an amount is digits"),
            ("'5'", "'0'", "6: spending.max_per_call: expected more than 0"),
            (
                "'5'",
                "'0.0000001'",
                "6: spending.max_per_call: expected more than 0, with at most 6",
            ),
            ("'20.5'", "'9223372036854.8'", "7: spending.per_day: expected more than 0"),
            ("'eip155:8453'", "'base'", "3: spending.networks: a network is eip155: and"),
            ("payees = '0x1", "payees = '1", "4: spending.payees: an address is 0x and"),
            ("https://www", "www", "5: spending.resources: expected a whole URL"),
            ("credits/purchase", "*", "5: spending.resources: there are no wildcards"),
            ("= 6", "= 19", "11: spending.assets.decimals: expected a whole number up to 18"),
            ("= 6", "= '6'", "11: spending.assets.decimals: expected a number such as 6, found"),
            (
                "USD Coin",
                "USDC",
                "9: spending.assets: the domain of 0x833589fcd6edb6e08f4c7c32d4f71b",
            ),
            (
                "'eip155:8453', ",
                "",
                "9: spending.assets: 0x833589fcd6edb6e08f4c7c32d4f71b54bda02913 is on none",
            ),
            ("version", "verson", "9: spending.assets: a table of it lacks version"),
        ] {
            let mistakes = load(&WHOLE.replace(from, to)).unwrap_err();
            assert!(mistakes[0].starts_with(expected), "{mistakes:#?}");
            assert!(!mistakes.iter().any(|one| one.contains("without it")), "{mistakes:#?}");
        }
        let misspelt = load(&WHOLE.replace("[spending]", "[spend]")).unwrap_err();
        assert_eq!(misspelt, ["1: spend: no such setting; did you mean spending?"]);
        let two =
            format!("{WHOLE}\n{}", WHOLE.split_once("[[").unwrap().1.replace("833589", "933589"));
        let two = two.replacen("spending.assets]]", "[[spending.assets]]", 2).replace("[[[[", "[[");
        let mistakes = load(&two.replacen("= 6", "= 18", 1)).unwrap_err();
        assert!(mistakes[0].contains("all need the same decimals"), "{mistakes:#?}");
    }
}
