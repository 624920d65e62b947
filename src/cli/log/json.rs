//! Log events as lines of JSON, in ASCII, so that nothing in them reaches a terminal as a command.
//! They are written without the subscriber's serializer, which takes a large part of a call's time.
//! Spans are not written: there are none.

use std::fmt::{self, Debug, Write};

use jiff::Timestamp;
use tracing::{
    Event, Subscriber,
    field::{Field, Visit},
};
use tracing_subscriber::{
    fmt::{FmtContext, FormatEvent, FormatFields, format::Writer},
    registry::LookupSpan,
};

use crate::json::write_string;

/// Room for most lines, in bytes.
const USUAL_LENGTH: usize = 512;

/// An object a line: time, level and the fields of the event.
pub(super) struct JsonLines;

impl<S, N> FormatEvent<S, N> for JsonLines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let mut line = Line(String::with_capacity(USUAL_LENGTH));
        let (time, level) = (Timestamp::now(), event.metadata().level());
        write!(line.0, r#"{{"timestamp":"{time:.6}","level":"{level}""#)?;
        event.record(&mut line);
        line.0.push_str("}\n");
        writer.write_str(&line.0)
    }
}

/// A line that is being written.
struct Line(String);

impl Line {
    fn name(&mut self, field: &Field) {
        // Names stand in the code, and none has anything to escape.
        self.0.extend([",\"", field.name(), "\":"]);
    }

    /// Writes what is JSON as it is displayed.
    fn bare(&mut self, field: &Field, value: impl fmt::Display) {
        self.name(field);
        // Writing into a `String` cannot fail.
        let _ = write!(self.0, "{value}");
    }
}

impl Visit for Line {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.name(field);
        write_string(&mut self.0, value);
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.bare(field, value);
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.bare(field, value);
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.bare(field, value);
    }

    /// Floats and integers over 64 bits come here too, and are written as strings.
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.record_str(field, &format!("{value:?}"));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use serde_json::Value;
    use tracing_subscriber::{fmt::layer, layer::SubscriberExt, registry};

    use super::*;

    /// The lines that are logged meanwhile.
    fn logged(work: impl FnOnce()) -> String {
        #[derive(Clone, Default)]
        struct Lines(Arc<Mutex<Vec<u8>>>);

        impl std::io::Write for Lines {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                self.0.lock().unwrap().extend_from_slice(bytes);
                Ok(bytes.len())
            }

            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }

        let lines = Lines::default();
        let writer = lines.clone();
        let layer = layer().with_writer(move || writer.clone()).event_format(JsonLines);
        tracing::subscriber::with_default(registry().with(layer), work);
        let bytes = lines.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn every_kind_of_value_is_json_and_whatever_it_holds_stays_on_one_line() {
        let lines = logged(|| {
            let nothing: Option<u64> = None;
            let text = "\"\\\n\u{1b}[31m\u{fc}\u{2028}";
            tracing::warn!(text, shown = %text, number = 7_u16, less = -7, yes = true, nothing, "said {text}");
            tracing::info!(float = f64::NAN);
        });
        let [first, second] = lines.lines().collect::<Vec<_>>()[..] else { panic!("{lines}") };
        assert!(lines.is_ascii(), "nothing that a terminal acts on: {lines}");
        let (first, second): (Value, Value) =
            (serde_json::from_str(first).unwrap(), serde_json::from_str(second).unwrap());
        let text = "\"\\\n\u{1b}[31m\u{fc}\u{2028}";
        assert_eq!((&first["text"], &first["shown"]), (&text.into(), &text.into()));
        assert_eq!(first["message"], format!("said {text}"));
        assert_eq!((&first["number"], &first["less"]), (&7.into(), &(-7).into()));
        assert_eq!((&first["yes"], first.get("nothing")), (&true.into(), None));
        assert_eq!((&first["level"], &second["level"]), (&"WARN".into(), &"INFO".into()));
        assert_eq!(second["float"], "NaN");
        let time: jiff::Timestamp = first["timestamp"].as_str().unwrap().parse().unwrap();
        assert!(jiff::Timestamp::now().duration_since(time).as_secs() < 60);
    }
}
