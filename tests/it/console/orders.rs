//! The order as the unit of work: one line for its letters, its money, and the action that mends it.

use super::server::{ADA, Answer, Console, Visitor, letter_of};
use crate::api::contract::Contract;
use crate::support::{OrderSpec, captured, event_for, eventually};
use grantonce::broker::HINTS_QUEUE;
use grantonce::domain::{Hint, LetterState, OrderId, PaymentId, Reason};
use grantonce::message::decode_hint;
use grantonce::store::{LetterFilter, OrderLetters, Store};
use grantonce_testkit::browser::{Browser, Look};
use lapin::options::BasicGetOptions;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use time::OffsetDateTime;

/// An order that costs 24.99 and was paid 19.99, told by three letters.
async fn mismatched(console: &Console, payment: &str) -> OrderId {
    let order = console.world.order(OrderSpec { amount_minor: 2499, ..OrderSpec::paid_by(payment) }).await;
    for n in 0..3 {
        let detail = format!("order {order} costs 2499 USD (minor units), the provider says 1999 USD (minor units)");
        let event = event_for(payment, &format!("evt_{payment}_{n}"), captured(1999));
        console.letter(&event, Reason::AmountMismatch, &detail).await;
    }
    order
}

async fn open(console: &Console, path: &str) -> Browser {
    let browser = Browser::open(Look::default()).await;
    browser.go(&format!("{}{path}", console.base)).await;
    browser.fill("#token", ADA).await;
    browser.press("button").await;
    browser.until(".who", "ada").await;
    browser
}

#[tokio::test]
async fn three_letters_of_one_order_are_one_line_and_mending_it_empties_the_list() {
    let console = Console::start().await;
    let worker = console.world.start_worker();
    let order = mismatched(&console, "pi_1").await;
    let browser = open(&console, "/dead-letters").await;
    browser.until("#orders", "1 order or payment").await;
    let line = browser.text("#rows .order").await.unwrap();
    for part in
        [order.to_string().as_str(), "19.99 USD", "24.99 USD", "−5.00 USD", "paid, no credits", "Amend the price…"]
    {
        assert!(line.contains(part), "{part}: {line}");
    }
    let letters = "Promise.resolve(document.querySelectorAll('#rows .letter').length)";
    assert_eq!(browser.run(letters).await, Value::from(3));
    browser.picture("console-orders").await;
    // The order's page shows the consequence before the button.
    browser.press("#rows .order th a").await;
    browser.until("#money", "−5.00 USD").await;
    browser.until("#changes", "100 credits to acc").await;
    browser.picture("console-order").await;
    browser.fill("#reason", "the price was wrong, ticket 4711").await;
    browser.press("#do").await;
    browser.until("#says", "3 letters of 3 would do something; +100 credits").await;
    assert_eq!(console.world.grants().await, 0, "an amendment grants nothing");
    browser.fill("#reason", "the price is amended").await;
    browser.press("#begin").await;
    browser.until("#state", "All of them were applied").await;
    assert_eq!(console.world.grants().await, 1);
    browser.go(&format!("{}/orders/{order}", console.base)).await;
    browser.until("#money", "none").await;
    browser.until("#step", "No letter of it is open").await;
    browser.until("main", "order.amend").await;
    browser.go(&format!("{}/dead-letters", console.base)).await;
    browser.until("#none", "No dead letters").await;
    console.world.settled(worker).await;
    console.world.verify().await;
}

/// The hint that the queue holds; none: it is empty.
async fn hint(console: &Console) -> Option<Hint> {
    let (connection, channel) = console.world.channel().await;
    let got = channel.basic_get(HINTS_QUEUE.into(), BasicGetOptions { no_ack: true }).await.unwrap();
    let hint = got.map(|got| decode_hint(&got.delivery.data).unwrap());
    connection.close(200, "done".into()).await.unwrap();
    hint
}

async fn audited(console: &Console) -> Vec<(String, String, String)> {
    let lines = "SELECT action, subject, reason FROM audit_log WHERE actor = 'ada' ORDER BY id";
    sqlx::query_as(lines).fetch_all(&console.world.sql).await.unwrap()
}

#[tokio::test]
async fn a_check_at_the_provider_is_a_hint_and_a_line_in_the_audit_log() {
    let console = Console::start().await;
    let order = console.world.order(OrderSpec::paid_by("pi_1")).await;
    // No replay helps: workers do not know this type.
    let mut letter = letter_of(&event_for("pi_1", "evt_1", captured(1999)), Reason::Malformed, "its type is unknown");
    letter.kind = "payment-status.v9".to_owned();
    console.store.keep_letters(vec![letter], OffsetDateTime::now_utc()).await.unwrap();
    let browser = open(&console, "/dead-letters").await;
    browser.press("#rows .acts a").await;
    browser.until("h1", "Check at the provider").await;
    browser.until("#says", "The reconciler asks stripe").await;
    assert!(hint(&console).await.is_none(), "the page only shows");
    browser.fill("#reason", "the buyer says that it is paid").await;
    browser.press("#do").await;
    browser.until("h1", &order.to_string()).await;
    let asked = hint(&console).await.expect("a hint");
    assert_eq!((asked.payment_id.as_str(), asked.provider.as_str()), ("pi_1", "stripe"));
    let line = |action: &str, subject: &str, reason: &str| (action.to_owned(), subject.to_owned(), reason.to_owned());
    let first = line("order.check", &order.to_string(), "the buyer says that it is paid");
    assert_eq!(audited(&console).await, std::slice::from_ref(&first));

    // A payment without an order, by the call.
    let caller = Caller::new(&console);
    let wish = json!({"provider": "stripe", "payment_id": "pi_nobody", "reason": "whose is it?"});
    assert_eq!(caller.post("/v1/payments/check", wish).await.json()["will_ask"], json!(true));
    assert_eq!(hint(&console).await.map(|hint| hint.payment_id), PaymentId::new("pi_nobody").ok());
    assert_eq!(audited(&console).await, [first, line("payment.check", "pi_nobody", "whose is it?")]);
    let asked = caller.post(&format!("/v1/orders/{order}/check"), json!({"reason": "again"})).await;
    assert_eq!((asked.status, &asked.json()["will_ask"]), (202, &json!(true)));
    assert!(hint(&console).await.is_some());
    // Those who cannot be asked are not, and nothing is written.
    let wish = json!({"provider": "adyen", "payment_id": "psp_1", "reason": "x"});
    assert_eq!(caller.post("/v1/payments/check", wish).await.json()["will_ask"], json!(false));
    for (path, body, status) in [
        ("/v1/payments/check", json!({"provider": "", "payment_id": "pi_1", "reason": "x"}), 422),
        ("/v1/payments/check", json!({"provider": "stripe", "payment_id": "pi_1", "reason": " "}), 400),
        ("/v1/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f/check", json!({"reason": "x"}), 404),
        ("/v1/orders/x/check", json!({"reason": "x"}), 404),
    ] {
        assert_eq!(caller.post(path, body.clone()).await.status, status, "{path} {body}");
    }
    assert!(hint(&console).await.is_none());
    assert_eq!(audited(&console).await.len(), 3);
}

#[tokio::test]
async fn another_price_is_shown_first_and_set_only_as_it_was_seen() {
    let console = Console::start().await;
    let order = mismatched(&console, "pi_1").await;
    let browser = open(&console, &format!("/orders/{order}/amend")).await;
    browser.until("h1", "Set another price").await;
    // What was paid stands there already.
    assert_eq!(browser.attribute("#amount_minor", "value").await.as_deref(), Some("1999"));
    browser.press(".filters button").await;
    browser.until("#says", "The order would cost 19.99 USD instead of 24.99 USD").await;
    browser.fill("#reason", "agreed with the buyer").await;
    let price = "SELECT amount_minor FROM orders";
    assert_eq!(console.world.count(price).await, 2499, "the page only shows");
    // Somebody else is faster.
    console.world.execute("UPDATE orders SET amount_minor = 2000, version = version + 1").await;
    browser.press("#do").await;
    browser.until("main", "costs something else than you have seen").await;
    assert_eq!(console.world.count(price).await, 2000);
    browser.go(&format!("{}/orders/{order}/amend?amount_minor=1999&currency=USD", console.base)).await;
    browser.fill("#reason", "agreed with the buyer").await;
    browser.press("#do").await;
    browser.until("h1", &order.to_string()).await;
    assert_eq!(console.world.count(price).await, 1999);
    let line = ("order.amend".to_owned(), order.to_string(), "agreed with the buyer".to_owned());
    assert_eq!(audited(&console).await, [line]);

    let caller = Caller::new(&console);
    let path = format!("/v1/orders/{order}/amend");
    let euros = json!({"amount_minor": 500, "currency": "EUR"});
    let preview = caller.post(&format!("{path}/preview"), json!({"price": euros})).await.json();
    assert_eq!((&preview["would_amend"], &preview["before"]["amount_minor"]), (&json!(true), &json!(1999)));
    let stale = json!({"price": euros, "seen": {"amount_minor": 1, "currency": "USD"}, "reason": "x"});
    assert_eq!(caller.post(&path, stale).await.status, 409);
    let done = caller.post(&path, json!({"price": euros, "reason": "x"})).await.json();
    assert_eq!((&done["outcome"], &done["is_grant_due"]), (&json!("amended"), &json!(false)));
    assert_eq!(caller.post(&path, json!({"price": euros, "reason": "x"})).await.json()["outcome"], json!("unchanged"));
    for price in [json!({"amount_minor": 0, "currency": "EUR"}), json!({"amount_minor": 5, "currency": "XXX"})] {
        assert_eq!(caller.post(&path, json!({"price": price, "reason": "x"})).await.status, 422, "{price}");
    }
    console.world.execute("UPDATE orders SET is_granted = true").await;
    let refused = caller.post(&path, json!({"price": {"amount_minor": 1, "currency": "EUR"}, "reason": "x"})).await;
    assert_eq!(refused.status, 409, "{}", refused.text);
}

#[tokio::test]
async fn an_account_is_forgotten_after_a_look_at_what_goes() {
    let console = Console::start().await;
    let order = mismatched(&console, "pi_1").await;
    console.world.execute("UPDATE orders SET metadata = '{\"name\": \"somebody\"}'").await;
    let browser = open(&console, "/explain/acc").await;
    browser.press("main a.button.quiet").await;
    browser.until("#says", "This would empty the metadata of 1 order").await;
    browser.until("main", "3 dead letters are open").await;
    let kept = "SELECT count(*) FROM orders WHERE metadata <> '{}'";
    assert_eq!(console.world.count(kept).await, 1, "the page only shows");
    browser.fill("#reason", "erasure request, ticket 4711").await;
    browser.press("#do").await;
    browser.until("main", "Nothing that could be emptied is left").await;
    assert_eq!(console.world.count(kept).await, 0);
    let line = ("account.forget".to_owned(), "acc".to_owned(), "erasure request, ticket 4711".to_owned());
    assert_eq!(audited(&console).await, [line]);
    let caller = Caller::new(&console);
    let counts = caller.post("/v1/accounts/forget/preview", json!({"account_id": "acc"})).await.json();
    assert_eq!((&counts["orders"], &counts["letters_left"]), (&json!(0), &json!(3)));
    let nobody = json!({"account_id": "nobody", "reason": "x"});
    assert_eq!(caller.post("/v1/accounts/forget", nobody).await.status, 404);
    assert_eq!(console.world.status(order).await, "awaiting_payment");
}

#[tokio::test]
async fn the_queue_of_dead_letters_can_be_looked_at() {
    let console = Console::start().await;
    let browser = open(&console, "/queue").await;
    browser.press("#look").await;
    browser.until("#says", "The queue holds no dead letter").await;
    let caller = Caller::new(&console);
    assert_eq!(caller.post("/v1/dead-letters/queue", json!({})).await.json()["letters"], json!([]));
    assert_eq!(caller.post("/v1/dead-letters/queue", json!({"count": 101})).await.status, 422);
}

/// Somebody's programs.
struct Caller {
    visitor: Visitor,
    contract: Contract,
}

impl Caller {
    fn new(console: &Console) -> Self {
        Self { visitor: Visitor::new(&console.base), contract: Contract::of_ops() }
    }

    async fn get(&self, path: &str) -> Answer {
        self.call(Method::GET, path, None).await
    }

    async fn post(&self, path: &str, body: Value) -> Answer {
        self.call(Method::POST, path, Some(body)).await
    }

    /// Every answer is as the contract promises.
    async fn call(&self, method: Method, path: &str, body: Option<Value>) -> Answer {
        let answer = self.visitor.call(method.clone(), path, ADA, body).await;
        self.contract.hold(&method, path, (answer.status, answer.header("content-type"), &answer.text));
        answer
    }
}

#[tokio::test]
async fn programs_read_orders_with_their_money() {
    let console = Console::start().await;
    let order = mismatched(&console, "pi_1").await;
    console.letter(&event_for("pi_2", "evt_2", captured(700)), Reason::UnknownPayment, "no order has it").await;
    let caller = Caller::new(&console);
    let listed = caller.get("/v1/dead-letters/orders").await.json();
    let orders = listed["orders"].as_array().unwrap();
    assert_eq!((orders.len(), &listed["next"], &listed["is_cut"]), (2, &Value::Null, &json!(false)));
    let (payment, known) = (&orders[0], &orders[1]);
    assert_eq!(
        (&payment["order"], &payment["payment_id"], &payment["expected"]),
        (&json!("none"), &json!("pi_2"), &Value::Null)
    );
    assert_eq!((&payment["paid"][0]["amount_minor"], &payment["next_step"]), (&json!(700), &json!("make_order")));
    assert_eq!((&known["order_id"], &known["letters"], &known["order"]), (&json!(order), &json!(3), &json!("read")));
    assert_eq!(
        (&known["paid"], &known["difference_minor"]),
        (&json!([{"amount_minor": 1999, "currency": "USD"}]), &json!(-500))
    );
    assert_eq!((&known["expected"]["amount_minor"], &known["next_step"]), (&json!(2499), &json!("amend_price")));
    let one = caller.get(&format!("/v1/orders/{order}")).await.json();
    assert_eq!((&one["difference_minor"], one["dead_letters"].as_array().unwrap().len()), (&json!(-500), 3));
    assert_eq!(caller.get("/v1/orders/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f").await.status, 404);
    let story = caller.get(&format!("/v1/explain/{order}?kind=order&limit=1")).await;
    assert_eq!(story.json()["entries"].as_array().map(Vec::len), Some(1), "{}", story.text);
    assert_eq!(caller.get(&format!("/v1/explain/{order}?kind=payment")).await.status, 404);
    assert_eq!(caller.get(&format!("/v1/explain/{order}?kind=x")).await.status, 400);
}

async fn all_pages(store: &Store, filter: LetterFilter, count_max: u32) -> Vec<OrderLetters> {
    let (mut all, mut after) = (vec![], None);
    loop {
        let page = store.letters_by_order(filter.clone(), after, count_max).await.unwrap();
        all.extend(page.orders);
        after = page.next;
        if after.is_none() {
            return all;
        }
    }
}

#[tokio::test]
async fn every_order_is_on_one_page_and_has_all_its_letters() {
    let console = Console::start().await;
    let store = &console.store;
    for n in 0..7 {
        let payment = format!("pi_{n}");
        if n % 2 == 0 {
            mismatched(&console, &payment).await;
        } else {
            for message in 0..=n {
                let event = event_for(&payment, &format!("evt_{n}_{message}"), captured(1999));
                console.letter(&event, Reason::UnknownPayment, "no order has it").await;
            }
        }
    }
    let all = all_pages(store, LetterFilter::default(), 2).await;
    let letters: Vec<i64> = all.iter().map(|order| order.letters).collect();
    assert_eq!(letters, [3, 6, 3, 4, 3, 2, 3], "the newest first");
    let payments: BTreeSet<_> = all.iter().filter_map(|order| order.payment_id.clone()).collect();
    assert_eq!((payments.len(), all.iter().filter(|order| order.order_id.is_some()).count()), (7, 4));
    let newest = all_pages(store, LetterFilter::default(), 200).await;
    assert_eq!(newest, all, "pages change nothing");
    // The filter says which letters count.
    let none = LetterFilter { reason: Some(Reason::IdReused.name().to_owned()), ..LetterFilter::default() };
    assert_eq!(all_pages(store, none, 10).await, []);
    let archived = LetterFilter::default().in_state(LetterState::Archived);
    assert_eq!(all_pages(store, archived, 10).await, []);
}

#[tokio::test]
async fn what_one_page_groups_has_a_bound_and_older_letters_are_found_by_their_age() {
    let console = Console::start().await;
    console
        .world
        .execute(
            "INSERT INTO dead_letters (id, message_id, kind, routing_key, headers, body, body_bytes, reason, cause, detail, origin,
                 attempts, provider, payment_id, state, state_at, first_seen_at, last_seen_at, checked_at, is_read, payment_ids)
             SELECT gen_random_uuid(), 'stripe::evt_' || n, 'payment-status.v1', 'payment.stripe', '{}', '\\x7b7d', 2, 'malformed',
                 'cause', 'detail', 'worker', 4, 'stripe', 'pi_' || n, 'open', now(), now() - n * interval '1 second', now(),
                 now(), true, ARRAY['pi_' || n]
             FROM generate_series(1, 10005) n",
        )
        .await;
    let page = console.store.letters_by_order(LetterFilter::default(), None, 200).await.unwrap();
    assert_eq!((page.orders.len(), page.orders_left), (200, 10_001));
    let since = page.grouped_since.expect("it is cut");
    let older = LetterFilter { before: Some(since), ..LetterFilter::default() };
    let page = console.store.letters_by_order(older, None, 200).await.unwrap();
    assert_eq!((page.orders.len(), page.grouped_since), (4, None));
    let ada = Visitor::logged_in(&console.base, ADA).await;
    let text = ada.get("/dead-letters").await.text;
    assert!(text.contains("The filter finds more than 10,000 letters"), "{text}");
    eventually("the link leads to the older ones", async || {
        let link = text.split("href=\"").find(|part| part.contains("before=")).unwrap().split('"').next().unwrap();
        ada.get(&link.replace("&amp;", "&")).await.text.contains("4 orders and payments")
    })
    .await;
}
