//! What Stripe's answers say of a payment. Asks nobody.

use super::Session;
use crate::domain::dialect::stripe::{captured, dispute, failed, order_id, reference, refund, refunded_total, time};
use crate::domain::dialect::{Object, Odd, Part};
use crate::domain::{PaymentStatus, RELATED_IDS_MAX};
use crate::provider::{Found, PaymentState};
use serde_json::Value;

/// A payment intent with its charge expanded, and what hangs on it.
pub(super) struct Parts<'v> {
    pub(super) intent: Object<'v>,
    pub(super) refunds: &'v [Value],
    pub(super) disputes: &'v [Value],
    pub(super) session: Option<Session>,
}

/// The facts are those that the webhooks of the same payment tell.
pub(super) fn of_intent(parts: &Parts<'_>) -> Result<Found, Odd> {
    let intent = &parts.intent;
    let (state, said) = match intent.text("status")? {
        "requires_payment_method" | "requires_confirmation" => (PaymentState::Payable, None),
        // The buyer's bank asks him something: he can still go on, or begin anew.
        "requires_action" => (PaymentState::Payable, Some(PaymentStatus::Pending)),
        "processing" | "requires_capture" => (PaymentState::Pending, Some(PaymentStatus::Pending)),
        "succeeded" => (PaymentState::Paid, Some(captured(intent, "amount_received")?)),
        "canceled" => (PaymentState::Over, Some(PaymentStatus::Canceled)),
        _ => return Err(intent.odd("status", "must be one that Stripe documents for payment intents")),
    };
    let mut statuses: Vec<_> = said.into_iter().collect();
    let mut occurred_at = time(intent, "created")?;
    if intent.value("canceled_at").is_some() {
        occurred_at = occurred_at.max(time(intent, "canceled_at")?);
    }
    if intent.value("last_payment_error").is_some() {
        statuses.push(failed(intent));
    }
    if let Some(charge) = intent.value("latest_charge").and_then(|charge| Object::at(charge, "latest_charge")) {
        occurred_at = occurred_at.max(time(&charge, "created")?);
        if charge.integer("amount_refunded")? > 0 {
            statuses.push(refunded_total(&charge)?);
        }
    }
    for value in parts.refunds {
        let object = Object::at(value, "data[]").ok_or_else(|| intent.odd("refunds", "must be objects"))?;
        occurred_at = occurred_at.max(time(&object, "created")?);
        statuses.push(refund(&object)?);
    }
    for value in parts.disputes {
        let object = Object::at(value, "data[]").ok_or_else(|| intent.odd("disputes", "must be objects"))?;
        occurred_at = occurred_at.max(time(&object, "created")?);
        statuses.push(dispute(&object)?);
    }
    let session_id = parts.session.as_ref().map(|session| session.id.clone());
    Ok(Found {
        payment_id: intent.parsed("id")?,
        related_ids: session_id.into_iter().chain(reference(intent, "latest_charge")?).take(RELATED_IDS_MAX).collect(),
        order_id: order_id(intent).or_else(|| parts.session.as_ref()?.order_id),
        statuses,
        state,
        occurred_at,
        livemode: intent.flag("livemode")?,
        incomplete: None,
        is_refund_untold: false,
        client_secret: intent.value("client_secret").and_then(Part::as_str).map(str::to_owned),
        approve_url: None,
    })
}

/// A checkout session that has no payment intent (yet).
pub(super) fn of_session(session: &Object<'_>) -> Result<Found, Odd> {
    if session.text("mode")? != "payment" {
        return Err(session.odd("mode", "must be payment"));
    }
    let (state, said) = match (session.text("status")?, session.text("payment_status")?) {
        ("open", _) => (PaymentState::Payable, None),
        ("expired", _) => (PaymentState::Over, Some(PaymentStatus::Canceled)),
        ("complete", "paid") => (PaymentState::Paid, Some(captured(session, "amount_total")?)),
        ("complete", "unpaid") => (PaymentState::Pending, Some(PaymentStatus::Pending)),
        _ => return Err(session.odd("payment_status", "does not go with the status")),
    };
    Ok(Found {
        payment_id: session.parsed("id")?,
        related_ids: Vec::new(),
        order_id: order_id(session),
        statuses: said.into_iter().collect(),
        state,
        occurred_at: time(session, "created")?,
        livemode: session.flag("livemode")?,
        incomplete: None,
        is_refund_untold: false,
        client_secret: None,
        approve_url: session.value("url").and_then(Part::as_str).map(str::to_owned),
    })
}
