//! An order: what was sold, its price, and the state of its payment.

use super::facts::{Measure, PaymentFacts, Sums};
use super::ids::{AccountId, OrderId, Provider, ProviderAccount};
use super::money::Money;
use super::status::{Breakdown, DisputePolicy, PaymentEvent};

/// Most credits one order may sell.
pub const CREDITS_MAX: i64 = 1_000_000_000_000_000;

/// Which amount of a payment must equal the order's price.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum PriceTerms {
    /// The whole amount that the buyer pays.
    #[default]
    Total,
    /// The amount that the buyer pays, without the tax that was added on top.
    BeforeTax,
    /// The amount without that tax, before the discount.
    BeforeTaxAndDiscount {
        /// The greatest accepted discount, in minor units: 0 to the price.
        discount_max_minor: i64,
    },
}

named! {
    /// [`PriceTerms`] without the limit.
    pub enum PriceTermsKind {
        /// All that the buyer pays.
        Total = "total",
        /// What the buyer pays, without the tax on top.
        BeforeTax = "before_tax",
        /// What the buyer pays, without the tax on top and before a discount.
        BeforeTaxAndDiscount = "before_tax_and_discount",
    }
}

impl PriceTerms {
    /// The public name, also the one in the `orders` table.
    pub fn name(self) -> &'static str {
        match self {
            Self::Total => PriceTermsKind::Total,
            Self::BeforeTax => PriceTermsKind::BeforeTax,
            Self::BeforeTaxAndDiscount { .. } => PriceTermsKind::BeforeTaxAndDiscount,
        }
        .name()
    }

    /// The greatest accepted discount, in minor units. `None` if the terms do not allow discounts.
    pub fn discount_max_minor(self) -> Option<i64> {
        match self {
            Self::Total | Self::BeforeTax => None,
            Self::BeforeTaxAndDiscount { discount_max_minor } => Some(discount_max_minor),
        }
    }

    /// The terms of that name, for an order with that price.
    pub fn new(name: &str, discount_max_minor: Option<i64>, price: Money) -> Result<Self, PriceTermsError> {
        use PriceTermsKind as Kind;
        let kind = Kind::from_name(name).ok_or(PriceTermsError::Unknown)?;
        let terms = match (kind, discount_max_minor) {
            (Kind::Total, None) => Self::Total,
            (Kind::BeforeTax, None) => Self::BeforeTax,
            (Kind::BeforeTaxAndDiscount, Some(discount_max_minor)) => Self::BeforeTaxAndDiscount { discount_max_minor },
            (Kind::BeforeTaxAndDiscount, None) => return Err(PriceTermsError::NoDiscountMax),
            (Kind::Total | Kind::BeforeTax, Some(_)) => return Err(PriceTermsError::NoDiscounts),
        };
        match discount_max_minor {
            Some(max) if !(0..=price.amount_minor()).contains(&max) => {
                Err(PriceTermsError::DiscountMax { max, price_minor: price.amount_minor() })
            }
            Some(_) | None => Ok(terms),
        }
    }

    /// How much of the price a total with these parts pays, in minor units. It must equal the price.
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
    /// The name is unknown.
    #[error("price_terms must be total, before_tax or before_tax_and_discount")]
    Unknown,
    /// The limit is missing.
    #[error("price_terms before_tax_and_discount needs discount_max_minor, the greatest discount to accept")]
    NoDiscountMax,
    /// A limit was given, but the terms do not allow discounts.
    #[error("discount_max_minor goes with price_terms before_tax_and_discount alone")]
    NoDiscounts,
    /// The limit is out of range.
    #[error("discount_max_minor is {max}; it must lie between 0 and the price of {price_minor}")]
    DiscountMax {
        /// The limit in minor units.
        max: i64,
        /// The price in minor units.
        price_minor: i64,
    },
}

named! {
    /// The state of an order, as buyers and sites see it. It is always derived from the facts and never set by hand.
    pub enum OrderStatus {
        /// Nothing was reported, or the last attempt failed.
        AwaitingPayment = "awaiting_payment",
        /// The payment is under way, or a part of the money is there.
        Processing = "processing",
        /// The order is paid and the credits are granted.
        Fulfilled = "fulfilled",
        /// The payment was given up or expired at the provider, and is not paid.
        Canceled = "canceled",
        /// A part of the money went back, and with it a part of the credits.
        PartiallyRefunded = "partially_refunded",
        /// All the money went back, and with it all the credits.
        Refunded = "refunded",
        /// A dispute is open or lost.
        Disputed = "disputed",
    }
}

impl OrderStatus {
    /// Whether a waiting buyer has the outcome. A later event may still change a settled order.
    pub fn is_settled(self) -> bool {
        match self {
            Self::AwaitingPayment | Self::Processing => false,
            Self::Fulfilled | Self::Canceled | Self::PartiallyRefunded | Self::Refunded | Self::Disputed => true,
        }
    }
}

/// An order as the worker reads it for a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    /// Our id of the order.
    pub id: OrderId,
    /// The account that gets the credits.
    pub account_id: AccountId,
    /// The number of credits sold; 1 to [`CREDITS_MAX`].
    pub credits: i64,
    /// The price; above zero.
    pub price: Money,
    /// Which amount of a payment must equal the price.
    pub price_terms: PriceTerms,
    /// The provider that takes the money.
    pub provider: Provider,
    /// The account at the provider. `None`: our own.
    pub provider_account: Option<ProviderAccount>,
    /// The state of the order.
    pub status: OrderStatus,
    /// Whether the grant is written. Once true, it stays true.
    pub is_granted: bool,
    /// Net credits of this order in the ledger: the grant and all adjustments.
    pub credits_posted: i64,
    /// Number of the order's last adjustment. 0: there is none.
    pub revision: i32,
    /// All facts that the provider reported, joined.
    pub facts: PaymentFacts,
}

impl Order {
    /// Joins an accepted event.
    pub fn join(&mut self, event: &PaymentEvent) {
        self.facts.join(event, self.price.currency(), self.price_terms);
    }

    /// Whether an accepted event brings a fact that is not known yet.
    pub fn would_learn(&self, event: &PaymentEvent) -> bool {
        self.facts.would_learn(event, self.price.currency(), self.price_terms)
    }

    /// Money captured so far, of all payments, in minor units.
    pub fn captured_minor(&self, policy: DisputePolicy) -> i128 {
        self.facts.captured_minor(self.measure(policy))
    }

    /// How many payments with the whole price are kept. More than one: the order was paid several times.
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

    /// Whether money is there but its share of the price is unknown, because its parts were not reported.
    pub fn lacks_breakdown(&self, policy: DisputePolicy) -> bool {
        self.price_terms != PriceTerms::Total
            && self.captured_minor(policy) > 0
            && !self.facts.sums(self.measure(policy)).any(|sums| sums.priced.is_some())
    }

    /// The fields that the payments' facts are measured by.
    pub(super) fn measure(&self, policy: DisputePolicy) -> Measure {
        Measure { price_minor: self.price.amount_minor(), terms: self.price_terms, policy }
    }
}
