//! The values of settings, each read from what was given.

use std::{env, path::PathBuf, str::FromStr, time::Duration};

use jiff::SignedDuration;
use toml::de::DeValue;
use tracing::Level;

use super::{
    given::{Given, Value},
    mistake::InvalidSetting,
};
use crate::types::{Address, Network};

/// How a log line is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Text on a terminal, otherwise JSON.
    Auto,
    /// A line for people.
    Text,
    /// One JSON object a line.
    Json,
}

/// Whether callers have to be clients also while none is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ClientsAre {
    /// Every program on this machine may call until a client is added.
    Optional,
    /// Only clients may call.
    Required,
}

pub(super) fn log_level(given: &Given<'_>) -> Result<Level, InvalidSetting> {
    let words = [
        ("error", Level::ERROR),
        ("warn", Level::WARN),
        ("info", Level::INFO),
        ("debug", Level::DEBUG),
        ("trace", Level::TRACE),
    ];
    word(given, words)
}

pub(super) fn log_format(given: &Given<'_>) -> Result<LogFormat, InvalidSetting> {
    let words = [("auto", LogFormat::Auto), ("text", LogFormat::Text), ("json", LogFormat::Json)];
    word(given, words)
}

pub(super) fn clients_are(given: &Given<'_>) -> Result<ClientsAre, InvalidSetting> {
    word(given, [("required", ClientsAre::Required), ("optional", ClientsAre::Optional)])
}

fn word<T: Copy, const N: usize>(
    given: &Given<'_>,
    words: [(&str, T); N],
) -> Result<T, InvalidSetting> {
    let text = given.text()?;
    let found = words.iter().find(|(word, _)| *word == text);
    let names = || words.map(|(word, _)| word).join(", ");
    found
        .map(|(_, value)| *value)
        .ok_or_else(|| InvalidSetting(format!("expected one of {}", names())))
}

pub(super) fn boolean(given: &Given<'_>) -> Result<bool, InvalidSetting> {
    match given.value {
        Value::Toml(DeValue::Boolean(on)) => Ok(*on),
        Value::Toml(_) => Err(given.wrong_type("a boolean")),
        _ => given.text()?.parse().map_err(|_| "expected true or false".into()),
    }
}

pub(super) fn count(given: &Given<'_>) -> Result<usize, InvalidSetting> {
    let count = match given.value {
        Value::Toml(DeValue::Integer(number)) => {
            usize::from_str_radix(number.as_str(), number.radix()).ok()
        }
        Value::Toml(_) => return Err(given.wrong_type("a number")),
        _ => given.text()?.parse().ok(),
    };
    let count = count.filter(|count| (1..=1_000_000).contains(count));
    count.ok_or("expected a whole number from 1 to 1000000".into())
}

/// Permission bits.
pub(super) fn mode(given: &Given<'_>) -> Result<u32, InvalidSetting> {
    let text = given.text()?;
    let is_octal = (3..=4).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| is_octal && *mode <= 0o777);
    mode.ok_or("expected permission bits in octal, such as 0600 or 0660".into())
}

pub(super) fn timeout(given: &Given<'_>) -> Result<Duration, InvalidSetting> {
    let duration: SignedDuration = given
        .text()?
        .parse()
        .map_err(|_| "expected a duration with its unit, such as 5s or 1m 30s")?;
    let is_allowed = duration.is_positive() && duration <= SignedDuration::from_hours(1);
    if is_allowed {
        Ok(duration.unsigned_abs())
    } else {
        Err("a timeout is more than 0s and at most 1h".into())
    }
}

pub(super) fn text(given: &Given<'_>) -> Result<String, InvalidSetting> {
    given.text().map(str::to_owned)
}

pub(super) fn wallet(given: &Given<'_>) -> Result<Address, InvalidSetting> {
    Ok(given.text()?.parse()?)
}

pub(super) fn network(given: &Given<'_>) -> Result<Network, InvalidSetting> {
    Ok(given.text()?.parse()?)
}

/// A type that reads itself from text.
pub(super) fn parsed<T: FromStr<Err = InvalidSetting>>(
    given: &Given<'_>,
) -> Result<T, InvalidSetting> {
    given.text()?.parse()
}

/// A path. A relative one starts at the folder of the file, and `~/keys` at the home of the user: a
/// shell does not see all paths.
pub(super) fn path(given: &Given<'_>) -> Result<PathBuf, InvalidSetting> {
    path_of(given, given.text()?)
}

/// The path that is this part of a value.
pub(super) fn path_of(given: &Given<'_>, text: &str) -> Result<PathBuf, InvalidSetting> {
    let home = match text.strip_prefix('~') {
        _ if text.is_empty() => return Err("a path is needed, but the value is empty".into()),
        None => return Ok(given.location.folder().join(text)),
        Some(rest) if rest.is_empty() || rest.starts_with('/') => env::home_dir(),
        Some(_) => None,
    };
    let home = home.filter(|home| home.is_absolute());
    let home = home.ok_or(
        "only ~/ is known, and only if there is a home; write the whole path (./~ for a file)",
    )?;
    Ok(home.join(text.trim_start_matches("~").trim_start_matches('/')))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read<T>(text: &str, by: fn(&Given<'_>) -> Result<T, InvalidSetting>) -> Result<T, String> {
        by(&Given::of_variable(text)).map_err(|invalid| invalid.to_string())
    }

    #[test]
    fn a_timeout_has_a_unit_and_is_at_most_an_hour() {
        assert_eq!(read("1m 30s", timeout), Ok(Duration::from_secs(90)));
        assert_eq!(read("250ms", timeout), Ok(Duration::from_millis(250)));
        assert_eq!(read("1h", timeout), Ok(Duration::from_secs(3600)));
        for text in ["", "5", "soon", "5 parsecs"] {
            assert!(read(text, timeout).unwrap_err().contains("its unit"), "{text}");
        }
        for text in ["0s", "-5s", "1h 1ns", "24h"] {
            assert!(read(text, timeout).unwrap_err().contains("at most 1h"), "{text}");
        }
    }

    #[test]
    fn an_empty_text_is_no_wallet_and_no_file_but_never_a_folder() {
        let empty = Given::of_variable("");
        assert_eq!(empty.optional(wallet), Ok(None));
        assert_eq!(empty.optional(path), Ok(None));
        assert!(read("", path).unwrap_err().starts_with("a path is needed"));
    }

    #[test]
    fn permission_bits_are_octal() {
        assert_eq!((read("0600", mode), read("660", mode)), (Ok(0o600), Ok(0o660)));
        for text in ["", "6", "0o600", "+600", "0680", "1777", "rw-------"] {
            assert!(read(text, mode).unwrap_err().contains("permission bits"), "{text}");
        }
    }

    #[test]
    fn words_and_booleans_are_taken_as_documented_only() {
        assert!(read("INFO", log_level).is_err() && read("3", log_level).is_err());
        assert!(read("pretty", log_format).is_err());
        assert!(read("yes", boolean).is_err() && read("1", boolean).is_err());
    }
}
