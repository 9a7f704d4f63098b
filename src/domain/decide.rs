//! What an event means for an order. The status and credits of an order come from here only.

use super::facts::{FACTS_MAX, Stage, Sums};
use super::money::Money;
use super::order::{Order, OrderStatus, PriceTerms};
use super::reason::{Reason, Refusal};
use super::status::{Breakdown, DisputePolicy, PaymentEvent, PaymentStatus};
use std::collections::BTreeMap;

/// What has to be written to the ledger so that it matches the facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// The order's new status.
    pub status: OrderStatus,
    /// Write the grant of the order's full credits. This happens at most once in the life of an order.
    pub grant: bool,
    /// Signed credits to write as the next adjustment. 0: no adjustment.
    pub adjustment: i64,
    /// Net credits that the ledger holds afterwards: 0 to the order's credits.
    pub credits_net: i64,
    /// Money kept beyond the price, in minor units. 0: none.
    pub overpaid_minor: i64,
}

/// An order in an impossible state: another program wrote its row, or this program has a fault. No credits may be granted or taken
/// back by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("order {order_id} cannot be settled: {fault}")]
pub struct Impossible {
    /// The order that is impossible.
    pub order_id: super::OrderId,
    /// Which impossible state it is in.
    pub fault: &'static str,
}

/// Checks an event against the order to which it belongs.
///
/// The decision depends on the order's own terms and on the event only, never on earlier events. Otherwise the same facts could end
/// differently in another order of arrival. (The one exception is the bound on their number.)
pub fn assess(order: &Order, event: &PaymentEvent) -> Result<(), Refusal> {
    if event.provider != order.provider {
        return Err(Refusal::new(
            Reason::PaymentConflict,
            format!("order {} is paid at {}, the message comes from {}", order.id, order.provider, event.provider),
        ));
    }
    if event.provider_account != order.provider_account {
        let name = |account: &Option<super::ProviderAccount>| {
            account.as_ref().map_or("our own account".to_owned(), |account| format!("account {account}"))
        };
        return Err(Refusal::new(
            Reason::AccountMismatch,
            format!(
                "order {} is paid to {}, the payment belongs to {}",
                order.id,
                name(&order.provider_account),
                name(&event.provider_account)
            ),
        ));
    }
    let is_foreign = |money: &Money| money.currency() != order.price.currency();
    match &event.status {
        PaymentStatus::Pending
        | PaymentStatus::Failed { .. }
        | PaymentStatus::Canceled
        | PaymentStatus::CaptureCanceled { .. }
        | PaymentStatus::PartsCanceled => {}
        PaymentStatus::Captured { money, capture_id, breakdown, .. } => {
            if is_foreign(money) {
                return Err(Refusal::currency(order, *money));
            }
            assess_amount(order, *money, capture_id.is_some(), *breakdown)?;
        }
        PaymentStatus::Refund { money, .. } | PaymentStatus::RefundedTotal { money } => {
            if is_foreign(money) {
                return Err(Refusal::currency(order, *money));
            }
        }
        // A dispute in another currency takes everything: see `PaymentFacts::join`.
        PaymentStatus::Dispute { .. } => {}
    }
    if !order.facts.has_room_for(event) {
        return Err(Refusal::new(
            Reason::TooManyFacts,
            format!("order {} has {FACTS_MAX} facts of this kind already; look at the payment by hand", order.id),
        ));
    }
    Ok(())
}

/// Whether an order with these terms accepts that captured amount.
fn assess_amount(
    order: &Order,
    money: Money,
    is_one_capture: bool,
    breakdown: Option<Breakdown>,
) -> Result<(), Refusal> {
    let (amount, price) = (money.amount_minor(), order.price.amount_minor());
    match (order.price_terms, breakdown) {
        (PriceTerms::Total, _) if is_one_capture && amount > price => {
            Err(Refusal::amount(order, money, "one capture must not be above the order's price"))
        }
        (PriceTerms::Total, _) if !is_one_capture && amount != price => {
            Err(Refusal::amount(order, money, "a payment's total must be the order's price"))
        }
        (PriceTerms::Total, _) => Ok(()),
        // It cannot be judged yet: it waits for its parts.
        (PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. }, None) => Ok(()),
        (terms @ (PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. }), Some(breakdown)) => {
            let (tax, discount) = (breakdown.tax_minor(), breakdown.discount_minor());
            let parts = |rule: &str| {
                let rule = format!("{rule} (tax on top {tax}, discount {discount}; price_terms {})", terms.name());
                Err(Refusal::amount(order, money, &rule))
            };
            if terms.discount_max_minor().is_some_and(|max| discount > max) {
                return parts(
                    "the discount is above the order's discount_max_minor, which no new price changes: give the money back",
                );
            }
            if terms.worth_minor(amount, breakdown) != i128::from(price) {
                return parts(
                    "what the terms leave of the total must be the order's price: amend the order if the buyer owes no more",
                );
            }
            Ok(())
        }
    }
}

/// The sums of all payments of an order, in minor units of its price.
#[derive(Debug, Default)]
struct Settled {
    /// Whether the price was paid, even if money went back since.
    is_paid: bool,
    /// How much of the price was not refunded.
    left: i128,
    /// How much of that belongs to payments without a dispute.
    left_undisputed: i128,
    /// What is left after disputes that hold or have taken money. With price terms that leave a part out, it is in credits.
    kept: i128,
    is_disputed: bool,
    is_under_way: bool,
    is_open: bool,
    is_over: bool,
    overpaid: i128,
}

impl Settled {
    fn of(order: &Order, policy: DisputePolicy) -> Self {
        let measure = order.measure(policy);
        let (mut all, mut captured, mut left, mut kept) = (Self::default(), 0, 0, 0);
        let (mut left_undisputed, mut loose_refunds, mut loose_disputes) = (0, 0, 0);
        for sums in order.facts.sums(measure) {
            captured += sums.captured;
            left += sums.left;
            kept += sums.kept;
            left_undisputed += if sums.is_disputed { 0 } else { sums.left };
            loose_refunds += sums.loose_refunds;
            loose_disputes += sums.loose_disputes;
            all.is_disputed |= sums.is_disputed;
            match sums.stage {
                Stage::Open => all.is_open = true,
                Stage::UnderWay => all.is_under_way = true,
                Stage::Over => all.is_over = true,
            }
        }
        // Amounts without a payment went back from one of the others, or are held there.
        let loose = loose_refunds + loose_disputes;
        let price = i128::from(measure.price_minor);
        if order.price_terms == PriceTerms::Total {
            all.is_paid = captured >= price;
            all.left = left - loose_refunds;
            all.kept = kept - loose;
            all.left_undisputed = left_undisputed - loose;
            all.overpaid = if all.is_paid { (kept - loose - price).max(0) } else { 0 };
            return all;
        }
        let shares = |minor: fn(&Sums) -> i128| Shares::of(order.facts.sums(measure), minor);
        all.is_paid = order.facts.sums(measure).any(|sums| sums.priced.is_some());
        all.left = shares(|sums| sums.left).worth(price, loose_refunds);
        all.left_undisputed = shares(|sums| if sums.is_disputed { 0 } else { sums.left }).worth(price, loose);
        // Counted in credits, so that nothing is rounded on the way through the price.
        all.kept = shares(|sums| sums.kept).of_whole(i128::from(order.credits), loose);
        let paid_for =
            order.facts.sums(measure).filter_map(|sums| Some((sums.kept.min(sums.priced?), sums.priced?))).max();
        all.overpaid = match paid_for {
            // The money that paid the price went back. Other money is not known to be too much: it may wait for its parts.
            None | Some((0, 1..)) => 0,
            Some((paid_for, _)) => (kept - loose - paid_for).max(0),
        };
        all
    }

    fn status(&self, price: i128) -> OrderStatus {
        if self.is_paid {
            if self.is_disputed && self.left_undisputed < price {
                OrderStatus::Disputed
            } else if self.left >= price {
                OrderStatus::Fulfilled
            } else if self.left > 0 {
                OrderStatus::PartiallyRefunded
            } else {
                OrderStatus::Refunded
            }
        } else if self.is_under_way {
            OrderStatus::Processing
        } else if self.is_over && !self.is_open {
            OrderStatus::Canceled
        } else {
            OrderStatus::AwaitingPayment
        }
    }
}

/// What is left of payments, measured by the amount that was paid for the price, for price terms that leave a part out. Money
/// counts as the share of the paid amount that it is. Money beyond a whole goes back first.
struct Shares(BTreeMap<i128, i128>);

impl Shares {
    /// Payments with one total are counted together, so that no more is rounded than necessary.
    fn of(all: impl Iterator<Item = Sums>, minor: fn(&Sums) -> i128) -> Self {
        let mut shares = BTreeMap::new();
        for sums in all {
            if let Some(paid) = sums.priced {
                *shares.entry(paid).or_insert(0) += minor(&sums);
            }
        }
        Self(shares)
    }

    /// Its worth as a share of a whole, rounded down, minus what went back of payments without a name. That counts against the
    /// payment of which it takes the greatest share. Credits and amounts are at most 10^15, and there are about a thousand
    /// payments, so all values stay far inside an `i128`.
    fn of_whole(&self, whole: i128, loose: i128) -> i128 {
        if self.0.contains_key(&0) {
            // The whole price was discounted. Nothing can go back.
            return whole;
        }
        let mut loose = loose;
        let share = |(paid, left): (&i128, &i128)| (whole * (left - std::mem::take(&mut loose))).div_euclid(*paid);
        self.0.iter().map(share).sum()
    }

    /// The same for a price: something is left as long as one minor unit is left.
    fn worth(&self, price: i128, loose: i128) -> i128 {
        let left: i128 = self.0.values().sum();
        self.of_whole(price, loose).max((left - loose).min(1))
    }
}

/// The result of the order's facts, and its difference to the ledger.
pub fn settle(order: &Order, policy: DisputePolicy) -> Result<Posting, Impossible> {
    let impossible = |fault| Impossible { order_id: order.id, fault };
    let price = i128::from(order.price.amount_minor());
    if price <= 0 || order.credits <= 0 {
        return Err(impossible("its price or its credits are not above zero"));
    }
    let settled = Settled::of(order, policy);
    let credits_net = if settled.is_paid { credits_of(order, &settled) } else { 0 };
    let credits_net = i64::try_from(credits_net).map_err(|_| impossible("its credits are out of range"))?;
    if !(0..=order.credits).contains(&credits_net) {
        return Err(impossible("its net credits are not between 0 and its credits"));
    }
    let grant = !order.is_granted && credits_net > 0;
    let posted = if grant { order.credits } else { order.credits_posted };
    let adjustment =
        credits_net.checked_sub(posted).ok_or_else(|| impossible("its posted credits are out of range"))?;
    let overpaid_minor = i64::try_from(settled.overpaid).map_err(|_| impossible("it is overpaid beyond all range"))?;
    Ok(Posting { status: settled.status(price), grant, adjustment, credits_net, overpaid_minor })
}

/// floor(credits × kept ÷ paid). Credits and amounts are at most 10^15, so the product stays far inside an `i128`.
fn credits_of(order: &Order, settled: &Settled) -> i128 {
    let (credits, price) = (i128::from(order.credits), i128::from(order.price.amount_minor()));
    match order.price_terms {
        PriceTerms::Total => credits * settled.kept.clamp(0, price) / price,
        PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. } => settled.kept.clamp(0, credits),
    }
}

#[cfg(test)]
mod tests;
