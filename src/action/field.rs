//! The fields of bodies, queries and answers.

/// A field that is known. Others may stand beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Field {
    /// The field's name.
    pub name: &'static str,
    /// Its meaning, in a line.
    pub description: &'static str,
    /// The values that it may have. The proxy checks integers that are hashed, the upstream all others.
    pub json_type: JsonType,
    /// Whether the upstream refuses a call without it.
    pub required: bool,
}

/// The values that a field may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JsonType {
    /// Any value.
    Any,
    /// A string of up to so many characters, if there is a limit.
    Text(Option<u64>),
    /// An array of strings.
    Texts,
    /// One of these strings.
    Words(&'static [&'static str]),
    /// An integer.
    Integer {
        /// The least value that is taken.
        min: u64,
        /// The largest value that is known to be taken; the upstream decides.
        max: Option<u64>,
        /// The value when the field is absent. In a payload it is filled in and hashed.
        default: Option<u64>,
    },
    /// A number.
    Number,
    /// A truth value.
    Boolean,
    /// An object with these fields, and others.
    Object(&'static [Field]),
    /// An array of objects with these fields, and others.
    Objects(&'static [Field]),
}

impl Field {
    pub(crate) const fn new(
        name: &'static str,
        json_type: JsonType,
        description: &'static str,
    ) -> Self {
        Self { name, description, json_type, required: false }
    }

    pub(crate) const fn text(name: &'static str, description: &'static str) -> Self {
        Self::new(name, JsonType::Text(None), description)
    }

    pub(crate) const fn required(self) -> Self {
        Self { required: true, ..self }
    }
}
