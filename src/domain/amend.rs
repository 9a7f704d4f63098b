//! Amending the price of an order. This is the way out of a mismatch, and it is possible before the grant only.

use super::decide::{Impossible, settle};
use super::money::{Currency, Money};
use super::order::{Order, OrderStatus, PriceTerms};
use super::status::{CaptureState, DisputePolicy, PaymentEvent, PaymentStatus};

/// The result of amending an order's price. It is never a grant: only the worker grants, for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repriced {
    /// The order's status at the new price.
    pub status: OrderStatus,
    /// Whether the known facts bring the grant at the new price. The next admitted message makes the grant; until then the status
    /// stays.
    pub is_grant_due: bool,
}

/// Why a price cannot be changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmendmentRefusal {
    /// The credits are granted. From then on, refunds are divided by the price.
    #[error("its credits are granted already")]
    Granted,
    /// Amounts in the old currency would count as amounts in the new one.
    #[error("money in {0} is known of its payment, so that it stays in {0}")]
    CurrencyKnown(Currency),
    /// The total of a payment must equal the price, and a total is known.
    #[error(
        "the provider has said that {captured_minor} were captured altogether: the price is that, or the order another one"
    )]
    TotalKnown {
        /// The captured amount in minor units.
        captured_minor: i64,
    },
    /// The greatest accepted discount must not be above the price.
    #[error("its discount_max_minor is {max_minor}: the price must not be below it")]
    BelowDiscountMax {
        /// The limit in minor units.
        max_minor: i64,
    },
    /// A fault of this program.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// A capture must not be above the price, and one would be.
    #[error("one capture of {captured_minor} is known: the price must not be below it")]
    BelowCapture {
        /// The captured amount in minor units.
        captured_minor: i64,
    },
}

impl AmendmentRefusal {
    /// The public name of the variant.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Granted => "granted",
            Self::CurrencyKnown(_) => "currency_known",
            Self::TotalKnown { .. } => "total_known",
            Self::BelowCapture { .. } => "below_capture",
            Self::BelowDiscountMax { .. } => "below_discount_max",
            Self::Impossible(_) => "impossible",
        }
    }
}

/// What the order becomes at another price. `None` if it has that price already.
///
/// The order must accept every joined fact at the new price, too ([`super::assess`]). Otherwise a later statement about the same
/// fact, for example that a capture failed, would be refused, and the credits would stay.
pub fn reprice(order: &Order, price: Money, policy: DisputePolicy) -> Result<Option<Repriced>, AmendmentRefusal> {
    if order.price == price {
        return Ok(None);
    }
    if order.is_granted {
        return Err(AmendmentRefusal::Granted);
    }
    let facts = &order.facts;
    if order.price.currency() != price.currency() && facts.has_amounts() {
        return Err(AmendmentRefusal::CurrencyKnown(order.price.currency()));
    }
    if let Some(captured_minor) = facts.total_against(price.amount_minor(), order.price_terms) {
        return Err(AmendmentRefusal::TotalKnown { captured_minor });
    }
    let is_total = order.price_terms == PriceTerms::Total;
    let above = |capture: &i64| is_total && *capture > price.amount_minor();
    if let Some(captured_minor) = facts.greatest_capture_minor().filter(above) {
        return Err(AmendmentRefusal::BelowCapture { captured_minor });
    }
    if let Some(max_minor) = order.price_terms.discount_max_minor().filter(|max| *max > price.amount_minor()) {
        return Err(AmendmentRefusal::BelowDiscountMax { max_minor });
    }
    let posting = settle(&Order { price, ..order.clone() }, policy)?;
    // Without a grant there is nothing to adjust.
    let status = if posting.grant { order.status } else { posting.status };
    Ok(Some(Repriced { status, is_grant_due: posting.grant }))
}

/// Why a message does not lead to a price at which its order would accept it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceUntold {
    /// It reports something else than a captured amount.
    #[error("the message does not say that money was captured")]
    NotCaptured,
    /// Changing the currency of an order is a decision of its own.
    #[error("the money is in {reported}, the order in {order}: amend it by hand")]
    Currency {
        /// The currency of the money.
        reported: Currency,
        /// The currency of the order.
        order: Currency,
    },
    /// The order's price terms leave a part out, and the message does not say how much that part was.
    #[error("the message does not tell tax and discount, which price_terms {terms} need")]
    NoBreakdown {
        /// The order's price terms.
        terms: &'static str,
    },
    /// The order accepts this discount at no price.
    #[error(
        "the discount of {discount_minor} is above the order's discount_max_minor of {max_minor}, which no new price \
         changes: give the money back at the provider"
    )]
    Discount {
        /// The discount in minor units.
        discount_minor: i64,
        /// The limit in minor units.
        max_minor: i64,
    },
    /// A price must be above zero.
    #[error("by the order's terms nothing was paid that could be a price")]
    Nothing,
    /// The amount is above every possible price.
    #[error("what was paid is above every price")]
    OutOfRange,
}

impl PriceUntold {
    /// The public name of the variant.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NotCaptured => "not_captured",
            Self::Currency { .. } => "other_currency",
            Self::NoBreakdown { .. } => "no_breakdown",
            Self::Discount { .. } => "discount_above_limit",
            Self::Nothing => "nothing_paid",
            Self::OutOfRange => "out_of_range",
        }
    }
}

/// The price at which the order would accept the captured amount of a message. The order's price terms decide whether that is the
/// whole amount, the amount without the tax, or that amount before the discount.
pub fn price_paid(order: &Order, event: &PaymentEvent) -> Result<Money, PriceUntold> {
    let PaymentStatus::Captured { money, state: CaptureState::Succeeded, breakdown, .. } = &event.status else {
        return Err(PriceUntold::NotCaptured);
    };
    let (reported, currency) = (money.currency(), order.price.currency());
    if reported != currency {
        return Err(PriceUntold::Currency { reported, order: currency });
    }
    let terms = order.price_terms;
    let worth = match (terms, breakdown) {
        (PriceTerms::Total, _) => i128::from(money.amount_minor()),
        (PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. }, None) => {
            return Err(PriceUntold::NoBreakdown { terms: terms.name() });
        }
        (PriceTerms::BeforeTax | PriceTerms::BeforeTaxAndDiscount { .. }, Some(parts)) => {
            let discount_minor = parts.discount_minor();
            if let Some(max_minor) = terms.discount_max_minor().filter(|max| discount_minor > *max) {
                return Err(PriceUntold::Discount { discount_minor, max_minor });
            }
            terms.worth_minor(money.amount_minor(), *parts)
        }
    };
    if worth <= 0 {
        return Err(PriceUntold::Nothing);
    }
    let price = i64::try_from(worth).ok().and_then(|worth| Money::new(worth, currency).ok());
    price.ok_or(PriceUntold::OutOfRange)
}
