//! The machine, the versions and the commit behind the figures. Figures without them mean nothing.

use crate::cpu::{Processes, answer};
use crate::figures::{Spread, round};
use crate::places::{Servers, run};
use serde_json::{Map, Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// The number of commits that are timed.
const COMMITS: usize = 200;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_once([':', '=']).map(|(_, value)| value.trim()))
}

/// What every result contains: the machine, the versions, the commit, and which server's processor time is unknown.
pub(crate) async fn about(
    servers: &Servers,
    processes: Processes,
    more_versions: Map<String, Value>,
) -> Map<String, Value> {
    let mut versions = versions(servers).await;
    versions.extend(more_versions);
    let machine = machine(servers).await;
    let about = [
        ("machine", machine),
        ("versions", versions.into()),
        ("commit", commit()),
        ("not_measured", processes.not_measured().into()),
    ];
    about.into_iter().map(|(name, fact)| (name.to_owned(), fact)).collect()
}

/// The machine, and the settings of Postgres that a rate depends on.
async fn machine(servers: &Servers) -> Value {
    let (cpu, memory, os) = (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/etc/os-release"));
    let memory_kib = field(&memory, "MemTotal").and_then(|kib| kib.split(' ').next()?.parse::<f64>().ok());
    let mut sql = servers.connect().await;
    let mut settings = Map::new();
    for name in ["fsync", "synchronous_commit", "full_page_writes", "wal_sync_method", "shared_buffers", "max_wal_size"]
    {
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(name).fetch_one(&mut sql).await.unwrap();
        settings.insert(name.to_owned(), value.into());
    }
    json!({
        "cores": std::thread::available_parallelism().map(std::num::NonZero::get).unwrap_or(0),
        "cpu": field(&cpu, "model name"),
        "memory_gib": memory_kib.map(|kib| round(kib / 1024.0 / 1024.0, 1)),
        "kernel": read("/proc/sys/kernel/osrelease").trim(),
        "os": field(&os, "PRETTY_NAME").map(|name| name.trim_matches('"')),
        "postgres_settings": settings,
        "commit_ms": commit_ms(servers).await.json(3),
    })
}

/// How long one commit takes on this disk: one row of 100 bytes on one connection.
async fn commit_ms(servers: &Servers) -> Spread {
    let mut sql = servers.connect().await;
    let name = grantonce_testkit::scratch::unique_name("grantonce_bench_commit");
    run(&mut sql, format!("CREATE TABLE {name} (filler text)")).await;
    let mut took = vec![];
    for _ in 0..COMMITS {
        let began = Instant::now();
        run(&mut sql, format!("INSERT INTO {name} VALUES (repeat('x', 100))")).await;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
    }
    run(&mut sql, format!("DROP TABLE {name}")).await;
    Spread::of(took).unwrap()
}

fn output(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).current_dir(env!("CARGO_MANIFEST_DIR")).output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// The commit that was measured. It ends with `+` if files differ from it.
fn commit() -> Value {
    let Some(commit) = output("git", &["rev-parse", "--short=12", "HEAD"]) else { return Value::Null };
    let is_clean = output("git", &["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    format!("{commit}{}", if is_clean { "" } else { "+" }).into()
}

/// The versions of the servers, the compiler and grantonce.
async fn versions(servers: &Servers) -> Map<String, Value> {
    let mut sql = servers.connect().await;
    let postgres: String =
        sqlx::query_scalar("SELECT current_setting('server_version')").fetch_one(&mut sql).await.unwrap();
    let overview = answer(&servers.management_url, "api/overview").await.unwrap_or_default();
    let mut versions = Map::new();
    versions.insert("grantonce".to_owned(), env!("CARGO_PKG_VERSION").into());
    versions.insert("postgres".to_owned(), postgres.into());
    for (name, of) in [("rabbitmq", "rabbitmq_version"), ("erlang", "erlang_version")] {
        versions.insert(name.to_owned(), overview.get(of).cloned().unwrap_or_default());
    }
    versions.insert("rustc".to_owned(), output("rustc", &["--version"]).into());
    versions
}

/// The size of a file in MiB.
pub(crate) fn mib(path: impl AsRef<Path>) -> f64 {
    std::fs::metadata(path).map_or(f64::NAN, |file| file.len() as f64 / 1024.0 / 1024.0)
}
