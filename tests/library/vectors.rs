//! The protocol against vectors made with other programs: one directory a case, one file a step, so
//! that a red test names the step.

use std::{
    fs,
    path::{Path, PathBuf},
};

use agentpmt_proxy::{
    action::{About, Action, Binds, Effect, Field, Lookup, Needs, Payload, Proof, Signed},
    call::Call,
    json::{CanonicalJson, Object},
    message::Message,
    policy::{Client, Permit},
    signer::LocalKey,
    types::Address,
};
use http::Method;
use jiff::Timestamp;
use serde::Deserialize;

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(kind);
    let mut cases: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn read(case: &Path, step: &str) -> String {
    fs::read_to_string(case.join(step)).unwrap()
}

#[test]
fn canonical_text_and_hash_are_those_of_the_vectors() {
    for case in cases("canonical") {
        let json = CanonicalJson::parse(read(&case, "input.json").as_bytes()).unwrap();
        assert_eq!(json.as_str(), read(&case, "canonical.json"), "{case:?}: canonical text");
        assert_eq!(json.hash().to_string(), read(&case, "hash.txt"), "{case:?}: hash");
        // An object is written by way of its fields when something is sent.
        if let Ok(object) = Object::parse(read(&case, "input.json").as_bytes()) {
            assert_eq!(object.to_canonical(), json, "{case:?}: as an object");
        }
    }
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    for case in cases("refused") {
        let result = CanonicalJson::parse(&fs::read(case.join("input.json")).unwrap());
        assert!(result.is_err(), "{case:?}: {result:?}");
    }
}

/// The rows of the API's later calls, which the proxy does not make yet but the vectors cover.
static LATER_ACTIONS: [Action; 5] = [
    later("balance", "/api/external/credits/balance", Binds::Action, &[], Payload::Empty),
    later(
        "invoke",
        "/api/external/tools/{product_id}/invoke",
        Binds::ActionAndId,
        &[],
        Payload::FieldValue("parameters"),
    ),
    later(
        "workflow_fetch",
        "/api/external/workflows/{workflow_id}/fetch",
        Binds::ActionAndId,
        &[],
        Payload::Empty,
    ),
    later(
        "workflow_start",
        "/api/external/workflows/{workflow_id}/start",
        Binds::ActionAndId,
        &[Field::Any { name: "instance_id" }],
        Payload::Fields,
    ),
    later(
        "workflow_end",
        "/api/external/workflows/{workflow_id}/end",
        Binds::ActionAndId,
        &[Field::Any { name: "workflow_session_id" }],
        Payload::Fields,
    ),
];

static PATH_BOUND_ACTION: Action = later(
    "invoke_action",
    "/api/external/tools/{product_slug}/actions/{action_slug}/invoke",
    Binds::MethodAndPath,
    &[],
    Payload::FieldValue("parameters"),
);

const fn later(
    name: &'static str,
    path: &'static str,
    binds: Binds,
    body: &'static [Field],
    payload: Payload,
) -> Action {
    Action {
        name,
        summary: "",
        method: Method::POST,
        path,
        query: &[],
        body,
        about: About::Product,
        needs: Needs::Nothing,
        proof: Proof::Signature(Signed { binds, payload }),
        effect: Effect::None,
        lookup: Lookup::None,
    }
}

#[derive(Deserialize)]
struct CallVector {
    private_key: String,
    address: String,
    session_nonce: String,
    request_id: String,
    action: String,
    product: String,
}

/// The body that a client sends so that the payload is the vector's.
fn body(signed: &Signed, payload: &str) -> String {
    match &signed.payload {
        Payload::FieldValue(name) => format!("{{\"{name}\":{payload}}}"),
        _ => payload.to_owned(),
    }
}

#[test]
fn messages_and_signatures_are_those_of_the_vectors() {
    for case in cases("messages") {
        let vector: CallVector = serde_json::from_str(&read(&case, "call.json")).unwrap();
        let action = Action::named(&vector.action)
            .or_else(|| LATER_ACTIONS.iter().find(|action| action.name == vector.action))
            .unwrap();
        let Proof::Signature(signed) = &action.proof else { panic!("{case:?}: not signed") };
        let ids = action.id_names().map(|_| vector.product.as_str());
        let body = body(signed, &read(&case, "payload.json"));
        let call = Call::new(action, ids, body.as_bytes()).unwrap();

        let signed = call.signed().unwrap();
        let hash = signed.payload().map(|payload| payload.hash().to_string());
        assert_eq!(hash.unwrap_or_default(), read(&case, "hash.txt"), "{case:?}: hash");

        let signer = LocalKey::from_hex(&vector.private_key).unwrap();
        let permit = permit(call, signer.address());
        assert_eq!(signer.address(), vector.address.parse().unwrap(), "{case:?}: address");
        let nonce = vector.session_nonce.parse().unwrap();
        let request_id = vector.request_id.parse().unwrap();
        let message = Message::new(permit.signed().unwrap(), &nonce, &request_id);
        assert_eq!(message.to_string(), read(&case, "message.txt"), "{case:?}: message");

        let signature = signer.sign(&message).to_hex();
        assert_eq!(signature, read(&case, "signature.txt"), "{case:?}: signature");
    }
}

fn permit(call: Call, wallet: Address) -> Permit {
    Client::local().permit(call, wallet, None, Timestamp::now()).unwrap()
}

/// No vector covers this shape; the lines are those of protocol §2.
#[test]
fn a_path_bound_message_names_method_and_path() {
    let call = Call::new(&PATH_BOUND_ACTION, ["weather", "now"], b"{\"x\":1}").unwrap();
    let (nonce, request_id) = ("n".parse().unwrap(), "r".parse().unwrap());
    let permit = permit(call, Address::new([0; 20]));
    let message = Message::new(permit.signed().unwrap(), &nonce, &request_id);
    let text = message.to_string();
    let lines: Vec<_> = text.split('\n').collect();
    assert_eq!(lines.len(), 7);
    assert_eq!(lines[4], "method:POST");
    assert_eq!(lines[5], "path:/external/tools/weather/actions/now/invoke");
    let empty = "payload:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a";
    assert_eq!(lines[6], empty);
}
