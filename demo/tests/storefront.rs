//! The shop of the demo in a real browser: buying, and every button that tries to get credits otherwise. The balance that the
//! page shows is the API's; beside it stands what it must be, worked out from the provider's own books.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    unreachable_pub,
    reason = "a test that cannot go on says so by failing"
)]

mod support;

use grantonce_testkit::browser::{Browser, Look};
use grantonce_testkit::wait::eventually;
use serde_json::Value;
use support::Demo;

/// Lets a trick be played, and waits until the page has come back with a note of it.
async fn play(browser: &Browser, trick: &str, note: &str) {
    browser.press(&format!("button[value={trick}]")).await;
    browser.until("#notes li:first-child", note).await;
}

/// Waits until the balance is that, and is what it must be; then nothing may move it any more.
async fn balance(browser: &Browser, credits: i64) {
    browser.until("#verdict", "right").await;
    browser.until("#due", &credits.to_string()).await;
    eventually("the balance is what is due", async || {
        let shown = browser.text("#balance").await;
        shown == Some(credits.to_string()) && browser.text("#verdict").await.as_deref() == Some("right")
    })
    .await;
}

async fn status(browser: &Browser, status: &str) {
    eventually(&format!("the order is {status}"), async || {
        browser.attribute("#state", "data-status").await.as_deref() == Some(status)
    })
    .await;
}

/// The page is put in place anew whenever there is news: just then there is nothing to be read.
async fn number(browser: &Browser, css: &str) -> i64 {
    let mut found = None;
    eventually(&format!("{css} is a number"), async || {
        found = browser.text(css).await.and_then(|text| text.parse().ok());
        found.is_some()
    })
    .await;
    found.unwrap()
}

/// Orders a bag of 500 credits; the browser is on the provider's page then.
async fn order_a_bag(browser: &Browser, demo: &Demo) {
    browser.go(&demo.storefront).await;
    browser.press("#bag button[value=stripe]").await;
    browser.until("h1", "Pay").await;
}

/// To the page of the visitor's last order.
async fn open_last_order(browser: &Browser, demo: &Demo) {
    browser.go(&demo.storefront).await;
    browser.press("#orders li:first-child a").await;
    browser.until("h2", "The books").await;
}

async fn pay(browser: &Browser) {
    browser.press("button[value=succeeded]").await;
    browser.until("h2", "The books").await;
}

#[tokio::test]
async fn eight_steps_from_the_order_to_the_credits() {
    let demo = Demo::open();
    let browser = Browser::open(Look::default()).await;
    // 1. The shop, where nobody has anything yet.
    browser.go(&demo.storefront).await;
    assert_eq!(browser.text("#balance").await.as_deref(), Some("0"));
    browser.picture("kiosk").await;
    // 2. The buyer orders; 3. the order and its payment are made, and the provider's page is there.
    browser.press("#bag button[value=stripe]").await;
    browser.until("h1", "Pay").await;
    assert!(!browser.url().await.starts_with(&demo.storefront));
    assert_eq!(browser.text(".big").await.as_deref(), Some("19.99 USD"));
    browser.picture("provider").await;
    // 4. A card that is declined is not the end.
    browser.press("button[value=failed]").await;
    browser.until("[role=alert]", "declined").await;
    // 5. The buyer pays, and 6. comes back: that makes the shop ask, and proves nothing.
    pay(&browser).await;
    assert!(browser.url().await.starts_with(&format!("{}/orders/", demo.storefront)));
    browser.until("#notes", "You came back.").await;
    // 7. The page waits, and 8. shows the credits, without being loaded again.
    status(&browser, "fulfilled").await;
    browser.until("#state h1", "500 credits are yours").await;
    balance(&browser, 500).await;
    assert!(
        number(&browser, "#arrived").await > number(&browser, "#admitted").await,
        "each webhook comes several times"
    );
    browser.go(&demo.storefront).await;
    assert_eq!(browser.text("#balance").await.as_deref(), Some("500"));
}

#[tokio::test]
async fn every_button_ends_with_the_right_balance() {
    let demo = Demo::open();
    let browser = Browser::open(Look::default()).await;
    order_a_bag(&browser, &demo).await;

    // Not paid: nothing that a browser says, and nothing that is signed by a stranger, is worth a credit.
    open_last_order(&browser, &demo).await;
    play(&browser, "claim", "forged webhook was answered 401").await;
    play(&browser, "call_back", "Called back 50 times").await;
    play(&browser, "replay", "no webhook to replay").await;
    play(&browser, "new_keys", "100 × 409").await;
    status(&browser, "awaiting_payment").await;
    balance(&browser, 0).await;
    assert_eq!(number(&browser, "#admitted").await, 0);

    browser.press("#pay").await;
    pay(&browser).await;
    balance(&browser, 500).await;
    for (trick, note) in [
        ("call_back", "Called back 50 times"),
        ("replay", "sent 100 times more; 100 were taken"),
        ("new_keys", "100 × 409"),
        ("claim", "forged webhook was answered 401"),
    ] {
        play(&browser, trick, note).await;
        balance(&browser, 500).await;
    }
    eventually("all hundred copies are ignored", async || number(&browser, "#ignored").await >= 100).await;
    browser.picture("order").await;

    for (trick, note, credits, becomes) in [
        ("refund_half", "Half of the price went back", 250, "partially_refunded"),
        ("refund_fails", "The last refund failed", 500, "fulfilled"),
        ("dispute", "took the money back", 0, "disputed"),
        ("dispute_won", "was won", 500, "fulfilled"),
        ("refund_half", "Half of the price went back", 250, "partially_refunded"),
        ("dispute", "took the money back", 0, "disputed"),
        ("dispute_lost", "was lost", 0, "disputed"),
        ("replay", "100 were taken", 0, "disputed"),
    ] {
        play(&browser, trick, note).await;
        status(&browser, becomes).await;
        balance(&browser, credits).await;
    }
}

#[tokio::test]
async fn a_buyer_who_comes_back_a_hundred_times_at_once_is_granted_once() {
    let demo = Demo::open();
    let browser = Browser::open(Look::default()).await;
    order_a_bag(&browser, &demo).await;
    open_last_order(&browser, &demo).await;
    let back = "Promise.all(Array.from({ length: 100 }, () => fetch(`${location.pathname}/return`)))
        .then((answers) => answers.filter((answer) => answer.ok).length)";
    assert_eq!(browser.run(back).await, Value::from(100));
    status(&browser, "awaiting_payment").await;
    browser.press("#pay").await;
    pay(&browser).await;
    assert_eq!(browser.run(back).await, Value::from(100));
    status(&browser, "fulfilled").await;
    balance(&browser, 500).await;

    // Somebody else sees none of it.
    let order = browser.url().await;
    let stranger = Browser::open(Look { is_phone: true, is_dark: true, ..Look::default() }).await;
    stranger.go(&order).await;
    stranger.until("h1", "That did not work").await;
}

#[tokio::test]
async fn without_scripts_it_sells_all_the_same() {
    let demo = Demo::open();
    let browser = Browser::open(Look { has_no_script: true, is_phone: true, ..Look::default() }).await;
    order_a_bag(&browser, &demo).await;
    pay(&browser).await;
    // The page loads itself again while it waits.
    status(&browser, "fulfilled").await;
    play(&browser, "refund_half", "Half of the price went back").await;
    eventually("the balance is right when the page is loaded again", async || {
        open_last_order(&browser, &demo).await;
        browser.text("#balance").await.as_deref() == Some("250")
    })
    .await;
    for look in [Look { is_dark: true, ..Look::default() }, Look { is_phone: true, ..Look::default() }] {
        let name = if look.is_dark { "dark" } else { "phone" };
        let other = Browser::open(look).await;
        order_a_bag(&other, &demo).await;
        pay(&other).await;
        balance(&other, 500).await;
        let width = "Promise.resolve(document.documentElement.scrollWidth - window.innerWidth)";
        assert_eq!(other.run(width).await, Value::from(0), "nothing sticks out sideways");
        other.picture(name).await;
    }
}

#[tokio::test]
async fn a_webhook_that_is_dropped_is_made_good_by_asking() {
    let demo = Demo::open();
    let browser = Browser::open(Look::default()).await;
    order_a_bag(&browser, &demo).await;
    open_last_order(&browser, &demo).await;
    play(&browser, "drop_next", "no webhook will be sent").await;
    browser.press("#pay").await;
    pay(&browser).await;
    status(&browser, "fulfilled").await;
    balance(&browser, 500).await;
    assert_eq!(number(&browser, "#arrived").await, 0);
    assert!(number(&browser, "#dropped").await > 0);
    browser.until("table", "the provider was asked").await;
}

/// The reconciler takes the money of what the buyer has agreed to; no webhook comes of it.
#[tokio::test]
async fn a_paypal_payment_is_found_approved_and_captured_by_asking() {
    let demo = Demo::open();
    let browser = Browser::open(Look::default()).await;
    browser.go(&demo.storefront).await;
    browser.press("#handful button[value=paypal]").await;
    browser.until("h1", "Agree to pay").await;
    browser.press("button[value=succeeded]").await;
    browser.until("h2", "The books").await;
    status(&browser, "fulfilled").await;
    balance(&browser, 100).await;
    play(&browser, "refund_half", "Half of the price went back").await;
    // Nobody tells of it; the buyer who comes back makes the shop ask.
    eventually("the refund is found by asking", async || {
        browser.go(&format!("{}/return", browser.url().await.trim_end_matches('/'))).await;
        browser.text("#state").await.is_some()
            && browser.attribute("#state", "data-status").await.as_deref() == Some("partially_refunded")
    })
    .await;
    balance(&browser, 50).await;
}
