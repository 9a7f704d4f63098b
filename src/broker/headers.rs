//! The headers of a message, as far as we read and write them.

use super::topology::retry_queue;
use crate::domain::tidy;
use crate::message::{
    ATTEMPT_HEADER, DETAIL_HEADER, DROPPED_HEADERS_HEADER, HEADER_PREFIX, ORIGIN_HEADER, REASON_HEADER, REPLAY_HEADER,
    ROUTING_KEY_HEADER, TRACEPARENT_HEADER, WAITS_HEADER,
};
use lapin::types::{AMQPValue, FieldTable, ShortString};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// The value of a header. Other values (tables, lists) belong to RabbitMQ and are not passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HeaderValue {
    /// A text in UTF-8.
    Text(String),
    /// A signed whole number.
    Integer(i64),
}

/// Longest text in a header, in bytes. All headers of a message must fit into one frame.
const TEXT_BYTES_MAX: usize = 2_000;

/// The most bytes for the headers of a copy. Our own headers and the properties take less than that again. So a copy
/// always fits into 8,192 bytes, the smallest frame that RabbitMQ 4 allows.
const COPIED_BYTES_MAX: usize = 4_096;

/// Longest list of dropped headers, in bytes.
const DROPPED_BYTES_MAX: usize = 400;

/// Headers that a copy keeps before all others.
const KEPT_FIRST: [&str; 8] = [
    ATTEMPT_HEADER,
    DROPPED_HEADERS_HEADER,
    ORIGIN_HEADER,
    REASON_HEADER,
    REPLAY_HEADER,
    ROUTING_KEY_HEADER,
    TRACEPARENT_HEADER,
    WAITS_HEADER,
];

/// The headers of a message, by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Headers(BTreeMap<String, HeaderValue>);

/// RabbitMQ's own headers, which must never be published again. Before 4.0 a message with its old `x-death` is dropped
/// as a cycle, and `CC` or `BCC` would route copies to any queue that the first sender chose.
fn is_brokers_own(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    matches!(name.as_str(), "x-death" | "x-delivery-count" | "x-acquired-count" | "cc" | "bcc")
        || name.starts_with("x-first-death-")
        || name.starts_with("x-last-death-")
        || name.starts_with("x-opt-rabbitmq-")
}

impl Headers {
    /// The value of a text header.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.0.get(name)? {
            HeaderValue::Text(text) => Some(text),
            HeaderValue::Integer(_) => None,
        }
    }

    /// The value of a whole number.
    pub fn integer(&self, name: &str) -> Option<i64> {
        match self.0.get(name)? {
            HeaderValue::Integer(number) => Some(*number),
            HeaderValue::Text(_) => None,
        }
    }

    /// Sets a text, cut to 2,000 bytes at the boundary of a character.
    pub fn set_text(&mut self, name: &str, text: &str) {
        let end = (0..=TEXT_BYTES_MAX.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        let text = text.get(..end).unwrap_or_default().to_owned();
        self.0.insert(name.to_owned(), HeaderValue::Text(text));
    }

    /// Sets a header to a whole number.
    pub fn set_integer(&mut self, name: &str, number: i64) {
        self.0.insert(name.to_owned(), HeaderValue::Integer(number));
    }

    /// The headers for a copy: without the broker's own, and without the largest ones if together they exceed
    /// `COPIED_BYTES_MAX`. A header names the ones that were dropped for their size.
    #[must_use]
    pub fn to_copy(&self) -> Self {
        let bytes = |(name, value): &(&String, &HeaderValue)| {
            let value = match value {
                HeaderValue::Text(text) => text.len(),
                HeaderValue::Integer(_) => 8,
            };
            let bytes = name.len() + value + 6;
            // This header fits beside the others.
            if *name == DROPPED_HEADERS_HEADER { bytes.saturating_sub(DROPPED_BYTES_MAX + 40) } else { bytes }
        };
        let mut all: Vec<_> = self.0.iter().filter(|(name, _)| !is_brokers_own(name)).collect();
        all.sort_by_key(|header| (!KEPT_FIRST.contains(&header.0.as_str()), bytes(header)));
        let (mut copy, mut room, mut dropped) = (Self::default(), COPIED_BYTES_MAX, String::new());
        for header in all {
            let (size, (name, value)) = (bytes(&header), header);
            if let Some(rest) = room.checked_sub(size) {
                room = rest;
                copy.0.insert(name.clone(), value.clone());
            } else if !name.starts_with(HEADER_PREFIX) || name == DETAIL_HEADER {
                let separator = if dropped.is_empty() { "" } else { ", " };
                // Writing to a string does not fail.
                let _ = write!(dropped, "{separator}{name:?} of {size} bytes");
            }
        }
        if !dropped.is_empty() {
            copy.set_text(DROPPED_HEADERS_HEADER, tidy(&dropped, DROPPED_BYTES_MAX).as_str());
        }
        copy
    }

    /// The headers as a JSON object of texts and whole numbers.
    pub fn to_json(&self) -> serde_json::Value {
        let value = |value: &HeaderValue| match value {
            HeaderValue::Text(text) => serde_json::Value::from(text.replace('\0', "\u{fffd}")),
            HeaderValue::Integer(number) => serde_json::Value::from(*number),
        };
        serde_json::Value::Object(self.0.iter().map(|(name, v)| (name.replace('\0', "\u{fffd}"), value(v))).collect())
    }

    /// Reads such an object. Values that are neither text nor whole number are left out.
    pub fn from_json(json: &serde_json::Value) -> Self {
        let value = |value: &serde_json::Value| {
            let text = value.as_str().map(|text| HeaderValue::Text(text.to_owned()));
            text.or_else(|| value.as_i64().map(HeaderValue::Integer))
        };
        let pairs = json.as_object().into_iter().flatten();
        Self(pairs.filter_map(|(name, v)| Some((name.clone(), value(v)?))).collect())
    }

    /// The headers without those whose names begin with `prefix`.
    #[must_use]
    pub fn without_prefix(&self, prefix: &str) -> Self {
        let kept = self.0.iter().filter(|(name, _)| !name.to_ascii_lowercase().starts_with(prefix));
        Self(kept.map(|(name, value)| (name.clone(), value.clone())).collect())
    }

    pub(super) fn read(table: &FieldTable) -> Self {
        let value = |value: &AMQPValue| {
            if let Some(text) = value.as_long_string() {
                return Some(HeaderValue::Text(String::from_utf8_lossy(text.as_bytes()).into_owned()));
            }
            let number = None
                .or_else(|| value.as_long_long_int())
                .or_else(|| value.as_long_int().map(i64::from))
                .or_else(|| value.as_long_uint().map(i64::from))
                .or_else(|| value.as_short_int().map(i64::from))
                .or_else(|| value.as_short_uint().map(i64::from))
                .or_else(|| value.as_short_short_int().map(i64::from))
                .or_else(|| value.as_short_short_uint().map(i64::from));
            number.map(HeaderValue::Integer)
        };
        Self(table.inner().iter().filter_map(|(name, v)| Some((name.as_str().to_owned(), value(v)?))).collect())
    }

    pub(super) fn write(&self) -> FieldTable {
        let mut table = FieldTable::default();
        for (name, value) in &self.0 {
            // A header of another sender has at most 255 bytes in its name, because it came over AMQP. Ours are short.
            let Ok(name) = ShortString::try_new(name.as_str()) else { continue };
            table.insert(
                name,
                match value {
                    HeaderValue::Text(text) => AMQPValue::LongString(text.as_str().into()),
                    HeaderValue::Integer(number) => AMQPValue::LongLongInt(*number),
                },
            );
        }
        table
    }
}

/// How the broker moved a message from a queue to its dead letters: the last entry in `x-death`
/// (<https://www.rabbitmq.com/docs/dlx#effects>).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Death {
    /// `delivery_limit`, `expired`, `maxlen` or `rejected`.
    pub reason: String,
    /// The queue from which it was moved.
    pub queue: String,
    /// The exchange to which it was published. Empty for the default exchange.
    pub exchange: String,
    /// The routing key under which it was published.
    pub routing_key: String,
    /// Whether it ever came out of one of our retry queues. Only workers publish to these.
    pub was_put_off: bool,
}

impl Death {
    pub(super) fn read(table: &FieldTable) -> Option<Self> {
        let AMQPValue::FieldArray(deaths) = table.inner().get("x-death")? else { return None };
        let value = |value: &AMQPValue| {
            value.as_long_string().map(|text| String::from_utf8_lossy(text.as_bytes()).into_owned())
        };
        let of = |death: &AMQPValue, name: &str| {
            let AMQPValue::FieldTable(death) = death else { return None };
            death.inner().get(name).cloned()
        };
        let text = |death: &AMQPValue, name: &str| of(death, name).as_ref().and_then(value).unwrap_or_default();
        let first_key = |death: &AMQPValue| {
            let Some(AMQPValue::FieldArray(keys)) = of(death, "routing-keys") else { return None };
            keys.as_slice().first().and_then(value)
        };
        let is_retry = |death: &AMQPValue| {
            text(death, "queue").starts_with(&retry_queue("")) && text(death, "reason") == "expired"
        };
        // The newest entry comes first.
        let newest = deaths.as_slice().first().filter(|death| matches!(death, AMQPValue::FieldTable(_)))?;
        Some(Self {
            reason: text(newest, "reason"),
            queue: text(newest, "queue"),
            exchange: text(newest, "exchange"),
            routing_key: first_key(newest).unwrap_or_default(),
            was_put_off: deaths.as_slice().iter().any(is_retry),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_brokers_own_headers_are_not_passed_on() {
        let mut headers = Headers::default();
        for name in ["x-death", "x-first-death-reason", "x-last-death-queue", "x-delivery-count", "CC", "bcc"] {
            headers.set_text(name, "x");
        }
        headers.set_text("traceparent", "00-1");
        headers.set_integer("x-grantonce-attempt", 2);
        let kept = headers.to_copy();
        assert_eq!(kept.0.keys().collect::<Vec<_>>(), ["traceparent", "x-grantonce-attempt"]);
    }

    #[test]
    fn a_copy_keeps_ours_and_the_smallest_and_names_what_it_drops() {
        let mut headers = Headers::default();
        for n in 0..40 {
            headers.0.insert(format!("small-{n:02}"), HeaderValue::Text("x".repeat(20)));
        }
        headers.0.insert("large".to_owned(), HeaderValue::Text("x".repeat(120_000)));
        headers.0.insert(format!("y{}", "z".repeat(250)), HeaderValue::Text("x".repeat(4_000)));
        headers.set_text("traceparent", "00-1");
        headers.set_integer("x-grantonce-attempt", 2);
        let copy = headers.to_copy();
        assert_eq!(copy.0.len(), 43);
        assert_eq!((copy.text("traceparent"), copy.integer("x-grantonce-attempt")), (Some("00-1"), Some(2)));
        let dropped = copy.text(DROPPED_HEADERS_HEADER).unwrap();
        assert!(dropped.ends_with(r#", "large" of 120011 bytes"#) && dropped.contains("of 4257 bytes"), "{dropped}");
        assert_eq!(copy.to_copy(), copy, "a copy of a copy is the same");
        // As large as it can become, and still in the smallest frame.
        let mut filled = Headers::default();
        (0..400).for_each(|n| filled.set_text(&format!("{n:03}"), "xx"));
        filled = filled.to_copy();
        assert_eq!(filled.to_copy(), filled, "a copy of a copy is the same");
        filled.set_text(DETAIL_HEADER, &"d".repeat(3_000));
        filled.set_text(ROUTING_KEY_HEADER, &"k".repeat(255));
        let bytes: usize = filled.0.keys().map(|name| name.len() + 6 + filled.text(name).unwrap().len()).sum();
        assert!(bytes < 8_192 - 4 * 256, "{bytes}");
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        let mut headers = Headers::default();
        headers.set_text("d", &"ä".repeat(3_000));
        assert_eq!(headers.text("d").map(str::len), Some(2_000));
        headers.set_text("d", &format!("x{}", "ä".repeat(3_000)));
        assert_eq!(headers.text("d").map(str::len), Some(1_999));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut headers = Headers::default();
        headers.set_text("a", "b");
        headers.set_integer("n", -7);
        assert_eq!(Headers::read(&headers.write()), headers);
    }
}
