//! The order: what was sold, for how much, and how its payment stands.

use super::facts::{Measure, PaymentFacts, Sums};
use super::ids::{AccountId, OrderId, Provider, ProviderAccount};
use super::money::Money;
use super::status::{Breakdown, DisputePolicy, PaymentEvent};
use serde::{Deserialize, Serialize};

/// Most credits one order may sell.
pub const CREDITS_MAX: i64 = 1_000_000_000_000_000;

/// What of a payment must equal the order's price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PriceTerms {
    /// All that the buyer pays.
    #[default]
    Total,
    /// What the buyer pays, without the tax that was added on top.
    BeforeTax,
    /// The same, as it was before a discount.
    BeforeTaxAndDiscount {
        /// The greatest discount that is accepted, in minor units: 0 to the price.
        discount_max_minor: i64,
    },
}

impl PriceTerms {
    /// The public names.
    pub const NAMES: [&str; 3] = ["total", "before_tax", "before_tax_and_discount"];

    /// The public name, also the one in the `orders` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::BeforeTax => "before_tax",
            Self::BeforeTaxAndDiscount { .. } => "before_tax_and_discount",
        }
    }

    /// The greatest discount that is accepted, in minor units; `None` where the terms do not speak of discounts.
    pub fn discount_max_minor(self) -> Option<i64> {
        match self {
            Self::Total | Self::BeforeTax => None,
            Self::BeforeTaxAndDiscount { discount_max_minor } => Some(discount_max_minor),
        }
    }

    /// The terms of that name for an order of that price.
    pub fn new(name: &str, discount_max_minor: Option<i64>, price: Money) -> Result<Self, PriceTermsError> {
        let terms = match (name, discount_max_minor) {
            ("total", None) => Self::Total,
            ("before_tax", None) => Self::BeforeTax,
            ("before_tax_and_discount", Some(discount_max_minor)) => Self::BeforeTaxAndDiscount { discount_max_minor },
            ("before_tax_and_discount", None) => return Err(PriceTermsError::NoDiscountMax),
            ("total" | "before_tax", Some(_)) => return Err(PriceTermsError::NoDiscounts),
            _ => return Err(PriceTermsError::Unknown),
        };
        match discount_max_minor {
            Some(max) if !(0..=price.amount_minor()).contains(&max) => {
                Err(PriceTermsError::DiscountMax { max, price_minor: price.amount_minor() })
            }
            Some(_) | None => Ok(terms),
        }
    }

    /// How much of the price a total of these parts pays, in minor units. Must equal the price.
    pub(super) fn worth_minor(self, total_minor: i64, breakdown: Breakdown) -> i128 {
        let total = i128::from(total_minor);
        match self {
            Self::Total => total,
            Self::BeforeTax => total - i128::from(breakdown.tax_minor()),
            Self::BeforeTaxAndDiscount { .. } => {
                total - i128::from(breakdown.tax_minor()) + i128::from(breakdown.discount_minor())
            }
        }
    }
}

/// Why price terms are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PriceTermsError {
    /// No such terms.
    #[error("price_terms must be total, before_tax or before_tax_and_discount")]
    Unknown,
    /// The limit is missing.
    #[error("price_terms before_tax_and_discount needs discount_max_minor, the greatest discount to accept")]
    NoDiscountMax,
    /// A limit without discounts.
    #[error("discount_max_minor goes with price_terms before_tax_and_discount alone")]
    NoDiscounts,
    /// The limit is out of range.
    #[error("discount_max_minor is {max}; it must lie between 0 and the price of {price_minor}")]
    DiscountMax {
        /// In minor units.
        max: i64,
        /// In minor units.
        price_minor: i64,
    },
}

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
    /// What of a payment must equal that.
    pub price_terms: PriceTerms,
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

impl Order {
    /// Joins what an accepted event says.
    pub fn join(&mut self, event: &PaymentEvent) {
        self.facts.join(event, self.price.currency(), self.price_terms);
    }

    /// Whether an accepted event says something that is not known yet.
    pub fn would_learn(&self, event: &PaymentEvent) -> bool {
        self.facts.would_learn(event, self.price.currency(), self.price_terms)
    }

    /// Money captured so far, of all payments, in minor units.
    pub fn captured_minor(&self, policy: DisputePolicy) -> i128 {
        self.facts.captured_minor(self.measure(policy))
    }

    /// How many of its payments are kept that each pay the whole price. More than one: it was paid twice, or more often.
    pub fn payments_kept(&self, policy: DisputePolicy) -> usize {
        let price = i128::from(self.price.amount_minor());
        let is_kept = |sums: &Sums| match self.price_terms {
            PriceTerms::Total => sums.kept >= price,
            PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. } => {
                sums.priced.is_some() && sums.captured > 0 && sums.kept == sums.captured
            }
        };
        self.facts.sums(self.measure(policy)).filter(is_kept).count()
    }

    /// Whether money is there of which it is not known how much of the price it pays, because nobody has told its parts.
    pub fn lacks_breakdown(&self, policy: DisputePolicy) -> bool {
        self.price_terms != PriceTerms::Total
            && self.captured_minor(policy) > 0
            && !self.facts.sums(self.measure(policy)).any(|sums| sums.priced.is_some())
    }

    /// What the payments' facts are measured by.
    pub(super) fn measure(&self, policy: DisputePolicy) -> Measure {
        Measure { price_minor: self.price.amount_minor(), terms: self.price_terms, policy }
    }
}
