//! Stripe's objects in its webhooks and in the answers of its API. Fields that no code here reads are left out. Rules from
//! <https://docs.stripe.com/api>.

use super::{Dispute, Event, Payment, Refund, Said, State, Status, Step};
use super::{DisputeState, RefundState};
use crate::OrderId;
use crate::money::Money;
use serde_json::{Value, json};
use time::OffsetDateTime;

/// The fields of a payment intent that change.
#[derive(Debug)]
pub(crate) struct Intent {
    pub(crate) status: &'static str,
    pub(crate) is_paid: bool,
    /// The last attempt was declined.
    pub(crate) has_failed: bool,
    pub(crate) canceled_at: Option<OffsetDateTime>,
    pub(crate) order_id: Option<OrderId>,
    /// The whole charge, if the request asked for it. Else the intent contains only its id.
    pub(crate) expanded: Option<Value>,
}

impl Intent {
    fn of(event: &Event) -> Self {
        let said = event.said;
        let status = match said {
            Said::Processing => "processing",
            Said::Succeeded => "succeeded",
            Said::Canceled => "canceled",
            Said::Created
            | Said::AttemptFailed
            | Said::SessionCompleted
            | Said::RefundedTotal(_)
            | Said::RefundMade(_)
            | Said::RefundChanged(_)
            | Said::Disputed(..) => "requires_payment_method",
        };
        Self {
            status,
            is_paid: said == Said::Succeeded,
            has_failed: said == Said::AttemptFailed,
            canceled_at: (said == Said::Canceled).then_some(event.at),
            order_id: event.order_id,
            expanded: None,
        }
    }

    /// The intent as the API shows it now.
    pub(crate) fn now(state: &State, order_id: Option<OrderId>, expanded: Option<Value>) -> Self {
        let status = match state.status {
            Status::Succeeded => "succeeded",
            Status::Canceled => "canceled",
            Status::Open | Status::Failed | Status::Approved => "requires_payment_method",
        };
        Self {
            status,
            is_paid: state.status == Status::Succeeded,
            has_failed: state.status == Status::Failed,
            canceled_at: (state.status == Status::Canceled).then_some(state.since),
            order_id,
            expanded,
        }
    }
}

/// The type of the event that reports this.
pub(super) fn kind(said: Said) -> &'static str {
    match said {
        Said::Created => "payment_intent.created",
        Said::Processing => "payment_intent.processing",
        Said::AttemptFailed => "payment_intent.payment_failed",
        Said::Succeeded => "payment_intent.succeeded",
        Said::Canceled => "payment_intent.canceled",
        Said::SessionCompleted => "checkout.session.completed",
        Said::RefundedTotal(_) => "charge.refunded",
        Said::RefundMade(_) => "refund.created",
        Said::RefundChanged(refund) if refund.state == RefundState::Failed => "refund.failed",
        Said::RefundChanged(_) => "refund.updated",
        Said::Disputed(_, Step::Created) => "charge.dispute.created",
        Said::Disputed(_, Step::FundsWithdrawn) => "charge.dispute.funds_withdrawn",
        Said::Disputed(_, Step::FundsReinstated) => "charge.dispute.funds_reinstated",
        Said::Disputed(_, Step::Closed) => "charge.dispute.closed",
    }
}

/// An event, with its object as it was at that time.
pub(super) fn event(payment: &Payment, event: &Event) -> Value {
    let object = match event.said {
        Said::Created | Said::Processing | Said::AttemptFailed | Said::Succeeded | Said::Canceled => {
            intent(payment, &Intent::of(event))
        }
        Said::SessionCompleted => session(payment, true, event.order_id),
        Said::RefundedTotal(total) => charge(payment, event.at, total, false),
        Said::RefundMade(made) | Said::RefundChanged(made) => refund(payment, &made),
        Said::Disputed(disputed, _) => dispute(payment, &disputed),
    };
    json!({
        "id": event.id,
        "object": "event",
        "api_version": "2025-09-30.clover",
        "created": event.at.unix_timestamp(),
        "data": {"object": object},
        "livemode": false,
        "pending_webhooks": 1,
        "request": {"id": null, "idempotency_key": null},
        "type": kind(event.said),
    })
}

/// A payment intent.
pub(crate) fn intent(payment: &Payment, now: &Intent) -> Value {
    let amount = amount(payment.money);
    let declined = json!({"code": "card_declined", "message": "Your card was declined.", "type": "card_error"});
    let charge = now.is_paid.then(|| now.expanded.clone().unwrap_or_else(|| charge_id(payment).into()));
    json!({
        "id": payment.id,
        "object": "payment_intent",
        "amount": amount,
        "amount_capturable": 0,
        "amount_received": if now.is_paid { amount } else { 0 },
        "canceled_at": now.canceled_at.map(OffsetDateTime::unix_timestamp),
        "capture_method": "automatic_async",
        "client_secret": format!("{}_secret_demo", payment.id),
        "created": payment.created_at.unix_timestamp(),
        "currency": currency(payment),
        "last_payment_error": now.has_failed.then_some(declined),
        "latest_charge": charge,
        "livemode": false,
        "metadata": metadata(now.order_id),
        "status": now.status,
    })
}

/// The checkout session that created the payment.
pub(crate) fn session(payment: &Payment, is_paid: bool, order_id: Option<OrderId>) -> Value {
    json!({
        "id": format!("cs_test_{}", payment.tag),
        "object": "checkout.session",
        "amount_total": amount(payment.money),
        "client_reference_id": null,
        "created": payment.created_at.unix_timestamp(),
        "currency": currency(payment),
        "livemode": false,
        "metadata": metadata(order_id),
        "mode": "payment",
        "payment_intent": payment.id,
        "payment_status": if is_paid { "paid" } else { "unpaid" },
        "status": if is_paid { "complete" } else { "open" },
    })
}

/// The charge of a paid intent.
pub(crate) fn charge(payment: &Payment, at: OffsetDateTime, refunded_minor: i64, is_disputed: bool) -> Value {
    let refunded = payment.part(refunded_minor).map_or(0, amount);
    json!({
        "id": charge_id(payment),
        "object": "charge",
        "amount": amount(payment.money),
        "amount_captured": amount(payment.money),
        "amount_refunded": refunded,
        "created": at.unix_timestamp(),
        "currency": currency(payment),
        "disputed": is_disputed,
        "livemode": false,
        "metadata": {},
        "paid": true,
        "payment_intent": payment.id,
        "refunded": refunded == amount(payment.money),
        "status": "succeeded",
    })
}

/// One refund of a payment.
pub(crate) fn refund(payment: &Payment, refund: &Refund) -> Value {
    let status = match refund.state {
        RefundState::Pending => "pending",
        RefundState::Succeeded => "succeeded",
        RefundState::Failed => "failed",
    };
    json!({
        "id": format!("re_{}r{}", payment.tag, refund.number),
        "object": "refund",
        "amount": amount(refund.money),
        "charge": charge_id(payment),
        "created": refund.at.unix_timestamp(),
        "currency": currency(payment),
        "metadata": {},
        "payment_intent": payment.id,
        "reason": "requested_by_customer",
        "status": status,
    })
}

/// One dispute of a payment.
pub(crate) fn dispute(payment: &Payment, dispute: &Dispute) -> Value {
    let status = match dispute.state {
        DisputeState::Inquiry => "warning_needs_response",
        DisputeState::Open => "needs_response",
        DisputeState::Won => "won",
        DisputeState::Lost => "lost",
    };
    json!({
        "id": format!("dp_{}d{}", payment.tag, dispute.number),
        "object": "dispute",
        "amount": amount(dispute.money),
        "charge": charge_id(payment),
        "created": dispute.at.unix_timestamp(),
        "currency": currency(payment),
        "is_charge_refundable": false,
        "livemode": false,
        "metadata": {},
        "payment_intent": payment.id,
        "reason": "fraudulent",
        "status": status,
    })
}

fn charge_id(payment: &Payment) -> String {
    format!("ch_{}", payment.tag)
}

fn currency(payment: &Payment) -> String {
    payment.money.currency().as_str().to_ascii_lowercase()
}

fn amount(money: Money) -> i64 {
    money.at_stripe()
}

fn metadata(order_id: Option<OrderId>) -> Value {
    order_id.map_or_else(|| json!({}), |order_id| json!({"order_id": order_id}))
}
