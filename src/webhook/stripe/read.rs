//! The facts in a snapshot event, by its type.

use super::super::Concerns;
use super::table::{Charge, Intent, Read, Session};
use crate::domain::dialect::stripe::{self as words, Shape, order_id, reference};
use crate::domain::dialect::{Object, Odd, Part};
use crate::domain::{CaptureState, IgnoredWhy, OrderId, PaymentId, PaymentStatus, RELATED_IDS_MAX};

/// The facts of an event.
pub(super) enum Meaning {
    Payment(PaymentUpdate),
    /// The event changes nothing.
    Ignored(IgnoredWhy),
}

/// A payment by its ids, with the fact about it.
pub(super) struct PaymentUpdate {
    pub(super) payment_id: PaymentId,
    pub(super) related_ids: Vec<PaymentId>,
    pub(super) order_id: Option<OrderId>,
    pub(super) status: PaymentStatus,
}

/// Why an event cannot be applied.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) odd: Odd,
    /// The fact it would report, if that much can be read.
    pub(super) status: Option<Box<PaymentStatus>>,
}

impl From<Odd> for Fault {
    fn from(odd: Odd) -> Self {
        Self { odd, status: None }
    }
}

pub(super) fn meaning(read: Read, event: &Object<'_>) -> Result<Meaning, Fault> {
    let update = match read {
        Read::Intent(happened) => payment_intent(happened, event)?,
        Read::Session(happened) => return checkout_session(happened, event),
        Read::Charge(happened) => return charge(happened, event),
        Read::ChargeRefunded => return charge_refunded(event),
        Read::Refund => return refund(event),
        Read::Dispute | Read::DisputeReinstated => {
            let dispute = object(event, "dispute")?;
            let status = if read == Read::Dispute { words::dispute } else { words::reinstated }(&dispute)?;
            of_charge(&dispute, reference(&dispute, "charge")?, status)?
        }
        // Thin events have no snapshot.
        Read::Related => return Err(event.odd("object", "must be v2.core.event for an event of this type").into()),
    };
    Ok(Meaning::Payment(update))
}

/// `data.object`. It must be a snapshot of the kind that belongs to the event type.
fn object<'v>(event: &Object<'v>, is: &str) -> Result<Object<'v>, Odd> {
    let object = any_object(event)?;
    if object.text("object")? == is { Ok(object) } else { Err(object.odd("object", format_args!("must be {is:?}"))) }
}

fn any_object<'v>(event: &Object<'v>) -> Result<Object<'v>, Odd> {
    event.object("data", "data")?.object("object", "data.object")
}

fn payment_intent(happened: Intent, event: &Object<'_>) -> Result<PaymentUpdate, Odd> {
    let intent = object(event, "payment_intent")?;
    let status = match happened {
        Intent::Paid => words::captured(&intent, "amount_received")?,
        // Waiting for the bank, for the buyer, or (`amount_capturable_updated`) for us. It is authorised and not paid.
        Intent::Pending => PaymentStatus::Pending,
        Intent::Failed => words::failed(&intent),
        Intent::Canceled => PaymentStatus::Canceled,
    };
    Ok(PaymentUpdate {
        payment_id: intent.parsed("id")?,
        related_ids: words::charges(&intent)?,
        order_id: order_id(&intent),
        status,
    })
}

fn checkout_session(happened: Session, event: &Object<'_>) -> Result<Meaning, Fault> {
    let session = object(event, "checkout.session")?;
    match session.text("mode")? {
        "payment" => {}
        mode @ ("setup" | "subscription") => return not_a_payment(happened, mode, &session),
        _ => return Err(session.odd("mode", "must be payment, setup or subscription").into()),
    }
    let order_id = order_id(&session);
    let status = match happened {
        Session::Expired => PaymentStatus::Canceled,
        Session::LaterFailed => PaymentStatus::failed("the payment failed"),
        Session::Completed | Session::LaterPaid => match session.text("payment_status")? {
            "paid" => words::session_captured(&session)?,
            // A payment method that takes days. `async_payment_succeeded` or `…_failed` follows.
            "unpaid" if happened == Session::Completed => PaymentStatus::Pending,
            // A discount of the whole price. The price terms of the order decide whether that pays for it.
            "no_payment_required" if session.integer("amount_total")? == 0 => words::session_captured(&session)?,
            // The buyer pays later, and no event of this session will report it.
            "no_payment_required" if order_id.is_none() => return Ok(Meaning::Ignored(IgnoredWhy::NotOurs)),
            "no_payment_required" => {
                let fault = "is no_payment_required with an amount_total above 0: the session of our order was completed \
                             without a payment, so that nothing is granted; decide by hand";
                return Err(session.odd("payment_status", fault).into());
            }
            _ => return Err(session.odd("payment_status", "does not go with this type of event").into()),
        },
    };
    let session_id: PaymentId = session.parsed("id")?;
    let (payment_id, related_ids) = match reference(&session, "payment_intent")? {
        Some(intent_id) => (intent_id, vec![session_id]),
        None => (session_id, Vec::new()),
    };
    Ok(Meaning::Payment(PaymentUpdate { payment_id, related_ids, order_id, status }))
}

/// A session that sets up a payment method or a subscription. Its money belongs to an invoice, which pays for no order. If it names
/// an order, somebody waits for credits that will never come.
fn not_a_payment(happened: Session, mode: &str, session: &Object<'_>) -> Result<Meaning, Fault> {
    let is_over = matches!(happened, Session::Completed | Session::LaterPaid);
    let is_paid = is_over && session.text("payment_status")? != "unpaid";
    if !is_paid {
        return Ok(Meaning::Ignored(IgnoredWhy::NoMoney));
    }
    if order_id(session).is_none() {
        return Ok(Meaning::Ignored(IgnoredWhy::NotOurs));
    }
    let fault = format!(
        "is {mode}: the session of our order is completed, and an order can be paid by a session in mode payment only; refund \
         the buyer, or grant the credits by a new order, and dismiss this"
    );
    let status = words::session_captured(session).ok().map(Box::new);
    Err(Fault { odd: session.odd("mode", fault), status })
}

/// A charge counts if it was made without a payment intent, by an old integration. Its own metadata then contains the order id.
fn charge(happened: Charge, event: &Object<'_>) -> Result<Meaning, Fault> {
    let charge = object(event, "charge")?;
    if reference(&charge, "payment_intent")?.is_some() {
        return Ok(Meaning::Ignored(IgnoredWhy::SaidByAnotherEvent));
    }
    let status = match happened {
        Charge::Paid | Charge::Updated if charge.flag("captured")? && charge.flag("paid")? => {
            words::charge_captured(&charge)?
        }
        Charge::Updated => return Ok(Meaning::Ignored(IgnoredWhy::NoMoney)),
        // Authorised and not captured.
        Charge::Paid | Charge::Pending => PaymentStatus::Pending,
        Charge::Failed => words::charge_failed(&charge),
        Charge::Expired => PaymentStatus::Canceled,
    };
    Ok(Meaning::Payment(of_charge(&charge, charge.parsed("id").map(Some)?, status)?))
}

/// It also fires for partial refunds. `amount_refunded` is the total so far.
fn charge_refunded(event: &Object<'_>) -> Result<Meaning, Fault> {
    let charge = object(event, "charge")?;
    let Some(status) = words::refunded_total(&charge, Shape::of(event)?)? else {
        return Ok(Meaning::Ignored(IgnoredWhy::ReleasedHold));
    };
    Ok(Meaning::Payment(of_charge(&charge, charge.parsed("id").map(Some)?, status)?))
}

fn refund(event: &Object<'_>) -> Result<Meaning, Fault> {
    let refund = object(event, "refund")?;
    let status = words::refund(&refund)?;
    if words::is_released_hold(&refund, Shape::of(event)?) {
        return Ok(Meaning::Ignored(IgnoredWhy::ReleasedHold));
    }
    let charge = reference(&refund, "charge")?;
    if charge.is_none() && reference(&refund, "payment_intent")?.is_none() {
        return Ok(Meaning::Ignored(IgnoredWhy::NoPayment));
    }
    Ok(Meaning::Payment(of_charge(&refund, charge, status)?))
}

/// The payment behind an object of a charge: the payment intent, or the charge itself if it has no intent. Refunds, disputes and
/// charges with an intent have metadata of their own, which is not the place for our order id.
fn of_charge(object: &Object<'_>, charge: Option<PaymentId>, status: PaymentStatus) -> Result<PaymentUpdate, Odd> {
    let is_charge = object.value("object").and_then(Part::as_str) == Some("charge");
    let (payment_id, related_ids, order_id) = match (reference(object, "payment_intent")?, charge) {
        (Some(intent), charge) => (intent, charge.into_iter().collect(), None),
        (None, Some(charge)) => (charge, Vec::new(), if is_charge { order_id(object) } else { None }),
        (None, None) => return Err(object.odd("payment_intent", "is missing, and so is charge")),
    };
    Ok(PaymentUpdate { payment_id, related_ids, order_id, status })
}

/// Where events that cannot be applied carry our order id: in their own metadata, or in that of the subscription of an invoice
/// (before and since `2025-03-31.basil`).
const ORDER_ID_PLACES: [&[&str]; 3] = [&[], &["subscription_details"], &["parent", "subscription_details"]];

/// The readable parts of an event that cannot be applied.
pub(super) fn concerns(event: &Object<'_>, status: Option<PaymentStatus>) -> Concerns {
    let Ok(object) = any_object(event) else { return Concerns { status, ..Concerns::default() } };
    let is = object.value("object").and_then(Part::as_str);
    let own = is.is_some_and(|is| ["payment_intent", "checkout.session", "charge", "invoice"].contains(&is));
    let own_id = own.then(|| object.parsed::<PaymentId>("id").ok()).flatten();
    let named = ["payment_intent", "charge", "latest_charge"].map(|field| reference(&object, field).ok().flatten());
    let mut payment_ids: Vec<PaymentId> = Vec::new();
    for id in [own_id].into_iter().chain(named).flatten() {
        if !payment_ids.contains(&id) {
            payment_ids.push(id);
        }
    }
    payment_ids.truncate(RELATED_IDS_MAX);
    let status = status.or_else(|| invoice_paid(&object));
    Concerns { order_id: named_order(&object), payment_ids, status, ..Concerns::default() }
}

/// The order that an object names, in any place where one may be.
fn named_order(object: &Object<'_>) -> Option<OrderId> {
    ORDER_ID_PLACES.iter().find_map(|path| {
        let (first, rest) = match path.split_first() {
            None => return order_id(object),
            Some((first, rest)) => (object.value(first)?, rest),
        };
        let place = rest.iter().try_fold(first, |part, field| part.get(field))?;
        order_id(&Object::at(place, "data.object")?)
    })
}

fn invoice_paid(object: &Object<'_>) -> Option<PaymentStatus> {
    let is_invoice = object.value("object").and_then(Part::as_str) == Some("invoice");
    let status = is_invoice.then(|| words::captured(object, "amount_paid").ok()).flatten()?;
    let PaymentStatus::Captured { money, state: CaptureState::Succeeded, .. } = &status else { return None };
    (money.amount_minor() > 0).then_some(status)
}

/// An event of a type that goes to an operator if it names an order.
pub(super) fn if_ours(kind: &str, event: &Object<'_>) -> Result<Meaning, Fault> {
    let Ok(object) = any_object(event) else { return Ok(Meaning::Ignored(IgnoredWhy::NotOurs)) };
    if named_order(&object).is_none() {
        return Ok(Meaning::Ignored(IgnoredWhy::NotOurs));
    }
    let has_amount = ["amount_paid", "amount"].iter().any(|field| object.value(field).is_some());
    let is_zero =
        ["amount_paid", "amount"].iter().all(|field| object.value(field).and_then(Part::as_i64).unwrap_or(0) == 0);
    if has_amount && is_zero {
        return Ok(Meaning::Ignored(IgnoredWhy::NoMoney));
    }
    let fault = format!(
        "is {kind} and names an order of ours, which can be paid by a payment intent, a checkout session or a charge only; \
         refund the buyer, or grant the credits by a new order, and dismiss this"
    );
    Err(event.odd("type", fault).into())
}
