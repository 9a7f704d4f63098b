//! Why a message became a dead letter. The names are public: they stand in headers, metrics and the console.

use super::money::Money;
use super::order::Order;

named! {
    /// A dead letter's reason. A bounded set, so that it can be a metric's label.
    #[derive(PartialOrd, Ord)]
    pub enum Reason {
        /// Not a `payment-status.v1` message: its properties or its body are wrong, or its message id does not begin with its
        /// provider's name.
        Malformed = "malformed",
        /// Published under another key than `payment.<provider>`.
        ProviderMismatch = "provider_mismatch",
        /// A live event where `GRANTONCE_LIVEMODE` is false.
        LivemodeMismatch = "livemode_mismatch",
        /// No order has this payment after the last attempt.
        UnknownPayment = "unknown_payment",
        /// Its ids, its `order_id` or its provider lead to another order.
        PaymentConflict = "payment_conflict",
        /// The payment belongs to another account at the provider than the order.
        AccountMismatch = "account_mismatch",
        /// The amount is not the order's, for example because of tax, a promotion code, or another currency's minor unit.
        AmountMismatch = "amount_mismatch",
        /// The currency is not the order's.
        CurrencyMismatch = "currency_mismatch",
        /// Its message id was admitted before, with another content.
        IdReused = "id_reused",
        /// The order has 1,000 captures, refunds or disputes.
        TooManyFacts = "too_many_facts",
        /// A genuine webhook that grantonce does not understand. The body is the webhook as it was received, and the property
        /// `type` is `webhook.<provider>`.
        Untranslatable = "untranslatable",
        /// Postgres refuses the data of this message. The detail has the SQLSTATE.
        RejectedByDatabase = "rejected_by_database",
        /// RabbitMQ gave up, because the message was returned more than 100 times. Such a letter has RabbitMQ's header
        /// `x-death`.
        DeliveryLimit = "delivery_limit",
        /// Somebody else published it to `payments.dead`, or moved it there by hand, without a reason.
        Unexplained = "unexplained",
    }
}

/// A message that will never be applied as things stand: the reason, and the cause in a sentence for an operator.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}: {detail}", reason.name())]
pub struct Refusal {
    /// The reason, one of a fixed set.
    pub reason: Reason,
    /// What exactly, and what would mend it. Holds ids and amounts, never a body or a secret.
    pub detail: String,
}

impl Refusal {
    /// A refusal for a reason, with a sentence.
    pub fn new(reason: Reason, detail: impl Into<String>) -> Self {
        Self { reason, detail: detail.into() }
    }

    pub(super) fn currency(order: &Order, reported: Money) -> Self {
        Self::new(
            Reason::CurrencyMismatch,
            format!("order {} is in {}, the provider says {reported}", order.id, order.price.currency()),
        )
    }

    pub(super) fn amount(order: &Order, reported: Money, rule: &str) -> Self {
        Self::new(
            Reason::AmountMismatch,
            format!("order {} costs {}, the provider says {reported}: {rule}", order.id, order.price),
        )
    }
}
