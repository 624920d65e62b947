//! The protocol against vectors made with other programs: one directory a case, one file a step, so
//! that a red test names the step.

use std::{
    fs,
    path::{Path, PathBuf},
};

use agentpmt_proxy::canonical::CanonicalJson;

fn cases(kind: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors").join(kind);
    let mut cases: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

fn read(case: &Path, step: &str) -> String {
    fs::read_to_string(case.join(step)).unwrap()
}

#[test]
fn canonical_text_and_hash_are_those_of_the_vectors() {
    for case in cases("canonical") {
        let json = CanonicalJson::parse(read(&case, "input.json").as_bytes()).unwrap();
        assert_eq!(json.as_str(), read(&case, "canonical.json"), "{case:?}: canonical text");
        assert_eq!(json.hash().to_string(), read(&case, "hash.txt"), "{case:?}: hash");
    }
}

#[test]
fn what_has_no_canonical_form_is_refused() {
    for case in cases("refused") {
        let result = CanonicalJson::parse(&fs::read(case.join("input.json")).unwrap());
        assert!(result.is_err(), "{case:?}: {result:?}");
    }
}
