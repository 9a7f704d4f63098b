//! The store on a real Postgres: what it guarantees if callers disappear, if other transactions block it, and if a statement
//! changes rows that must not change.

mod amend;
mod calls;
mod contention;
mod convergence;
mod dropped;
mod inbox;
mod ledger;
mod locks;
mod looks;
mod notes;
mod ownership;
mod reading;
mod upgrade;
mod verify;

use crate::support::World;
use grantonce::domain::{
    AccountId, DisputePolicy, Money, Order, OrderId, OrderStatus, PaymentEvent, PaymentFacts, PaymentId, PriceTerms,
    Provider,
};
use grantonce::store::{
    Applied, BatchTerms, IdempotencyKey, NewOrder, OrderView, Profile, Settings, Store, StoreError,
};
use time::OffsetDateTime;

fn terms() -> BatchTerms {
    BatchTerms { dispute_policy: DisputePolicy::Hold, now: OffsetDateTime::now_utc() }
}

fn dollars(minor: i64) -> Money {
    Money::new(minor, "USD".parse().unwrap()).unwrap()
}

async fn apply(store: &Store, events: &[PaymentEvent]) -> Result<Applied, StoreError> {
    store.apply(events.into(), terms(), crate::support::APPLYING).await
}

/// Reads an order that exists.
async fn read(store: &Store, id: OrderId) -> OrderView {
    store.orders(&[id]).await.unwrap().remove(0)
}

/// A store as the worker has it.
fn batches(world: &World) -> Store {
    Store::new(&world.store_settings(Profile::Batches)).unwrap()
}

/// A store whose server-side timeouts are longer than a test.
fn patient(world: &World, connections_max: u32) -> Store {
    let deadline = std::time::Duration::from_secs(60);
    Store::new(&Settings { connections_max, deadline, ..world.store_settings(Profile::Requests) }).unwrap()
}

fn key(key: &str) -> IdempotencyKey {
    IdempotencyKey { token_name: "site".to_owned(), key: key.to_owned(), request_digest: [7; 32] }
}

/// An order over 19.99 US dollars for 100 credits.
fn order_for(payment: &str) -> NewOrder {
    NewOrder {
        id: OrderId(uuid::Uuid::now_v7()),
        account_id: AccountId::new("acc").unwrap(),
        credits: 100,
        price: dollars(1999),
        price_terms: PriceTerms::Total,
        provider: Provider::new("stripe").unwrap(),
        provider_account: None,
        payment_id: Some(PaymentId::new(payment).unwrap()),
        metadata: serde_json::json!({}),
        now: OffsetDateTime::now_utc(),
        first_look_at: OffsetDateTime::now_utc() + time::Duration::minutes(2),
    }
}

/// An order of Stripe's without any event.
fn unpaid(id: OrderId, credits: i64, price: Money) -> Order {
    Order {
        id,
        account_id: AccountId::new("acc").unwrap(),
        credits,
        price,
        price_terms: PriceTerms::Total,
        provider: Provider::STRIPE,
        provider_account: None,
        status: OrderStatus::AwaitingPayment,
        is_granted: false,
        credits_posted: 0,
        revision: 0,
        facts: PaymentFacts::default(),
    }
}
