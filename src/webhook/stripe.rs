//! Stripe: its signature, what its snapshot events say of a payment, and which payment its thin events lead to.
//!
//! Rules from <https://docs.stripe.com/webhooks>, <https://docs.stripe.com/api/events/types> and
//! <https://docs.stripe.com/api/v2/core/events/event-types>; what its words mean stands in `domain::dialect::stripe`.

mod table;

use super::signature::{Mac, Tag, check, check_time, single, unix_seconds};
use super::table::{Does, does};
use super::{Door, KeyFault, Proof, Rejection, SecretProof, Translation, Unverified, Verified};
use crate::domain::dialect::stripe::{self as words, captured, failed, order_id, reference, time};
use crate::domain::dialect::{Body, Object, Odd, Part};
use crate::domain::{
    Hint, IgnoredWhy, MessageId, OrderId, PaymentEvent, PaymentId, PaymentStatus, Provider, ProviderAccount,
};
use table::{Charge, Intent, Read, Session};

pub(super) static DOOR: Door = Door {
    provider: Provider::STRIPE,
    proof: Proof::Secret(SecretProof { key, verify }),
    translate,
    events: Some(table::page),
};

const HEADER: &str = "stripe-signature";

/// The `object` of an event that says only that something happened, and to what.
const THIN_EVENT: &str = "v2.core.event";

/// What a thin event can be about that is a payment, or leads to one: the `type` of its related object.
const LEADS_TO_PAYMENT: [&str; 5] = ["payment_intent", "checkout.session", "charge", "refund", "dispute"];

pub(super) fn key(secret: &str) -> Result<Mac, KeyFault> {
    if !secret.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(KeyFault::BadCharacter);
    }
    Mac::new(secret.as_bytes())
}

/// `t=<unix>,v1=<hex>[,v1=…][,v0=…]`: two `v1` while a secret is rolled; `v0` is a test signature and never counts.
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

/// What an event says.
enum Meaning {
    Payment(Said),
    /// It changes nothing.
    Ignored(IgnoredWhy),
}

/// A payment by its ids, and what is said of it.
struct Said {
    payment_id: PaymentId,
    related_ids: Vec<PaymentId>,
    order_id: Option<OrderId>,
    status: PaymentStatus,
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
    read(&event, message_id.as_ref(), account)
        .unwrap_or_else(|odd| verified.untranslatable(message_id.ok(), event.flag("livemode").ok(), &odd.to_string()))
}

fn snapshot(
    event: &Object<'_>,
    message_id: Result<&MessageId, &Odd>,
    account: Result<Option<ProviderAccount>, Odd>,
) -> Result<Translation, Odd> {
    let kind = event.text("type")?;
    let said = match meaning(kind, event)? {
        Meaning::Payment(said) => said,
        Meaning::Ignored(why) => return Ok(Translation::ignored(kind, why)),
    };
    Ok(Translation::Events(vec![PaymentEvent {
        provider: DOOR.provider.clone(),
        message_id: message_id.map_err(Odd::clone)?.clone(),
        payment_id: said.payment_id,
        related_ids: said.related_ids,
        provider_account: account?,
        order_id: said.order_id,
        status: said.status,
        occurred_at: time(event, "created")?,
        as_of: None,
        livemode: event.flag("livemode")?,
    }]))
}

/// A thin event has no snapshot, and its related object's id is all that is taken from it.
fn thin(
    event: &Object<'_>,
    message_id: Result<&MessageId, &Odd>,
    account: Result<Option<ProviderAccount>, Odd>,
) -> Result<Translation, Odd> {
    let kind = event.text("type")?;
    // Events that are about nothing in particular have none.
    if event.value("related_object").is_none() {
        return Ok(Translation::ignored(kind, IgnoredWhy::NoMoney));
    }
    let object = event.object("related_object", "related_object")?;
    if !LEADS_TO_PAYMENT.contains(&object.text("type")?) {
        return Ok(Translation::ignored(kind, IgnoredWhy::NoMoney));
    }
    Ok(Translation::Hint(Hint {
        provider: DOOR.provider.clone(),
        message_id: message_id.map_err(Odd::clone)?.clone(),
        payment_id: object.parsed("id")?,
        related_ids: Vec::new(),
        provider_account: account?,
        livemode: event.flag("livemode")?,
    }))
}

/// The connected account that a snapshot event belongs to; without one it is our own.
fn account(event: &Object<'_>) -> Result<Option<ProviderAccount>, Odd> {
    let Some(_) = event.value("account") else { return Ok(None) };
    checked_account(event, "account", event.text("account")?).map(Some)
}

/// The same of a thin event, whose context is a path: the account is its last step.
fn context(event: &Object<'_>) -> Result<Option<ProviderAccount>, Odd> {
    let Some(_) = event.value("context") else { return Ok(None) };
    let path = event.text("context")?;
    checked_account(event, "context", path.rsplit('/').next().unwrap_or(path)).map(Some)
}

fn checked_account(event: &Object<'_>, field: &str, account: &str) -> Result<ProviderAccount, Odd> {
    // It stands between colons in the message id: two different pairs of ids must not make the same one.
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

fn meaning(kind: &str, event: &Object<'_>) -> Result<Meaning, Odd> {
    let read = match does(table::ROWS, kind) {
        Does::Applied(read) | Does::Hint(read) => read,
        Does::Ignored(why) => return Ok(Meaning::Ignored(why)),
        Does::DeadLetter | Does::DeadLetterIfOurs => {
            return Err(event.odd("type", "is one that may report money and that this release cannot read"));
        }
    };
    let said = match read {
        Read::Intent(Intent::Paid) => payment_intent(event, |intent| captured(intent, "amount_received"))?,
        Read::Intent(Intent::Pending) => payment_intent(event, |_| Ok(PaymentStatus::Pending))?,
        Read::Intent(Intent::Failed) => payment_intent(event, |intent| Ok(failed(intent)))?,
        Read::Intent(Intent::Canceled) => payment_intent(event, |_| Ok(PaymentStatus::Canceled))?,
        Read::Session(session) => return checkout_session(session, kind, event),
        Read::Charge(Charge::Paid | Charge::Updated | Charge::Pending | Charge::Failed | Charge::Expired) => {
            return Ok(Meaning::Ignored(IgnoredWhy::SaidByAnotherEvent));
        }
        Read::ChargeRefunded => charge_refunded(event)?,
        Read::Refund => refund(event)?,
        Read::Dispute => dispute(event)?,
        Read::Related => return Ok(Meaning::Ignored(IgnoredWhy::NoMoney)),
    };
    Ok(Meaning::Payment(said))
}

/// `data.object`, which must be a snapshot of the kind that the event type promises.
fn object<'v>(event: &Object<'v>, is: &str) -> Result<Object<'v>, Odd> {
    let object = event.object("data", "data")?.object("object", "data.object")?;
    if object.text("object")? == is { Ok(object) } else { Err(object.odd("object", format_args!("must be {is:?}"))) }
}

fn payment_intent(
    event: &Object<'_>,
    status: impl FnOnce(&Object<'_>) -> Result<PaymentStatus, Odd>,
) -> Result<Said, Odd> {
    let intent = object(event, "payment_intent")?;
    Ok(Said {
        payment_id: intent.parsed("id")?,
        related_ids: reference(&intent, "latest_charge")?.into_iter().collect(),
        order_id: order_id(&intent),
        status: status(&intent)?,
    })
}

fn checkout_session(happened: Session, kind: &str, event: &Object<'_>) -> Result<Meaning, Odd> {
    let session = object(event, "checkout.session")?;
    match session.text("mode")? {
        "payment" => {}
        "setup" | "subscription" => return Ok(Meaning::Ignored(IgnoredWhy::NotOurs)),
        _ => return Err(session.odd("mode", "must be payment, setup or subscription")),
    }
    let order_id = order_id(&session);
    let may_be_unpaid = happened == Session::Completed;
    let status = match happened {
        Session::Expired => PaymentStatus::Canceled,
        Session::LaterFailed => PaymentStatus::failed("the payment failed"),
        Session::Completed | Session::LaterPaid => match session.text("payment_status")? {
            "paid" => captured(&session, "amount_total")?,
            // A payment method that takes days: `async_payment_succeeded` or `…_failed` follows.
            "unpaid" if may_be_unpaid => PaymentStatus::Pending,
            // Nothing to pay (a promotion code of 100 %, a later charge). Where the session carries an order of ours,
            // somebody waits for credits that no payment will ever bring: that is for an operator to see.
            "no_payment_required" if order_id.is_none() => return Ok(Meaning::Ignored(IgnoredWhy::NotOurs)),
            "no_payment_required" => {
                let fault = "is no_payment_required: the session of our order was completed without a payment, so that \
                             nothing is granted; decide by hand";
                return Err(session.odd("payment_status", fault));
            }
            _ => return Err(session.odd("payment_status", format_args!("does not go with {kind}"))),
        },
    };
    let session_id: PaymentId = session.parsed("id")?;
    let (payment_id, related_ids) = match reference(&session, "payment_intent")? {
        Some(intent_id) => (intent_id, vec![session_id]),
        None => (session_id, Vec::new()),
    };
    Ok(Meaning::Payment(Said { payment_id, related_ids, order_id, status }))
}

/// Fires on partial refunds, too; `amount_refunded` is the sum so far.
fn charge_refunded(event: &Object<'_>) -> Result<Said, Odd> {
    let charge = object(event, "charge")?;
    let status = words::refunded_total(&charge)?;
    of_charge(&charge, charge.parsed("id").map(Some)?, status)
}

fn refund(event: &Object<'_>) -> Result<Said, Odd> {
    let refund = object(event, "refund")?;
    let status = words::refund(&refund)?;
    of_charge(&refund, reference(&refund, "charge")?, status)
}

fn dispute(event: &Object<'_>) -> Result<Said, Odd> {
    let dispute = object(event, "dispute")?;
    let status = words::dispute(&dispute)?;
    of_charge(&dispute, reference(&dispute, "charge")?, status)
}

/// What hangs on a charge: the payment is its payment intent, or the charge itself where it was made without one. The
/// metadata of charges, refunds and disputes are their own, and not where our order id is put.
fn of_charge(object: &Object<'_>, charge: Option<PaymentId>, status: PaymentStatus) -> Result<Said, Odd> {
    let (payment_id, related_ids) = match (reference(object, "payment_intent")?, charge) {
        (Some(intent), charge) => (intent, charge.into_iter().collect()),
        (None, Some(charge)) => (charge, Vec::new()),
        (None, None) => return Err(object.odd("payment_intent", "is missing, and so is charge")),
    };
    Ok(Said { payment_id, related_ids, order_id: None, status })
}

#[cfg(test)]
mod tests;
