//! The order: what was sold, for how much, and how its payment stands.

use super::facts::PaymentFacts;
use super::ids::{AccountId, OrderId, Provider, ProviderAccount};
use super::money::Money;
use serde::{Deserialize, Serialize};

/// Most credits one order may sell.
pub const CREDITS_MAX: i64 = 1_000_000_000_000_000;

/// How an order stands, as buyers and sites see it. Always derived from the facts, never set by hand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderStatus {
    /// Nothing heard, or the last attempt failed.
    AwaitingPayment,
    /// The provider is at it, or a part of the money is there.
    Processing,
    /// Paid; the credits are granted.
    Fulfilled,
    /// Given up or expired at the provider, and not paid.
    Canceled,
    /// A part of the money went back, and a part of the credits.
    PartiallyRefunded,
    /// All the money went back, and all the credits.
    Refunded,
    /// A dispute is open or lost.
    Disputed,
}

impl OrderStatus {
    /// The public name, also the one in the `orders` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::AwaitingPayment => "awaiting_payment",
            Self::Processing => "processing",
            Self::Fulfilled => "fulfilled",
            Self::Canceled => "canceled",
            Self::PartiallyRefunded => "partially_refunded",
            Self::Refunded => "refunded",
            Self::Disputed => "disputed",
        }
    }

    /// The other way round.
    pub fn from_name(name: &str) -> Option<Self> {
        [
            Self::AwaitingPayment,
            Self::Processing,
            Self::Fulfilled,
            Self::Canceled,
            Self::PartiallyRefunded,
            Self::Refunded,
            Self::Disputed,
        ]
        .into_iter()
        .find(|status| status.name() == name)
    }

    /// Whether a buyer who waits for the outcome has it. A later event may still change a settled order.
    pub fn is_settled(self) -> bool {
        match self {
            Self::AwaitingPayment | Self::Processing => false,
            Self::Fulfilled | Self::Canceled | Self::PartiallyRefunded | Self::Refunded | Self::Disputed => true,
        }
    }
}

/// An order as the worker holds it while its row is locked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Our id.
    pub id: OrderId,
    /// Who gets the credits.
    pub account_id: AccountId,
    /// How many credits are sold; 1 to [`CREDITS_MAX`].
    pub credits: i64,
    /// What it costs; above zero.
    pub price: Money,
    /// Who takes the money.
    pub provider: Provider,
    /// The account at the provider; none is our own.
    pub provider_account: Option<ProviderAccount>,
    /// How it stands.
    pub status: OrderStatus,
    /// Whether the grant is written. Once true, true for ever.
    pub is_granted: bool,
    /// Net credits that the ledger holds for this order: the grant and all adjustments.
    pub credits_posted: i64,
    /// Number of the order's last adjustment; 0 while there is none.
    pub revision: i32,
    /// All that the provider has said so far, joined.
    pub facts: PaymentFacts,
}
