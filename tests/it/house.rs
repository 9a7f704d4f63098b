//! The rules of the source code: which imports a room may have, and what no file may contain. `ARCHITECTURE.md` explains them.
//!
//! If a rule does not fit, change it here, in its table, with its reason. The rooms are those of `src`. The rules for every file
//! also hold in `demo` and `testkit`.

mod source;

use source::{Found, paths_in};
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

const LINES_MAX: usize = 500;

/// Rooms that import only each other. Everything may use them.
const LEAVES: &[&str] = &[
    "config",
    "telemetry",
    "clock",
    "shutdown",
    "retry",
    "http",
    "failpoint",
    "findings",
    "address",
    "followed",
    "role",
    "named",
    "code",
];

/// The imports that a room may have from the rest of the crate. `leaves` means all of [`LEAVES`], `message::fact_digest` is one
/// item of a room, and `*` means everything. Rooms that are not built yet already have their rule.
pub(crate) const ROOMS: &[(&str, &[&str])] = &[
    // Pure rooms. Each may use the ones before it.
    ("domain", &[]),
    ("message", &["domain"]),
    ("webhook", &["domain", "message"]),
    // Rooms that talk to other systems.
    (
        "broker",
        &[
            "domain",
            "message",
            "config",
            "retry",
            "clock",
            "address",
            "findings",
            "followed",
            "role",
            "code",
            "http::client",
            "http::system_roots",
        ],
    ),
    (
        "store",
        &["domain", "message::fact_digest", "failpoint", "findings", "retry", "address", "followed", "role", "code"],
    ),
    (
        "provider",
        &[
            "domain",
            "retry",
            "config",
            "followed",
            "telemetry::causes",
            "http::client",
            "http::plain_client",
            "http::system_roots",
        ],
    ),
    // Every role checks in the same way whether its servers are there.
    ("needs", &["broker", "store", "leaves"]),
    // Every role that publishes measures it in the same way.
    ("publishing", &["broker", "leaves"]),
    // Roles use the rooms above, and never each other.
    // Some signatures need a certificate, which must be fetched. The receiver asks a provider for nothing else.
    (
        "receiver",
        &[
            "domain",
            "message",
            "webhook",
            "broker",
            "needs",
            "publishing",
            "provider::certificates",
            "provider::BuildError",
            "leaves",
        ],
    ),
    ("worker", &["domain", "message", "broker", "store", "needs", "publishing", "leaves"]),
    ("api", &["domain", "message", "broker", "store", "needs", "provider", "leaves"]),
    ("reconciler", &["domain", "message", "broker", "store", "needs", "publishing", "provider", "leaves"]),
    ("ops", &["domain", "message", "webhook", "broker", "store", "needs", "leaves"]),
    // The leaves: every other room may use them.
    ("config", &["leaves", "domain"]),
    ("telemetry", &["leaves", "domain"]),
    ("clock", &["leaves"]),
    ("shutdown", &["leaves"]),
    ("retry", &["leaves"]),
    // An error message names a parameter, with its dangerous characters removed.
    ("http", &["leaves", "domain::tidy"]),
    ("failpoint", &["leaves"]),
    ("findings", &["leaves"]),
    ("address", &["leaves"]),
    ("followed", &["leaves"]),
    ("role", &[]),
    ("code", &[]),
    // The macro that declares closed sets of names, which every room uses, and the error of an unknown name.
    ("named", &[]),
    // The program puts the rooms together.
    ("cli", &["leaves", "domain"]),
    ("run", &["*"]),
    ("lib", &["*"]),
    ("main", &["*"]),
];

/// The packages, by source folder: the packages that each must not name, and why. Tests may name them.
const PACKAGES: &[(&str, &[&str], &str)] = &[
    (
        "src/",
        &["grantonce_testkit", "grantonce_demo"],
        "the program that is shipped knows neither the demo nor the tests",
    ),
    (
        "demo/src/",
        &["grantonce"],
        "the demo uses the program as a stranger would, and its audit shares no code with it",
    ),
    ("testkit/src/", &["grantonce", "grantonce_demo"], "a simulation must not share the mistakes of what it tests"),
];

/// Crates that only some rooms may use, and why.
const CRATES: &[(&str, &[&str], &str)] = &[
    ("lapin", &["broker"], "RabbitMQ is spoken in src/broker only: offer there what you need"),
    ("async_rs", &["broker"], "it is there to hand lapin a transport of ours, and for nothing else"),
    ("sqlx", &["store"], "Postgres is spoken in src/store only: add a method to Store"),
    ("anyhow", &["main"], "errors are typed and classified: use thiserror"),
    ("backoff", &["retry"], "backoff is unmaintained and stays behind src/retry.rs: use grantonce::retry"),
];

/// Rooms without clocks, waits and I/O. A pure function is tested with a table.
const PURE: &[&str] = &["domain", "message", "webhook"];

/// Crates and modules that wait or do I/O.
const IMPURE_PATHS: &[&str] = &[
    "tokio",
    "tokio_util",
    "futures_util",
    "reqwest",
    "hyper",
    "hyper_util",
    "axum",
    "tower",
    "rustix",
    "fastrand",
    "tracing",
    "std::fs",
    "std::net",
    "std::io",
    "std::env",
    "std::process",
    "std::thread",
    "std::os",
];

/// Names that read a clock, from any module.
const IMPURE_NAMES: &[&str] = &["SystemTime", "Instant", "now_utc", "now_local", "now_v7"];

/// Files that sleep on purpose, by the beginning of their path. Everywhere else a comment must give the reason. (`sleep_until` has
/// a deadline as its reason.)
const SLEEPERS: &[(&str, &str)] = &[
    ("src/retry.rs", "waiting between two tries is what it is for"),
    ("src/http/server.rs", "accept() failed for want of file descriptors: others must end first"),
    ("src/worker/apply.rs", "the backoff's pause between two tries of a batch"),
    ("src/worker/mod.rs", "the backoff's pause before the next session"),
    ("src/worker/settle.rs", "the backoff's pause between two tries to publish a copy"),
    ("src/broker/consumer.rs", "a quorum queue may lose acks that a close follows at once"),
    ("src/store/watch.rs", "gathers announcements, and looks by itself now and then"),
    ("src/store/notes.rs", "gathers notes before it writes them"),
    ("demo/src/", "plays buyers, who take their time"),
    ("testkit/src/", "plays providers, who take their time; waits for conditions"),
];

/// The ways to create an HTTP client, and the files that may do it.
const CLIENT_BEGINNINGS: &[&str] = &["Client::new", "Client::builder", "ClientBuilder::new", "reqwest::get"];
const CLIENT_MAKERS: &[&str] = &["src/http/client.rs", "testkit/src/http.rs"];

/// Beginnings of paths that exist on one machine only. They are split, so this file passes its own test.
const MACHINE_PATHS: &[&str] = &[concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/Us", "ers/")];

/// Files that may contain such a path, and why.
const MAY_NAME_MACHINE_PATHS: &[(&str, &str)] = &[];

#[test]
fn the_source_keeps_the_rules_of_the_house() {
    let mut complaints = String::new();
    let mut count = 0;
    for file in PACKAGES.iter().flat_map(|(folder, ..)| rust_files(&root().join(folder))) {
        let path = file.strip_prefix(root()).unwrap().to_str().unwrap().replace('\\', "/");
        let text = std::fs::read_to_string(&file).unwrap();
        count += 1;
        for complaint in check(&path, &text) {
            writeln!(complaints, "  {complaint}").unwrap();
        }
    }
    assert!(count > 30, "found only {count} files: is this run from the repository?");
    assert!(complaints.is_empty(), "\n{complaints}the rules and their reasons are in tests/it/house.rs");
}

#[test]
fn nothing_names_a_path_of_one_machine() {
    let mut complaints = String::new();
    for path in repository_files() {
        // Binary files, and deleted files that are not yet committed, have no text.
        let Ok(text) = std::fs::read_to_string(root().join(&path)) else { continue };
        if MAY_NAME_MACHINE_PATHS.iter().any(|(file, _)| *file == path) {
            continue;
        }
        for (line, needle) in machine_paths(&text) {
            writeln!(complaints, "  {path}:{line}: names {needle}…: say it relative to the repository").unwrap();
        }
    }
    assert!(complaints.is_empty(), "\n{complaints}");
}

#[test]
fn each_rule_bites() {
    let long = "\n".repeat(LINES_MAX + 1);
    let rows: &[(&str, &str, &str)] = &[
        ("src/domain/a.rs", "use crate::message::TYPE;", "domain must not use message"),
        ("src/domain/a.rs", "use crate::config;", "domain must not use config"),
        ("src/domain/a.rs", "use {std::fmt, crate::{store::Store}};", "domain must not use store"),
        ("src/domain/a.rs", "fn f() { super::super::store::g(); }", "domain must not use store"),
        ("src/domain/mod.rs", "mod tests { use super::super::store; }", "domain must not use store"),
        ("src/message.rs", "use super::broker::Headers;", "message must not use broker"),
        ("src/message.rs", "fn f() -> crate::broker::Headers { todo() }", "message must not use broker"),
        ("src/webhook/a.rs", "use crate::telemetry::Metrics;", "webhook must not use telemetry"),
        ("src/webhook/a.rs", "use tokio::time::sleep;", "must stay pure"),
        ("src/webhook/a.rs", "use std::{fmt, time::{Duration, SystemTime}};", "must stay pure"),
        ("src/webhook/a.rs", "fn f() { let now = time::OffsetDateTime::now_utc(); }", "must stay pure"),
        ("src/message.rs", "use std::fs::File;", "must stay pure"),
        ("src/broker/a.rs", "use crate::store::Store;", "broker must not use store"),
        ("src/broker/a.rs", "use crate::telemetry::Metrics;", "broker must not use telemetry"),
        ("src/provider/a.rs", "use crate::webhook::Keys;", "provider must not use webhook"),
        ("src/provider/a.rs", "use crate::store::Store;", "provider must not use store"),
        ("src/provider/a.rs", "use crate::telemetry::Metrics;", "provider must not use telemetry::Metrics"),
        ("src/store/a.rs", "use crate::message::decode;", "store must not use message::decode"),
        ("src/store/a.rs", "use crate::message;", "store must not use message"),
        ("src/worker/a.rs", "use lapin::Channel;", "RabbitMQ is spoken in src/broker only"),
        ("src/worker/a.rs", "fn f(pool: &sqlx::PgPool) {}", "Postgres is spoken in src/store only"),
        ("src/worker/a.rs", "use crate::api::Api;", "worker must not use api"),
        ("src/api/mod.rs", "use super::worker;", "api must not use worker"),
        ("src/receiver/mod.rs", "use crate::{http::{serve, bind}, ops};", "receiver must not use ops"),
        ("src/receiver/a.rs", "use crate::provider::Providers;", "receiver must not use provider::Providers"),
        ("src/broker/a.rs", "use crate::http::Problem;", "broker must not use http::Problem"),
        ("demo/src/a.rs", "fn f() { reqwest::Client::new(); }", "panics for want of a crypto library"),
        ("demo/src/a.rs", "use grantonce::store::Store;", "must not name grantonce: the demo uses the program"),
        ("testkit/src/a/b.rs", "fn f() { grantonce::http::client() }", "must not name grantonce: a simulation"),
        ("src/webhook/a.rs", "use grantonce_testkit::sign;", "must not name grantonce_testkit: the program"),
        ("demo/src/a.rs", &long, "501 lines"),
        ("testkit/src/a.rs", "fn f() { todo!() }", "todo! is a plan"),
        ("testkit/src/a.rs", "fn f() { std::thread::sleep(D) }", "blocks a whole thread"),
        ("src/api/a.rs", "use reqwest::Client; fn f() { Client::builder().build(); }", "panics for want of a crypto"),
        ("src/retry.rs", "use crate::domain::Order;", "retry must not use domain"),
        ("src/config/a.rs", "use crate::store::Settings;", "config must not use store"),
        ("src/store/a.rs", "use anyhow;", "use thiserror"),
        ("src/worker/a.rs", "use backoff::ExponentialBackoff;", "stays behind src/retry.rs"),
        ("src/worker/a.rs", "fn f() { todo!() }", "todo! is a plan"),
        ("src/worker/a.rs", "fn f() { unimplemented!(\"x\") }", "unimplemented! is a plan"),
        ("src/worker/a.rs", "fn f() { std::thread::sleep(D) }", "blocks a whole thread"),
        ("src/worker/a.rs", "use std::thread; fn f() { thread::sleep(D) }", "blocks a whole thread"),
        ("src/worker/a.rs", "async fn f() {\n  tokio::time::sleep(D).await }", "2: a sleep needs its reason"),
        ("src/worker/a.rs", "use tokio::time::sleep;\nasync fn f() { sleep(D).await }", "2: a sleep needs its reason"),
        (
            "src/domain/a.rs",
            "const A: (&str, char) = (\"\\\"\", '\"');\n\nuse crate::store;",
            "3: domain must not use store",
        ),
        ("src/domain/a.rs", "fn f<'a>(x: &'a str) { crate::store::g(r#\"\"\"#) }", "domain must not use store"),
        ("src/cellar/mod.rs", "fn f() {}", "cellar is no room of the table"),
        ("src/worker/a.rs", &long, "501 lines"),
    ];
    for (path, text, complaint) in rows {
        let found = check(path, text);
        assert!(found.iter().any(|found| found.contains(complaint)), "{text:?} in {path} gave {found:?}");
    }
    assert_eq!(machine_paths(&format!("a\n\"{}x", MACHINE_PATHS[0])).len(), 1);
}

#[test]
fn no_rule_bites_what_is_allowed() {
    for (path, text) in [
        ("src/domain/decide/tests.rs", "use super::super::facts::X; use super::*; use crate::domain::Money;"),
        ("src/domain/mod.rs", "// use crate::store;\nfn f() -> &'static str { \"crate::store lapin::x todo!()\" }"),
        ("src/message.rs", "use crate::domain::Money; mod tests { use super::*; use super::TYPE; }"),
        ("src/webhook/a.rs", "use crate::{domain, message::{self, decode}}; use std::time::Duration;"),
        ("src/webhook/tests.rs", "mod properties { use super::super::Keys; }"),
        ("src/store/a.rs", "fn f() { crate::message::fact_digest(e); sqlx::query!(\"x\"); }"),
        ("src/provider/a.rs", "use crate::{domain::Money, retry::Backoff, telemetry::causes};"),
        ("src/broker/a.rs", "use crate::retry::Backoff; use crate::config::RetryDelay; use lapin::Channel;"),
        ("src/worker/a.rs", "async fn f() {\n  // The broker needs a moment.\n  tokio::time::sleep(D).await }"),
        ("src/worker/tests.rs", "async fn f() { tokio::time::sleep(D).await }"),
        ("src/worker/a.rs", "mod tests { async fn f() { sleep(D).await } }"),
        ("src/webhook/a.rs", "mod tests { use grantonce_testkit::sign; }"),
        ("src/webhook/tests.rs", "use grantonce_testkit::sign;"),
        ("demo/src/a.rs", "use crate::api::Api; use grantonce_testkit::sign; async fn f() { sleep(D).await }"),
        ("testkit/src/provider/stripe.rs", "use crate::money::Money; use super::super::lock;"),
        ("src/http/client.rs", "fn f() { reqwest::Client::builder(); }"),
        ("src/broker/a.rs", "use crate::http::{client, system_roots};"),
        ("src/receiver/a.rs", "use crate::provider::certificates::Certificates;"),
        ("src/main.rs", "use grantonce::store::Store; use anyhow::Context;"),
        ("src/domain/a.rs", "/* /* crate::store */ lapin::x */ fn f<'a>(x: &'a str) -> char { '\\'' }"),
        (
            "src/domain/a.rs",
            "const A: [&str; 3] = [r#\"\" crate::store \"#, \"\\\" lapin::x\", \"\\\\\"]; const Q: char = '\"';",
        ),
    ] {
        assert_eq!(check(path, text), Vec::<String>::new(), "{text:?} in {path}");
    }
    assert!(machine_paths("https://example.com/root/x, ./root/, below /root.").is_empty());
}

/// Returns the rules that a file breaks.
fn check(path: &str, text: &str) -> Vec<String> {
    let mut complaints = vec![];
    let lines = text.lines().count();
    if lines > LINES_MAX {
        complaints.push(format!("{path}: {lines} lines, at most {LINES_MAX}: split it where two subjects meet"));
    }
    for found in paths_in(path, text) {
        let Found { line, path: said, is_call, is_macro, in_tests, .. } = &found;
        let mut complain = |what: String| complaints.push(format!("{path}:{line}: {what}"));
        let (first, last) = (said.first().map_or("", String::as_str), said.last().map_or("", String::as_str));
        let joined = said.join("::");
        for (folder, others, why) in PACKAGES {
            if path.starts_with(folder) && others.contains(&first) && !in_tests {
                complain(format!("must not name {first}: {why}"));
            }
        }
        if *is_macro && matches!(last, "todo" | "unimplemented") {
            complain(format!("{last}! is a plan, not a program"));
        }
        if *is_call && !CLIENT_MAKERS.contains(&path) && CLIENT_BEGINNINGS.iter().any(|begin| joined.ends_with(begin)) {
            complain(format!("{joined} panics for want of a crypto library: begin with http::client or plain_client"));
        }
        if joined.ends_with("thread::sleep") {
            complain("std::thread::sleep blocks a whole thread: await a condition".to_owned());
        } else if *is_call
            && last == "sleep"
            && !in_tests
            && !SLEEPERS.iter().any(|(beginning, _)| path.starts_with(beginning))
            && !has_comment(text, *line)
        {
            complain(
                "a sleep needs its reason: a comment above it, or a line in SLEEPERS; better await a condition"
                    .to_owned(),
            );
        }
    }
    if path.starts_with("src/") {
        complaints.extend(check_room(path, text));
    }
    complaints
}

/// Returns the rules of its room that a file of `src` breaks.
fn check_room(path: &str, text: &str) -> Vec<String> {
    let mut complaints = vec![];
    let room = room_of(path);
    let Some((_, may_use)) = ROOMS.iter().find(|(name, _)| *name == room) else {
        complaints.push(format!("{path}: {room} is no room of the table: add it with what it may use"));
        return complaints;
    };
    for found in paths_in(path, text) {
        let Found { line, path: said, .. } = &found;
        let mut complain = |what: String| complaints.push(format!("{path}:{line}: {what}"));
        if target_room(&found).is_some_and(|target| target != room) && !allows(may_use, said) {
            let said = said.join("::");
            complain(format!("{room} must not use {said}: it may use {}", list(may_use)));
        }
        for (name, rooms, why) in CRATES {
            if said.first().is_some_and(|first| first == name) && !rooms.contains(&room) {
                complain(format!("{name} in {room}: {why}"));
            }
        }
        let joined = said.join("::");
        let is_impure =
            IMPURE_PATHS.iter().any(|impure| joined == *impure || joined.starts_with(&format!("{impure}::")))
                || said.iter().any(|segment| IMPURE_NAMES.contains(&segment.as_str()));
        if PURE.contains(&room) && is_impure {
            complain(format!("{room} must stay pure, without {joined}: let the caller bring it in"));
        }
    }
    complaints
}

/// True if the line, or one of the three lines above it, has a comment.
fn has_comment(text: &str, line: usize) -> bool {
    text.lines().skip(line.saturating_sub(4)).take(line.min(4)).any(|line| line.contains("//"))
}

fn list(may_use: &[&str]) -> String {
    if may_use.is_empty() { "no other room".to_owned() } else { may_use.join(", ") }
}

fn room_of(path: &str) -> &str {
    let below = path.strip_prefix("src/").unwrap_or(path);
    below.split('/').next().unwrap_or(below).trim_end_matches(".rs")
}

/// The room that a path leads to. `None` if the path does not begin at the crate's root, or ends there.
fn target_room(found: &Found) -> Option<&'static str> {
    let first = found.path.first().filter(|_| found.is_from_root)?;
    ROOMS.iter().map(|(name, _)| *name).find(|name| name == first)
}

fn allows(may_use: &[&str], said: &[String]) -> bool {
    let first = said.first().map(String::as_str).unwrap_or_default();
    may_use.iter().any(|allowed| {
        *allowed == "*"
            || (*allowed == "leaves" && LEAVES.contains(&first))
            || allowed.split("::").eq(said.iter().take(allowed.split("::").count()).map(String::as_str))
    })
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut files = BTreeSet::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files.append(&mut rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.insert(path);
        }
    }
    files
}

/// The files that git knows, and those that `git add` would add.
fn repository_files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root())
        .output()
        .expect("git is needed to tell which files belong to the repository");
    assert!(listed.status.success(), "git ls-files: {}", String::from_utf8_lossy(&listed.stderr));
    let names = String::from_utf8(listed.stdout).unwrap();
    names.split('\0').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// Lines that contain a path of one machine. A part of a longer path or of a URL does not count.
fn machine_paths(text: &str) -> Vec<(usize, &'static str)> {
    let mut found = vec![];
    for (line, text) in (1..).zip(text.lines()) {
        for needle in MACHINE_PATHS {
            let is_one = |(at, _): (usize, &str)| {
                !text[..at]
                    .ends_with(|before: char| before.is_alphanumeric() || matches!(before, '.' | '-' | '_' | '}'))
            };
            if text.match_indices(needle).any(is_one) {
                found.push((line, *needle));
            }
        }
    }
    found
}
