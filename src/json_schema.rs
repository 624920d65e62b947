//! JSON Schemas of what calls take and answer, for every face that shows them.

use serde_json::{Map, Value, json};

use crate::action::{Action, Field, JsonType, Proof};

/// The schema of all that a call takes, in one object: the ids of its path, and the fields of its query and
/// body. Other fields belong to the body.
pub fn input(action: &Action) -> Value {
    let mut schema = object(action.query.iter().chain(action.body), takes_nulls(action));
    for name in action.id_names() {
        schema["properties"][name] = id(name);
    }
    let fields = schema["required"].as_array().cloned().unwrap_or_default();
    schema["required"] = action.id_names().map(Value::from).chain(fields).collect();
    schema
}

/// The schema of the body of a call.
pub fn body(action: &Action) -> Value {
    object(action.body, takes_nulls(action))
}

/// The schema of a good answer with these fields. Everything in it may be absent, and other fields may be there.
pub fn answer(known: &[Field]) -> Value {
    let optional = known.iter().map(|field| Field { required: false, ..*field });
    object(&optional.collect::<Vec<_>>(), true)
}

/// The schema of an object with these fields, and others.
pub(crate) fn object<'a>(fields: impl IntoIterator<Item = &'a Field>, takes_nulls: bool) -> Value {
    let fields: Vec<_> = fields.into_iter().collect();
    let property = |known: &&Field| (known.name.to_owned(), field(known, takes_nulls));
    let properties: Map<_, _> = fields.iter().map(property).collect();
    let required: Vec<_> = fields.iter().filter(|field| field.required).map(|f| f.name).collect();
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": true,
    })
}

/// The schema of an id in a path.
pub fn id(name: &str) -> Value {
    let of = match name {
        "job_id" => "The job, as in the list of jobs.",
        "workflow_id" => "The workflow.",
        "product_id" => "The tool, by the id that the list of tools has.",
        "product_slug" => "The tool, by the name that the list of tools has for paths.",
        "action_slug" => "The action of the tool, by such a name.",
        _ => "The approval, by the id that the answer of its payment has.",
    };
    json!({ "type": "string", "description": of, "pattern": "^[A-Za-z0-9._~-]{1,128}$" })
}

/// The schema of a field.
pub fn field(field: &Field, takes_null: bool) -> Value {
    let takes_null = takes_null && !field.required;
    let with_type = |name: &str| match takes_null {
        true => json!({ "type": [name, "null"] }),
        false => json!({ "type": name }),
    };
    let mut schema = match field.json_type {
        JsonType::Any => json!({}),
        JsonType::Number => with_type("number"),
        JsonType::Boolean => with_type("boolean"),
        JsonType::Text(None) => with_type("string"),
        JsonType::Text(Some(max)) => merged(with_type("string"), json!({ "maxLength": max })),
        JsonType::Texts => merged(with_type("array"), json!({ "items": { "type": "string" } })),
        JsonType::Words(words) => json!({ "type": "string", "enum": words }),
        JsonType::Integer { min, max, default } => {
            let bounds = json!({ "minimum": min, "maximum": max, "default": default });
            merged(with_type("integer"), bounds)
        }
        JsonType::Object(fields) => merged(with_type("object"), object(fields, takes_null)),
        JsonType::Objects(fields) => {
            merged(with_type("array"), json!({ "items": object(fields, takes_null) }))
        }
    };
    schema["description"] = field.description.into();
    schema
}

/// The first with the members of the second that it does not have and that are not null.
fn merged(mut first: Value, second: Value) -> Value {
    if let (Value::Object(first), Value::Object(second)) = (&mut first, second) {
        for (name, value) in second.into_iter().filter(|(_, value)| !value.is_null()) {
            first.entry(name).or_insert(value);
        }
    }
    first
}

/// A null at the top of a signed body is left out.
fn takes_nulls(action: &Action) -> bool {
    matches!(action.proof, Proof::Signature(_))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::ACTIONS;

    #[test]
    fn ids_query_and_body_of_a_call_have_different_names() {
        for action in ACTIONS {
            let count = action.id_names().count() + action.query.len() + action.body.len();
            let schema = input(action);
            assert_eq!(schema["properties"].as_object().unwrap().len(), count, "{action}");
        }
    }

    #[test]
    fn every_field_is_described_and_every_example_has_what_is_required() {
        for action in ACTIONS {
            assert!(!action.description.is_empty(), "{action}");
            for known in action.query.iter().chain(action.body).chain(action.answer) {
                assert!(known.description.ends_with('.'), "{action} {}", known.name);
            }
            let example = if action.example.is_empty() { "{}" } else { action.example };
            let example: Map<String, Value> = serde_json::from_str(example).unwrap();
            for required in body(action)["required"].as_array().unwrap() {
                assert!(example.contains_key(required.as_str().unwrap()), "{action} {required}");
            }
        }
    }

    #[test]
    fn a_page_is_an_integer_within_bounds_that_may_be_null() {
        let schema = input(Action::named("job_list").unwrap());
        let expected = json!({
            "type": ["integer", "null"], "minimum": 1, "maximum": 100, "default": 50,
            "description": "The most entries of the answer.",
        });
        assert_eq!(schema["properties"]["limit"], expected);
        assert_eq!(schema["required"], json!([]));
    }
}
