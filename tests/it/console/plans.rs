//! Many letters: pages come by indexes, however many were settled before.

use super::server::{ADA, Console, Visitor};
use crate::support::eventually;
use std::time::Instant;

/// As many open letters, and many more that are settled, each with a body as webhooks have it, and read as the collector reads
/// them: what it still had to read would be looked for while the statistics are counted.
async fn fill(console: &Console, open: usize, settled: usize) {
    for (state, count) in [("open", open), ("resolved", settled)] {
        let rows = format!(
            "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause,
                 detail, origin, attempts, provider, payment_id, said, state, state_at, first_seen_at, last_seen_at, verdict, checked_at,
                 is_read, payment_ids, said_type, said_state, amount_minor, currency)
             SELECT gen_random_uuid(), 'stripe::evt_' || n, 'payment-status.v1', 'payment.stripe', '{{}}',
                 convert_to(repeat(md5(n::text), 40), 'UTF8'),
                 1280, (ARRAY['unknown_payment', 'amount_mismatch', 'delivery_limit'])[1 + n % 3], 'cause ' || n % 40,
                 'no order has payment pi_' || n || ' at stripe', 'worker', 4,
                 'stripe', 'pi_' || n, 'captured 19.99 USD', '{state}',
                 now() - n * interval '1 second', now() - n * interval '1 second', now(), 'order_unknown', now(),
                 true, ARRAY['pi_' || n], 'captured', 'succeeded', 1999, 'USD'
             FROM generate_series(1, {count}) n"
        );
        console.world.execute(&rows).await;
    }
    console.world.execute("ANALYZE dead_letters").await;
}

async fn figure(console: &Console, sql: &str) -> i64 {
    console.world.count(sql).await
}

#[tokio::test]
async fn settled_letters_do_not_make_pages_slow() {
    let console = Console::start().await;
    fill(&console, 500, 20_000).await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    let whole = "SELECT seq_scan FROM pg_stat_user_tables WHERE relname = 'dead_letters'";
    let by_index = "SELECT coalesce(sum(idx_scan), 0)::bigint FROM pg_stat_user_indexes WHERE relname = 'dead_letters'";
    // Statistics come a moment after what they count: those of the filling first.
    eventually("the filling is counted", async || figure(&console, whole).await > 0).await;
    let (whole_before, index_before) = (figure(&console, whole).await, figure(&console, by_index).await);
    const VISITS: i64 = 8;
    for _ in 0..VISITS {
        for path in ["/dead-letters", "/dead-letters?reason=amount_mismatch", "/"] {
            assert_eq!(ada.get(path).await.status, 200);
        }
    }
    eventually("index scans are counted", async || figure(&console, by_index).await >= index_before + 30).await;
    // A scan of before, while the table was not analysed yet, may be counted late. A page that reads the table does so each time.
    let scans = figure(&console, whole).await - whole_before;
    assert!(scans < VISITS, "the whole table was read {scans} times");
}

/// Figures for the record, of this machine: `cargo test … -- --ignored --nocapture ten_thousand`.
#[tokio::test]
#[ignore = "measures"]
async fn ten_thousand_letters() {
    let console = Console::start().await;
    fill(&console, 10_000, 100_000).await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    for path in [
        "/v1/dead-letters",
        "/v1/dead-letters/groups",
        "/dead-letters",
        "/dead-letters?reason=unknown_payment",
        "/dead-letters?text=pi_777",
        "/dead-letters?payment=pi_777",
        "/",
    ] {
        let mut took = vec![];
        for _ in 0..20 {
            let begun = Instant::now();
            let answer = ada.call(reqwest::Method::GET, path, ADA, None).await;
            assert_eq!(answer.status, 200);
            took.push(begun.elapsed().as_secs_f64() * 1e3);
        }
        took.sort_by(f64::total_cmp);
        eprintln!("{path}: median {:.0} ms, slowest {:.0} ms", took[10], took[19]);
    }
}
