//! PayPal's objects in the answers of its API. Fields that no code here reads are left out. Rules from
//! <https://developer.paypal.com/docs/api/orders/v2/> and <https://developer.paypal.com/docs/api/customer-disputes/v1/>.

use super::{Dispute, Payment, Refund, Said, State, Status};
use super::{DisputeState, RefundState};
use crate::OrderId;
use crate::money::Money;
use serde_json::{Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// The type of the event that would report this, if it were sent.
pub(super) fn kind(said: Said) -> &'static str {
    match said {
        Said::Created => "CHECKOUT.ORDER.CREATED",
        Said::Processing | Said::SessionCompleted => "CHECKOUT.ORDER.APPROVED",
        Said::Succeeded => "PAYMENT.CAPTURE.COMPLETED",
        Said::AttemptFailed => "PAYMENT.CAPTURE.DECLINED",
        Said::Canceled => "CHECKOUT.PAYMENT-APPROVAL.REVERSED",
        Said::RefundedTotal(_) | Said::RefundMade(_) | Said::RefundChanged(_) => "PAYMENT.CAPTURE.REFUNDED",
        Said::Disputed(..) => "CUSTOMER.DISPUTE.UPDATED",
    }
}

/// An order, with its capture and the refunds and reversals of the capture. `approve_url` is the address where the buyer agrees.
/// PayPal gives the link another name if the order is for a wallet.
pub(crate) fn order(
    payment: &Payment,
    state: &State,
    order_id: Option<OrderId>,
    approve_url: &str,
    is_for_wallet: bool,
) -> Value {
    let (waiting, rel) = if is_for_wallet { ("PAYER_ACTION_REQUIRED", "payer-action") } else { ("CREATED", "approve") };
    let status = match state.status {
        Status::Open | Status::Failed => waiting,
        Status::Approved => "APPROVED",
        Status::Succeeded => "COMPLETED",
        Status::Canceled => "VOIDED",
    };
    let mut unit = json!({"reference_id": "default", "custom_id": order_id, "amount": amount(payment.money)});
    if let (Status::Succeeded, Some(fields)) = (state.status, unit.as_object_mut()) {
        let refunds = state.refunds.iter().map(|of| refund(payment, of));
        let refunds: Vec<_> = refunds.chain(lost(state).map(|of| reversal(payment, of))).collect();
        let payments = json!({"captures": [capture(payment, state, order_id)], "refunds": refunds});
        fields.insert("payments".to_owned(), payments);
    }
    json!({
        "id": payment.id,
        "status": status,
        "intent": "CAPTURE",
        "create_time": text(payment.created_at),
        "update_time": text(state.since),
        "purchase_units": [unit],
        "links": [{"rel": rel, "href": approve_url, "method": "GET"}],
    })
}

/// The capture of a paid order.
pub(crate) fn capture(payment: &Payment, state: &State, order_id: Option<OrderId>) -> Value {
    let reversed_minor: i64 = lost(state).map(|dispute| dispute.money.amount_minor()).sum();
    let status = match state.refunded_minor() + reversed_minor {
        0 => "COMPLETED",
        part if part < payment.money.amount_minor() => "PARTIALLY_REFUNDED",
        _ => "REFUNDED",
    };
    let changes = state.refunds.iter().map(|refund| refund.at).chain(lost(state).map(|dispute| dispute.since));
    json!({
        "id": capture_id(payment),
        "status": status,
        "amount": amount(payment.money),
        "custom_id": order_id,
        "create_time": text(state.since),
        "update_time": text(changes.fold(state.since, OffsetDateTime::max)),
        "supplementary_data": {"related_ids": {"order_id": payment.id}},
    })
}

/// One refund of a payment.
pub(crate) fn refund(payment: &Payment, refund: &Refund) -> Value {
    let status = match refund.state {
        RefundState::Pending => "PENDING",
        RefundState::Succeeded => "COMPLETED",
        RefundState::Failed => "FAILED",
    };
    json!({
        "id": format!("REFUND{}N{}", payment.tag.to_ascii_uppercase(), refund.number),
        "status": status,
        "amount": amount(refund.money),
        "create_time": text(refund.at),
        "links": [{"rel": "up", "href": format!("/v2/payments/captures/{}", capture_id(payment)), "method": "GET"}],
    })
}

/// Disputes that the buyer won. PayPal reports only that such a dispute is resolved. The money is taken from the capture.
fn lost(state: &State) -> impl Iterator<Item = &Dispute> {
    state.disputes.iter().filter(|dispute| dispute.state == DisputeState::Lost)
}

/// The amount that PayPal took from the seller for a dispute.
fn reversal(payment: &Payment, dispute: &Dispute) -> Value {
    json!({
        "id": format!("REVERSAL{}N{}", payment.tag.to_ascii_uppercase(), dispute.number),
        "status": "COMPLETED",
        "amount": amount(dispute.money),
        "create_time": text(dispute.since),
        "links": [{"rel": "up", "href": format!("/v2/payments/captures/{}", capture_id(payment)), "method": "GET"}],
    })
}

/// One dispute, as a list shows it.
pub(crate) fn dispute(payment: &Payment, dispute: &Dispute) -> Value {
    let (status, stage) = match dispute.state {
        DisputeState::Inquiry => ("WAITING_FOR_SELLER_RESPONSE", "INQUIRY"),
        DisputeState::Open => ("UNDER_REVIEW", "CHARGEBACK"),
        DisputeState::Won | DisputeState::Lost => ("RESOLVED", "CHARGEBACK"),
    };
    json!({
        "dispute_id": format!("PP-D-{}-{}", payment.tag.to_ascii_uppercase(), dispute.number),
        "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
        "status": status,
        "dispute_life_cycle_stage": stage,
        "dispute_amount": amount(dispute.money),
        "create_time": text(dispute.at),
        "update_time": text(dispute.since),
    })
}

/// The id of the payment's capture.
pub(crate) fn capture_id(payment: &Payment) -> String {
    format!("CAPTURE{}", payment.tag.to_ascii_uppercase())
}

fn amount(money: Money) -> Value {
    json!({"currency_code": money.currency().as_str(), "value": money.at_paypal()})
}

/// The time to the second, as PayPal writes it.
fn text(at: OffsetDateTime) -> Option<String> {
    at.replace_nanosecond(0).ok()?.format(&Rfc3339).ok()
}
