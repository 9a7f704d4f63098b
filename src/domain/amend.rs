//! Amending what an order costs: the way out of a mismatch, before the grant only.

use super::decide::{Impossible, settle};
use super::money::{Currency, Money};
use super::order::{Order, OrderStatus, PriceTerms};
use super::status::DisputePolicy;

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
