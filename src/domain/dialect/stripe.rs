//! Stripe's words.
//!
//! Rules from <https://docs.stripe.com/api> and <https://docs.stripe.com/currencies>.

use super::json::{Object, Odd};
use crate::domain::{
    CaptureState, Currency, DisputeState, Money, MoneyError, OrderId, PaymentId, PaymentStatus, RefundState,
};
use time::OffsetDateTime;

/// The whole sum received so far.
pub fn captured(object: &Object<'_>, amount: &str) -> Result<PaymentStatus, Odd> {
    Ok(PaymentStatus::Captured {
        money: money(object, amount)?,
        capture_id: None,
        state: CaptureState::Succeeded,
        breakdown: None,
    })
}

/// Stripe's words for the buyer, else its error code. Never its `decline_code`: "stolen_card" and the like must not be
/// shown to the buyer (<https://docs.stripe.com/declines/codes>), and this reason is.
pub fn failed(intent: &Object<'_>) -> PaymentStatus {
    let word = |field| intent.value("last_payment_error")?.get(field)?.as_str();
    PaymentStatus::failed(word("message").or_else(|| word("code")).unwrap_or("the payment failed"))
}

/// What a charge says of its refunds: the sum so far.
pub fn refunded_total(charge: &Object<'_>) -> Result<PaymentStatus, Odd> {
    Ok(PaymentStatus::RefundedTotal { money: money(charge, "amount_refunded")? })
}

/// One refund.
pub fn refund(refund: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let state = match refund.text("status")? {
        "pending" | "requires_action" => RefundState::Pending,
        "succeeded" => RefundState::Succeeded,
        "failed" | "canceled" => RefundState::Failed,
        _ => return Err(refund.odd("status", "must be pending, requires_action, succeeded, failed or canceled")),
    };
    Ok(PaymentStatus::Refund { refund_id: refund.parsed("id")?, state, money: money(refund, "amount")? })
}

/// One dispute.
pub fn dispute(dispute: &Object<'_>) -> Result<PaymentStatus, Odd> {
    let state = match dispute.text("status")? {
        // `prevented`: stopped before it became a dispute.
        "won" | "prevented" => DisputeState::Won,
        // Of old API versions: the money went back as a refund, which is reported by itself and must not count twice.
        "charge_refunded" => DisputeState::Won,
        "lost" => DisputeState::Lost,
        warning if warning.starts_with("warning_") => DisputeState::Inquiry,
        // `needs_response`, `under_review`, and what Stripe may add: the money is not ours until it says so.
        _ => DisputeState::Open,
    };
    let money = money(dispute, "amount")?;
    Ok(PaymentStatus::Dispute { dispute_id: dispute.parsed("id")?, state, round: 1, money })
}

/// The id of another object, where there is one: as such, or within the object where that was expanded.
pub fn reference(object: &Object<'_>, field: &str) -> Result<Option<PaymentId>, Odd> {
    let Some(value) = object.value(field) else { return Ok(None) };
    let id = value.as_str().or_else(|| value.get("id")?.as_str());
    let id = id.ok_or_else(|| object.odd(field, "must be an id"))?;
    id.parse().map(Some).map_err(|fault| object.odd(field, fault))
}

/// Ours, where `metadata.order_id` is one: only an API key can set metadata. `client_reference_id` does not count, which
/// a buyer can set in the address of a payment link.
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
    let units = object.integer(amount)?;
    let code = object.text("currency")?.to_ascii_uppercase();
    let currency = Currency::new(&code).map_err(|fault| object.odd("currency", fault))?;
    let decimals =
        decimals(currency).ok_or_else(|| object.odd("currency", "is one whose unit at Stripe is unknown"))?;
    Money::from_units(units, decimals, currency).map_err(|fault| object.odd(amount, fault))
}

/// The amount in Stripe's unit; none where Stripe's unit of that currency is unknown.
pub fn units(money: Money) -> Option<Result<i64, MoneyError>> {
    Some(money.to_units(decimals(money.currency())?))
}

/// How many decimals Stripe counts. Not ISO 4217's: MGA has none there, and ISK and UGX keep two, always zero, as they
/// had before they lost them. None where Stripe's page says nothing and ISO's number is not the usual one.
pub fn decimals(currency: Currency) -> Option<u8> {
    match currency.as_str() {
        "BIF" | "CLP" | "DJF" | "GNF" | "JPY" | "KMF" | "KRW" | "MGA" | "PYG" | "RWF" | "VND" | "VUV" | "XAF"
        | "XOF" | "XPF" => Some(0),
        "BHD" | "JOD" | "KWD" | "OMR" | "TND" => Some(3),
        "ISK" | "UGX" => Some(2),
        _ => Some(2).filter(|two| currency.decimals() == *two),
    }
}
