//! Why a message became a dead letter. The names are public: they stand in headers, metrics and the console.

use super::money::Money;
use super::order::Order;

/// A dead letter's reason. A bounded set, so that it can be a metric's label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Reason {
    /// Not a `payment-status.v1` message.
    Malformed,
    /// The routing key and the body do not name the same provider.
    ProviderMismatch,
    /// A live event where `GRANTONCE_LIVEMODE` is false.
    LivemodeMismatch,
    /// No order has this payment, after the last retry.
    UnknownPayment,
    /// The order id or one of the payment's ids belongs to another order.
    PaymentConflict,
    /// The payment belongs to another account at the provider than the order.
    AccountMismatch,
    /// The amount is not the order's.
    AmountMismatch,
    /// The currency is not the order's.
    CurrencyMismatch,
    /// The message id was admitted before with another content.
    IdReused,
    /// The order has more captures, refunds or disputes than are kept.
    TooManyFacts,
    /// A genuine webhook that we cannot translate.
    Untranslatable,
    /// Postgres refuses the data of this one message.
    RejectedByDatabase,
    /// The broker gave up: the message came back too often.
    DeliveryLimit,
    /// Somebody else put it to the dead letters, and does not say why.
    Unexplained,
}

impl Reason {
    /// Every reason, for metrics and documentation.
    pub const ALL: [Self; 14] = [
        Self::Malformed,
        Self::ProviderMismatch,
        Self::LivemodeMismatch,
        Self::UnknownPayment,
        Self::PaymentConflict,
        Self::AccountMismatch,
        Self::AmountMismatch,
        Self::CurrencyMismatch,
        Self::IdReused,
        Self::TooManyFacts,
        Self::Untranslatable,
        Self::RejectedByDatabase,
        Self::DeliveryLimit,
        Self::Unexplained,
    ];

    /// The other way round.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.name() == name)
    }

    /// The public name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::ProviderMismatch => "provider_mismatch",
            Self::LivemodeMismatch => "livemode_mismatch",
            Self::UnknownPayment => "unknown_payment",
            Self::PaymentConflict => "payment_conflict",
            Self::AccountMismatch => "account_mismatch",
            Self::AmountMismatch => "amount_mismatch",
            Self::CurrencyMismatch => "currency_mismatch",
            Self::IdReused => "id_reused",
            Self::TooManyFacts => "too_many_facts",
            Self::Untranslatable => "untranslatable",
            Self::RejectedByDatabase => "rejected_by_database",
            Self::DeliveryLimit => "delivery_limit",
            Self::Unexplained => "unexplained",
        }
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
