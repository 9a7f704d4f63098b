//! Reads Stripe's answers about a payment. It makes no calls.

use super::Session;
use crate::domain::dialect::stripe::{
    Shape, captured_of, charge_captured, charge_failed, charges, dispute, dispute_time, failed, is_released_hold,
    money, order_id, refund, refunded_total_of_answer, refunded_units, session_captured, time,
};
use crate::domain::dialect::{Object, Odd, Part};
use crate::domain::{PaymentStatus, RELATED_IDS_MAX};
use crate::provider::{Found, PaymentState};
use serde_json::Value;
use time::OffsetDateTime;

/// A payment intent with its expanded charge, and the objects that belong to it.
pub(super) struct Parts<'v> {
    pub(super) intent: Object<'v>,
    pub(super) hanging: Hanging<'v>,
    pub(super) session: Option<Session>,
    /// The time of the answer, by Stripe's clock.
    pub(super) as_of: Option<OffsetDateTime>,
}

/// All refunds and disputes of a payment.
#[derive(Clone, Copy)]
pub(super) struct Hanging<'v> {
    pub(super) refunds: &'v [Value],
    pub(super) disputes: &'v [Value],
}

impl<'v> Hanging<'v> {
    /// Adds the facts, including the sum of the charge's refunds. Returns the time of the latest one.
    fn add(
        self,
        of: &Object<'_>,
        charge: Option<&Object<'_>>,
        statuses: &mut Vec<PaymentStatus>,
        mut latest: OffsetDateTime,
    ) -> Result<OffsetDateTime, Odd> {
        let objects = |values: &'v [Value]| -> Option<Vec<Object<'v>>> {
            values.iter().map(|value| Object::at(value, "data[]")).collect()
        };
        let (refunds, disputes) = objects(self.refunds)
            .zip(objects(self.disputes))
            .ok_or_else(|| of.odd("data", "must be a list of objects"))?;
        if let Some(charge) = charge {
            let mut listed = 0;
            for object in &refunds {
                listed += i128::from(refunded_units(object)?);
            }
            statuses.extend(refunded_total_of_answer(charge, listed)?);
        }
        for object in &refunds {
            latest = latest.max(time(object, "created")?);
            let status = refund(object)?;
            // In old versions of the API, the released part of a hold is listed as a refund that moved no money.
            if !is_released_hold(object, Shape::Classic) {
                statuses.push(status);
            }
        }
        for object in &disputes {
            latest = latest.max(dispute_time(object)?);
            statuses.push(dispute(object)?);
        }
        Ok(latest)
    }
}

/// The facts are those that the webhooks of the same payment tell.
pub(super) fn of_intent(parts: &Parts<'_>) -> Result<Found, Odd> {
    let intent = &parts.intent;
    let (state, status) = match intent.text("status")? {
        "requires_payment_method" | "requires_confirmation" => (PaymentState::Payable, None),
        // The buyer's bank asks the buyer for something. The buyer can continue or begin again.
        "requires_action" => (PaymentState::Payable, Some(PaymentStatus::Pending)),
        "processing" | "requires_capture" => (PaymentState::Pending, Some(PaymentStatus::Pending)),
        "succeeded" => {
            let received = money(intent, "amount_received")?;
            // The parts of another total would not be parts of this one.
            let priced = parts.session.as_ref().and_then(|session| session.priced.clone());
            let status = match priced {
                Some(priced @ PaymentStatus::Captured { money, .. }) if money == received => priced,
                Some(_) | None => captured_of(received, None),
            };
            (PaymentState::Paid, Some(status))
        }
        "canceled" => (PaymentState::Over, Some(PaymentStatus::Canceled)),
        _ => return Err(intent.odd("status", "must be one that Stripe documents for payment intents")),
    };
    let mut statuses: Vec<_> = status.into_iter().collect();
    let mut occurred_at = time(intent, "created")?;
    if intent.value("canceled_at").is_some() {
        occurred_at = occurred_at.max(time(intent, "canceled_at")?);
    }
    if intent.value("last_payment_error").is_some() {
        statuses.push(failed(intent));
    }
    let charge = intent.value("latest_charge").and_then(|charge| Object::at(charge, "latest_charge"));
    if let Some(charge) = &charge {
        occurred_at = occurred_at.max(time(charge, "created")?);
    }
    occurred_at = parts.hanging.add(intent, charge.as_ref(), &mut statuses, occurred_at)?;
    let session_id = parts.session.as_ref().map(|session| session.id.clone());
    Ok(Found {
        payment_id: intent.parsed("id")?,
        related_ids: session_id.into_iter().chain(charges(intent)?).take(RELATED_IDS_MAX).collect(),
        order_id: order_id(intent).or_else(|| parts.session.as_ref()?.order_id),
        statuses,
        state,
        occurred_at,
        as_of: parts.as_of,
        livemode: intent.flag("livemode")?,
        incomplete: None,
        is_refund_untold: false,
        client_secret: intent.value("client_secret").and_then(Part::as_str).map(str::to_owned),
        approve_url: None,
    })
}

/// Reads a charge that was made without a payment intent.
pub(super) fn of_charge(
    charge: &Object<'_>,
    hanging: Hanging<'_>,
    as_of: Option<OffsetDateTime>,
) -> Result<Found, Odd> {
    let (state, status) = match charge.text("status")? {
        "succeeded" | "paid" if charge.flag("captured")? => (PaymentState::Paid, charge_captured(charge)?),
        // An authorisation expired or was given up. Old versions count all of it as refunded.
        "succeeded" | "paid" if charge.flag("refunded")? => (PaymentState::Over, PaymentStatus::Canceled),
        "succeeded" | "paid" | "pending" => (PaymentState::Pending, PaymentStatus::Pending),
        "failed" => (PaymentState::Over, charge_failed(charge)),
        _ => return Err(charge.odd("status", "must be one that Stripe documents for charges")),
    };
    let mut statuses = vec![status];
    let occurred_at = hanging.add(charge, Some(charge), &mut statuses, time(charge, "created")?)?;
    Ok(Found {
        payment_id: charge.parsed("id")?,
        related_ids: Vec::new(),
        order_id: order_id(charge),
        statuses,
        state,
        occurred_at,
        as_of,
        livemode: charge.flag("livemode")?,
        incomplete: None,
        is_refund_untold: false,
        client_secret: None,
        approve_url: None,
    })
}

/// Reads a checkout session that has no payment intent yet.
pub(super) fn of_session(session: &Object<'_>, as_of: Option<OffsetDateTime>) -> Result<Found, Odd> {
    if session.text("mode")? != "payment" {
        return Err(session.odd("mode", "must be payment: an order can be paid by no other session"));
    }
    let (state, status) = match (session.text("status")?, session.text("payment_status")?) {
        ("open", _) => (PaymentState::Payable, None),
        ("expired", _) => (PaymentState::Over, Some(PaymentStatus::Canceled)),
        ("complete", "paid") => (PaymentState::Paid, Some(session_captured(session)?)),
        // The discount was the whole price.
        ("complete", "no_payment_required") if session.integer("amount_total")? == 0 => {
            (PaymentState::Paid, Some(session_captured(session)?))
        }
        ("complete", "unpaid") => (PaymentState::Pending, Some(PaymentStatus::Pending)),
        _ => return Err(session.odd("payment_status", "does not go with the status")),
    };
    Ok(Found {
        payment_id: session.parsed("id")?,
        related_ids: Vec::new(),
        order_id: order_id(session),
        statuses: status.into_iter().collect(),
        state,
        occurred_at: time(session, "created")?,
        as_of,
        livemode: session.flag("livemode")?,
        incomplete: None,
        is_refund_untold: false,
        client_secret: None,
        approve_url: session.value("url").and_then(Part::as_str).map(str::to_owned),
    })
}
