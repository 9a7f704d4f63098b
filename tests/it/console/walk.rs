//! Whoever is on call, in a real browser: from the address that the alert has to "replayed, checked".

use super::server::{ADA, BOB, Console};
use crate::support::{OrderSpec, captured, event_for, eventually};
use grantonce::domain::Reason;
use grantonce_testkit::browser::{Browser, Look};
use serde_json::Value;

const ALERT: &str = "/dead-letters?reason=unknown_payment";

/// Opens an address, and logs in on the way.
async fn open(browser: &Browser, console: &Console, path: &str) {
    browser.go(&format!("{}{path}", console.base)).await;
    browser.until("h1", "Log in").await;
    browser.fill("#token", ADA).await;
    browser.press("button").await;
    browser.until(".who", "ada").await;
}

/// A payment comes in before anybody has ordered it, and is given up; the order is made when it is too late.
async fn one_that_came_too_early(console: &Console) {
    console.world.publish(&event_for("pi_1", "evt_1", captured(1999))).await;
    eventually("the letter is collected", async || console.world.count("SELECT count(*) FROM dead_letters").await == 1)
        .await;
    console.world.order(OrderSpec::paid_by("pi_1")).await;
}

/// To the letter by its group, and back to work with it.
async fn replay_it(browser: &Browser) {
    browser.press("#group-rows a").await;
    browser.until("#rows", "captured 19.99 USD").await;
    browser.press("#rows .letter a").await;
    browser.until("h1", "No order has this payment").await;
    browser.until("#says", "would grant 100 credits to acc").await;
    browser.fill("#replay-reason", "the order is there now, ticket 4711").await;
    browser.press("#replay").await;
    browser.until("h1", "Replay 1").await;
}

#[tokio::test]
async fn from_the_alert_to_the_credits() {
    let console = Console::start().await;
    let worker = console.world.start_worker();
    one_that_came_too_early(&console).await;
    let browser = Browser::open(Look::default()).await;
    // After the log-in one is where the alert leads.
    open(&browser, &console, ALERT).await;
    assert_eq!(browser.url().await, format!("{}{ALERT}", console.base));
    replay_it(&browser).await;
    // The page is not loaded again for it.
    browser.until("#state", "All of them were applied").await;
    assert_eq!(browser.text("#actor").await.as_deref(), Some("ada"));
    assert_eq!(console.world.grants().await, 1);
    browser.press("#members a").await;
    browser.until(".mark", "resolved").await;
    browser.go(&format!("{}/", console.base)).await;
    browser.until("#needs", "Nothing needs you").await;
    // What the workers did is noted about once a second.
    eventually("the chart shows the grant", async || {
        browser.go(&format!("{}/", console.base)).await;
        browser.text(".charts").await.is_some_and(|text| text.contains("1 grants"))
    })
    .await;
    let who = "SELECT string_agg(actor || ' ' || action || ' ' || is_self_declared, ', ') FROM audit_log";
    let who = sqlx::query_scalar::<_, String>(who).fetch_one(&console.world.sql).await.unwrap();
    assert_eq!(who, "ada replay.begin false");
    console.world.settled(worker).await;
    console.world.verify().await;
}

#[tokio::test]
async fn without_scripts_on_a_phone_it_goes_the_same_way() {
    let console = Console::start().await;
    let worker = console.world.start_worker();
    one_that_came_too_early(&console).await;
    let browser = Browser::open(Look { has_no_script: true, is_phone: true, ..Look::default() }).await;
    open(&browser, &console, ALERT).await;
    replay_it(&browser).await;
    // The page loads itself again while it waits.
    browser.until("#state", "All of them were applied").await;
    assert_eq!(console.world.grants().await, 1);
    console.world.settled(worker).await;
}

#[tokio::test]
async fn what_is_archived_can_be_taken_back() {
    let console = Console::start().await;
    console.ten_unknown().await;
    let browser = Browser::open(Look::default()).await;
    open(&browser, &console, "/dead-letters").await;
    browser.until("#groups", "10 letters in 1 group").await;
    browser.press("input[data-all]").await;
    browser.press("#rows .letter input").await;
    browser.press("button[formaction='/archive']").await;
    browser.until("#says", "9 letters").await;
    browser.fill("#reason", "another shop's").await;
    browser.press("#do").await;
    browser.until("#says", "9 letters · 9 things").await;
    assert_eq!(console.world.count("SELECT count(*) FROM dead_letters WHERE state = 'archived'").await, 9);
    browser.fill("#reason", "no, ours").await;
    browser.press("#undo").await;
    browser.until("h1", "letters.restore").await;
    assert_eq!(console.world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 10);
    assert_eq!(console.world.count("SELECT count(*) FROM audit_log WHERE actor = 'ada'").await, 2);
}

#[tokio::test]
async fn a_replay_s_first_letter_stops_it_where_the_cause_is_still_there() {
    let console = Console::start().await;
    let worker = console.world.start_worker();
    console.ten_unknown().await;
    let browser = Browser::open(Look::default()).await;
    open(&browser, &console, "/replay?reason=unknown_payment").await;
    browser.until("#says", "1 letter of 10 would do something; +100 credits in all").await;
    // The oldest goes first, and it is one of the hopeless.
    console
        .world
        .execute("UPDATE dead_letters SET first_seen_at = now() - interval '1 hour' WHERE payment_id = 'pi_5'")
        .await;
    browser.press("input[name=hopeless]").await;
    browser.fill("#reason", "to see").await;
    browser.press("#begin").await;
    browser.until("#state", "stopped").await;
    browser.until("#n-dead_again", "1").await;
    browser.until("#n-canceled", "9").await;
    browser.press("#progress a.button").await;
    browser.until("#rows", "pi_5").await;
    assert_eq!(console.world.grants().await, 0);
    console.world.settled(worker).await;
}

#[tokio::test]
async fn one_finds_the_way_from_any_id() {
    let console = Console::start().await;
    let ids = console.ten_unknown().await;
    let browser = Browser::open(Look::default()).await;
    open(&browser, &console, "/").await;
    browser.until("#needs", "10 dead letters are open").await;
    browser.fill("#q", &ids[3].to_string()).await;
    browser.press(".search button").await;
    browser.until("#detail", "no order has payment pi_3").await;
    browser.fill("#q", "pi_7").await;
    browser.press(".search button").await;
    browser.until("#says", "needs you").await;
    assert!(browser.url().await.ends_with("/explain/pi_7"));
    browser.press("#story a").await;
    browser.until("#detail", "no order has payment pi_7").await;
    // An order's story leads on as well.
    browser.fill("#q", "pi_0").await;
    browser.press(".search button").await;
    browser.until("main", "awaiting_payment").await;
    browser.fill("#q", "pi_nobody_has").await;
    browser.press(".search button").await;
    browser.until("main", "Nothing is known by this id").await;
}

/// Every page in every dress, for who wants to see them; and none of them sticks out sideways.
#[tokio::test]
async fn pages_fit_a_phone_and_the_dark() {
    let console = Console::start().await;
    let worker = console.world.start_worker();
    let ids = console.ten_unknown().await;
    let order = console.world.order(OrderSpec { amount_minor: 2499, ..OrderSpec::paid_by("pi_mismatch") }).await;
    let detail = format!(
        "order {order} costs 2499 USD (minor units), the provider says 1999 USD (minor units): a payment's total"
    );
    let mut event = event_for("pi_mismatch", "evt_mismatch", captured(1999));
    event.order_id = Some(order);
    let mismatch = console.letter(&event, Reason::AmountMismatch, &detail).await;
    let event = event_for("pi_long", &"evt_long".repeat(20), captured(700));
    console.letter(&event, Reason::DeliveryLimit, "the broker gave up: returned 101 times").await;
    for look in [Look::default(), Look { is_dark: true, ..Look::default() }, Look { is_phone: true, ..Look::default() }]
    {
        let browser = Browser::open(look).await;
        let dress = if look.is_dark {
            "dark"
        } else if look.is_phone {
            "phone"
        } else {
            "light"
        };
        browser.go(&format!("{}/login?next=%2F", console.base)).await;
        browser.picture(&format!("console-login-{dress}")).await;
        open(&browser, &console, "/").await;
        let helped = format!("/dead-letters/{}", ids[0]);
        let refused = format!("/dead-letters/{mismatch}");
        let mut pages = vec![
            ("home", "/"),
            ("letters", "/dead-letters"),
            ("letter", &helped),
            ("mismatch", &refused),
            ("preview", "/replay"),
            ("archive", "/archive?reason=unknown_payment"),
            ("replays", "/replays"),
            ("audit", "/audit"),
            ("explain", "/explain/pi_1"),
            ("missing", "/no/such/page"),
        ];
        if look.is_phone {
            browser.go(&format!("{}/replay?reason=unknown_payment", console.base)).await;
            browser.fill("#reason", "the order is there now").await;
            browser.press("#begin").await;
            browser.until("#state", "applied").await;
            pages.extend([("replay", "/replays/1"), ("act", "/audit/1")]);
        }
        for (name, path) in pages {
            browser.go(&format!("{}{path}", console.base)).await;
            browser.until("footer", "UTC").await;
            let width = "Promise.resolve(document.documentElement.scrollWidth - window.innerWidth)";
            assert_eq!(browser.run(width).await, Value::from(0), "{path} sticks out sideways");
            browser.picture(&format!("console-{name}-{dress}")).await;
        }
    }
    assert_ne!(ADA, BOB);
    console.world.settled(worker).await;
}
