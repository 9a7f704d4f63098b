//! The demo: a simulated provider, buyers and a site around the real thing. The roles run as processes of this very program,
//! against a real broker and a real database, of which each run has its own.
//!
//! Headless, it sells many orders, each webhook sent several times, early, late and out of order, or never, and then counts
//! the credits. Else it opens a shop, prints its addresses, and waits for somebody to try it by hand.
//!
//! | file | what |
//! |---|---|
//! | `plan` | what happens, decided by the seed |
//! | `payment`, `provider`, `courier` | the simulated provider: its events, its APIs and pages, how it delivers |
//! | `roles`, `children`, `scratch`, `killer` | the real roles, in a place of their own |
//! | `api`, `headless` | the site and its buyers |
//! | `audit`, `summary` | who has which credits, and who should |
//! | `interactive`, `storefront`, `web` | for people: what is printed, the shop, and what its pages are made of |

mod api;
mod audit;
pub mod children;
mod courier;
#[cfg(test)]
mod fake;
mod headless;
mod interactive;
mod killer;
mod payment;
mod plan;
mod provider;
mod roles;
pub mod scratch;
pub mod standin;
mod storefront;
mod summary;
mod web;

pub use summary::Summary;

use crate::store::scratch::ScratchError;
use crate::store::witness::{Witness, WitnessError};
use api::Api;
use audit::{Findings, audit, settle};
use children::ChildError;
use courier::Courier;
use fastrand::Rng;
use headless::{Deadlines, Sales, Shop, progress_bar};
use provider::Provider;
use roles::{Addresses, Cast, Roles};
use scratch::ManagementError;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use summary::percentile_ms;
use tokio::net::TcpListener;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

/// How long the provider tries to deliver one webhook. Real ones try for days.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(180);

/// How long we wait until the broker has counted its dead letters for the first time.
const COUNT_DEADLINE: Duration = Duration::from_secs(15);

/// How many remarks are shown.
const REMARKS_MAX: usize = 20;

/// The exit code for a bad configuration, and the one for a dependency that is out of reach: ours, and the roles'.
const BAD_CONFIGURATION: u8 = 2;
const OUT_OF_REACH: u8 = 3;

/// What the command line says.
#[derive(Debug, Clone, PartialEq, Eq, clap::Args)]
pub struct DemoArgs {
    /// Sell orders to simulated buyers, print a summary, and end: with 1 unless every payment granted exactly once
    #[arg(long)]
    pub headless: bool,
    /// Number of orders to sell (headless)
    #[arg(long, value_name = "N", default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub orders: u32,
    /// How often each webhook is sent
    #[arg(long, value_name = "D", default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub duplicates: u32,
    /// Decides everything that is left to chance: the same seed repeats a run
    #[arg(long, value_name = "S", default_value_t = 1)]
    pub seed: u64,
    /// Print the summary as one JSON object (headless)
    #[arg(long, requires = "headless")]
    pub json: bool,
    /// Share of the payments, 0 to 1, whose webhooks are never sent: the reconciler has to find them (headless)
    #[arg(long, value_name = "SHARE", requires = "headless", default_value = "0")]
    pub drop_webhooks: Share,
    /// Kill a worker every second while it runs, and start it again
    #[arg(long)]
    pub kill_workers: bool,
    /// Number of worker processes
    #[arg(long, value_name = "K", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub workers: u32,
}

/// A number from 0 to 1, kept in millionths.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Share(u32);

impl Share {
    fn is_none(self) -> bool {
        self.0 == 0
    }

    fn as_f64(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl std::str::FromStr for Share {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fault = "must be a number from 0 to 1, with up to six decimals";
        let (whole, part) = text.split_once('.').unwrap_or((text, "0"));
        let is_number = !whole.is_empty() && (1..=6).contains(&part.len());
        let digits = format!("{whole}{part:0<6}");
        let millionths = digits.parse().ok().filter(|_| is_number && digits.bytes().all(|b| b.is_ascii_digit()));
        millionths.filter(|millionths| *millionths <= 1_000_000).map(Self).ok_or(fault)
    }
}

/// The servers that a run makes its own place on. Not `Debug`: the URLs hold passwords.
#[derive(Clone)]
pub struct DemoEnvironment {
    /// `DATABASE_URL`: a user who may create databases.
    pub database_url: String,
    /// `AMQP_URL`.
    pub amqp_url: String,
    /// `GRANTONCE_MANAGEMENT_URL`, `http://user:password@host:15672`: a user who may create virtual hosts. Without it the
    /// run shares the virtual host of `amqp_url` with whatever else is there.
    pub management_url: Option<String>,
}

/// How a demo ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Ended {
    /// The headless run came to its end.
    Headless(Summary),
    /// Somebody has seen enough.
    Interactive,
}

impl Ended {
    /// 0, or 1 where not every payment granted its credits exactly once.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Headless(summary) => u8::from(!summary.is_clean()),
            Self::Interactive => 0,
        }
    }
}

/// Why a demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The run's own database.
    #[error(transparent)]
    Database(#[from] ScratchError),
    /// The run's own virtual host.
    #[error(transparent)]
    Broker(#[from] ManagementError),
    /// One of the roles.
    #[error(transparent)]
    Role(#[from] ChildError),
    /// A role ended by itself while somebody tried the demo by hand.
    #[error("{0}")]
    Deserted(String),
    /// The ledger's tables.
    #[error(transparent)]
    Ledger(#[from] WitnessError),
    /// No folder for the roles' logs.
    #[error("the folder {} for the logs: {source}", path.display())]
    LogFolder {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This program does not know its own file, or the simulated provider cannot listen, or nobody reads our output.
    #[error("{what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        #[source]
        source: std::io::Error,
    },
    /// No HTTP client could be made.
    #[error("the HTTP client: {0}")]
    Http(#[from] reqwest::Error),
    /// Somebody ended the run before it was done.
    #[error("interrupted before it was done")]
    Interrupted,
}

impl DemoError {
    /// 3 where a dependency is out of reach, 2 where a URL or a right is wrong, else 1.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Database(error) if error.is_unreachable() => OUT_OF_REACH,
            Self::Database(ScratchError::BadUrl(_)) => BAD_CONFIGURATION,
            Self::Broker(error) if error.is_unreachable() => OUT_OF_REACH,
            Self::Broker(ManagementError::BadUrl { .. }) => BAD_CONFIGURATION,
            Self::Broker(ManagementError::Refused { status, .. }) if matches!(status.as_u16(), 401 | 403) => {
                BAD_CONFIGURATION
            }
            // A role says by its exit code what it found.
            Self::Role(error) => match error.exit_code().and_then(|code| u8::try_from(code).ok()) {
                Some(code @ (BAD_CONFIGURATION | OUT_OF_REACH)) => code,
                Some(_) | None => 1,
            },
            Self::Database(_)
            | Self::Broker(_)
            | Self::Deserted(_)
            | Self::Ledger(_)
            | Self::LogFolder { .. }
            | Self::System { .. }
            | Self::Http(_)
            | Self::Interrupted => 1,
        }
    }
}

/// Runs the demo until its end, or until `shutdown`; either way it removes what it has made.
pub async fn run(args: DemoArgs, env: DemoEnvironment, shutdown: CancellationToken) -> Result<Ended, DemoError> {
    let program =
        std::env::current_exe().map_err(|source| DemoError::System { what: "this program's own file", source })?;
    let (listener, provider_address) = listen("listening as the simulated provider").await?;
    let mut roles = Roles::new(env, program, provider_address).await?;
    let ended = play(&args, &mut roles, listener, &shutdown).await;
    let is_good = matches!(&ended, Ok(ended) if ended.exit_code() == 0) || matches!(ended, Err(DemoError::Interrupted));
    if !is_good {
        remark(&roles.deserters());
    }
    let log_dir = roles.log_dir().to_owned();
    remark(&roles.end(!is_good).await);
    if log_dir.exists() {
        remark(&[format!("the roles' logs are in {}", log_dir.display())]);
    }
    ended
}

/// `provider` is where the simulated provider listens: roles that ask it are told before it can know where they listen.
async fn play(
    args: &DemoArgs,
    roles: &mut Roles,
    provider: TcpListener,
    shutdown: &CancellationToken,
) -> Result<Ended, DemoError> {
    if !roles.has_own_vhost() {
        let text =
            "GRANTONCE_MANAGEMENT_URL is not set: the run shares the virtual host of AMQP_URL with whatever is there";
        remark(&[text.to_owned()]);
    }
    roles.make_places().await?;
    // A headless run that drops no webhooks shows that they are enough.
    let has_reconciler = !args.headless || !args.drop_webhooks.is_none();
    // It counts the dead letters where they arrive, where nobody collects them.
    let cast = Cast { workers: args.workers, has_reconciler, has_ops: !args.headless };
    let started = shutdown.run_until_cancelled(roles.start(cast)).await;
    let addresses = started.ok_or(DemoError::Interrupted)??;

    // Ends the provider with the run, however that ends.
    let stop = shutdown.child_token();
    let _stop_at_the_end = stop.clone().drop_guard();
    let courier = Courier::new(format!("http://{}", addresses.receiver), roles.secrets(), PROVIDER_PATIENCE)?;
    let run = roles.name().rsplit('_').next().unwrap_or_default().to_owned();
    let settings = provider::Settings { seed: args.seed, copies: args.duplicates, run, is_faulty: args.headless };
    let (listener, provider) = (provider, Provider::new(settings, courier, stop.clone()));
    let provider_address = listener.local_addr().map_err(|source| DemoError::System { what: "listening", source })?;
    serve(listener, provider::http::router(provider.clone()), stop.clone());

    let witness = Witness::new(roles.database_url())?;
    let work = async {
        if args.headless {
            let summary = sell_and_audit(args, roles, &addresses, &provider, &witness).await?;
            show(&if args.json { json(&summary) } else { summary.to_string() })?;
            Ok(Ended::Headless(summary))
        } else {
            let (listener, storefront) = listen("listening as the shop").await?;
            let partners = storefront::Partners {
                api: Api::new(format!("http://{}", addresses.api), roles.token().to_owned())?,
                provider: provider.clone(),
                witness: witness.clone(),
                receiver: addresses.receiver,
                provider_address,
            };
            serve(listener, storefront::router(partners, storefront), stop);
            show(&interactive::welcome(&addresses, storefront, provider_address, roles.token()))?;
            interactive::live(args, roles, &provider, &witness).await?;
            Ok(Ended::Interactive)
        }
    };
    let ended = shutdown.run_until_cancelled(work).await;
    witness.close().await;
    match ended {
        Some(ended) => ended,
        None if args.headless => Err(DemoError::Interrupted),
        None => Ok(Ended::Interactive),
    }
}

/// A listener of the demo's own, and where it is.
async fn listen(what: &'static str) -> Result<(TcpListener, SocketAddr), DemoError> {
    let failed = |source| DemoError::System { what, source };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn serve(listener: TcpListener, router: axum::Router, stop: CancellationToken) {
    // axum's server gives no error: it goes on after a connection that could not be accepted.
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await });
}

async fn sell_and_audit(
    args: &DemoArgs,
    roles: &mut Roles,
    addresses: &Addresses,
    provider: &Provider,
    witness: &Witness,
) -> Result<Summary, DemoError> {
    let api = Api::new(format!("http://{}", addresses.api), roles.token().to_owned())?;
    let deadlines = if args.drop_webhooks.is_none() { Deadlines::DEMO } else { Deadlines::DEMO_WITH_SILENCE };
    let silence = args.drop_webhooks.as_f64();
    let shop = Shop { provider, api: &api, deadlines, seed: args.seed, orders: args.orders, silence, can_create: true };
    let bar = progress_bar(args.orders, std::io::stderr().is_terminal());

    let stop_killing = CancellationToken::new();
    let selling = async {
        let sales = shop.sell(&bar).await;
        stop_killing.cancel();
        sales
    };
    let killing = async {
        if !args.kill_workers {
            return Ok(None);
        }
        killer::kill_workers(roles.workers(), Rng::with_seed(args.seed), &stop_killing).await.map(Some)
    };
    let (sales, kills) = tokio::join!(selling, killing);
    bar.finish_and_clear();
    let kills = kills?;

    let unsettled = settle(provider, Some(witness), &sales, roles::RETRY_LONGEST).await;
    let findings = audit(&api, Some(witness), &sales.sold).await;
    remark(&unsettled);
    remark(&findings.remarks);
    let retries = provider.counts().retries;
    if retries > 0 {
        remark(&[format!("{retries} webhooks had to be sent again because the receiver did not accept them")]);
    }
    let dropped = (!args.drop_webhooks.is_none()).then(|| provider.counts().dropped);
    let summary = summarize(&sales, &findings, provider, dead_letters(roles).await);
    Ok(Summary { webhooks_dropped: dropped, worker_kills: kills, ..summary })
}

async fn dead_letters(roles: &Roles) -> Option<u64> {
    if !roles.has_own_vhost() {
        return None;
    }
    let ends_at = Instant::now() + COUNT_DEADLINE;
    let mut ticks = interval(Duration::from_millis(500));
    loop {
        ticks.tick().await;
        let count = roles.dead_letters().await;
        if count.is_some() || Instant::now() > ends_at {
            return count;
        }
    }
}

fn summarize(sales: &Sales, findings: &Findings, provider: &Provider, dead_letters: Option<u64>) -> Summary {
    let mut latencies: Vec<Duration> = sales.sold.iter().filter_map(|sold| sold.latency).collect();
    latencies.sort_unstable();
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    let counts = provider.counts();
    Summary {
        orders: u32::try_from(sales.sold.len()).unwrap_or(u32::MAX),
        webhooks_sent: counts.sent,
        webhooks_accepted: counts.accepted,
        duplicates_sent: counts.duplicates,
        grants: findings.grants,
        grants_expected: count(sales.sold.iter().filter(|sold| sold.is_paid).count()),
        lost: findings.lost,
        doubled: findings.doubled,
        invented: findings.invented,
        dead_letters,
        p50_ms: percentile_ms(&latencies, 50),
        p99_ms: percentile_ms(&latencies, 99),
        elapsed_s: (sales.elapsed.as_secs_f64() * 100.0).round() / 100.0,
        webhooks_dropped: None,
        worker_kills: None,
    }
}

fn json(summary: &Summary) -> String {
    // Numbers under fixed names: there is nothing that could fail.
    serde_json::to_string(summary).unwrap_or_default() + "\n"
}

/// To stdout: what was asked for.
fn show(text: &str) -> Result<(), DemoError> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| DemoError::System { what: "writing to stdout", source })
}

/// To stderr: what else is to be known, the first of it.
fn remark(remarks: &[String]) {
    let mut stderr = std::io::stderr().lock();
    for remark in remarks.iter().take(REMARKS_MAX) {
        // Nobody reads it, then.
        let _ = writeln!(stderr, "{}", remark.trim_end());
    }
    if remarks.len() > REMARKS_MAX {
        let _ = writeln!(stderr, "… and {} more of this kind", remarks.len() - REMARKS_MAX);
    }
}

/// Locks; a panic elsewhere while the lock was held leaves nothing half-done in what we keep behind one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment() -> DemoEnvironment {
        DemoEnvironment {
            database_url: "postgres://nobody@127.0.0.1:1/none".to_owned(),
            amqp_url: "amqp://127.0.0.1:1".to_owned(),
            management_url: Some("http://127.0.0.1:1".to_owned()),
        }
    }

    fn args() -> DemoArgs {
        let (orders, duplicates, seed, workers) = (1, 1, 1, 1);
        let drop_webhooks = Share::default();
        DemoArgs { headless: true, orders, duplicates, seed, json: true, drop_webhooks, kill_workers: false, workers }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_by_the_exit_code() {
        let error = run(args(), environment(), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }

    #[test]
    fn a_share_is_read_exactly() {
        for (text, share) in [("0", 0), ("1", 1_000_000), ("0.25", 250_000), ("1.0", 1_000_000), ("0.000001", 1)] {
            assert_eq!(text.parse(), Ok(Share(share)), "{text}");
        }
        for text in ["", ".5", "1.000001", "2", "-0.1", "0.1234567", "1.", "0,5", "1e-1", "+1", "0x1"] {
            assert!(text.parse::<Share>().is_err(), "{text}");
        }
        assert!((Share(250_000).as_f64() - 0.25).abs() < 1e-9);
    }

    #[tokio::test]
    async fn so_is_a_url_that_is_none() {
        for env in [
            DemoEnvironment { database_url: "nowhere".to_owned(), ..environment() },
            DemoEnvironment { management_url: Some("nowhere".to_owned()), ..environment() },
        ] {
            let error = run(args(), env, CancellationToken::new()).await.unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
