//! Limits of a new client that limit nothing, which its owner may not expect.

use crate::{
    action::{ACTIONS, Effect},
    config::SpendingConfig,
    policy::{Client, SpendWindow},
    types::Amount,
};

/// Why limits of the client have no effect.
pub(super) fn without_effect(client: &Client, spending: &SpendingConfig) -> Vec<String> {
    let may = |effect| ACTIONS.iter().any(|a| a.effect == effect && client.allow.has(a));
    let mut found = Vec::new();
    let mut note = |is_without: bool, text: String| found.extend(is_without.then_some(text));
    let calls = "with --allow the client may make no call that";
    let max_credits = client.max_credits.is_some() && !may(Effect::Spends);
    note(max_credits, format!("--max-credits has no effect: {calls} spends credits"));
    let max_reservations = client.max_reservations.is_some() && !may(Effect::Reserves);
    note(max_reservations, format!("--max-reservations has no effect: {calls} reserves a job"));
    let Some(spend) = client.spend else { return found };
    note(!may(Effect::Pays), format!("--spend has no effect: {calls} pays"));
    let Some(asset) = spending.assets.first() else {
        let text =
            "--spend has no effect: without [spending] in this configuration nothing is paid";
        note(true, text.to_owned());
        return found;
    };
    let units = |amount: Amount| amount.to_base_units(asset.decimals);
    let is_too_fine = units(spend.amount).is_none_or(|units| units.number() == 0);
    note(
        is_too_fine,
        format!("--spend {spend} is less than the token's smallest unit: nothing is paid"),
    );
    let of_all = [
        ("per_month", spending.per_month),
        ("per_day", spending.per_day.filter(|_| spend.window == SpendWindow::Day)),
    ];
    for (name, limit) in of_all {
        let Some(limit) = limit else { continue };
        let is_more = units(spend.amount) > units(limit);
        let text = format!(
            "--spend {spend} has no effect: spending.{name} lets all clients together pay {limit}"
        );
        note(is_more, text);
    }
    found
}
