//! PayPal's format.
//!
//! Rules from <https://developer.paypal.com/docs/api/orders/v2/>, <https://developer.paypal.com/docs/api/customer-disputes/v1/>
//! and <https://developer.paypal.com/api/rest/reference/currency-codes/>.

use super::json::{Object, Odd, Part};
use crate::domain::{
    Breakdown, CaptureState, Currency, DisputeState, FactId, Money, MoneyError, OrderId, PaymentId, PaymentStatus,
    RefundState,
};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Most digits of an amount. This is more than any accepted amount has, and fits an `i64`.
const AMOUNT_DIGITS_MAX: usize = 18;

/// Longest query of a followed link, in bytes.
const QUERY_BYTES_MAX: usize = 1000;

/// The fact of one capture. A partly refunded capture stands; its refunds are reported by themselves. `breakdown` has the parts of
/// its amount.
pub fn capture(capture: &Object<'_>, breakdown: Option<Breakdown>) -> Result<Vec<PaymentStatus>, Odd> {
    let capture_id: FactId = capture.parsed("id")?;
    let fact = |state| -> Result<PaymentStatus, Odd> {
        Ok(PaymentStatus::Captured {
            money: amount(capture)?,
            capture_id: Some(capture_id.clone()),
            state,
            breakdown: breakdown.filter(|_| state == CaptureState::Succeeded),
        })
    };
    match capture.text("status")? {
        _ if is_counting(capture)? => Ok(vec![fact(CaptureState::Succeeded)?]),
        "PENDING" => Ok(vec![PaymentStatus::Pending]),
        "DECLINED" => Ok(vec![fact(CaptureState::Failed)?, PaymentStatus::failed("the payment was declined")]),
        "FAILED" => Ok(vec![fact(CaptureState::Failed)?, PaymentStatus::failed("the payment failed")]),
        _ => {
            let fault = "must be COMPLETED, PARTIALLY_REFUNDED, REFUNDED, PENDING, DECLINED or FAILED";
            Err(capture.odd("status", fault))
        }
    }
}

/// Whether the money of a capture came in, also if it went back later.
pub fn is_counting(capture: &Object<'_>) -> Result<bool, Odd> {
    Ok(matches!(capture.text("status")?, "COMPLETED" | "PARTIALLY_REFUNDED" | "REFUNDED"))
}

/// The parts of the amount of a purchase unit. `None` if PayPal does not report them.
pub fn breakdown(unit: &Object<'_>) -> Result<Option<Breakdown>, Odd> {
    let total = amount(unit)?;
    let whole = unit.object("amount", "purchase_units[].amount")?;
    if whole.value("breakdown").is_none() {
        return Ok(None);
    }
    let parts = whole.object("breakdown", "purchase_units[].amount.breakdown")?;
    let part = |field: &'static str| -> Result<i64, Odd> {
        if parts.value(field).is_none() {
            return Ok(0);
        }
        let money = money(&parts, field)?;
        if money.currency() != total.currency() {
            return Err(parts.odd(field, "must be in the currency of the amount"));
        }
        Ok(money.amount_minor())
    };
    let sum =
        |fields: &[&'static str]| -> Result<i128, Odd> { fields.iter().map(|field| part(field).map(i128::from)).sum() };
    let discount = sum(&["discount", "shipping_discount"])?;
    let added = sum(&["item_total", "tax_total", "shipping", "handling", "insurance"])?;
    if added - discount != i128::from(total.amount_minor()) {
        let fault = format!("must add up to the amount: its parts come to {}, the amount is {total}", added - discount);
        return Err(whole.odd("breakdown", fault));
    }
    let discount = i64::try_from(discount).map_err(|_| parts.odd("discount", "is out of range"))?;
    Breakdown::new(total, part("tax_total")?, discount).map(Some).map_err(|fault| whole.odd("breakdown", fault))
}

/// The total of all refunds of a refund's capture so far, as the refund reports it. `None` if it does not.
pub fn refunded_of_capture(refund: &Object<'_>) -> Result<Option<Money>, Odd> {
    let (field, total) = ("seller_payable_breakdown", "total_refunded_amount");
    if refund.value(field).is_none() {
        return Ok(None);
    }
    let breakdown = refund.object(field, field)?;
    breakdown.value(total).map(|_| money(&breakdown, total)).transpose()
}

/// The fact of one refund.
pub fn refund(refund: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let state = match refund.text("status")? {
        "PENDING" => RefundState::Pending,
        "COMPLETED" => RefundState::Succeeded,
        "FAILED" | "CANCELLED" => RefundState::Failed,
        _ => return Err(refund.odd("status", "must be PENDING, COMPLETED, FAILED or CANCELLED")),
    };
    Ok(PaymentStatus::Refund { refund_id: refund.parsed("id")?, state, money: amount(refund)? })
}

/// The fact of one dispute from a list. It holds the money only while it is open. What the buyer gets in the end is a refund or a
/// reversal of the capture. That is reported by itself and must not count twice.
pub fn dispute(dispute: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let stage = "dispute_life_cycle_stage";
    let stage = dispute.value(stage).map(|_| dispute.text(stage)).transpose()?;
    let state = match (dispute.text("status")?, stage) {
        // The dispute is resolved in favour of either side.
        ("RESOLVED", _) => DisputeState::Won,
        // Between the buyer and the seller. PayPal does not have to decide yet.
        (_, Some("INQUIRY")) => DisputeState::Inquiry,
        // Somebody has to answer, or a state that PayPal adds later: the money is not ours until PayPal says so.
        _ => DisputeState::Open,
    };
    let money = money(dispute, "dispute_amount")?;
    // Stages after a chargeback are appeals of the seller, whose money is gone by then. They are no new round that would hold it
    // again.
    Ok(PaymentStatus::Dispute { dispute_id: dispute.parsed("dispute_id")?, state, round: 1, money })
}

/// The query for the next page of a list: that of the link to it, if there is one.
pub fn next_query<'v>(page: &Object<'v>) -> Result<Option<&'v str>, Odd> {
    for link in page.list("links", "links[]")? {
        if link.text("rel")? == "next" {
            let query = link.text("href")?.split_once('?').map(|(_, query)| query);
            let query = query.filter(|query| is_query(query));
            return query.map(Some).ok_or_else(|| link.odd("href", "must have a query"));
        }
    }
    Ok(None)
}

/// Whether the text can follow a question mark unchanged.
fn is_query(text: &str) -> bool {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~%=&+/:".contains(&b);
    (1..=QUERY_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_plain)
}

/// Our order id, if `custom_id` is one.
pub fn order_id(object: &Object<'_>) -> Option<OrderId> {
    object.value("custom_id")?.as_str()?.parse().ok()
}

/// The order of a capture or refund, if it is named.
pub fn order_of(object: &Object<'_>) -> Result<Option<PaymentId>, Odd> {
    if object.value("supplementary_data").is_none() {
        return Ok(None);
    }
    let data = object.object("supplementary_data", "supplementary_data")?;
    if data.value("related_ids").is_none() {
        return Ok(None);
    }
    let ids = data.object("related_ids", "supplementary_data.related_ids")?;
    ids.value("order_id").map(|_| ids.parsed("order_id")).transpose()
}

/// The target of the link `up`, if it is such a place: `/captures/` for a refund, `/orders/` for a capture.
pub fn parent(object: &Object<'_>, place: &str) -> Option<PaymentId> {
    let up = object.value("links")?.as_array()?.filter(|link| link.get("rel").and_then(Part::as_str) == Some("up"));
    let mut ids = up.filter_map(|link| link.get("href")?.as_str()?.rsplit_once(place));
    ids.find_map(|(_, id)| id.parse().ok())
}

/// A time. `None` if it is missing.
pub fn time(object: &Object<'_>, field: &str) -> Result<Option<OffsetDateTime>, Odd> {
    if object.value(field).is_none() {
        return Ok(None);
    }
    let time = OffsetDateTime::parse(object.text(field)?, &Rfc3339);
    time.map(Some).map_err(|_| object.odd(field, "must be a date and time, as in RFC 3339"))
}

/// The field `amount` of the object.
pub fn amount(object: &Object<'_>) -> Result<Money, Odd> {
    money(object, "amount")
}

/// Money: a currency and a decimal number as a text.
fn money(object: &Object<'_>, field: &'static str) -> Result<Money, Odd> {
    let amount = object.object(field, field)?;
    let currency: Currency = amount.parsed("currency_code")?;
    let (units, decimals) =
        decimal(amount.text("value")?).ok_or_else(|| amount.odd("value", "must be a decimal number, as in 10.99"))?;
    Money::from_units(units, decimals, currency).map_err(|fault| amount.odd("value", fault))
}

/// `10.99` becomes 1099 with 2 decimals.
fn decimal(text: &str) -> Option<(i64, u8)> {
    let (whole, part) = match text.split_once('.') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text, ""),
    };
    let digits = [whole, part].concat();
    let is_number =
        !whole.is_empty() && digits.len() <= AMOUNT_DIGITS_MAX && digits.bytes().all(|b| b.is_ascii_digit());
    if !is_number {
        return None;
    }
    Some((digits.parse().ok()?, u8::try_from(part.len()).ok()?))
}

/// The amount in PayPal's format.
pub fn amount_text(money: Money) -> Result<String, MoneyError> {
    let decimals = decimals(money.currency());
    let units = money.to_units(decimals)?;
    let scale = 10_i64.checked_pow(u32::from(decimals)).ok_or(MoneyError::OutOfRange(units))?;
    Ok(match decimals {
        0 => units.to_string(),
        _ => format!("{}.{:0width$}", units / scale, units % scale, width = usize::from(decimals)),
    })
}

/// The number of decimals at PayPal. HUF and TWD have two in ISO 4217, and none at PayPal.
fn decimals(currency: Currency) -> u8 {
    match currency.as_str() {
        "HUF" | "JPY" | "TWD" => 0,
        "TND" => 3,
        _ => currency.decimals(),
    }
}
