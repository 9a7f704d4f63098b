//! README and the pages in `docs/` against the program: the configuration, the files they name, and their links.

use crate::support::World;
use grantonce::config::VARIABLES;
use regex::Regex;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

const TABLES: &str = include_str!("../../docs/tables.md");
const GUARANTEES: &str = include_str!("../../docs/guarantees.md");

/// A reader decides on the first screens whether to go on.
const README_LINES_MAX: usize = 200;

const PREFIX: &str = "GRANTONCE_";

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The Markdown files of a folder, with their text.
fn pages_of(folder: &str) -> Vec<(PathBuf, String)> {
    let entries = std::fs::read_dir(root().join(folder)).unwrap().map(|entry| entry.unwrap().path());
    let pages = entries.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| (path.clone(), std::fs::read_to_string(path).unwrap())).collect()
}

/// README and its neighbours, and all pages of the book.
fn pages() -> Vec<(PathBuf, String)> {
    let pages = [pages_of("."), pages_of("docs")].concat();
    assert!(pages.len() > 20, "the pages are found: {}", pages.len());
    pages
}

/// The anchor that GitHub and mdBook give a heading.
pub(crate) fn anchor(heading: &str) -> String {
    let kept = heading.to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).collect::<String>().replace(' ', "-")
}

/// The anchors of all headings of a page.
pub(crate) fn anchors(page: &str) -> BTreeSet<String> {
    let mut is_code = false;
    let is_heading = |line: &&str| {
        is_code ^= line.trim_start().starts_with("```");
        !is_code && line.starts_with('#')
    };
    page.lines().filter(is_heading).map(|line| anchor(line.trim_start_matches('#').trim())).collect()
}

#[test]
fn every_name_of_ours_exists() {
    let known: BTreeSet<_> = VARIABLES.iter().map(|variable| variable.name).collect();
    for (path, page) in [pages_of("docs"), vec![("README.md".into(), include_str!("../../README.md").into())]].concat()
    {
        let names = page.match_indices(PREFIX).map(|(at, _)| {
            let name = &page[at..];
            &name[..name.find(|c: char| !c.is_ascii_uppercase() && c != '_').unwrap_or(name.len())]
        });
        for name in names.filter(|name| *name != PREFIX) {
            let is_file = name.strip_suffix("_FILE").is_some_and(|secret| known.contains(secret));
            assert!(known.contains(name) || is_file, "{} names {name}, which does not exist", path.display());
        }
    }
}

/// The row of a table whose first cell begins with this name.
fn row<'a>(page: &'a str, name: &str) -> Option<&'a str> {
    page.lines().find(|line| line.starts_with(&format!("| `{name}`")))
}

/// The backquoted words of a cell of a table.
fn words(cell: &str) -> BTreeSet<String> {
    cell.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

#[tokio::test]
async fn every_table_has_its_row_with_its_columns() {
    let world = World::new().await;
    let columns: Vec<(String, Vec<String>)> = sqlx::query_as(
        "SELECT relname::text, array_agg(attname::text) FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid \
         WHERE relnamespace = current_schema()::regnamespace AND relkind IN ('r', 'v', 'p') AND NOT relispartition \
         AND relname != '_sqlx_migrations' AND attnum > 0 AND NOT attisdropped GROUP BY relname",
    )
    .fetch_all(&world.sql)
    .await
    .unwrap();
    assert!(columns.len() > 10, "{columns:?}");
    for (table, columns) in &columns {
        let row = row(TABLES, table).unwrap_or_else(|| panic!("{table} has no row in docs/tables.md"));
        let documented = words(row.split('|').nth(2).unwrap());
        let missing: Vec<_> = columns.iter().filter(|column| !documented.contains(*column)).collect();
        assert!(missing.is_empty(), "docs/tables.md lacks columns of {table}: {missing:?}");
    }
    let rows = TABLES.lines().filter_map(|line| line.strip_prefix("| `")?.split('`').next());
    for name in rows {
        assert!(columns.iter().any(|(table, _)| table == name), "docs/tables.md has {name}, which is no table");
    }
}

#[test]
fn every_test_that_guarantees_name_is_there() {
    let row = Regex::new(r"(?m)^\| `((?:tests|src)/[a-z_/]+\.rs)` \| (.+) \|$").unwrap();
    let name = Regex::new("`([a-z0-9_]+)`").unwrap();
    let (mut missing, mut named) = (vec![], 0);
    for found in row.captures_iter(GUARANTEES) {
        let source = std::fs::read_to_string(root().join(&found[1])).unwrap_or_default();
        for test in name.captures_iter(&found[2]) {
            named += 1;
            if !source.contains(&format!("fn {}(", &test[1])) {
                missing.push(format!("{} in {}", &test[1], &found[1]));
            }
        }
    }
    assert!(named > 50, "the tests are found: {named}");
    assert!(missing.is_empty(), "docs/guarantees.md names tests that are not there: {missing:?}");
}

#[test]
fn every_link_leads_somewhere() {
    let link = Regex::new(r#"\]\(([^) ]+)\)|src="([^"]+)""#).unwrap();
    let (mut faults, mut links) = (vec![], 0);
    for (path, page) in pages() {
        for found in link.captures_iter(&page) {
            let to = found.get(1).or(found.get(2)).unwrap().as_str();
            if to.starts_with("http") {
                continue;
            }
            links += 1;
            let (file, section) = to.split_once('#').unwrap_or((to, ""));
            let target = if file.is_empty() { path.clone() } else { path.parent().unwrap().join(file) };
            let is_there = target.exists()
                && (section.is_empty() || anchors(&std::fs::read_to_string(&target).unwrap()).contains(section));
            if !is_there {
                faults.push(format!("{}: {to}", path.display()));
            }
        }
    }
    assert!(links > 100, "links are found: {links}");
    assert!(faults.is_empty(), "these links lead nowhere:\n{}", faults.join("\n"));
}

#[test]
fn the_readme_is_short() {
    let lines = include_str!("../../README.md").lines().count();
    assert!(lines <= README_LINES_MAX, "README.md has {lines} lines; what is long belongs into docs/");
}

#[test]
fn every_page_stands_in_the_summary() {
    let summary = std::fs::read_to_string(root().join("docs/SUMMARY.md")).unwrap();
    for (path, _) in pages_of("docs") {
        let name = path.file_name().unwrap().to_str().unwrap();
        assert!(name == "SUMMARY.md" || summary.contains(&format!("]({name})")), "docs/SUMMARY.md lacks {name}");
    }
}
