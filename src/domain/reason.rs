//! Why a message became a dead letter. The names are public: they stand in headers, metrics and the console.

use super::money::Money;
use super::order::Order;

named! {
    /// A dead letter's reason. A bounded set, so that it can be a metric's label.
    #[derive(PartialOrd, Ord)]
    pub enum Reason {
        /// Not a `payment-status.v1` message.
        Malformed = "malformed",
        /// The routing key and the body do not name the same provider.
        ProviderMismatch = "provider_mismatch",
        /// A live event where `GRANTONCE_LIVEMODE` is false.
        LivemodeMismatch = "livemode_mismatch",
        /// No order has this payment, after the last retry.
        UnknownPayment = "unknown_payment",
        /// The order id or one of the payment's ids belongs to another order.
        PaymentConflict = "payment_conflict",
        /// The payment belongs to another account at the provider than the order.
        AccountMismatch = "account_mismatch",
        /// The amount is not the order's.
        AmountMismatch = "amount_mismatch",
        /// The currency is not the order's.
        CurrencyMismatch = "currency_mismatch",
        /// The message id was admitted before with another content.
        IdReused = "id_reused",
        /// The order has more captures, refunds or disputes than are kept.
        TooManyFacts = "too_many_facts",
        /// A genuine webhook that we cannot translate.
        Untranslatable = "untranslatable",
        /// Postgres refuses the data of this one message.
        RejectedByDatabase = "rejected_by_database",
        /// The broker gave up: the message came back too often.
        DeliveryLimit = "delivery_limit",
        /// Somebody else put it to the dead letters, and does not say why.
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
