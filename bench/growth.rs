//! Whether a worker slows down as the inbox and the ledger grow: the same drain beside so many million rows, and beside none.

use crate::cpu::Processes;
use crate::facts;
use crate::figures::{Spread, round, table, thousands};
use crate::places::{Place, Servers, connect, messages_from, run};
use crate::sides::Side;
use serde_json::{Map, Value, json};
use std::time::Instant;

/// How long inbox rows are kept by default, in days: the rows spread over as many partitions.
const DAYS: u32 = 90;

/// How many accounts the old grants belong to, for each million of grants.
const ACCOUNTS_PER_MILLION: u32 = 100_000;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Millions of rows in the inbox, and in the ledger, one run each
    #[arg(long, value_delimiter = ',', default_values_t = [1, 10, 50])]
    millions: Vec<u32>,
    /// How often each is drained, in turn with an empty one
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..))]
    rounds: u32,
    /// Messages a round
    #[arg(long, default_value_t = 200_000, value_parser = clap::value_parser!(u32).range(1_000..))]
    messages: u32,
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
        // A fresh pair of places for the orders; the grown one keeps its rows, and each round takes orders of its own.
        let empty = servers.place(&template).await;
        let (mut with, mut without) = (vec![], vec![]);
        for n in 0..=args.rounds {
            let some = messages_from(n * each, each);
            for (place, rates) in [(&empty, &mut without), (&grown, &mut with)] {
                let done = worker.drain(place, processes, &some).await;
                let what = if std::ptr::eq(place, &raw const grown) {
                    format!("{target} million rows")
                } else {
                    "empty".to_owned()
                };
                eprintln!(
                    "{}: {what:18} {:>8} messages/s; CPU a message: worker {:.0}, Postgres {:.0} µs",
                    if n == 0 { "warming up".to_owned() } else { format!("round {n}/{}", args.rounds) },
                    thousands(done.msgs_per_s),
                    done.cpu_us[0],
                    done.cpu_us[1]
                );
                if n > 0 {
                    rates.push(done.msgs_per_s);
                }
            }
        }
        empty.remove().await;
        reset(&grown).await;
        let ratio = Spread::of(with.iter().zip(&without).map(|(with, without)| with / without)).unwrap();
        levels.push((target, Spread::of(without).unwrap(), Spread::of(with).unwrap(), ratio));
    }
    grown.remove().await;
    report(&servers, &levels, args, json).await;
}

async fn report(servers: &Servers, levels: &[(u32, Spread, Spread, Spread)], args: &Args, json: bool) {
    if json {
        let of: Map<String, Value> = levels
            .iter()
            .map(|(millions, empty, grown, ratio)| {
                let level = json!({"empty_msgs_per_s": empty.json(0), "grown_msgs_per_s": grown.json(0), "ratio": ratio.json(2)});
                (millions.to_string(), level)
            })
            .collect();
        let ratios: Map<String, Value> =
            levels.iter().map(|(millions, .., ratio)| (millions.to_string(), round(ratio.median, 2).into())).collect();
        let (machine, versions) = (facts::machine(servers).await, facts::versions(servers).await);
        println!(
            "{}",
            json!({"ratios": ratios, "million_rows": of, "n": args.rounds, "messages": args.messages, "machine": machine,
                   "versions": versions, "commit": facts::commit()})
        );
    } else {
        let mut rows =
            vec![["million rows", "beside none", "beside them", "ratio", "min", "max"].map(str::to_owned).to_vec()];
        for (millions, empty, grown, ratio) in levels {
            rows.push(vec![
                millions.to_string(),
                thousands(empty.median),
                thousands(grown.median),
                format!("{:.2}", ratio.median),
                format!("{:.2}", ratio.min),
                format!("{:.2}", ratio.max),
            ]);
        }
        println!("{}", table(&rows));
    }
}

/// Adds rows, from so many millions to so many: messages of the last ninety days, and their grants.
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

/// Takes the orders that were paid back to where they began, so that they can be paid again.
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
