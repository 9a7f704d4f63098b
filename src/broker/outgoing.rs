//! Messages that more than one role publishes, as they are published: one form, whoever does.

use super::headers::Headers;
use super::publisher::Outgoing;
use super::topology::{DEAD_EXCHANGE, HINTS_EXCHANGE, PAYMENTS_EXCHANGE};
use crate::domain::{Hint, PaymentEvent, Refusal};
use crate::message::{
    self, CONTENT_TYPE, DETAIL_HEADER, DROPPED_HEADERS_HEADER, EncodeError, HINT_TYPE, ORIGIN_HEADER, REASON_HEADER,
    ROUTING_KEY_HEADER, TRACEPARENT_HEADER, routing_key,
};
use bytes::Bytes;

/// Longest text among a message's properties, and longest routing key, in bytes.
const SHORT_TEXT_BYTES_MAX: usize = 255;

/// Cuts a text at a character's boundary, so that AMQP can carry it.
fn fit(mut text: String) -> String {
    text.truncate(text.floor_char_boundary(SHORT_TEXT_BYTES_MAX));
    text
}

/// What becomes a dead letter, beside its reason.
#[derive(Debug)]
pub struct Letter {
    /// The role that gives it up.
    pub origin: &'static str,
    /// Where it was published first, or would have been.
    pub routing_key: String,
    /// Its id.
    pub message_id: String,
    /// Its property `type`.
    pub kind: String,
    /// Headers that it keeps.
    pub headers: Headers,
    /// Its body, as it came.
    pub body: Bytes,
}

impl Outgoing {
    /// What a provider says of a payment, for the workers.
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

    /// That something happened to a payment, for the reconcilers.
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

    /// As a part of a trace: with its `traceparent` among the headers. `None` leaves them as they are.
    #[must_use]
    pub fn in_trace(mut self, traceparent: Option<String>) -> Self {
        if let Some(traceparent) = traceparent {
            self.headers.set_text(TRACEPARENT_HEADER, &traceparent);
        }
        self
    }

    /// What will never be applied as things stand, for an operator.
    pub fn dead_letter(letter: Letter, refusal: &Refusal) -> Self {
        let Letter { origin, routing_key, message_id, kind, mut headers, body } = letter;
        // What a letter is about must not keep it from being one.
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
