//! Adyen's standard webhooks: a signature in every item, no event id, and an amount in Adyen's own minor units.
//!
//! Rules from <https://docs.adyen.com/development-resources/webhooks/>, its pages on HMAC signatures, event codes, dispute
//! webhooks and currency codes.

mod table;

use super::signature::{Mac, Tag, check};
use super::table::{Does, does};
use super::{Door, KeyFault, Proof, Rejection, SecretProof, Translation, Unverified, Verified};
use crate::domain::dialect::{Body, Object, Odd, Part};
use crate::domain::{
    CaptureState, Currency, DisputeState, FactId, IgnoredWhy, MessageId, Money, OrderId, PaymentEvent, PaymentId,
    PaymentStatus, Provider, RefundState,
};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

pub(super) static DOOR: Door = Door {
    provider: Provider::ADYEN,
    proof: Proof::Secret(SecretProof { key, verify }),
    translate,
    events: Some(table::page),
};

/// Adyen makes keys of 32 bytes.
const KEY_BYTES_MIN: usize = 16;

/// Adyen puts one item into a request today; its contract allows for more. A body of the greatest length holds no more
/// than this of any that say something.
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

/// The items of a body.
fn items<'v>(body: &'v Body<'v>) -> Option<Vec<Object<'v>>> {
    let items = Part::from(body).get("notificationItems")?.as_array()?;
    items.map(|item| Object::root(item.get("NotificationRequestItem")?)).collect()
}

/// Every item is signed by itself, and every one counts: one that is not ours refuses the request.
fn verify<'a>(macs: &[Mac], request: &Unverified<'a>) -> Result<Option<&'a str>, Rejection> {
    let malformed = |fault| Rejection::Malformed { fault };
    let body = Body::read(request.body).map_err(|_| malformed("it is not JSON"))?;
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
        let tag = BASE64_STANDARD.decode(signature).ok().and_then(|tag| Tag::try_from(tag).ok());
        let signed = signed_text(&item).map_err(malformed)?;
        check(macs, &[signed.as_bytes()], tag.as_slice())?;
    }
    Ok(None)
}

/// What an item's signature covers: eight fields between colons, nothing escaped, what is missing empty.
///
/// Only the merchant's own reference may hold a colon: with all others free of them there is one way to part the text, and
/// a signature cannot be moved to an item that says something else.
fn signed_text(item: &Object<'_>) -> Result<String, &'static str> {
    let amount = item.value("amount");
    let text = |value: Option<Part<'_>>| match value {
        None | Some(Part::Null) => Ok(String::new()),
        Some(Part::Text(text)) => Ok(text.to_owned()),
        Some(Part::Number(number)) if number.is_i64() || number.is_u64() => Ok(number.to_string()),
        Some(_) => Err("a signed field is neither a text nor a whole number"),
    };
    let mut signed = String::new();
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
        let value = text(value)?;
        if value.contains(':') && name != "merchantReference" {
            return Err("a signed field other than merchantReference has a colon");
        }
        if n > 0 {
            signed.push(':');
        }
        signed.push_str(&value);
    }
    Ok(signed)
}

/// The value of `additionalData.hmacSignature` for an item.
pub(super) fn sign(mac: &Mac, item: &Value) -> Option<String> {
    let signed = signed_text(&Object::root(item)?).ok()?;
    Some(BASE64_STANDARD.encode(mac.tag(&[signed.as_bytes()])))
}

fn translate(verified: &Verified<'_>) -> Vec<Translation> {
    let body = Body::read(verified.body).ok();
    let Some(items) = body.as_ref().and_then(items) else {
        return vec![verified.untranslatable(None, None, "the body has no notificationItems")];
    };
    // Not signed, so it decides nothing; but a webhook of the other environment that was given our key is a mistake that
    // somebody has to see.
    let live = body.as_ref().and_then(|body| Part::from(body).get("live"));
    let is_live = live.and_then(|live| live.as_bool().or_else(|| live.as_str()?.parse().ok()));
    items
        .iter()
        .map(|item| {
            let message_id = message_id(verified, item);
            let said = match is_live {
                Some(is_live) if is_live != verified.terms.livemode => Err(item.odd(
                    "live",
                    format_args!(
                        "is {is_live}, while GRANTONCE_LIVEMODE is {}: the webhooks of the two environments need \
                         different HMAC keys",
                        verified.terms.livemode
                    ),
                )),
                Some(_) | None => read(verified, item, message_id.as_ref()),
            };
            // Test or live is told by the key alone, so nothing here may be dropped as a test event.
            said.unwrap_or_else(|odd| verified.untranslatable(message_id.ok(), None, &odd.to_string()))
        })
        .collect()
}

/// There is no event id: the copies of one event share the reference, the code and the outcome.
fn message_id(verified: &Verified<'_>, item: &Object<'_>) -> Result<MessageId, Odd> {
    let event = format!("{}:{}:{}", item.text("pspReference")?, item.text("eventCode")?, success(item)?);
    verified.message_id("", &event).map_err(|fault| item.odd("pspReference", fault))
}

/// A text in JSON's clothes.
fn success(item: &Object<'_>) -> Result<bool, Odd> {
    if let Some(success) = item.value("success").and_then(Part::as_bool) {
        return Ok(success);
    }
    item.text("success")?.parse().map_err(|_| item.odd("success", "must be true or false"))
}

/// What an item says of its payment.
enum Said {
    Status(PaymentStatus),
    /// Its code is one that says nothing of a payment that could be paid.
    Nothing,
}

fn read(verified: &Verified<'_>, item: &Object<'_>, message_id: Result<&MessageId, &Odd>) -> Result<Translation, Odd> {
    let code = item.text("eventCode")?;
    let success = success(item)?;
    let ignored = |why| Ok(Translation::ignored(&format!("{code} ({success})"), why));
    match does(table::ROWS, code) {
        Does::Applied(table::Read::ByCode) | Does::Hint(table::Read::ByCode) => {}
        Does::Ignored(why) => return ignored(why),
        Does::DeadLetter | Does::DeadLetterIfOurs => {
            return Err(item.odd("eventCode", "is one that may report money and that this release cannot read"));
        }
    }
    let status = match meaning(verified.terms.is_adyen_captured_by_hand, code, success, item)? {
        Said::Status(status) => status,
        Said::Nothing => return ignored(IgnoredWhy::RequestFailed),
    };
    let occurred_at = OffsetDateTime::parse(item.text("eventDate")?, &Rfc3339)
        .map_err(|_| item.odd("eventDate", "must be a date and time with an offset, as in RFC 3339"))?;
    Ok(Translation::Events(vec![PaymentEvent {
        provider: DOOR.provider.clone(),
        message_id: message_id.map_err(Odd::clone)?.clone(),
        payment_id: payment_id(item)?,
        related_ids: Vec::new(),
        // A merchant account is ours if it signs with our key.
        provider_account: None,
        // The merchant's own reference is set where the payment is made, by the site's server. One that is not an id of
        // ours belongs to a payment that the order knows by its reference.
        order_id: item.value("merchantReference").and_then(|text| text.as_str()?.parse::<OrderId>().ok()),
        status,
        occurred_at,
        as_of: None,
        livemode: verified.terms.livemode,
    }]))
}

/// The payment's reference: on what was done to a payment later it is the original one.
fn payment_id(item: &Object<'_>) -> Result<PaymentId, Odd> {
    let field = match item.value("originalReference").and_then(Part::as_str) {
        None | Some("") => "pspReference",
        Some(_) => "originalReference",
    };
    item.parsed(field)
}

fn meaning(is_captured_by_hand: bool, code: &str, success: bool, item: &Object<'_>) -> Result<Said, Odd> {
    let own_id = || item.parsed::<FactId>("pspReference");
    let capture_id = || {
        if is_captured_by_hand {
            return own_id();
        }
        // There is one capture, told by the authorisation, and later by nothing but its failure: it goes by the
        // payment's reference.
        FactId::new(payment_id(item)?.as_str()).map_err(|fault| item.odd("originalReference", fault))
    };
    let captured = |state| -> Result<Said, Odd> {
        Ok(Said::Status(PaymentStatus::Captured {
            money: money(item)?,
            capture_id: Some(capture_id()?),
            state,
            breakdown: None,
        }))
    };
    let refunded = |state| -> Result<Said, Odd> {
        Ok(Said::Status(PaymentStatus::Refund { refund_id: own_id()?, state, money: money(item)? }))
    };
    // All events of a dispute have its reference. The rounds are those in which the money moves, so that each step
    // outweighs the one before, in whatever order they come.
    let dispute = |round, state| -> Result<Said, Odd> {
        Ok(Said::Status(PaymentStatus::Dispute { dispute_id: own_id()?, state, round, money: money(item)? }))
    };
    match (code, success) {
        // A card was looked at, and nothing taken.
        ("AUTHORISATION", true) if amount_is_zero(item) => Ok(Said::Nothing),
        ("AUTHORISATION", true) if is_captured_by_hand => Ok(Said::Status(PaymentStatus::Pending)),
        ("AUTHORISATION", true) => captured(CaptureState::Succeeded),
        ("AUTHORISATION", false) => Ok(Said::Status(PaymentStatus::failed(
            item.value("reason").and_then(Part::as_str).filter(|reason| !reason.is_empty()).unwrap_or("refused"),
        ))),
        ("CAPTURE", true) => captured(CaptureState::Succeeded),
        ("CAPTURE", false) | ("CAPTURE_FAILED", _) => captured(CaptureState::Failed),
        ("PENDING", true) => Ok(Said::Status(PaymentStatus::Pending)),
        ("CANCELLATION" | "TECHNICAL_CANCEL" | "OFFER_CLOSED" | "EXPIRE", true) => {
            Ok(Said::Status(PaymentStatus::Canceled))
        }
        ("REFUND" | "CANCEL_OR_REFUND", true) => refunded(RefundState::Succeeded),
        // A refund that did not come about, or came back.
        ("REFUND", false) | ("REFUND_FAILED" | "REFUNDED_REVERSED", _) => refunded(RefundState::Failed),
        ("REQUEST_FOR_INFORMATION", _) => dispute(1, DisputeState::Inquiry),
        ("NOTIFICATION_OF_CHARGEBACK", _) => dispute(1, DisputeState::Open),
        // The money is gone, and stays gone unless the next round brings it back.
        ("CHARGEBACK", _) => dispute(1, DisputeState::Lost),
        ("CHARGEBACK_REVERSED", _) => dispute(2, DisputeState::Won),
        ("SECOND_CHARGEBACK", _) => dispute(3, DisputeState::Lost),
        ("PREARBITRATION_WON", _) => dispute(4, DisputeState::Won),
        ("PREARBITRATION_LOST", _) => dispute(4, DisputeState::Lost),
        // Among them REPORT_AVAILABLE and what asked for something that was refused.
        _ => Ok(Said::Nothing),
    }
}

fn amount_is_zero(item: &Object<'_>) -> bool {
    item.value("amount").and_then(|amount| amount.get("value")?.as_i64()) == Some(0)
}

fn money(item: &Object<'_>) -> Result<Money, Odd> {
    let amount = item.object("amount", "amount")?;
    let currency: Currency = amount.parsed("currency")?;
    Money::from_units(amount.integer("value")?, decimals(currency), currency)
        .map_err(|fault| amount.odd("value", fault))
}

/// How many decimals Adyen counts: ISO 4217's, but for those on its page
/// <https://docs.adyen.com/development-resources/currency-codes/>.
fn decimals(currency: Currency) -> u8 {
    match currency.as_str() {
        "CVE" | "IDR" => 0,
        "CLP" | "ISK" => 2,
        _ => currency.decimals(),
    }
}

#[cfg(test)]
pub(super) mod tests;
