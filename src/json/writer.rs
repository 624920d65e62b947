//! Writing a small object field by field, without a map of its fields.

use std::fmt::{Display, Write};

use super::string::write_string;

/// Room for most objects that are written, in bytes.
const USUAL_LENGTH: usize = 384;

/// Writes an object in canonical form. Its fields are to be given in the order of their names, which
/// hold nothing that would have to be escaped.
pub(crate) struct ObjectWriter {
    out: String,
    /// The name of the last field.
    last: &'static str,
}

impl ObjectWriter {
    pub(crate) fn new() -> Self {
        let mut out = String::with_capacity(USUAL_LENGTH);
        out.push('{');
        Self { out, last: "" }
    }

    /// Writes a field that is a string.
    pub(crate) fn string(&mut self, name: &'static str, text: &str) {
        self.name(name);
        write_string(&mut self.out, text);
    }

    /// Writes a field that is a string, of a value whose text has nothing to escape.
    pub(crate) fn plain(&mut self, name: &'static str, value: impl Display) {
        self.name(name);
        // Writing into a `String` cannot fail, here and below.
        let _ = write!(self.out, "\"{value}\"");
    }

    /// Writes a field that is an integer.
    pub(crate) fn integer(&mut self, name: &'static str, value: u64) {
        self.name(name);
        let _ = write!(self.out, "{value}");
    }

    /// Leaves the value of a field out; it is to be put in at the place that is returned.
    pub(crate) fn gap(&mut self, name: &'static str) -> usize {
        self.name(name);
        self.out.len()
    }

    /// The whole object.
    pub(crate) fn finish(mut self) -> String {
        self.out.push('}');
        self.out
    }

    fn name(&mut self, name: &'static str) {
        debug_assert!(self.last < name, "{name} comes before {}", self.last);
        self.last = name;
        if self.out.len() > 1 {
            self.out.push(',');
        }
        self.out.push('"');
        self.out.push_str(name);
        self.out.push_str("\":");
    }
}

#[cfg(test)]
mod tests {
    use super::{super::canonical::CanonicalJson, *};

    #[test]
    fn what_is_written_is_canonical() {
        let mut object = ObjectWriter::new();
        object.integer("a", u64::MAX);
        object.string("b", "J\u{fc}rgen \"\\\n\u{7f}\u{1f600}");
        let gap = object.gap("c");
        object.string("d", "");
        let mut text = object.finish();
        text.insert(gap, '0');
        assert_eq!(CanonicalJson::parse(text.as_bytes()).unwrap().as_str(), text);
        assert_eq!(ObjectWriter::new().finish(), "{}");
    }
}
