//! Whether a worker slows down as the inbox and the ledger grow: the same drain with many rows in them, and with none.

use crate::cpu::Processes;
use crate::facts;
use crate::figures::{Spread, cell, round, table, thousands, times};
use crate::places::{Place, Servers, connect, messages_from, run};
use crate::sides::{Round, Side};
use serde_json::{Map, Value, json};
use std::time::Instant;

/// How long inbox rows are kept by default, in days. The rows are spread over as many partitions.
const DAYS: u32 = 90;

/// The number of accounts for each million of old grants.
const ACCOUNTS_PER_MILLION: u32 = 100_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Millions of rows in the inbox and in the ledger; one run for each number
    #[arg(long, value_name = "N,N,…", value_delimiter = ',', default_value = "1,10,50")]
    millions: Vec<u32>,
    /// Rounds for each number of rows, by turns with a database that has none
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Messages in a round
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    messages: u32,
}

/// The figures for one number of rows.
struct Level {
    millions: u32,
    empty: Vec<Round>,
    grown: Vec<Round>,
}

impl Level {
    fn rate(rounds: &[Round]) -> Spread {
        Spread::of(rounds.iter().map(|round| round.msgs_per_s)).unwrap()
    }

    /// The rate with the rows over the rate without them.
    fn ratio(&self) -> Option<Spread> {
        let rates = |rounds: &[Round]| rounds.iter().map(|round| Some(round.msgs_per_s)).collect::<Vec<_>>();
        Spread::of_ratio(rates(&self.grown), rates(&self.empty))
    }

    /// The processor time a message without the rows over that with them.
    fn cpu_ratio(&self) -> Option<Spread> {
        Spread::of_ratio(self.empty.iter().map(Round::cpu_us_in_all), self.grown.iter().map(Round::cpu_us_in_all))
    }
}

pub(crate) async fn growth(args: &Args, json: bool) {
    let servers = Servers::of_environment();
    let processes = Processes::of(&servers).await;
    let each = args.messages;
    let template = servers.template(each * (args.rounds + 1)).await;
    let worker = Side::grantonce();
    let mut millions = args.millions.clone();
    millions.sort_unstable();

    let grown = servers.place(&template).await;
    let (mut there, mut levels) = (0, vec![]);
    for target in millions {
        let began = Instant::now();
        grow(&grown, there, target).await;
        there = target;
        eprintln!("{target} million rows stand after {:.0} s; {}", began.elapsed().as_secs_f64(), sizes(&grown).await);
        // Each round has orders of its own. The large database keeps its rows, the empty one is made anew.
        let empty = servers.place(&template).await;
        let (mut with, mut without) = (vec![], vec![]);
        for n in 0..=args.rounds {
            let some = messages_from(n * each, each);
            for (place, rounds) in [(&empty, &mut without), (&grown, &mut with)] {
                let done = worker.drain(place, processes, &some).await.unwrap();
                let what = if std::ptr::eq(place, &raw const grown) {
                    format!("{target} million rows")
                } else {
                    "empty".to_owned()
                };
                eprintln!(
                    "{}: {what:18} {:>8} messages/s; CPU a message: worker {}, Postgres {} µs",
                    if n == 0 { "warming up".to_owned() } else { format!("round {n}/{}", args.rounds) },
                    thousands(done.msgs_per_s),
                    cell(done.cpu_us[0], 0),
                    cell(done.cpu_us[1], 0)
                );
                if n > 0 {
                    rounds.push(done);
                }
            }
        }
        empty.remove().await;
        reset(&grown).await;
        levels.push(Level { millions: target, empty: without, grown: with });
    }
    grown.remove().await;
    report(facts::about(&servers, processes, Map::new()).await, &levels, args, json);
}

fn report(about: Map<String, Value>, levels: &[Level], args: &Args, json: bool) {
    if json {
        let of = levels.iter().map(|level| {
            let figures = json!({
                "empty_msgs_per_s": Level::rate(&level.empty).json(0), "grown_msgs_per_s": Level::rate(&level.grown).json(0),
                "ratio": level.ratio().map(|ratio| ratio.json(2)), "cpu_ratio": level.cpu_ratio().map(|ratio| ratio.json(2)),
            });
            (level.millions.to_string(), figures)
        });
        let of: Map<String, Value> = of.collect();
        let medians = |ratio: fn(&Level) -> Option<Spread>| -> Map<String, Value> {
            let median = |level| ratio(level).map(|ratio| round(ratio.median, 2));
            levels.iter().map(|level| (level.millions.to_string(), median(level).into())).collect()
        };
        let mut result = about;
        let figures = json!({"ratios": medians(Level::ratio), "cpu_ratios": medians(Level::cpu_ratio), "million_rows": of,
                             "n": args.rounds, "messages": args.messages});
        result.extend(figures.as_object().cloned().unwrap());
        println!("{}", Value::Object(result));
    } else {
        let head = ["million rows", "messages/s without", "with them", "rate", "min", "max", "CPU"];
        let mut rows = vec![head.map(str::to_owned).to_vec()];
        for level in levels {
            let ratio = level.ratio();
            rows.push(vec![
                level.millions.to_string(),
                thousands(Level::rate(&level.empty).median),
                thousands(Level::rate(&level.grown).median),
                times(ratio),
                cell(ratio.map(|ratio| ratio.min), 2),
                cell(ratio.map(|ratio| ratio.max), 2),
                times(level.cpu_ratio()),
            ]);
        }
        println!("{}", table(&rows));
        println!(
            "rate: messages a second with the rows over those without. CPU: processor time a message without over with."
        );
        println!("In both, below 1 means that the rows make the drain slower.");
    }
}

/// Adds messages of the last ninety days and their grants, until there are `to` million rows instead of `from`.
async fn grow(place: &Place, from: u32, to: u32) {
    let (from, to) = (u64::from(from) * 1_000_000, u64::from(to) * 1_000_000);
    if from == to {
        return;
    }
    let mut sql = connect(&place.database_url).await;
    run(&mut sql, "SET synchronous_commit = off".to_owned()).await;
    run(&mut sql, "SET maintenance_work_mem = '1GB'".to_owned()).await;
    run(
        &mut sql,
        format!(
            "SELECT inbox_maintain((now() AT TIME ZONE 'UTC')::date - day, 36500) FROM generate_series(0, {DAYS}) AS day"
        ),
    )
    .await;
    let per_day = (to - from) / u64::from(DAYS);
    for day in 0..DAYS {
        let first = from + u64::from(day) * per_day;
        let last = if day + 1 == DAYS { to } else { first + per_day };
        run(
            &mut sql,
            format!(
                "INSERT INTO inbox (event_day, message_id, fact_digest, order_id, admitted_at, said)
                 SELECT (now() AT TIME ZONE 'UTC')::date - {day}, 'stripe::evt_' || md5(n::text), '\\x00112233445566778899aabbccddeeff',
                        ('0190' || lpad(to_hex(n), 8, '0') || '7000800000000000' || lpad(to_hex(n % 65536), 4, '0'))::uuid,
                        now() - interval '{day} days', 'captured'
                 FROM generate_series({first}::bigint, {last}::bigint - 1) AS n"
            ),
        )
        .await;
    }
    let accounts = to / 1_000_000 * u64::from(ACCOUNTS_PER_MILLION);
    run(
        &mut sql,
        format!(
            "INSERT INTO credit_grants (order_id, account_id, credits, message_id, granted_at)
             SELECT ('0190' || lpad(to_hex(n), 8, '0') || '7000800000000000' || lpad(to_hex(n % 65536), 4, '0'))::uuid,
                    'account-' || (n * 7919 % {accounts}), 100, 'stripe::evt_' || md5(n::text),
                    now() - ({to}::bigint - n) * interval '0.15 seconds'
             FROM generate_series({from}::bigint, {to}::bigint - 1) AS n"
        ),
    )
    .await;
    for statement in ["VACUUM ANALYZE inbox", "VACUUM ANALYZE credit_grants", "CHECKPOINT"] {
        run(&mut sql, statement.to_owned()).await;
    }
}

/// Resets the orders that were paid, so that they can be paid again.
async fn reset(place: &Place) {
    let mut sql = connect(&place.database_url).await;
    for statement in [
        "DELETE FROM inbox WHERE message_id LIKE 'stripe::evt\\_000%'",
        "ALTER TABLE credit_grants DISABLE TRIGGER append_only",
        "DELETE FROM credit_grants g USING orders o WHERE o.id = g.order_id",
        "ALTER TABLE credit_grants ENABLE TRIGGER append_only",
        "UPDATE orders SET status = 'awaiting_payment', is_granted = false, credits_granted = 0, facts = '{}'",
        "VACUUM FULL orders",
        "VACUUM ANALYZE",
        "CHECKPOINT",
    ] {
        run(&mut sql, statement.to_owned()).await;
    }
}

async fn sizes(place: &Place) -> String {
    let mut sql = connect(&place.database_url).await;
    let (inbox, grants): (i64, i64) = sqlx::query_as(
        "SELECT (SELECT sum(pg_total_relation_size(inhrelid))::bigint FROM pg_inherits WHERE inhparent = 'inbox'::regclass),
                pg_total_relation_size('credit_grants')",
    )
    .fetch_one(&mut sql)
    .await
    .unwrap();
    let gib = |bytes: i64| bytes as f64 / 1024.0 / 1024.0 / 1024.0;
    format!("inbox {:.1} GiB, ledger {:.1} GiB", gib(inbox), gib(grants))
}
