//! What is compared: the worker, its peers and the probes. All drain the same queue into the same tables.

use crate::cpu::{Processes, Used};
use crate::places::{Place, RETRY_DELAY, Servers, Template, distinct};
use crate::probes::{self, Probe};
use grantonce_testkit::children::Children;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// How long one side may take for a round.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// How often is looked how far a side is. Peers tell it at the same pace.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What kind of a peer it is: what it is compared by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Grantonce,
    /// A transaction of several statements a message.
    Single,
    /// One statement a message.
    Cte,
    /// Batches by hand, one after the other.
    Batch,
    /// Batches by hand, several under way.
    Pipelined,
    Celery,
    /// Another queue, and so other work: below the line.
    Footnote,
    Limit(Probe),
}

/// One of those that take part.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// How many messages it gets in the first round, before its speed is known.
    pub(crate) first_guess: u32,
    pub(crate) command: Vec<String>,
    /// Has a queue of its own, and fills it by itself from bodies on its standard input.
    pub(crate) fills: bool,
}

/// One round of one side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) msgs_per_s: f64,
    pub(crate) seconds: f64,
    /// From its start to the first message that is done.
    pub(crate) first_done_ms: f64,
    /// Microseconds of processor time for each message.
    pub(crate) cpu_us: [f64; 3],
    /// Most memory that the program had, in MiB.
    pub(crate) rss_mib: f64,
}

/// Watches how far it is.
struct Progress {
    started: Instant,
    first: Option<(Instant, u64, Used)>,
    all: u64,
    rss_kib: u64,
}

impl Progress {
    fn new(all: usize) -> Self {
        Self { started: Instant::now(), first: None, all: all as u64, rss_kib: 0 }
    }

    /// Gives the round when all is done. The first look at which something is done is the start: connecting is not measured.
    fn saw(&mut self, done: u64, pid: Option<u32>, processes: Processes) -> Option<Round> {
        let now = Instant::now();
        if done > 0 && self.first.is_none() {
            self.first = Some((now, done, processes.used(pid)));
        }
        self.rss_kib = self.rss_kib.max(pid.map_or(0, rss_kib));
        let (begun, before, used) = self.first?;
        if done < self.all {
            return None;
        }
        let (seconds, messages) = ((now - begun).as_secs_f64(), (self.all - before) as f64);
        let used = processes.used(pid) - used;
        Some(Round {
            msgs_per_s: messages / seconds,
            seconds,
            first_done_ms: (begun - self.started).as_secs_f64() * 1000.0,
            cpu_us: [used.program, used.postgres, used.rabbitmq].map(|us| us as f64 / messages),
            rss_mib: self.rss_kib as f64 / 1024.0,
        })
    }
}

/// The resident memory of a process and all below it.
pub(crate) fn rss_kib(pid: u32) -> u64 {
    let own = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().split(' ').next()?.parse::<u64>().ok()
    });
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own.unwrap_or(0) + children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(rss_kib).sum::<u64>()
}

impl Side {
    /// The worker.
    pub(crate) fn grantonce() -> Self {
        Self { name: "grantonce", kind: Kind::Grantonce, first_guess: 60_000, command: vec![], fills: false }
    }

    /// One round: a place of its own, filled; drained; checked; removed.
    pub(crate) async fn round(
        &self,
        servers: &Servers,
        processes: Processes,
        template: &Template,
        messages: &[u32],
    ) -> Round {
        let place = servers.place(template).await;
        let round = self.drain(&place, processes, messages).await;
        if self.kind != Kind::Limit(Probe::Broker) {
            place.check(distinct(messages)).await;
        }
        place.remove().await;
        round
    }

    pub(crate) async fn drain(&self, place: &Place, processes: Processes, messages: &[u32]) -> Round {
        if self.fills {
            self.fill(place, messages).await;
        } else {
            place.publish(messages).await;
        }
        match self.kind {
            Kind::Grantonce => worker(place, processes, messages.len()).await,
            Kind::Limit(probe) => {
                let own = std::process::id();
                let (began, before) = (Instant::now(), processes.used(Some(own)));
                probes::run(probe, place, messages).await;
                let (seconds, count) = (began.elapsed().as_secs_f64(), messages.len() as f64);
                let used = processes.used(Some(own)) - before;
                let cpu_us = [used.program, used.postgres, used.rabbitmq].map(|us| us as f64 / count);
                Round { msgs_per_s: count / seconds, seconds, first_done_ms: 0.0, cpu_us, rss_mib: 0.0 }
            }
            _ => self.peer(place, processes, messages.len()).await,
        }
    }

    fn start(&self, place: &Place, more: Option<&str>) -> tokio::process::Child {
        let (program, args) = self.command.split_first().unwrap();
        // The last word says what to do; a peer that fills its queue itself is told so in its place.
        let args = args.iter().map(String::as_str).map(|arg| if arg == "drain" { more.unwrap_or(arg) } else { arg });
        let mut command = tokio::process::Command::new(program);
        command.args(args).env("DATABASE_URL", &place.database_url).env("AMQP_URL", &place.amqp_url);
        command.stdin(if more.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped());
        command.kill_on_drop(true).spawn().unwrap_or_else(|error| panic!("{}: {program}: {error}", self.name))
    }

    async fn fill(&self, place: &Place, messages: &[u32]) {
        let mut child = self.start(place, Some("fill"));
        let mut bodies = child.stdin.take().unwrap();
        let now = time::OffsetDateTime::now_utc();
        for some in messages.chunks(1_000) {
            let mut lines = Vec::new();
            for n in some {
                lines.extend_from_slice(&crate::places::body(*n, now));
                lines.push(b'\n');
            }
            bodies.write_all(&lines).await.unwrap();
        }
        drop(bodies);
        let ended = tokio::time::timeout(DEADLINE, child.wait()).await.expect("it fills its queue in time").unwrap();
        assert!(ended.success(), "{} could not fill its queue", self.name);
    }

    async fn peer(&self, place: &Place, processes: Processes, count: usize) -> Round {
        let mut progress = Progress::new(count);
        let mut child = self.start(place, None);
        let pid = child.id();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let drained = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                let Some(done) = told.get("done").and_then(serde_json::Value::as_u64) else { continue };
                if let Some(round) = progress.saw(done, pid, processes) {
                    return round;
                }
            }
            panic!("{} ended before its work was done", self.name);
        };
        let round = tokio::time::timeout(DEADLINE, drained).await;
        let round = round.unwrap_or_else(|_| panic!("{} is not done after {} s", self.name, DEADLINE.as_secs()));
        if let Some(pid) = pid.and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        // What is not over by then is killed when it is dropped.
        let _ = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        round
    }
}

/// The worker's environment, with settings under trial: `BENCH_WORKERS=4` is `GRANTONCE_WORKERS=4`.
pub(crate) fn environment(place: &Place, logs: PathBuf) -> Children {
    let children = Children::new(env!("CARGO_BIN_EXE_grantonce"), logs)
        .env("DATABASE_URL", &place.database_url)
        .env("AMQP_URL", &place.amqp_url)
        .env("GRANTONCE_LIVEMODE", "false")
        .env("GRANTONCE_RETRY_DELAYS", RETRY_DELAY)
        .env("GRANTONCE_METRICS_ADDR", "127.0.0.1:0")
        .env("GRANTONCE_LOG_FORMAT", "json");
    std::env::vars()
        .filter_map(|(name, value)| Some((format!("GRANTONCE_{}", name.strip_prefix("BENCH_")?), value)))
        .fold(children, |children, (name, value)| children.env(name, value))
}

/// Messages that the worker has applied or recognised, by its own metrics.
async fn settled(http: &reqwest::Client, metrics_url: &str) -> u64 {
    let text = http.get(metrics_url).send().await.unwrap().text().await.unwrap();
    let value = |outcome: &str| {
        let name = format!("grantonce_messages_total{{outcome=\"{outcome}\"}} ");
        text.lines().find_map(|line| line.strip_prefix(&name)?.parse::<u64>().ok()).unwrap_or(0)
    };
    value("applied") + value("duplicate")
}

async fn worker(place: &Place, processes: Processes, count: usize) -> Round {
    let logs = tempfile::tempdir().unwrap();
    let http = grantonce::http::plain_client().build().unwrap();
    let mut progress = Progress::new(count);
    let mut worker = environment(place, logs.path().into()).start("worker", &["worker"]).await.unwrap();
    let address = worker.listening("metrics", DEADLINE).await.unwrap();
    let metrics_url = format!("http://{address}/metrics");
    let round = loop {
        let done = settled(&http, &metrics_url).await;
        if let Some(round) = progress.saw(done, worker.pid(), processes) {
            break round;
        }
        assert!(
            progress.started.elapsed() < DEADLINE,
            "{done} of {count} after {} s\n{}",
            DEADLINE.as_secs(),
            worker.tail()
        );
        // The start is to be seen when it is; then at the peers' pace, for asking costs the worker something, too.
        tokio::time::sleep(if done == 0 { Duration::from_millis(5) } else { LOOK_EVERY }).await;
    };
    worker.terminate(Duration::from_secs(10)).await.unwrap();
    round
}
