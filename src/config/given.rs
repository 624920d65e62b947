//! A value as the file, the environment or the command line gave it.

use std::path::Path;

use toml::{Spanned, de::DeValue};

use super::mistake::{InvalidSetting, Mistakes, nearest, unknown};

/// A value of a setting before it is checked.
#[derive(Clone)]
pub(super) struct Given<'a> {
    pub(super) value: Value<'a>,
    pub(super) location: Location<'a>,
    /// The setting's key in the file, or that of a part of its value: `wallets.address`.
    pub(super) key: String,
    /// The setting's default, to say what a value looks like.
    pub(super) example: &'static str,
}

#[derive(Clone)]
pub(super) enum Value<'a> {
    /// From the file; also an array in a variable.
    Toml(&'a DeValue<'a>),
    /// From a variable.
    Text(&'a str),
    /// From an option, which may have been given several times.
    Options(Vec<&'a str>),
}

/// Where a value stands.
#[derive(Clone, Copy)]
pub(super) enum Location<'a> {
    File {
        path: &'a Path,
        text: &'a str,
        /// The offset of the value, or of its key, in the text.
        at: usize,
    },
    /// The variable or the option with this name.
    Name(&'a str),
}

impl Location<'_> {
    /// Where a relative path starts; empty for the current directory.
    pub(super) fn folder(&self) -> &Path {
        match self {
            Self::File { path, .. } => path.parent().unwrap_or(Path::new("")),
            Self::Name(_) => Path::new(""),
        }
    }

    /// The file and the line, or the name.
    pub(super) fn place(&self) -> String {
        match self {
            Self::File { path, text, at } => {
                let line = 1 + text.bytes().take(*at).filter(|byte| *byte == b'\n').count();
                format!("{}:{line}", path.display())
            }
            Self::Name(name) => (*name).to_owned(),
        }
    }
}

impl<'a> Given<'a> {
    /// The beginning of a mistake in it: `proxy.toml:3: listen`.
    pub(super) fn place(&self) -> String {
        let place = self.location.place();
        match self.location {
            Location::File { .. } => format!("{place}: {}", self.key),
            Location::Name(_) => place,
        }
    }

    /// A part of the value: an item of an array, or a field of a table.
    pub(super) fn part(&self, value: &'a Spanned<DeValue<'a>>, key: &str) -> Self {
        let mut location = self.location;
        if let Location::File { at, .. } = &mut location {
            *at = value.span().start;
        }
        let (value, key) = (Value::Toml(value.get_ref()), key.to_owned());
        Self { value, location, key, example: self.example }
    }

    /// Reads each field of a table. The first `needed` of the known ones must be there.
    ///
    /// # Errors
    /// It is no table, or lacks a field, or a field is not known or not taken by `read`.
    pub(super) fn fields(
        &self,
        known: &[&'static str],
        needed: usize,
        mut read: impl FnMut(&'static str, &Self) -> Result<(), Mistakes>,
    ) -> Result<(), Mistakes> {
        let Value::Toml(DeValue::Table(table)) = self.value else {
            let expected = format!("tables, as in [[{}]]", self.key);
            return Err(self.mistake(self.wrong_type(&expected)));
        };
        let missing = known[..needed].iter().filter(|name| !table.contains_key(**name));
        let lacks = |name| self.mistake(InvalidSetting(format!("a table of it lacks {name}"))).0;
        let mut mistakes: Vec<_> = missing.flat_map(lacks).collect();
        let mut fields: Vec<_> = table.iter().collect();
        fields.sort_by_key(|(name, _)| name.span().start);
        for (name, value) in fields {
            let name = name.get_ref();
            let field = self.part(value, &format!("{}.{name}", self.key));
            let result = match known.iter().find(|known| *known == name) {
                Some(known) => read(known, &field),
                None => Err(field.mistake(unknown(nearest(name, known.iter().copied())))),
            };
            mistakes.extend(result.err().into_iter().flat_map(|wrong| wrong.0));
        }
        if mistakes.is_empty() { Ok(()) } else { Err(Mistakes(mistakes)) }
    }

    pub(super) fn text(&self) -> Result<&str, InvalidSetting> {
        match &self.value {
            Value::Toml(DeValue::String(text)) => Ok(text),
            Value::Toml(_) => Err(self.wrong_type("a string in quotes")),
            Value::Text(text) => Ok(text),
            Value::Options(texts) => Ok(texts.last().copied().unwrap_or_default()),
        }
    }

    /// The items of a list: an array, an option that may be given several times, or a text with
    /// commas between them.
    fn items(&self) -> Result<Vec<Self>, InvalidSetting> {
        let one = |text| Self { value: Value::Text(text), ..self.clone() };
        let between_commas = |text: &'a str| {
            let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
            items.map(one).collect()
        };
        match &self.value {
            Value::Toml(DeValue::Array(items)) => {
                Ok(items.iter().map(|item| self.part(item, &self.key)).collect())
            }
            Value::Toml(DeValue::String(text)) => Ok(between_commas(text)),
            Value::Toml(_) => Err(self.wrong_type("a string, or an array of strings")),
            Value::Text(text) => Ok(between_commas(text)),
            Value::Options(texts) => Ok(texts.iter().copied().map(one).collect()),
        }
    }

    /// The value, if `read` takes it.
    pub(super) fn one<T>(
        &self,
        read: fn(&Given<'_>) -> Result<T, InvalidSetting>,
    ) -> Result<T, Mistakes> {
        read(self).map_err(|invalid| self.mistake(invalid))
    }

    /// The same; an empty text is no value.
    pub(super) fn optional<T>(
        &self,
        read: fn(&Given<'_>) -> Result<T, InvalidSetting>,
    ) -> Result<Option<T>, Mistakes> {
        if self.text() == Ok("") { Ok(None) } else { self.one(read).map(Some) }
    }

    /// The items of a list, if `read` takes each.
    pub(super) fn each<T>(
        &self,
        read: fn(&Given<'_>) -> Result<T, InvalidSetting>,
    ) -> Result<Vec<T>, Mistakes> {
        self.all(|item| item.one(read))
    }

    /// The same, for items that may have several mistakes.
    pub(super) fn all<T>(
        &self,
        read: impl Fn(&Given<'a>) -> Result<T, Mistakes>,
    ) -> Result<Vec<T>, Mistakes> {
        let (mut values, mut mistakes) = (Vec::new(), Vec::new());
        for item in self.items().map_err(|invalid| self.mistake(invalid))? {
            match read(&item) {
                Ok(value) => values.push(value),
                Err(wrong) => mistakes.extend(wrong.0),
            }
        }
        if mistakes.is_empty() { Ok(values) } else { Err(Mistakes(mistakes)) }
    }

    pub(super) fn wrong_type(&self, expected: &str) -> InvalidSetting {
        let found = match self.value {
            Value::Toml(value) => value.type_str(),
            _ => "string",
        };
        match self.example {
            "\"\"" | "[]" => InvalidSetting(format!("expected {expected}, found {found}")),
            example => {
                InvalidSetting(format!("expected {expected} such as {example}, found {found}"))
            }
        }
    }

    pub(super) fn mistake(&self, invalid: InvalidSetting) -> Mistakes {
        Mistakes(vec![format!("{}: {invalid}", self.place())])
    }
}

#[cfg(test)]
impl<'a> Given<'a> {
    /// The value of the variable `V`.
    pub(super) fn of_variable(text: &'a str) -> Self {
        let (value, location) = (Value::Text(text), Location::Name("V"));
        Self { value, location, key: String::new(), example: "\"\"" }
    }
}
