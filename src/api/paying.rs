//! Creates the payment of an order at its provider, once, if the site did not create it.
//!
//! An attempt is committed before its call. A failed call is repeated under the same key, which asks for its result
//! ([`crate::domain::next_step`]). So a crash, a lost answer or a parallel call leads to the same payment.

use super::App;
use super::answers::store_failed;
use super::request::OrderRequest;
use crate::domain::{KeyRules, NextStep, OrderId, next_step};
use crate::failpoint::{self, Failpoint};
use crate::http::Problem;
use crate::provider::{CallError, Found, NewPayment, PaymentState};
use crate::store::{Creation, HandedOut, Kept};
use std::time::Duration;

/// More rounds than this happen only if other processes work on the same order all the time.
const TURNS_MAX: usize = 5;

/// When to try again if the provider names no time.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// The idempotency key of the calls of an attempt.
fn key(id: OrderId, number: i32) -> String {
    format!("grantonce-{id}-{number}")
}

/// Finds the payment that was created for the order, or creates it.
pub(super) async fn hand_out(app: &App, id: OrderId, asked: &OrderRequest) -> Result<HandedOut, Problem> {
    for _ in 0..TURNS_MAX {
        let creation = app.store.creation(id).await.map_err(|error| store_failed(&error))?;
        let creation = creation.ok_or_else(Problem::internal)?;
        if let Some(payment) = creation.handed_out {
            return Ok(payment);
        }
        let rules = KeyRules::of(&creation.provider).ok_or_else(Problem::internal)?;
        let now = app.clock.now();
        let payment = match next_step(rules, &creation.attempts, now) {
            NextStep::Call { number } => call(app, id, &creation, number, asked).await?,
            NextStep::LookFirst { since, number } => {
                let listed = app
                    .providers
                    .list_of_order(&creation.provider, creation.provider_account.as_ref(), id, since)
                    .await;
                match adoptable(listed.map_err(|error| failed(&creation, &error))?) {
                    Some(found) => adopt(app, id, number - 1, found).await?,
                    None => call(app, id, &creation, number, asked).await?,
                }
            }
            NextStep::Wait { until } => {
                let wait = Duration::try_from(until - now).unwrap_or(RETRY_AFTER);
                let detail = "the provider has answered with a lasting failure, behind which a payment may stand; it is \
                              looked for when it is certain to be listed; the same call again is safe and finishes it";
                return Err(Problem::bad_gateway(detail)
                    .with_retry_after(wait)
                    .of_kind("provider_unclear", "Payment not certain yet"));
            }
            NextStep::GiveUp => {
                tracing::error!(event = "payment_attempts_exhausted", order_id = %id, "an operator must check the order");
                return Err(Problem::bad_gateway("too many attempts to create the payment failed; make a new order"));
            }
        };
        if let Some(payment) = payment {
            return Ok(payment);
        }
    }
    let detail = "other calls are at work on this order's payment; the same call again is safe";
    Err(Problem::unavailable(detail, Duration::from_secs(1)))
}

/// Calls the provider. `None` means: read the order again.
async fn call(
    app: &App,
    id: OrderId,
    creation: &Creation,
    number: i32,
    asked: &OrderRequest,
) -> Result<Option<HandedOut>, Problem> {
    let store_error = |error| store_failed(&error);
    if !app.store.begin_attempt(id, number, creation.attempts.clone(), app.clock.now()).await.map_err(store_error)? {
        return Ok(None);
    }
    failpoint::hit(Failpoint::BeforePaymentCall);
    let payment = NewPayment {
        provider: creation.provider.clone(),
        account: creation.provider_account.clone(),
        order_id: id,
        price: creation.price,
        return_url: asked.return_url.clone(),
    };
    match app.providers.create(&payment, &key(id, number), asked.retry).await {
        Ok(made) => {
            failpoint::hit(Failpoint::AfterPaymentCall);
            let made = HandedOut {
                payment_id: made.payment_id,
                client_secret: made.client_secret,
                approve_url: made.approve_url,
            };
            keep(app, id, number, made).await.map(Some)
        }
        // The key is useless now. Nobody knows what was created under it.
        Err(error @ (CallError::Burnt { .. } | CallError::KeyReused)) => {
            tracing::warn!(event = "payment_attempt_burnt", order_id = %id, number, cause = %error);
            app.store.burn_attempt(id, number).await.map_err(store_error)?;
            Ok(None)
        }
        Err(error) => Err(failed(creation, &error)),
    }
}

/// The payment to use, of those that name the order: one that received money, else one that can be paid.
fn adoptable(found: Vec<Found>) -> Option<Found> {
    let rank = |found: &Found| match found.state {
        PaymentState::Paid => 3,
        PaymentState::Pending | PaymentState::Approved => 2,
        PaymentState::Payable => 1,
        PaymentState::Over => 0,
    };
    found.into_iter().filter(|found| rank(found) > 0).max_by_key(rank)
}

async fn adopt(app: &App, id: OrderId, number: i32, found: Found) -> Result<Option<HandedOut>, Problem> {
    tracing::info!(event = "payment_adopted", order_id = %id, payment_id = %found.payment_id);
    let found =
        HandedOut { payment_id: found.payment_id, client_secret: found.client_secret, approve_url: found.approve_url };
    keep(app, id, number, found).await.map(Some)
}

async fn keep(app: &App, id: OrderId, number: i32, made: HandedOut) -> Result<HandedOut, Problem> {
    let now = app.clock.now();
    let kept = app.store.keep_payment(id, number, made, now, now + app.first_look_after).await;
    match kept.map_err(|error| store_failed(&error))? {
        Kept::HandedOut(payment) => Ok(payment),
        Kept::PaymentTaken => {
            // The provider returned a payment that belongs to another order of ours.
            tracing::error!(event = "created_payment_taken", order_id = %id, "the provider answered with another order's payment");
            Err(Problem::internal())
        }
    }
}

/// The problem that a client gets if a provider fails. The order stays.
fn failed(creation: &Creation, error: &CallError) -> Problem {
    let provider = &creation.provider;
    match error {
        CallError::Refused { status, detail } if !matches!(status, 401 | 403) => {
            tracing::warn!(event = "payment_refused", provider = %provider, status, detail);
            Problem::unprocessable(format!("{provider} refuses this payment: {detail}"))
                .of_kind("payment_refused", "Payment refused by the provider")
        }
        CallError::Unavailable { retry_after, .. } => {
            tracing::warn!(event = "provider_unavailable", provider = %provider, cause = %error);
            Problem::bad_gateway(format!("{error}; the same call again is safe and finishes it"))
                .with_retry_after(retry_after.unwrap_or(RETRY_AFTER))
                .of_kind("provider_unavailable", "Provider out of reach")
        }
        CallError::Refused { .. }
        | CallError::Burnt { .. }
        | CallError::KeyReused
        | CallError::Unsupported
        | CallError::Odd { .. } => {
            tracing::error!(event = "provider_failed", provider = %provider, cause = %error);
            Problem::bad_gateway(format!(
                "{provider} cannot be worked with now: an operator has to look; the order stays"
            ))
            .with_retry_after(RETRY_AFTER)
            .of_kind("provider_failed", "Provider cannot be worked with")
        }
    }
}
