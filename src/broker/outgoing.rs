//! The messages that roles publish. Each kind of message is built in one place.

use super::headers::Headers;
use super::publisher::Outgoing;
use super::topology::{DEAD_EXCHANGE, HINTS_EXCHANGE, PAYMENTS_EXCHANGE};
use crate::domain::{Hint, PaymentEvent, Refusal};
use crate::message::{
    self, CONTENT_TYPE, DETAIL_HEADER, DROPPED_HEADERS_HEADER, EncodeError, HINT_TYPE, ORIGIN_HEADER, REASON_HEADER,
    ROUTING_KEY_HEADER, TRACEPARENT_HEADER, routing_key,
};
use bytes::Bytes;

/// Longest text property and longest routing key, in bytes.
const SHORT_TEXT_BYTES_MAX: usize = 255;

/// Cuts a text at the boundary of a character, so that AMQP can carry it.
fn fit(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SHORT_TEXT_BYTES_MAX));
    text
}

/// The parts of a dead letter, without its reason.
#[derive(Debug)]
pub struct Letter {
    /// The role that makes the dead letter.
    pub origin: &'static str,
    /// The routing key under which the message was published first, or would have been.
    pub routing_key: String,
    /// The id of the message.
    pub message_id: String,
    /// The property `type` of the message.
    pub kind: String,
    /// The headers that it keeps.
    pub headers: Headers,
    /// The body as it came.
    pub body: Bytes,
}

impl Outgoing {
    /// A payment event of a provider, for the workers.
    pub fn payment_status(event: &PaymentEvent) -> Result<Self, EncodeError> {
        Ok(Self {
            exchange: PAYMENTS_EXCHANGE,
            routing_key: routing_key(&event.provider),
            message_id: event.message_id.as_str().to_owned(),
            kind: message::TYPE.to_owned(),
            content_type: CONTENT_TYPE,
            headers: Headers::default(),
            body: Bytes::from(message::encode(event)?),
        })
    }

    /// A hint that something happened to a payment, for the reconcilers.
    pub fn hint(hint: &Hint) -> Result<Self, EncodeError> {
        Ok(Self {
            exchange: HINTS_EXCHANGE,
            routing_key: routing_key(&hint.provider),
            message_id: hint.message_id.as_str().to_owned(),
            kind: HINT_TYPE.to_owned(),
            content_type: CONTENT_TYPE,
            headers: Headers::default(),
            body: Bytes::from(message::encode_hint(hint)?),
        })
    }

    /// The message as a part of a trace, with a header `traceparent`. `None` changes nothing.
    #[must_use]
    pub fn in_trace(mut self, traceparent: Option<String>) -> Self {
        if let Some(traceparent) = traceparent {
            self.headers.set_text(TRACEPARENT_HEADER, &traceparent);
        }
        self
    }

    /// A dead letter: a message that cannot be applied as things stand, for an operator.
    pub fn dead_letter(letter: Letter, refusal: &Refusal) -> Self {
        let Letter { origin, routing_key, message_id, kind, mut headers, body } = letter;
        // Long texts must not prevent the dead letter.
        let [routing_key, message_id, kind] = [routing_key, message_id, kind].map(fit);
        headers.set_text(REASON_HEADER, refusal.reason.name());
        let dropped = headers.text(DROPPED_HEADERS_HEADER).map(|dropped| format!("; dropped headers: {dropped}"));
        headers.set_text(DETAIL_HEADER, &format!("{}{}", refusal.detail, dropped.unwrap_or_default()));
        headers.set_text(ORIGIN_HEADER, origin);
        headers.set_text(ROUTING_KEY_HEADER, &routing_key);
        let trace_id = headers.text(TRACEPARENT_HEADER).and_then(message::trace_id);
        tracing::warn!(event = "dead_letter", reason = refusal.reason.name(), detail = %refusal.detail, message_id, trace_id);
        Self { exchange: DEAD_EXCHANGE, routing_key, message_id, kind, content_type: CONTENT_TYPE, headers, body }
    }
}
