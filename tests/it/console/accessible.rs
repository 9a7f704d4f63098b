//! Pages for people who see little, use no mouse, or hear the page: axe-core finds nothing, and the keyboard reaches everything.

use super::server::{ADA, Console};
use crate::support::{OrderSpec, captured, event_for};
use grantonce::domain::{OrderId, Reason};
use grantonce_testkit::browser::{Browser, Look};
use serde_json::Value;

/// Letters of each kind that a list shows, an archived one and a replay.
async fn fill(console: &Console) -> (OrderId, String) {
    let ids = console.ten_unknown().await;
    let order = console.world.order(OrderSpec { amount_minor: 2499, ..OrderSpec::paid_by("pi_mismatch") }).await;
    for n in 0..3 {
        let event = event_for("pi_mismatch", &format!("evt_mismatch_{n}"), captured(1999));
        let detail = format!("order {order} costs 2499 USD (minor units), the provider says 1999 USD (minor units)");
        console.letter(&event, Reason::AmountMismatch, &detail).await;
    }
    console.world.execute("UPDATE dead_letters SET state = 'archived' WHERE payment_id = 'pi_9'").await;
    console
        .world
        .execute(
            "INSERT INTO replays (created_at, actor, is_self_declared, reason, selection, per_s_max, state, pace, letters,
                 busy_until, ended_at, note)
             VALUES (now(), 'ada', false, 'because', '{}', 1, 'stopped', 'canary', 2, now(), now(), 'its first letter came back');
             INSERT INTO replay_letters (replay_id, position, letter_id, number, state)
             SELECT 1, row_number() OVER (), id, 1, 'dead_again' FROM (SELECT id FROM dead_letters LIMIT 2) AS two;
             INSERT INTO audit_log (at, actor, is_self_declared, action, subject, reason, before, after)
             VALUES (now(), 'ada', true, 'letters.archive', '1 letters', 'because', '{}', '{}')",
        )
        .await;
    (order, format!("/dead-letters/{}", ids[3]))
}

async fn log_in(browser: &Browser, console: &Console) {
    browser.go(&format!("{}/", console.base)).await;
    browser.fill("#token", ADA).await;
    browser.press("button").await;
    browser.until(".who", "ada").await;
}

#[tokio::test]
async fn axe_finds_nothing_on_any_page() {
    let console = Console::start().await;
    let (order, letter) = fill(&console).await;
    let (page, price) = (format!("/orders/{order}"), format!("/orders/{order}/amend?amount_minor=1999&currency=USD"));
    let (check, story) = (format!("/check?order={order}"), format!("/explain/{order}"));
    let pages = [
        "/",
        "/dead-letters",
        "/dead-letters?reason=amount_mismatch",
        "/dead-letters?reason=id_reused",
        "/dead-letters?state=any",
        &letter,
        &page,
        &price,
        &check,
        &story,
        "/check?payment=psp_1&provider=adyen",
        "/explain/acc",
        "/explain/nobody",
        "/forget?account=acc",
        "/queue",
        "/replay",
        "/archive?reason=unknown_payment",
        "/restore",
        "/amend",
        "/replays",
        "/replays/1",
        "/audit",
        "/audit/1",
        "/no/such/page",
    ];
    for look in [Look::default(), Look { is_dark: true, ..Look::default() }, Look { is_phone: true, ..Look::default() }]
    {
        let browser = Browser::open(look).await;
        browser.go(&format!("{}/login", console.base)).await;
        let Some(found) = browser.axe().await else {
            eprintln!("not looked at: AXE_CORE does not name axe.min.js (npm pack axe-core)");
            return;
        };
        assert_eq!(found, Vec::<String>::new(), "/login {look:?}");
        log_in(&browser, &console).await;
        for (at, path) in pages.into_iter().enumerate() {
            browser.go(&format!("{}{path}", console.base)).await;
            browser.until("footer", "UTC").await;
            assert_eq!(browser.axe().await, Some(vec![]), "{path} {look:?}");
            browser.picture(&format!("console-axe-{at}-{}{}", u8::from(look.is_dark), u8::from(look.is_phone))).await;
        }
    }
}

/// Where the focus is: what the element is named, and whether a ring is drawn around it.
const FOCUS: &str =
    "Promise.resolve((() => { const it = document.activeElement; const box = it.getBoundingClientRect();
    return { name: it.getAttribute('aria-label') ?? it.labels?.[0]?.innerText ?? it.innerText, tag: it.localName,
             ring: getComputedStyle(it).outlineStyle !== 'none' && parseFloat(getComputedStyle(it).outlineWidth) >= 2,
             seen: box.width > 0 && box.right > 0 && box.left < innerWidth } })())";

const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

#[tokio::test]
async fn the_keyboard_alone_leads_from_the_list_to_the_act() {
    let console = Console::start().await;
    fill(&console).await;
    let browser = Browser::open(Look::default()).await;
    log_in(&browser, &console).await;
    browser.go(&format!("{}/dead-letters?reason=amount_mismatch", console.base)).await;
    browser.until("#orders", "1 order or payment").await;
    // The first stop leads past the navigation.
    browser.key(TAB).await;
    assert_eq!(browser.run(FOCUS).await["name"], Value::from("To the content"));
    browser.key(ENTER).await;
    let mut stops = vec![];
    for _ in 0..80 {
        browser.key(TAB).await;
        let focus = browser.run(FOCUS).await;
        let name = focus["name"].as_str().unwrap_or_default().to_owned();
        assert!(focus["ring"] == true && focus["seen"] == true, "{focus} after {stops:?}");
        assert!(!name.trim().is_empty(), "{focus} has no name, after {stops:?}");
        stops.push(name);
        if stops.last().is_some_and(|name| name == "Amend the price…") {
            break;
        }
    }
    assert_eq!(stops.last().map(String::as_str), Some("Amend the price…"), "{stops:?}");
    assert!(!stops.iter().any(|name| name == "Health"), "the link leads past the navigation: {stops:?}");
    browser.key(ENTER).await;
    browser.until("h1", "Amend prices to what was paid").await;
}
