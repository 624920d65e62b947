//! What can be wrong with a configuration, and where.

use std::{fmt, io, path::PathBuf};

use strsim::damerau_levenshtein;

use super::value::InvalidSetting;
use crate::files::Exposed;

/// Everything that is wrong with a configuration. It displays as one line a mistake: the place,
/// what is wrong, and what is allowed. Values are never repeated, since one may be a secret that
/// slipped into the wrong place.
#[derive(Debug, thiserror::Error)]
#[error("{}", lines(.0))]
pub struct Mistakes(pub(super) Vec<Mistake>);

fn lines(mistakes: &[Mistake]) -> String {
    mistakes.iter().map(Mistake::to_string).collect::<Vec<_>>().join("\n")
}

/// One thing that is wrong.
#[derive(Debug)]
pub(super) struct Mistake {
    pub(super) place: Place,
    pub(super) problem: Problem,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.problem)
    }
}

/// Where somebody has to look.
#[derive(Debug, Clone)]
pub(super) enum Place {
    File(PathBuf),
    Line(PathBuf, usize),
    Key(PathBuf, usize, String),
    Variable(String),
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Line(path, line) => write!(f, "{}:{line}", path.display()),
            Self::Key(path, line, key) => write!(f, "{}:{line}: {key}", path.display()),
            Self::Variable(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// What is wrong there.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error("cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("it {}", .0.how())]
    Exposed(#[from] Exposed),
    #[error("not TOML: {0}")]
    Syntax(String),
    #[error("no such setting{}", suggestion(.near.as_deref()))]
    Unknown { near: Option<String> },
    #[error("expected {expected}, found {found}")]
    WrongType { expected: String, found: &'static str },
    #[error("a table of it lacks {0}")]
    Lacks(&'static str),
    #[error("the value has a comma in it, which stands between values")]
    Comma,
    #[error("the value is not UTF-8")]
    NotUnicode,
    #[error(transparent)]
    Invalid(#[from] InvalidSetting),
}

fn suggestion(near: Option<&str>) -> String {
    near.map(|name| format!("; did you mean {name}?")).unwrap_or_default()
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
