//! The calls to simulated providers over real sockets. They follow the documented rules of idempotency.

mod calls;
mod capture;
mod certificates;
mod fake;
mod fake_paypal;
mod fake_stripe;
mod paypal;
mod paypal_disputes;
mod simulated;
mod stripe;
mod stripe_found;
mod token;

use super::*;
use crate::domain::Currency;
use fake::{Fake, World};

/// Short pauses, and deadlines that only a hanging server reaches.
const FAST: Limits = Limits {
    deadlines: Deadlines { whole: Duration::from_secs(20), connect: Duration::from_secs(3) },
    patience: Patience {
        tries_max: 3,
        last_try_after: Duration::from_secs(8),
        pauses: retry::Limits { initial: Duration::from_millis(1), max: Duration::from_millis(2), give_up_after: None },
    },
};

/// A deadline that a hanging server reaches soon.
const SHORT: Duration = Duration::from_millis(200);

const STRIPE_KEY: &str = "sk_test_abc";
const CLIENT_ID: &str = "client-id";
const CLIENT_SECRET: &str = "client-secret";

fn at_stripe(base: &str) -> StripeSettings {
    StripeSettings { key: crate::followed::Followed::new(STRIPE_KEY.into()), base: base.to_owned() }
}

fn at_paypal(base: &str) -> PaypalSettings {
    PaypalSettings {
        client_id: CLIENT_ID.to_owned(),
        client_secret: crate::followed::Followed::new(CLIENT_SECRET.into()),
        base: base.to_owned(),
    }
}

fn stripe_with<W: World>(fake: &Fake<W>, limits: Limits) -> Providers {
    Providers::with_limits(Some(at_stripe(&fake.base)), None, limits).unwrap()
}

fn stripe_of<W: World>(fake: &Fake<W>) -> Providers {
    stripe_with(fake, FAST)
}

fn paypal_with<W: World>(fake: &Fake<W>, limits: Limits) -> Providers {
    Providers::with_limits(None, Some(at_paypal(&fake.base)), limits).unwrap()
}

fn paypal_of<W: World>(fake: &Fake<W>) -> Providers {
    paypal_with(fake, FAST)
}

/// An order of these tests, by number.
fn order(number: u128) -> OrderId {
    OrderId(uuid::Uuid::from_u128(0x0189_0000_0000_7000_8000_0000_0000_0000 + number))
}

fn money(amount_minor: i64, code: &str) -> Money {
    Money::new(amount_minor, Currency::new(code).unwrap()).unwrap()
}

/// A payment of 19.99 USD for an order.
fn payment(provider: Provider, order_id: OrderId) -> NewPayment {
    NewPayment {
        provider,
        account: None,
        order_id,
        price: money(1999, "USD"),
        return_url: Some("https://shop.example/back".to_owned()),
    }
}

fn id(text: &str) -> PaymentId {
    PaymentId::new(text).unwrap()
}

fn at(unix_seconds: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(unix_seconds).unwrap()
}
