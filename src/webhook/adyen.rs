//! Adyen's standard webhooks: a signature in every item, no event id, and an amount in Adyen's own minor units.
//!
//! Rules from <https://docs.adyen.com/development-resources/webhooks/>, its pages on HMAC signatures, event codes, dispute
//! webhooks and currency codes.

mod meaning;
mod table;

use super::signature::{Mac, Tag, check, single};
use super::table::{Does, does};
use super::{Adapter, Concerns, KeyFault, Proof, Rejection, SecretProof, Translation, Unverified, Verified};
use crate::domain::dialect::{Body, Object, Odd, Part};
use crate::domain::{IgnoredWhy, MessageId, OrderId, PaymentEvent, Provider};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use meaning::{Fact, Meaning, Reader, payment_id};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) static ADAPTER: Adapter = Adapter {
    provider: Provider::ADYEN,
    proof: Proof::Secret(SecretProof { key, verify }),
    translate,
    events: Some(table::page),
};

/// Adyen's keys have 32 bytes.
const KEY_BYTES_MIN: usize = 16;

/// Adyen puts one item into a request today, but its contract allows more. A body of the greatest length cannot hold more useful
/// items than this.
const ITEMS_MAX: usize = 1_000;

pub(super) fn key(secret: &str) -> Result<Mac, KeyFault> {
    if secret.is_empty() {
        return Err(KeyFault::Empty);
    }
    if !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(KeyFault::BadCharacter);
    }
    let key = hex::decode(secret).map_err(|_| KeyFault::NotHex)?;
    if key.len() < KEY_BYTES_MIN {
        return Err(KeyFault::TooFewDigits { min_digits: 2 * KEY_BYTES_MIN });
    }
    Mac::new(&key)
}

/// Signs a whole body without items. Adyen sends some webhooks that report no payments to the same address.
const BODY_SIGNATURE_HEADER: &str = "hmacsignature";

/// The items of a body.
fn items<'v>(body: &'v Body<'v>) -> Option<Vec<Object<'v>>> {
    let items = Part::from(body).get("notificationItems")?.as_array()?;
    items.map(|item| Object::root(item.get("NotificationRequestItem")?)).collect()
}

/// Every item has its own signature, and every one must be valid: one bad item refuses the request.
fn verify<'a>(macs: &[Mac], request: &Unverified<'a>) -> Result<Option<&'a str>, Rejection> {
    let malformed = |fault| Rejection::Malformed { fault };
    let body = Body::read(request.body).map_err(|_| malformed("it is not JSON"))?;
    if Part::from(&body).get("notificationItems").is_none()
        && let Some(signature) = single(request, BODY_SIGNATURE_HEADER)?
    {
        check(macs, &[request.body], tag(signature).as_slice())?;
        return Ok(None);
    }
    let items = items(&body).ok_or(malformed("it has no notificationItems with a NotificationRequestItem each"))?;
    if items.is_empty() {
        return Err(malformed("notificationItems is empty"));
    }
    if items.len() > ITEMS_MAX {
        return Err(malformed("notificationItems has more than 1,000 items"));
    }
    for item in items {
        let signature = item
            .value("additionalData")
            .and_then(|data| data.get("hmacSignature")?.as_str())
            .filter(|signature| !signature.is_empty())
            .ok_or(Rejection::SignatureMissing)?;
        let signed = Signed::of(&item).map_err(malformed)?;
        check(macs, &[signed.text.as_bytes()], tag(signature).as_slice())?;
    }
    Ok(None)
}

fn tag(signature: &str) -> Option<Tag> {
    BASE64_STANDARD.decode(signature).ok().and_then(|tag| Tag::try_from(tag).ok())
}

/// The signed text of an item: eight fields between colons, without escapes; a missing field is empty.
struct Signed {
    text: String,
    /// Whether a field other than the merchant's own reference contains a colon. If no other field does, the text can be split into
    /// its fields in one way only. Otherwise the same signature also fits an item with other content, so such an item must never be
    /// applied. Names of reports contain colons, and they must be answered with 2xx all the same.
    is_ambiguous: bool,
}

impl Signed {
    fn of(item: &Object<'_>) -> Result<Self, &'static str> {
        let amount = item.value("amount");
        let mut signed = Self { text: String::new(), is_ambiguous: false };
        for (n, (name, value)) in [
            ("pspReference", item.value("pspReference")),
            ("originalReference", item.value("originalReference")),
            ("merchantAccountCode", item.value("merchantAccountCode")),
            ("merchantReference", item.value("merchantReference")),
            ("value", amount.and_then(|amount| amount.get("value"))),
            ("currency", amount.and_then(|amount| amount.get("currency"))),
            ("eventCode", item.value("eventCode")),
            ("success", item.value("success")),
        ]
        .into_iter()
        .enumerate()
        {
            let value = match value {
                None | Some(Part::Null) => String::new(),
                Some(Part::Text(text)) => text.to_owned(),
                Some(Part::Number(number)) => number.to_string(),
                Some(Part::Flag(flag)) => flag.to_string(),
                Some(Part::List(_) | Part::Object(_)) => return Err("a signed field is a list or an object"),
            };
            signed.is_ambiguous |= name != "merchantReference" && value.contains(':');
            if n > 0 {
                signed.text.push(':');
            }
            signed.text.push_str(&value);
        }
        Ok(signed)
    }
}

fn translate(verified: &Verified<'_>) -> Vec<Translation> {
    let Ok(body) = Body::read(verified.body) else {
        return vec![verified.untranslatable(None, None, "the body is not JSON")];
    };
    // It is not signed, so it decides nothing. But a webhook of the other environment with our key is a mistake that an operator
    // must see.
    let live = Part::from(&body).get("live");
    let is_live = live.and_then(|live| live.as_bool().or_else(|| live.as_str()?.parse().ok()));
    match items(&body) {
        Some(items) if !items.is_empty() => items.iter().map(|item| translate_item(verified, item, is_live)).collect(),
        Some(_) | None => vec![translate_body(verified, &body)],
    }
}

/// A body without items, signed as a whole.
fn translate_body(verified: &Verified<'_>, body: &Body<'_>) -> Translation {
    let kind = Part::from(body).get("type").and_then(Part::as_str);
    match kind.map(|kind| (kind, does(table::ROWS, kind))) {
        Some((kind, Does::Ignored(why))) => Translation::ignored(kind, why),
        Some(_) | None => verified.untranslatable(
            None,
            None,
            "the body has no notificationItems: see at Adyen what it reports; let only standard webhooks point to this address",
        ),
    }
}

fn translate_item(verified: &Verified<'_>, item: &Object<'_>, is_live: Option<bool>) -> Translation {
    let message_id = message_id(verified, item);
    let facts = match meaning(verified, item) {
        Ok(Meaning::Nothing(why)) => {
            let code = item.value("eventCode").and_then(Part::as_str).unwrap_or_default();
            return Translation::ignored(code, why);
        }
        Ok(Meaning::Facts(facts)) => Ok(facts),
        Err(odd) => Err(odd),
    };
    let is_ambiguous = Signed::of(item).is_ok_and(|signed| signed.is_ambiguous);
    let concerns = concerns(item, facts.as_deref().unwrap_or_default());
    let checked = facts.and_then(|facts| {
        if is_ambiguous {
            let fault = "the signed fields cannot be told apart, because another one than merchantReference has a colon: \
                         look the payment up at Adyen, and settle it by hand";
            return Err(item.odd("pspReference", fault));
        }
        match is_live {
            Some(is_live) if is_live != verified.terms.livemode => Err(item.odd(
                "live",
                format_args!(
                    "is {is_live}, while GRANTONCE_LIVEMODE is {}: the webhooks of the two environments need different \
                     HMAC keys",
                    verified.terms.livemode
                ),
            )),
            Some(_) | None => events(verified, item, message_id.as_ref(), facts),
        }
    });
    match checked {
        Ok(events) => Translation::Events(events),
        // Only the key tells test from live, so nothing may be dropped as a test event here. An ambiguous item does not use up the
        // id of the other reading.
        Err(odd) => {
            let message_id = message_id.ok().filter(|_| !is_ambiguous);
            verified.untranslatable(message_id, None, &odd.to_string()).concerning(concerns)
        }
    }
}

/// There is no event id. Copies of one event share the reference, the code and the outcome.
fn message_id(verified: &Verified<'_>, item: &Object<'_>) -> Result<MessageId, Odd> {
    let event = format!("{}:{}:{}", item.text("pspReference")?, item.text("eventCode")?, success(item)?);
    verified.message_id("", &event).map_err(|fault| item.odd("pspReference", fault))
}

/// A text that may be a JSON boolean or number.
fn success(item: &Object<'_>) -> Result<bool, Odd> {
    if let Some(success) = item.value("success").and_then(Part::as_bool) {
        return Ok(success);
    }
    item.text("success")?.parse().map_err(|_| item.odd("success", "must be true or false"))
}

fn meaning(verified: &Verified<'_>, item: &Object<'_>) -> Result<Meaning, Odd> {
    let code = item.text("eventCode")?;
    match does(table::ROWS, code) {
        Does::Applied(read) | Does::Hint(read) => {
            let is_captured_by_hand = verified.terms.is_adyen_captured_by_hand;
            Reader { item, success: success(item)?, is_captured_by_hand }.meaning(read)
        }
        Does::Ignored(why) => Ok(Meaning::Nothing(why)),
        Does::DeadLetterIfOurs if order_id(item).is_none() => Ok(Meaning::Nothing(IgnoredWhy::NotOurs)),
        Does::DeadLetter | Does::DeadLetterIfOurs => {
            let fault = "may report money in a way that this release cannot apply: see at Adyen whether money of an order \
                         moved, and settle the order by hand";
            Err(item.odd("eventCode", fault))
        }
    }
}

/// The site's server sets the merchant's own reference when it creates the payment. If it is not one of our ids, the order knows
/// the payment by Adyen's reference.
fn order_id(item: &Object<'_>) -> Option<OrderId> {
    item.value("merchantReference").and_then(|text| text.as_str()?.parse().ok())
}

fn concerns(item: &Object<'_>, facts: &[Fact]) -> Concerns {
    let mut payment_ids: Vec<_> = facts.iter().map(|fact| fact.payment_id.clone()).collect();
    payment_ids.extend(payment_id(item));
    payment_ids.sort_unstable();
    payment_ids.dedup();
    let status = facts.first().map(|fact| fact.status.clone());
    // A merchant account is ours if it signs with our key.
    Concerns { order_id: order_id(item), provider_account: None, payment_ids, status }
}

fn events(
    verified: &Verified<'_>,
    item: &Object<'_>,
    message_id: Result<&MessageId, &Odd>,
    facts: Vec<Fact>,
) -> Result<Vec<PaymentEvent>, Odd> {
    let message_id = message_id.map_err(Odd::clone)?;
    let occurred_at = OffsetDateTime::parse(item.text("eventDate")?, &Rfc3339)
        .map_err(|_| item.odd("eventDate", "must be a date and time with an offset, as in RFC 3339"))?;
    let event = |Fact { suffix, payment_id, related_id, status }: Fact| -> Result<PaymentEvent, Odd> {
        Ok(PaymentEvent {
            provider: ADAPTER.provider.clone(),
            message_id: MessageId::new(format!("{message_id}{suffix}"))
                .map_err(|fault| item.odd("pspReference", format_args!("the message id formed from it {fault}")))?,
            payment_id,
            related_ids: related_id.into_iter().collect(),
            provider_account: None,
            order_id: order_id(item),
            status,
            occurred_at,
            as_of: None,
            livemode: verified.terms.livemode,
        })
    };
    facts.into_iter().map(event).collect()
}

#[cfg(test)]
pub(super) mod tests;
