//! What PayPal's answers say of a payment. Asks nobody.

use crate::domain::dialect::paypal::{amount, capture, dispute, next_query, order_id, refund, time};
use crate::domain::dialect::{Object, Odd};
use crate::domain::{CaptureState, FactId, Money, OrderId, PaymentId, PaymentStatus, RELATED_IDS_MAX};
use crate::provider::{Found, PaymentState};
use time::OffsetDateTime;

/// An order, with the captures and refunds of its purchase units.
pub(super) fn of_order(order: &Object<'_>, is_live: bool) -> Result<Found, Odd> {
    let mut seen = Seen::default();
    seen.at(order)?;
    let mut order_ids = Vec::new();
    for unit in order.list("purchase_units", "purchase_units[]")? {
        order_ids.extend(order_id(&unit));
        if unit.value("payments").is_none() {
            continue;
        }
        let payments = unit.object("payments", "purchase_units[].payments")?;
        for object in payments.list("captures", "captures[]")? {
            seen.capture(&object)?;
        }
        for object in payments.list("refunds", "refunds[]")? {
            seen.at(&object)?;
            seen.statuses.push(refund(&object)?);
        }
    }
    let state = match order.text("status")? {
        "CREATED" | "SAVED" | "PAYER_ACTION_REQUIRED" => PaymentState::Payable,
        "APPROVED" => PaymentState::Approved,
        "COMPLETED" => seen.state(order)?,
        "VOIDED" => PaymentState::Over,
        _ => return Err(order.odd("status", "must be one that PayPal documents for orders")),
    };
    match state {
        // The buyer has agreed; whether he pays shows when it is captured.
        PaymentState::Approved => seen.statuses.push(PaymentStatus::Pending),
        // One that was completed and failed is over as well, but nobody gave it up.
        PaymentState::Over if seen.captures.is_empty() => seen.statuses.push(PaymentStatus::Canceled),
        PaymentState::Over | PaymentState::Payable | PaymentState::Pending | PaymentState::Paid => {}
    }
    seen.statuses.extend(seen.refunded_total()?);
    order_ids.sort_unstable();
    order_ids.dedup();
    Ok(Found {
        payment_id: order.parsed("id")?,
        related_ids: seen.captures,
        // Units of two orders are no payment of one.
        order_id: <[OrderId; 1]>::try_from(order_ids).ok().map(|[id]| id),
        statuses: seen.statuses,
        state,
        occurred_at: seen.latest.ok_or_else(|| order.odd("create_time", "is missing"))?,
        as_of: None,
        livemode: is_live,
        incomplete: None,
        client_secret: None,
        approve_url: if state == PaymentState::Payable { approve_url(order)? } else { None },
    })
}

/// A capture that does not tell its order.
pub(super) fn of_capture(object: &Object<'_>, is_live: bool) -> Result<Found, Odd> {
    let mut seen = Seen::default();
    seen.capture(object)?;
    if object.text("status")? == "PARTIALLY_REFUNDED" {
        let fault = "is PARTIALLY_REFUNDED, and how much only the order could tell, which the capture does not name";
        return Err(object.odd("status", fault));
    }
    seen.statuses.extend(seen.refunded_total()?);
    Ok(Found {
        payment_id: object.parsed("id")?,
        related_ids: Vec::new(),
        order_id: order_id(object),
        state: seen.state(object)?,
        statuses: seen.statuses,
        occurred_at: seen.latest.ok_or_else(|| object.odd("create_time", "is missing"))?,
        as_of: None,
        livemode: is_live,
        incomplete: None,
        client_secret: None,
        approve_url: None,
    })
}

/// The captures that brought money, which can be disputed.
pub(super) fn captured(found: &Found) -> Vec<FactId> {
    let succeeded = found.statuses.iter().filter_map(|status| {
        let PaymentStatus::Captured { capture_id, state: CaptureState::Succeeded, .. } = status else { return None };
        capture_id.clone()
    });
    succeeded.collect()
}

/// One page of the disputes of a capture, and the query that asks for the next one. A dispute may be of several captures,
/// and counts once.
pub(super) fn add_disputes(found: &mut Found, page: &Object<'_>) -> Result<Option<String>, Odd> {
    // Where there are none, PayPal may leave out the list.
    let disputes = page.list("items", "items[]")?;
    for object in &disputes {
        let status = dispute(object)?;
        let at = time(object, "create_time")?.max(time(object, "update_time")?);
        found.occurred_at = found.occurred_at.max(at.ok_or_else(|| object.odd("create_time", "is missing"))?);
        if !found.statuses.contains(&status) {
            found.statuses.push(status);
        }
    }
    // An empty page is the last one, whatever it leads to.
    Ok(next_query(page)?.filter(|_| !disputes.is_empty()).map(str::to_owned))
}

/// Where the buyer agrees: `payer-action` where the order was made for a PayPal wallet, else `approve`.
pub(super) fn approve_url(order: &Object<'_>) -> Result<Option<String>, Odd> {
    for link in order.list("links", "links[]")? {
        if matches!(link.text("rel")?, "approve" | "payer-action") {
            return Ok(Some(link.text("href")?.to_owned()));
        }
    }
    Ok(None)
}

/// What was read so far.
#[derive(Default)]
struct Seen {
    statuses: Vec<PaymentStatus>,
    /// The first ones, as many as are kept.
    captures: Vec<PaymentId>,
    latest: Option<OffsetDateTime>,
    is_paid: bool,
    is_pending: bool,
    /// Amounts of captures that went back whole.
    returned: Vec<Money>,
}

impl Seen {
    fn at(&mut self, object: &Object<'_>) -> Result<(), Odd> {
        self.latest = self.latest.max(time(object, "create_time")?).max(time(object, "update_time")?);
        Ok(())
    }

    fn capture(&mut self, object: &Object<'_>) -> Result<(), Odd> {
        self.at(object)?;
        if self.captures.len() < RELATED_IDS_MAX {
            self.captures.push(object.parsed("id")?);
        }
        match object.text("status")? {
            "PENDING" => self.is_pending = true,
            "COMPLETED" | "PARTIALLY_REFUNDED" => self.is_paid = true,
            "REFUNDED" => {
                self.is_paid = true;
                self.returned.push(amount(object)?);
            }
            _ => {}
        }
        self.statuses.extend(capture(object)?);
        Ok(())
    }

    /// Of a payment whose captures were tried.
    fn state(&self, object: &Object<'_>) -> Result<PaymentState, Odd> {
        if self.is_paid {
            Ok(PaymentState::Paid)
        } else if self.is_pending {
            Ok(PaymentState::Pending)
        } else if self.captures.is_empty() {
            Err(object.odd("purchase_units[].payments.captures", "is missing in an order that is COMPLETED"))
        } else {
            Ok(PaymentState::Over)
        }
    }

    /// A capture that PayPal took back itself (a reversal, a chargeback) is REFUNDED, and no refund need be listed.
    fn refunded_total(&self) -> Result<Option<PaymentStatus>, Odd> {
        let Some(first) = self.returned.first() else { return Ok(None) };
        let sum = self.returned.iter().filter(|money| money.currency() == first.currency());
        let sum = sum.fold(0_i64, |sum, money| sum.saturating_add(money.amount_minor()));
        Ok(Money::new(sum, first.currency()).ok().map(|money| PaymentStatus::RefundedTotal { money }))
    }
}
