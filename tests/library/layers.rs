//! The layers of `lib.rs` and of every folder: a blank line between `mod` lines is a layer, and a
//! module imports only from layers above its own. So nothing imports from the file of the folder that
//! it is in, and no imports run in a circle.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    fs,
    path::{Path, PathBuf},
};

/// The names that two types have, each with the reason.
const NAMED_TWICE: [(&str, &str); 2] = [
    ("Export", "`journal export` and `wallet export`: a command is named as it is typed"),
    ("List", "`client list` and `wallet list`: a command is named as it is typed"),
];

/// The text of a module, or of the tests in it.
struct Source {
    file: PathBuf,
    /// Its path in the crate: `["cli", "wallet", "export"]`.
    module: Vec<String>,
    text: String,
}

/// The modules that a text declares, each with the number of its layer; tests are in none.
type Layers = HashMap<String, Option<usize>>;

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// Every file of the library, and the tests in it apart from it.
fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![source()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let file = entry.unwrap().path();
            if file.is_dir() {
                folders.push(file);
            } else if file.extension().is_some_and(|end| end == "rs") && !file.ends_with("main.rs")
            {
                sources.extend(parts(file));
            }
        }
    }
    sources
}

fn parts(file: PathBuf) -> Vec<Source> {
    let path = file.strip_prefix(source()).unwrap().with_extension("");
    let names = path.iter().map(|name| name.to_str().unwrap().to_owned());
    let module: Vec<_> = names.filter(|name| name != "lib").collect();
    let text = fs::read_to_string(&file).unwrap();
    let tests = text.find("#[cfg(test)]\nmod tests {\n").unwrap_or(text.len());
    let (code, tests) = text.split_at(tests);
    let of_tests = [&module[..], &["tests".to_owned()]].concat();
    let mut parts = vec![Source { file: file.clone(), module, text: code.to_owned() }];
    if !tests.is_empty() {
        parts.push(Source { file, module: of_tests, text: tests.to_owned() });
    }
    parts
}

fn layers(text: &str) -> Layers {
    let mut layers = HashMap::new();
    for (number, group) in text.split("\n\n").enumerate() {
        let mut before = "";
        for line in group.lines() {
            let name = line.rsplit_once("mod ").and_then(|(_, name)| name.strip_suffix(';'));
            let layer = (before != "#[cfg(test)]").then_some(number);
            layers.extend(name.map(|name| (name.to_owned(), layer)));
            before = line;
        }
    }
    layers
}

/// The paths of a text that begin with `crate`, `self` or `super`, each from the root of the crate.
fn imports(text: &str, module: &[String]) -> Vec<Vec<String>> {
    let (mut rest, mut found) = (text, Vec::new());
    let starts = ["crate::", "self::", "super::"];
    while let Some(at) = starts.iter().filter_map(|start| rest.find(start)).min() {
        let (before, path) = rest.split_at(at);
        let is_start = !before.ends_with(|c| is_of_name(c) || c == ':');
        rest = if is_start && !before.ends_with("pub(in ") {
            expand(path, module, &mut found)
        } else {
            path.split_once("::").unwrap().1
        };
    }
    found
}

/// Adds the paths of a use tree that stands in this module. Returns what follows it.
fn expand<'a>(text: &'a str, module: &[String], found: &mut Vec<Vec<String>>) -> &'a str {
    let text = text.trim_start();
    if let Some(mut rest) = text.strip_prefix('{') {
        while !rest.trim_start().starts_with('}') {
            rest = expand(rest, module, found).trim_start();
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        return rest.trim_start().strip_prefix('}').unwrap_or(rest);
    }
    let (name, rest) = text.split_at(text.find(|c| !is_of_name(c)).unwrap_or(text.len()));
    let path = match name {
        "crate" => Vec::new(),
        "self" => module.to_vec(),
        "super" => module[..module.len() - 1].to_vec(),
        name => [module, &[name.to_owned()]].concat(),
    };
    match rest.strip_prefix("::") {
        Some(rest) => expand(rest, &path, found),
        None => {
            found.push(path);
            rest
        }
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == '*'
}

/// The folder whose layers an import breaks, if it breaks any.
fn broken<'a>(
    module: &'a [String],
    import: &[String],
    folders: &HashMap<Vec<String>, Layers>,
) -> Option<&'a [String]> {
    let common = module.iter().zip(import).take_while(|(one, other)| one == other).count();
    let (folder, below) = module.split_at(common);
    let layers = folders.get(folder)?;
    // A module sees all that is in it, and so do its tests.
    let own = layers.get(below.first()?).copied().flatten()?;
    let above = import.get(common).and_then(|name| layers.get(name).copied().flatten());
    (above.is_none_or(|above| above >= own)).then_some(folder)
}

/// The type that a line defines, if it defines one. An indented alias belongs to a trait.
fn defined_type(line: &str) -> Option<&str> {
    let is_indented = line.starts_with(' ');
    let kinds = ["struct ", "enum ", "trait ", "type "].into_iter();
    let name = kinds.filter(|kind| !is_indented || *kind != "type ").find_map(|kind| {
        let (visibility, name) = line.trim_start().split_once(kind)?;
        let is_visibility = visibility.starts_with("pub ")
            || visibility.starts_with("pub(") && visibility.ends_with(") ");
        (visibility.is_empty() || is_visibility).then_some(name)
    })?;
    name.split(|c| !is_of_name(c)).next()
}

#[test]
fn a_module_imports_only_from_layers_above_its_own() {
    let sources = sources();
    let layers_of = |source: &Source| (source.module.clone(), layers(&source.text));
    let folders: HashMap<_, _> = sources.iter().map(layers_of).collect();
    assert!(folders[&Vec::new()].len() > 10 && folders.len() > 100);
    let mut mistakes = Vec::new();
    for Source { file, module, text } in &sources {
        for import in imports(text, module) {
            let Some(folder) = broken(module, &import, &folders) else { continue };
            if module.contains(&"tests".to_owned()) && !folder.is_empty() {
                // What tests need of their own folder is in no layer.
                continue;
            }
            mistakes.push(format!("{}: {}", file.display(), import.join("::")));
        }
    }
    assert!(mistakes.is_empty(), "these import from no layer above:\n{}", mistakes.join("\n"));
}

#[test]
fn every_file_is_declared_by_the_file_above_it() {
    let sources = sources();
    for Source { file, module, .. } in &sources {
        let Some((name, folder)) = module.split_last() else { continue };
        let above = sources.iter().find(|source| source.module == folder).unwrap();
        let is_declared = name == "tests" || layers(&above.text).contains_key(name);
        assert!(is_declared, "{}", file.display());
    }
}

#[test]
fn a_type_name_is_defined_once() {
    let mut files = BTreeMap::<String, BTreeSet<PathBuf>>::new();
    for Source { file, module, text } in sources() {
        if !module.contains(&"tests".to_owned()) {
            for name in text.lines().filter_map(defined_type) {
                files.entry(name.to_owned()).or_default().insert(file.clone());
            }
        }
    }
    assert!(files.len() > 300, "{}", files.len());
    files.retain(|_, files| files.len() > 1);
    let twice = files.keys().map(String::as_str);
    assert!(twice.eq(NAMED_TWICE.map(|(name, _)| name)), "defined more than once: {files:#?}");
}

#[test]
fn types_are_found_in_every_form() {
    let lines = [
        "struct A;",
        "    pub(super) enum B<'a> {",
        "pub trait C: Debug {",
        "pub(in crate::cli) type D = E;",
    ];
    assert!(lines.iter().filter_map(|line| defined_type(line)).eq(["A", "B", "C", "D"]));
    let others = ["    type Err = F;", "/// The struct G", "restruct H", "let i = \"enum J\";"];
    assert_eq!(others.into_iter().find_map(defined_type), None);
}

#[test]
fn imports_are_found_in_every_form() {
    let text =
        "use crate::a::B; use super::{\n    c::{self, D},\n    super::e::*,\n}; x: self::f::G";
    let module = ["m", "n"].map(str::to_owned);
    let found: Vec<_> = imports(text, &module).iter().map(|path| path.join("::")).collect();
    assert_eq!(found, ["a::B", "m::c", "m::c::D", "e::*", "m::n::f::G"]);
    assert!(imports("pub(in crate::cli) my_crate::X", &module).is_empty());
    let layers = layers("mod a;\npub mod b;\n\n#[cfg(test)]\nmod c;\nmod d;\n");
    assert_eq!(["a", "b", "c", "d"].map(|name| layers[name]), [Some(0), Some(0), None, Some(1)]);
}
