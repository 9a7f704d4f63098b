//! The wire contract's words, for a sender that signs by Standard Webhooks.

use super::{Event, Payment, Said, Seller};
use crate::domain::{CaptureState, FactId, MessageId, PaymentEvent, PaymentId, PaymentStatus, Provider};
use crate::message;
use bytes::Bytes;

/// The name of what is said.
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

/// None for ids that break our own rules for ids, which ours do not.
pub(super) fn message(payment: &Payment, event: &Event) -> Option<Bytes> {
    let paid = PaymentStatus::Captured {
        money: payment.money,
        capture_id: None,
        state: CaptureState::Succeeded,
        breakdown: None,
    };
    let mut related = None;
    let status = match event.said {
        Said::Created | Said::Processing => PaymentStatus::Pending,
        Said::AttemptFailed => PaymentStatus::failed("card declined"),
        Said::Succeeded => paid,
        Said::SessionCompleted => {
            related = Some(format!("checkout_{}", payment.tag));
            paid
        }
        Said::Canceled => PaymentStatus::Canceled,
        Said::RefundedTotal(total) => PaymentStatus::RefundedTotal { money: payment.part(total).ok()? },
        Said::RefundMade(refund) | Said::RefundChanged(refund) => PaymentStatus::Refund {
            refund_id: FactId::new(format!("re_{}r{}", payment.tag, refund.number)).ok()?,
            state: refund.state,
            money: refund.money,
        },
        Said::Disputed(dispute, _) => PaymentStatus::Dispute {
            dispute_id: FactId::new(format!("dp_{}d{}", payment.tag, dispute.number)).ok()?,
            state: dispute.state,
            round: 1,
            money: dispute.money,
        },
    };
    let name = Seller::Standard.name();
    let event = PaymentEvent {
        provider: Provider::new(name).ok()?,
        message_id: MessageId::new(format!("{name}::{}", event.id)).ok()?,
        payment_id: PaymentId::new(&payment.id).ok()?,
        related_ids: related.and_then(|id| PaymentId::new(id).ok()).into_iter().collect(),
        provider_account: None,
        order_id: event.order_id,
        status,
        occurred_at: event.at,
        as_of: None,
        livemode: false,
    };
    message::encode(&event).ok().map(Bytes::from)
}
