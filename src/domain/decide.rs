//! What an event means for an order. The only place where an order's status and its credits come from.

use super::facts::FACTS_MAX;
use super::money::Money;
use super::order::{Order, OrderStatus};
use super::reason::{Reason, Refusal};
use super::status::{DisputePolicy, PaymentEvent, PaymentStatus};

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
        PaymentStatus::Pending | PaymentStatus::Failed { .. } | PaymentStatus::Canceled => {}
        PaymentStatus::Captured { money, capture_id, .. } => {
            if is_foreign(money) {
                return Err(Refusal::currency(order, *money));
            }
            match capture_id {
                None if money.amount_minor() != order.price.amount_minor() => {
                    return Err(Refusal::amount(order, *money, "a payment's total must be the order's price"));
                }
                Some(_) if money.amount_minor() > order.price.amount_minor() => {
                    return Err(Refusal::amount(order, *money, "one capture must not be above the order's price"));
                }
                None | Some(_) => {}
            }
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

/// What the order's facts amount to, and the difference to what the ledger holds.
pub fn settle(order: &Order, policy: DisputePolicy) -> Posting {
    let facts = &order.facts;
    let price = i128::from(order.price.amount_minor());
    let captured = facts.captured_minor();
    let is_paid = captured >= price;
    let left_after_refunds = captured - facts.refunded_minor();
    let kept = if is_paid { (left_after_refunds - facts.disputed_minor(policy)).clamp(0, price) } else { 0 };
    // floor(credits × kept ÷ price): both are at most 10^15, the product far inside an i128, the quotient at most
    // `credits`, because `kept` is at most the price.
    let credits_net = i64::try_from(i128::from(order.credits) * kept / price.max(1)).unwrap_or(order.credits);

    let status = if is_paid {
        if facts.is_disputed() {
            OrderStatus::Disputed
        } else if left_after_refunds >= price {
            OrderStatus::Fulfilled
        } else if left_after_refunds > 0 {
            OrderStatus::PartiallyRefunded
        } else {
            OrderStatus::Refunded
        }
    } else if facts.is_canceled() {
        OrderStatus::Canceled
    } else if captured > 0 || facts.is_pending() {
        OrderStatus::Processing
    } else {
        OrderStatus::AwaitingPayment
    };

    let grant = !order.is_granted && credits_net > 0;
    let posted = if grant { order.credits } else { order.credits_posted };
    Posting { status, grant, adjustment: credits_net - posted, credits_net }
}

#[cfg(test)]
mod tests;
