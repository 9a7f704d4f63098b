//! The peers that are built, and how each is started. See bench/peers/README.md.

use crate::sides::{Kind, Side};
use serde_json::{Map, Value};
use std::path::Path;
use std::process::Command;

/// Name, kind, first guess of a message count, whether it fills a queue of its own, whether it takes part in quick runs,
/// the toolchain, and the command; `{}` is the folder in which the peers are built.
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

/// What the setup script says of each toolchain. Builds what can be built.
fn set_up(dir: &Path) -> Vec<Value> {
    let setup = Path::new(env!("CARGO_MANIFEST_DIR")).join("bench/peers/setup");
    let output = Command::new(setup).arg(dir).stderr(std::process::Stdio::inherit()).output();
    let told = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    let told: Vec<Value> = told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    for peer in told.iter().filter(|peer| peer["is_ready"] != true) {
        let why = peer["why"].as_str().unwrap_or("they could not be built");
        eprintln!("left out: {} peers: {why}", peer["peer"].as_str().unwrap_or_default());
    }
    told.into_iter().filter(|peer| peer["is_ready"] == true).collect()
}

fn versions(ready: &[Value]) -> Map<String, Value> {
    ready.iter().filter_map(|peer| peer["versions"].as_object().cloned()).flatten().collect()
}

/// Those that are built in `dir`, and the versions of what they are made of.
pub(crate) fn of(dir: &Path, is_quick: bool) -> (Vec<Side>, Map<String, Value>) {
    let told = set_up(dir);
    let ready: Vec<&str> = told.iter().filter_map(|peer| peer["peer"].as_str()).collect();
    let dir = dir.to_string_lossy();
    let sides = ALL.iter().filter(|(.., quick, toolchain, _)| ready.contains(toolchain) && (*quick || !is_quick)).map(
        |(name, kind, first_guess, fills, _, _, command)| Side {
            name,
            kind: *kind,
            first_guess: *first_guess,
            command: command.iter().map(|word| word.replace("{}", &dir)).collect(),
            fills: *fills,
        },
    );
    (sides.collect(), versions(&told))
}

/// The receiver in Express, where it is built.
pub(crate) fn express(dir: &Path) -> (Option<Vec<String>>, Map<String, Value>) {
    let node: Vec<Value> = set_up(dir).into_iter().filter(|peer| peer["peer"] == "node").collect();
    let command = vec!["node".to_owned(), format!("{}/node/express.js", dir.display())];
    (Some(command).filter(|_| !node.is_empty()), versions(&node))
}
