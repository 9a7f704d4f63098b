//! Which process used how much of the processors: Postgres with all its backends, RabbitMQ, and the program under test.

use crate::places::Servers;
use serde_json::Value;
use std::collections::HashMap;

/// Ticks of a clock that Linux keeps at 100 Hz for programs, whatever it does within.
const MICROSECONDS_PER_TICK: u64 = 10_000;

/// The servers' processes, where they run on this machine.
#[derive(Clone, Copy)]
pub(crate) struct Processes {
    postmaster: Option<u32>,
    rabbitmq: Option<u32>,
}

/// Microseconds of processor time up to now.
#[derive(Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) program: u64,
    pub(crate) postgres: u64,
    pub(crate) rabbitmq: u64,
}

/// One line of /proc: its parent, what it used, and what those of its children used that have ended.
struct Stat {
    parent: u32,
    own: u64,
    ended: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold anything; what is behind the last one is counted from the third field.
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: fields.get(1)?.parse().ok()?,
        own: (ticks(14)? + ticks(15)?) * MICROSECONDS_PER_TICK,
        ended: (ticks(16)? + ticks(17)?) * MICROSECONDS_PER_TICK,
    })
}

fn all() -> HashMap<u32, Stat> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return HashMap::new() };
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter_map(|pid| Some((pid, stat(pid)?))).collect()
}

/// A process with everything below it.
fn tree(root: u32, all: &HashMap<u32, Stat>) -> u64 {
    let Some(stat) = all.get(&root) else { return 0 };
    let below = all.iter().filter(|(_, child)| child.parent == root);
    stat.own + stat.ended + below.map(|(pid, _)| tree(*pid, all)).sum::<u64>()
}

impl Processes {
    pub(crate) async fn of(servers: &Servers) -> Self {
        let mut sql = servers.connect().await;
        let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut sql).await.unwrap();
        let backend = u32::try_from(backend).ok();
        let is_postgres = |pid: &u32| {
            std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("postgres"))
        };
        let postmaster = backend.filter(is_postgres).and_then(stat).map(|stat| stat.parent);
        Self { postmaster, rabbitmq: rabbitmq(&servers.management_url).await }
    }

    pub(crate) fn used(self, program: Option<u32>) -> Used {
        let all = all();
        let of = |pid: Option<u32>| pid.map_or(0, |pid| tree(pid, &all));
        Used { program: of(program), postgres: of(self.postmaster), rabbitmq: of(self.rabbitmq) }
    }
}

async fn rabbitmq(management_url: &str) -> Option<u32> {
    let nodes: Value = nodes(management_url).await?;
    let pid = nodes.get(0)?.get("os_pid")?.as_str()?.parse().ok()?;
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name.starts_with("beam")).then_some(pid)
}

async fn nodes(management_url: &str) -> Option<Value> {
    answer(management_url, "api/nodes").await
}

/// What RabbitMQ's management API says.
pub(crate) async fn answer(management_url: &str, path: &str) -> Option<Value> {
    let mut url = reqwest::Url::parse(management_url).ok()?;
    let (user, password) = (url.username().to_owned(), url.password().map(str::to_owned));
    url.set_username("").ok()?;
    url.set_password(None).ok()?;
    let http = grantonce::http::plain_client().build().ok()?;
    let user = if user.is_empty() { "guest".to_owned() } else { user };
    let call = http.get(url.join(path).ok()?).basic_auth(user, password.or(Some("guest".to_owned())));
    call.send().await.ok()?.json().await.ok()
}

impl std::ops::Sub for Used {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            program: self.program.saturating_sub(before.program),
            postgres: self.postgres.saturating_sub(before.postgres),
            rabbitmq: self.rabbitmq.saturating_sub(before.rabbitmq),
        }
    }
}
