//! Cases that real merchants reported: an order, the webhooks of its provider, and the expected end.
//!
//! A case is tried in every order of arrival, with duplicates and in several batchings, through the real webhook room and the real
//! store. It is tried once through the real receiver, RabbitMQ and worker. If the provider can be asked, the reconciler tries it
//! too. Each try has an order and ids of its own, so one database serves all.
//!
//! In a body or an answer, `#` stands for the suffix of the try's ids, `$ORDER` for the id of its order, and `$OTHER` for the id of
//! another order of ours. A body or an answer that is a JSON text is sent as that text, which may not be JSON.

mod adyen;
mod paypal;
mod run;
mod stripe;

use grantonce::domain::{OrderId, PriceTerms};
use grantonce::webhook::Endpoint;
use serde_json::{Value, json};
use std::collections::BTreeSet;

/// One case.
#[derive(Clone)]
pub struct Case {
    /// Printed if the case fails.
    name: String,
    endpoint: Endpoint,
    price_minor: i64,
    currency: &'static str,
    credits: i64,
    terms: PriceTerms,
    /// The account at the provider. `None`: our own.
    account: Option<&'static str>,
    /// The payment that the order is created with. `None`: only the order's own id leads to it.
    payment: Option<&'static str>,
    /// The webhooks, one request each.
    bodies: Vec<Value>,
    /// The provider's answers by path (and as much of the query as has to match). `None`: it is not asked.
    answers: Vec<(&'static str, Value)>,
    /// The ids in PayPal's webhooks, one hint each: the id to ask about, and further ids of the same payment.
    hints: Vec<Vec<&'static str>>,
    /// The expected status and credits, in every order of arrival.
    status: &'static str,
    net: i64,
    /// The same after the provider was asked, if its answer tells more than the bodies.
    asked: Option<(&'static str, i64)>,
    /// The reasons of the expected dead letters. There must be no others.
    letters: BTreeSet<&'static str>,
    /// Whether Adyen's payments are captured manually.
    is_adyen_captured_by_hand: bool,
}

impl Case {
    /// An order with that price for 100 credits, created with that payment.
    pub fn of(endpoint: Endpoint, price_minor: i64, payment: &'static str) -> Self {
        Self {
            name: String::new(),
            endpoint,
            price_minor,
            currency: "USD",
            credits: 100,
            terms: PriceTerms::Total,
            account: None,
            payment: Some(payment),
            bodies: vec![],
            answers: vec![],
            hints: vec![],
            status: "fulfilled",
            net: 100,
            asked: None,
            letters: BTreeSet::new(),
            is_adyen_captured_by_hand: false,
        }
    }

    pub fn named(mut self, name: impl Into<String>) -> Self {
        self.name = name.into();
        self
    }

    /// The order is known only by its id, which the bodies carry as `$ORDER`.
    pub fn by_metadata(mut self) -> Self {
        self.payment = None;
        self
    }

    pub fn currency(mut self, currency: &'static str) -> Self {
        self.currency = currency;
        self
    }

    pub fn credits(mut self, credits: i64) -> Self {
        self.credits = credits;
        self
    }

    pub fn terms(mut self, terms: PriceTerms) -> Self {
        self.terms = terms;
        self
    }

    pub fn account(mut self, account: &'static str) -> Self {
        self.account = Some(account);
        self
    }

    pub fn captured_by_hand(mut self) -> Self {
        self.is_adyen_captured_by_hand = true;
        self
    }

    pub fn sends(mut self, bodies: impl IntoIterator<Item = Value>) -> Self {
        self.bodies.extend(bodies);
        self
    }

    pub fn answers(mut self, path: &'static str, answer: Value) -> Self {
        self.answers.push((path, answer));
        self
    }

    pub fn hinted(mut self, ids: impl IntoIterator<Item = &'static str>) -> Self {
        self.hints.push(ids.into_iter().collect());
        self
    }

    pub fn ends(mut self, status: &'static str, net: i64) -> Self {
        (self.status, self.net) = (status, net);
        self
    }

    /// The provider's answer tells more than the bodies do.
    pub fn ends_once_asked(mut self, status: &'static str, net: i64) -> Self {
        self.asked = Some((status, net));
        self
    }

    pub fn leaves(mut self, letters: impl IntoIterator<Item = &'static str>) -> Self {
        self.letters.extend(letters);
        self
    }
}

/// One try of a case.
#[derive(Clone, Copy)]
struct Names {
    order: OrderId,
    other: OrderId,
    number: usize,
}

impl Names {
    fn text(self, text: &str) -> String {
        let text = text.replace("$ORDER", &self.order.to_string()).replace("$OTHER", &self.other.to_string());
        text.replace('#', &format!("x{}", self.number))
    }

    fn fill(self, value: &Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(text)),
            Value::Array(items) => items.iter().map(|item| self.fill(item)).collect(),
            Value::Object(fields) => {
                Value::Object(fields.iter().map(|(name, value)| (name.clone(), self.fill(value))).collect())
            }
            Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
        }
    }
}

/// `object`, with the fields of `patch` replaced.
pub fn with(mut object: Value, patch: Value) -> Value {
    for (key, value) in patch.as_object().unwrap() {
        object[key] = value.clone();
    }
    object
}

/// A list in the form of Stripe's answers.
pub fn stripe_list(data: impl IntoIterator<Item = Value>) -> Value {
    json!({"object": "list", "has_more": false, "data": data.into_iter().collect::<Vec<_>>()})
}

pub use run::{is_loud, run};
