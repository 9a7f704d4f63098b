//! One run of the demo: a database and a virtual host of its own, the real roles in them, and a simulated provider, buyers
//! and a site around them.

use crate::api::Api;
use crate::args::Args;
use crate::audit::{Findings, audit, settle};
use crate::headless::{Deadlines, Sales, Shop, progress_bar};
use crate::roles::{self, Addresses, Cast, Roles};
use crate::summary::{Steady, Summary, percentile_ms};
use crate::witness::{Witness, WitnessError};
use crate::{interactive, killer, page, storefront};
use fastrand::Rng;
use grantonce_testkit::children::ChildError;
use grantonce_testkit::provider::courier::Courier;
use grantonce_testkit::provider::plan::mix;
use grantonce_testkit::provider::{self, Provider};
use grantonce_testkit::scratch::{ManagementError, ScratchError};
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

/// How long the provider tries to deliver one webhook. Real ones try for days.
const PROVIDER_PATIENCE: Duration = Duration::from_secs(180);

/// How long we wait until the broker has counted its dead letters for the first time.
const COUNT_DEADLINE: Duration = Duration::from_secs(15);

/// How long orders are sold at a steady rate.
const STEADY_SECONDS: u32 = 10;

/// Sets the orders of the steady phase apart from the ones before, of the same seed.
const STEADY: u64 = 0x57_EA_D1;

/// How many remarks are shown.
const REMARKS_MAX: usize = 20;

/// The exit code for a bad configuration, and the one for a dependency that is out of reach: ours, and the roles'.
pub(crate) const BAD_CONFIGURATION: u8 = 2;
const OUT_OF_REACH: u8 = 3;

/// The servers that a run makes its own place on. Not `Debug`: the URLs hold passwords.
#[derive(Clone)]
pub(crate) struct Servers {
    /// A user who may create databases.
    pub(crate) database_url: String,
    pub(crate) amqp_url: String,
    /// A user who may create virtual hosts. Without it the run shares the virtual host of `amqp_url`.
    pub(crate) management_url: Option<String>,
}

/// A variable of the environment is missing.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not set: use ./dev demo, or run ./dev up and eval \"$(./dev env)\"")]
pub(crate) struct NotSet(&'static str);

impl Servers {
    /// Reads the variables that say where the servers are.
    pub(crate) fn from_env(get: impl Fn(&str) -> Option<String>) -> Result<Self, NotSet> {
        let filled = |name: &'static str| get(name).filter(|value| !value.is_empty());
        Ok(Self {
            database_url: filled("DATABASE_URL").ok_or(NotSet("DATABASE_URL"))?,
            amqp_url: filled("AMQP_URL").ok_or(NotSet("AMQP_URL"))?,
            management_url: filled("GRANTONCE_MANAGEMENT_URL"),
        })
    }
}

/// How a demo ended.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Ended {
    /// The headless run came to its end.
    Headless(Box<Summary>),
    /// Somebody has seen enough.
    Interactive,
}

impl Ended {
    /// 0, or 1 where not every payment granted its credits exactly once.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Headless(summary) => u8::from(!summary.is_clean()),
            Self::Interactive => 0,
        }
    }
}

/// Why a demo did not come to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failed {
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

impl Failed {
    /// 3 where a dependency is out of reach, 2 where a URL or a right is wrong, else 1.
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Database(error) if error.is_unreachable() => OUT_OF_REACH,
            Self::Database(ScratchError::BadUrl) => BAD_CONFIGURATION,
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
pub(crate) async fn run(args: Args, env: Servers, shutdown: CancellationToken) -> Result<Ended, Failed> {
    let own = std::env::current_exe().map_err(|source| Failed::System { what: "this program's own file", source })?;
    let program = own.with_file_name(format!("grantonce{}", std::env::consts::EXE_SUFFIX));
    let (listener, provider_address) = listen("listening as the simulated provider").await?;
    let mut roles = Roles::new(env, program, provider_address).await?;
    let ended = play(&args, &mut roles, listener, &shutdown).await;
    let is_good = matches!(&ended, Ok(ended) if ended.exit_code() == 0) || matches!(ended, Err(Failed::Interrupted));
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
    args: &Args,
    roles: &mut Roles,
    provider: TcpListener,
    shutdown: &CancellationToken,
) -> Result<Ended, Failed> {
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
    let addresses = started.ok_or(Failed::Interrupted)??;

    // Ends the provider with the run, however that ends.
    let stop = shutdown.child_token();
    let _stop_at_the_end = stop.clone().drop_guard();
    let courier = Courier::new(format!("http://{}", addresses.receiver), roles.secrets(), PROVIDER_PATIENCE)?;
    let run = roles.name().rsplit('_').next().unwrap_or_default().to_owned();
    let settings = provider::Settings { seed: args.seed, copies: args.duplicates, run, is_faulty: args.headless };
    let (listener, provider) = (provider, Provider::new(settings, courier, stop.clone()));
    let provider_address = listener.local_addr().map_err(|source| Failed::System { what: "listening", source })?;
    let router = provider::http::router(provider.clone()).merge(page::router(provider.clone()));
    serve(listener, router, stop.clone());

    let witness = Witness::new(roles.database_url())?;
    let work = async {
        if args.headless {
            let summary = sell_and_audit(args, roles, &addresses, &provider, &witness).await?;
            show(&if args.json { json(&summary) } else { summary.to_string() })?;
            Ok(Ended::Headless(Box::new(summary)))
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
        None if args.headless => Err(Failed::Interrupted),
        None => Ok(Ended::Interactive),
    }
}

/// A listener of the demo's own, and where it is.
async fn listen(what: &'static str) -> Result<(TcpListener, SocketAddr), Failed> {
    let failed = |source| Failed::System { what, source };
    let listener = TcpListener::bind("127.0.0.1:0").await.map_err(failed)?;
    let address = listener.local_addr().map_err(failed)?;
    Ok((listener, address))
}

fn serve(listener: TcpListener, router: axum::Router, stop: CancellationToken) {
    // axum's server gives no error: it goes on after a connection that could not be accepted.
    tokio::spawn(async move { axum::serve(listener, router).with_graceful_shutdown(stop.cancelled_owned()).await });
}

async fn sell_and_audit(
    args: &Args,
    roles: &mut Roles,
    addresses: &Addresses,
    provider: &Provider,
    witness: &Witness,
) -> Result<Summary, Failed> {
    let api = Api::new(format!("http://{}", addresses.api), roles.token().to_owned())?;
    let deadlines = if args.drop_webhooks.is_none() { Deadlines::DEMO } else { Deadlines::DEMO_WITH_SILENCE };
    let silence = args.drop_webhooks.as_f64();
    let (seed, orders) = (args.seed, args.orders);
    let shop = Shop { provider, api: &api, deadlines, seed, orders, silence, can_create: true, pace: None };
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
    let (mut sales, kills) = tokio::join!(selling, killing);
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
    let steady = match args.steady_rate {
        0 => None,
        rate => Some(sell_steadily(rate, &Shop { deadlines: Deadlines::DEMO, ..shop }, witness, &mut sales).await),
    };
    Ok(Summary { webhooks_dropped: dropped, worker_kills: kills, steady, ..summary })
}

/// Sells `rate` orders a second. The audit at the end looks at these orders and at the `earlier` ones together.
async fn sell_steadily(rate: u32, shop: &Shop<'_>, witness: &Witness, earlier: &mut Sales) -> Steady {
    let shop = Shop {
        seed: mix(shop.seed, STEADY),
        orders: rate * STEADY_SECONDS,
        silence: 0.0,
        can_create: false,
        pace: Some(Duration::from_secs(1) / rate),
        ..*shop
    };
    let bar = progress_bar(shop.orders, std::io::stderr().is_terminal());
    let sales = shop.sell(&bar).await;
    bar.finish_and_clear();
    let unsettled = settle(shop.provider, Some(witness), &sales, roles::RETRY_LONGEST).await;
    let latencies = latencies(&sales);
    let elapsed = sales.elapsed;
    earlier.sold.extend(sales.sold);
    let findings = audit(shop.api, Some(witness), &earlier.sold).await;
    remark(&unsettled);
    remark(&findings.remarks);
    Steady {
        orders_per_s: rate,
        orders: shop.orders,
        lost: findings.lost,
        doubled: findings.doubled,
        invented: findings.invented,
        p50_ms: percentile_ms(&latencies, 50),
        p99_ms: percentile_ms(&latencies, 99),
        elapsed_s: seconds(elapsed),
    }
}

/// How long the buyers waited, the shortest wait first.
fn latencies(sales: &Sales) -> Vec<Duration> {
    let mut latencies: Vec<Duration> = sales.sold.iter().filter_map(|sold| sold.latency).collect();
    latencies.sort_unstable();
    latencies
}

/// Seconds with two decimals.
fn seconds(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 100.0).round() / 100.0
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
    let latencies = latencies(sales);
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
        elapsed_s: seconds(sales.elapsed),
        webhooks_dropped: None,
        worker_kills: None,
        steady: None,
    }
}

fn json(summary: &Summary) -> String {
    // Numbers under fixed names: there is nothing that could fail.
    serde_json::to_string(summary).unwrap_or_default() + "\n"
}

/// To stdout: what was asked for.
fn show(text: &str) -> Result<(), Failed> {
    let mut stdout = std::io::stdout().lock();
    let written = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    written.map_err(|source| Failed::System { what: "writing to stdout", source })
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::Share;

    fn environment() -> Servers {
        Servers {
            database_url: "postgres://nobody@127.0.0.1:1/none".to_owned(),
            amqp_url: "amqp://127.0.0.1:1".to_owned(),
            management_url: Some("http://127.0.0.1:1".to_owned()),
        }
    }

    fn args() -> Args {
        let (orders, duplicates, seed, workers) = (1, 1, 1, 1);
        let drop_webhooks = Share::default();
        Args {
            headless: true,
            orders,
            duplicates,
            seed,
            json: true,
            drop_webhooks,
            steady_rate: 0,
            kill_workers: false,
            workers,
        }
    }

    #[tokio::test]
    async fn a_server_that_is_not_there_is_told_by_the_exit_code() {
        let error = run(args(), environment(), CancellationToken::new()).await.unwrap_err();
        assert_eq!(error.exit_code(), 3, "{error}");
    }

    #[tokio::test]
    async fn so_is_a_url_that_is_none() {
        for env in [
            Servers { database_url: "nowhere".to_owned(), ..environment() },
            Servers { management_url: Some("nowhere".to_owned()), ..environment() },
        ] {
            let error = run(args(), env, CancellationToken::new()).await.unwrap_err();
            assert_eq!(error.exit_code(), 2, "{error}");
        }
    }
}
