//! Processor time of the program under test, of Postgres with all its backends, and of RabbitMQ with its child processes.

use crate::places::Servers;
use serde_json::{Map, Value};
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Linux counts processor time for programs in ticks of 10 ms, whatever its own clock does.
const MICROSECONDS_PER_TICK: u64 = 10_000;

/// RabbitMQ names its process in its statistics. A server that has just started has none for some seconds.
const STATISTICS_DEADLINE: Duration = Duration::from_secs(30);

/// How often RabbitMQ is asked for its process until then.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(250);

/// The process of each server, or the reason why its processor time cannot be measured.
#[derive(Clone, Copy)]
pub(crate) struct Processes {
    postgres: Result<u32, &'static str>,
    rabbitmq: Result<u32, &'static str>,
}

/// Microseconds of processor time up to now. `None` means that it cannot be measured.
#[derive(Clone, Copy, Default)]
pub(crate) struct Used {
    pub(crate) program: Option<u64>,
    pub(crate) postgres: Option<u64>,
    pub(crate) rabbitmq: Option<u64>,
}

/// One process in /proc: its parent, its own processor time, and that of its children that have ended.
struct Stat {
    parent: u32,
    own: u64,
    ended: u64,
}

fn stat(pid: u32) -> Option<Stat> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name stands in parentheses and may contain any character. The third field follows the last parenthesis.
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

/// The processor time of a process and of all processes below it. `None` if the process does not exist.
fn tree(root: u32, all: &HashMap<u32, Stat>) -> Option<u64> {
    let stat = all.get(&root)?;
    let below = all.iter().filter(|(_, child)| child.parent == root);
    Some(stat.own + stat.ended + below.filter_map(|(pid, _)| tree(*pid, all)).sum::<u64>())
}

fn is_named(pid: u32, name: &str) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name))
}

impl Processes {
    pub(crate) async fn of(servers: &Servers) -> Self {
        let processes = Self { postgres: postgres(servers).await, rabbitmq: rabbitmq(&servers.management_url).await };
        for (name, why) in processes.unknown() {
            eprintln!("the processor time of {name} is not measured: {why}");
        }
        processes
    }

    /// The servers whose processor time cannot be measured, with the reason.
    fn unknown(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let both = [("postgres", self.postgres), ("rabbitmq", self.rabbitmq)];
        both.into_iter().filter_map(|(name, process)| Some((name, process.err()?)))
    }

    /// The same as JSON: why a figure of a server is `null`.
    pub(crate) fn not_measured(self) -> Map<String, Value> {
        self.unknown().map(|(name, why)| (name.to_owned(), why.into())).collect()
    }

    pub(crate) fn used(self, program: Option<u32>) -> Used {
        let all = all();
        let of = |pid: Option<u32>| tree(pid?, &all);
        Used { program: of(program), postgres: of(self.postgres.ok()), rabbitmq: of(self.rabbitmq.ok()) }
    }
}

async fn postgres(servers: &Servers) -> Result<u32, &'static str> {
    let mut sql = servers.connect().await;
    let backend: i32 = sqlx::query_scalar("SELECT pg_backend_pid()").fetch_one(&mut sql).await.unwrap();
    let backend = u32::try_from(backend).ok().filter(|pid| is_named(*pid, "postgres"));
    backend.and_then(stat).map(|stat| stat.parent).ok_or("its processes are not visible on this machine")
}

async fn rabbitmq(management_url: &str) -> Result<u32, &'static str> {
    let deadline = Instant::now() + STATISTICS_DEADLINE;
    loop {
        let nodes = answer(management_url, "api/nodes").await.unwrap_or_default();
        let nodes = nodes.as_array().map_or(&[][..], Vec::as_slice);
        if nodes.len() > 1 {
            return Err("it is a cluster of several nodes");
        }
        let pid = nodes.first().and_then(|node| node.get("os_pid")?.as_str()?.parse().ok());
        match pid {
            Some(pid) if is_named(pid, "beam") => return Ok(pid),
            Some(_) => return Err("its process is not visible on this machine"),
            None if Instant::now() > deadline => return Err("its management API did not name its process in time"),
            None => tokio::time::sleep(ASK_AGAIN_AFTER).await,
        }
    }
}

/// The answer of RabbitMQ's management API to a GET of this path.
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

/// The difference of two readings.
pub(crate) fn since(now: Option<u64>, before: Option<u64>) -> Option<u64> {
    Some(now?.saturating_sub(before?))
}

impl Used {
    /// Microseconds a message since an earlier reading: the program, Postgres, RabbitMQ.
    pub(crate) fn per_message(self, before: Self, messages: f64) -> [Option<f64>; 3] {
        let parts = [
            since(self.program, before.program),
            since(self.postgres, before.postgres),
            since(self.rabbitmq, before.rabbitmq),
        ];
        parts.map(|us| us.map(|us| us as f64 / messages))
    }
}
