//! The layers of `lib.rs`: a blank line is a layer, and a module imports only from those above.

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

/// Each module with the number of its layer.
fn layers() -> HashMap<String, usize> {
    let map = fs::read_to_string(source().join("lib.rs")).unwrap();
    let is_layer = |group: &&str| group.starts_with("pub mod ") || group.starts_with("mod ");
    let groups = map.split("\n\n").filter(is_layer);
    let layer = |(number, group): (usize, &str)| {
        let lines = group.lines().map(|line| line.trim_start_matches("pub "));
        let modules = lines.filter_map(|line| line.strip_prefix("mod ")?.strip_suffix(';'));
        modules.map(|module| (module.to_owned(), number)).collect::<Vec<_>>()
    };
    groups.enumerate().flat_map(layer).collect()
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// The files of a module: `name.rs` and everything under `name/`.
fn files(module: &str) -> Vec<PathBuf> {
    let mut files = vec![source().join(format!("{module}.rs"))];
    let mut folders = vec![source().join(module)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// The modules that a text names behind `crate::`, alone or in braces.
fn imports(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (start, _) in text.match_indices("crate::") {
        let rest = &text[start + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => found.extend(top_level_names(list)),
            None => found.push(leading_name(rest)),
        }
    }
    found
}

/// The first name of each item of a braced list, whose opening brace is already taken.
fn top_level_names(list: &str) -> Vec<String> {
    let mut names = vec![leading_name(list.trim_start())];
    let mut depth = 1;
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => names.push(leading_name(list[at + 1..].trim_start())),
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

fn leading_name(text: &str) -> String {
    text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect()
}

#[test]
fn a_module_imports_only_from_layers_above_its_own() {
    let layers = layers();
    assert!(layers.len() > 10, "{layers:?}");
    for (module, layer) in &layers {
        for file in files(module) {
            for import in imports(&fs::read_to_string(&file).unwrap()) {
                let Some(from) = layers.get(&import) else {
                    panic!("{file:?} imports crate::{import}, which is no module of lib.rs");
                };
                let allowed = from < layer || import == *module;
                assert!(allowed, "{file:?}: {module} must not import from {import}");
            }
        }
    }
}

#[test]
fn every_file_belongs_to_a_module_of_the_map() {
    let layers = layers();
    for entry in fs::read_dir(source()).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().unwrap().to_str().unwrap();
        assert!(["lib", "main"].contains(&name) || layers.contains_key(name), "{path:?}");
    }
}

#[test]
fn imports_are_found_in_every_form() {
    let text = "use crate::types::Address; use crate::{\n    a::{b, c},\n    d,\n}; x: crate::e::F";
    assert_eq!(imports(text), ["types", "a", "d", "e"]);
}
