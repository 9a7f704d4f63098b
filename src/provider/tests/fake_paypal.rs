//! PayPal's objects as a test wrote them, and its tokens. The simulated provider creates and captures.

use super::fake::{Asked, Told, World};
use super::{CLIENT_ID, CLIENT_SECRET, OrderId};
use base64::prelude::{BASE64_STANDARD, Engine as _};
use serde_json::{Value, json};
use std::collections::HashMap;

const TOKEN: &str = "POST /v1/oauth2/token";

pub(super) struct Paypal {
    pub(super) orders: HashMap<String, Value>,
    pub(super) captures: HashMap<String, Value>,
    pub(super) refunds: HashMap<String, Value>,
    /// The disputes of each capture.
    pub(super) disputes: HashMap<String, Vec<Value>>,
    /// The number of tokens so far. Only the last one is accepted.
    pub(super) tokens: usize,
    pub(super) token_seconds: i64,
    /// True if requests for a token may fail, too.
    pub(super) is_token_frail: bool,
}

impl Default for Paypal {
    fn default() -> Self {
        Self {
            orders: HashMap::new(),
            captures: HashMap::new(),
            refunds: HashMap::new(),
            disputes: HashMap::new(),
            tokens: 0,
            token_seconds: 32_400,
            is_token_frail: false,
        }
    }
}

pub(super) fn error(status: u16, name: &str, issue: &str) -> Told {
    Told::json(status, &json!({"name": name, "message": "No.", "debug_id": "d1", "details": [{"issue": issue}]}))
}

/// An order of one unit, 19.99 USD.
pub(super) fn order(id: &str, status: &str, order_id: OrderId, payments: &Value) -> Value {
    let rel = if status == "PAYER_ACTION_REQUIRED" { "payer-action" } else { "approve" };
    json!({
        "id": id, "status": status, "intent": "CAPTURE", "create_time": "2026-01-05T12:00:00Z",
        "purchase_units": [{
            "custom_id": order_id, "amount": {"currency_code": "USD", "value": "19.99"}, "payments": payments,
        }],
        "links": [
            {"rel": "self", "href": "https://api.example/x", "method": "GET"},
            {"rel": rel, "href": format!("https://paypal.example/checkoutnow?token={id}"), "method": "GET"},
        ],
    })
}

/// A capture of an order's whole amount.
pub(super) fn capture(id: &str, status: &str, order: &str) -> Value {
    json!({
        "id": id, "status": status, "amount": {"currency_code": "USD", "value": "19.99"},
        "create_time": "2026-01-05T12:05:00Z", "update_time": "2026-01-05T12:06:00Z",
        "supplementary_data": {"related_ids": {"order_id": order}},
    })
}

impl Paypal {
    /// The token that is accepted now.
    pub(super) fn token(&self) -> String {
        format!("token-{}", self.tokens)
    }

    fn give_token(&mut self, asked: &Asked) -> Told {
        let right = BASE64_STANDARD.encode(format!("{CLIENT_ID}:{CLIENT_SECRET}"));
        let given = asked.header("authorization");
        if given != format!("Basic {right}") || asked.body != "grant_type=client_credentials" {
            let said = format!("{given} {CLIENT_SECRET} is not right");
            return Told::json(401, &json!({"error": "invalid_client", "error_description": said}));
        }
        self.tokens += 1;
        let body = json!({"access_token": self.token(), "token_type": "Bearer", "expires_in": self.token_seconds});
        Told::json(200, &body)
    }

    fn list_disputes(&self, asked: &Asked) -> Option<Told> {
        let capture = &asked.query["disputed_transaction_id"];
        let number = |field: &str| asked.query.get(field).map_or(1, |text| text.parse().unwrap());
        let (size, page) = (number("page_size"), number("page"));
        assert!((1..=50).contains(&size));
        let all = self.disputes.get(capture)?;
        let pages: Vec<_> = all.chunks(size).collect();
        let query = format!("disputed_transaction_id={capture}&page_size={size}");
        let link = |rel: &str, page: usize| {
            let href = format!("https://api.example/v1/customer/disputes?{query}&page={page}");
            json!({"rel": rel, "href": href, "method": "GET"})
        };
        let mut links = vec![link("self", page)];
        if page < pages.len() {
            links.push(link("next", page + 1));
        }
        Some(Told::json(200, &json!({"items": pages[page - 1], "links": links})))
    }
}

impl World for Paypal {
    fn answer(&mut self, asked: &Asked) -> Option<Told> {
        if asked.line == TOKEN {
            return Some(self.give_token(asked));
        }
        let given = asked.header("authorization");
        if given != format!("Bearer {}", self.token()) {
            let said = json!({"name": "AUTHENTICATION_FAILURE", "message": format!("{given} is not taken")});
            return Some(Told::json(401, &said));
        }
        let path = asked.line.strip_prefix("GET ")?;
        if path == "/v1/customer/disputes" {
            return self.list_disputes(asked);
        }
        let objects = match path {
            path if path.contains("/captures/") => &self.captures,
            path if path.contains("/refunds/") => &self.refunds,
            _ => &self.orders,
        };
        objects.get(path.rsplit('/').next()?).map(|object| Told::json(200, object))
    }

    fn may_fail(&self, asked: &Asked) -> bool {
        self.is_token_frail || asked.line != TOKEN
    }
}
