//! A walk over JSON text, part by part, from the left to the right and once.

use memchr::memchr2;

/// A walk over text whose syntax has been checked. Over other text it ends early and gives nonsense,
/// but it does not panic.
pub(super) struct Walk<'a>(&'a str);

/// The start of a value; a scalar is taken whole.
pub(super) enum Part<'a> {
    /// The brace is behind us: [`Walk::next_name`] goes on.
    Object,
    /// The bracket is behind us: [`Walk::has_item`] goes on.
    Array,
    /// With its quotes and escapes.
    String(&'a str),
    /// Its digits as they stand.
    Number(&'a str),
    /// `true`, `false` or `null`.
    Word(&'a str),
}

impl<'a> Walk<'a> {
    pub(super) fn over(checked: &'a str) -> Self {
        Self(checked)
    }

    /// Steps into the next value.
    pub(super) fn next_part(&mut self) -> Part<'a> {
        self.skip_space();
        match self.0.as_bytes().first() {
            Some(b'{') => {
                self.take(1);
                Part::Object
            }
            Some(b'[') => {
                self.take(1);
                Part::Array
            }
            Some(b'"') => Part::String(self.take(string_length(self.0))),
            Some(b't' | b'f' | b'n') => Part::Word(self.take(scalar_length(self.0))),
            _ => Part::Number(self.take(scalar_length(self.0))),
        }
    }

    /// Steps over the next value, and returns its text.
    pub(super) fn next_value(&mut self) -> &'a str {
        self.skip_space();
        let (text, mut depth) = (self.0, 0);
        loop {
            if let Part::Object | Part::Array = self.next_part() {
                depth += 1;
            }
            while depth > 0 && !self.has_item() {
                depth -= 1;
            }
            if depth == 0 {
                return &text[..text.len() - self.0.len()];
            }
        }
    }

    /// The next name of an object with its quotes, the colon behind us; `None` behind its last field.
    pub(super) fn next_name(&mut self) -> Option<&'a str> {
        if !self.has_item() {
            return None;
        }
        let name = self.take(string_length(self.0));
        self.skip_space();
        self.take(1);
        Some(name)
    }

    /// Whether the array or object goes on: steps over a comma before the next item, over a colon, or
    /// over the bracket behind the last item.
    pub(super) fn has_item(&mut self) -> bool {
        self.skip_space();
        match self.0.as_bytes().first() {
            Some(b']' | b'}') | None => {
                self.take(1);
                false
            }
            Some(b',' | b':') => {
                self.take(1);
                self.skip_space();
                true
            }
            Some(_) => true,
        }
    }

    fn skip_space(&mut self) {
        self.0 = self.0.trim_start_matches([' ', '\t', '\n', '\r']);
    }

    fn take(&mut self, length: usize) -> &'a str {
        let (taken, rest) = self.0.split_at_checked(length).unwrap_or((self.0, ""));
        self.0 = rest;
        taken
    }
}

/// The length of the string literal that the text begins with; all of it if the literal does not end.
pub(super) fn string_length(text: &str) -> usize {
    let bytes = text.as_bytes();
    let mut at = 1;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr2(b'"', b'\\', rest)) {
        at += found + 1;
        if bytes[at - 1] == b'"' {
            return at;
        }
        // An escaped quote does not end it.
        at += 1;
    }
    text.len()
}

/// The length of the number or word that the text begins with.
fn scalar_length(text: &str) -> usize {
    text.find([',', ']', '}', ' ', '\t', '\n', '\r']).unwrap_or(text.len())
}
