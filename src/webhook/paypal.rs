//! PayPal: signatures with PayPal's certificate, and events that are only hints.
//!
//! The signature covers only the CRC-32 of the body, and anybody can make another body with the same CRC-32. So anyone who has seen
//! one genuine request, for example in a log, can send any body under its signature. Therefore a body is trusted for nothing but
//! the name of a payment, and PayPal is asked about that payment.
//!
//! Rules from <https://developer.paypal.com/api/rest/webhooks/rest/> and
//! <https://developer.paypal.com/api/rest/webhooks/event-names/>; the certificate's names from PayPal's SDKs for Java
//! (`SSLUtil.validateCertificateChain`: `messageverificationcerts….paypal.com`) and Python.

mod table;

use super::signature::single;
use super::table::{Does, does};
use super::trust::{CertificateUrl, Signed, Trust};
use super::{
    Adapter, CertificateProof, Concerns, KeyFault, Proof, Rejection, Subscriptions, Terms, Translation, Unverified,
    Verified,
};
use crate::domain::dialect::paypal::{order_of, parent};
use crate::domain::dialect::{Body, Object, Odd};
use crate::domain::{Hint, IgnoredWhy, MessageId, OrderId, PaymentId, Provider};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use crc::{CRC_32_ISO_HDLC, Crc};
use table::Read;

pub(super) static ADAPTER: Adapter = Adapter {
    provider: Provider::PAYPAL,
    proof: Proof::Certificate(CertificateProof { id, url, verify }),
    translate,
    events: Some(table::page),
};

const ID_HEADER: &str = "paypal-transmission-id";
const TIME_HEADER: &str = "paypal-transmission-time";
const SIGNATURE_HEADER: &str = "paypal-transmission-sig";
const URL_HEADER: &str = "paypal-cert-url";
const ALGORITHM_HEADER: &str = "paypal-auth-algo";

/// The only supported algorithm.
const ALGORITHM: &str = "SHA256withRSA";

/// PayPal's simulator signs with this text in the place of a subscription's id.
const SIMULATOR_ID: &str = "WEBHOOK_ID";

/// Longest id of a subscription, as PayPal's API documents it.
const WEBHOOK_ID_BYTES_MAX: usize = 50;

/// Names of the certificate that signs. The simulator signs with the first as well, so that name is accepted everywhere.
const NAME: &str = "messageverificationcerts.paypal.com";
const SANDBOX_NAME: &str = "messageverificationcerts.sandbox.paypal.com";

/// The intermediates between PayPal's certificates and the roots. The first belongs to the certificates of 2017 to 2026. PayPal's
/// own SDKs ship theirs too, because the address may serve the certificate without its chain. If the right one is missing here, the
/// system's CA certificates must contain it.
static BETWEEN: &[u8] = include_bytes!("paypal/intermediates.pem");

static CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// Most payments that one dispute may name. Each hint makes a call to PayPal.
const DISPUTED_MAX: usize = 8;

fn id(text: &str, terms: Terms) -> Result<String, KeyFault> {
    if text.is_empty() {
        return Err(KeyFault::Empty);
    }
    if !text.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(KeyFault::BadCharacter);
    }
    if text == SIMULATOR_ID {
        return if terms.livemode { Err(KeyFault::Simulator) } else { Ok(text.to_owned()) };
    }
    // The signed text is separated by vertical bars, so no other characters may occur.
    let is_id = text.len() <= WEBHOOK_ID_BYTES_MAX && text.bytes().all(|b| b.is_ascii_alphanumeric());
    if is_id { Ok(text.to_owned()) } else { Err(KeyFault::NotWebhookId) }
}

/// The headers of the signature.
struct Transmission<'a> {
    id: &'a str,
    time: &'a str,
    signature: Vec<u8>,
    url: CertificateUrl,
}

fn transmission<'a>(trust: &Trust, request: &Unverified<'a>) -> Result<Transmission<'a>, Rejection> {
    let malformed = |header, fault| Rejection::SignatureMalformed { header, fault };
    let needed = |header| single(request, header)?.ok_or(malformed(header, "is missing"));
    let signature = single(request, SIGNATURE_HEADER)?.ok_or(Rejection::SignatureMissing)?;
    let (id, time) = (needed(ID_HEADER)?, needed(TIME_HEADER)?);
    // The bar separates the signed text, and a signature must fit one way to split it only.
    for (header, text) in [(ID_HEADER, id), (TIME_HEADER, time)] {
        if text.contains('|') {
            return Err(malformed(header, "must not have a vertical bar"));
        }
    }
    if needed(ALGORITHM_HEADER)? != ALGORITHM {
        return Err(malformed(ALGORITHM_HEADER, "must be SHA256withRSA"));
    }
    let signature = BASE64_STANDARD.decode(signature).map_err(|_| malformed(SIGNATURE_HEADER, "is not base64"))?;
    Ok(Transmission { id, time, signature, url: trust.certificate_url(URL_HEADER, needed(URL_HEADER)?)? })
}

fn url(trust: &Trust, request: &Unverified<'_>) -> Result<CertificateUrl, Rejection> {
    Ok(transmission(trust, request)?.url)
}

/// The signed time is not compared with our time: PayPal repeats an event for three days and does not document a new signature. A
/// replayed request repeats an old hint, and its only effect is a question to PayPal.
fn verify(held: &Subscriptions, request: &Unverified<'_>, certificates: &[u8]) -> Result<(), Rejection> {
    let Transmission { id, time, signature, url: _ } = transmission(&held.trust, request)?;
    let text = |webhook_id: &String| signed_text(id, time, webhook_id, request.body);
    let signed = Signed {
        certificates,
        between: BETWEEN,
        names: if held.terms.livemode { &[NAME] } else { &[NAME, SANDBOX_NAME] },
        texts: &held.ids.iter().map(text).collect::<Vec<_>>(),
        signature: &signature,
    };
    held.trust.check(&signed, request.now)
}

/// `<transmission id>|<time>|<webhook id>|<CRC-32 of the body, as an unsigned decimal>`.
fn signed_text(id: &str, time: &str, webhook_id: &str, body: &[u8]) -> String {
    format!("{id}|{time}|{webhook_id}|{}", CRC.checksum(body))
}

fn translate(verified: &Verified<'_>) -> Vec<Translation> {
    let livemode = verified.terms.livemode;
    let body = Body::read(verified.body).ok();
    let Some(event) = body.as_ref().and_then(Object::root) else {
        return vec![verified.untranslatable(None, Some(livemode), "the body is not a JSON object")];
    };
    read(verified, &event).unwrap_or_else(|odd| {
        let message_id = message_id(verified, &event, 1).ok();
        vec![verified.untranslatable(message_id, Some(livemode), &odd.to_string()).concerning(concerns(&event))]
    })
}

/// The readable parts of an event that cannot be applied. No amount in it is trusted.
fn concerns(event: &Object<'_>) -> Concerns {
    let mut payment_ids = Vec::new();
    if let Ok(resource) = event.object("resource", "resource") {
        let text = |field: &str| resource.value(field).and_then(|id| id.as_str()?.parse().ok());
        payment_ids.extend(["id", "order_id", "sale_id", "parent_payment"].into_iter().filter_map(text));
        payment_ids.extend(order_of(&resource).ok().flatten());
        payment_ids.extend(["/captures/", "/orders/"].into_iter().filter_map(|place| parent(&resource, place)));
        payment_ids.dedup();
    }
    Concerns { order_id: order_named(event), provider_account: None, payment_ids, status: None }
}

/// The order that an event names, in any place where a site may have put its id.
fn order_named(event: &Object<'_>) -> Option<OrderId> {
    let resource = event.value("resource")?;
    let at = |path: &[&str]| path.iter().try_fold(resource, |part, field| part.get(field))?.as_str()?.parse().ok();
    let unit = || resource.get("purchase_units")?.as_array()?.next()?.get("custom_id")?.as_str()?.parse().ok();
    at(&["custom_id"])
        .or_else(|| at(&["custom"]))
        .or_else(unit)
        .or_else(|| at(&["invoice", "detail", "reference"]))
        .or_else(|| at(&["detail", "reference"]))
}

/// One hint for each payment in an event.
fn read(verified: &Verified<'_>, event: &Object<'_>) -> Result<Vec<Translation>, Odd> {
    let kind = event.text("event_type")?;
    let payments = match does(table::ROWS, kind) {
        Does::Hint(read) | Does::Applied(read) => payments(read, event)?,
        Does::Ignored(why) => return Ok(vec![Translation::ignored(kind, why)]),
        Does::DeadLetterIfOurs if order_named(event).is_none() => {
            return Ok(vec![Translation::ignored(kind, IgnoredWhy::NotOurs)]);
        }
        Does::DeadLetter | Does::DeadLetterIfOurs => {
            let fault = "may report money in a way that this release cannot apply: see at PayPal whether money of an order \
                         moved, and settle the order by hand";
            return Err(event.odd("event_type", fault));
        }
    };
    let hint = |(number, named): (usize, Named)| -> Result<Translation, Odd> {
        Ok(Translation::Hint(Hint {
            provider: ADAPTER.provider.clone(),
            message_id: message_id(verified, event, number)?,
            payment_id: named.payment_id,
            related_ids: named.related_ids,
            provider_account: None,
            // The body is not trusted here. As for all endpoints, the configuration of the webhook at PayPal decides.
            livemode: verified.terms.livemode,
        }))
    };
    (1..).zip(payments).map(hint).collect()
}

/// `<event id>:<event type>`, because the simulator uses one id for events of different types. If there are several hints, the
/// later ones also have a number.
fn message_id(verified: &Verified<'_>, event: &Object<'_>, number: usize) -> Result<MessageId, Odd> {
    let (id, kind) = (event.text("id")?, event.text("event_type")?);
    if id.contains(':') {
        return Err(event.odd("id", "must not have a colon"));
    }
    let number = if number > 1 { format!("#{number}") } else { String::new() };
    verified.message_id("", &format!("{id}:{kind}{number}")).map_err(|fault| event.odd("id", fault))
}

/// A payment under the names that an event uses.
struct Named {
    payment_id: PaymentId,
    related_ids: Vec<PaymentId>,
}

impl Named {
    fn by(payment_id: PaymentId) -> Self {
        Self { payment_id, related_ids: Vec::new() }
    }
}

/// The payments in an event.
fn payments(read: Read, event: &Object<'_>) -> Result<Vec<Named>, Odd> {
    let resource = event.object("resource", "resource")?;
    match read {
        Read::Capture => Ok(vec![capture(&resource)?]),
        Read::Order => Ok(vec![order(&resource)?]),
        Read::Dispute => disputed(&resource),
    }
}

/// A capture or an authorization, or a refund, whose parent is the capture. The order comes first if it is named, because our order
/// knows it from the beginning. The id of a refund comes before it: PayPal does not list every refund with its order, and only its
/// own id certainly leads to it.
fn capture(resource: &Object<'_>) -> Result<Named, Odd> {
    let own: PaymentId = resource.parsed("id")?;
    let order = order_of(resource)?.or_else(|| parent(resource, "/orders/"));
    Ok(match (parent(resource, "/captures/"), order) {
        (Some(capture), order) => Named { payment_id: own, related_ids: order.into_iter().chain([capture]).collect() },
        (None, Some(order)) => Named { payment_id: order, related_ids: vec![own] },
        (None, None) => Named::by(own),
    })
}

/// Orders name themselves. A reversed approval names its order.
fn order(resource: &Object<'_>) -> Result<Named, Odd> {
    let field = if resource.value("order_id").is_some() { "order_id" } else { "id" };
    resource.parsed(field).map(Named::by)
}

/// On the seller's side, each transaction is the capture.
fn disputed(resource: &Object<'_>) -> Result<Vec<Named>, Odd> {
    let field = "disputed_transactions";
    let transactions = resource.list(field, "disputed_transactions[]")?;
    if transactions.is_empty() || transactions.len() > DISPUTED_MAX {
        return Err(resource.odd(field, "must have 1 to 8 of them"));
    }
    transactions.iter().map(|transaction| transaction.parsed("seller_transaction_id").map(Named::by)).collect()
}

#[cfg(test)]
mod tests;
