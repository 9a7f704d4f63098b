//! The sides that are compared: the worker, its peers and the probes. All drain the same queue into the same tables.

use crate::cpu::{Processes, Used};
use crate::places::{Place, RETRY_DELAY, Servers, Template, distinct};
use crate::probes::{self, Probe};
use grantonce_testkit::children::Children;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};

/// The longest time that one side may take for a round.
pub(crate) const DEADLINE: Duration = Duration::from_secs(300);

/// How often the progress of a side is read. Peers report theirs at the same pace.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The kind of a side. Ratios are taken with the fastest side of each kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Grantonce,
    /// One transaction of several statements a message.
    Single,
    /// One statement a message.
    Cte,
    /// Batches written by hand, one after the other.
    Batch,
    /// Batches written by hand, several at the same time.
    Pipelined,
    Celery,
    /// A peer with another queue: it does other work, so no ratio is given.
    Footnote,
    Limit(Probe),
}

/// One side of the comparison.
#[derive(Debug, Clone)]
pub(crate) struct Side {
    pub(crate) name: &'static str,
    pub(crate) kind: Kind,
    /// How many messages it gets in the first round, before its speed is known.
    pub(crate) first_guess: u32,
    pub(crate) command: Vec<String>,
    /// The side has a queue of its own and fills it with the bodies on its standard input.
    pub(crate) fills: bool,
}

/// The figures of one round of one side.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Round {
    pub(crate) msgs_per_s: f64,
    pub(crate) seconds: f64,
    /// From its start to the first message that is done.
    pub(crate) first_done_ms: f64,
    /// Processor time a message in microseconds: the program, Postgres, RabbitMQ. `None` means not measured.
    pub(crate) cpu_us: [Option<f64>; 3],
    /// The most memory that the program had, in MiB.
    pub(crate) rss_mib: f64,
}

impl Round {
    /// Processor time a message of all three together, in microseconds.
    pub(crate) fn cpu_us_in_all(&self) -> Option<f64> {
        self.cpu_us.iter().copied().sum()
    }
}

/// The progress of one round.
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

    /// Returns the round once all messages are done. The round begins when the first messages are done, so the time that
    /// connecting takes is not measured.
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
        Some(Round {
            msgs_per_s: messages / seconds,
            seconds,
            first_done_ms: (begun - self.started).as_secs_f64() * 1000.0,
            cpu_us: processes.used(pid).per_message(used, messages),
            rss_mib: self.rss_kib as f64 / 1024.0,
        })
    }
}

/// The resident memory of a process and of all processes below it.
pub(crate) fn rss_kib(pid: u32) -> u64 {
    let own = std::fs::read_to_string(format!("/proc/{pid}/status")).ok().and_then(|status| {
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        line.trim().split(' ').next()?.parse::<u64>().ok()
    });
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    own.unwrap_or(0) + children.split_whitespace().filter_map(|pid| pid.parse().ok()).map(rss_kib).sum::<u64>()
}

impl Side {
    /// The worker of grantonce.
    pub(crate) fn grantonce() -> Self {
        Self { name: "grantonce", kind: Kind::Grantonce, first_guess: 60_000, command: vec![], fills: false }
    }

    /// One round: makes a database and a virtual host, fills the queue, drains it, checks the ledger, and removes both.
    /// The error says why a peer could not do it.
    pub(crate) async fn round(
        &self,
        servers: &Servers,
        processes: Processes,
        template: &Template,
        messages: &[u32],
    ) -> Result<Round, String> {
        let place = servers.place(template).await;
        let mut round = self.drain(&place, processes, messages).await;
        if round.is_ok() && self.kind != Kind::Limit(Probe::Broker) {
            round = place.check(distinct(messages)).await.and(round);
        }
        place.remove().await;
        round
    }

    pub(crate) async fn drain(&self, place: &Place, processes: Processes, messages: &[u32]) -> Result<Round, String> {
        if self.fills {
            self.fill(place, messages).await?;
        } else {
            place.publish(messages).await;
        }
        match self.kind {
            Kind::Grantonce => Ok(worker(place, processes, messages.len()).await),
            Kind::Limit(probe) => {
                let own = std::process::id();
                let (began, before) = (Instant::now(), processes.used(Some(own)));
                probes::run(probe, place, messages).await;
                let (seconds, count) = (began.elapsed().as_secs_f64(), messages.len() as f64);
                let cpu_us = processes.used(Some(own)).per_message(before, count);
                Ok(Round { msgs_per_s: count / seconds, seconds, first_done_ms: 0.0, cpu_us, rss_mib: 0.0 })
            }
            _ => self.peer(place, processes, messages.len()).await,
        }
    }

    fn start(&self, place: &Place, more: Option<&str>) -> Result<tokio::process::Child, String> {
        let (program, args) = self.command.split_first().unwrap();
        // A peer that fills its own queue does so if `fill` takes the place of `drain`.
        let args = args.iter().map(String::as_str).map(|arg| if arg == "drain" { more.unwrap_or(arg) } else { arg });
        let mut command = tokio::process::Command::new(program);
        command.args(args).env("DATABASE_URL", &place.database_url).env("AMQP_URL", &place.amqp_url);
        command.stdin(if more.is_some() { Stdio::piped() } else { Stdio::null() }).stdout(Stdio::piped());
        command.kill_on_drop(true).spawn().map_err(|error| format!("{program} could not be started: {error}"))
    }

    async fn fill(&self, place: &Place, messages: &[u32]) -> Result<(), String> {
        let mut child = self.start(place, Some("fill"))?;
        let mut bodies = child.stdin.take().unwrap();
        let now = time::OffsetDateTime::now_utc();
        for some in messages.chunks(1_000) {
            let mut lines = Vec::new();
            for n in some {
                lines.extend_from_slice(&crate::places::body(*n, now));
                lines.push(b'\n');
            }
            // A peer that ended reads no more. Its exit status is the reason, not the broken pipe.
            if bodies.write_all(&lines).await.is_err() {
                break;
            }
        }
        drop(bodies);
        match tokio::time::timeout(DEADLINE, child.wait()).await.map(Result::unwrap) {
            Ok(ended) if ended.success() => Ok(()),
            Ok(ended) => Err(format!("it could not fill its queue: {ended}")),
            Err(_) => Err(format!("it did not fill its queue within {} s", DEADLINE.as_secs())),
        }
    }

    async fn peer(&self, place: &Place, processes: Processes, count: usize) -> Result<Round, String> {
        let mut progress = Progress::new(count);
        let mut child = self.start(place, None)?;
        let pid = child.id();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let drained = async {
            while let Some(line) = lines.next_line().await.unwrap() {
                let told: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
                let Some(done) = told.get("done").and_then(serde_json::Value::as_u64) else { continue };
                if let Some(round) = progress.saw(done, pid, processes) {
                    return Ok(round);
                }
            }
            Err(format!("it ended before its work was done: {}", child.wait().await.unwrap()))
        };
        let round = tokio::time::timeout(DEADLINE, drained).await;
        let round = round.unwrap_or_else(|_| Err(format!("it was not done after {} s", DEADLINE.as_secs())));
        // `id` is gone once the process has ended and was waited for.
        if let Some(pid) = child.id().and_then(|pid| i32::try_from(pid).ok()).and_then(rustix::process::Pid::from_raw) {
            rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        }
        // A process that has not ended by then is killed when it is dropped.
        let _ = tokio::time::timeout(Duration::from_secs(10), child.wait()).await;
        round
    }
}

/// The environment of grantonce's processes. `BENCH_WORKERS=4` sets `GRANTONCE_WORKERS=4`, to try a setting.
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

/// The number of messages that the worker has applied or recognised as copies, by its own metrics.
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
        // The start must be seen at once. After that the worker is asked as often as peers report: asking costs it time.
        tokio::time::sleep(if done == 0 { Duration::from_millis(5) } else { LOOK_EVERY }).await;
    };
    worker.terminate(Duration::from_secs(10)).await.unwrap();
    round
}
