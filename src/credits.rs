//! The credits of a wallet, as an answer tells of them (protocol §6).

use crate::{
    json::{JsonText, named},
    types::CreditAmount,
};

/// Where an answer may have the balance.
const BALANCE: [&[&str]; 4] = [
    &["balance_credits"],
    &["credits"],
    &["balance", "credits"],
    &["payout", "wallet_balance_credits"],
];

/// The price of a tool or of one of its actions.
const PRICE: &str = "price_credits";

/// The charge for a call.
const CHARGED: &str = "charged_credits";

/// The longest number that is read as credits, and the furthest that its exponent moves the point.
const LONGEST: usize = 64;
const FURTHEST: usize = 30;

/// The names by which a tool is called: the current call knows its slug, the older one its id.
const TOOL_NAMES: [&str; 5] = ["product_slug", "slug", "product_id", "id", "_id"];

/// The charge that an answer tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ToldCharge {
    Told(CreditAmount),
    /// It is named, but is no amount.
    Unreadable,
}

/// The balance in an answer, as the JSON number that stands there.
pub(crate) fn balance(body: &[u8]) -> Option<String> {
    let number = places(body)
        .find_map(|place| BALANCE.into_iter().find_map(|path| place.at(path)))?
        .as_str();
    number.starts_with(|c: char| c.is_ascii_digit() || c == '-').then(|| number.to_owned())
}

/// The charge for a call, by its answer. One that stands elsewhere than expected counts as unreadable, and
/// `null` is none.
pub(crate) fn charged(body: &[u8]) -> Option<ToldCharge> {
    match places(body).find_map(|place| place.field(CHARGED)) {
        Some(value) => Some(credits(value).map_or(ToldCharge::Unreadable, ToldCharge::Told)),
        None => {
            let is_named = !named(&String::from_utf8_lossy(body), CHARGED).is_empty();
            is_named.then_some(ToldCharge::Unreadable)
        }
    }
}

/// The objects of an answer that tell of credits: an error holds another (protocol §8).
fn places(body: &[u8]) -> impl Iterator<Item = JsonText<'_>> {
    let body = JsonText::parse(body);
    let error = move |name| body.and_then(|body| body.field(name));
    body.into_iter().chain(["detail", "error"].into_iter().filter_map(error))
}

/// The prices in a list of tools, by the ids of calls: a tool and its action, or for the older call the tool
/// alone, of which that is the dearest action. Where they stand is not said, so what is not found is of no
/// known price.
pub(crate) fn prices(list: &[u8]) -> Vec<(Vec<String>, CreditAmount)> {
    let Some(list) = JsonText::parse(list) else { return Vec::new() };
    let tools = ["tools", "products"].into_iter().find_map(|name| list.field(name));
    tools.unwrap_or(list).items().into_iter().flat_map(of_tool).collect()
}

fn of_tool(tool: JsonText<'_>) -> Vec<(Vec<String>, CreditAmount)> {
    let text = |value: JsonText<'_>, name| value.field(name).and_then(JsonText::text);
    // Read once, as each reading walks over all actions.
    let names: Vec<_> = TOOL_NAMES.into_iter().filter_map(|name| text(tool, name)).collect();
    let own = tool.field(PRICE);
    let of_action = |action: JsonText<'_>| {
        let slug = ["action_slug", "slug"].into_iter().find_map(|name| text(action, name))?;
        Some((slug, action.field(PRICE).or(own).and_then(credits)?))
    };
    let actions = tool.field("actions").map_or_else(Vec::new, JsonText::items);
    let actions: Vec<_> = actions.into_iter().filter_map(of_action).collect();
    let dearest = actions.iter().map(|(_, price)| *price).chain(own.and_then(credits)).max();
    let of_name = |name: &String| {
        let older = dearest.map(|price| (vec![name.clone()], price));
        let current =
            actions.iter().map(|(slug, price)| (vec![name.clone(), slug.clone()], *price));
        current.chain(older).collect::<Vec<_>>()
    };
    names.iter().flat_map(of_name).collect()
}

/// The amount that a number is, or a text with one, in whatever notation.
fn credits(value: JsonText<'_>) -> Option<CreditAmount> {
    let text = value.text().unwrap_or_else(|| value.as_str().to_owned());
    let text = text.trim().to_ascii_lowercase();
    let (number, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let (whole, fraction) = number.split_once('.').unwrap_or((number, "0"));
    let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    if text.len() > LONGEST || !is_digits(whole) || !is_digits(fraction) {
        return None;
    }
    let exponent: isize = exponent.parse().ok()?;
    let exponent = Some(exponent).filter(|exponent| exponent.unsigned_abs() <= FURTHEST)?;
    let zeros = "0".repeat(FURTHEST);
    let digits = format!("{zeros}{whole}{fraction}{zeros}");
    let point = (FURTHEST + whole.len()).checked_add_signed(exponent)?;
    let (whole, fraction) = digits.split_at_checked(point)?;
    format!("{whole}.{fraction}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_balance_is_found_wherever_an_answer_has_it() {
        for (body, expected) in [
            (r#"{"balance_credits":1200,"balance_usd":"12"}"#, Some("1200")),
            (r#"{"credits":0.5}"#, Some("0.5")),
            (r#"{"balance":{"credits":-1}}"#, Some("-1")),
            (r#"{"payout":{"wallet_balance_credits":7}}"#, Some("7")),
            (r#"{"detail":{"balance_credits":3}}"#, Some("3")),
            (r#"{"error":{"balance_credits":3},"balance_credits":4}"#, Some("4")),
            (r#"{"detail":{"more":{"balance_credits":3}}}"#, None),
            (r#"{"balance_credits":"1200"}"#, None),
            (r#"{"balance_credits":null}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(balance(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }

    #[test]
    fn a_charge_is_read_in_every_notation_and_never_passed_over() {
        let told = |text: &str| Some(ToldCharge::Told(text.parse().unwrap()));
        for (body, expected) in [
            (r#"{"charged_credits":5,"price_credits":7}"#, told("5")),
            (r#"{"charged_credits":0.25}"#, told("0.25")),
            (r#"{"detail":{"code":"X","charged_credits":20}}"#, told("20")),
            (r#"{"detail":"X","error":{"charged_credits":20}}"#, told("20")),
            (r#"{"charged_credits":" 20 "}"#, told("20")),
            (r#"{"charged_credits":2e1}"#, told("20")),
            (r#"{"charged_credits":"2.5E+3"}"#, told("2500")),
            (r#"{"charged_credits":25e-4}"#, told("0.0025")),
            (r#"{"charged_credits":1e-30}"#, told("0.000001")),
            (r#"{"charged_credits":-5}"#, Some(ToldCharge::Unreadable)),
            (r#"{"charged_credits":1e10}"#, Some(ToldCharge::Unreadable)),
            (r#"{"charged_credits":1e999999999999999999999}"#, Some(ToldCharge::Unreadable)),
            (r#"{"charged_credits":"much"}"#, Some(ToldCharge::Unreadable)),
            (r#"{"charged_credits":""}"#, Some(ToldCharge::Unreadable)),
            (r#"{"charged_credits":{"credits":5}}"#, Some(ToldCharge::Unreadable)),
            (r#"{"detail":[{"charged_credits":20}]}"#, Some(ToldCharge::Unreadable)),
            (r#"{"Charged_Credits":20}"#, Some(ToldCharge::Unreadable)),
            (r#"{"charged_credits":NaN}"#, Some(ToldCharge::Unreadable)),
            (r#"{"charged_credits":null}"#, None),
            (r#"{"price_credits":7,"detail":"charged_credits"}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(charged(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn prices_are_those_of_actions_or_else_of_their_tools() {
        let list = r#"{"tools":[
            {"product_slug":"writing","product_id":"7","price_credits":3,"actions":[
                {"action_slug":"check"}, {"slug":"rewrite","price_credits":"5"},
                {"action_slug":"odd","price_credits":"?"}, {"price_credits":9}]},
            {"slug":"free","actions":[{"slug":"look","price_credits":0}, {"slug":"unpriced"}]},
            {"price_credits":7,"actions":[{"slug":"of-none"}]},
            "odd"
        ]}"#;
        let shown = |(ids, price): (Vec<String>, _)| format!("{} {price}", ids.join("/"));
        let found: Vec<_> = prices(list.as_bytes()).into_iter().map(shown).collect();
        let writing = ["writing/check 3", "writing/rewrite 5", "writing 5"];
        let by_id = ["7/check 3", "7/rewrite 5", "7 5"];
        assert_eq!(found, [&writing[..], &by_id, &["free/look 0", "free 0"]].concat());
        let bare = br#"[{"slug":"a","actions":[{"slug":"b","price_credits":1}]}]"#;
        assert_eq!(prices(bare).len(), 2);
        assert!(prices(b"{}").is_empty() && prices(b"no JSON").is_empty());
    }

    #[test]
    fn the_price_of_a_tool_is_read_once_and_not_once_an_action() {
        // Once an action, it would take minutes.
        let actions: Vec<_> = (0..30_000).map(|at| format!(r#"{{"slug":"a{at}"}}"#)).collect();
        let list =
            format!(r#"[{{"actions":[{}],"slug":"a","price_credits":1}}]"#, actions.join(","));
        assert_eq!(prices(list.as_bytes()).len(), actions.len() + 1);
    }
}
