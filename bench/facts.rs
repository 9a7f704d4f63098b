//! What the figures were measured on: figures without it mean nothing.

use crate::cpu::answer;
use crate::figures::{Spread, round};
use crate::places::{Servers, run};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

/// Commits that are timed.
const COMMITS: usize = 200;

fn read(path: &str) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(name)?.split_once([':', '=']).map(|(_, value)| value.trim()))
}

/// The machine, and what of the servers' settings a rate depends on.
pub(crate) async fn machine(servers: &Servers) -> Value {
    let (cpu, memory, os) = (read("/proc/cpuinfo"), read("/proc/meminfo"), read("/etc/os-release"));
    let memory_kib = field(&memory, "MemTotal").and_then(|kib| kib.split(' ').next()?.parse::<f64>().ok());
    let mut sql = servers.connect().await;
    let mut settings = serde_json::Map::new();
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

/// What one commit costs on this disk: a row of 100 bytes, alone, on one connection.
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

/// Which commit was measured; `+` where files differ from it.
pub(crate) fn commit() -> Value {
    let Some(commit) = output("git", &["rev-parse", "--short=12", "HEAD"]) else { return Value::Null };
    let is_clean = output("git", &["status", "--porcelain"]).is_some_and(|changes| changes.is_empty());
    format!("{commit}{}", if is_clean { "" } else { "+" }).into()
}

/// The servers' versions and ours.
pub(crate) async fn versions(servers: &Servers) -> serde_json::Map<String, Value> {
    let mut sql = servers.connect().await;
    let postgres: String =
        sqlx::query_scalar("SELECT current_setting('server_version')").fetch_one(&mut sql).await.unwrap();
    let overview = answer(&servers.management_url, "api/overview").await.unwrap_or_default();
    let mut versions = serde_json::Map::new();
    versions.insert("grantonce".to_owned(), env!("CARGO_PKG_VERSION").into());
    versions.insert("postgres".to_owned(), postgres.into());
    for (name, of) in [("rabbitmq", "rabbitmq_version"), ("erlang", "erlang_version")] {
        versions.insert(name.to_owned(), overview.get(of).cloned().unwrap_or_default());
    }
    versions.insert("rustc".to_owned(), output("rustc", &["--version"]).into());
    versions
}

/// The bytes of a file, in MiB.
pub(crate) fn mib(path: impl AsRef<Path>) -> f64 {
    std::fs::metadata(path).map_or(f64::NAN, |file| file.len() as f64 / 1024.0 / 1024.0)
}
