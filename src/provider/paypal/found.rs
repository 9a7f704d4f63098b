//! Reads PayPal's answers about a payment. It makes no calls.

use crate::domain::dialect::paypal::{
    amount, breakdown, capture, dispute, is_counting, next_query, order_id, parent, refund, refunded_of_capture, time,
};
use crate::domain::dialect::{Object, Odd, Part};
use crate::domain::{
    Breakdown, CaptureState, FactId, Money, OrderId, PaymentId, PaymentStatus, RELATED_IDS_MAX, RefundState,
};
use crate::provider::{Found, PaymentState};
use time::OffsetDateTime;

/// Reads an order with the captures and refunds of its purchase units. `named` is a refund that was read by its own id. The
/// order may or may not list it.
pub(super) fn of_order(order: &Object<'_>, named: Option<&Object<'_>>, is_live: bool) -> Result<Found, Odd> {
    let mut seen = Seen::default();
    seen.at(order)?;
    let mut order_ids = Vec::new();
    for unit in order.list("purchase_units", "purchase_units[]")? {
        order_ids.extend(order_id(&unit));
        if unit.value("payments").is_none() {
            continue;
        }
        let payments = unit.object("payments", "purchase_units[].payments")?;
        for object in payments.list("authorizations", "authorizations[]")? {
            seen.authorization(&object)?;
        }
        let captures = payments.list("captures", "captures[]")?;
        let breakdown = breakdown_of(&unit, &captures)?;
        for object in &captures {
            seen.capture(object, breakdown)?;
        }
        for object in payments.list("refunds", "refunds[]")? {
            seen.refund(&object)?;
        }
    }
    if let Some(refund) = named {
        seen.refund(refund)?;
    }
    let state = match order.text("status")? {
        "CREATED" | "SAVED" | "PAYER_ACTION_REQUIRED" => PaymentState::Payable,
        // Another program authorizes this order and captures it later, so we must not capture it.
        "APPROVED" if order.value("intent").and_then(Part::as_str) == Some("AUTHORIZE") => {
            seen.statuses.push(PaymentStatus::Pending);
            PaymentState::Pending
        }
        "APPROVED" => PaymentState::Approved,
        "COMPLETED" => seen.state(order)?,
        "VOIDED" => PaymentState::Over,
        _ => return Err(order.odd("status", "must be one that PayPal documents for orders")),
    };
    match state {
        // The buyer has approved. The capture shows whether they pay.
        PaymentState::Approved => seen.statuses.push(PaymentStatus::Pending),
        // An order that was completed and whose captures failed is over as well, but nobody has canceled it.
        PaymentState::Over if seen.captures.is_empty() && !seen.is_denied => {
            seen.statuses.push(PaymentStatus::Canceled);
        }
        PaymentState::Over | PaymentState::Payable | PaymentState::Pending | PaymentState::Paid => {}
    }
    order_ids.sort_unstable();
    order_ids.dedup();
    Ok(Found {
        payment_id: order.parsed("id")?,
        related_ids: seen.related_ids(),
        // If the units belong to two orders, this is not the payment of one order.
        order_id: <[OrderId; 1]>::try_from(order_ids).ok().map(|[id]| id),
        state,
        occurred_at: seen.latest.ok_or_else(|| order.odd("create_time", "is missing"))?,
        as_of: None,
        livemode: is_live,
        incomplete: None,
        is_refund_untold: seen.returned.is_untold(),
        statuses: seen.told(),
        client_secret: None,
        approve_url: if state == PaymentState::Payable { approve_url(order)? } else { None },
    })
}

/// The parts of a capture's amount. They are those of its unit, if the capture is about the whole unit.
fn breakdown_of(unit: &Object<'_>, captures: &[Object<'_>]) -> Result<Option<Breakdown>, Odd> {
    let mut counting = Vec::new();
    for capture in captures {
        if is_counting(capture)? {
            counting.push(capture);
        }
    }
    match counting.as_slice() {
        [only] if unit.value("amount").is_some() && amount(only)? == amount(unit)? => breakdown(unit),
        _ => Ok(None),
    }
}

/// Reads a capture that does not name its order.
pub(super) fn of_capture(object: &Object<'_>, named: Option<&Object<'_>>, is_live: bool) -> Result<Found, Odd> {
    let mut seen = Seen::default();
    seen.capture(object, None)?;
    if let Some(refund) = named {
        seen.refund(refund)?;
    }
    if seen.returned.is_untold() {
        let fault = "is PARTIALLY_REFUNDED, and how much only the order could tell, which the capture does not name";
        return Err(object.odd("status", fault));
    }
    Ok(Found {
        payment_id: object.parsed("id")?,
        related_ids: Vec::new(),
        order_id: order_id(object),
        state: seen.state(object)?,
        occurred_at: seen.latest.ok_or_else(|| object.odd("create_time", "is missing"))?,
        as_of: None,
        livemode: is_live,
        incomplete: None,
        is_refund_untold: false,
        statuses: seen.told(),
        client_secret: None,
        approve_url: None,
    })
}

/// Reads an authorization that does not name its order. Its captures would be asked for by their own ids.
pub(super) fn of_authorization(object: &Object<'_>, is_live: bool) -> Result<Found, Odd> {
    let mut seen = Seen::default();
    seen.authorization(object)?;
    let state = if seen.is_authorized { PaymentState::Pending } else { PaymentState::Over };
    Ok(Found {
        payment_id: object.parsed("id")?,
        related_ids: Vec::new(),
        order_id: order_id(object),
        state,
        occurred_at: seen.latest.ok_or_else(|| object.odd("create_time", "is missing"))?,
        as_of: None,
        livemode: is_live,
        incomplete: None,
        is_refund_untold: false,
        statuses: seen.told(),
        client_secret: None,
        approve_url: None,
    })
}

/// The captures that brought money. Only these can be disputed.
pub(super) fn captured(found: &Found) -> Vec<FactId> {
    let succeeded = found.statuses.iter().filter_map(|status| {
        let PaymentStatus::Captured { capture_id, state: CaptureState::Succeeded, .. } = status else { return None };
        capture_id.clone()
    });
    succeeded.collect()
}

/// Adds one page of the disputes of a capture, and returns the query for the next page. A dispute can be about several
/// captures and counts once.
pub(super) fn add_disputes(found: &mut Found, page: &Object<'_>) -> Result<Option<String>, Odd> {
    // If there are no disputes, PayPal may leave out the list.
    let disputes = page.list("items", "items[]")?;
    for object in &disputes {
        let status = dispute(object)?;
        let at = time(object, "create_time")?.max(time(object, "update_time")?);
        found.occurred_at = found.occurred_at.max(at.ok_or_else(|| object.odd("create_time", "is missing"))?);
        if !found.statuses.contains(&status) {
            found.statuses.push(status);
        }
    }
    // An empty page is the last one, even if it has a link to a next page.
    Ok(next_query(page)?.filter(|_| !disputes.is_empty()).map(str::to_owned))
}

/// The page where the buyer approves: `payer-action` if the order was made for a PayPal wallet, else `approve`.
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
    captures: Vec<PaymentId>,
    latest: Option<OffsetDateTime>,
    is_paid: bool,
    is_pending: bool,
    is_authorized: bool,
    has_authorizations: bool,
    is_denied: bool,
    returned: Returned,
}

impl Seen {
    fn at(&mut self, object: &Object<'_>) -> Result<(), Odd> {
        self.latest = self.latest.max(time(object, "create_time")?).max(time(object, "update_time")?);
        Ok(())
    }

    /// The first ids, as many as are kept.
    fn related_ids(&self) -> Vec<PaymentId> {
        self.captures.iter().take(RELATED_IDS_MAX).cloned().collect()
    }

    /// Money that is held for the seller. It counts once it is captured.
    fn authorization(&mut self, object: &Object<'_>) -> Result<(), Odd> {
        self.at(object)?;
        match object.text("status")? {
            "CREATED" | "PENDING" => {
                self.is_authorized = true;
                self.statuses.push(PaymentStatus::Pending);
            }
            // The rest may still be captured.
            "PARTIALLY_CAPTURED" => self.is_authorized = true,
            "DENIED" => {
                self.is_denied = true;
                self.statuses.push(PaymentStatus::failed("the authorization was denied"));
            }
            "VOIDED" | "EXPIRED" => {}
            // Its captures tell the rest, and there must be some.
            "CAPTURED" => return Ok(()),
            _ => {
                let fault = "must be CREATED, PENDING, CAPTURED, PARTIALLY_CAPTURED, DENIED, VOIDED or EXPIRED";
                return Err(object.odd("status", fault));
            }
        }
        self.has_authorizations = true;
        Ok(())
    }

    fn capture(&mut self, object: &Object<'_>, breakdown: Option<Breakdown>) -> Result<(), Odd> {
        self.at(object)?;
        let id: PaymentId = object.parsed("id")?;
        match object.text("status")? {
            "PENDING" => self.is_pending = true,
            "COMPLETED" => self.is_paid = true,
            "PARTIALLY_REFUNDED" => {
                self.is_paid = true;
                self.returned.partly.push(id.clone());
            }
            "REFUNDED" => {
                self.is_paid = true;
                self.returned.wholly.push((id.clone(), amount(object)?));
            }
            _ => {}
        }
        self.captures.push(id);
        self.statuses.extend(capture(object, breakdown)?);
        Ok(())
    }

    /// Adds a refund, unless it was added before.
    fn refund(&mut self, object: &Object<'_>) -> Result<(), Odd> {
        let status = refund(object)?;
        let PaymentStatus::Refund { refund_id, state, money } = &status else {
            return Err(object.odd("status", "is none of a refund"));
        };
        let is_same =
            |told: &PaymentStatus| matches!(told, PaymentStatus::Refund { refund_id: known, .. } if known == refund_id);
        if self.statuses.iter().any(is_same) {
            return Ok(());
        }
        self.at(object)?;
        self.returned.refunds.push(Refunded {
            capture: parent(object, "/captures/"),
            money: *money,
            is_failed: *state == RefundState::Failed,
            of_capture: refunded_of_capture(object)?,
        });
        self.statuses.push(status);
        Ok(())
    }

    /// The state of a payment whose captures were tried.
    fn state(&self, object: &Object<'_>) -> Result<PaymentState, Odd> {
        if self.is_paid {
            Ok(PaymentState::Paid)
        } else if self.is_pending || self.is_authorized {
            Ok(PaymentState::Pending)
        } else if self.captures.is_empty() && !self.has_authorizations {
            Err(object.odd("purchase_units[].payments.captures", "is missing in an order that is COMPLETED"))
        } else {
            Ok(PaymentState::Over)
        }
    }

    fn told(self) -> Vec<PaymentStatus> {
        let total = self.returned.total();
        self.statuses.into_iter().chain(total).collect()
    }
}

/// The facts about money that was returned.
#[derive(Default)]
struct Returned {
    /// Captures of which a part was returned.
    partly: Vec<PaymentId>,
    /// Captures that were returned completely, with their amounts.
    wholly: Vec<(PaymentId, Money)>,
    refunds: Vec<Refunded>,
}

struct Refunded {
    capture: Option<PaymentId>,
    money: Money,
    is_failed: bool,
    /// Everything that was returned of the capture until then.
    of_capture: Option<Money>,
}

impl Returned {
    /// Whether money of a capture was returned that no refund explains.
    fn is_untold(&self) -> bool {
        self.partly.iter().any(|capture| {
            let refunds = || self.refunds.iter().filter(|it| it.capture.as_ref().is_none_or(|of| of == capture));
            let sum = |sum: i64, it: &Refunded| sum.saturating_add(it.money.amount_minor());
            let is_there = refunds().any(|it| !it.is_failed);
            let of_capture = refunds().filter(|it| !it.is_failed).filter_map(|it| it.of_capture);
            let most = of_capture.map(|money| money.amount_minor()).max();
            !is_there || most.is_some_and(|most| most > refunds().fold(0, sum))
        })
    }

    /// If PayPal itself takes a capture back (a reversal or a chargeback), the capture is REFUNDED, and a refund need not be
    /// listed. Returns `None` if the refunds tell everything. The total includes failed refunds, because they are subtracted
    /// again.
    fn total(&self) -> Option<PaymentStatus> {
        let currency = self.wholly.first()?.1.currency();
        let is_whole = |it: &Refunded| it.capture.as_ref().is_some_and(|of| self.wholly.iter().any(|(id, _)| id == of));
        let sum = |which: &dyn Fn(&Refunded) -> bool| {
            let counted = self.refunds.iter().filter(|it| it.money.currency() == currency && which(it));
            counted.fold(0_i64, |sum, it| sum.saturating_add(it.money.amount_minor()))
        };
        let whole = self.wholly.iter().filter(|(_, money)| money.currency() == currency);
        let whole = whole.fold(0_i64, |sum, (_, money)| sum.saturating_add(money.amount_minor()));
        let of_whole = sum(&|it| !it.is_failed && is_whole(it));
        let of_others = sum(&|it| !it.is_failed && it.capture.is_some() && !is_whole(it));
        // If a refund does not name its capture, nobody knows whether the whole captures include it. It counts as included
        // as far as possible.
        let of_any = sum(&|it| !it.is_failed && it.capture.is_none());
        let beyond = of_any.saturating_sub(whole.saturating_sub(of_whole).max(0)).max(0);
        let failed = sum(&|it| it.is_failed);
        let total = whole.saturating_add(of_others).saturating_add(beyond).saturating_add(failed);
        Money::new(total, currency).ok().map(|money| PaymentStatus::RefundedTotal { money })
    }
}
