//! The versioned contract `payment-status.v1`: the receiver and relays publish these messages, and the worker reads
//! them.
//!
//! Authors of a relay find the contract in `contract/payment-status.v1.schema.json` and `contract/asyncapi.yaml`.

mod judge;

pub use judge::{Envelope, Judgement};

use crate::domain::{
    Breakdown, BreakdownError, CaptureState, Currency, DisputeState, FactId, Hint, MessageId, Money, MoneyError,
    OrderId, PaymentEvent, PaymentId, PaymentStatus, Provider, ProviderAccount, RELATED_IDS_MAX, RefundState,
};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::num::NonZeroU32;
use time::{Duration, OffsetDateTime};

/// The AMQP property `type` of a message of this contract.
pub const TYPE: &str = "payment-status.v1";

/// The AMQP property `type` of a hint. Only the receiver publishes hints, and only the reconciler reads them.
pub const HINT_TYPE: &str = "payment-hint.v1";

/// The AMQP property `content_type` of a message of this contract.
pub const CONTENT_TYPE: &str = "application/json";

/// Largest body in bytes. The receiver has the same limit for the body of a webhook.
pub const BODY_BYTES_MAX: usize = 256 * 1024;

/// The beginning of the property `type` of a dead letter with the raw body of a webhook. The path of its endpoint
/// follows.
pub const WEBHOOK_TYPE_PREFIX: &str = "webhook.";

/// How far the clock of a sender may be ahead of ours.
const CLOCK_AHEAD_MAX: Duration = Duration::days(1);

/// All our headers begin with this.
pub const HEADER_PREFIX: &str = "x-grantonce-";
/// Header with the number of times that a message was put off because its order was unknown.
pub const ATTEMPT_HEADER: &str = "x-grantonce-attempt";
/// Header with the number of times that a message was put off through no fault of its own, for example because its
/// order was locked.
pub const WAITS_HEADER: &str = "x-grantonce-waits";
/// Header with the routing key under which the message was first published.
pub const ROUTING_KEY_HEADER: &str = "x-grantonce-routing-key";
/// Header with the trace of the message (<https://www.w3.org/TR/trace-context/>). It is optional, and copies keep it.
pub const TRACEPARENT_HEADER: &str = "traceparent";
/// Header with the reason of a dead letter.
pub const REASON_HEADER: &str = "x-grantonce-reason";
/// Header with the cause of a dead letter in a sentence.
pub const DETAIL_HEADER: &str = "x-grantonce-detail";
/// Header with the role that made the dead letter: `receiver`, `worker` or `reconciler`.
pub const ORIGIN_HEADER: &str = "x-grantonce-origin";
/// Header of a copy with the names and sizes of the headers that were too large to be copied.
pub const DROPPED_HEADERS_HEADER: &str = "x-grantonce-dropped-headers";
/// Header with the number of the replay that sent the message again.
pub const REPLAY_HEADER: &str = "x-grantonce-replay";

/// The routing key of the messages of a provider.
pub fn routing_key(provider: &Provider) -> String {
    format!("payment.{provider}")
}

/// The id of the trace in a `traceparent`, 32 hexadecimal digits, for log lines. `None` if it is not a traceparent.
pub fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let is_hex = |text: &str, length| text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    (is_hex(version, 2) && is_hex(id, 32)).then_some(id)
}

/// Why a body is not a message of this contract.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// The body is longer than [`BODY_BYTES_MAX`].
    #[error("the body is {bytes} bytes long; at most {BODY_BYTES_MAX} are allowed")]
    TooLong {
        /// The length of the body.
        bytes: usize,
    },
    /// The body is not JSON, or does not have the form of the contract.
    #[error("not a {TYPE} message: {0}")]
    Form(#[source] serde_path_to_error::Error<serde_json::Error>),
    /// An amount is out of range.
    #[error("status: {0}")]
    Money(#[from] MoneyError),
    /// The parts of an amount do not fit to it.
    #[error("status.breakdown: {0}")]
    Breakdown(#[from] BreakdownError),
    /// The message has more related ids than are allowed.
    #[error("related_ids has {count} entries; at most {RELATED_IDS_MAX} are allowed")]
    TooManyRelatedIds {
        /// The number of related ids.
        count: usize,
    },
    /// The message id does not begin with its provider. Otherwise one relay could take the ids of another.
    #[error("message_id must begin with \"{provider}:\"")]
    ForeignMessageId {
        /// The provider that the body names.
        provider: Provider,
    },
    /// The body speaks for a provider that the secret of its sender does not stand for.
    #[error("provider is \"{provider}\"; what comes in here must say \"{expected}\"")]
    ForeignProvider {
        /// The provider that the body names.
        provider: Provider,
        /// The provider that the secret stands for.
        expected: Provider,
    },
    /// The event happened in the future.
    #[error("occurred_at is {occurred_at}, more than a day ahead of our clock")]
    FromTheFuture {
        /// The time that the body names.
        occurred_at: OffsetDateTime,
    },
}

/// A value of ours could not be written. This is a fault of the program: nothing may be published or decided by what
/// was written.
#[derive(Debug, thiserror::Error)]
#[error("a message could not be written: {0}")]
pub struct EncodeError(#[source] serde_json::Error);

/// `Id` is [`MessageId`], or [`Unheeded`] if the id of the sender does not count.
#[derive(Serialize, Deserialize)]
struct Wire<Id> {
    provider: Provider,
    message_id: Id,
    payment_id: PaymentId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    related_ids: Vec<PaymentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_account: Option<ProviderAccount>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    order_id: Option<OrderId>,
    status: WireStatus,
    #[serde(with = "time::serde::rfc3339")]
    occurred_at: OffsetDateTime,
    #[serde(default, skip_serializing_if = "Option::is_none", with = "time::serde::rfc3339::option")]
    as_of: Option<OffsetDateTime>,
    livemode: bool,
}

/// Any value, or none.
type Unheeded = Option<IgnoredAny>;

#[derive(Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireStatus {
    Pending,
    Captured {
        #[serde(flatten)]
        money: WireMoney,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capture_id: Option<FactId>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        state: Option<CaptureState>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        breakdown: Option<WireBreakdown>,
    },
    Failed {
        #[serde(default)]
        reason: String,
    },
    Canceled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        capture_id: Option<FactId>,
    },
    PartsCanceled,
    Refund {
        refund_id: FactId,
        state: RefundState,
        #[serde(flatten)]
        money: WireMoney,
    },
    RefundedTotal {
        #[serde(flatten)]
        money: WireMoney,
    },
    Dispute {
        dispute_id: FactId,
        state: DisputeState,
        #[serde(default = "first_round")]
        round: NonZeroU32,
        #[serde(flatten)]
        money: WireMoney,
    },
}

/// Rounds are counted from 1. A sender that counts from 0 would contradict one that leaves the first round out.
fn first_round() -> NonZeroU32 {
    NonZeroU32::MIN
}

/// The parts of a captured amount.
#[derive(Serialize, Deserialize)]
struct WireBreakdown {
    tax_minor: i64,
    discount_minor: i64,
}

/// What of a status is out of range.
#[derive(Debug, thiserror::Error)]
enum StatusError {
    #[error(transparent)]
    Money(#[from] MoneyError),
    #[error("breakdown: {0}")]
    Breakdown(#[from] BreakdownError),
}

#[derive(Serialize, Deserialize)]
struct WireMoney {
    amount_minor: i64,
    currency: Currency,
}

impl TryFrom<WireMoney> for Money {
    type Error = MoneyError;
    fn try_from(wire: WireMoney) -> Result<Self, MoneyError> {
        Self::new(wire.amount_minor, wire.currency)
    }
}

impl From<Money> for WireMoney {
    fn from(money: Money) -> Self {
        Self { amount_minor: money.amount_minor(), currency: money.currency() }
    }
}

impl TryFrom<WireStatus> for PaymentStatus {
    type Error = StatusError;
    fn try_from(wire: WireStatus) -> Result<Self, StatusError> {
        Ok(match wire {
            WireStatus::Pending => Self::Pending,
            WireStatus::Captured { money, capture_id, state, breakdown } => {
                let money = money.try_into()?;
                let parts = |parts: WireBreakdown| Breakdown::new(money, parts.tax_minor, parts.discount_minor);
                let state = state.unwrap_or(CaptureState::Succeeded);
                Self::Captured { money, capture_id, state, breakdown: breakdown.map(parts).transpose()? }
            }
            WireStatus::Failed { reason } => Self::failed(&reason),
            WireStatus::Canceled { capture_id: None } => Self::Canceled,
            WireStatus::Canceled { capture_id: Some(capture_id) } => Self::CaptureCanceled { capture_id },
            WireStatus::PartsCanceled => Self::PartsCanceled,
            WireStatus::Refund { refund_id, state, money } => {
                Self::Refund { refund_id, state, money: money.try_into()? }
            }
            WireStatus::RefundedTotal { money } => Self::RefundedTotal { money: money.try_into()? },
            WireStatus::Dispute { dispute_id, state, round, money } => {
                Self::Dispute { dispute_id, state, round: round.get(), money: money.try_into()? }
            }
        })
    }
}

impl From<&PaymentStatus> for WireStatus {
    fn from(status: &PaymentStatus) -> Self {
        match status {
            PaymentStatus::Pending => Self::Pending,
            PaymentStatus::Captured { money, capture_id, state, breakdown } => Self::Captured {
                money: (*money).into(),
                capture_id: capture_id.clone(),
                state: (*state != CaptureState::Succeeded).then_some(*state),
                breakdown: breakdown.map(|parts| WireBreakdown {
                    tax_minor: parts.tax_minor(),
                    discount_minor: parts.discount_minor(),
                }),
            },
            PaymentStatus::Failed { reason } => Self::Failed { reason: reason.clone() },
            PaymentStatus::Canceled => Self::Canceled { capture_id: None },
            PaymentStatus::CaptureCanceled { capture_id } => Self::Canceled { capture_id: Some(capture_id.clone()) },
            PaymentStatus::PartsCanceled => Self::PartsCanceled,
            PaymentStatus::Refund { refund_id, state, money } => {
                Self::Refund { refund_id: refund_id.clone(), state: *state, money: (*money).into() }
            }
            PaymentStatus::RefundedTotal { money } => Self::RefundedTotal { money: (*money).into() },
            PaymentStatus::Dispute { dispute_id, state, round, money } => Self::Dispute {
                dispute_id: dispute_id.clone(),
                state: *state,
                round: NonZeroU32::new(*round).unwrap_or(first_round()),
                money: (*money).into(),
            },
        }
    }
}

/// Writes an event as a body of the contract.
pub fn encode(event: &PaymentEvent) -> Result<Vec<u8>, EncodeError> {
    let wire = Wire {
        provider: event.provider.clone(),
        message_id: event.message_id.clone(),
        payment_id: event.payment_id.clone(),
        related_ids: event.related_ids.clone(),
        provider_account: event.provider_account.clone(),
        order_id: event.order_id,
        status: (&event.status).into(),
        occurred_at: event.occurred_at,
        as_of: event.as_of,
        livemode: event.livemode,
    };
    serde_json::to_vec(&wire).map_err(EncodeError)
}

/// Reads and checks a body of the contract. Unknown fields are ignored, because a sender may be newer than we are.
pub fn decode(body: &[u8], now: OffsetDateTime) -> Result<PaymentEvent, DecodeError> {
    let wire: Wire<MessageId> = parse(body)?;
    let own_id =
        wire.message_id.as_str().strip_prefix(wire.provider.as_str()).is_some_and(|rest| rest.starts_with(':'));
    if !own_id {
        return Err(DecodeError::ForeignMessageId { provider: wire.provider });
    }
    check(wire, now, |own| own)
}

/// The provider that a body claims to speak for. The rest of the body is not checked.
pub fn provider_of(body: &[u8]) -> Option<Provider> {
    #[derive(Deserialize)]
    struct Claim {
        provider: Provider,
    }
    parse::<Claim>(body).ok().map(|claim| claim.provider)
}

/// Like [`decode`], for a sender that is trusted as far as its secret goes: the body must speak for `provider`, and the
/// message gets the id `message_id`.
pub fn decode_as(
    body: &[u8],
    now: OffsetDateTime,
    provider: &Provider,
    message_id: MessageId,
) -> Result<PaymentEvent, DecodeError> {
    let wire: Wire<Unheeded> = parse(body)?;
    if wire.provider != *provider {
        return Err(DecodeError::ForeignProvider { provider: wire.provider, expected: provider.clone() });
    }
    check(wire, now, |_unheeded| message_id)
}

fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, DecodeError> {
    if body.len() > BODY_BYTES_MAX {
        return Err(DecodeError::TooLong { bytes: body.len() });
    }
    serde_json::from_slice(body).or_else(|_| {
        // Parsed again, slowly, to name the field.
        let mut json = serde_json::Deserializer::from_slice(body);
        let wire = serde_path_to_error::deserialize(&mut json).map_err(DecodeError::Form)?;
        json.end().map_err(|trailing| DecodeError::Form(no_path(trailing)))?;
        Ok(wire)
    })
}

fn check<Id>(
    wire: Wire<Id>,
    now: OffsetDateTime,
    message_id: impl FnOnce(Id) -> MessageId,
) -> Result<PaymentEvent, DecodeError> {
    if wire.related_ids.len() > RELATED_IDS_MAX {
        return Err(DecodeError::TooManyRelatedIds { count: wire.related_ids.len() });
    }
    let latest = wire.as_of.map_or(wire.occurred_at, |as_of| as_of.max(wire.occurred_at));
    if latest > now + CLOCK_AHEAD_MAX {
        return Err(DecodeError::FromTheFuture { occurred_at: latest });
    }
    Ok(PaymentEvent {
        provider: wire.provider,
        message_id: message_id(wire.message_id),
        payment_id: wire.payment_id,
        related_ids: wire.related_ids,
        provider_account: wire.provider_account,
        order_id: wire.order_id,
        status: wire.status.try_into().map_err(|fault| match fault {
            StatusError::Money(fault) => DecodeError::Money(fault),
            StatusError::Breakdown(fault) => DecodeError::Breakdown(fault),
        })?,
        occurred_at: wire.occurred_at,
        as_of: wire.as_of,
        livemode: wire.livemode,
    })
}

/// An error about the whole body.
fn no_path(error: serde_json::Error) -> serde_path_to_error::Error<serde_json::Error> {
    let track = serde_path_to_error::Track::new();
    let nowhere = track.path();
    serde_path_to_error::Error::new(nowhere, error)
}

#[derive(Serialize, Deserialize)]
struct WireHint {
    provider: Provider,
    message_id: MessageId,
    payment_id: PaymentId,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    related_ids: Vec<PaymentId>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    provider_account: Option<ProviderAccount>,
    livemode: bool,
}

/// Writes a hint as the body of a message.
pub fn encode_hint(hint: &Hint) -> Result<Vec<u8>, EncodeError> {
    let Hint { provider, message_id, payment_id, related_ids, provider_account, livemode } = hint.clone();
    let wire = WireHint { provider, message_id, payment_id, related_ids, provider_account, livemode };
    serde_json::to_vec(&wire).map_err(EncodeError)
}

/// Reads and checks the body of a hint.
pub fn decode_hint(body: &[u8]) -> Result<Hint, DecodeError> {
    let wire: WireHint = parse(body)?;
    if wire.related_ids.len() > RELATED_IDS_MAX {
        return Err(DecodeError::TooManyRelatedIds { count: wire.related_ids.len() });
    }
    let WireHint { provider, message_id, payment_id, related_ids, provider_account, livemode } = wire;
    Ok(Hint { provider, message_id, payment_id, related_ids, provider_account, livemode })
}

/// The digest of the fact in a message, without the id of the message and its times. Two messages with one id and
/// different digests are not copies of each other.
pub fn fact_digest(event: &PaymentEvent) -> Result<[u8; 16], EncodeError> {
    // Fields of later releases are left out: a copy that an earlier release published is still a copy.
    let status = match WireStatus::from(&event.status) {
        WireStatus::Captured { money, capture_id, state, breakdown: _ } => {
            WireStatus::Captured { money, capture_id, state, breakdown: None }
        }
        WireStatus::Canceled { capture_id: _ } => WireStatus::Canceled { capture_id: None },
        other @ (WireStatus::Pending
        | WireStatus::Failed { .. }
        | WireStatus::PartsCanceled
        | WireStatus::Refund { .. }
        | WireStatus::RefundedTotal { .. }
        | WireStatus::Dispute { .. }) => other,
    };
    let fact = (&event.provider, &event.provider_account, &event.payment_id, &event.order_id, status);
    let json = serde_json::to_vec(&fact).map_err(EncodeError)?;
    let mut digest = [0; 16];
    for (to, from) in digest.iter_mut().zip(Sha256::digest(&json)) {
        *to = from;
    }
    Ok(digest)
}

#[cfg(test)]
mod tests;
