//! The domain as pure values: ids, money, the facts that a provider can report about a payment, and what they mean for the credits
//! of an order.
//!
//! This room does not wait, reads no clock, and talks to nothing. Every other room may use it; it uses no other room.

mod amend;
mod audit;
mod creation;
mod decide;
pub mod dialect;
mod facts;
mod ids;
mod ignored;
mod letter;
mod letter_content;
mod money;
mod order;
mod reason;
mod schedule;
mod separated;
mod status;
pub mod story;
mod text;

pub use amend::{AmendmentRefusal, PriceUntold, Repriced, price_paid, reprice};
pub use audit::AuditAction;
pub use creation::{ATTEMPTS_MAX, Attempt, KeyRules, NextStep, next_step};
pub use decide::{Impossible, Posting, assess, settle};
pub use facts::{FACTS_MAX, PaymentFacts};
pub use ids::{AccountId, FactId, MessageId, OrderId, PaymentId, Provider, ProviderAccount};
pub use ignored::IgnoredWhy;
pub use letter::{LetterId, LetterState, Outlook, Verdict, VerdictKind, cause_of};
pub use letter_content::LetterContent;
pub use money::{AMOUNT_MINOR_MAX, Currency, Money, MoneyError};
pub use order::{CREDITS_MAX, Order, OrderStatus, PriceTerms, PriceTermsError, PriceTermsKind};
pub use reason::{Reason, Refusal};
pub use schedule::{
    LOOKS_APART, PAID_FIRST_LOOK, allowance, busy_until, can_be_asked, is_unpaid, look_again, next_look,
};
pub use separated::Separated;
pub use status::{
    Breakdown, BreakdownError, CaptureState, DisputePolicy, DisputeState, Hint, PaymentEvent, PaymentStatus,
    RELATED_IDS_MAX, RefundState,
};
pub use text::{TextError, counted, tidy};
