//! After the run: is everything where the payments say it must be? Asked of the API and of the tables, and the two have
//! to agree.

use crate::api::Api;
use crate::headless::{Sales, Sold};
use crate::witness::{Holding, Witness, WitnessError};
use futures_util::StreamExt;
use grantonce_testkit::provider::Provider;
use grantonce_testkit::provider::payment::Seller;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;
use tokio::time::{Instant, interval, sleep_until};

/// How long all webhooks may take to be delivered in the end, the ones that wait for their next try included.
const DELIVERY_DEADLINE: Duration = Duration::from_secs(240);

/// How long the last message may take through the queue.
const QUEUE_DEADLINE: Duration = Duration::from_secs(120);

/// How long the ledger must not have changed to count as settled, and how long it may take until then.
const QUIET: Duration = Duration::from_secs(1);
const QUIET_DEADLINE: Duration = Duration::from_secs(60);

/// How often a table is read while we wait for it to say something.
const READ_EVERY: Duration = Duration::from_millis(200);

/// How long one balance may take.
const BALANCE_DEADLINE: Duration = Duration::from_secs(30);

/// How many balances are asked for at the same time.
const BALANCES_IN_FLIGHT: usize = 16;

/// What the audit found. Every fault stands in `remarks` in a sentence.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Findings {
    pub(crate) grants: u64,
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) invented: u64,
    pub(crate) remarks: Vec<String>,
}

/// Waits until nothing is under way any more: no webhook, no message in the queue, none that waits for its next
/// attempt (`retry_longest`). Only then a late copy can no longer grant anything unseen. Gives what kept it from that.
pub(crate) async fn settle(
    provider: &Provider,
    witness: Option<&Witness>,
    sales: &Sales,
    retry_longest: Duration,
) -> Vec<String> {
    let mut remarks = Vec::new();
    if !provider.is_idle(DELIVERY_DEADLINE).await {
        let trouble = provider.last_trouble().unwrap_or_else(|| "no trouble was told".to_owned());
        remarks.push(format!("webhooks are still under way; last: {trouble}"));
    }
    let given_up = provider.counts().given_up;
    if given_up > 0 {
        let trouble = provider.last_trouble().unwrap_or_default();
        remarks.push(format!("{given_up} webhooks were never accepted; last: {trouble}"));
    }
    if let Some(witness) = witness
        && let Err(remark) = last_message_is_through(provider, witness, &sales.sold).await
    {
        remarks.push(remark);
    }
    if let Some(at) = sales.last_overtaken_at {
        sleep_until(at + retry_longest + QUIET).await;
    }
    if let Some(witness) = witness
        && let Err(error) = is_quiet(witness).await
    {
        remarks.push(error.to_string());
    }
    remarks
}

/// The work queue is first in, first out: once a last, harmless message is in the inbox, a worker has taken all that
/// came before it.
async fn last_message_is_through(provider: &Provider, witness: &Witness, sold: &[Sold]) -> Result<(), String> {
    // Of one whose webhooks are sent at all. Where none are, nothing is in the queue but what was asked for, and of that
    // every order has been told.
    let finished = sold.iter().find(|sold| sold.is_paid && sold.unfinished.is_none() && !sold.plan.is_silent);
    let Some(payment_id) = finished.and_then(|sold| sold.payment_id.as_ref()) else { return Ok(()) };
    let event_id = provider.report_once_more(payment_id).await.map_err(|error| error.to_string())?;
    let Some(event_id) = event_id else { return Err("the receiver did not accept the last webhook".to_owned()) };
    let ends_at = Instant::now() + QUEUE_DEADLINE;
    let mut ticks = interval(READ_EVERY);
    loop {
        ticks.tick().await;
        if witness.has_admitted(&event_id).await.map_err(|error| error.to_string())? {
            return Ok(());
        }
        if Instant::now() > ends_at {
            let waited_s = QUEUE_DEADLINE.as_secs();
            return Err(format!("the last message ({event_id}) is not in the inbox after {waited_s} s"));
        }
    }
}

async fn is_quiet(witness: &Witness) -> Result<(), WitnessError> {
    let ends_at = Instant::now() + QUIET_DEADLINE;
    let mut ticks = interval(READ_EVERY);
    let mut seen = None;
    let mut since = Instant::now();
    while since.elapsed() < QUIET && Instant::now() < ends_at {
        ticks.tick().await;
        let postings = Some(witness.postings().await?);
        if postings != seen {
            (seen, since) = (postings, Instant::now());
        }
    }
    Ok(())
}

/// Reads balances and tables, and compares.
pub(crate) async fn audit(api: &Api, witness: Option<&Witness>, sold: &[Sold]) -> Findings {
    let accounts: BTreeSet<&str> = sold.iter().map(|sold| sold.plan.account_id.as_str()).collect();
    let balances = futures_util::stream::iter(accounts)
        .map(|account| async move {
            let balance = api.balance(account, BALANCE_DEADLINE).await.map_err(|error| error.to_string());
            (account.to_owned(), balance)
        })
        .buffer_unordered(BALANCES_IN_FLIGHT)
        .collect()
        .await;
    let mut unread = None;
    let holdings = match witness {
        None => None,
        Some(witness) => match witness.holdings().await {
            Ok(holdings) => Some(holdings),
            Err(error) => {
                unread = Some(error.to_string());
                None
            }
        },
    };
    let mut findings = judge(sold, holdings.as_deref(), &balances);
    findings.remarks.extend(unread);
    findings
}

/// Compares what was paid with what is held. Pure.
fn judge(sold: &[Sold], holdings: Option<&[Holding]>, balances: &BTreeMap<String, Result<i64, String>>) -> Findings {
    let mut findings = Findings::default();
    // What each account must have: by the table where there is one, which is itself compared with the payments.
    let mut expected: BTreeMap<&str, i64> = sold.iter().map(|sold| (sold.plan.account_id.as_str(), 0)).collect();
    let mut excused: BTreeSet<&str> = BTreeSet::new();

    let mut by_order: HashMap<&str, &Holding> = HashMap::new();
    for holding in holdings.unwrap_or_default() {
        by_order.insert(&holding.order_id, holding);
        *expected.entry(&holding.account_id).or_default() += holding.credits;
    }
    findings.grants = match holdings {
        Some(holdings) => count(holdings.len()),
        None => count(sold.iter().filter(|sold| sold.is_fulfilled).count()),
    };

    for sold in sold {
        let name = Name(sold);
        let due = sold.credits_due();
        if let Some(why) = &sold.unfinished {
            findings.lost += 1;
            findings.remarks.push(format!("lost: {name}: {why}"));
            excused.insert(&sold.plan.account_id);
        }
        if holdings.is_none() {
            *expected.entry(&sold.plan.account_id).or_default() += due;
            continue;
        }
        let id = sold.order_id.map(|id| id.to_string()).unwrap_or_default();
        let held = by_order.remove(id.as_str());
        let credits = held.map_or(0, |held| held.credits);
        if let Some(held) = held.filter(|held| held.account_id != sold.plan.account_id) {
            findings.invented += 1;
            findings.remarks.push(format!("invented: {name}: its {credits} credits went to {}", held.account_id));
        } else if credits < due && sold.unfinished.is_none() {
            findings.lost += 1;
            findings.remarks.push(format!("lost: {name}: the ledger holds {credits} of {due} credits"));
        } else if credits > due && due > 0 {
            findings.doubled += 1;
            findings.remarks.push(format!("doubled: {name}: the ledger holds {credits} for {due} credits"));
        } else if credits > due {
            findings.invented += 1;
            findings.remarks.push(format!("invented: {name}: nobody paid, the ledger holds {credits} credits"));
        }
    }
    for stranger in by_order.values() {
        findings.invented += 1;
        findings.remarks.push(format!("invented: a grant for order {}, which was never placed", stranger.order_id));
    }

    for (account, expected) in expected {
        let text = match balances.get(account) {
            Some(Ok(balance)) if *balance == expected => continue,
            Some(Ok(balance)) if *balance > expected => {
                let kind = if expected > 0 { &mut findings.doubled } else { &mut findings.invented };
                *kind += 1;
                format!("the API shows {balance} credits, {expected} are due")
            }
            // An order of this account did not come to its end, and is counted for that.
            Some(Ok(_)) if holdings.is_none() && excused.contains(account) => continue,
            Some(Ok(balance)) => {
                findings.lost += 1;
                format!("the API shows {balance} credits of {expected}")
            }
            Some(Err(error)) => {
                findings.lost += 1;
                format!("the API does not show its credits: {error}")
            }
            // Credits of an account that no order names: told above, with the order.
            None => continue,
        };
        findings.remarks.push(format!("account {account}: {text}"));
    }
    findings
}

fn count(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

/// An order's ids, for a remark.
struct Name<'a>(&'a Sold);

impl std::fmt::Display for Name<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Sold { plan, payment_id, order_id, .. } = self.0;
        match order_id {
            Some(id) => write!(f, "order {id}")?,
            None => f.write_str("an order without an id")?,
        }
        let seller = match plan.seller {
            Seller::Stripe => "Stripe",
            Seller::Standard => "Standard Webhooks",
            Seller::Paypal => "PayPal",
        };
        write!(f, " (account {}, {seller} payment {})", plan.account_id, payment_id.as_deref().unwrap_or("none"))?;
        if plan.is_silent {
            f.write_str(", webhooks dropped")?;
        }
        if plan.is_overtaken { f.write_str(", webhooks first") } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::headless::Unfinished;
    use crate::plan::OrderPlan;

    /// Three orders of account `a`, of 10 credits each; the last one is not paid.
    fn sold() -> Vec<Sold> {
        (0..3)
            .map(|n| {
                let plan = OrderPlan { account_id: "a".to_owned(), credits: 10, ..OrderPlan::new(1, n, 3) };
                let mut sold = Sold::new(plan);
                sold.order_id = Some(format!("01890a5d-ac96-774b-bcce-b302099a805{n}").parse().unwrap());
                sold.is_paid = n < 2;
                sold.is_fulfilled = sold.is_paid;
                sold
            })
            .collect()
    }

    fn holding(n: u32, account: &str, credits: i64) -> Holding {
        let order_id = format!("01890a5d-ac96-774b-bcce-b302099a805{n}");
        Holding { order_id, account_id: account.to_owned(), credits }
    }

    fn verdict(holdings: Option<&[Holding]>, balance: i64) -> (u64, u64, u64, u64) {
        let balances = BTreeMap::from([("a".to_owned(), Ok(balance))]);
        let findings = judge(&sold(), holdings, &balances);
        let faults = findings.lost + findings.doubled + findings.invented;
        assert_eq!(faults, findings.remarks.len() as u64, "every fault is told: {findings:?}");
        (findings.grants, findings.lost, findings.doubled, findings.invented)
    }

    #[test]
    fn by_the_tables() {
        let h = holding;
        for (holdings, balance, expected) in [
            (vec![h(0, "a", 10), h(1, "a", 10)], 20, (2, 0, 0, 0)),
            (vec![h(0, "a", 10)], 10, (1, 1, 0, 0)),
            (vec![h(0, "a", 10), h(1, "a", 9)], 19, (2, 1, 0, 0)),
            (vec![h(0, "a", 20), h(1, "a", 10)], 30, (2, 0, 1, 0)),
            (vec![h(0, "a", 10), h(1, "a", 10), h(2, "a", 10)], 30, (3, 0, 0, 1)),
            (vec![h(0, "a", 10), h(1, "a", 10), h(9, "b", 5)], 20, (3, 0, 0, 1)),
            (vec![h(0, "a", 10), h(1, "b", 10)], 10, (2, 0, 0, 1)),
            // The API and the tables do not agree.
            (vec![h(0, "a", 10), h(1, "a", 10)], 10, (2, 1, 0, 0)),
            (vec![h(0, "a", 10), h(1, "a", 10)], 30, (2, 0, 1, 0)),
            // One fault does not make up for another.
            (vec![h(0, "a", 20)], 20, (1, 1, 1, 0)),
        ] {
            assert_eq!(verdict(Some(&holdings), balance), expected, "{holdings:?}");
        }
    }

    #[test]
    fn by_the_balances_alone() {
        assert_eq!(verdict(None, 20), (2, 0, 0, 0));
        assert_eq!(verdict(None, 10), (2, 1, 0, 0));
        assert_eq!(verdict(None, 30), (2, 0, 1, 0));
    }

    #[test]
    fn what_is_unfinished_is_lost_and_told_once() {
        let mut sold = sold();
        sold[1].unfinished = Some(Unfinished::NotTried);
        let balances = BTreeMap::from([("a".to_owned(), Ok(10))]);
        let findings = judge(&sold, None, &balances);
        assert_eq!((findings.lost, findings.remarks.len()), (1, 1), "{findings:?}");
        let findings = judge(&sold, Some(&[holding(0, "a", 10)]), &balances);
        assert_eq!((findings.lost, findings.remarks.len()), (1, 1), "{findings:?}");
        let findings = judge(&sold, None, &BTreeMap::from([("a".to_owned(), Err("gone".to_owned()))]));
        assert_eq!((findings.lost, findings.remarks.len()), (2, 2), "{findings:?}");
    }
}
