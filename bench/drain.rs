//! How fast a full queue is drained: the worker, its peers, and the machine's limits, side by side.

use crate::chart::{self, Bar};
use crate::cpu::Processes;
use crate::facts;
use crate::figures::{Spread, round, table, thousands};
use crate::peers;
use crate::places::{Servers, messages};
use crate::probes::Probe;
use crate::sides::{Kind, Round, Side};
use serde_json::{Map, Value, json};
use std::path::PathBuf;

/// Orders, unless a round needs more.
const ORDERS: u32 = 100_000;

/// These run one after the other, in this order: they are nearly as fast as each other, and a machine that others share
/// changes its speed by more than their difference while a dozen sides have their turn.
const ALIKE: [&str; 4] = ["go_pipelined", "grantonce", "combined", "go_batch"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Shorter rounds, two of them, and the fastest peers of each kind
    #[arg(long)]
    quick: bool,
    /// How often each side runs
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// How long a round takes at least; each side gets as many messages as that takes it
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// How many orders there are at least
    #[arg(long, default_value_t = ORDERS)]
    orders: u32,
    /// Only these sides, by name
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    only: Vec<String>,
    /// Where the peers are built
    #[arg(long, value_name = "DIR", default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/.dev/peers"))]
    peers: PathBuf,
    /// Draws the figures into this file
    #[arg(long, value_name = "FILE.svg")]
    plot: Option<PathBuf>,
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

/// All rounds of one side.
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

/// The rate of a side in each round, over that of another in the same round.
fn ratio(ours: &Lane, theirs: &Lane) -> Option<Spread> {
    Spread::of(ours.rates().zip(theirs.rates()).map(|(ours, theirs)| ours / theirs))
}

pub(crate) async fn drain(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let (ready, versions) = peers::of(&args.peers, args.quick);
    let taking_part = |side: &Side| args.only.is_empty() || args.only.iter().any(|name| name == side.name);
    let mut sides: Vec<Side> = ours().into_iter().chain(ready).filter(taking_part).collect();
    let alike = |side: &Side| ALIKE.iter().position(|name| *name == side.name).unwrap_or(ALIKE.len());
    sides.sort_by_key(alike);
    assert!(!sides.is_empty(), "none of these sides is known, or none of these peers is built");
    let processes = Processes::of(&servers).await;
    let (rounds, seconds) =
        if args.quick { (args.rounds.min(2), args.seconds.min(3)) } else { (args.rounds, args.seconds) };

    let lanes = measure(&servers, processes, sides, args.orders, rounds, seconds).await;
    let mut of_all = facts::versions(&servers).await;
    of_all.extend(versions);
    let machine = facts::machine(&servers).await;
    if let Some(file) = &args.plot {
        std::fs::write(file, plot(&lanes, &machine)).unwrap();
    }
    if json {
        println!("{}", result(&lanes, &machine, &of_all));
    } else {
        println!("{}", table(&rows(&lanes)));
        println!("machine: {machine}\nversions: {}", Value::Object(of_all));
    }
}

async fn measure(
    servers: &Servers,
    processes: Processes,
    sides: Vec<Side>,
    orders: u32,
    rounds: u32,
    seconds: u32,
) -> Vec<Lane> {
    // Nobody's figures: it warms everything up, and tells how many messages a side needs for a whole round.
    let small = servers.template(ORDERS).await;
    let mut lanes = vec![];
    for side in sides {
        let guess = messages(small.orders, side.first_guess);
        let first = side.round(servers, processes, &small, &guess).await;
        let wanted = (first.msgs_per_s * f64::from(seconds) * 1.1 / 1000.0).ceil() * 1000.0;
        eprintln!("warming up: {:24} {:>8} messages/s", side.name, thousands(first.msgs_per_s));
        lanes.push((side, (wanted as u32).max(2_000)));
    }
    let most = lanes.iter().map(|(_, count)| count - count / 10).max().unwrap_or(0);
    let template = match orders.max(most) {
        ORDERS => small,
        more => servers.template(more).await,
    };
    let mut lanes: Vec<Lane> = lanes
        .into_iter()
        .map(|(side, count)| Lane { side, messages: messages(template.orders, count), rounds: vec![] })
        .collect();
    for n in 1..=rounds {
        for lane in &mut lanes {
            let round = lane.side.round(servers, processes, &template, &lane.messages).await;
            eprintln!(
                "round {n}/{rounds}: {:24} {:>8} messages/s for {:.1} s; CPU a message: program {:.0}, Postgres {:.0}, RabbitMQ {:.0} µs",
                lane.side.name,
                thousands(round.msgs_per_s),
                round.seconds,
                round.cpu_us[0],
                round.cpu_us[1],
                round.cpu_us[2],
            );
            lane.rounds.push(round);
        }
    }
    lanes
}

/// The fastest side of a kind.
fn best(lanes: &[Lane], kind: Kind) -> Option<&Lane> {
    let of_kind = lanes.iter().filter(|lane| lane.side.kind == kind);
    of_kind.max_by(|a, b| a.spread().median.total_cmp(&b.spread().median))
}

fn ratios(lanes: &[Lane]) -> Vec<(&'static str, Option<Spread>)> {
    let ours = best(lanes, Kind::Grantonce);
    let kinds = [
        ("batch_peer", Kind::Batch),
        ("pipelined_batch_peer", Kind::Pipelined),
        ("best_single_peer", Kind::Single),
        ("best_cte_peer", Kind::Cte),
        ("celery", Kind::Celery),
        ("combined_limit", Kind::Limit(Probe::Combined)),
    ];
    kinds.into_iter().map(|(name, kind)| (name, ours.and_then(|ours| ratio(ours, best(lanes, kind)?)))).collect()
}

fn result(lanes: &[Lane], machine: &Value, versions: &Map<String, Value>) -> Value {
    let median = |lane: &Lane| round(lane.spread().median, 0);
    let (mut grantonce, mut peers, mut limits) = (Value::Null, Map::new(), Map::new());
    let mut sides = Map::new();
    for lane in lanes {
        let name = lane.side.name.to_owned();
        match lane.side.kind {
            Kind::Grantonce => grantonce = median(lane).into(),
            Kind::Limit(_) => drop(limits.insert(name.clone(), median(lane).into())),
            _ => drop(peers.insert(name.clone(), median(lane).into())),
        }
        let of = |figure: fn(&Round) -> f64| Spread::of(lane.rounds.iter().map(figure)).unwrap();
        let about = json!({
            "msgs_per_s": lane.spread().json(0),
            "messages": lane.messages.len(),
            "shortest_round_s": round(of(|round| round.seconds).min, 1),
            "cpu_us_per_message": {
                "program": round(of(|round| round.cpu_us[0]).median, 1),
                "postgres": round(of(|round| round.cpu_us[1]).median, 1),
                "rabbitmq": round(of(|round| round.cpu_us[2]).median, 1),
            },
            "rss_max_mib": round(of(|round| round.rss_mib).max, 0),
            "first_done_ms": round(of(|round| round.first_done_ms).median, 0),
        });
        sides.insert(name, about);
    }
    let (mut of_medians, mut spreads) = (Map::new(), Map::new());
    for (name, spread) in ratios(lanes) {
        of_medians.insert(name.to_owned(), spread.map(|spread| round(spread.median, 2)).into());
        spreads.insert(name.to_owned(), spread.map(|spread| spread.json(2)).into());
    }
    let rounds = lanes.first().map_or(0, |lane| lane.rounds.len());
    json!({
        "grantonce": grantonce, "peers": peers, "limits": limits, "ratios": of_medians, "n": rounds,
        "machine": machine, "versions": versions, "commit": facts::commit(), "sides": sides, "ratio_spreads": spreads,
    })
}

fn rows(lanes: &[Lane]) -> Vec<Vec<String>> {
    let head = ["side", "messages/s", "min", "max", "we are", "CPU µs: program", "Postgres", "RabbitMQ", "MiB"];
    let ours = best(lanes, Kind::Grantonce);
    let mut rows = vec![head.map(str::to_owned).to_vec()];
    for lane in lanes {
        let Spread { median, min, max } = lane.spread();
        let cpu = |at: usize| Spread::of(lane.rounds.iter().map(|round| round.cpu_us[at])).unwrap().median;
        let rss = Spread::of(lane.rounds.iter().map(|round| round.rss_mib)).unwrap().max;
        let times = ours.and_then(|ours| ratio(ours, lane)).filter(|_| lane.side.kind != Kind::Grantonce);
        rows.push(vec![
            lane.side.name.to_owned(),
            thousands(median),
            thousands(min),
            thousands(max),
            times.map_or(String::new(), |times| format!("{:.2} ×", times.median)),
            format!("{:.1}", cpu(0)),
            format!("{:.1}", cpu(1)),
            format!("{:.1}", cpu(2)),
            if rss > 0.0 { format!("{rss:.0}") } else { String::new() },
        ]);
    }
    rows
}

fn plot(lanes: &[Lane], machine: &Value) -> String {
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
    chart::bars("Payment-status messages drained per second", &subtitle, &bars)
}
