//! The tables of the pages in `docs/`, compared with the code cell by cell.
//!
//! `UPDATE_DOCS=1 cargo test --features failpoints --test it docs::` writes the cells that the code determines.

use crate::house::ROOMS;
use grantonce::config::{DefaultValue, VARIABLES, Variable};
use grantonce::domain::{OrderStatus, Reason};
use grantonce::role::Role;
use grantonce::{Code, Exit};
use std::collections::BTreeSet;
use std::path::Path;

/// The cells of a line of a Markdown table, without the blanks around them. `\|` is no border.
pub(crate) fn cells(line: &str) -> Option<Vec<String>> {
    let inner = line.strip_prefix('|')?.strip_suffix('|')?;
    let split = inner.replace("\\|", "\u{0}");
    Some(split.split('|').map(|cell| cell.trim().replace('\u{0}', "\\|")).collect())
}

/// Compares a table with the rows that the code determines. `None` is a cell that people write; it must not be empty.
fn compare(page: &str, header: &[&str], rows: &[Vec<Option<String>>]) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(page);
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.iter().position(|line| cells(line).is_some_and(|cells| cells == header));
    let start = found.unwrap_or_else(|| panic!("{page} has no table with the header {header:?}")) + 2;
    let kept: Vec<_> = lines[start..].iter().map_while(|line| cells(line)).collect();
    let wanted: Vec<Vec<String>> = rows
        .iter()
        .map(|row| {
            let key = row[0].as_ref().expect("the first cell is the code's");
            let old = kept.iter().find(|old| old[0] == *key);
            let cell = |at: usize| row[at].clone().or_else(|| Some(old?[at].clone())).unwrap_or_default();
            (0..row.len()).map(cell).collect()
        })
        .collect();
    for (row, cells) in rows.iter().zip(&wanted) {
        let is_unwritten = row.iter().zip(cells).any(|(cell, text)| cell.is_none() && text.is_empty());
        assert!(!is_unwritten, "{page}: {} lacks a cell that people write", cells[0]);
    }
    if std::env::var_os("UPDATE_DOCS").is_some() {
        let made = wanted.iter().map(|row| format!("| {} |", row.join(" | ")));
        let before = lines[..start].iter().map(ToString::to_string);
        let after = lines[start + kept.len()..].iter().map(ToString::to_string);
        let all: Vec<String> = before.chain(made).chain(after).collect();
        std::fs::write(&path, all.join("\n") + "\n").unwrap();
        return;
    }
    for (have, want) in kept.iter().zip(&wanted) {
        assert_eq!(have, want, "{page}: UPDATE_DOCS=1 cargo test --features failpoints --test it docs::");
    }
    assert_eq!(kept.len(), wanted.len(), "{page}: the table {header:?} has rows too many or too few");
}

fn code(text: impl std::fmt::Display) -> Option<String> {
    Some(format!("`{text}`"))
}

fn told(paragraphs: Vec<String>) -> Option<String> {
    Some(paragraphs.join(" ").replace('|', "\\|"))
}

#[test]
fn errors() {
    let row = |error: Code| {
        let [means, action] = <[String; 2]>::try_from(error.doc()).unwrap();
        vec![code(error), Some(error.exit().code().to_string()), Some(means), Some(action)]
    };
    compare("docs/errors.md", &["code", "exit code", "means", "what to do"], &Code::ALL.map(row));
}

#[test]
fn exit_codes() {
    let row = |exit: Exit| vec![Some(exit.code().to_string()), told(exit.doc())];
    compare("docs/command-line.md", &["exit code", ""], &Exit::ALL.map(row));
}

#[test]
fn variables() {
    let readers = |variable: &Variable| {
        if variable.roles == Role::ALL {
            return "every role".to_owned();
        }
        let name = |role: &Role| match variable.required_by.contains(role) {
            true => format!("**{role}**"),
            false => role.to_string(),
        };
        variable.roles.iter().map(name).collect::<Vec<_>>().join(", ")
    };
    let row = |variable: &&Variable| {
        let default = match variable.default {
            DefaultValue::Text(text) | DefaultValue::Derived(text) => format!("`{text}`"),
            DefaultValue::Unset => String::new(),
        };
        let name = format!("`{}`{}", variable.name, if variable.is_secret { " (s)" } else { "" });
        vec![Some(name), Some(default), Some(readers(variable)), told(vec![variable.meaning.to_owned()])]
    };
    let rows: Vec<_> = VARIABLES.iter().map(row).collect();
    compare("docs/configuration.md", &["variable", "default", "read by", "meaning"], &rows);
}

#[test]
fn reasons() {
    let row = |reason: Reason| {
        let means = reason.doc().join(" ").trim_end_matches('.').to_owned();
        vec![code(reason), Some(means), None]
    };
    compare("docs/dead-letters.md", &["reason", "means", "what to do"], &Reason::ALL.map(row));
}

#[test]
fn order_statuses() {
    let settled = |status: OrderStatus| if status.is_settled() { "yes" } else { "no" };
    let row = |status: OrderStatus| vec![code(status), None, Some(settled(status).to_owned())];
    compare("docs/http-api.md", &["status", "means", "settled"], &OrderStatus::ALL.map(row));
}

#[test]
fn rooms() {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("ARCHITECTURE.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| room |")).skip(2).map_while(cells);
    let name = |word: &str| word.trim_end_matches('/').trim_end_matches(".rs").to_owned();
    let named: Vec<_> =
        rows.flat_map(|row| row[0].split('`').skip(1).step_by(2).map(name).collect::<Vec<_>>()).collect();
    let told: BTreeSet<_> = named.into_iter().filter(|room| room != "ops/console").collect();
    // lib.rs declares the rooms and is none.
    let rooms: BTreeSet<_> = ROOMS.iter().map(|(room, _)| (*room).to_owned()).filter(|room| room != "lib").collect();
    assert_eq!(told, rooms, "ARCHITECTURE.md and tests/it/house.rs");
}

#[test]
fn a_cell_may_hold_an_escaped_border() {
    assert_eq!(cells("| a \\| b |  | `c` |"), Some(vec!["a \\| b".to_owned(), String::new(), "`c`".to_owned()]));
    assert_eq!(cells("text"), None);
}
