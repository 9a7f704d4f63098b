//! The README against the program: what it says of the configuration, and the files it names.

use grantonce::config::{DefaultValue, VARIABLES};
use grantonce::domain::Reason;
use std::collections::BTreeSet;
use std::path::Path;

const README: &str = include_str!("../../README.md");

const PREFIX: &str = "GRANTONCE_";

/// The row of a table whose first cell begins with this name.
fn row(name: &str) -> Option<&'static str> {
    README.lines().find(|line| line.starts_with(&format!("| `{name}`")))
}

#[test]
fn every_variable_has_its_row_with_its_default_and_meaning() {
    for variable in VARIABLES {
        let name = variable.name;
        let row = row(name).unwrap_or_else(|| panic!("{name} has no row in README.md"));
        assert!(row.contains(variable.meaning), "{name}: {row} does not say: {}", variable.meaning);
        assert_eq!(row.contains("(s)"), variable.is_secret, "{name}: {row}");
        match variable.default {
            DefaultValue::Text(text) | DefaultValue::Derived(text) => {
                assert!(row.contains(&format!("| `{text}` |")), "{name}: {row} does not say the default: {text}");
            }
            DefaultValue::Unset => assert!(row.contains("|  |"), "{name} has no default: {row}"),
        }
    }
}

#[test]
fn every_name_of_ours_exists() {
    let known: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    let names = README.match_indices(PREFIX).map(|(at, _)| {
        let name = &README[at..];
        &name[..name.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(name.len())]
    });
    for name in names.filter(|name| *name != PREFIX) {
        let is_file = name.strip_suffix("_FILE").is_some_and(|secret| known.contains(secret));
        assert!(known.contains(name) || is_file, "README.md names {name}, which does not exist");
    }
}

#[test]
fn every_reason_of_a_dead_letter_has_its_row() {
    for reason in Reason::ALL {
        assert!(row(reason.name()).is_some(), "{} has no row in README.md", reason.name());
    }
}

#[test]
fn every_test_that_it_names_is_there() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let named = README.split('`').filter(|text| text.ends_with(".rs"));
    let missing: Vec<_> = named.clone().filter(|path| !root.join(path).is_file()).collect();
    assert!(named.count() > 5 && missing.is_empty(), "README.md names {missing:?}");
}
