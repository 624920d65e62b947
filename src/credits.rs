//! The credits of a wallet, as an answer tells of them (protocol §6).

use crate::{json::JsonText, types::CreditAmount};

/// Where an answer may have the balance.
const BALANCE: [&[&str]; 4] = [
    &["balance_credits"],
    &["credits"],
    &["balance", "credits"],
    &["payout", "wallet_balance_credits"],
];

/// The price of a tool or of one of its actions.
const PRICE: &str = "price_credits";

/// The balance in an answer, as the JSON number that stands there.
pub(crate) fn balance(body: &[u8]) -> Option<String> {
    let number = places(body)
        .find_map(|place| BALANCE.into_iter().find_map(|path| place.at(path)))?
        .as_str();
    number.starts_with(|c: char| c.is_ascii_digit() || c == '-').then(|| number.to_owned())
}

/// The charge for a call, by its answer.
pub(crate) fn charged(body: &[u8]) -> Option<CreditAmount> {
    places(body).find_map(|place| place.field("charged_credits")).and_then(credits)
}

/// The objects of an answer that tell of credits: an error holds another (protocol §8).
fn places(body: &[u8]) -> impl Iterator<Item = JsonText<'_>> {
    let body = JsonText::parse(body);
    let error = move |name| body.and_then(|body| body.field(name));
    body.into_iter().chain(["detail", "error"].into_iter().filter_map(error))
}

/// The prices in a list of tools: of each action, by the slugs of its product and of itself. Where they
/// stand is not said, so what is not found is of no known price.
pub(crate) fn prices(list: &[u8]) -> Vec<([String; 2], CreditAmount)> {
    let Some(list) = JsonText::parse(list) else { return Vec::new() };
    let tools = ["tools", "products"].into_iter().find_map(|name| list.field(name));
    let tools = tools.unwrap_or(list).items().into_iter();
    let text = |value: JsonText<'_>, names: [&str; 2]| {
        names.into_iter().find_map(|name| value.field(name).and_then(JsonText::text))
    };
    let of_tool = |tool: JsonText<'_>| {
        let product = text(tool, ["product_slug", "slug"]);
        let actions = tool.field("actions").map_or_else(Vec::new, JsonText::items);
        let of_action = move |action: JsonText<'_>| {
            let slugs = [product.clone()?, text(action, ["action_slug", "slug"])?];
            let price = action.field(PRICE).or(tool.field(PRICE))?;
            Some((slugs, credits(price)?))
        };
        actions.into_iter().filter_map(of_action).collect::<Vec<_>>()
    };
    tools.flat_map(of_tool).collect()
}

fn credits(value: JsonText<'_>) -> Option<CreditAmount> {
    value.as_str().parse().ok()
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
    fn a_charge_is_a_number_of_credits() {
        let credits = |text: &str| text.parse::<CreditAmount>().ok();
        for (body, expected) in [
            (r#"{"charged_credits":5,"price_credits":7}"#, credits("5")),
            (r#"{"charged_credits":0.25}"#, credits("0.25")),
            (r#"{"detail":{"code":"X","charged_credits":20}}"#, credits("20")),
            (r#"{"detail":"X","error":{"charged_credits":20}}"#, credits("20")),
            (r#"{"detail":[{"charged_credits":20}]}"#, None),
            (r#"{"charged_credits":"5"}"#, None),
            (r#"{"charged_credits":-5}"#, None),
            (r#"{"price_credits":7}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(charged(body.as_bytes()), expected, "{body}");
        }
    }

    #[test]
    fn prices_are_those_of_actions_or_else_of_their_tools() {
        let list = r#"{"tools":[
            {"product_slug":"writing","price_credits":3,"actions":[
                {"action_slug":"check"}, {"slug":"rewrite","price_credits":5},
                {"action_slug":"odd","price_credits":"?"}, {"price_credits":9}]},
            {"slug":"free","actions":[{"slug":"look","price_credits":0}, {"slug":"unpriced"}]},
            {"price_credits":7,"actions":[{"slug":"of-none"}]},
            "odd"
        ]}"#;
        let shown = |([product, action], price): ([String; 2], CreditAmount)| {
            format!("{product}/{action} {price}")
        };
        let found: Vec<_> = prices(list.as_bytes()).into_iter().map(shown).collect();
        assert_eq!(found, ["writing/check 3", "writing/rewrite 5", "free/look 0"]);
        assert_eq!(
            prices(br#"[{"slug":"a","actions":[{"slug":"b","price_credits":1}]}]"#).len(),
            1
        );
        assert!(prices(b"{}").is_empty() && prices(b"no JSON").is_empty());
    }
}
