//! The peers: how each is built and started, and which of them cannot run. See bench/peers/README.md.

use crate::sides::{Kind, Side};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// Name, kind, message count of the first round, whether it fills a queue of its own, whether it takes part in quick runs,
/// the toolchain, and the command. `{}` is the folder in which the peers are built.
type Row = (&'static str, Kind, u32, bool, bool, &'static str, &'static [&'static str]);

const ALL: &[Row] = &[
    ("go_batch", Kind::Batch, 60_000, false, true, "go", &["{}/go/drain", "batch"]),
    ("go_pipelined", Kind::Pipelined, 60_000, false, true, "go", &["{}/go/drain", "pipelined"]),
    ("go_cte", Kind::Cte, 20_000, false, true, "go", &["{}/go/drain", "cte"]),
    ("go_single", Kind::Single, 12_000, false, true, "go", &["{}/go/drain", "single"]),
    ("node_cte", Kind::Cte, 20_000, false, false, "node", &["node", "{}/node/drain.js", "cte"]),
    ("node_single", Kind::Single, 12_000, false, false, "node", &["node", "{}/node/drain.js", "single"]),
    (
        "aio_pika_single",
        Kind::Single,
        8_000,
        false,
        false,
        "python",
        &["{}/python/venv/bin/python", "{}/python/aio_pika_asyncpg.py", "single"],
    ),
    (
        "celery",
        Kind::Celery,
        6_000,
        true,
        true,
        "python",
        &["{}/python/venv/bin/python", "{}/python/celery_psycopg.py", "drain"],
    ),
    ("pg_boss", Kind::Footnote, 8_000, true, false, "node", &["node", "{}/node/pgboss.js", "drain"]),
];

/// The names of all peers that drain, whether they are built or not.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().map(|(name, ..)| *name)
}

/// A peer that does not take part, and the reason.
pub(crate) struct LeftOut {
    pub(crate) name: &'static str,
    pub(crate) why: String,
}

impl LeftOut {
    pub(crate) fn new(name: &'static str, why: impl Into<String>) -> Self {
        let why = why.into();
        eprintln!("left out: {name}: {why}");
        Self { name, why }
    }

    pub(crate) fn json(left_out: &[Self]) -> Value {
        left_out.iter().map(|peer| json!({"name": peer.name, "why": peer.why})).collect()
    }

    pub(crate) fn text(left_out: &[Self]) -> String {
        left_out.iter().map(|peer| format!("left out: {}: {}\n", peer.name, peer.why)).collect()
    }
}

/// What `setup` printed about each of some toolchains.
struct SetUp(Vec<Value>);

impl SetUp {
    /// Builds the peers of these toolchains as far as this machine has the tools.
    fn run(dir: &Path, toolchains: &BTreeSet<&str>) -> Self {
        if toolchains.is_empty() {
            return Self(vec![]);
        }
        let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/setup");
        let output = Command::new(&setup).arg(dir).args(toolchains).stderr(std::process::Stdio::inherit()).output();
        let output = output.map_err(|error| eprintln!("{}: {error}", setup.display())).ok();
        let printed = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
        Self(printed.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
    }

    /// The reason why a toolchain's peers cannot run, or nothing if they can.
    fn why_not(&self, toolchain: &str) -> Option<&str> {
        let Some(line) = self.0.iter().find(|line| line["peer"] == toolchain) else {
            return Some("bench/peers/setup did not say that it is ready");
        };
        (line["is_ready"] != true).then(|| line["why"].as_str().unwrap_or("it could not be built"))
    }

    fn versions(&self) -> Map<String, Value> {
        self.0.iter().filter_map(|line| line["versions"].as_object().cloned()).flatten().collect()
    }
}

/// Of the wanted peers: those that can run, those that are left out, and the versions of the libraries.
pub(crate) fn of(
    dir: &Path,
    is_wanted: impl Fn(&str) -> bool,
    is_quick: bool,
) -> (Vec<Side>, Vec<LeftOut>, Map<String, Value>) {
    let wanted: Vec<&Row> = ALL.iter().filter(|(name, ..)| is_wanted(name)).collect();
    let taking_part = wanted.iter().filter(|(.., quick, _, _)| *quick || !is_quick);
    let set_up = SetUp::run(dir, &taking_part.map(|(.., toolchain, _)| *toolchain).collect());
    let dir = dir.to_string_lossy();
    let (mut sides, mut left_out) = (vec![], vec![]);
    for (name, kind, first_guess, fills, quick, toolchain, command) in wanted {
        if is_quick && !quick {
            left_out.push(LeftOut::new(name, "--quick measures only the fastest peers of each kind"));
        } else if let Some(why) = set_up.why_not(toolchain) {
            left_out.push(LeftOut::new(name, why));
        } else {
            let command = command.iter().map(|word| word.replace("{}", &dir)).collect();
            sides.push(Side { name, kind: *kind, first_guess: *first_guess, command, fills: *fills });
        }
    }
    (sides, left_out, set_up.versions())
}

/// The command that starts the receiver in Express, or why it is left out, and the versions of its libraries.
pub(crate) fn express(dir: &Path) -> (Result<Vec<String>, LeftOut>, Map<String, Value>) {
    let set_up = SetUp::run(dir, &BTreeSet::from(["node"]));
    let command = vec!["node".to_owned(), format!("{}/node/express.js", dir.display())];
    let command = set_up.why_not("node").map_or(Ok(command), |why| Err(LeftOut::new("express", why)));
    (command, set_up.versions())
}
