//! Dead letters: what tells one from another, what they have in common, and what a replay would come to.

use super::decide::{Impossible, settle};
use super::ids::{AccountId, OrderId, PaymentId, Provider};
use super::order::{Order, OrderStatus};
use super::reason::Refusal;
use super::status::{CaptureState, DisputePolicy, PaymentEvent, PaymentStatus};
use super::text::TextError;
use serde::Serialize;
use std::fmt;
use std::str::FromStr;

/// Which dead letter: a digest of what it holds and of where it was published, so that every copy has the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Serialize)]
#[serde(transparent)]
pub struct LetterId(pub uuid::Uuid);

impl fmt::Display for LetterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for LetterId {
    type Err = TextError;
    fn from_str(text: &str) -> Result<Self, TextError> {
        // Only the hyphenated form, so that one letter has one address everywhere.
        let id = uuid::Uuid::try_parse(text).ok().filter(|_| text.len() == 36);
        id.map(Self).ok_or(TextError::BadForm("a UUID such as 5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f"))
    }
}

named! {
    /// The state of a dead letter.
    pub enum LetterState {
        /// It waits for an operator.
        Open = "open",
        /// It was replayed, or is about to be. The result is not known yet.
        Replaying = "replaying",
        /// Its fact is applied: a replay would change nothing.
        Resolved = "resolved",
        /// An operator decided that nothing is to be done.
        Archived = "archived",
    }
}

/// What applying one message would come to, as things stand.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The order's credits would be granted.
    WouldGrant {
        /// The order that gets the grant.
        order_id: OrderId,
        /// The account that gets the credits.
        account_id: AccountId,
        /// How many, after what is known of refunds and disputes.
        credits: i64,
    },
    /// Credits that were granted would be taken back, or given again.
    WouldAdjust {
        /// The order that is adjusted.
        order_id: OrderId,
        /// The account of the order.
        account_id: AccountId,
        /// How many, with their sign.
        credits: i64,
    },
    /// The order would learn something; no credit would move.
    WouldChange {
        /// The order of the message.
        order_id: OrderId,
        /// What it would be then.
        status: OrderStatus,
    },
    /// The provider would be asked.
    WouldAsk {
        /// The payment that the provider is asked about.
        payment_id: PaymentId,
    },
    /// No order has this payment: it would be put off, and come back.
    OrderUnknown {
        /// The provider of the payment.
        provider: Provider,
        /// The payment without an order.
        payment_id: PaymentId,
        /// The order that the message names, which does not exist.
        order_id: Option<OrderId>,
    },
    /// Its order's row cannot be read: it would be put off until somebody has mended that.
    OrderUnreadable {
        /// The order that cannot be read.
        order_id: OrderId,
        /// Why the order cannot be read.
        detail: String,
    },
    /// It would come back.
    WouldBeRefused(Refusal),
    /// All that it says is known already.
    AlreadyApplied {
        /// The order that has the fact.
        order_id: OrderId,
        /// Net credits that the order has.
        credits: i64,
    },
    /// It says nothing that could be applied: a test event, or no money.
    NothingToDo {
        /// Why, in a few words.
        why: &'static str,
    },
}

named! {
    /// What kind of verdict it is. If a letter holds several messages, the first kind in this order counts.
    #[derive(PartialOrd, Ord)]
    pub enum VerdictKind {
        /// The order's credits would be granted.
        WouldGrant = "would_grant",
        /// Credits would be taken back, or given again.
        WouldAdjust = "would_adjust",
        /// The order would change, and no credits would move.
        WouldChange = "would_change",
        /// The provider would be asked.
        WouldAsk = "would_ask",
        /// No order has this payment.
        OrderUnknown = "order_unknown",
        /// The order's row cannot be read.
        OrderUnreadable = "order_unreadable",
        /// The message would become a dead letter again.
        WouldBeRefused = "would_be_refused",
        /// The order knows everything that the message says.
        AlreadyApplied = "already_applied",
        /// The message says nothing that could be applied.
        NothingToDo = "nothing_to_do",
    }
}

impl VerdictKind {
    /// Whether a replay would do something.
    pub fn is_helpful(self) -> bool {
        match self {
            Self::WouldGrant | Self::WouldAdjust | Self::WouldChange | Self::WouldAsk => true,
            Self::OrderUnknown
            | Self::OrderUnreadable
            | Self::WouldBeRefused
            | Self::AlreadyApplied
            | Self::NothingToDo => false,
        }
    }

    /// Whether there is nothing left to do: a letter of nothing else is resolved.
    pub fn is_done(self) -> bool {
        match self {
            Self::AlreadyApplied | Self::NothingToDo => true,
            Self::WouldGrant
            | Self::WouldAdjust
            | Self::WouldChange
            | Self::WouldAsk
            | Self::OrderUnknown
            | Self::OrderUnreadable
            | Self::WouldBeRefused => false,
        }
    }
}

impl Verdict {
    /// The kind without its details.
    pub fn kind(&self) -> VerdictKind {
        match self {
            Self::WouldGrant { .. } => VerdictKind::WouldGrant,
            Self::WouldAdjust { .. } => VerdictKind::WouldAdjust,
            Self::WouldChange { .. } => VerdictKind::WouldChange,
            Self::WouldAsk { .. } => VerdictKind::WouldAsk,
            Self::OrderUnknown { .. } => VerdictKind::OrderUnknown,
            Self::OrderUnreadable { .. } => VerdictKind::OrderUnreadable,
            Self::WouldBeRefused(_) => VerdictKind::WouldBeRefused,
            Self::AlreadyApplied { .. } => VerdictKind::AlreadyApplied,
            Self::NothingToDo { .. } => VerdictKind::NothingToDo,
        }
    }

    /// The kind's public name.
    pub fn name(&self) -> &'static str {
        self.kind().name()
    }

    /// What an event that its order accepts, and whose message was not admitted before, would come to.
    pub fn of_accepted(
        order: &Order,
        event: &PaymentEvent,
        policy: DisputePolicy,
        brings_ids: bool,
    ) -> Result<Self, Impossible> {
        let mut after = order.clone();
        after.join(event);
        let posting = settle(&after, policy)?;
        let order_id = order.id;
        if posting.grant {
            let account_id = order.account_id.clone();
            return Ok(Self::WouldGrant { order_id, account_id, credits: posting.credits_net });
        }
        Ok(match posting.adjustment {
            0 if after.facts == order.facts && posting.status == order.status && !brings_ids => {
                Self::AlreadyApplied { order_id, credits: order.credits_posted }
            }
            0 => Self::WouldChange { order_id, status: posting.status },
            credits => Self::WouldAdjust { order_id, account_id: order.account_id.clone(), credits },
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WouldGrant { order_id, account_id, credits } => {
                write!(f, "would grant {credits} credits to {account_id} (order {order_id})")
            }
            Self::WouldAdjust { order_id, account_id, credits } if *credits < 0 => {
                write!(f, "would take {} credits back from {account_id} (order {order_id})", credits.unsigned_abs())
            }
            Self::WouldAdjust { order_id, account_id, credits } => {
                write!(f, "would give {credits} credits back to {account_id} (order {order_id})")
            }
            Self::WouldChange { order_id, status } => {
                write!(f, "would be noted at order {order_id} ({}); no credits would move", status.name())
            }
            Self::WouldAsk { payment_id } => write!(f, "the provider would be asked about payment {payment_id}"),
            Self::OrderUnknown { order_id: Some(order_id), .. } => {
                write!(f, "order {order_id} does not exist: create it first")
            }
            Self::OrderUnknown { provider, payment_id, order_id: None } => {
                write!(f, "no order has payment {payment_id} at {provider}: attach it to its order first")
            }
            Self::OrderUnreadable { order_id, detail } => write!(f, "order {order_id} cannot be read: {detail}"),
            Self::WouldBeRefused(refusal) => write!(f, "would be refused again: {refusal}"),
            Self::AlreadyApplied { order_id, credits } => {
                write!(f, "applied already: order {order_id} has {credits} credits")
            }
            Self::NothingToDo { why } => write!(f, "nothing to do: {why}"),
        }
    }
}

/// What a whole letter would come to: it may hold several messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    parts: Vec<Verdict>,
}

impl Outlook {
    /// Of one message each. What is not helpful comes behind what is, and what is done comes last.
    pub fn new(mut parts: Vec<Verdict>) -> Self {
        if parts.is_empty() {
            parts.push(Verdict::NothingToDo { why: "it says nothing of a payment" });
        }
        parts.sort_by_key(Verdict::kind);
        Self { parts }
    }

    /// The most important part's name.
    pub fn name(&self) -> &'static str {
        self.parts.first().map_or(VerdictKind::NothingToDo, Verdict::kind).name()
    }

    /// Each part, the most important first; at least one.
    pub fn parts(&self) -> &[Verdict] {
        &self.parts
    }

    /// Whether a replay would do something.
    pub fn is_helpful(&self) -> bool {
        self.parts.iter().any(|part| part.kind().is_helpful())
    }

    /// Whether there is nothing left to do.
    pub fn is_done(&self) -> bool {
        self.parts.iter().all(|part| part.kind().is_done())
    }
}

impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in self.parts.iter().enumerate() {
            write!(f, "{}{part}", if at == 0 { "" } else { "; " })?;
        }
        Ok(())
    }
}

/// Longest [`cause_of`], in bytes.
const CAUSE_BYTES_MAX: usize = 160;

/// What letters of one group have in common: the detail, with `…` for every word that has a digit in it, a quoted text, and
/// an order's or payment's id. Letters that failed in the same way read alike then.
pub fn cause_of(detail: &str) -> String {
    let mut cause = String::new();
    let mut is_quoted = false;
    for word in detail.split_whitespace() {
        let quotes = word.matches('"').count();
        let is_own = is_quoted || quotes > 0 || word.chars().any(|c| c.is_ascii_digit()) || word.contains('_');
        if quotes % 2 == 1 {
            is_quoted = !is_quoted;
        }
        let word = if is_own { "…" } else { word };
        if is_own && cause.ends_with('…') {
            continue;
        }
        if cause.len() + word.len() + 1 > CAUSE_BYTES_MAX {
            break;
        }
        if !cause.is_empty() {
            cause.push(' ');
        }
        cause.push_str(word);
    }
    cause
}

impl PaymentStatus {
    /// In a few words, with the amount: `captured 19.99 USD`.
    pub fn in_words(&self) -> String {
        match self {
            Self::Pending | Self::Failed { .. } | Self::Canceled | Self::CaptureCanceled { .. } => {
                self.name().to_owned()
            }
            Self::PartsCanceled => "parts canceled".to_owned(),
            Self::Captured { money, state: CaptureState::Succeeded, .. } => format!("captured {}", money.written()),
            Self::Captured { money, state: CaptureState::Failed, .. } => {
                format!("capture of {} failed", money.written())
            }
            Self::Refund { money, state, .. } => format!("refund of {} {}", money.written(), state),
            Self::RefundedTotal { money } => format!("refunded {} in all", money.written()),
            Self::Dispute { money, state, .. } => format!("dispute of {} {}", money.written(), state),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::Reason;

    #[test]
    fn letters_that_failed_alike_have_one_cause() {
        for (detail, cause) in [
            (
                "order 019b8e2f-5c1a-7d3e-9f00-2b6a7c8d9e0f costs 1999 USD, the provider says 2398 USD: a payment's total",
                "order … costs … USD, the provider says … USD: a payment's total",
            ),
            (
                "no order has payment pi_abc at stripe after 3 attempts",
                "no order has payment … at stripe after … attempts",
            ),
            ("the property type is \"payment status v9\", not \"payment-status.v1\"", "the property type is … not …"),
            ("", ""),
        ] {
            assert_eq!(cause_of(detail), cause, "{detail}");
        }
        assert!(cause_of(&"word ".repeat(200)).len() <= CAUSE_BYTES_MAX);
    }

    #[test]
    fn a_letter_of_several_messages_is_led_by_what_helps() {
        let refused = || Verdict::WouldBeRefused(Refusal::new(Reason::Malformed, "x"));
        let ask = || Verdict::WouldAsk { payment_id: PaymentId::new("p").unwrap() };
        let done = || Verdict::NothingToDo { why: "y" };
        let outlook = Outlook::new(vec![done(), refused(), ask()]);
        assert_eq!((outlook.name(), outlook.is_helpful(), outlook.is_done()), ("would_ask", true, false));
        let outlook = Outlook::new(vec![done(), refused()]);
        assert_eq!((outlook.name(), outlook.is_helpful(), outlook.is_done()), ("would_be_refused", false, false));
        assert!(Outlook::new(vec![done(), done()]).is_done());
        assert!(Outlook::new(vec![]).is_done());
    }

    #[test]
    fn ids_have_one_spelling() {
        assert!("5d1c9d4e8f2a8c3b9e440a1b2c3d4e5f".parse::<LetterId>().is_err());
        let id = "5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f";
        assert_eq!(id.parse::<LetterId>().map(|id| id.to_string()), Ok(id.to_owned()));
    }
}
