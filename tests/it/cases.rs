//! The table of the attack catalogue is complete and true: tests/fixtures/cases.txt.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use regex::Regex;

/// The catalogue: each family, and its numbers.
const CATALOGUE: &[(&str, &[std::ops::RangeInclusive<u8>])] = &[
    ("PX", &[1..=34, 40..=49]),
    ("TL", &[1..=24, 30..=42]),
    ("RT", &[1..=22]),
    ("EX", &[1..=32, 40..=44]),
    ("VA", &[1..=25]),
    ("AU", &[1..=19]),
    ("DO", &[1..=23]),
    ("FA", &[1..=18]),
];

fn catalogue() -> BTreeSet<String> {
    let family = |(name, ranges): &(&str, &'static [std::ops::RangeInclusive<u8>])| {
        let name = (*name).to_owned();
        ranges.iter().cloned().flatten().map(move |number| format!("{name}-{number:02}"))
    };
    CATALOGUE.iter().flat_map(family).collect()
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

struct Row {
    state: String,
    files: Vec<String>,
    reason: String,
}

fn table() -> BTreeMap<String, Row> {
    let text = std::fs::read_to_string(root().join("tests/fixtures/cases.txt")).unwrap();
    let mut rows = BTreeMap::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (facts, reason) = line.split_once(" ; ").unwrap_or((line, ""));
        let mut words = facts.split_whitespace().map(str::to_owned);
        let (id, state) = (words.next().unwrap(), words.next().unwrap_or_default());
        let row = Row { state, files: words.collect(), reason: reason.trim().to_owned() };
        assert!(rows.insert(id.clone(), row).is_none(), "{id} stands there twice");
    }
    rows
}

#[test]
fn every_case_of_the_catalogue_has_its_row() {
    assert_eq!(catalogue().len(), 225);
    assert_eq!(table().into_keys().collect::<BTreeSet<_>>(), catalogue());
}

#[test]
fn every_row_says_what_is_true() {
    for (id, row) in table() {
        let (files, reason) = match row.state.as_str() {
            "covered" => (true, false),
            "part" => (true, true),
            "n/a" | "open" => (false, true),
            other => panic!("{id}: {other:?} is no state"),
        };
        assert_eq!(!row.files.is_empty(), files, "{id}: files");
        assert_eq!(!row.reason.is_empty(), reason, "{id}: reason");
        for file in row.files {
            let text =
                std::fs::read_to_string(root().join(&file)).unwrap_or_else(|error| panic!("{id}: {file}: {error}"));
            assert!(text.contains(&id), "{id} is not named in {file}");
            assert!(text.contains("#[test]") || text.contains("#[tokio::test"), "{id}: there is no test in {file}");
        }
    }
}

#[test]
fn what_a_test_names_is_in_the_catalogue_and_not_called_open() {
    let (table, known) = (table(), catalogue());
    let id = Regex::new(r"\b(?:PX|TL|RT|EX|VA|AU|DO|FA)-[0-9]{2}\b").unwrap();
    let mut wrong = Vec::new();
    for file in files(&root().join("tests/it")) {
        let text = std::fs::read_to_string(&file).unwrap();
        for found in id.find_iter(&text).filter(|_| !file.ends_with("cases.rs")) {
            let state = table.get(found.as_str()).map_or("unknown", |row| &*row.state);
            if !known.contains(found.as_str()) || !["covered", "part"].contains(&state) {
                wrong.push(format!("{}: {} is {state}", file.display(), found.as_str()));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}
