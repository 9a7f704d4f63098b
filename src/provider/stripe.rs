//! Stripe: payment intents, which are created with a key, and the objects that belong to them.
//!
//! The rules are from <https://docs.stripe.com/api/payment_intents>, <https://docs.stripe.com/api/idempotent_requests>,
//! <https://docs.stripe.com/api/errors> and <https://docs.stripe.com/api/pagination>.

mod found;

use super::client::{Answer, Auth, Call, Http, is_credential, is_plain};
use super::persist::{Patience, persist};
use super::{BuildError, CallError, Created, Found, Limits, Needs, NewPayment, Retry, StripeSettings};
use crate::domain::dialect::{Object, Part, stripe as words};
use crate::domain::{OrderId, PaymentId, PaymentStatus, ProviderAccount};
use crate::followed::Followed;
use found::{Hanging, Parts};
use http::{HeaderValue, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;
use time::{Duration, OffsetDateTime};

const NAME: &str = "Stripe";

/// The version of Stripe's API for calls and answers: the newest that is documented. Without it, Stripe would use the
/// version that is set in the account.
const VERSION: &str = "2026-07-29.dahlia";

const FORM: &str = "application/x-www-form-urlencoded";

/// How far Stripe's clock and ours may differ. The value has a margin.
const CLOCK_SKEW: Duration = Duration::minutes(10);

/// The number of objects on one page of a list. Stripe allows 100, but so many payments with all possible metadata can
/// exceed the longest answer that is read.
const PAGE_OBJECTS: usize = 50;

/// The largest number of pages that are searched for the payments of one order: 10,000 payments.
const PAYMENT_PAGES_MAX: usize = 200;

/// The largest number of pages of one payment's refunds, disputes, or checkout sessions.
const FACT_PAGES_MAX: usize = 20;

/// Stripe's API with one key.
#[derive(Debug)]
pub(super) struct Stripe {
    http: Http,
    key: Followed<SecretString>,
    patience: Patience,
}

/// One account at Stripe: our own, or one that is connected to it.
#[derive(Debug)]
pub(super) struct At<'a> {
    stripe: &'a Stripe,
    account: Option<HeaderValue>,
}

impl Stripe {
    /// The API for the objects of this account (<https://docs.stripe.com/connect/authentication>).
    pub(super) fn at(&self, account: Option<&ProviderAccount>) -> Result<At<'_>, CallError> {
        let plain = |account: &ProviderAccount| {
            let value = is_plain(account.as_str()).then(|| HeaderValue::from_str(account.as_str()).ok()).flatten();
            value.ok_or(CallError::Unsupported)
        };
        Ok(At { stripe: self, account: account.map(plain).transpose()? })
    }

    pub(super) fn new(settings: StripeSettings, limits: Limits) -> Result<Self, BuildError> {
        if !is_credential(settings.key.current().expose_secret()) {
            return Err(BuildError::BadCredentials { provider: NAME });
        }
        let http = Http::new(NAME, &settings.base, limits.deadlines)?;
        Ok(Self { http, key: settings.key, patience: limits.patience })
    }
}

impl At<'_> {
    pub(super) async fn create(&self, payment: &NewPayment, key: &str, retry: Retry) -> Result<Created, CallError> {
        let units = words::units(payment.price).and_then(Result::ok).ok_or(CallError::Unsupported)?;
        // The same order gives the same bytes. With other bytes Stripe would refuse the key.
        let form = format!(
            "amount={units}&currency={}&automatic_payment_methods%5Benabled%5D=true&metadata%5Border_id%5D={}",
            payment.price.currency().as_str().to_ascii_lowercase(),
            payment.order_id
        );
        let call = Call::post("/v1/payment_intents".to_owned(), FORM, form).under("idempotency-key", key)?;
        let answer = self.ask_with(self.stripe.patience.of(retry), call, "creating a payment at Stripe").await?;
        let body = judge(&answer)?.json()?;
        let intent = object(&body, "payment_intent")?;
        Ok(Created {
            payment_id: intent.parsed("id")?,
            client_secret: Some(intent.text("client_secret")?.to_owned()),
            approve_url: None,
            is_replay: is_replay(&answer),
        })
    }

    pub(super) async fn fetch(&self, id: &PaymentId, needs: Needs) -> Result<Option<Found>, CallError> {
        match id.as_str() {
            text if text.starts_with("cs_") => self.session(id).await,
            text if text.starts_with("ch_") || text.starts_with("py_") => self.charge(id, needs).await,
            text if text.starts_with("re_") || text.starts_with("pyr_") => {
                self.of("/v1/refunds", "refund", id, needs).await
            }
            text if text.starts_with("dp_") || text.starts_with("du_") => {
                self.of("/v1/disputes", "dispute", id, needs).await
            }
            _ => self.intent(id, Known::Nothing(needs)).await,
        }
    }

    /// Reads the list, the newest payments first. Stripe's search would be faster, but it does not find the newest payments
    /// yet.
    pub(super) async fn list_of_order(&self, id: OrderId, since: OffsetDateTime) -> Result<Vec<Found>, CallError> {
        let since = since.saturating_sub(CLOCK_SKEW).unix_timestamp();
        let path = format!("/v1/payment_intents?created%5Bgte%5D={since}");
        let is_of_order = |intent: &Value| Object::root(intent).and_then(|intent| words::order_id(&intent)) == Some(id);
        let mut found = Vec::new();
        for intent in self.pages(&path, PAYMENT_PAGES_MAX, is_of_order).await? {
            let id: PaymentId = object(&intent, "payment_intent")?.parsed("id")?;
            found.extend(self.intent(&id, Known::Nothing(Needs::Facts)).await?);
        }
        Ok(found)
    }

    async fn intent(&self, id: &PaymentId, known: Known) -> Result<Option<Found>, CallError> {
        let Some(DatedObject { body, as_of }) =
            self.one("/v1/payment_intents", id, "?expand%5B%5D=latest_charge").await?
        else {
            return Ok(None);
        };
        let intent = object(&body, "payment_intent")?;
        // Without money there is nothing to return. This saves two calls for every payment that is still open.
        let is_paid = intent.integer("amount_received")? > 0;
        let (refunds, disputes) =
            if is_paid { self.hanging("payment_intent", id).await? } else { (Vec::new(), Vec::new()) };
        let session = match known {
            Known::Session(session) => Some(session),
            Known::Nothing(Needs::Breakdown) if is_paid => self.session_of(id).await?,
            Known::Nothing(Needs::Breakdown | Needs::Facts) => None,
        };
        let hanging = Hanging { refunds: &refunds, disputes: &disputes };
        Ok(Some(found::of_intent(&Parts { intent, hanging, session, as_of })?))
    }

    /// Returns all refunds and all disputes of a payment intent or a charge.
    async fn hanging(&self, on: &str, id: &PaymentId) -> Result<(Vec<Value>, Vec<Value>), CallError> {
        let list = |of: &str| format!("/v1/{of}?{on}={id}");
        let (refunds, disputes) = (list("refunds"), list("disputes"));
        tokio::try_join!(
            self.pages(&refunds, FACT_PAGES_MAX, |_| true),
            self.pages(&disputes, FACT_PAGES_MAX, |_| true)
        )
    }

    /// Returns the completed checkout session of a payment intent. Only the session contains the parts of the total.
    async fn session_of(&self, intent: &PaymentId) -> Result<Option<Session>, CallError> {
        let path = format!("/v1/checkout/sessions?payment_intent={intent}");
        let is_complete = |session: &Value| session.get("status").and_then(Value::as_str) == Some("complete");
        let sessions = self.pages(&path, FACT_PAGES_MAX, is_complete).await?;
        sessions.first().map(|session| Session::read(&object(session, "checkout.session")?)).transpose()
    }

    /// A checkout session stands for the payment that it leads to. Until there is one, the session itself is the payment.
    async fn session(&self, id: &PaymentId) -> Result<Option<Found>, CallError> {
        let Some(DatedObject { body, as_of }) = self.one("/v1/checkout/sessions", id, "").await? else {
            return Ok(None);
        };
        let session = object(&body, "checkout.session")?;
        match words::reference(&session, "payment_intent")? {
            Some(intent) => self.intent(&intent, Known::Session(Session::read(&session)?)).await,
            None => Ok(Some(found::of_session(&session, as_of)?)),
        }
    }

    async fn charge(&self, id: &PaymentId, needs: Needs) -> Result<Option<Found>, CallError> {
        let Some(DatedObject { body, as_of }) = self.one("/v1/charges", id, "").await? else { return Ok(None) };
        let charge = object(&body, "charge")?;
        if let Some(intent) = words::reference(&charge, "payment_intent")? {
            return self.intent(&intent, Known::Nothing(needs)).await;
        }
        // An old integration made this session without a payment intent.
        let (refunds, disputes) = self.hanging("charge", id).await?;
        let hanging = Hanging { refunds: &refunds, disputes: &disputes };
        Ok(Some(found::of_charge(&charge, hanging, as_of)?))
    }

    /// Returns the payment of a refund or a dispute.
    async fn of(&self, path: &str, is: &str, id: &PaymentId, needs: Needs) -> Result<Option<Found>, CallError> {
        let Some(DatedObject { body, .. }) = self.one(path, id, "").await? else { return Ok(None) };
        let object = object(&body, is)?;
        if let Some(intent) = words::reference(&object, "payment_intent")? {
            return self.intent(&intent, Known::Nothing(needs)).await;
        }
        match words::reference(&object, "charge")? {
            Some(charge) => self.charge(&charge, needs).await,
            None => Err(object.odd("payment_intent", "is missing, and so is charge").into()),
        }
    }

    /// Returns one object, or `None` if Stripe says that it does not exist.
    async fn one(&self, path: &str, id: &PaymentId, query: &str) -> Result<Option<DatedObject>, CallError> {
        if !is_plain(id.as_str()) {
            return Ok(None);
        }
        let answer = self.ask(Call::get(format!("{path}/{id}{query}")), "asking Stripe for a payment").await?;
        // The error code is checked, too: a 404 from a wrong base address is not Stripe's answer.
        if answer.status == StatusCode::NOT_FOUND && error_word(&answer, "code").as_deref() == Some("resource_missing")
        {
            return Ok(None);
        }
        Ok(Some(DatedObject { body: judge(&answer)?.json()?, as_of: answer.date() }))
    }

    /// Returns all objects of a list. `path` already contains a query. If there are more pages than the limit, it returns an
    /// error, because a part of a list must not be taken for all of it.
    async fn pages(
        &self,
        path: &str,
        pages_max: usize,
        is_kept: impl Fn(&Value) -> bool,
    ) -> Result<Vec<Value>, CallError> {
        let mut kept = Vec::new();
        let mut after = String::new();
        for _ in 0..pages_max {
            let call = Call::get(format!("{path}&limit={PAGE_OBJECTS}{after}"));
            let answer = self.ask(call, "asking Stripe for a list").await?;
            let mut body = judge(&answer)?.json()?;
            let list = object(&body, "list")?;
            let has_more = list.flag("has_more")?;
            let last = list.list("data", "data[]")?.last().map(|last| last.text("id")).transpose()?;
            if has_more {
                let last = last.filter(|id| is_plain(id));
                let last = last.ok_or_else(|| list.odd("data", "must end with an id where more follows"))?;
                after = format!("&starting_after={last}");
            }
            if let Some(Value::Array(data)) = body.get_mut("data").map(Value::take) {
                kept.extend(data.into_iter().filter(|object| is_kept(object)));
            }
            if !has_more {
                return Ok(kept);
            }
        }
        Err(CallError::odd(&format!("a list of more than {pages_max} pages")))
    }

    /// Tries until another try would not change the answer. A refusal is an answer.
    async fn ask(&self, call: Call, what: &'static str) -> Result<Answer, CallError> {
        self.ask_with(self.stripe.patience, call, what).await
    }

    async fn ask_with(&self, patience: Patience, call: Call, what: &'static str) -> Result<Answer, CallError> {
        let call = call.with("stripe-version", HeaderValue::from_static(VERSION));
        let call = &match &self.account {
            Some(account) => call.with("stripe-account", account.clone()),
            None => call,
        };
        let one_try = || async move {
            let answer = self.stripe.http.send(call, Auth::Bearer(&self.stripe.key.current())).await?;
            match judge(&answer) {
                Err(fault) if fault.is_transient() => Err(fault),
                Ok(_) | Err(_) => Ok(answer),
            }
        };
        persist(patience, what, one_try).await
    }
}

/// An object, and the time of Stripe's answer by Stripe's clock.
struct DatedObject {
    body: Value,
    as_of: Option<OffsetDateTime>,
}

/// What is known about the checkout session of a payment.
enum Known {
    Session(Session),
    /// Nothing is known. The session is read if it is needed.
    Nothing(Needs),
}

/// The checkout session of a payment.
struct Session {
    id: PaymentId,
    order_id: Option<OrderId>,
    /// The total of the session with its parts, if it is paid.
    priced: Option<PaymentStatus>,
}

impl Session {
    fn read(session: &Object<'_>) -> Result<Self, CallError> {
        let is_paid = session.value("payment_status").and_then(Part::as_str) == Some("paid");
        Ok(Self {
            id: session.parsed("id")?,
            order_id: words::order_id(session),
            priced: is_paid.then(|| words::session_captured(session)).transpose()?,
        })
    }
}

/// Returns the answer if it is a success, else its error.
fn judge(answer: &Answer) -> Result<&Answer, CallError> {
    if answer.status.is_success() {
        return Ok(answer);
    }
    let words: Vec<_> = ["type", "code", "message"].iter().filter_map(|field| error_word(answer, field)).collect();
    if answer.status.is_server_error() && is_replay(answer) {
        return Err(CallError::burnt(&format!("{}: {}", answer.status, words.join(" "))));
    }
    if answer.status == StatusCode::BAD_REQUEST && error_word(answer, "type").as_deref() == Some("idempotency_error") {
        return Err(CallError::KeyReused);
    }
    Err(answer.fault(&words.join(" ")))
}

/// Whether Stripe repeats the answer to the first call with this key.
fn is_replay(answer: &Answer) -> bool {
    answer.has_flag("idempotent-replayed")
}

fn error_word(answer: &Answer, field: &str) -> Option<String> {
    answer.json().ok()?.get("error")?.get(field)?.as_str().map(str::to_owned)
}

/// The body, which must be an object of this kind.
fn object<'v>(body: &'v Value, is: &str) -> Result<Object<'v>, CallError> {
    let object = Object::root(body).ok_or_else(|| CallError::odd("the body is not a JSON object"))?;
    if object.text("object")? == is {
        Ok(object)
    } else {
        Err(object.odd("object", format_args!("must be {is:?}")).into())
    }
}

#[cfg(fuzzing)]
pub(super) fn parse_anything(answer: &Value) {
    let Some(object) = Object::root(answer) else { return };
    let _ = found::of_session(&object, None);
    let hung = std::slice::from_ref(answer);
    let hanging = Hanging { refunds: hung, disputes: hung };
    let _ = found::of_charge(&object, hanging, None);
    let _ = found::of_intent(&Parts { intent: object, hanging, session: None, as_of: None });
}
