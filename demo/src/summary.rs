//! What a headless run comes to.

use serde::Serialize;
use std::fmt;
use std::time::Duration;

/// The summary of a headless run. `--json` prints exactly this, the fields under these names.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Summary {
    /// Orders that were to be sold.
    pub(crate) orders: u32,
    /// Webhooks that went out: every copy of every event, each counted once however often it was tried.
    pub(crate) webhooks_sent: u64,
    /// Webhooks that were answered 2xx in the end.
    pub(crate) webhooks_accepted: u64,
    /// Those of the webhooks sent that were a copy of an earlier one.
    pub(crate) duplicates_sent: u64,
    /// Grants in the ledger's table.
    pub(crate) grants: u64,
    /// Orders that were paid.
    pub(crate) grants_expected: u64,
    /// Orders that were paid and whose credits are missing, wholly or in part, or did not show in time.
    pub(crate) lost: u64,
    /// Orders, or accounts, with more credits than were paid for.
    pub(crate) doubled: u64,
    /// Orders, or accounts, with credits that nobody paid for.
    pub(crate) invented: u64,
    /// Messages in the dead-letter queue; none where nobody can be asked.
    pub(crate) dead_letters: Option<u64>,
    /// Half of the paid orders took at most so long from the first "paid" webhook until `fulfilled` was seen.
    pub(crate) p50_ms: Option<f64>,
    /// 99 of 100 took at most so long.
    pub(crate) p99_ms: Option<f64>,
    /// From the first order's begin to the last one's end.
    pub(crate) elapsed_s: f64,
    /// Webhooks that were never sent, where that was asked for: every copy of every event of the payments chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) webhooks_dropped: Option<u64>,
    /// Workers that were killed on the way, where that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) worker_kills: Option<u64>,
    /// The phase at a steady rate, which follows the phase under load; none where it was not asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) steady: Option<Steady>,
}

/// The phase at a steady rate. Every buyer pays after the order is placed, and every payment has its webhooks.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(crate) struct Steady {
    /// The rate that was asked for.
    pub(crate) orders_per_s: u32,
    /// Orders of this phase.
    pub(crate) orders: u32,
    /// Like the field of the summary, at the end of both phases.
    pub(crate) lost: u64,
    /// Like the field of the summary, at the end of both phases.
    pub(crate) doubled: u64,
    /// Like the field of the summary, at the end of both phases.
    pub(crate) invented: u64,
    /// The median wait from the first "paid" webhook until `fulfilled` was seen.
    pub(crate) p50_ms: Option<f64>,
    /// 99 of 100 buyers waited at most so long.
    pub(crate) p99_ms: Option<f64>,
    /// From the first order's begin to the last one's end.
    pub(crate) elapsed_s: f64,
}

impl Summary {
    /// Whether every payment granted its credits exactly once.
    pub(crate) fn is_clean(&self) -> bool {
        let faults = |lost, doubled, invented| lost + doubled + invented;
        let steady = self.steady.as_ref().map_or(0, |steady| faults(steady.lost, steady.doubled, steady.invented));
        faults(self.lost, self.doubled, self.invented) + steady == 0
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let known = |value: Option<String>| value.unwrap_or_else(|| "unknown".to_owned());
        let ms = |value: Option<f64>| known(value.map(|ms| format!("{ms} ms")));
        let mut rows = vec![
            ("orders", self.orders.to_string()),
            ("webhooks sent", self.webhooks_sent.to_string()),
            ("  of them duplicates", self.duplicates_sent.to_string()),
            ("  accepted", self.webhooks_accepted.to_string()),
            ("paid orders", self.grants_expected.to_string()),
            ("grants", self.grants.to_string()),
            ("lost", self.lost.to_string()),
            ("doubled", self.doubled.to_string()),
            ("invented", self.invented.to_string()),
            ("dead letters", known(self.dead_letters.map(|count| count.to_string()))),
            ("paid → fulfilled, median", ms(self.p50_ms)),
            ("paid → fulfilled, 99 %", ms(self.p99_ms)),
            ("elapsed", format!("{} s", self.elapsed_s)),
        ];
        if let Some(dropped) = self.webhooks_dropped {
            rows.insert(4, ("webhooks never sent", dropped.to_string()));
        }
        if let Some(kills) = self.worker_kills {
            rows.push(("workers killed", kills.to_string()));
        }
        let Self { orders, elapsed_s, .. } = self;
        writeln!(
            f,
            "Under load: {orders} orders as fast as possible took {elapsed_s} s, {:.0} a second. Buyers waited in a queue.",
            f64::from(*orders) / elapsed_s.max(0.01)
        )?;
        for (name, value) in rows {
            writeln!(f, "{name:<26} {value:>12}")?;
        }
        if let Some(steady) = &self.steady {
            let Steady { orders_per_s, orders, lost, doubled, invented, elapsed_s, .. } = steady;
            writeln!(
                f,
                "At a steady {orders_per_s} orders a second: {orders} orders in {elapsed_s} s.\n\
                 Half of the buyers had their credits within {} of the first webhook, and 99 of 100 within {}.\n\
                 After both phases, {lost} orders were lost, {doubled} doubled, {invented} invented.",
                ms(steady.p50_ms),
                ms(steady.p99_ms)
            )?;
        }
        let verdict = if self.is_clean() { "exactly once: yes" } else { "exactly once: NO" };
        writeln!(f, "{verdict}")
    }
}

/// The smallest latency that `percent` of 100 do not exceed (nearest rank), in milliseconds with one decimal.
pub(crate) fn percentile_ms(sorted: &[Duration], percent: usize) -> Option<f64> {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).map(|latency| (latency.as_secs_f64() * 10_000.0).round() / 10.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> Summary {
        Summary {
            orders: 10,
            webhooks_sent: 31,
            webhooks_accepted: 31,
            duplicates_sent: 20,
            grants: 9,
            grants_expected: 9,
            lost: 0,
            doubled: 0,
            invented: 0,
            dead_letters: None,
            p50_ms: Some(12.5),
            p99_ms: Some(210.0),
            elapsed_s: 1.25,
            webhooks_dropped: None,
            worker_kills: None,
            steady: None,
        }
    }

    fn steady() -> Steady {
        let (p50_ms, p99_ms) = (Some(11.5), Some(40.0));
        Steady { orders_per_s: 50, orders: 500, lost: 0, doubled: 0, invented: 0, p50_ms, p99_ms, elapsed_s: 10.02 }
    }

    #[test]
    fn the_json_has_the_names_that_were_promised_in_that_order() {
        let json = serde_json::to_string(&summary()).unwrap();
        assert_eq!(
            json,
            r#"{"orders":10,"webhooks_sent":31,"webhooks_accepted":31,"duplicates_sent":20,"grants":9,"#.to_owned()
                + r#""grants_expected":9,"lost":0,"doubled":0,"invented":0,"dead_letters":null,"p50_ms":12.5,"#
                + r#""p99_ms":210.0,"elapsed_s":1.25}"#
        );
        let json = serde_json::to_value(Summary { steady: Some(steady()), ..summary() }).unwrap();
        assert_eq!((&json["steady"]["orders_per_s"], &json["steady"]["p50_ms"]), (&50.into(), &11.5.into()));
    }

    #[test]
    fn one_fault_is_enough() {
        assert!(summary().is_clean());
        assert!(summary().to_string().ends_with("exactly once: yes\n"));
        for bad in [
            Summary { lost: 1, ..summary() },
            Summary { doubled: 1, ..summary() },
            Summary { invented: 1, ..summary() },
            Summary { steady: Some(Steady { lost: 1, ..steady() }), ..summary() },
        ] {
            assert!(!bad.is_clean());
            assert!(bad.to_string().ends_with("exactly once: NO\n"));
        }
    }

    #[test]
    fn both_phases_are_told_in_sentences() {
        let text = Summary { steady: Some(steady()), ..summary() }.to_string();
        for sentence in [
            "Under load: 10 orders as fast as possible took 1.25 s, 8 a second.",
            "At a steady 50 orders a second: 500 orders in 10.02 s.",
            "Half of the buyers had their credits within 11.5 ms of the first webhook, and 99 of 100 within 40 ms.",
        ] {
            assert!(text.contains(sentence), "{text}");
        }
    }

    #[test]
    fn percentiles_are_by_nearest_rank() {
        let ms: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(percentile_ms(&ms, 50), Some(100.0));
        assert_eq!(percentile_ms(&ms, 99), Some(198.0));
        assert_eq!(percentile_ms(&ms[..1], 99), Some(1.0));
        assert_eq!(percentile_ms(&ms[..1], 0), Some(1.0));
        assert_eq!(percentile_ms(&[], 50), None);
    }
}
