//! Writes what a walk over JSON text finds, in canonical form.

use std::{borrow::Cow, ops::Range};

use super::{
    error::{JsonError, MAX_DEPTH},
    number::write_number,
    string::{half_pair, unescaped, write_string},
    walk::{Part, Walk},
};

/// Writes one value after the other of a text whose syntax has been checked.
pub(super) struct Canonicalizer<'a> {
    text: &'a str,
    walk: Walk<'a>,
    out: String,
    /// The fields of the objects that are open, those of the innermost last.
    fields: Vec<WrittenField<'a>>,
}

struct WrittenField<'a> {
    name: Cow<'a, str>,
    /// Where its name and value are written, without commas.
    place: Range<usize>,
}

impl<'a> Canonicalizer<'a> {
    pub(super) fn over(checked: &'a str) -> Self {
        Self { text: checked, walk: Walk::over(checked), out: String::new(), fields: Vec::new() }
    }

    /// The value that the text is.
    pub(super) fn finish(mut self) -> Result<String, JsonError> {
        self.write_value(0)?;
        Ok(self.out)
    }

    /// The fields of the object that the text is, in the order in which they stand there.
    pub(super) fn each_field(
        mut self,
        mut keep: impl FnMut(Cow<'a, str>, String),
    ) -> Result<(), JsonError> {
        let Part::Object = self.walk.next_part() else { return Err(JsonError::NotAnObject) };
        while let Some(name) = self.walk.next_name() {
            let name = unescaped(name).ok_or_else(|| self.lone_surrogate())?;
            self.write_value(1)?;
            keep(name, std::mem::take(&mut self.out));
        }
        Ok(())
    }

    /// `depth` is the number of arrays and objects around the value.
    fn write_value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.walk.next_part() {
            Part::Object | Part::Array if depth == MAX_DEPTH => return Err(JsonError::TooDeep),
            Part::Object => self.write_object(depth + 1)?,
            Part::Array => self.write_array(depth + 1)?,
            Part::String(literal) => {
                let text = unescaped(literal).ok_or_else(|| self.lone_surrogate())?;
                write_string(&mut self.out, &text);
            }
            Part::Number(text) => write_number(&mut self.out, text)?,
            Part::Word(text) => self.out.push_str(text),
        }
        Ok(())
    }

    /// The items of an array whose opening bracket is behind us.
    fn write_array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.out.push('[');
        let start = self.out.len();
        while self.walk.has_item() {
            self.comma_after(start);
            self.write_value(depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    /// The fields of an object whose opening brace is behind us.
    fn write_object(&mut self, depth: usize) -> Result<(), JsonError> {
        self.out.push('{');
        let (start, first) = (self.out.len(), self.fields.len());
        while let Some(name) = self.walk.next_name() {
            self.comma_after(start);
            let name = unescaped(name).ok_or_else(|| self.lone_surrogate())?;
            let at = self.out.len();
            write_string(&mut self.out, &name);
            self.out.push(':');
            self.write_value(depth)?;
            self.fields.push(WrittenField { name, place: at..self.out.len() });
        }
        if !self.fields[first..].is_sorted_by(|one, next| one.name < next.name) {
            self.sort_fields(start, first);
        }
        self.fields.truncate(first);
        self.out.push('}');
        Ok(())
    }

    /// Says where the text has the half of a surrogate pair that was found in it.
    fn lone_surrogate(&self) -> JsonError {
        let before = half_pair(self.text).and_then(|at| self.text.get(..at)).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.matches('\n').count();
        JsonError::LoneSurrogate { line, column: 1 + before.len() - line_start }
    }

    fn comma_after(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(',');
        }
    }

    /// Puts the fields of one object in order: those from index `first` on, whose text begins at `start`.
    /// The order is that of bytes, which for UTF-8 is that of code points; of fields with one name the
    /// last is kept.
    fn sort_fields(&mut self, start: usize, first: usize) {
        let text = self.out.split_off(start);
        let fields = &mut self.fields[first..];
        // A stable sort, so the last of one name stays last.
        fields.sort_by(|one, other| one.name.cmp(&other.name));
        for same in fields.chunk_by(|one, next| one.name == next.name) {
            // There is no empty chunk.
            let [.., last] = same else { continue };
            if self.out.len() > start {
                self.out.push(',');
            }
            self.out.push_str(&text[last.place.start - start..last.place.end - start]);
        }
    }
}
