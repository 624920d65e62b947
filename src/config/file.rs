//! The configuration file: TOML text taken apart into settings, each with its line.

use toml::de::{DeArray, DeTable, DeValue};

use super::{
    mistake::{Problem, nearest},
    settings::{Kind, SETTINGS, Setting},
};

/// One key of the file.
pub(super) struct Entry {
    pub(super) line: usize,
    pub(super) key: String,
    pub(super) value: Result<(&'static Setting, String), Problem>,
}

/// The entries of the text in the order of their lines. When the text is not TOML, the line where
/// the parser stopped and its reason.
pub(super) fn entries(text: &str) -> Result<Vec<Entry>, (usize, Problem)> {
    let table = DeTable::parse(text).map_err(|error| {
        let start = error.span().map_or(0, |span| span.start);
        (line(text, start), Problem::Syntax(error.message().to_owned()))
    })?;
    let mut entries = Vec::new();
    collect(text, "", table.get_ref(), &mut entries);
    entries.sort_by_key(|entry| entry.line);
    Ok(entries)
}

/// Walks the sections that the settings have; any other table is one unknown key.
fn collect(text: &str, prefix: &str, table: &DeTable<'_>, entries: &mut Vec<Entry>) {
    for (name, value) in table {
        let key = format!("{prefix}{}", as_written(name.get_ref()));
        match value.get_ref() {
            DeValue::Table(table) if is_section(&key) => {
                collect(text, &format!("{key}."), table, entries);
            }
            DeValue::Array(tables) if let Some(setting) = tables_at(&key, tables) => {
                let line = line(text, name.span().start);
                entries.extend(judge_tables(text, setting, tables, line));
            }
            value => {
                let line = line(text, name.span().start);
                entries.push(Entry { line, value: judge(&key, value), key });
            }
        }
    }
}

/// The setting with this key and its value as text.
fn judge(key: &str, value: &DeValue<'_>) -> Result<(&'static Setting, String), Problem> {
    let wrong = |expected| Err(Problem::WrongType { expected, found: type_name(value) });
    let Some(setting) = Setting::find(key) else {
        if is_section(key) {
            return wrong(format!("settings under [{key}]"));
        }
        let near = nearest(key, SETTINGS.iter().flat_map(|s| [Some(s.key), s.section()]).flatten());
        return Err(Problem::Unknown { near: near.map(str::to_owned) });
    };
    match (setting.kind, value) {
        (Kind::String | Kind::List, DeValue::String(text)) => Ok((setting, text.to_string())),
        (Kind::List, DeValue::Array(items)) if items.iter().all(|item| item.get_ref().is_str()) => {
            Ok((setting, joined(items)))
        }
        (Kind::Boolean, DeValue::Boolean(on)) => Ok((setting, on.to_string())),
        (Kind::Integer, DeValue::Integer(number)) => Ok((setting, number.to_string())),
        (Kind::String, _) if setting.default.is_empty() => wrong("a string in quotes".to_owned()),
        (Kind::String, _) => wrong(format!("a string such as \"{}\"", setting.default)),
        (Kind::List, _) => {
            wrong(format!("a string such as \"{}\", or an array of such strings", setting.default))
        }
        (Kind::Tables(_), _) => wrong(format!("tables, as in [[{key}]]")),
        (Kind::Boolean, _) => wrong("true or false, without quotes".to_owned()),
        (Kind::Integer, _) => wrong(format!("a number such as {}", setting.default)),
    }
}

/// The setting with this key, if it is one of tables and these are tables.
fn tables_at(key: &str, items: &DeArray<'_>) -> Option<&'static Setting> {
    let setting = Setting::find(key).filter(|setting| matches!(setting.kind, Kind::Tables(_)));
    setting.filter(|_| items.iter().all(|item| item.get_ref().is_table()))
}

/// The value of a setting of tables as the environment would have it, `FIRST=SECOND` with commas
/// between, or what is wrong with them.
fn judge_tables(
    text: &str,
    setting: &'static Setting,
    tables: &DeArray<'_>,
    first_line: usize,
) -> Vec<Entry> {
    let Kind::Tables(keys) = setting.kind else { return Vec::new() };
    let mut mistakes = Vec::new();
    let mut items = Vec::new();
    for table in tables.iter().filter_map(|table| table.get_ref().as_table()) {
        for (name, value) in table {
            let line = line(text, name.span().start);
            let key = format!("{}.{}", setting.key, as_written(name.get_ref()));
            let problem = field_problem(keys, name.get_ref(), value.get_ref());
            mistakes.extend(problem.map(|problem| Entry { line, key, value: Err(problem) }));
        }
        if let Some(first) = keys.first().filter(|first| table.get(**first).is_none()) {
            let (line, key) = (first_line, setting.key.to_owned());
            mistakes.push(Entry { line, key, value: Err(Problem::Lacks(first)) });
        }
        let texts = keys.iter().filter_map(|key| table.get(*key)?.get_ref().as_str());
        items.push(texts.collect::<Vec<_>>().join("="));
    }
    if !mistakes.is_empty() {
        return mistakes;
    }
    let value = Ok((setting, items.join(",")));
    vec![Entry { line: first_line, key: setting.key.to_owned(), value }]
}

/// What is wrong with a field of a table that may have these.
fn field_problem(keys: &[&'static str], name: &str, value: &DeValue<'_>) -> Option<Problem> {
    if !keys.contains(&name) {
        let near = nearest(name, keys.iter().copied()).map(str::to_owned);
        return Some(Problem::Unknown { near });
    }
    let expected = "a string in quotes".to_owned();
    match value.as_str() {
        Some(text) => text.contains(',').then_some(Problem::Comma),
        None => Some(Problem::WrongType { expected, found: type_name(value) }),
    }
}

/// The strings of an array as the environment would have them: with commas between.
fn joined(items: &DeArray<'_>) -> String {
    items.iter().filter_map(|item| item.get_ref().as_str()).collect::<Vec<_>>().join(",")
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

fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date or time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

/// The line, from 1, of the byte at `offset`.
fn line(text: &str, offset: usize) -> usize {
    1 + text.bytes().take(offset).filter(|byte| *byte == b'\n').count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The problems of the text, as `line: key: problem`.
    fn problems(text: &str) -> Vec<String> {
        let problem = |entry: Entry| {
            let Entry { line, key, value } = entry;
            value.err().map(|problem| format!("{line}: {key}: {problem}"))
        };
        entries(text).unwrap_or_default().into_iter().filter_map(problem).collect()
    }

    #[test]
    fn a_wrong_type_says_what_is_expected() {
        let text = "
            listen = 8402
            keys = ['a']
            expose_workflow_token = 'true'
            wallet = 0x17
            password_file = {}
            [upstream]
            url = 5
            timeout = 1.5
        ";
        let expected = [
            "2: listen: expected a string such as \"localhost:8402\", or an array of such strings, \
             found an integer",
            "3: keys: expected a string such as \"keys\", found an array",
            "4: expose_workflow_token: expected true or false, without quotes, found a string",
            "5: wallet: expected a string in quotes, found an integer",
            "6: password_file: expected a string in quotes, found a table",
            "8: upstream.url: expected a string such as \"https://www.agentpmt.com\", found an integer",
            "9: upstream.timeout: expected a string such as \"60s\", found a float",
        ];
        assert_eq!(problems(text), expected);
    }

    #[test]
    fn a_section_must_be_a_table() {
        let expected = "1: log: expected settings under [log], found a string";
        assert_eq!(problems("log = 'debug'"), [expected]);
        let expected = "1: log: expected settings under [log], found an array";
        assert_eq!(problems("[[log]]\nlevel = 'debug'"), [expected]);
    }

    #[test]
    fn an_unknown_key_is_met_with_the_nearest_one() {
        let cases = [
            ("lisen = ''", "1: lisen: no such setting; did you mean listen?"),
            ("timeout = ''", "1: timeout: no such setting; did you mean upstream.timeout?"),
            ("[log]\nkeys = ''", "2: log.keys: no such setting; did you mean keys?"),
            ("\n[upstraem]\nurl = ''", "2: upstraem: no such setting; did you mean upstream?"),
            (
                "[log.level]\nx = 1",
                "1: log.level: expected a string such as \"info\", found a table",
            ),
            ("\"log.level\" = ''", "1: \"log.level\": no such setting; did you mean log.level?"),
            ("\n\ncolour = 'blue'", "3: colour: no such setting"),
        ];
        for (text, expected) in cases {
            assert_eq!(problems(text), [expected]);
        }
    }

    #[test]
    fn dotted_and_inline_keys_are_the_same_settings() {
        for text in ["upstream.url = 'x'", "upstream = { url = 'x' }", "[upstream]\n'url' = 'x'"] {
            let entries = entries(text).unwrap_or_default();
            assert_eq!(entries[0].key, "upstream.url");
            assert!(matches!(&entries[0].value, Ok((_, value)) if value == "x"));
        }
    }

    #[test]
    fn tables_become_what_the_environment_would_have() {
        let text =
            "[[wallets]]\naddress = '0xa'\npassword_file = 'p'\n[[wallets]]\naddress = '0xb'";
        let entries = entries(text).unwrap_or_default();
        assert!(
            matches!(&entries[..], [Entry { value: Ok((_, value)), line: 1, .. }] if value == "0xa=p,0xb")
        );
        let wrong = "[[wallets]]\naddress = '0xa'\npasword_file = 'p'\n[[wallets]]\naddress = 7\n";
        let expected = [
            "3: wallets.pasword_file: no such setting; did you mean password_file?",
            "5: wallets.address: expected a string in quotes, found an integer",
        ];
        assert_eq!(problems(wrong), expected);
        let wrong = "[[wallets]]\npassword_file = 'a,b'";
        let expected = [
            "1: wallets: a table of it lacks address",
            "2: wallets.password_file: the value has a comma in it, which stands between values",
        ];
        assert_eq!(problems(wrong), expected);
        let found = problems("wallets = 'x'").remove(0);
        assert_eq!(found, "1: wallets: expected tables, as in [[wallets]], found a string");
    }

    #[test]
    fn a_list_is_a_string_or_an_array_of_strings() {
        for text in ["listen = 'a,b'", "listen = ['a', 'b']"] {
            let entries = entries(text).unwrap_or_default();
            assert!(matches!(&entries[0].value, Ok((_, value)) if value == "a,b"), "{text}");
        }
        for (text, found) in [("listen = ['a', 8402]", "an array"), ("listen = {}", "a table")] {
            let problem = problems(text).remove(0);
            assert!(problem.ends_with(&format!(" strings, found {found}")), "{problem}");
        }
    }

    #[test]
    fn a_syntax_error_has_its_line() {
        let cases = [
            ("\nlisten = \n", 2),
            ("listen = ''\n\nlisten = ''", 3),
            ("[log]\n[upstream]\n[log]\n", 3),
            ("keys = ''\nlisten = \"abc\n", 2),
            ("keys = ''\nlisten", 2),
        ];
        for (text, line) in cases {
            let found = entries(text).map_err(|(line, problem)| (line, problem.to_string())).err();
            let (at, message) = found.unwrap();
            assert_eq!(at, line, "{text:?}: {message}");
            assert!(message.starts_with("not TOML: ") && !message.contains("abc"), "{message}");
        }
    }
}
