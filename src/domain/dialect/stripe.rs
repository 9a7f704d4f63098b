//! Stripe's format.
//!
//! Rules from <https://docs.stripe.com/api> and <https://docs.stripe.com/currencies>.

use super::json::{Object, Odd, Part, whole};
use crate::domain::{
    Breakdown, CaptureState, Currency, DisputeState, Money, MoneyError, OrderId, PaymentId, PaymentStatus,
    RELATED_IDS_MAX, RefundState, TextError,
};
use time::OffsetDateTime;

/// The first day of `2024-10-28.acacia`. From then on, refunds of every kind have events of their own.
const ACACIA: &str = "2024-10-28";

/// The first day of `2025-03-31.basil`. From then on, a released hold is no refund
/// (<https://docs.stripe.com/changelog/basil/2025-03-31/remove-refund-from-partial-capture-and-payment-cancellation-flow>).
const BASIL: &str = "2025-03-31";

/// How a version of Stripe's API writes refunds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// The form before the version `2024-10-28.acacia`.
    Classic,
    /// From then to before `2025-03-31.basil`.
    Acacia,
    /// The form since that version.
    Basil,
}

impl Shape {
    /// The form of an event, by the day of its `api_version`. Without one, it is the newest.
    pub fn of(event: &Object<'_>) -> Result<Self, Odd> {
        if event.value("api_version").is_none() {
            return Ok(Self::Basil);
        }
        let version = event.text("api_version")?;
        let day = version.split('.').next().unwrap_or(version);
        let is_day = day.len() == 10
            && day.bytes().enumerate().all(|(n, b)| if matches!(n, 4 | 7) { b == b'-' } else { b.is_ascii_digit() });
        if !is_day {
            return Err(event.odd("api_version", "must begin with a day, as in 2025-03-31.basil"));
        }
        Ok(if day < ACACIA {
            Self::Classic
        } else if day < BASIL {
            Self::Acacia
        } else {
            Self::Basil
        })
    }
}

/// The total of a payment intent received so far.
pub fn captured(object: &Object<'_>, amount: &str) -> Result<PaymentStatus, Odd> {
    Ok(captured_of(money(object, amount)?, None))
}

/// The total of a checkout session, with its parts.
pub fn session_captured(session: &Object<'_>) -> Result<PaymentStatus, Odd> {
    Ok(captured_of(money(session, "amount_total")?, breakdown(session)?))
}

/// The total of a checkout session received so far.
pub fn captured_of(money: Money, breakdown: Option<Breakdown>) -> PaymentStatus {
    PaymentStatus::Captured { money, capture_id: None, state: CaptureState::Succeeded, breakdown }
}

/// The captured part of a charge's `amount`, in Stripe's unit. Objects of old versions do not report it.
fn captured_units(charge: &Object<'_>) -> Result<i64, Odd> {
    if charge.value("amount_captured").is_some() {
        return charge.integer("amount_captured");
    }
    if charge.flag("captured")? { charge.integer("amount") } else { Ok(0) }
}

/// The total of a charge without a payment intent so far.
pub fn charge_captured(charge: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let field = if charge.value("amount_captured").is_some() { "amount_captured" } else { "amount" };
    captured(charge, field)
}

/// The parts of a session's total. `None` if the session has no field for them.
///
/// `amount_subtotal − amount_discount + amount_shipping + tax on top = amount_total`. Tax that the prices contain is a part of
/// the subtotal, so the tax on top may be less than `amount_tax` (<https://docs.stripe.com/api/checkout/sessions/object>).
pub fn breakdown(session: &Object<'_>) -> Result<Option<Breakdown>, Odd> {
    let total = money(session, "amount_total")?;
    if session.value("amount_subtotal").is_none() && session.value("total_details").is_none() {
        return Ok(None);
    }
    let subtotal = money(session, "amount_subtotal")?.amount_minor();
    let (mut discount, mut tax, mut shipping) = (0, 0, 0);
    if session.value("total_details").is_some() {
        let details = session.object("total_details", "data.object.total_details")?;
        let part = |field: &str| -> Result<i64, Odd> {
            if details.value(field).is_none() {
                return Ok(0);
            }
            let part = Money::from_units(details.integer(field)?, session_decimals(session)?, total.currency());
            part.map(|money| money.amount_minor()).map_err(|fault| details.odd(field, fault))
        };
        (discount, tax, shipping) = (part("amount_discount")?, part("amount_tax")?, part("amount_shipping")?);
    }
    let wrong = |fault: String| session.odd("total_details", fault);
    // Each lies far below an i64's bounds.
    let tax_on_top = total.amount_minor() - (subtotal - discount + shipping);
    if !(0..=tax).contains(&tax_on_top) {
        return Err(wrong(format!(
            "does not add up: amount_subtotal {subtotal} - amount_discount {discount} + amount_shipping {shipping} + \
             amount_tax {tax} is not amount_total {}",
            total.amount_minor()
        )));
    }
    Breakdown::new(total, tax_on_top, discount).map(Some).map_err(|fault| wrong(fault.to_string()))
}

fn session_decimals(session: &Object<'_>) -> Result<u8, Odd> {
    decimals(currency(session)?).ok_or_else(|| session.odd("currency", UNIT_UNKNOWN))
}

/// Stripe's text for the buyer, else its error code. Never its `decline_code`: the buyer must not see "stolen_card" and the like
/// (<https://docs.stripe.com/declines/codes>), and the buyer sees this reason.
pub fn failed(intent: &Object<'_>) -> PaymentStatus {
    let word = |field| intent.value("last_payment_error")?.get(field)?.as_str();
    PaymentStatus::failed(word("message").or_else(|| word("code")).unwrap_or("the payment failed"))
}

/// The failed attempt of a charge without a payment intent.
pub fn charge_failed(charge: &Object<'_>) -> PaymentStatus {
    let word = |field| charge.value(field)?.as_str();
    PaymentStatus::failed(word("failure_message").or_else(|| word("failure_code")).unwrap_or("the payment failed"))
}

/// The refunds of a charge: the total so far. `None` if all of it is the released part of a hold.
/// Before basil, `amount_refunded` counts against `amount`, so it contains the part that was never captured. (An account can ask to
/// leave that part out. Then the sum may be smaller than that part.)
/// to leave it out: then the sum may be smaller than that part.)
pub fn refunded_total(charge: &Object<'_>, shape: Shape) -> Result<Option<PaymentStatus>, Odd> {
    let refunded = charge.integer("amount_refunded")?;
    let released = match shape {
        Shape::Basil => 0,
        Shape::Classic | Shape::Acacia => released_units(charge)?,
    };
    if released > 0 && refunded == released {
        return Ok(None);
    }
    let given_back = if refunded > released { refunded - released } else { refunded };
    Ok(Some(PaymentStatus::RefundedTotal { money: units_of(charge, "amount_refunded", given_back)? }))
}

/// The authorised part of a charge that was never captured, in Stripe's unit.
fn released_units(charge: &Object<'_>) -> Result<i64, Odd> {
    let amount = charge.integer("amount")?;
    Ok(amount.saturating_sub(captured_units(charge)?).max(0))
}

/// The refunds of a charge in an answer, which lists all of them. `listed` is the sum of those that gave money back, in Stripe's
/// unit. The answer may be of an old version, whatever version was requested. The amount that no refund explains is then the
/// released part of a hold.
pub fn refunded_total_of_answer(charge: &Object<'_>, listed: i128) -> Result<Option<PaymentStatus>, Odd> {
    let refunded = charge.integer("amount_refunded")?;
    // Without both amounts, no part can have been released.
    let tells_capture = charge.value("amount").is_some()
        && (charge.value("amount_captured").is_some() || charge.value("captured").is_some());
    let released = if tells_capture { released_units(charge)? } else { 0 };
    let is_explained = i128::from(refunded) <= listed;
    let shape = if released > 0 && !is_explained { Shape::Classic } else { Shape::Basil };
    if refunded == 0 { Ok(None) } else { refunded_total(charge, shape) }
}

/// The amount that a refund gives back, in Stripe's unit. 0 if it failed or is a released hold.
pub fn refunded_units(refund: &Object<'_>) -> Result<i64, Odd> {
    let has_failed = matches!(self::refund(refund)?, PaymentStatus::Refund { state: RefundState::Failed, .. });
    if has_failed || is_released_hold(refund, Shape::Classic) { Ok(0) } else { refund.integer("amount") }
}

/// Whether a refund is the released part of a hold: it succeeded and moved no money. `charge.refunded` reports the same, so it can
/// be left out.
pub fn is_released_hold(refund: &Object<'_>, shape: Shape) -> bool {
    let has_moved_nothing = match shape {
        Shape::Basil => false,
        Shape::Classic => refund.has_null("balance_transaction"),
        Shape::Acacia => refund.value("balance_transaction").is_none(),
    };
    has_moved_nothing && refund.value("status").and_then(Part::as_str) == Some("succeeded")
}

/// The fact of one refund.
pub fn refund(refund: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let state = match refund.text("status")? {
        "pending" | "requires_action" => RefundState::Pending,
        "succeeded" => RefundState::Succeeded,
        "failed" | "canceled" => RefundState::Failed,
        _ => return Err(refund.odd("status", "must be pending, requires_action, succeeded, failed or canceled")),
    };
    Ok(PaymentStatus::Refund { refund_id: refund.parsed("id")?, state, money: money(refund, "amount")? })
}

/// The fact of one dispute. Its state follows the money, if the dispute reports what moved.
pub fn dispute(dispute: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let disputed = money(dispute, "amount")?;
    let moved = moved(dispute, disputed.currency())?;
    let is_back = moved.is_some_and(|moved| moved.sum >= 0);
    let state = match dispute.text("status")? {
        "won" => DisputeState::Won,
        // In old API versions the money went back as a refund. That is reported by itself and must not count twice.
        "charge_refunded" => DisputeState::Won,
        // Stopped before it became a dispute: by an immediate refund (Visa RDR), or without one.
        "prevented" if moved.is_none() || is_back => DisputeState::Won,
        "prevented" => DisputeState::Lost,
        "lost" if is_back => DisputeState::Won,
        "lost" => DisputeState::Lost,
        warning if warning.starts_with("warning_") => DisputeState::Inquiry,
        // `needs_response`, `under_review`, and states that Stripe adds later: the money is not ours until Stripe says so.
        _ => DisputeState::Open,
    };
    dispute_of(dispute, state, disputed, moved)
}

/// The fact of a dispute in an event that reports returned money, whatever the status of the dispute is by then.
pub fn reinstated(dispute: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let disputed = money(dispute, "amount")?;
    let moved = moved(dispute, disputed.currency())?;
    let is_part = dispute.text("status")? != "won" && moved.is_some_and(|moved| moved.sum < 0);
    dispute_of(dispute, if is_part { DisputeState::Lost } else { DisputeState::Won }, disputed, moved)
}

/// A lost dispute takes the amount that it moved, if that is known in its own currency.
fn dispute_of(
    dispute: &Object<'_>,
    state: DisputeState,
    disputed: Money,
    moved: Option<Moved>,
) -> Result<PaymentStatus, Odd> {
    let taken = moved.filter(|moved| state == DisputeState::Lost && moved.is_in_currency && moved.sum < 0);
    let money = match taken {
        Some(moved) => units_of(dispute, "balance_transactions", moved.sum.saturating_neg())?,
        None => disputed,
    };
    Ok(PaymentStatus::Dispute { dispute_id: dispute.parsed("id")?, state, round: 1, money })
}

/// The money that a dispute moved.
#[derive(Debug, Clone, Copy)]
struct Moved {
    /// The sum, in Stripe's unit, without fees. It is below zero if the money was taken from us.
    sum: i64,
    /// Whether all of it is in the currency of the dispute. The balance of the account may be in another one.
    is_in_currency: bool,
}

/// `None` if the dispute has moved no money yet.
fn moved(dispute: &Object<'_>, disputed: Currency) -> Result<Option<Moved>, Odd> {
    const FIELD: &str = "balance_transactions";
    let mut moved: Option<Moved> = None;
    for transaction in dispute.list(FIELD, "data.object.balance_transactions[]")? {
        let amount = transaction.integer("amount")?;
        let is_in_currency = transaction.value("currency").is_none() || currency(&transaction)? == disputed;
        let before = moved.unwrap_or(Moved { sum: 0, is_in_currency: true });
        let sum = before.sum.checked_add(amount).ok_or_else(|| transaction.odd("amount", "is out of range"))?;
        moved = Some(Moved { sum, is_in_currency: before.is_in_currency && is_in_currency });
    }
    Ok(moved)
}

/// The latest time of a dispute and of the money that it moved.
pub fn dispute_time(dispute: &Object<'_>) -> Result<OffsetDateTime, Odd> {
    let mut latest = time(dispute, "created")?;
    for transaction in dispute.list("balance_transactions", "balance_transactions[]")? {
        if transaction.value("created").is_some() {
            latest = latest.max(time(&transaction, "created")?);
        }
    }
    Ok(latest)
}

/// The id of another object, if there is one: as a text, or in the expanded object.
pub fn reference(object: &Object<'_>, field: &str) -> Result<Option<PaymentId>, Odd> {
    let Some(value) = object.value(field) else { return Ok(None) };
    let id = value.as_str().or_else(|| value.get("id")?.as_str());
    let id = id.ok_or_else(|| object.odd(field, "must be an id"))?;
    whole(id)
        .and_then(|id| id.parse().map_err(|fault: TextError| fault.to_string()))
        .map(Some)
        .map_err(|fault| object.odd(field, fault))
}

/// The ids of a payment intent's charges: `latest_charge`, or before 2022-11-15 those in `charges.data`.
pub fn charges(intent: &Object<'_>) -> Result<Vec<PaymentId>, Odd> {
    let mut ids: Vec<_> = reference(intent, "latest_charge")?.into_iter().collect();
    if intent.value("charges").is_some() {
        for charge in intent.object("charges", "charges")?.list("data", "charges.data[]")? {
            let id: PaymentId = charge.parsed("id")?;
            if !ids.contains(&id) {
                ids.push(id);
            }
        }
    }
    ids.truncate(RELATED_IDS_MAX);
    Ok(ids)
}

/// Our order id, if `metadata.order_id` is one. Only an API key can set metadata. `client_reference_id` does not count, because a
/// buyer can set it in the address of a payment link.
pub fn order_id(object: &Object<'_>) -> Option<OrderId> {
    object.value("metadata")?.get("order_id")?.as_str()?.parse().ok()
}

/// A time in seconds since 1970.
pub fn time(object: &Object<'_>, field: &str) -> Result<OffsetDateTime, Odd> {
    let seconds = object.integer(field)?;
    let time = (seconds >= 0).then(|| OffsetDateTime::from_unix_timestamp(seconds).ok()).flatten();
    time.ok_or_else(|| object.odd(field, "must be a time in seconds since 1970"))
}

/// An amount in the object's own currency.
pub fn money(object: &Object<'_>, amount: &str) -> Result<Money, Odd> {
    units_of(object, amount, object.integer(amount)?)
}

/// An amount of Stripe's units in the object's own currency. `field` is the field that contains it.
fn units_of(object: &Object<'_>, field: &str, units: i64) -> Result<Money, Odd> {
    let currency = currency(object)?;
    let decimals = decimals(currency).ok_or_else(|| object.odd("currency", UNIT_UNKNOWN))?;
    Money::from_units(units, decimals, currency).map_err(|fault| object.odd(field, fault))
}

const UNIT_UNKNOWN: &str = "is one whose unit at Stripe is unknown";

fn currency(object: &Object<'_>) -> Result<Currency, Odd> {
    let code = object.text("currency")?.to_ascii_uppercase();
    Currency::new(&code).map_err(|fault| object.odd("currency", fault))
}

/// The amount in Stripe's unit. `None` if that unit is unknown for the currency.
pub fn units(money: Money) -> Option<Result<i64, MoneyError>> {
    Some(money.to_units(decimals(money.currency())?))
}

/// The number of decimals at Stripe. It differs from ISO 4217: MGA has none, and ISK and UGX keep two, which are always zero.
/// `None` if Stripe's page is silent and ISO's number is not the usual one.
pub fn decimals(currency: Currency) -> Option<u8> {
    match currency.as_str() {
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND" | "VUV" | "XAF"
        | "XOF" | "XPF" => Some(0),
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => Some(3),
        "ISK" | "UGX" => Some(2),
        _ => Some(2).filter(|two| currency.decimals() == *two),
    }
}
