//! What the console tells of an order that was paid twice, and of a letter that names another order than its payment's.

use super::server::{ADA, Console, Visitor};
use crate::support::{OrderSpec, captured, event_for, eventually};
use grantonce::domain::{OrderId, PaymentEvent, Reason};
use grantonce_testkit::browser::{Browser, Look};
use uuid::Uuid;

async fn log_in(browser: &Browser, console: &Console) {
    browser.go(&format!("{}/", console.base)).await;
    browser.until("h1", "Log in").await;
    browser.fill("#token", ADA).await;
    browser.press("button").await;
    browser.until(".who", "ada").await;
}

/// An order that is paid twice.
async fn paid_twice(console: &Console) -> OrderId {
    let world = &console.world;
    let worker = world.start_worker();
    let order = world.order(OrderSpec::paid_by("pi_1")).await;
    world.publish(&event_for("pi_1", "evt_1", captured(1999))).await;
    world.publish(&PaymentEvent { order_id: Some(order), ..event_for("pi_2", "evt_2", captured(1999)) }).await;
    eventually("it is overpaid", async || world.count("SELECT count(*) FROM overpaid_orders").await == 1).await;
    world.settled(worker).await;
    order
}

#[tokio::test]
async fn s03_the_first_page_and_the_story_tell_of_a_surplus() {
    let console = Console::start().await;
    let order = paid_twice(&console).await;
    let browser = Browser::open(Look::default()).await;
    log_in(&browser, &console).await;
    browser.until("#needs", "1 order is paid twice, or too much").await;
    browser.until("#overpaid", &order.to_string()).await;
    browser.until("#overpaid", "19.99 USD").await;
    browser.picture("console-overpaid-health").await;
    browser.press("#overpaid tbody a").await;
    browser.until(".needs", "paid twice: 19.99 USD too much").await;
    browser.picture("console-overpaid-story").await;
    console.world.execute("UPDATE overpaid_orders SET overpaid_minor = 0").await;
    browser.go(&format!("{}/", console.base)).await;
    browser.until("#needs", "").await;
    assert!(!browser.text("main").await.unwrap().contains("paid twice, or too much."));
    assert_eq!(browser.text("#overpaid").await, None);
}

#[tokio::test]
async fn x01_a_letter_shows_every_order_that_it_concerns_and_each_story_shows_the_letter() {
    let console = Console::start().await;
    let named = console.world.order(OrderSpec { account: "one", ..OrderSpec::paid_by("pi_of_one") }).await;
    let paid_by = console.world.order(OrderSpec { account: "two", ..OrderSpec::paid_by("pi_1") }).await;
    let event = PaymentEvent { order_id: Some(named), ..event_for("pi_1", "evt_1", captured(1999)) };
    let letter = console.letter(&event, Reason::PaymentConflict, "payment pi_1 belongs to another order").await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    let page = ada.get(&format!("/dead-letters/{letter}")).await.text;
    for order in [named, paid_by] {
        assert!(page.contains(&format!("/explain/{order}")), "{order}: {page}");
        let story = ada.get(&format!("/explain/{order}")).await.text;
        assert!(story.contains("Dead letters that concern it") && story.contains(&letter.to_string()), "{story}");
        assert!(story.contains("a payment of 19.99 USD is reported and not applied"), "{story}");
        let listed = ada.get(&format!("/dead-letters?order={order}")).await.text;
        assert!(listed.contains(&letter.to_string()), "{listed}");
        let listed = ada.call(reqwest::Method::GET, &format!("/v1/dead-letters?order={order}"), ADA, None).await.json();
        assert_eq!(listed["letters"][0]["id"], letter.to_string());
        assert_eq!(listed["letters"][0]["order_ids"], serde_json::json!([named.to_string()]));
    }
    for account in ["one", "two"] {
        let listed = ada.get(&format!("/dead-letters?account={account}")).await.text;
        assert!(listed.contains(&letter.to_string()), "{account}: {listed}");
    }
    let whole = ada.call(reqwest::Method::GET, &format!("/v1/dead-letters/{letter}"), ADA, None).await.json();
    assert_eq!(whole["orders"].as_array().map(Vec::len), Some(2), "{whole}");

    let browser = Browser::open(Look::default()).await;
    log_in(&browser, &console).await;
    browser.go(&format!("{}/dead-letters/{letter}", console.base)).await;
    browser.until(".facts", &paid_by.to_string()).await;
    browser.picture("console-letter-of-two").await;
    browser.go(&format!("{}/explain/{paid_by}", console.base)).await;
    browser.until(".needs", "is reported and not applied").await;
    browser.picture("console-story-of-two").await;
    // A number of the shop's own is no order of ours: the payment's order is told alone.
    let foreign = OrderId(Uuid::from_u128(0x0b5e_55ed_0000_4000_8000_0000_0000_4711));
    let event = PaymentEvent { order_id: Some(foreign), ..event_for("pi_1", "evt_2", captured(5)) };
    let letter = console.letter(&event, Reason::AmountMismatch, "it costs more").await;
    let page = ada.get(&format!("/dead-letters/{letter}")).await.text;
    assert!(page.contains(&format!("/explain/{paid_by}")) && !page.contains(&format!("/explain/{foreign}")), "{page}");
}
