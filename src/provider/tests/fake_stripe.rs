//! A fake Stripe that behaves as Stripe's documentation says.

use super::fake::{Asked, Told, World, pairs};
use super::{OrderId, STRIPE_KEY};
use serde_json::{Value, json};
use std::collections::HashMap;

/// The creation time of the payments in these tests, in seconds since 1970.
pub(super) const CREATED: i64 = 1_767_600_000;

#[derive(Default)]
pub(super) struct Stripe {
    /// The payment intents, newest last.
    pub(super) intents: Vec<Value>,
    pub(super) refunds: Vec<Value>,
    pub(super) disputes: Vec<Value>,
    pub(super) sessions: Vec<Value>,
    pub(super) others: HashMap<String, Value>,
    /// The most objects on a page, even if the request asks for more.
    pub(super) page_max: Option<usize>,
    /// The next payment is not created. The answer is 500, and the key keeps it.
    pub(super) fails_once: bool,
    pub(super) keys: HashMap<String, (String, Told)>,
}

pub(super) fn error(status: u16, kind: &str, code: Option<&str>, message: &str) -> Told {
    Told::json(status, &json!({"error": {"type": kind, "code": code, "message": message}}))
}

/// A payment intent that is not paid yet.
pub(super) fn intent(id: &str, order_id: Option<OrderId>) -> Value {
    json!({
        "id": id, "object": "payment_intent", "status": "requires_payment_method", "amount": 1999,
        "amount_received": 0, "currency": "usd", "created": CREATED, "livemode": false, "latest_charge": null,
        "last_payment_error": null, "canceled_at": null, "client_secret": format!("{id}_secret_x"),
        "metadata": order_id.map_or(json!({}), |order_id| json!({"order_id": order_id})),
    })
}

impl Stripe {
    fn create(&mut self, asked: &Asked) -> Told {
        let key = asked.header("idempotency-key").to_owned();
        assert!(!key.is_empty());
        if let Some((body, told)) = self.keys.get(&key) {
            return if *body == asked.body {
                told.clone().with("idempotent-replayed", "true")
            } else {
                error(400, "idempotency_error", None, "Keys can only be used with the same parameters")
            };
        }
        let told = if std::mem::take(&mut self.fails_once) {
            error(500, "api_error", None, "Something went wrong")
        } else {
            let form = pairs(&asked.body);
            let mut intent = intent(&format!("pi_{}", self.intents.len() + 1), None);
            intent["amount"] = form["amount"].parse::<i64>().unwrap().into();
            intent["currency"] = form["currency"].clone().into();
            intent["metadata"] = json!({"order_id": form["metadata[order_id]"]});
            assert_eq!(form["automatic_payment_methods[enabled]"], "true");
            self.intents.push(intent.clone());
            Told::json(200, &intent)
        };
        self.keys.insert(key, (asked.body.clone(), told.clone()));
        told
    }

    /// Lists objects in pages, newest first.
    fn list(&self, objects: &[Value], asked: &Asked) -> Told {
        let number = |name: &str| asked.query.get(name).map(|text| text.parse::<usize>().unwrap());
        let limit = number("limit").unwrap().min(self.page_max.unwrap_or(100));
        let since = number("created[gte]").unwrap_or(0) as u64;
        let is_wanted = |object: &&Value| {
            let is_of = |field: &str| asked.query.get(field).is_none_or(|id| object[field] == **id);
            object["created"].as_u64().unwrap() >= since && is_of("payment_intent") && is_of("charge")
        };
        let all: Vec<_> = objects.iter().rev().filter(is_wanted).collect();
        let from = asked.query.get("starting_after").map_or(0, |after| {
            1 + all.iter().position(|object| object["id"] == **after).expect("the cursor is an object of the list")
        });
        let page: Vec<_> = all.iter().skip(from).take(limit).collect();
        Told::json(200, &json!({"object": "list", "data": page, "has_more": from + page.len() < all.len()}))
    }
}

impl World for Stripe {
    fn answer(&mut self, asked: &Asked) -> Told {
        let given = asked.header("authorization");
        if given != format!("Bearer {STRIPE_KEY}") {
            return error(401, "invalid_request_error", None, &format!("Invalid API Key provided: {given}"));
        }
        assert_eq!(asked.header("stripe-version"), "2026-07-29.dahlia");
        match asked.line.split_once(" /v1/").unwrap() {
            ("POST", "payment_intents") => self.create(asked),
            ("GET", "payment_intents") => self.list(&self.intents, asked),
            ("GET", "refunds") => self.list(&self.refunds, asked),
            ("GET", "disputes") => self.list(&self.disputes, asked),
            ("GET", "checkout/sessions") => self.list(&self.sessions, asked),
            ("GET", path) => {
                let id = path.rsplit('/').next().unwrap();
                let intent = self.intents.iter().find(|intent| intent["id"] == id);
                match intent.or(self.others.get(id)) {
                    Some(object) => Told::json(200, object),
                    None => error(404, "invalid_request_error", Some("resource_missing"), "No such payment_intent"),
                }
            }
            other => panic!("{other:?}"),
        }
    }
}
