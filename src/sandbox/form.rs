//! Bodies and their fields. Errors are collected in the shape of FastAPI's 422.

use std::ops::RangeInclusive;

use axum::{
    body::Bytes,
    extract::{FromRequest, Request},
    http::request::Parts,
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use crate::{
    json::{CanonicalJson, JsonError, Object},
    types::Address,
};

use super::error::ApiError;

/// Reads the whole body of a request.
pub(super) async fn read(request: Request) -> Result<(Parts, Bytes), ApiError> {
    let (head, body) = request.into_parts();
    let request = Request::from_parts(head.clone(), body);
    let body = Bytes::from_request(request, &()).await.map_err(|rejection| ApiError::Body {
        status: rejection.status(),
        text: rejection.body_text(),
    })?;
    Ok((head, body))
}

/// Parses the JSON object of a body.
pub(super) fn object(body: &[u8]) -> Result<Object, ApiError> {
    Object::parse(body).map_err(|error| {
        let kind = match error {
            JsonError::NotAnObject => "dict_type",
            _ => "json_invalid",
        };
        ApiError::Fields(vec![wrong(json!(["body"]), kind, &error.to_string())])
    })
}

/// The names and values of a query as an object, with what is usual for those of a page.
pub(super) fn query(query: &str) -> Object {
    let mut fields = Object::default();
    fields.insert("limit", CanonicalJson::integer(50));
    fields.insert("skip", CanonicalJson::integer(0));
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        let number = value.parse().map(CanonicalJson::integer);
        fields.insert(name, number.unwrap_or_else(|_| CanonicalJson::string(value)));
    }
    fields
}

/// The part of a list that is asked for.
pub(super) struct Page {
    pub(super) limit: i64,
    pub(super) skip: i64,
}

impl Page {
    /// # Errors
    /// [`ApiError::Fields`] unless `limit` is 1 to 100 and `skip` at least 0.
    pub(super) fn read(body: &Object) -> Result<Self, ApiError> {
        let mut form = Form::new(body);
        let limit = form.integer("limit", 1..=100);
        let skip = form.integer("skip", 0..=i64::MAX);
        let (limit, skip) = form.finish(limit.zip(skip))?;
        Ok(Self { limit, skip })
    }

    pub(super) fn of<T>(&self, items: impl Iterator<Item = T>) -> impl Iterator<Item = T> {
        // A number that does not fit is larger than every list.
        let number = |given: i64| usize::try_from(given).unwrap_or(usize::MAX);
        items.skip(number(self.skip)).take(number(self.limit))
    }
}

/// Reads fields of a body. A reader gives `None` and notes an error if its field is wrong.
pub(super) struct Form<'a> {
    body: &'a Object,
    errors: Vec<Value>,
}

impl<'a> Form<'a> {
    pub(super) fn new(body: &'a Object) -> Self {
        Self { body, errors: Vec::new() }
    }

    /// An integer within `range`.
    pub(super) fn integer(&mut self, name: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let value: i64 = self.value(name, "int_type", "Input should be a valid integer")?;
        let (least, most) = range.into_inner();
        if value < least {
            let text = format!("Input should be greater than or equal to {least}");
            return self.refuse(json!(["body", name]), "greater_than_equal", &text);
        }
        if value > most {
            let text = format!("Input should be less than or equal to {most}");
            return self.refuse(json!(["body", name]), "less_than_equal", &text);
        }
        Some(value)
    }

    /// A string of 1 to `most` characters.
    pub(super) fn text(&mut self, name: &str, most: usize) -> Option<String> {
        let value: String = self.value(name, "string_type", "Input should be a valid string")?;
        if value.is_empty() {
            let text = "String should have at least 1 character";
            return self.refuse(json!(["body", name]), "string_too_short", text);
        }
        if value.chars().count() > most {
            let text = format!("String should have at most {most} characters");
            return self.refuse(json!(["body", name]), "string_too_long", &text);
        }
        Some(value)
    }

    /// A wallet's address.
    pub(super) fn address(&mut self, name: &str) -> Option<Address> {
        let value: String = self.value(name, "string_type", "Input should be a valid string")?;
        match value.parse() {
            Ok(address) => Some(address),
            Err(error) => {
                let text = format!("Value error, {error}");
                self.refuse(json!(["body", name]), "value_error", &text)
            }
        }
    }

    /// An array of anything.
    pub(super) fn array(&mut self, name: &str) -> Option<Vec<Value>> {
        self.value(name, "list_type", "Input should be a valid list")
    }

    /// An object.
    pub(super) fn object(&mut self, name: &str) -> Option<Value> {
        let value: Map<String, Value> =
            self.value(name, "dict_type", "Input should be a valid dictionary")?;
        Some(value.into())
    }

    /// Notes an error at `place`, such as `["body", "edges", 0, "source"]`.
    pub(super) fn refuse<T>(&mut self, place: Value, kind: &str, text: &str) -> Option<T> {
        self.errors.push(wrong(place, kind, text));
        None
    }

    /// Returns the value that was read, if no field was wrong.
    ///
    /// # Errors
    /// [`ApiError::Fields`] with every error that was noted.
    pub(super) fn finish<T>(self, read: Option<T>) -> Result<T, ApiError> {
        read.filter(|_| self.errors.is_empty()).ok_or(ApiError::Fields(self.errors))
    }

    fn value<T: DeserializeOwned>(&mut self, name: &str, kind: &str, text: &str) -> Option<T> {
        let Some(value) = self.body.field(name) else {
            return self.refuse(json!(["body", name]), "missing", "Field required");
        };
        let value = serde_json::from_str(value.as_str()).ok();
        if value.is_some() { value } else { self.refuse(json!(["body", name]), kind, text) }
    }
}

fn wrong(place: Value, kind: &str, text: &str) -> Value {
    json!({"loc": place, "msg": text, "type": kind})
}
