//! What holds for any bytes, for those that fuzzing has saved: `tests/fuzz`.

use std::{fs, path::Path};

#[path = "../fuzz/invariants/mod.rs"]
mod invariants;

/// Runs a target's function over its corpus.
fn run(target: &str, check: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(target);
    let mut files: Vec<_> =
        fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    assert!(files.len() >= 10, "{target} has a corpus of {} files", files.len());
    for file in files {
        println!("{}", file.display());
        check(&fs::read(&file).unwrap());
    }
}

#[test]
fn canonical_json_of_the_corpus_keeps_its_value() {
    run("canonical", invariants::canonical::check);
}

#[test]
fn key_files_of_the_corpus_are_read_or_refused_without_a_word_of_them() {
    run("keystore", invariants::keystore::check);
}

#[test]
fn requests_of_the_corpus_are_refused_or_reach_the_upstream_signed() {
    run("request", invariants::request::check);
}

#[test]
fn answers_of_the_corpus_are_passed_on_without_their_token() {
    run("answer", invariants::answer::check);
}
