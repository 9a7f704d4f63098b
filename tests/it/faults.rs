//! Faults of operations under steady traffic, each once and in random order. No payment is lost, none is granted twice, no genuine
//! message becomes a dead letter, and buyers that a fault does not concern do not wait for it.
//!
//! `./dev faults` runs all of them, on its own servers. `FAULTS_SEED` repeats an order, and `FAULTS_ONLY` names some of them.

mod buyers;
mod stage;
mod table;

use buyers::{Bought, GENUINE};
use stage::Stage;
use std::fmt::Write as _;
use std::time::Duration;
use table::{FAULTS, Fault};
use tokio::time::{Instant, sleep_until};

/// The shortest duration of the long run.
const LONG: Duration = Duration::from_secs(600);

/// Before the first fault and after each, the test waits until a new buyer has credits.
const RECOVERY: Duration = Duration::from_secs(120);

/// Longest wait of a buyer that no fault concerns, on a machine that has little else to do.
const UNAFFECTED_MAX: Duration = Duration::from_secs(15);

/// When a fault began, and when everything worked again.
struct Happened {
    fault: &'static Fault,
    from: Instant,
    until: Instant,
}

impl Happened {
    fn meets(&self, bought: &Bought) -> bool {
        bought.paid_at < self.until && bought.granted_at.is_none_or(|granted_at| granted_at > self.from)
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn some_faults_lose_nothing_and_hold_up_nobody_else() {
    let mut faults: Vec<_> = FAULTS.iter().filter(|fault| fault.is_short).collect();
    let seed = shuffle(&mut faults);
    run(Stage::on_shared_servers().await, &faults, seed, Duration::ZERO).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "ten minutes: ./dev faults"]
async fn all_faults_lose_nothing_and_hold_up_nobody_else() {
    let mut faults: Vec<_> = FAULTS.iter().collect();
    let seed = shuffle(&mut faults);
    let only = std::env::var("FAULTS_ONLY").ok();
    if let Some(only) = &only {
        faults.retain(|fault| only.split(',').any(|name| name == fault.name));
        assert!(
            !faults.is_empty(),
            "FAULTS_ONLY names none of {:?}",
            FAULTS.iter().map(|fault| fault.name).collect::<Vec<_>>()
        );
    }
    let at_least = if only.is_some() { Duration::ZERO } else { LONG };
    run(Stage::on_own_servers().await, &faults, seed, at_least).await;
}

/// Shuffles them, and prints the seed.
fn shuffle(faults: &mut [&Fault]) -> u64 {
    let seed = std::env::var("FAULTS_SEED").map_or_else(|_| fastrand::u64(..), |seed| seed.parse().unwrap());
    eprintln!("FAULTS_SEED={seed}");
    fastrand::Rng::with_seed(seed).shuffle(faults);
    seed
}

async fn run(mut stage: Stage, faults: &[&'static Fault], seed: u64, at_least: Duration) {
    let began = Instant::now();
    let buying = stage.buyers.start();
    stage.goes_on(RECOVERY).await;
    let mut happened = vec![];
    for fault in faults {
        let from = Instant::now();
        eprintln!("{:>4} s  {}", (from - began).as_secs(), fault.name);
        (fault.apply)(&mut stage).await;
        stage.goes_on(RECOVERY).await;
        // Buyers that had to wait have credits before the next fault, so no wait has two causes.
        stage.nobody_waits_for_long(RECOVERY).await;
        happened.push(Happened { fault, from, until: Instant::now() });
    }
    // Traffic goes on to the end.
    sleep_until(began + at_least).await;
    let all = stage.buyers.stop(buying).await;
    let report = report(seed, &happened, &all.values().copied().collect::<Vec<_>>(), began.elapsed());
    eprintln!("{report}");
    stage.end(i64::try_from(all.len()).unwrap()).await;
    let longest = unaffected(&happened, all.values()).max().unwrap_or_default();
    assert!(longest < UNAFFECTED_MAX, "a buyer whom no fault concerned waited {longest:?}\n{report}");
}

/// The waits of buyers who paid while no fault concerned everybody or themselves.
fn unaffected<'a>(
    happened: &'a [Happened],
    all: impl Iterator<Item = &'a Bought> + 'a,
) -> impl Iterator<Item = Duration> + 'a {
    let is_free = |bought: &&Bought| {
        !bought.is_target && !happened.iter().any(|one| one.fault.stops_everybody && one.meets(bought))
    };
    all.filter(is_free).map(Bought::waited)
}

fn report(seed: u64, happened: &[Happened], all: &[Bought], took: Duration) -> String {
    let mut report = format!("\nseed {seed}, {} s, {} buyers ({GENUINE}…)\n", took.as_secs(), all.len());
    let _ = writeln!(report, "{:>28}  {:>7}  {:>7}  longest wait of others (s)", "fault", "took", "buyers");
    for one in happened {
        let others: Vec<_> = all.iter().filter(|bought| !bought.is_target && one.meets(bought)).collect();
        let longest = others.iter().map(|bought| bought.waited()).max().unwrap_or_default().as_secs_f64();
        let whom = if one.fault.stops_everybody { "  (stops everybody)" } else { "" };
        let took = (one.until - one.from).as_secs_f64();
        let _ = writeln!(report, "{:>28}  {took:>7.1}  {:>7}  {longest:.2}{whom}", one.fault.name, others.len());
    }
    let mut waits: Vec<_> = unaffected(happened, all.iter()).collect();
    waits.sort();
    let at = |share: usize| waits.get(waits.len().saturating_sub(1) * share / 100).copied().unwrap_or_default();
    let _ = writeln!(
        report,
        "{} unaffected buyers waited {:.2} s (median), {:.2} s (p99), {:.2} s (longest)",
        waits.len(),
        at(50).as_secs_f64(),
        at(99).as_secs_f64(),
        at(100).as_secs_f64()
    );
    report
}
