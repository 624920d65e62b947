//! Loading: defaults, file, environment and command line, each written over the one before.

use std::{collections::HashMap, ffi::OsString, io, path::Path};

use super::{
    Config, file,
    mistake::{Mistake, Mistakes, Place, Problem, nearest},
    service_link::is_service_link,
    settings::{ENV_PREFIX, Given, SETTINGS, Setting, variable_name},
};
use crate::files;

/// The file that is read when none is named.
const FILE: &str = "proxy.toml";

/// Variables with our prefix that are no settings: the wallet's password and where it waits, which
/// have no place among values that may be shown, and the path of the file, which is known before it
/// is read.
const OTHER_VARIABLES: [&str; 3] = ["password", "password_on_stdin", "config"];

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
        let config = Self::blank();
        let mut loading = Loading { config, places: HashMap::new(), mistakes: Vec::new() };
        loading.file(file.unwrap_or(Path::new(FILE)), file.is_some());
        loading.environment(environment);
        loading.flags(flags);
        loading.finish()
    }
}

/// A configuration on its way, and what was wrong so far.
struct Loading {
    config: Config,
    /// Where each setting got its value; those that nobody gave are missing.
    places: HashMap<&'static str, Place>,
    mistakes: Vec<Mistake>,
}

impl Loading {
    /// The defaults and, over them, the file.
    fn file(&mut self, path: &Path, needed: bool) {
        match read(path, needed) {
            Ok(Some(text)) => {
                let folder = path.parent().unwrap_or(Path::new(""));
                self.defaults(folder);
                self.entries(path, folder, &text);
                self.config.source = Some(path.to_owned());
            }
            Ok(None) => self.defaults(Path::new("")),
            Err(problem) => self.note(Place::File(path.to_owned()), problem),
        }
    }

    fn defaults(&mut self, folder: &Path) {
        for setting in SETTINGS {
            let given = Given { text: setting.default, folder };
            // Every default is a value that its setting takes; any test that loads shows it.
            (setting.set)(&mut self.config, &given).expect("a valid default");
        }
    }

    fn entries(&mut self, path: &Path, folder: &Path, text: &str) {
        let entries = match file::entries(text) {
            Ok(entries) => entries,
            Err((line, problem)) => return self.note(Place::Line(path.to_owned(), line), problem),
        };
        for entry in entries {
            let place = Place::Key(path.to_owned(), entry.line, entry.key);
            match entry.value {
                Ok((setting, text)) => self.set(place, setting, &Given { text: &text, folder }),
                Err(problem) => self.note(place, problem),
            }
        }
    }

    fn environment(&mut self, variables: impl IntoIterator<Item = (OsString, OsString)>) {
        let other = OTHER_VARIABLES.map(variable_name);
        for (name, value) in variables {
            let name = name.to_string_lossy().into_owned();
            if name.starts_with(ENV_PREFIX) && !other.contains(&name) {
                self.variable(name, value);
            }
        }
    }

    fn variable(&mut self, name: String, value: OsString) {
        let setting = SETTINGS.iter().find(|setting| variable_name(setting.key) == name);
        let Some(setting) = setting else {
            let rest = name.strip_prefix(ENV_PREFIX).unwrap_or_default();
            if is_service_link(rest, &value.to_string_lossy()) {
                return;
            }
            let near = nearest_variable(&name);
            return self.note(Place::Variable(name), Problem::Unknown { near });
        };
        match value.into_string() {
            Ok(text) => self.set(Place::Variable(name), setting, &here(&text)),
            Err(_) => self.note(Place::Variable(name), Problem::NotUnicode),
        }
    }

    fn flags(&mut self, flags: &[(&'static str, String)]) {
        for (key, text) in flags {
            match Setting::find(key) {
                Some(setting) => {
                    let place = Place::Flag(setting.flag.unwrap_or(key).to_owned());
                    self.set(place, setting, &here(text));
                }
                None => self.note(Place::Flag((*key).to_owned()), Problem::Unknown { near: None }),
            }
        }
    }

    fn set(&mut self, place: Place, setting: &Setting, given: &Given<'_>) {
        match (setting.set)(&mut self.config, given) {
            Ok(()) => drop(self.places.insert(setting.key, place)),
            Err(invalid) => self.note(place, invalid.into()),
        }
    }

    fn note(&mut self, place: Place, problem: Problem) {
        self.mistakes.push(Mistake { place, problem });
    }

    fn finish(mut self) -> Result<Config, Mistakes> {
        for (key, contradiction) in self.config.contradictions() {
            let place = self.places.remove(key).unwrap_or_else(|| Place::Flag(key.to_owned()));
            self.note(place, contradiction.into());
        }
        if self.mistakes.is_empty() { Ok(self.config) } else { Err(Mistakes(self.mistakes)) }
    }
}

/// The text of the file; `None` if there is none and none is needed.
fn read(path: &Path, needed: bool) -> Result<Option<String>, Problem> {
    let file = match files::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !needed => return Ok(None),
        file => file?,
    };
    files::check_unchangeable(path, &file.metadata()?)?;
    let mut bytes = Vec::new();
    files::read_whole(&file, &mut bytes)?;
    let text = String::from_utf8(bytes);
    Ok(Some(text.map_err(|_| io::Error::other("it is not UTF-8"))?))
}

/// A value whose relative path starts at the current directory.
fn here(text: &str) -> Given<'_> {
    Given { text, folder: Path::new("") }
}

/// The variable that was meant, compared by what follows the prefix.
fn nearest_variable(name: &str) -> Option<String> {
    let key = name.strip_prefix(ENV_PREFIX)?.to_lowercase().replace("__", ".");
    let known = SETTINGS.iter().map(|setting| setting.key).chain(OTHER_VARIABLES);
    nearest(&key, known).map(variable_name)
}

#[cfg(test)]
mod tests {
    use std::{fs, iter, path::PathBuf};

    use tempfile::TempDir;

    use super::*;

    /// A folder with this text as its `proxy.toml`.
    fn folder(text: &str) -> (TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        fs::write(&path, text).unwrap();
        (folder, path)
    }

    fn environment(pairs: &[(&str, &str)]) -> Vec<(OsString, OsString)> {
        pairs.iter().map(|(name, value)| (name.into(), value.into())).collect()
    }

    /// The mistakes, one a line, without the name of the temporary folder.
    fn mistakes(
        text: &str,
        variables: &[(&str, &str)],
        flags: &[(&'static str, &str)],
    ) -> Vec<String> {
        let (folder, path) = folder(text);
        let flags: Vec<_> = flags.iter().map(|(key, value)| (*key, (*value).to_owned())).collect();
        let mistakes = Config::load(Some(&path), environment(variables), &flags).unwrap_err();
        let folder = format!("{}/", folder.path().display());
        mistakes.to_string().lines().map(|line| line.replace(&folder, "")).collect()
    }

    #[test]
    fn flag_goes_before_variable_before_file_before_default() {
        let (_folder, path) = folder("listen = '[::1]:1'\nlog.level = 'warn'\nlog.format = 'text'");
        let variables = environment(&[
            ("AGENTPMT_PROXY_LISTEN", "[::1]:2"),
            ("AGENTPMT_PROXY_LOG__LEVEL", "debug"),
        ]);
        let flags = [("listen", "[::1]:3".to_owned())];
        let config = Config::load(Some(&path), variables, &flags).unwrap();
        assert_eq!(config.listen[0].to_string(), "[::1]:3");
        assert_eq!(config.listen.len(), 1);
        assert_eq!(config.log.level, tracing::Level::DEBUG);
        assert_eq!(config.log.format, crate::config::LogFormat::Text);
        assert_eq!(config.upstream.url.to_string(), "https://www.agentpmt.com");
        assert_eq!(config.source, Some(path));
    }

    #[test]
    fn every_mistake_is_reported_in_one_run() {
        let text = "
            listen = ['127.0.0.1:8402', '8402']
            walet = '0x00'

            [upstream]
            url = 'http://www.agentpmt.com'
            timeout = 60
            [log]
            level = 'loud'
        ";
        let variables = [("AGENTPMT_PROXY_WALLET", "0x17"), ("AGENTPMT_PROXY_KEYS", "")];
        let found = mistakes(text, &variables, &[("upstream.url", "ftp://x"), ("listen", "8402")]);
        let expected = [
            "proxy.toml:2: listen: the address is missing",
            "proxy.toml:3: walet: no such setting; did you mean wallet?",
            "proxy.toml:6: upstream.url: plain http is only for an upstream on this machine",
            "proxy.toml:7: upstream.timeout: expected a string such as \"60s\", found an integer",
            "proxy.toml:9: log.level: expected one of error, warn, info, debug, trace",
            "AGENTPMT_PROXY_WALLET: an address is 0x and 40 hexadecimal digits",
            "AGENTPMT_PROXY_KEYS: a path is needed",
            "--upstream: the URL must begin with https://",
            "--listen: the address is missing",
        ];
        assert_eq!(found.len(), expected.len(), "{found:#?}");
        for (line, start) in found.iter().zip(expected) {
            assert!(line.starts_with(start), "{line}");
        }
    }

    #[test]
    fn a_mistake_counts_even_where_another_value_wins() {
        let found = mistakes("log.level = 'loud'", &[("AGENTPMT_PROXY_LOG__LEVEL", "info")], &[]);
        assert_eq!(
            found,
            ["proxy.toml:1: log.level: expected one of error, warn, info, debug, trace"]
        );
    }

    #[test]
    fn after_a_syntax_error_environment_and_flags_are_still_checked() {
        let found = mistakes("\nlisten = ", &[("AGENTPMT_PROXY_KEYS", "")], &[("listen", "")]);
        assert!(found[0].starts_with("proxy.toml:2: not TOML: "), "{found:#?}");
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn an_unknown_variable_is_met_with_the_nearest_one() {
        let near = |name| mistakes("", &[(name, "x")], &[]).remove(0);
        let cases = [
            ("AGENTPMT_PROXY_LISTN", "; did you mean AGENTPMT_PROXY_LISTEN?"),
            ("AGENTPMT_PROXY_UPSTREAM_URL", "; did you mean AGENTPMT_PROXY_UPSTREAM__URL?"),
            ("AGENTPMT_PROXY_PASWORD", "; did you mean AGENTPMT_PROXY_PASSWORD?"),
            ("AGENTPMT_PROXY_COLOUR", ""),
        ];
        for (name, hint) in cases {
            assert_eq!(near(name), format!("{name}: no such setting{hint}"));
        }
    }

    #[test]
    fn other_programs_variables_and_the_password_are_passed_over() {
        let (_folder, path) = folder("");
        let variables = environment(&[
            ("HOME", "/root"),
            ("AGENTPMT_PROXY_PASSWORD", "hunter2"),
            ("AGENTPMT_PROXY_CONFIG", "proxy.toml"),
        ]);
        let config = Config::load(Some(&path), variables, &[]).unwrap();
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn the_links_to_a_service_of_our_name_are_passed_over() {
        let (_folder, path) = folder("");
        let variables = environment(&[
            ("AGENTPMT_PROXY_PORT", "tcp://10.96.0.17:8402"),
            ("AGENTPMT_PROXY_PORT_8402_TCP_ADDR", "10.96.0.17"),
            ("AGENTPMT_PROXY_SERVICE_HOST", "10.96.0.17"),
        ]);
        assert!(Config::load(Some(&path), variables, &[]).is_ok());
        let mistyped = mistakes("", &[("AGENTPMT_PROXY_PORT", "8402")], &[]);
        assert!(mistyped[0].contains("no such setting"), "{mistyped:?}");
    }

    #[test]
    fn no_mistake_repeats_a_value() {
        let secret = "0x4646464646464646464646464646464646464646464646464646464646464646";
        let text = format!("wallet = '{secret}'\npassword = '{secret}'\nlog.level = '{secret}'");
        let variables = SETTINGS.iter().map(|setting| (variable_name(setting.key), secret));
        let variables: Vec<_> =
            variables.chain([("AGENTPMT_PROXY_PASSWORD".to_owned(), secret)]).collect();
        let variables: Vec<_> = variables.iter().map(|(name, text)| (&**name, *text)).collect();
        let url = format!("https://me:{secret}@www.agentpmt.com");
        let found = mistakes(&text, &variables, &[("upstream.url", &url), ("listen", secret)]);
        assert!(found.len() > 10, "{found:#?}");
        assert!(found.iter().all(|line| !line.contains("4646")), "{found:#?}");
    }

    #[cfg(unix)]
    #[test]
    fn a_value_that_is_not_utf_8_is_named() {
        use std::os::unix::ffi::OsStringExt;
        let (_folder, path) = folder("");
        let variable = ("AGENTPMT_PROXY_KEYS".into(), OsString::from_vec(vec![0xff]));
        let mistakes = Config::load(Some(&path), [variable], &[]).unwrap_err();
        assert_eq!(mistakes.to_string(), "AGENTPMT_PROXY_KEYS: the value is not UTF-8");
    }

    #[test]
    fn only_a_file_that_was_named_must_exist() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("none.toml");
        let mistakes = Config::load(Some(&path), iter::empty(), &[]).unwrap_err().to_string();
        assert!(mistakes.starts_with(&format!("{}: cannot be read: ", path.display())));
        assert!(matches!(read(&path, false), Ok(None)));
        assert!(read(folder.path(), false).is_err());
    }

    #[test]
    fn a_relative_path_starts_where_it_was_given() {
        let (folder, path) = folder("password_file = 'secret/password'");
        let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
        assert_eq!(config.keys, folder.path().join("keys"));
        assert_eq!(config.password_file, Some(folder.path().join("secret/password")));

        let variables = environment(&[("AGENTPMT_PROXY_KEYS", "mine")]);
        let flags = [("password_file", "./password".to_owned())];
        let config = Config::load(Some(&path), variables, &flags).unwrap();
        assert_eq!(config.keys, Path::new("mine"));
        assert_eq!(config.password_file, Some("./password".into()));
    }

    #[test]
    fn an_absolute_path_stays() {
        let (_folder, path) = folder("keys = '/etc/keys'");
        let config = Config::load(Some(&path), iter::empty(), &[]).unwrap();
        assert_eq!(config.keys, Path::new("/etc/keys"));
    }
}
