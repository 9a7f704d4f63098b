//! The messages of the contract, for a sender that signs with Standard Webhooks.

use super::{DisputeState, Event, Payment, RefundState, Said, Seller};
use crate::money::Money;
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

/// The name of an event's type.
pub(super) fn kind(said: Said) -> &'static str {
    match said {
        Said::Created | Said::Processing => "pending",
        Said::AttemptFailed => "failed",
        Said::Succeeded | Said::SessionCompleted => "captured",
        Said::Canceled => "canceled",
        Said::RefundedTotal(_) => "refunded_total",
        Said::RefundMade(_) | Said::RefundChanged(_) => "refund",
        Said::Disputed(..) => "dispute",
    }
}

/// The message as the public contract `contract/payment-status.v1.schema.json` describes it.
pub(super) fn message(payment: &Payment, event: &Event) -> Value {
    let with_money = |kind: &str, money: Money| json!({"type": kind, "amount_minor": money.amount_minor(), "currency": money.currency().as_str()});
    let mut related_ids = Vec::new();
    let mut status = match event.said {
        Said::AttemptFailed => json!({"type": "failed", "reason": "card declined"}),
        Said::Created | Said::Processing | Said::Canceled => json!({"type": kind(event.said)}),
        Said::Succeeded => with_money("captured", payment.money),
        Said::SessionCompleted => {
            related_ids.push(format!("checkout_{}", payment.tag));
            with_money("captured", payment.money)
        }
        // The total is never larger than a payment may be.
        Said::RefundedTotal(total) => with_money("refunded_total", payment.part(total).unwrap_or(payment.money)),
        Said::RefundMade(refund) | Said::RefundChanged(refund) => with_money("refund", refund.money),
        Said::Disputed(dispute, _) => with_money("dispute", dispute.money),
    };
    let more = match event.said {
        Said::RefundMade(refund) | Said::RefundChanged(refund) => json!({
            "refund_id": format!("re_{}r{}", payment.tag, refund.number),
            "state": match refund.state {
                RefundState::Pending => "pending",
                RefundState::Succeeded => "succeeded",
                RefundState::Failed => "failed",
            },
        }),
        Said::Disputed(dispute, _) => json!({
            "dispute_id": format!("dp_{}d{}", payment.tag, dispute.number),
            "round": 1,
            "state": match dispute.state {
                DisputeState::Inquiry => "inquiry",
                DisputeState::Open => "open",
                DisputeState::Won => "won",
                DisputeState::Lost => "lost",
            },
        }),
        Said::Created
        | Said::Processing
        | Said::AttemptFailed
        | Said::Succeeded
        | Said::SessionCompleted
        | Said::Canceled
        | Said::RefundedTotal(_) => json!({}),
    };
    if let (Some(status), Value::Object(more)) = (status.as_object_mut(), more) {
        status.extend(more);
    }
    let name = Seller::Standard.name();
    json!({
        "provider": name,
        "message_id": format!("{name}::{}", event.id),
        "payment_id": payment.id,
        "related_ids": related_ids,
        "provider_account": null,
        "order_id": event.order_id,
        "status": status,
        "occurred_at": event.at.format(&Rfc3339).ok(),
        "livemode": false,
    })
}
