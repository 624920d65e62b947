//! What holds for every input, not only for those that somebody thought of.

use agentpmt_proxy::{
    action::{ACTIONS, Action, Binds},
    call::Call,
    json::CanonicalJson,
    message::Message,
    policy::Client,
    types::{Address, RequestId, SessionNonce},
};
use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

/// Any JSON value that `serde_json` holds without loss.
fn value() -> impl Strategy<Value = Value> {
    let number = any::<f64>().prop_filter("finite", |number| number.is_finite());
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        number.prop_map(Value::from),
        ".*".prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 64, 8, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::from),
            prop::collection::btree_map(".*", inner, 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect())),
        ]
    })
}

/// Text that is likely to break a line, if anything does.
fn hostile() -> impl Strategy<Value = String> {
    prop_oneof![".*", "(?s).*", "[a-z0-9\\n\\r\\x0b\\x0c\\x00\u{85}\u{2028}: -]{0,20}"]
}

/// Whether two values are the same, a float with an integral value being the integer.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => a == b || a.as_f64() == b.as_f64(),
        (Value::Array(a), Value::Array(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Object(a), Value::Object(b)) => {
            a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
        }
        _ => a == b,
    }
}

fn canonical(text: &str) -> CanonicalJson {
    CanonicalJson::parse(text.as_bytes()).unwrap()
}

proptest! {
    #[test]
    fn canonical_text_is_a_fixed_point_and_reads_back_as_the_same_value(value in value()) {
        let text = canonical(&value.to_string());
        prop_assert_eq!(&canonical(text.as_str()), &text);
        let back: Value = serde_json::from_str(text.as_str()).unwrap();
        prop_assert!(same(&value, &back), "{} became {}", value, text.as_str());
        prop_assert!(text.as_str().bytes().all(|byte| (0x20..0x7f).contains(&byte)));
    }

    #[test]
    fn integers_keep_their_digits(digits in "-?[1-9][0-9]{0,400}") {
        let text = canonical(&digits);
        prop_assert_eq!(text.as_str(), digits);
    }

    #[test]
    fn canonical_floats_are_fixed_points(
        text in "-?[0-9]{1}(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,3})?",
    ) {
        if let Ok(once) = CanonicalJson::parse(text.as_bytes()) {
            prop_assert_eq!(&canonical(once.as_str()), &once);
            let value = |text: &str| text.parse::<f64>().unwrap();
            prop_assert_eq!(value(once.as_str()), value(&text));
        }
    }

    #[test]
    fn no_bytes_make_the_parser_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = CanonicalJson::parse(&bytes);
    }

    #[test]
    fn every_message_has_seven_lines(
        id in hostile(), nonce in hostile(), request in hostile(), body in hostile(),
        value in value(),
    ) {
        let nonce = nonce.parse::<SessionNonce>().ok();
        let nonce = nonce.unwrap_or_else(|| "n".parse().unwrap());
        let request = request.parse::<RequestId>().unwrap_or_else(|_| RequestId::random());
        for body in [body, serde_json::json!({ "proof_text": value }).to_string()] {
            for id in [id.as_str(), "job-1"] {
                for action in ACTIONS {
                    check_seven_lines(action, id, &body, &nonce, &request)?;
                }
            }
        }
    }
}

fn check_seven_lines(
    action: &'static Action,
    id: &str,
    body: &str,
    nonce: &SessionNonce,
    request: &RequestId,
) -> Result<(), TestCaseError> {
    let ids = action.id_names().map(|_| id);
    let Ok(call) = Call::new(action, ids, body.as_bytes()) else { return Ok(()) };
    let permit = Client::local().permit(call, Address::new([7; 20]), None, Timestamp::now());
    let permit = permit.unwrap();
    let Some(signed) = permit.signed() else { return Ok(()) };
    let text = Message::new(signed, nonce, request).to_string();
    let lines: Vec<_> = text.split(|c: char| c.is_control() || c == '\u{2028}').collect();
    prop_assert_eq!(lines.len(), 7, "{:?}", text);
    let (call, whose) = match signed.call().binds() {
        Binds::Action | Binds::ActionAndId => ("action", "product"),
        Binds::MethodAndPath => ("method", "path"),
    };
    let names = ["agentpmt-external", "wallet", "session", "request", call, whose, "payload"];
    for (line, name) in lines.iter().zip(names) {
        prop_assert!(line.starts_with(name), "{:?}", text);
    }
    Ok(())
}
