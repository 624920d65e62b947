//! Mistakes in a configuration.

use strsim::damerau_levenshtein;

use crate::types::InvalidValue;

/// Why a value is refused, and which are allowed. It never repeats the value, which may be a
/// secret in the wrong place.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidSetting(pub(super) String);

impl From<&str> for InvalidSetting {
    fn from(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl From<InvalidValue> for InvalidSetting {
    fn from(invalid: InvalidValue) -> Self {
        Self(invalid.to_string())
    }
}

/// Everything that is wrong with a configuration. It displays as one line a mistake: the place, and
/// an [`InvalidSetting`].
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{}", .0.join("\n"))]
pub struct Mistakes(pub(super) Vec<String>);

/// The text for a name that is none of the known ones.
pub(super) fn unknown(near: Option<&str>) -> InvalidSetting {
    let hint = near.map(|near| format!("; did you mean {near}?")).unwrap_or_default();
    InvalidSetting(format!("no such setting{hint}"))
}

/// The name that was probably meant: one with the same last part, in the wrong section, or one that
/// a few letters tell apart.
pub(crate) fn nearest(
    wanted: &str,
    known: impl Iterator<Item = &'static str>,
) -> Option<&'static str> {
    let limit = (wanted.len() / 3).max(1);
    known
        .map(|key| (last_part(key) != last_part(wanted), damerau_levenshtein(key, wanted), key))
        .filter(|(elsewhere, distance, _)| !elsewhere || *distance <= limit)
        .min()
        .map(|(_, _, key)| key)
}

fn last_part(key: &str) -> &str {
    key.rsplit('.').next().unwrap_or(key)
}
