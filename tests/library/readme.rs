//! The README, as far as it repeats what the program knows.

use agentpmt_proxy::{action::ACTIONS, config::Config, sandbox::Fault};

const README: &str = include_str!("../../README.md");

#[test]
fn the_configuration_table_is_that_of_the_program() {
    for (key, default, why) in Config::rows() {
        let default = if default.is_empty() { String::new() } else { format!("`{default}`") };
        let row = format!("| `{key}` | {default} | {why} |");
        assert!(README.contains(&row), "missing: {row}");
    }
}

#[test]
fn every_call_is_listed_with_its_fields() {
    for action in ACTIONS {
        let path = action.path.trim_start_matches("/api/external");
        let call = format!("| `{} {path}` |", action.method);
        let row = README.lines().find(|line| line.starts_with(&call));
        let row = row.unwrap_or_else(|| panic!("missing: {call}"));
        for field in action.body {
            assert!(row.contains(&format!("`{}`", field.name())), "{field:?} is missing: {row}");
        }
    }
}

#[test]
fn every_error_code_is_listed() {
    let kinds = include_str!("../../src/http/problem/kind.rs");
    let is_code = |text: &&str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_');
    let codes: Vec<_> = kinds.split('"').skip(1).step_by(2).filter(is_code).collect();
    assert!(codes.len() > 10, "{codes:?}");
    for code in codes {
        assert!(README.contains(&format!("`{code}`")), "missing: {code}");
    }
}

#[test]
fn the_examples_of_faults_are_faults() {
    let example = README.split("/faults -d '").nth(1).and_then(|rest| rest.split('\'').next());
    let fault: Fault = serde_json::from_str(example.unwrap()).unwrap();
    assert_eq!(fault.kind.name(), "slow");
    let flag = README.split("--fault ").find_map(|rest| rest.split('`').next()?.parse().ok());
    assert_eq!(flag.map(|fault: Fault| fault.kind.name()), Some("cut_after"));
}

#[test]
fn the_example_of_a_configuration_is_one() {
    let text = README.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("proxy.toml");
    std::fs::write(&path, text).unwrap();
    let config = Config::load(Some(&path), std::iter::empty(), &[]).unwrap();
    assert_eq!(config.listen.len(), 3);
    assert!(config.is_covered());
}
