//! Stripe: its signature, the facts in its snapshot events, and the payments to which its thin events lead.
//!
//! Rules from <https://docs.stripe.com/webhooks>, <https://docs.stripe.com/api/events/types> and
//! <https://docs.stripe.com/api/v2/core/events/event-types>; what its words mean stands in `domain::dialect::stripe`.

mod read;
mod table;

use super::signature::{Mac, Tag, check, check_time, single, unix_seconds};
use super::table::{Does, does};
use super::{Adapter, Concerns, KeyFault, Proof, Rejection, SecretProof, Translation, Unverified, Verified};
use crate::domain::dialect::stripe::time;
use crate::domain::dialect::{Body, Object, Odd, Part};
use crate::domain::{Hint, IgnoredWhy, MessageId, PaymentEvent, Provider, ProviderAccount};
use read::{Fault, Meaning, concerns, if_ours, meaning};

pub(super) static ADAPTER: Adapter = Adapter {
    provider: Provider::STRIPE,
    proof: Proof::Secret(SecretProof { key, verify }),
    translate,
    events: Some(table::page),
};

const HEADER: &str = "stripe-signature";

/// The `object` of an event without a snapshot: it only says that something happened to an object.
const THIN_EVENT: &str = "v2.core.event";

/// Related objects of thin events that are a payment or lead to one, by their `type`.
const LEADS_TO_PAYMENT: [&str; 5] = ["payment_intent", "checkout.session", "charge", "refund", "dispute"];

pub(super) fn key(secret: &str) -> Result<Mac, KeyFault> {
    if !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(KeyFault::BadCharacter);
    }
    Mac::new(secret.as_bytes())
}

/// `t=<unix>,v1=<hex>[,v1=…][,v0=…]`. There are two `v1` while a secret is replaced. `v0` is a test signature and never counts.
fn verify<'a>(macs: &[Mac], request: &Unverified<'a>) -> Result<Option<&'a str>, Rejection> {
    let malformed = |fault| Rejection::SignatureMalformed { header: HEADER, fault };
    let header = single(request, HEADER)?.ok_or(Rejection::SignatureMissing)?;
    let mut time = None;
    let mut has_v1 = false;
    let mut tags: Vec<Tag> = Vec::new();
    for item in header.split(',') {
        match item.split_once('=').ok_or(malformed("must be t=…,v1=…"))? {
            ("t", _) if time.is_some() => return Err(malformed("has more than one t=")),
            ("t", text) => time = Some(text),
            ("v1", text) => {
                has_v1 = true;
                tags.extend(hex::decode(text).ok().and_then(|tag| Tag::try_from(tag).ok()));
            }
            (_other_scheme, _) => {}
        }
    }
    let time = time.ok_or(malformed("has no t="))?;
    let signed_at = unix_seconds(time).ok_or(malformed("has a t= that is no number of seconds since 1970"))?;
    if !has_v1 {
        return Err(malformed("has no v1="));
    }
    check(macs, &[time.as_bytes(), request.body], &tags)?;
    check_time(signed_at, request.now)?;
    Ok(None)
}

fn translate(verified: &Verified<'_>) -> Vec<Translation> {
    vec![translated(verified)]
}

fn translated(verified: &Verified<'_>) -> Translation {
    let body = Body::read(verified.body).ok();
    let Some(event) = body.as_ref().and_then(Object::root) else {
        return verified.untranslatable(None, None, "the body is not a JSON object");
    };
    let is_thin = event.value("object").and_then(Part::as_str) == Some(THIN_EVENT);
    let account = if is_thin { context(&event) } else { account(&event) };
    let message_id = account.clone().and_then(|account| message_id(verified, &event, account.as_ref()));
    let read = if is_thin { thin } else { snapshot };
    read(&event, message_id.as_ref(), account.clone()).unwrap_or_else(|Fault { odd, status }| {
        let concerns =
            Concerns { provider_account: account.ok().flatten(), ..concerns(&event, status.map(|status| *status)) };
        verified.untranslatable(message_id.ok(), event.flag("livemode").ok(), &odd.to_string()).concerning(concerns)
    })
}

fn snapshot(
    event: &Object<'_>,
    message_id: Result<&MessageId, &Odd>,
    account: Result<Option<ProviderAccount>, Odd>,
) -> Result<Translation, Fault> {
    let kind = event.text("type")?;
    let meaning = match does(table::ROWS, kind) {
        Does::Applied(read) | Does::Hint(read) => meaning(read, event)?,
        Does::Ignored(why) => Meaning::Ignored(why),
        Does::DeadLetterIfOurs => if_ours(kind, event)?,
        Does::DeadLetter => {
            let fault = "is one that may report money and that this release does not know: look at the payment at Stripe, and \
                         dismiss this or update grantonce";
            return Err(event.odd("type", fault).into());
        }
    };
    let update = match meaning {
        Meaning::Payment(update) => update,
        Meaning::Ignored(why) => return Ok(Translation::ignored(kind, why)),
    };
    // From here on, a fault is one of the envelope. The object was read.
    let enveloped = || -> Result<PaymentEvent, Odd> {
        Ok(PaymentEvent {
            provider: ADAPTER.provider.clone(),
            message_id: message_id.map_err(Odd::clone)?.clone(),
            payment_id: update.payment_id.clone(),
            related_ids: update.related_ids.clone(),
            provider_account: account?,
            order_id: update.order_id,
            status: update.status.clone(),
            occurred_at: time(event, "created")?,
            as_of: None,
            livemode: event.flag("livemode")?,
        })
    };
    let event = enveloped().map_err(|odd| Fault { odd, status: Some(Box::new(update.status.clone())) })?;
    Ok(Translation::Events(vec![event]))
}

/// A thin event has no snapshot. Only the id of its related object is used.
fn thin(
    event: &Object<'_>,
    message_id: Result<&MessageId, &Odd>,
    account: Result<Option<ProviderAccount>, Odd>,
) -> Result<Translation, Fault> {
    let kind = event.text("type")?;
    let ignored = || match does(table::ROWS, kind) {
        Does::Ignored(why) => Translation::ignored(kind, why),
        // Events of this type are about payments, but this one is not.
        Does::Applied(_) | Does::Hint(_) | Does::DeadLetter | Does::DeadLetterIfOurs => {
            Translation::ignored(kind, IgnoredWhy::NoPayment)
        }
    };
    // Events without a related object.
    if event.value("related_object").is_none() {
        return Ok(ignored());
    }
    let object = event.object("related_object", "related_object")?;
    if !LEADS_TO_PAYMENT.contains(&object.text("type")?) {
        return Ok(ignored());
    }
    Ok(Translation::Hint(Hint {
        provider: ADAPTER.provider.clone(),
        message_id: message_id.map_err(Odd::clone)?.clone(),
        payment_id: object.parsed("id")?,
        related_ids: Vec::new(),
        provider_account: account?,
        livemode: event.flag("livemode")?,
    }))
}

/// The connected account of a snapshot event. `None`: our own account. Destinations of an organisation name it in `context` only
/// (<https://docs.stripe.com/get-started/account/orgs/setup>).
fn account(event: &Object<'_>) -> Result<Option<ProviderAccount>, Odd> {
    let Some(_) = event.value("account") else { return context(event) };
    let account = checked_account(event, "account", event.text("account")?)?;
    match context(event)? {
        Some(other) if other != account => Err(event.odd("context", "names another account than account does")),
        Some(_) | None => Ok(Some(account)),
    }
}

/// A context is a path. The account is its last step.
fn context(event: &Object<'_>) -> Result<Option<ProviderAccount>, Odd> {
    let Some(_) = event.value("context") else { return Ok(None) };
    let path = event.text("context")?;
    checked_account(event, "context", path.rsplit('/').next().unwrap_or(path)).map(Some)
}

fn checked_account(event: &Object<'_>, field: &str, account: &str) -> Result<ProviderAccount, Odd> {
    // It stands between colons in the message id. Two pairs of ids must not make the same message id.
    if account.contains(':') {
        return Err(event.odd(field, "must not have a colon"));
    }
    account.parse().map_err(|fault| event.odd(field, fault))
}

fn message_id(
    verified: &Verified<'_>,
    event: &Object<'_>,
    account: Option<&ProviderAccount>,
) -> Result<MessageId, Odd> {
    let account = account.map_or("", ProviderAccount::as_str);
    verified.message_id(account, event.text("id")?).map_err(|fault| event.odd("id", fault))
}

#[cfg(test)]
mod tests;
