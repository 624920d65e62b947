//! The README and the manual, as far as they repeat what the program knows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

use agentpmt_proxy::{
    action::{ACTIONS, Action, Field, JsonType},
    cli::Cli,
    config::Config,
    manual::{TOPICS, Topic},
    payment::Spending,
    problems::PROBLEMS,
    sandbox::{InjectedFault, KINDS},
};
use clap::{Command, CommandFactory};

const README: &str = include_str!("../../README.md");

/// The path and the text of each document.
fn documents() -> impl Iterator<Item = (String, &'static str)> {
    let topics = TOPICS.iter().map(|topic| (topic.path.to_owned(), topic.text));
    let others = [
        ("README.md", README),
        ("CHANGELOG.md", include_str!("../../CHANGELOG.md")),
        (".github/CONTRIBUTING.md", include_str!("../../.github/CONTRIBUTING.md")),
        (".github/SECURITY.md", include_str!("../../.github/SECURITY.md")),
    ];
    others.map(|(path, text)| (path.to_owned(), text)).into_iter().chain(topics)
}

fn topic(name: &str) -> &'static str {
    Topic::named(name).unwrap().text
}

/// The rows of every table of a text whose head begins so.
fn rows(text: &'static str, head: &str) -> Vec<&'static str> {
    let mut rows = Vec::new();
    let mut lines = text.lines();
    while lines.by_ref().any(|line| line.starts_with(head)) {
        rows.extend(lines.by_ref().skip(1).take_while(|line| line.starts_with('|')));
    }
    rows
}

/// A cell of a row, without the marks of code.
fn cell(row: &'static str, number: usize) -> &'static str {
    row.split(" | ").nth(number).unwrap().trim_matches(['|', ' ', '`'])
}

#[test]
fn the_table_of_settings_is_that_of_the_program() {
    let row = |(key, default, reloads, why): (&str, &str, bool, &str)| {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let reload = if reloads { "yes" } else { "" };
        format!("| `{key}` | {default} | {reload} | {why} |")
    };
    let expected: Vec<_> = Config::rows().map(row).collect();
    assert_eq!(rows(topic("configuration"), "| setting |"), expected);
}

#[test]
fn the_table_of_calls_is_that_of_the_program() {
    let row = |action: &Action| {
        let Action { name, summary, method, .. } = action;
        let path = action.path.trim_start_matches("/api/external");
        let field = |field: &Field| match field.json_type {
            JsonType::Integer { default: Some(default), .. } => {
                format!("`{}` (default {default})", field.name)
            }
            _ => format!("`{}`", field.name),
        };
        let fields: Vec<_> = action.body.iter().map(field).collect();
        let body = if fields.is_empty() { "none".to_owned() } else { fields.join(", ") };
        format!("| `{method} {path}` | `{name}` | {summary} | {body} |")
    };
    let expected: Vec<_> = ACTIONS.iter().map(row).collect();
    assert_eq!(rows(topic("api"), "| path under `/api/external` |"), expected);
}

#[test]
fn the_tables_of_errors_have_each_code_once() {
    let kinds: BTreeMap<_, _> =
        PROBLEMS.iter().map(|kind| (kind.code, kind.status.as_str())).collect();
    let listed = rows(topic("errors"), "| status |").into_iter();
    let listed: Vec<_> = listed.map(|row| (cell(row, 1), cell(row, 0))).collect();
    assert_eq!(listed.len(), kinds.len(), "one is there twice");
    assert_eq!(listed.into_iter().collect::<BTreeMap<_, _>>(), kinds);
}

#[test]
fn the_table_of_exit_codes_is_that_of_the_program() {
    let constants = include_str!("../../src/main.rs").split("const EX_").skip(1);
    let code = |text: &'static str| text.split(['=', ';']).nth(1).unwrap().trim();
    let codes: BTreeSet<_> = constants.map(code).chain(["0", "1"]).collect();
    let listed = rows(topic("errors"), "| exit code |").into_iter().map(|row| cell(row, 0));
    assert_eq!(listed.collect::<BTreeSet<_>>(), codes);
}

#[test]
fn the_table_of_faults_is_that_of_the_program() {
    let kinds = KINDS.iter();
    let expected: Vec<_> =
        kinds.map(|kind| format!("| `{}` | {} |", kind.name(), kind.about())).collect();
    assert_eq!(rows(topic("sandbox"), "| kind |"), expected);
}

#[test]
fn the_examples_of_faults_are_faults() {
    let text = topic("sandbox");
    let example = text.split("/faults -d '").nth(1).and_then(|rest| rest.split('\'').next());
    let fault: InjectedFault = serde_json::from_str(example.unwrap()).unwrap();
    assert_eq!(fault.kind.name(), "slow");
    let flag = text.split("--fault ").find_map(|rest| rest.lines().next()?.parse().ok());
    assert_eq!(flag.map(|fault: InjectedFault| fault.kind.name()), Some("cut_after"));
}

#[test]
fn the_examples_of_configurations_are_some() {
    let blocks = ["sharing", "paying"].map(|name| topic(name).split("```toml\n").skip(1));
    let blocks = blocks.into_iter().flatten();
    let configurations = blocks.map(|rest| {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("proxy.toml");
        fs::write(&path, rest.split("```").next().unwrap()).unwrap();
        Config::load(Some(&path), std::iter::empty(), &[]).unwrap()
    });
    let [listening, wallets, paying] = configurations.collect::<Vec<_>>().try_into().unwrap();
    assert_eq!(listening.listen.len(), 3);
    assert!(listening.is_covered());
    assert_eq!(wallets.wallets.len(), 2);
    assert!(Spending::of(&paying.spending).is_some());
}

#[test]
fn the_readme_is_short_and_leads_to_every_topic() {
    assert!(README.lines().count() <= 160);
    let files = fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual")).unwrap();
    let in_folder = TOPICS.iter().filter(|topic| topic.path.starts_with("src/manual/"));
    assert_eq!(files.count(), in_folder.count());
    for topic in TOPICS {
        let line = format!("- [{}]({}): {}", topic.name, topic.path, topic.about());
        assert!(README.lines().any(|listed| listed == line), "missing: {line}");
    }
}

#[test]
fn the_skill_is_short_and_names_calls_and_codes_that_exist() {
    let skill = topic("agent");
    assert!(skill.lines().count() < 120);
    let codes = rows(skill, "| `code` |").into_iter().flat_map(|row| cell(row, 0).split("`, `"));
    let codes: Vec<_> = codes.collect();
    let known = |code: &&str| PROBLEMS.iter().any(|kind| kind.code == *code);
    assert_eq!(codes.iter().find(|code| !known(code)), None);
    assert!(codes.len() > 8, "{codes:?}");
    let paths = skill.split(['`', ' ', '?']).filter(|word| word.starts_with("/api/external/"));
    let mut named = 0;
    for path in paths {
        assert!(ACTIONS.iter().any(|action| action.path == path), "{path}");
        named += 1;
    }
    assert!(named > 6, "{named}");
}

#[test]
fn links_lead_to_files() {
    for (document, text) in documents() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let folder = root.join(&document).parent().unwrap().to_owned();
        let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
        for target in targets.filter(|target| !target.starts_with("https://")) {
            assert!(folder.join(target).exists(), "{document}: {target}");
        }
    }
}

#[test]
fn commands_that_are_named_exist() {
    let mut named = 0;
    for (document, text) in documents() {
        // Spans and blocks alike stand between back quotes.
        for line in text.split('`').skip(1).step_by(2).flat_map(str::lines) {
            let cli = Cli::command();
            for words in commands(line, &cli) {
                named += 1;
                if let Err(word) = exists(&words, &cli) {
                    panic!("{document}: no {word} in: {line}");
                }
            }
        }
    }
    assert!(named > 60, "{named}");
}

/// The commands of the program in a line of a shell, each as its words after the program's name, which
/// the name of a subcommand may stand without.
fn commands<'a>(line: &'a str, cli: &Command) -> Vec<Vec<&'a str>> {
    let line = line.split(" #").next().unwrap();
    let parts = line.split(['|', '(', ')', '&', ';']).map(|part| part.split_whitespace());
    let words = parts.filter_map(|part| {
        let words: Vec<_> = part.collect();
        match words.iter().position(|word| *word == "agentpmt-proxy") {
            Some(program) => Some(words[program + 1..].to_vec()),
            None => cli.find_subcommand(words.first()?).is_some().then_some(words),
        }
    });
    words.filter(|words| !words.is_empty()).collect()
}

/// Whether there are the subcommands and the options among these words; or the one that is not there.
fn exists<'a>(words: &[&'a str], cli: &Command) -> Result<(), &'a str> {
    let mut command = cli;
    for &word in words {
        if let Some(option) = word.strip_prefix("--") {
            let common = ["help", "version"].into_iter();
            let options = command.get_arguments().chain(cli.get_arguments());
            let mut known = options.filter_map(|option| option.get_long()).chain(common);
            known.any(|known| known == option).then_some(()).ok_or(word)?;
        } else if command.has_subcommands() && word.starts_with(|first: char| first.is_lowercase())
        {
            command = command.find_subcommand(word).ok_or(word)?;
        }
    }
    Ok(())
}
