//! One operation of the document.

use serde_json::{Value, json};

use super::own::{OwnAnswer, OwnCall};
use crate::{
    action::{ACTIONS, About, Action, Field, Proof, ids_of},
    json_schema,
};

/// The operation of a call of the upstream, and of the row with the same route that is paid for.
pub(super) fn row_operation(action: &Action) -> Value {
    let paid = action.paid_row(ACTIONS);
    let local: &[Field] = if action.name == "job_status" { &[WAIT] } else { &[] };
    let (mut query, mut answer) = ([action.query, local].concat(), action.answer.to_vec());
    let mut body = json_schema::body(action);
    let mut description = action.description.to_owned();
    if let Some(paid) = paid {
        query.extend(paid.query.iter().map(|field| Field { required: false, ..*field }));
        answer.extend(paid.answer);
        // The body of the paid call is any object.
        body["required"] = json!([]);
        description += &format!("\n\n{}, `{}`: {}", paid.summary, paid.name, paid.description);
    }
    let mut parameters = parameters(action.path, &query, |name| example(action, name));
    let mut responses = json!({ "200": good(&answer) });
    if paid.is_some() || action.proof == Proof::Payment {
        responses["202"] = good(action.answer);
        parameters.push(parameter("header", &PAYMENT));
    }
    if action.changes() {
        parameters.push(parameter("header", &IDEMPOTENCY_KEY));
    }
    let tag = match action.about {
        About::Job => "jobs",
        About::Nothing => "credits",
        About::Product => "tools",
        About::Workflow => "workflows",
    };
    let body = (!action.body.is_empty()).then_some(body);
    let mut operation = operation(action.name, action.summary, tag, parameters, responses);
    operation["description"] = description.into();
    add_body(&mut operation, body, action.example);
    operation
}

/// The operation of a call of the proxy's own.
pub(super) fn own_operation(call: &OwnCall) -> Value {
    let mut parameters =
        parameters(call.path, call.query, |id| if id == "job_id" { JOB } else { APPROVAL });
    parameters.extend(call.headers.iter().map(|field| parameter("header", field)));
    let answers = call.answers.iter().map(|(status, answer)| {
        let answer = match answer {
            OwnAnswer::Json(fields) => good(fields),
            OwnAnswer::Nothing => json!({ "description": "Nothing came in time." }),
            OwnAnswer::Events => json!({
                "description": "Events, until the connection ends.",
                "content": { "text/event-stream": { "schema": { "type": "string" } } },
            }),
        };
        ((*status).to_owned(), answer)
    });
    let responses = answers.collect();
    let mut operation = operation(call.name, call.summary, "proxy", parameters, responses);
    let body = (!call.body.is_empty()).then(|| json_schema::object(call.body, true));
    add_body(&mut operation, body, "");
    operation
}

/// The id of an approval, for an example.
const APPROVAL: &str = "5b0c8a4e-1f5d-4a5b-9c3e-2d7f6a8b9c0d";

/// A job of the sandbox.
const JOB: &str = "68f0a1c27b3e4d5f60718201";

/// An id of the sandbox that a call can be tried with.
fn example(action: &Action, id: &str) -> &'static str {
    match id {
        "job_id" if action.proof == Proof::WorkflowToken => "68f0a1c27b3e4d5f60718202",
        "job_id" => JOB,
        "product_id" => "69a1c0d2e3f4051627384901",
        "product_slug" => "word-count",
        "action_slug" => "count-words",
        _ => "69b2d1e3f405162738495a01",
    }
}

/// The proxy takes it out of the query.
const WAIT: Field = Field::text(
    "wait",
    "How long to wait for the end of the review, from `0s` to `50s`; the answer comes as soon as it is \
     there, or after that time.",
);

const PAYMENT: Field = Field::text("X-PAYMENT", "A payment by x402 of the caller's own.");

const IDEMPOTENCY_KEY: Field = Field::text(
    "Idempotency-Key",
    "A word of your own for this call, of up to 1024 visible characters: with the same word it is made \
     once, and a repeat gets the same answer.",
);

fn operation(
    name: &str,
    summary: &str,
    tag: &str,
    parameters: Vec<Value>,
    mut responses: Value,
) -> Value {
    for statuses in ["4XX", "5XX"] {
        responses[statuses] = json!({ "$ref": "#/components/responses/Refused" });
    }
    json!({
        "operationId": name,
        "summary": summary,
        "tags": [tag],
        "parameters": parameters,
        "responses": responses,
    })
}

/// The parameters of a path and of a query.
fn parameters(
    path: &'static str,
    query: &[Field],
    example: impl Fn(&str) -> &'static str,
) -> Vec<Value> {
    let id = |name: &str| {
        json!({ "name": name, "in": "path", "required": true, "example": example(name),
                "schema": json_schema::id(name) })
    };
    let query = query.iter().map(|field| parameter("query", field));
    ids_of(path).map(id).chain(query).collect()
}

fn parameter(place: &str, field: &Field) -> Value {
    let mut schema = json_schema::field(field, false);
    let description = schema.as_object_mut().and_then(|schema| schema.remove("description"));
    json!({ "name": field.name, "in": place, "required": field.required,
            "description": description, "schema": schema })
}

fn add_body(operation: &mut Value, schema: Option<Value>, example: &str) {
    let Some(schema) = schema else { return };
    let is_required = schema["required"].as_array().is_some_and(|names| !names.is_empty());
    let mut media = json!({ "schema": schema });
    if let Ok(example) = serde_json::from_str::<Value>(example) {
        media["example"] = example;
    }
    operation["requestBody"] =
        json!({ "required": is_required, "content": { "application/json": media } });
}

/// A good answer with these fields.
fn good(fields: &[Field]) -> Value {
    if fields.is_empty() {
        return json!({ "description": "Nothing to tell." });
    }
    let schema = json_schema::answer(fields);
    json!({
        "description": "The answer. More fields may be there, and any may be absent.",
        "content": { "application/json": { "schema": schema } },
    })
}
