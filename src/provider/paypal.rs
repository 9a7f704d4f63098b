//! PayPal: orders, which the buyer approves and we capture.
//!
//! The rules are from <https://developer.paypal.com/docs/api/orders/v2/>,
//! <https://developer.paypal.com/docs/api/customer-disputes/v1/>,
//! <https://developer.paypal.com/api/rest/reference/idempotency/> and <https://developer.paypal.com/api/rest/responses/>.

mod found;
mod token;

use super::client::{Answer, Auth, Call, Http, is_credential, is_plain};
use super::persist::{Patience, persist};
use super::{BuildError, CallError, Created, Found, Limits, NewPayment, PaypalSettings, Retry};
use crate::domain::dialect::{Object, paypal as words};
use crate::domain::{OrderId, PaymentId, ProviderAccount};
use http::StatusCode;
use secrecy::ExposeSecret as _;
use serde_json::{Value, json};
use std::sync::atomic::{AtomicBool, Ordering};
use time::OffsetDateTime;
use token::Tokens;

const NAME: &str = "PayPal";

const JSON: &str = "application/json";

/// The header with the idempotency key. PayPal remembers the key of an order for six hours.
const KEY_HEADER: &str = "paypal-request-id";

/// The number of disputes on one page of a list. PayPal gives no more.
const PAGE_DISPUTES: usize = 50;

/// The largest number of pages of one capture's disputes.
const DISPUTE_PAGES_MAX: usize = 4;

/// The largest number of captures of one payment whose disputes are read. An order has at most ten purchase units.
const CAPTURES_MAX: usize = 20;

/// PayPal's API with one client id.
#[derive(Debug)]
pub(super) struct Paypal {
    http: Http,
    tokens: Tokens,
    patience: Patience,
    /// Whether the missing right to read disputes was already logged.
    is_right_missed: AtomicBool,
}

impl Paypal {
    pub(super) fn new(settings: PaypalSettings, limits: Limits) -> Result<Self, BuildError> {
        let PaypalSettings { client_id, client_secret, base } = settings;
        // A colon would shift the border between the client id and the secret.
        if !is_credential(&client_id)
            || client_id.contains(':')
            || !is_credential(client_secret.current().expose_secret())
        {
            return Err(BuildError::BadCredentials { provider: NAME });
        }
        let http = Http::new(NAME, &base, limits.deadlines)?;
        let tokens = Tokens::new(client_id, client_secret);
        Ok(Self { http, tokens, patience: limits.patience, is_right_missed: AtomicBool::new(false) })
    }

    /// The API for our own account. There is none for other accounts.
    pub(super) fn at(&self, account: Option<&ProviderAccount>) -> Result<&Self, CallError> {
        if account.is_none() { Ok(self) } else { Err(CallError::Unsupported) }
    }

    pub(super) async fn create(&self, payment: &NewPayment, key: &str, retry: Retry) -> Result<Created, CallError> {
        let value = words::amount_text(payment.price).map_err(|_| CallError::Unsupported)?;
        let amount = json!({"currency_code": payment.price.currency().as_str(), "value": value});
        let unit = json!({"custom_id": payment.order_id.to_string(), "amount": amount});
        let mut body = json!({"intent": "CAPTURE", "purchase_units": [unit]});
        if let (Some(url), Some(fields)) = (&payment.return_url, body.as_object_mut()) {
            let context = json!({"return_url": url, "cancel_url": url, "user_action": "PAY_NOW",
                "shipping_preference": "NO_SHIPPING"});
            fields.insert("payment_source".to_owned(), json!({"paypal": {"experience_context": context}}));
        }
        let call = Call::post("/v2/checkout/orders".to_owned(), JSON, body.to_string()).under(KEY_HEADER, key)?;
        let answer = self.ask_with(self.patience.of(retry), call, "creating a payment at PayPal").await?;
        let body = judge(&answer)?.json()?;
        let order = object(&body)?;
        Ok(Created {
            payment_id: order.parsed("id")?,
            client_secret: None,
            approve_url: found::approve_url(&order)?,
            // If this call has made the order, the status is 201. If an earlier call with the key has made it, the status is
            // 200.
            is_replay: answer.status == StatusCode::OK,
        })
    }

    /// Hints name a payment by its order, its capture (which is also the transaction of a dispute), a refund or an
    /// authorization. All of these ids look alike.
    pub(super) async fn fetch(&self, id: &PaymentId) -> Result<Option<Found>, CallError> {
        if let Some(found) = self.order(id, None).await? {
            return Ok(Some(found));
        }
        if let Some(found) = self.captured(id, None).await? {
            return Ok(Some(found));
        }
        if let Some((body, _)) = self.one("/v2/payments/refunds", id).await? {
            return self.refunded(&object(&body)?).await.map(Some);
        }
        let Some((body, as_of)) = self.one("/v2/payments/authorizations", id).await? else { return Ok(None) };
        let authorization = object(&body)?;
        match words::order_of(&authorization)?.or_else(|| words::parent(&authorization, "/orders/")) {
            Some(order_id) => self.order(&order_id, None).await,
            None => Ok(Some(Found { as_of, ..found::of_authorization(&authorization, self.is_live())? })),
        }
    }

    /// Returns the payment of a refund together with that refund. PayPal does not list every reversal with its payment.
    async fn refunded(&self, refund: &Object<'_>) -> Result<Found, CallError> {
        let Some(capture) = words::parent(refund, "/captures/") else {
            return Err(refund.odd("links", "contains no link to a capture").into());
        };
        let found = self.captured(&capture, Some(refund)).await?;
        found.ok_or_else(|| refund.odd("links", "contains a link to a capture that PayPal does not know").into())
    }

    /// Returns the payment of a capture, with a refund that PayPal may list nowhere else.
    async fn captured(&self, id: &PaymentId, named: Option<&Object<'_>>) -> Result<Option<Found>, CallError> {
        let Some((body, as_of)) = self.one("/v2/payments/captures", id).await? else { return Ok(None) };
        let capture = object(&body)?;
        match words::order_of(&capture)? {
            Some(order_id) => self.order(&order_id, named).await,
            None => {
                let found = Found { as_of, ..found::of_capture(&capture, named, self.is_live())? };
                Ok(Some(self.with_disputes(found).await))
            }
        }
    }

    /// At most one payment of an order is captured for as long as PayPal remembers the key (at least six hours). The caller
    /// must not call it for an order that is known to be paid.
    pub(super) async fn capture(&self, id: &PaymentId, order_id: OrderId) -> Result<Found, CallError> {
        if !is_plain(id.as_str()) {
            return Err(CallError::Unsupported);
        }
        // The key is that of our order. So PayPal repeats the outcome of the first capture, even if the second is about
        // another payment.
        let call = Call::post(format!("/v2/checkout/orders/{id}/capture"), JSON, "{}".to_owned());
        let answer = self.ask(call.under(KEY_HEADER, &order_id.to_string())?, "capturing a payment at PayPal").await?;
        if !has_issue(&answer, "ORDER_ALREADY_CAPTURED") {
            let body = judge(&answer)?.json()?;
            if object(&body)?.text("id")? != id.as_str() {
                return Err(CallError::KeyReused);
            }
        }
        // The payment is read again. So there is one way to translate PayPal's answers, even if a repeated answer leaves
        // something out.
        self.order(id, None).await?.ok_or_else(|| CallError::odd("the payment that was captured is unknown"))
    }

    async fn order(&self, id: &PaymentId, named: Option<&Object<'_>>) -> Result<Option<Found>, CallError> {
        let Some((body, as_of)) = self.one("/v2/checkout/orders", id).await? else { return Ok(None) };
        let found = Found { as_of, ..found::of_order(&object(&body)?, named, self.is_live())? };
        Ok(Some(self.with_disputes(found).await))
    }

    /// Adds the disputes of the captures. If no money was received, there are no calls. A part of a list must not be taken
    /// for all of it, but it must not hold back the rest either: a paid order gets its grant also while disputes cannot be
    /// read.
    async fn with_disputes(&self, mut found: Found) -> Found {
        found.incomplete = self.add_disputes(&mut found).await.err();
        found
    }

    /// If our credentials may not read disputes, none are added. Money that is returned still shows in refunds.
    async fn add_disputes(&self, found: &mut Found) -> Result<(), CallError> {
        let captures = found::captured(found);
        if captures.len() > CAPTURES_MAX {
            return Err(CallError::odd(&format!("a payment of more than {CAPTURES_MAX} captures")));
        }
        for capture_id in captures {
            if !is_plain(capture_id.as_str()) {
                return Err(CallError::odd("the id of a capture has a form that PayPal does not document"));
            }
            let mut next = Some(format!("disputed_transaction_id={capture_id}&page_size={PAGE_DISPUTES}"));
            for _ in 0..DISPUTE_PAGES_MAX {
                let Some(query) = next.take() else { break };
                let Some(page) = self.disputes(&query).await? else { return Ok(()) };
                next = found::add_disputes(found, &object(&page)?)?;
            }
            if next.is_some() {
                return Err(CallError::odd(&format!("disputes of more than {DISPUTE_PAGES_MAX} pages")));
            }
        }
        Ok(())
    }

    /// Returns one page of disputes, or `None` if we have no right to read them.
    async fn disputes(&self, query: &str) -> Result<Option<Value>, CallError> {
        let call = Call::get(format!("/v1/customer/disputes?{query}"));
        let answer = self.ask(call, "asking PayPal for disputes").await?;
        if let Some(refused) = missing_right(&answer) {
            // This is logged once. It is the same for every payment until somebody changes the app.
            if !self.is_right_missed.swap(true, Ordering::Relaxed) {
                tracing::warn!(event = "disputes_not_told", cause = %refused, "PayPal's credentials lack the right to \
                    read disputes (scope https://uri.paypal.com/services/disputes/read-seller): switch on Disputes \
                    among the features of the app; until then disputes take no credits");
            }
            return Ok(None);
        }
        // The name of the error is checked, too, as for a payment. PayPal returns it for a capture that cannot have
        // disputes.
        if answer.status == StatusCode::NOT_FOUND && has_issue(&answer, "RESOURCE_NOT_FOUND") {
            return Ok(Some(json!({})));
        }
        judge(&answer)?.json().map(Some)
    }

    /// Returns one object and the time of the answer by PayPal's clock. Returns `None` if PayPal says that the object does
    /// not exist.
    async fn one(&self, path: &str, id: &PaymentId) -> Result<Option<(Value, Option<OffsetDateTime>)>, CallError> {
        if !is_plain(id.as_str()) {
            return Ok(None);
        }
        let answer = self.ask(Call::get(format!("{path}/{id}")), "asking PayPal for a payment").await?;
        // The name of the error is checked, too: a 404 from a wrong base address is not PayPal's answer.
        if answer.status == StatusCode::NOT_FOUND && has_issue(&answer, "RESOURCE_NOT_FOUND") {
            return Ok(None);
        }
        Ok(Some((judge(&answer)?.json()?, answer.date())))
    }

    /// Tries until another try would not change the answer. A refusal is an answer.
    async fn ask(&self, call: Call, what: &'static str) -> Result<Answer, CallError> {
        self.ask_with(self.patience, call, what).await
    }

    async fn ask_with(&self, patience: Patience, call: Call, what: &'static str) -> Result<Answer, CallError> {
        let call = &call;
        let one_try = || async move {
            let answer = self.authorized(call).await?;
            match judge(&answer) {
                Err(fault) if fault.is_transient() => Err(fault),
                Ok(_) | Err(_) => Ok(answer),
            }
        };
        persist(patience, what, one_try).await
    }

    /// Sends the call with a token. A token that is refused is replaced once, because a call with status 401 has done
    /// nothing.
    async fn authorized(&self, call: &Call) -> Result<Answer, CallError> {
        let token = self.tokens.current(&self.http).await?;
        let answer = self.http.send(call, Auth::Bearer(&token.secret)).await?;
        if answer.status != StatusCode::UNAUTHORIZED {
            return Ok(answer);
        }
        let token = self.tokens.after(&token, &self.http).await?;
        self.http.send(call, Auth::Bearer(&token.secret)).await
    }

    fn is_live(&self) -> bool {
        is_live(self.http.host())
    }
}

/// Whether real money moves at this host. PayPal's answers do not say so, so the address decides.
pub(super) fn is_live(host: &str) -> bool {
    host.ends_with(".paypal.com") && !host.contains("sandbox")
}

/// Returns the answer if it is a success, else its error.
fn judge(answer: &Answer) -> Result<&Answer, CallError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    if answer.status.is_client_error() && has_issue(answer, "DUPLICATE_REQUEST_ID") {
        return Err(CallError::KeyReused);
    }
    let body = answer.json().unwrap_or_default();
    let words = ["name", "error", "message", "error_description", "debug_id"];
    let mut words: Vec<&str> = words.iter().filter_map(|field| body.get(field)?.as_str()).collect();
    words.extend(issues(&body));
    Err(answer.fault(&words.join(" ")))
}

/// The error that PayPal returns if a token lacks a right.
fn missing_right(answer: &Answer) -> Option<CallError> {
    let names = ["NOT_AUTHORIZED", "PERMISSION_DENIED"];
    let is_missing = answer.status == StatusCode::FORBIDDEN || names.iter().any(|name| has_issue(answer, name));
    judge(answer).err().filter(|_| is_missing)
}

/// Whether the error of a refusal, or one of its issues, has this name.
fn has_issue(answer: &Answer, issue: &str) -> bool {
    let Some(body) = answer.json().ok().filter(|_| answer.status.is_client_error()) else { return false };
    body.get("name").and_then(Value::as_str) == Some(issue) || issues(&body).any(|found| found == issue)
}

fn issues(body: &Value) -> impl Iterator<Item = &str> {
    let details = body.get("details").and_then(Value::as_array).into_iter().flatten();
    details.filter_map(|detail| detail.get("issue")?.as_str())
}

/// The body, which must be an object.
fn object(body: &Value) -> Result<Object<'_>, CallError> {
    Object::root(body).ok_or_else(|| CallError::odd("the body is not a JSON object"))
}

#[cfg(fuzzing)]
pub(super) fn parse_anything(answer: &Value) {
    if let Some(order) = Object::root(answer) {
        let _ = found::of_order(&order, None, false);
        let _ = found::of_capture(&order, Some(&order), false);
    }
}
