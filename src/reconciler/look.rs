//! Looks at one payment: asks its provider, publishes what the provider says, and notes when to ask again.

use crate::broker::{Outgoing, PublishError, Publisher};
use crate::clock::Clock;
use crate::domain::{
    LOOKS_APART, MessageId, OrderStatus, PaymentEvent, PaymentStatus, Provider, is_unpaid, look_again, next_look,
};
use crate::message::{self, EncodeError};
use crate::provider::{CallError, Found, Needs, PaymentState, Providers};
use crate::publishing::publish_in_trace;
use crate::store::{DueLook, Looked, LookedAt, ProviderAnswer, Store, StoreError};
use crate::telemetry::{LookOutcome, Metrics, Parent, Span, SpanKind, SpanStart, Traces, causes};
use futures_util::future::try_join_all;
use time::{Duration, OffsetDateTime};

/// If the provider says that a payment is paid, the next look checks after this time that credits were granted.
const GRANTED_WITHIN: Duration = Duration::minutes(1);

/// How long after its creation an order is asked about while the provider does not answer. It is a little longer than
/// with answers.
const PATIENCE_WITH_ORDERS: Duration = Duration::days(130);

/// How far the clock of a provider may be ahead of ours. A later time is not believed.
const CLOCK_AHEAD_MAX: Duration = Duration::hours(1);

/// How long a hint without an order of ours is followed. The provider itself repeats it for three days.
const PATIENCE_WITH_HINTS: Duration = Duration::days(3);

/// Everything that looking needs.
pub(super) struct Look {
    pub(super) store: Store,
    pub(super) publisher: Publisher,
    pub(super) providers: Providers,
    /// An unpaid order is looked at first at this age.
    pub(super) first_after: Duration,
    pub(super) is_live: bool,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
}

/// Why a look learned nothing.
#[derive(Debug, thiserror::Error)]
enum Failed {
    #[error(transparent)]
    Call(#[from] CallError),
    #[error("what the provider said could not be published: {0}")]
    Publish(#[from] PublishError),
    #[error("what the provider said has no form in the contract: {0}")]
    Form(String),
    #[error(transparent)]
    Unwritable(#[from] EncodeError),
    #[error("what is known of the order could not be read: {0}")]
    Store(#[from] StoreError),
}

/// The result of a provider's answer.
#[derive(Debug, PartialEq, Eq)]
struct LookResult {
    answer: ProviderAnswer,
    /// The number of facts that were published.
    facts: usize,
    /// Something in the answer that should be impossible.
    oddity: Option<&'static str>,
    /// Whether the order has another payment, which may have paid it.
    has_other_payment: bool,
}

impl Look {
    /// Looks at a claimed payment.
    pub(super) async fn at(&self, due: DueLook) {
        let (kind, parent) = (SpanKind::Internal, Parent::Nothing);
        let mut span = self.traces.begin(SpanStart { name: "look", kind, parent, link: None, began_at: None });
        span.text("grantonce.provider", due.provider.as_str());
        span.text("grantonce.payment_id", due.payment_id.as_str());
        let learnt = self.ask(&due, &span).await;
        let now = self.clock.now();
        let order_id = due.order.map(|order| order.id.to_string()).unwrap_or_default();
        let (outcome, looked) = match learnt {
            Ok(learnt) => {
                let contradiction = contradiction(&due, &learnt);
                if let Some(what) = contradiction {
                    tracing::error!(event = "provider_contradicts", order_id, provider = %due.provider,
                        payment_id = %due.payment_id, "{what}");
                }
                let outcome = match (contradiction, learnt.facts) {
                    (Some(_), _) => LookOutcome::Contradicted,
                    (None, 0) => LookOutcome::Quiet,
                    (None, _) => LookOutcome::Heard,
                };
                let next_at = again(&due, &learnt, self.first_after, now);
                (outcome, Looked::Answered { answer: learnt.answer, next_at, wanted_at: now + LOOKS_APART })
            }
            Err(error) => {
                let failures = due.failures.saturating_add(1);
                tracing::warn!(event = "provider_not_asked", order_id, provider = %due.provider, failures,
                    payment_id = %due.payment_id, cause = %causes(&error), "asking again later");
                let next_at = Some(look_again(failures, now)).filter(|at| *at < patience_ends_at(&due));
                if next_at.is_none() {
                    tracing::error!(event = "provider_never_asked", order_id, provider = %due.provider,
                        payment_id = %due.payment_id, "gave up: no further question about this payment is planned");
                }
                (LookOutcome::Failed, Looked::Failed { next_at })
            }
        };
        span.text("grantonce.outcome", outcome.name());
        if matches!(outcome, LookOutcome::Failed | LookOutcome::Contradicted) {
            span.fail(outcome.name());
        }
        self.metrics.look(&due.provider, outcome);
        if let Err(error) = self.store.finish_look(due, looked, now).await {
            // The lease ends by itself, and the provider is asked once more.
            tracing::warn!(event = "look_not_noted", order_id, cause = %causes(&error));
        }
    }

    async fn ask(&self, due: &DueLook, span: &Span) -> Result<LookResult, Failed> {
        let needs = match due.order {
            Some(order) if order.needs_breakdown => Needs::Breakdown,
            Some(_) | None => Needs::Facts,
        };
        let account = due.provider_account.as_ref();
        let Some(found) = self.providers.fetch_with(&due.provider, account, &due.payment_id, needs).await? else {
            return Ok(LookResult {
                answer: ProviderAnswer::Unknown,
                facts: 0,
                oddity: None,
                has_other_payment: false,
            });
        };
        let found = match due.order {
            // A paid order is never captured: PayPal forgets which order a key was for.
            Some(order) if found.state == PaymentState::Approved && is_unpaid(order.status) => {
                self.capture(due, order, found).await?
            }
            Some(_) | None => found,
        };
        let is_all_there = due.order.is_some_and(|order| order.status == OrderStatus::Fulfilled);
        let answer = match found.state {
            PaymentState::Paid if found.is_refund_untold && is_all_there => ProviderAnswer::RefundUntold,
            PaymentState::Paid => ProviderAnswer::Paid,
            PaymentState::Payable | PaymentState::Approved | PaymentState::Pending | PaymentState::Over => {
                ProviderAnswer::Unpaid
            }
        };
        // An order id that is not ours does not count: shops number their own orders with such ids, too.
        let names_another = match due.order.zip(found.order_id).filter(|(order, named)| order.id != *named) {
            Some((_, named)) => self.store.is_order(named).await?,
            None => false,
        };
        let has_other_payment = match due.order {
            Some(order) if answer == ProviderAnswer::Unpaid && !is_unpaid(order.status) => {
                let ids = std::iter::once(&found.payment_id).chain(&found.related_ids).chain([&due.payment_id]);
                self.store.has_payment_besides(order.id, ids.cloned().collect()).await?
            }
            Some(_) | None => false,
        };
        let oddity = match (names_another, found.livemode == self.is_live) {
            (true, _) => Some("the payment there names another order of ours"),
            (false, false) => Some("the payment there is not of this deployment's mode: compare GRANTONCE_LIVEMODE"),
            (false, true) => None,
        };
        let incomplete = found.incomplete.clone();
        let events = events(due, found, self.clock.now())?;
        let messages = events.iter().map(Outgoing::payment_status).collect::<Result<Vec<_>, _>>()?;
        try_join_all(
            messages
                .into_iter()
                .map(|message| publish_in_trace(&self.publisher, message, &self.metrics, &self.traces, span)),
        )
        .await?;
        // The known facts are on their way. The provider is asked for the rest soon.
        let learnt = LookResult { answer, facts: events.len(), oddity, has_other_payment };
        incomplete.map_or(Ok(learnt), |error| Err(error.into()))
    }

    /// Captures the payment, because the buyer has agreed. It happens at most once for an order, however often it is
    /// called.
    async fn capture(&self, due: &DueLook, order: LookedAt, found: Found) -> Result<Found, Failed> {
        match self.providers.capture(&due.provider, &due.payment_id, order.id).await {
            Ok(captured) => Ok(captured),
            // It was not created by us, or cannot be captured. It stays as it was found.
            Err(error @ (CallError::KeyReused | CallError::Refused { .. } | CallError::Unsupported)) => {
                tracing::warn!(event = "not_captured", order_id = %order.id, payment_id = %due.payment_id,
                    cause = %causes(&error));
                Ok(found)
            }
            Err(error) => Err(error.into()),
        }
    }
}

/// A contradiction between the provider and us. An abandoned cart is not one.
fn contradiction(due: &DueLook, learnt: &LookResult) -> Option<&'static str> {
    let Some(order) = due.order else {
        let is_named = learnt.answer == ProviderAnswer::Unknown;
        return is_named.then_some("a webhook names it, and the provider does not know it: see whether money moved");
    };
    let was_paid = due.last_answer == Some(ProviderAnswer::Paid);
    match (learnt.answer, is_unpaid(order.status)) {
        (ProviderAnswer::Unknown, _) => {
            Some("the provider knows no payment of this id: the order can never be paid by it")
        }
        (ProviderAnswer::Paid, true) if was_paid => {
            Some("the provider calls it paid, as it did before, and still nothing is granted: look at the dead letters")
        }
        (ProviderAnswer::RefundUntold, _) if due.last_answer == Some(ProviderAnswer::RefundUntold) => Some(
            "the provider says that a part of the money went back, and tells no refund of it: no credits were taken",
        ),
        (ProviderAnswer::Unpaid, false) if learnt.has_other_payment => learnt.oddity,
        (ProviderAnswer::Unpaid, false) => {
            Some("credits were granted for a payment that the provider does not call paid")
        }
        (ProviderAnswer::Paid | ProviderAnswer::Unpaid | ProviderAnswer::RefundUntold, _) => learnt.oddity,
    }
}

fn again(due: &DueLook, learnt: &LookResult, first_after: Duration, now: OffsetDateTime) -> Option<OffsetDateTime> {
    let order = due.order?;
    let is_news = learnt.answer == ProviderAnswer::Paid
        && due.last_answer != Some(ProviderAnswer::Paid)
        && is_unpaid(order.status);
    // A webhook may name the refund, and then the refund is asked about by its own id.
    let is_untold =
        learnt.answer == ProviderAnswer::RefundUntold && due.last_answer != Some(ProviderAnswer::RefundUntold);
    if is_news || is_untold {
        return Some(now + GRANTED_WITHIN);
    }
    next_look(order.status, order.created_at, first_after, now)
}

/// How long a provider that cannot be asked is tried.
fn patience_ends_at(due: &DueLook) -> OffsetDateTime {
    match due.order {
        Some(order) => order.created_at.max(due.created_at) + PATIENCE_WITH_ORDERS,
        None => due.created_at + PATIENCE_WITH_HINTS,
    }
}

/// Makes one event for each fact. Its id is a digest of the provider, the payment and the whole fact, so the same fact
/// in a later answer is the same message.
fn events(due: &DueLook, found: Found, now: OffsetDateTime) -> Result<Vec<PaymentEvent>, Failed> {
    let DueLook { provider, provider_account, payment_id: asked_for, .. } = due;
    let form = |error: crate::domain::TextError| Failed::Form(error.to_string());
    let Found { payment_id, mut related_ids, order_id, statuses, occurred_at, as_of, livemode, .. } = found;
    // The provider cannot have said it before it happened.
    let as_of = as_of.filter(|as_of| *as_of <= now + CLOCK_AHEAD_MAX).map(|as_of| as_of.max(occurred_at));
    // A refund is asked about by its own id again and again. That id is not a name of the payment.
    let is_refund = |status: &PaymentStatus| matches!(status, PaymentStatus::Refund { refund_id, .. } if refund_id.as_str() == asked_for.as_str());
    let is_name = *provider != Provider::PAYPAL || !statuses.iter().any(is_refund);
    if *asked_for != payment_id && !related_ids.contains(asked_for) && is_name {
        related_ids.insert(0, asked_for.clone());
        related_ids.truncate(crate::domain::RELATED_IDS_MAX);
    }
    let unnamed = MessageId::new(format!("{provider}::asked")).map_err(form)?;
    statuses
        .into_iter()
        .map(|status| {
            let event = PaymentEvent {
                provider: provider.clone(),
                message_id: unnamed.clone(),
                payment_id: payment_id.clone(),
                related_ids: related_ids.clone(),
                provider_account: provider_account.clone(),
                order_id,
                status,
                occurred_at,
                as_of,
                livemode,
            };
            let digest = hex::encode(message::fact_digest(&event)?);
            let message_id = format!("{unnamed}-{}-{digest}", occurred_at.unix_timestamp());
            Ok(PaymentEvent { message_id: MessageId::new(message_id).map_err(form)?, ..event })
        })
        .collect()
}
