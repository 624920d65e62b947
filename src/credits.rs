//! The credits of a wallet, as an answer tells of them (protocol §6).

use crate::json::JsonText;

/// Where an answer may have the balance.
const BALANCE: [&[&str]; 4] = [
    &["balance_credits"],
    &["credits"],
    &["balance", "credits"],
    &["payout", "wallet_balance_credits"],
];

/// The balance in an answer, as the JSON number that stands there.
pub(crate) fn balance(body: &[u8]) -> Option<String> {
    let body = JsonText::parse(body)?;
    let number = BALANCE.into_iter().find_map(|path| body.at(path))?.as_str();
    number.starts_with(|c: char| c.is_ascii_digit() || c == '-').then(|| number.to_owned())
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
            (r#"{"balance_credits":"1200"}"#, None),
            (r#"{"balance_credits":null}"#, None),
            ("no JSON", None),
        ] {
            assert_eq!(balance(body.as_bytes()).as_deref(), expected, "{body}");
        }
    }
}
