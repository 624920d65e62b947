use std::sync::Arc;

use super::*;
use crate::{
    action::Action,
    json::CanonicalJson,
    store::{
        end::START,
        testing::{client, operation},
    },
    trace::Trace,
};

#[test]
fn a_record_is_its_canonical_text() {
    let id = |text: &str| text.parse::<RequestId>().unwrap();
    let operation = operation(&client("ci"), "job_complete", "");
    let attempt = Attempt {
        operation: &operation,
        call: &operation.call,
        request_id: &id("r-1"),
        payload_hash: Some(CanonicalJson::string("x").hash()),
        payment: None,
    };
    let at = Timestamp::from_millisecond(1_700_000_000_123).unwrap();
    let text = |draft: Draft| draft.numbered(42);
    let expected = [
        r#"{"action":"job_complete","call_id":"call","client":"ci","kind":"signed","#,
        r#""payload_hash":"ba2df4903a2c14e86dc3bcca58911b44ac1d2514b7227bf6eb08cfb978f55a1b","#,
        r#""product":"job1","request_id":"r-1","seq":42,"time":1700000000123,"#,
        r#""wallet":"0x17c5185167401ed00cf5f5b2fc97d9bbfdb7d025"}"#,
    ];
    assert_eq!(text(Draft::signed(&attempt, at)), expected.concat());
    let outcome = RecordedOutcome::Answered { status: 200, milliseconds: 12 };
    let expected = [
        r#"{"kind":"outcome","milliseconds":12,"outcome":"answered","request_id":"r-1","#,
        r#""seq":42,"status":200,"time":1700000000123}"#,
    ];
    assert_eq!(text(Draft::outcome(&id("r-1"), outcome, at)), expected.concat());
}

#[test]
fn every_record_is_canonical() {
    let at = Timestamp::from_millisecond(-1).unwrap();
    let id: RequestId = r#"a"\b"#.parse().unwrap();
    let complete = operation(&client("ci"), "job_complete", "");
    let trace = Arc::new(Trace::new(id.clone()));
    let complete = Operation { trace, ..complete };
    let wallet = complete.wallet;
    let list = Call::new(Action::named("job_list").unwrap(), [], b"").unwrap();
    let (operation, request_id) = (&complete, &id);
    let payload_hash = Some(CanonicalJson::string("x").hash());
    let all = Attempt { operation, call: &complete.call, request_id, payload_hash, payment: None };
    let least = Attempt { call: &list, payload_hash: None, ..all };
    let denial = Denial {
        call_id: id.clone(),
        caller: Caller::Unknown("uid \u{7f}".into()),
        wallet: Some(wallet),
        action: "job_list",
        product: Some("job1".parse().unwrap()),
        reason: "token",
    };
    let outcome = RecordedOutcome::Answered { status: 200, milliseconds: 12 };
    let drafts = [
        Draft::signed(&all, at),
        Draft::signed(&least, at),
        Draft::denied(&denial, 1, at),
        Draft::denied(&Denial { wallet: None, product: None, ..denial.clone() }, 2, at),
        Draft::outcome(&id, outcome, at),
        Draft::outcome(&id, RecordedOutcome::NotSent, at),
        Draft::outcome(&id, RecordedOutcome::Unknown, at),
        Draft::admin(Deed::ClientAdd(&"ci".parse().unwrap()), "uid 7", at),
        Draft::admin(Deed::WalletExport(wallet), "uid 7", at),
        Draft::admin(Deed::JournalArchive(7), "uid 7", at),
    ];
    for (seq, draft) in (u64::MAX - 9..=u64::MAX).zip(drafts) {
        let text = draft.numbered(seq);
        assert_eq!(CanonicalJson::parse(text.as_bytes()).unwrap().as_str(), text);
    }
}

#[test]
fn a_denial_names_the_client_or_what_is_known_of_who_called() {
    let at = Timestamp::from_millisecond(7).unwrap();
    let denial = |caller| Denial {
        call_id: "c-1".parse().unwrap(),
        caller,
        wallet: None,
        action: "job_list",
        product: None,
        reason: "token",
    };
    let text = |caller| Draft::denied(&denial(caller), 1, at).numbered(1);
    let (start, end) =
        (r#"{"action":"job_list","call_id":"c-1","#, r#""reason":"token","seq":1,"time":7}"#);
    assert_eq!(
        text(Caller::Client("ci".parse().unwrap())),
        format!(r#"{start}"client":"ci","kind":"denied",{end}"#)
    );
    assert_eq!(
        text(Caller::Unknown("uid 7".into())),
        format!(r#"{start}"from":"uid 7","kind":"denied",{end}"#)
    );
}

#[test]
fn the_chain_is_sha_256_of_the_hash_before_and_the_text() {
    // Of Python: hashlib.sha256(bytes(32) + b'{"seq":1}').hexdigest()
    let expected = "ff44e121014845ba9f060b9dd529b57e3706d9dcbf47ce18d6a7e50bea6c7e46";
    assert_eq!(hex::encode(chained(&START, r#"{"seq":1}"#)), expected);
}
