//! The memory of an idle and of a busy worker, the size of the binary, and the time from start to the first message.

use crate::cpu::Processes;
use crate::facts;
use crate::figures::{Spread, table};
use crate::places::{Servers, messages};
use crate::sides::{Side, environment, rss_kib};
use serde_json::{Map, Value};
use std::time::Duration;

const START_DEADLINE: Duration = Duration::from_secs(20);

/// How long a worker is idle before its memory is read.
const IDLE: Duration = Duration::from_secs(5);

const MESSAGES: u32 = 100_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Number of starts
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
}

pub(crate) async fn footprint(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let processes = Processes::of(&servers).await;
    let template = servers.template(MESSAGES).await;
    let all = messages(MESSAGES, MESSAGES);
    let (mut idle, mut busy, mut first) = (vec![], vec![], vec![]);
    for _ in 0..args.rounds {
        let place = servers.place(&template).await;
        let logs = tempfile::tempdir().unwrap();
        let mut worker = environment(&place, logs.path().into()).start("worker", &["worker"]).await.unwrap();
        worker.consuming(START_DEADLINE).await.unwrap();
        tokio::time::sleep(IDLE).await;
        idle.push(rss_kib(worker.pid().unwrap()) as f64 / 1024.0);
        worker.terminate(Duration::from_secs(10)).await.unwrap();
        let round = Side::grantonce().drain(&place, processes, &all).await.unwrap();
        busy.push(round.rss_mib);
        first.push(round.first_done_ms);
        place.remove().await;
    }
    let figures = [
        ("rss_idle_mib", Spread::of(idle).unwrap()),
        ("rss_busy_mib", Spread::of(busy).unwrap()),
        ("start_to_first_ack_ms", Spread::of(first).unwrap()),
        ("binary_mib", Spread::of([facts::mib(env!("CARGO_BIN_EXE_grantonce"))]).unwrap()),
    ];
    if json {
        let mut result: Map<String, Value> =
            figures.iter().map(|(name, spread)| ((*name).to_owned(), spread.json(1))).collect();
        result.insert("n".to_owned(), args.rounds.into());
        result.extend(facts::about(&servers, processes, Map::new()).await);
        println!("{}", Value::Object(result));
    } else {
        let mut rows = vec![["", "median", "min", "max"].map(str::to_owned).to_vec()];
        for (name, Spread { median, min, max }) in figures {
            rows.push(vec![name.to_owned(), format!("{median:.1}"), format!("{min:.1}"), format!("{max:.1}")]);
        }
        println!("{}", table(&rows));
    }
}
