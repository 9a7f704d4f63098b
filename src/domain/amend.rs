//! Amending what an order costs: the way out of a mismatch, before the grant only.

use super::decide::{Impossible, settle};
use super::money::{Currency, Money};
use super::order::{Order, OrderStatus, PriceTerms};
use super::status::{CaptureState, DisputePolicy, PaymentEvent, PaymentStatus};

/// What becomes of an order when its price is amended. Never a grant: that is the worker's, for a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Repriced {
    /// The order's status at the new price.
    pub status: OrderStatus,
    /// Whether what is known of the payment brings the grant at the new price. The next message that is admitted does
    /// it; until then the status stays.
    pub is_grant_due: bool,
}

/// Why a price stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AmendmentRefusal {
    /// The credits are granted: from then on the price divides them.
    #[error("its credits are granted already")]
    Granted,
    /// Amounts in the old currency would count as amounts in the new one.
    #[error("money in {0} is known of its payment, so that it stays in {0}")]
    CurrencyKnown(Currency),
    /// A payment's total must be the price, and one is known.
    #[error(
        "the provider has said that {captured_minor} were captured altogether: the price is that, or the order another one"
    )]
    TotalKnown {
        /// In minor units.
        captured_minor: i64,
    },
    /// The greatest discount that is accepted must not be above the price.
    #[error("its discount_max_minor is {max_minor}: the price must not be below it")]
    BelowDiscountMax {
        /// In minor units.
        max_minor: i64,
    },
    /// A fault of ours.
    #[error(transparent)]
    Impossible(#[from] Impossible),
    /// One capture must not be above the price, and one would be.
    #[error("one capture of {captured_minor} is known: the price must not be below it")]
    BelowCapture {
        /// In minor units.
        captured_minor: i64,
    },
}

impl AmendmentRefusal {
    /// The public name.
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

/// What the order becomes at another price; `None` where it has that price already.
///
/// Every joined fact must be one that the order would accept at the new price, too ([`super::assess`]): else what comes
/// later of the same fact, a capture that fails for instance, would be refused, and the credits would stay.
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
    // Without a grant there is nothing that an adjustment could change.
    let status = if posting.grant { order.status } else { posting.status };
    Ok(Some(Repriced { status, is_grant_due: posting.grant }))
}

/// Why a message does not tell the price at which its order would accept it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PriceUntold {
    /// It says something else of the payment.
    #[error("the message does not say that money was captured")]
    NotCaptured,
    /// The order's currency is a decision of its own.
    #[error("the money is in {said}, the order in {order}: amend it by hand")]
    Currency {
        /// Of the money.
        said: Currency,
        /// Of the order.
        order: Currency,
    },
    /// The order's terms leave something out, and the message does not tell how much that was.
    #[error("the message does not tell tax and discount, which price_terms {terms} need")]
    NoBreakdown {
        /// The order's terms.
        terms: &'static str,
    },
    /// No price makes the order accept that discount.
    #[error(
        "the discount of {discount_minor} is above the order's discount_max_minor of {max_minor}, which no new price \
         changes: give the money back at the provider"
    )]
    Discount {
        /// In minor units.
        discount_minor: i64,
        /// In minor units.
        max_minor: i64,
    },
    /// A price is above zero.
    #[error("by the order's terms nothing was paid that could be a price")]
    Nothing,
    /// Beyond every price.
    #[error("what was paid is above every price")]
    OutOfRange,
}

impl PriceUntold {
    /// The public name.
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

/// The price at which the order would accept what a message says was captured: by the order's terms, that is all of it, or
/// without the tax, or without the tax and as it was before the discount.
pub fn price_paid(order: &Order, event: &PaymentEvent) -> Result<Money, PriceUntold> {
    let PaymentStatus::Captured { money, state: CaptureState::Succeeded, breakdown, .. } = &event.status else {
        return Err(PriceUntold::NotCaptured);
    };
    let (said, currency) = (money.currency(), order.price.currency());
    if said != currency {
        return Err(PriceUntold::Currency { said, order: currency });
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
