//! How fast the worker, its peers and the machine's limits drain a full queue.

use crate::chart::{self, Bar};
use crate::cpu::Processes;
use crate::facts;
use crate::figures::{Spread, cell, median, round, table, thousands, times};
use crate::peers::{self, LeftOut};
use crate::places::{Servers, messages};
use crate::probes::Probe;
use crate::sides::{Kind, Round, Side};
use clap::builder::PossibleValuesParser;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// The number of orders, unless a round needs more.
const ORDERS: u32 = 100_000;

/// These sides are nearly as fast as each other, so they run right after each other, in this order. A shared machine changes
/// its speed by more than their difference while a dozen sides run.
const ALIKE: [&str; 4] = ["go_pipelined", "grantonce", "combined", "go_batch"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Two short rounds with the fastest peers of each kind
    #[arg(long)]
    quick: bool,
    /// Rounds for each side
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Least duration of a round: each side gets as many messages as it can process in this time
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Least number of orders in the database
    #[arg(long, default_value_t = ORDERS)]
    orders: u32,
    /// Run only these sides
    #[arg(long, value_name = "NAME,NAME,…", value_delimiter = ',', value_parser = PossibleValuesParser::new(names()))]
    only: Vec<String>,
    /// Folder in which the peers are built
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.dev/peers"))]
    peers: PathBuf,
    /// Draw the figures into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
}

/// The names that `--only` takes.
fn names() -> Vec<&'static str> {
    ours().iter().map(|side| side.name).chain(peers::names()).collect()
}

fn ours() -> Vec<Side> {
    let side = |name, kind| Side { name, kind, first_guess: 60_000, command: vec![], fills: false };
    vec![
        Side::grantonce(),
        side("broker", Kind::Limit(Probe::Broker)),
        side("database", Kind::Limit(Probe::Database)),
        side("combined", Kind::Limit(Probe::Combined)),
    ]
}

/// One side with all its rounds.
struct Lane {
    side: Side,
    messages: Vec<u32>,
    rounds: Vec<Round>,
}

impl Lane {
    fn rates(&self) -> impl Iterator<Item = f64> {
        self.rounds.iter().map(|round| round.msgs_per_s)
    }

    fn spread(&self) -> Spread {
        Spread::of(self.rates()).unwrap()
    }
}

/// Our messages a second over theirs in the same round. Above 1 we are faster.
fn ratio(ours: &Lane, theirs: &Lane) -> Option<Spread> {
    Spread::of_ratio(ours.rates().map(Some), theirs.rates().map(Some))
}

/// Their processor time a message over ours in the same round. Above 1 we use less.
fn cpu_ratio(ours: &Lane, theirs: &Lane) -> Option<Spread> {
    let cpu_us = |lane: &Lane| lane.rounds.iter().map(Round::cpu_us_in_all).collect::<Vec<_>>();
    Spread::of_ratio(cpu_us(theirs), cpu_us(ours))
}

/// What a run has measured.
struct Measured {
    lanes: Vec<Lane>,
    left_out: Vec<LeftOut>,
}

pub(crate) async fn drain(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let is_wanted = |name: &str| args.only.is_empty() || args.only.iter().any(|only| only == name);
    let (ready, left_out, versions) = peers::of(&args.peers, is_wanted, args.quick);
    let mut sides: Vec<Side> = ours().into_iter().filter(|side| is_wanted(side.name)).chain(ready).collect();
    let alike = |side: &Side| ALIKE.iter().position(|name| *name == side.name).unwrap_or(ALIKE.len());
    sides.sort_by_key(alike);
    let processes = Processes::of(&servers).await;
    let (rounds, seconds) =
        if args.quick { (args.rounds.min(2), args.seconds.min(3)) } else { (args.rounds, args.seconds) };

    let mut measured = Measured { lanes: vec![], left_out };
    measure(&mut measured, &servers, processes, sides, args.orders, rounds, seconds).await;
    let about = facts::about(&servers, processes, versions).await;
    if let Some(file) = &args.plot {
        std::fs::write(file, plot(&measured, &about["machine"])).unwrap();
    }
    if json {
        println!("{}", result(&measured, rounds, about));
    } else {
        println!("{}", table(&rows(&measured.lanes)));
        println!("rate: our messages a second over theirs. CPU: their processor time a message over ours.");
        println!("In both, above 1 means that grantonce does better.\n{}", LeftOut::text(&measured.left_out));
        println!("machine: {}\nversions: {}", about["machine"], about["versions"]);
    }
}

async fn measure(
    measured: &mut Measured,
    servers: &Servers,
    processes: Processes,
    sides: Vec<Side>,
    orders: u32,
    rounds: u32,
    seconds: u32,
) {
    // The first round is not counted. It warms everything up, and shows how many messages a side needs for a whole round.
    let small = servers.template(ORDERS).await;
    let mut counts = vec![];
    for side in sides {
        let guess = messages(small.orders, side.first_guess);
        match side.round(servers, processes, &small, &guess).await {
            Ok(first) => {
                let wanted = (first.msgs_per_s * f64::from(seconds) * 1.1 / 1000.0).ceil() * 1000.0;
                eprintln!("warming up: {:24} {:>8} messages/s", side.name, thousands(first.msgs_per_s));
                counts.push((side, (wanted as u32).max(2_000)));
            }
            Err(why) => measured.leave_out(&side, why),
        }
    }
    let most = counts.iter().map(|(_, count)| count - count / 10).max().unwrap_or(0);
    let template = match orders.max(most) {
        ORDERS => small,
        more => servers.template(more).await,
    };
    for (side, count) in counts {
        measured.lanes.push(Lane { side, messages: messages(template.orders, count), rounds: vec![] });
    }
    for n in 1..=rounds {
        for mut lane in std::mem::take(&mut measured.lanes) {
            match lane.side.round(servers, processes, &template, &lane.messages).await {
                Ok(round) => {
                    let [program, postgres, rabbitmq] = round.cpu_us.map(|us| cell(us, 0));
                    eprintln!(
                        "round {n}/{rounds}: {:24} {:>8} messages/s for {:.1} s; CPU a message: program {program}, Postgres \
                         {postgres}, RabbitMQ {rabbitmq} µs",
                        lane.side.name,
                        thousands(round.msgs_per_s),
                        round.seconds,
                    );
                    lane.rounds.push(round);
                    measured.lanes.push(lane);
                }
                Err(why) => measured.leave_out(&lane.side, why),
            }
        }
    }
}

impl Measured {
    /// Leaves out a peer that could not do its work. The worker and the limits must always be able to.
    fn leave_out(&mut self, side: &Side, why: String) {
        assert!(!matches!(side.kind, Kind::Grantonce | Kind::Limit(_)), "{}: {why}", side.name);
        self.left_out.push(LeftOut::new(side.name, why));
    }
}

/// The fastest side of a kind.
fn best(lanes: &[Lane], kind: Kind) -> Option<&Lane> {
    let of_kind = lanes.iter().filter(|lane| lane.side.kind == kind);
    of_kind.max_by(|a, b| a.spread().median.total_cmp(&b.spread().median))
}

/// A ratio of our side and another one.
type Ratio = fn(&Lane, &Lane) -> Option<Spread>;

/// The medians and the spreads of a ratio with the fastest side of each kind.
fn ratios(lanes: &[Lane], ratio: Ratio) -> (Map<String, Value>, Map<String, Value>) {
    let ours = best(lanes, Kind::Grantonce);
    let kinds = [
        ("batch_peer", Kind::Batch),
        ("pipelined_batch_peer", Kind::Pipelined),
        ("best_single_peer", Kind::Single),
        ("best_cte_peer", Kind::Cte),
        ("celery", Kind::Celery),
        ("combined_limit", Kind::Limit(Probe::Combined)),
    ];
    let of = kinds.map(|(name, kind)| (name.to_owned(), ours.and_then(|ours| ratio(ours, best(lanes, kind)?))));
    let medians = of.iter().map(|(name, spread)| (name.clone(), spread.map(|spread| round(spread.median, 2)).into()));
    let spreads = of.iter().map(|(name, spread)| (name.clone(), spread.map(|spread| spread.json(2)).into()));
    (medians.collect(), spreads.collect())
}

fn result(measured: &Measured, rounds: u32, about: Map<String, Value>) -> Value {
    let Measured { lanes, left_out } = measured;
    let rate = |lane: &Lane| round(lane.spread().median, 0);
    let (mut grantonce, mut peers, mut limits) = (Value::Null, Map::new(), Map::new());
    let mut sides = Map::new();
    for lane in lanes {
        let name = lane.side.name.to_owned();
        match lane.side.kind {
            Kind::Grantonce => grantonce = rate(lane).into(),
            Kind::Limit(_) => drop(limits.insert(name.clone(), rate(lane).into())),
            _ => drop(peers.insert(name.clone(), rate(lane).into())),
        }
        let of = |figure: fn(&Round) -> f64| Spread::of(lane.rounds.iter().map(figure)).unwrap();
        let cpu_us = |at: usize| median(lane.rounds.iter().map(|round| round.cpu_us[at])).map(|us| round(us, 1));
        let side = json!({
            "msgs_per_s": lane.spread().json(0),
            "messages": lane.messages.len(),
            "shortest_round_s": round(of(|round| round.seconds).min, 1),
            "cpu_us_per_message": {"program": cpu_us(0), "postgres": cpu_us(1), "rabbitmq": cpu_us(2)},
            "rss_max_mib": round(of(|round| round.rss_mib).max, 0),
            "first_done_ms": round(of(|round| round.first_done_ms).median, 0),
        });
        sides.insert(name, side);
    }
    let ((ratio_medians, ratio_spreads), (cpu_medians, cpu_spreads)) = (ratios(lanes, ratio), ratios(lanes, cpu_ratio));
    let mut result = Map::from_iter([("grantonce".to_owned(), grantonce)]);
    let figures = json!({
        "peers": peers, "left_out": LeftOut::json(left_out), "limits": limits, "ratios": ratio_medians,
        "cpu_ratios": cpu_medians, "n": rounds, "sides": sides, "ratio_spreads": ratio_spreads,
        "cpu_ratio_spreads": cpu_spreads,
    });
    result.extend(figures.as_object().cloned().unwrap());
    result.extend(about);
    result.into()
}

fn rows(lanes: &[Lane]) -> Vec<Vec<String>> {
    let head = [
        "side",
        "messages/s",
        "min",
        "max",
        "rate",
        "CPU",
        "CPU µs: program",
        "Postgres",
        "RabbitMQ",
        "together",
        "MiB",
    ];
    let ours = best(lanes, Kind::Grantonce);
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for lane in lanes {
        let spread = lane.spread();
        let cpu_us = |at: usize| cell(median(lane.rounds.iter().map(|round| round.cpu_us[at])), 1);
        let rss = Spread::of(lane.rounds.iter().map(|round| round.rss_mib)).unwrap().max;
        let beside = ours.filter(|ours| ours.side.name != lane.side.name);
        let beside = |ratio: Ratio| beside.map_or(String::new(), |ours| times(ratio(ours, lane)));
        rows.push(vec![
            lane.side.name.to_owned(),
            thousands(spread.median),
            thousands(spread.min),
            thousands(spread.max),
            beside(ratio),
            beside(cpu_ratio),
            cpu_us(0),
            cpu_us(1),
            cpu_us(2),
            cell(median(lane.rounds.iter().map(Round::cpu_us_in_all)), 1),
            if rss > 0.0 { format!("{rss:.0}") } else { String::new() },
        ]);
    }
    rows
}

fn plot(measured: &Measured, machine: &Value) -> String {
    let lanes = &measured.lanes;
    let mut sorted: Vec<&Lane> = lanes.iter().collect();
    sorted.sort_by(|a, b| b.spread().median.total_cmp(&a.spread().median));
    let bars: Vec<Bar> = sorted
        .into_iter()
        .map(|lane| {
            let (label, color) = match lane.side.kind {
                Kind::Grantonce => (lane.side.name.to_owned(), "#1f883d"),
                Kind::Limit(_) => {
                    (format!("limit: {} alone", lane.side.name).replace("combined alone", "both at once"), "#9a6700")
                }
                Kind::Footnote => (format!("{} (another queue)", lane.side.name), "#818b98"),
                _ => (lane.side.name.to_owned(), "#0969da"),
            };
            Bar { label, spread: lane.spread(), color }
        })
        .collect();
    let rounds = lanes.first().map_or(0, |lane| lane.rounds.len());
    let subtitle = format!(
        "medians of {rounds} rounds, least and greatest; broker, database and program share {} cores; quorum queue, fsync on",
        machine["cores"]
    );
    let left_out: Vec<_> = measured.left_out.iter().map(|peer| (peer.name, peer.why.as_str())).collect();
    chart::bars("Payment-status messages drained per second", &subtitle, &bars, &left_out)
}
