//! What an event means for an order. The only place where an order's status and its credits come from.

use super::facts::{FACTS_MAX, Stage, Sums};
use super::money::Money;
use super::order::{Order, OrderStatus, PriceTerms};
use super::reason::{Reason, Refusal};
use super::status::{Breakdown, DisputePolicy, PaymentEvent, PaymentStatus};

/// What the ledger has to write so that it holds what the facts say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Posting {
    /// The order's new status.
    pub status: OrderStatus,
    /// Write the grant, of the order's full credits. At most once in an order's life.
    pub grant: bool,
    /// Signed credits to write as the next adjustment; 0 is none.
    pub adjustment: i64,
    /// Net credits that the ledger holds afterwards: 0 to the order's credits.
    pub credits_net: i64,
    /// Money that is kept beyond the price, in minor units; 0 where there is none.
    pub overpaid_minor: i64,
}

/// An order that cannot be: its row was written by somebody else, or there is a fault in this program. Nothing may be granted
/// or taken back by it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("order {order_id} cannot be settled: {fault}")]
pub struct Impossible {
    /// Which order.
    pub order_id: super::OrderId,
    /// What cannot be.
    pub fault: &'static str,
}

/// Checks an event against the order it was found to belong to.
///
/// Whether an event is accepted depends on the order's own terms and on the event alone, never on what arrived before:
/// else two arrivals of the same facts could end differently. (The one exception is the bound on their number.)
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
        // A dispute in another currency takes all: see `PaymentFacts::join`.
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

/// Whether an order of these terms accepts that amount as captured.
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
        // Nothing can be said of it yet: it waits for the parts.
        (PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. }, None) => Ok(()),
        (terms @ (PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. }), Some(breakdown)) => {
            let (tax, discount) = (breakdown.tax_minor(), breakdown.discount_minor());
            let parts = |rule: &str| {
                let rule = format!("{rule} (tax on top {tax}, discount {discount}; price_terms {})", terms.name());
                Err(Refusal::amount(order, money, &rule))
            };
            if terms.discount_max_minor().is_some_and(|max| discount > max) {
                return parts("the discount is above the order's discount_max_minor");
            }
            if terms.worth_minor(amount, breakdown) != i128::from(price) {
                return parts("what the terms leave of the total must be the order's price");
            }
            Ok(())
        }
    }
}

/// All payments of an order together, in minor units of its price.
#[derive(Debug, Default)]
struct Settled {
    /// Whether the price is paid, whatever went back since.
    is_paid: bool,
    /// How much of the price was not refunded.
    left: i128,
    /// Of that, what belongs to payments without a dispute.
    left_undisputed: i128,
    /// Of what is left, what disputes neither hold nor have taken.
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
        let price = i128::from(measure.price_minor);
        let is_total = order.price_terms == PriceTerms::Total;
        let (mut all, mut captured, mut kept_money, mut loose, mut greatest) = (Self::default(), 0, 0, 0, 0);
        for sums in order.facts.sums(measure) {
            // A payment's money is worth as much of the price as it is of its own total.
            let worth = |minor| if is_total { minor } else { worth_of_priced(&sums, minor, price) };
            captured += sums.captured;
            kept_money += sums.kept;
            greatest = greatest.max(sums.kept);
            loose += sums.loose_refunds + sums.loose_disputes;
            all.is_paid |= !is_total && sums.is_priced;
            all.left += worth(sums.left) - sums.loose_refunds;
            all.kept += worth(sums.kept) - sums.loose_refunds - sums.loose_disputes;
            all.left_undisputed += if sums.is_disputed { 0 } else { worth(sums.left) } - sums.loose_refunds;
            // What a dispute of an unnamed payment holds is money of one of the others.
            all.left_undisputed -= sums.loose_disputes;
            all.is_disputed |= sums.is_disputed;
            match sums.stage {
                Stage::Open => all.is_open = true,
                Stage::UnderWay => all.is_under_way = true,
                Stage::Over => all.is_over = true,
            }
        }
        all.is_paid |= is_total && captured >= price;
        // Without a total of parts that pay the price, money that is there is not known to be too much.
        let paid_for = if is_total { price } else { greatest };
        all.overpaid = if all.is_paid { (kept_money - loose - paid_for).max(0) } else { 0 };
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

/// How much of the price an amount is worth that is left of a payment with a total of parts.
fn worth_of_priced(sums: &Sums, left: i128, price: i128) -> i128 {
    match (sums.is_priced, sums.captured) {
        (false, _) => 0,
        // All of the price was discounted. There is nothing that could go back.
        (true, 0) => price,
        // Something is left as long as one minor unit is.
        (true, captured) => (price * left / captured).max(left.min(1)),
    }
}

/// What the order's facts amount to, and the difference to what the ledger holds.
pub fn settle(order: &Order, policy: DisputePolicy) -> Result<Posting, Impossible> {
    let impossible = |fault| Impossible { order_id: order.id, fault };
    let price = i128::from(order.price.amount_minor());
    if price <= 0 || order.credits <= 0 {
        return Err(impossible("its price or its credits are not above zero"));
    }
    let settled = Settled::of(order, policy);
    let credits_net = if settled.is_paid { credits_of(order, &settled, policy) } else { 0 };
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

/// floor(credits × what is kept ÷ what was paid). Credits and amounts are at most 10^15, so that the product stays far inside
/// an `i128`.
fn credits_of(order: &Order, settled: &Settled, policy: DisputePolicy) -> i128 {
    let (credits, price) = (i128::from(order.credits), i128::from(order.price.amount_minor()));
    if order.price_terms == PriceTerms::Total {
        return credits * settled.kept.clamp(0, price) / price;
    }
    // By each payment's own total, so that nothing is rounded on the way over the price.
    let measure = order.measure(policy);
    let of_payment = |sums: Sums| match (sums.is_priced, sums.captured) {
        (false, _) => 0,
        (true, 0) => credits,
        (true, captured) => credits * sums.kept / captured,
    };
    let sum: i128 = order.facts.sums(measure).map(of_payment).sum();
    let loose: i128 = order.facts.sums(measure).map(|sums| sums.loose_refunds + sums.loose_disputes).sum();
    // Rounded up: what is taken back is never less than its share.
    (sum - (credits * loose.clamp(0, price) + price - 1) / price).clamp(0, credits)
}

#[cfg(test)]
mod tests;
