//! Judges a message as it was published: whether a worker would take it to its order. Pure.

use super::{TYPE, decode, routing_key};
use crate::domain::{PaymentEvent, Reason, Refusal};
use time::OffsetDateTime;

/// A message as it was first published: its properties, its routing key and its body.
#[derive(Debug, Clone, Copy)]
pub struct Envelope<'a> {
    /// The property `type` of the message.
    pub kind: Option<&'a str>,
    /// The property `message_id` of the message.
    pub message_id: Option<&'a str>,
    /// The routing key. It says for which provider the sender may speak.
    pub routing_key: &'a str,
    /// The body of the message.
    pub body: &'a [u8],
}

/// What can be said about a message without its order.
#[derive(Debug)]
pub enum Judgement {
    /// The message is a valid event, to be applied to its order.
    Event(Box<PaymentEvent>),
    /// A test event in a live deployment. It is counted and dropped.
    TestEvent,
    /// The message cannot be applied as things stand.
    Refused(Refusal),
}

impl Envelope<'_> {
    /// Reads the message and checks what can be checked without its order.
    pub fn judge(&self, is_live: bool, now: OffsetDateTime) -> Judgement {
        let refused = |reason, detail: String| Judgement::Refused(Refusal::new(reason, detail));
        match self.kind {
            Some(TYPE) => {}
            Some(other) => {
                return refused(Reason::Malformed, format!("the property type is {other:?}, not {TYPE:?}"));
            }
            None => {
                return refused(Reason::Malformed, format!("the property type is missing; it must be {TYPE:?}"));
            }
        }
        let event = match decode(self.body, now) {
            Ok(event) => event,
            Err(error) => return refused(Reason::Malformed, error.to_string()),
        };
        match self.message_id {
            Some(id) if id == event.message_id.as_str() => {}
            Some(_) => {
                return refused(Reason::Malformed, "the property message_id is not the body's message_id".to_owned());
            }
            None => return refused(Reason::Malformed, "the property message_id is missing".to_owned()),
        }
        let key = self.routing_key;
        if key != routing_key(&event.provider) {
            let detail = format!("published under {key:?}, but the body's provider is {:?}", event.provider.as_str());
            return refused(Reason::ProviderMismatch, detail);
        }
        match (is_live, event.livemode) {
            (true, true) | (false, false) => Judgement::Event(Box::new(event)),
            (true, false) => Judgement::TestEvent,
            (false, true) => refused(
                Reason::LivemodeMismatch,
                "a live event, but GRANTONCE_LIVEMODE is false here: is the provider's live endpoint set to this \
                 receiver?"
                    .to_owned(),
            ),
        }
    }
}
