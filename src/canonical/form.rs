//! From JSON text to its canonical form.

use std::{borrow::Cow, ops::Range};

use super::{
    JsonError, MAX_DEPTH,
    number::write_number,
    string::{unescaped, write_string},
    walk::{Part, Walk},
};

/// Writes one value after the other of a text whose syntax has been checked.
pub(super) struct Form<'a> {
    walk: Walk<'a>,
    out: String,
    /// The fields of the objects that are open, those of the innermost last.
    fields: Vec<Field<'a>>,
}

struct Field<'a> {
    name: Cow<'a, str>,
    /// Where its name and value are written, without commas.
    place: Range<usize>,
}

impl<'a> Form<'a> {
    pub(super) fn over(checked: &'a str) -> Self {
        Self { walk: Walk::over(checked), out: String::new(), fields: Vec::new() }
    }

    /// The value that the text is.
    pub(super) fn whole(mut self) -> Result<String, JsonError> {
        self.value(0)?;
        Ok(self.out)
    }

    /// The fields of the object that the text is, in the order in which they stand there.
    pub(super) fn each_field(
        mut self,
        mut keep: impl FnMut(Cow<'a, str>, String),
    ) -> Result<(), JsonError> {
        let Part::Object = self.walk.next_part() else { return Err(JsonError::NotAnObject) };
        while let Some(name) = self.walk.next_name() {
            let name = unescaped(name)?;
            self.value(1)?;
            keep(name, std::mem::take(&mut self.out));
        }
        Ok(())
    }

    /// `depth` is the number of arrays and objects around the value.
    fn value(&mut self, depth: usize) -> Result<(), JsonError> {
        match self.walk.next_part() {
            Part::Object | Part::Array if depth == MAX_DEPTH => return Err(JsonError::TooDeep),
            Part::Object => self.object(depth + 1)?,
            Part::Array => self.array(depth + 1)?,
            Part::String(literal) => write_string(&mut self.out, &unescaped(literal)?),
            Part::Number(text) => write_number(&mut self.out, text)?,
            Part::Word(text) => self.out.push_str(text),
        }
        Ok(())
    }

    /// The items of an array whose opening bracket is behind us.
    fn array(&mut self, depth: usize) -> Result<(), JsonError> {
        self.out.push('[');
        let start = self.out.len();
        while self.walk.has_item() {
            self.comma_after(start);
            self.value(depth)?;
        }
        self.out.push(']');
        Ok(())
    }

    /// The fields of an object whose opening brace is behind us.
    fn object(&mut self, depth: usize) -> Result<(), JsonError> {
        self.out.push('{');
        let (start, first) = (self.out.len(), self.fields.len());
        while let Some(name) = self.walk.next_name() {
            self.comma_after(start);
            let (name, at) = (unescaped(name)?, self.out.len());
            write_string(&mut self.out, &name);
            self.out.push(':');
            self.value(depth)?;
            self.fields.push(Field { name, place: at..self.out.len() });
        }
        if !self.fields[first..].is_sorted_by(|one, next| one.name < next.name) {
            self.sort(start, first);
        }
        self.fields.truncate(first);
        self.out.push('}');
        Ok(())
    }

    fn comma_after(&mut self, start: usize) {
        if self.out.len() > start {
            self.out.push(',');
        }
    }

    /// Writes the fields from the `first` on anew, which begin at `start`: in the order of bytes, which
    /// for UTF-8 is the order of code points, and of those with one name the last.
    fn sort(&mut self, start: usize, first: usize) {
        let text = self.out.split_off(start);
        let fields = &mut self.fields[first..];
        // It keeps the order of those with one name.
        fields.sort_by(|one, other| one.name.cmp(&other.name));
        for same in fields.chunk_by(|one, next| one.name == next.name) {
            if self.out.len() > start {
                self.out.push(',');
            }
            let last = same.last().map_or(0..0, |field| field.place.clone());
            self.out.push_str(&text[last.start - start..last.end - start]);
        }
    }
}
