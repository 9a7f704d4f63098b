//! Stripe's objects as a test wrote them. The simulated provider creates payments.

use super::fake::{Asked, Told, World};
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
    fn answer(&mut self, asked: &Asked) -> Option<Told> {
        let given = asked.header("authorization");
        if given != format!("Bearer {STRIPE_KEY}") {
            return Some(error(401, "invalid_request_error", None, &format!("Invalid API Key provided: {given}")));
        }
        assert_eq!(asked.header("stripe-version"), "2026-07-29.dahlia");
        let listed = match asked.line.strip_prefix("GET /v1/")? {
            "payment_intents" => &self.intents,
            "refunds" => &self.refunds,
            "disputes" => &self.disputes,
            "checkout/sessions" => &self.sessions,
            path => {
                let id = path.rsplit('/').next()?;
                let intent = self.intents.iter().find(|intent| intent["id"] == id);
                return intent.or(self.others.get(id)).map(|object| Told::json(200, object));
            }
        };
        Some(self.list(listed, asked))
    }
}
