use super::*;

fn call(name: &str, ids: &[&str], body: &str) -> Result<Call, InvalidCall> {
    Call::new(Action::named(name).unwrap(), ids.iter().copied(), body.as_bytes())
}

fn payload(call: &Call) -> String {
    call.signed().unwrap().payload().map(String::from).unwrap_or_default()
}

#[test]
fn list_fields_are_filled_in_and_checked() {
    assert_eq!(payload(&call("job_list", &[], "").unwrap()), r#"{"limit":50,"skip":0}"#);
    let given = call("job_list", &[], r#"{"limit":1e1,"skip":null,"q":1}"#).unwrap();
    assert_eq!(payload(&given), r#"{"limit":10,"skip":0}"#);
    assert!(given.body().field("q").is_some());
    for body in [r#"{"limit":0}"#, r#"{"limit":"5"}"#, r#"{"limit":1.5}"#, r#"{"limit":[]}"#] {
        let error = call("job_list", &[], body).unwrap_err();
        assert_eq!(error, InvalidCall::Field { name: "limit", min: 1 }, "{body}");
    }
    assert!(call("job_list", &[], r#"{"skip":-1}"#).is_err());
    assert!(call("job_list", &[], r#"{"limit":99999999999999999999999}"#).is_ok());
}

#[test]
fn envelope_and_top_level_nulls_are_dropped() {
    let body = r#"{"signature":"0x","request_id":1,"session_nonce":[],"wallet_address":{},
        "proof_text":"x","workflow_id":null,"deep":{"signature":null}}"#;
    let call = call("job_complete", &["j1"], body).unwrap();
    assert_eq!(payload(&call), r#"{"deep":{"signature":null},"proof_text":"x"}"#);
}

#[test]
fn a_null_at_the_top_of_the_parameters_of_a_tool_is_dropped() {
    let body = r#"{"parameters":{"a":null,"b":{"c":null},"d":1.0},"e":null}"#;
    let call = call("tool_invoke", &["p", "a"], body).unwrap();
    assert_eq!(payload(&call), r#"{"b":{"c":null},"d":1}"#);
    let sent = call.body().to_canonical();
    assert_eq!(sent.as_str(), r#"{"parameters":{"b":{"c":null},"d":1}}"#);
}

#[test]
fn a_wallet_that_is_not_the_one_that_signs_is_named() {
    let own = Address::new([0xab; 20]);
    let upper = own.to_string().to_uppercase().replacen("0X", "0x", 1);
    let named = |json: &str| {
        let call = call("job_list", &[], &format!(r#"{{"wallet_address":{json}}}"#)).unwrap();
        call.other_wallet(own).map(str::to_owned)
    };
    let (big_x, bare) = (upper.replacen("0x", "0X", 1), &upper[2..]);
    for text in [&*own.to_string(), &upper, &big_x, bare, ""] {
        assert_eq!(named(&format!("\"{text}\"")), None, "{text}");
    }
    for json in ["null", "\"\""] {
        assert_eq!(named(json), None, "{json}");
    }
    let other = Address::new([0xac; 20]).to_string();
    for text in [&*other, &other[..41], "alice.eth", "null"] {
        assert_eq!(named(&format!("\"{text}\"")).as_deref(), Some(text));
    }
    assert_eq!(named(r#"{"a":1}"#).as_deref(), Some(r#"{"a":1}"#));
    assert_eq!(call("job_list", &[], "").unwrap().other_wallet(own), None);
}

#[test]
fn a_body_that_is_not_signed_stays_as_it_is() {
    let own = Address::new([0xab; 20]);
    let body = r#"{"edges":null,"request_id":"mine","session_nonce":1,"signature":{},"wallet_address":"0xac"}"#;
    let call = call("job_workflow_create", &["j1"], body).unwrap();
    assert_eq!(call.body().to_canonical().as_str(), body);
    assert_eq!(call.other_wallet(own), None);
}

#[test]
fn ids_stand_in_the_path_in_order() {
    let call = call("job_workflow_publish", &["j1", "w2"], "").unwrap();
    assert_eq!(call.path(), "/api/external/jobs/j1/workflow/w2/publish");
}

#[test]
fn ids_that_could_change_the_path_are_refused() {
    for id in ["", "..", "a/b", "a?b", "a\nb", "a%2Fb"] {
        assert!(matches!(call("job_status", &[id], ""), Err(InvalidCall::Id { .. })), "{id:?}");
    }
    assert!(matches!(call("job_status", &[], ""), Err(InvalidCall::IdCount { .. })));
    let long = "é".repeat(100);
    let cut = format!(r#"job_id "{}\u{{e…" cannot be used; "#, r"\u{e9}".repeat(10));
    for (id, says) in [
        ("", "job_id is empty; an id is 1 to 128"),
        ("a b\n", r#"job_id "a b\n" cannot be used; an id is"#),
        (&long, &cut),
    ] {
        let text = call("job_status", &[id], "").unwrap_err().to_string();
        assert!(text.starts_with(says), "{text}");
    }
}
