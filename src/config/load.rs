//! Loading: defaults, file, environment and command line, each written over the one before.

use std::{
    collections::{HashMap, HashSet},
    ffi::{OsStr, OsString},
    fmt::Display,
    io,
    path::Path,
};

use toml::de::{DeTable, DeValue};

use super::{
    given::{Given, Location, Value},
    mistake::{Mistakes, nearest, unknown},
    service_link::is_service_link,
    settings::{Config, ENV_PREFIX, SETTINGS, Setting, variable_name},
};
use crate::files;

/// The file that is read when none is named.
const FILE: &str = "proxy.toml";

/// The shortest beginning of a section's name that is taken for it.
const BEGINNING: usize = 4;

/// Variables with our prefix that are no settings: the password and where it waits, and the token, which
/// have no place among values that may be shown, and the path of the file, which is known before it
/// is read.
const OTHER_VARIABLES: [&str; 4] = ["password", "password_on_stdin", "config", "token"];

impl Config {
    /// Loads the configuration: the command line goes before the environment, that before the
    /// file, and that before the defaults.
    ///
    /// `file` must exist if it is given; otherwise `proxy.toml` in the current directory is read
    /// if there is one. `flags` are pairs of a setting's key and its value.
    ///
    /// A relative path in the file, or left at its default, starts at the file's folder; one from
    /// the environment or the command line starts at the current directory.
    ///
    /// # Errors
    ///
    /// Every mistake there is, also in values that something else overrides.
    pub fn load(
        file: Option<&Path>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
        flags: &[(&'static str, String)],
    ) -> Result<Self, Mistakes> {
        let path = file.unwrap_or(Path::new(FILE));
        let config = Self::defaults(path);
        let (places, mistakes, refused) = (HashMap::new(), Vec::new(), HashSet::new());
        let mut loading = Loading { config, places, mistakes, refused };
        match read(path, file.is_some()) {
            Ok(None) => {}
            Ok(Some(text)) => {
                loading.config.source = Some(path.to_owned());
                loading.file(path, &text);
            }
            Err(problem) => loading.note(&path.display().to_string(), &problem),
        }
        loading.environment(environment);
        loading.flags(flags);
        loading.finish()
    }
}

/// A configuration on its way, and what was wrong so far.
struct Loading {
    config: Config,
    /// Where each given setting got its value.
    places: HashMap<&'static str, String>,
    mistakes: Vec<String>,
    /// The settings, or the sections, that were given and refused: it is not known what is missing there.
    refused: HashSet<&'static str>,
}

impl Loading {
    fn file(&mut self, path: &Path, text: &str) {
        let location = |at| Location::File { path, text, at };
        let table = match DeTable::parse(text) {
            Ok(table) => table,
            Err(error) => {
                let place = location(error.span().map_or(0, |span| span.start)).place();
                return self.note(&place, &format_args!("not TOML: {}", error.message()));
            }
        };
        let mut values = Vec::new();
        flatten("", table.get_ref(), &mut values);
        values.sort_by_key(|(at, ..)| *at);
        for (at, key, value) in values {
            let place = || format!("{}: {key}", location(at).place());
            match Setting::find(&key) {
                Some(setting) => self.set(setting, Value::Toml(value), location(at)),
                None if is_section(&key) => {
                    let found = value.type_str();
                    self.note(&place(), &format!("expected settings under [{key}], found {found}"));
                }
                None => {
                    let sections = |key: &'static str| key.split_once('.').map(|(name, _)| name);
                    let keys = SETTINGS.iter().map(|setting| setting.key);
                    let mut sections = keys.clone().filter_map(sections);
                    let near = nearest(&key, keys.chain(sections.clone()));
                    let is_begun = |name: &&str| key.len() >= BEGINNING && name.starts_with(&key);
                    let near = near.or_else(|| sections.find(is_begun));
                    self.refused.extend(near);
                    self.note(&place(), &unknown(near));
                }
            }
        }
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let other = OTHER_VARIABLES.map(variable_name);
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with(ENV_PREFIX) && !other.contains(&name) {
                self.variable(&name, &value);
            }
        }
    }

    fn variable(&mut self, name: &str, value: &OsStr) {
        let rest = name.strip_prefix(ENV_PREFIX).unwrap_or_default();
        let setting = SETTINGS.iter().find(|setting| variable_name(setting.key) == name);
        let Some(setting) = setting else {
            if !is_service_link(rest, &value.to_string_lossy()) {
                let key = rest.to_lowercase().replace("__", ".");
                let known = SETTINGS.iter().map(|setting| setting.key).chain(OTHER_VARIABLES);
                let near = nearest(&key, known);
                self.refused.extend(near);
                self.note(name, &unknown(near.map(variable_name).as_deref()));
            }
            return;
        };
        let Some(text) = value.to_str() else { return self.note(name, &"the value is not UTF-8") };
        let array = DeValue::parse(text).ok().filter(|value| value.get_ref().is_array());
        let value = array.as_ref().map_or(Value::Text(text), |array| Value::Toml(array.get_ref()));
        self.set(setting, value, Location::Name(name));
    }

    fn flags(&mut self, flags: &[(&'static str, String)]) {
        for setting in SETTINGS {
            let values = flags.iter().filter(|(key, _)| *key == setting.key);
            let values: Vec<_> = values.map(|(_, value)| value.as_str()).collect();
            if !values.is_empty() {
                let name = setting.option.unwrap_or(setting.key);
                self.set(setting, Value::Options(values), Location::Name(name));
            }
        }
    }

    fn set(&mut self, setting: &Setting, value: Value<'_>, location: Location<'_>) {
        let (key, example) = (setting.key.to_owned(), setting.default);
        let given = Given { value, location, key, example };
        match (setting.set)(&mut self.config, &given) {
            Ok(()) => drop(self.places.insert(setting.key, given.place())),
            Err(wrong) => {
                self.refused.insert(setting.key);
                self.mistakes.extend(wrong.0);
            }
        }
    }

    fn is_refused(&self, key: &str) -> bool {
        let section = key.split_once('.').map_or(key, |(section, _)| section);
        self.refused.contains(key) || self.refused.contains(section)
    }

    fn note(&mut self, place: &str, problem: &dyn Display) {
        self.mistakes.push(format!("{place}: {problem}"));
    }

    fn finish(mut self) -> Result<Config, Mistakes> {
        for (key, contradiction) in self.config.contradictions() {
            if self.is_refused(key) {
                continue;
            }
            let place = self.places.remove(key).unwrap_or_else(|| key.to_owned());
            self.note(&place, &contradiction);
        }
        if self.mistakes.is_empty() { Ok(self.config) } else { Err(Mistakes(self.mistakes)) }
    }
}

/// The text of the file; `None` if there is none and none is needed.
fn read(path: &Path, needed: bool) -> Result<Option<String>, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let file = match files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => return Ok(None),
        file => file.map_err(unreadable)?,
    };
    let metadata = file.metadata().map_err(unreadable)?;
    files::check_unchangeable(path, &metadata)
        .map_err(|exposed| format!("it {}", exposed.how()))?;
    let mut bytes = Vec::new();
    files::read_whole(&file, &mut bytes).map_err(unreadable)?;
    String::from_utf8(bytes).map(Some).map_err(|_| "cannot be read: it is not UTF-8".to_owned())
}

/// Every key that is no section, with where it begins. A table that is no section is one key.
fn flatten<'a>(
    prefix: &str,
    table: &'a DeTable<'a>,
    values: &mut Vec<(usize, String, &'a DeValue<'a>)>,
) {
    for (name, value) in table {
        let key = format!("{prefix}{}", as_written(name.get_ref()));
        match value.get_ref() {
            DeValue::Table(table) if is_section(&key) => flatten(&format!("{key}."), table, values),
            value => values.push((name.span().start, key, value)),
        }
    }
}

fn is_section(key: &str) -> bool {
    let below = |s: &Setting| s.key.strip_prefix(key).is_some_and(|rest| rest.starts_with('.'));
    SETTINGS.iter().any(below)
}

/// A key part in quotes, if it had to be: `"upstream.url"` in quotes is not `upstream.url`.
fn as_written(name: &str) -> String {
    let bare = |byte: u8| byte.is_ascii_alphanumeric() || b"_-".contains(&byte);
    if name.bytes().all(bare) { name.to_owned() } else { format!("{name:?}") }
}

#[cfg(test)]
mod tests;
