//! Orders of a group that cost what was paid: seen first, then done as it was seen, then replayed.

use super::server::{ADA, Console, Visitor};
use crate::api::contract::Contract;
use crate::support::{OrderSpec, captured, event_for};
use grantonce::domain::{LetterId, OrderId, Reason};
use grantonce_testkit::browser::{Browser, Look};
use reqwest::Method;
use serde_json::{Value, json};

/// Orders that cost 29.99, of which 19.99 was paid, with their letters; the last one's letters tell two prices.
async fn mismatches(console: &Console, count: usize) -> Vec<(OrderId, LetterId)> {
    let mut all = vec![];
    for n in 0..count {
        let payment = format!("pi_{n}");
        let order = console.world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by(&payment) }).await;
        let detail = format!("order {order} costs 2999 USD (minor units), the provider says 1999 USD (minor units)");
        let event = event_for(&payment, &format!("evt_{n}"), captured(1999));
        all.push((order, console.letter(&event, Reason::AmountMismatch, &detail).await));
        if n + 1 == count {
            let event = event_for(&payment, &format!("evt_{n}b"), captured(1899));
            console.letter(&event, Reason::AmountMismatch, &detail).await;
        }
    }
    all
}

async fn amended(console: &Console) -> i64 {
    console.world.count("SELECT count(*) FROM orders WHERE amount_minor = 1999").await
}

#[tokio::test]
async fn from_the_group_to_the_credits() {
    let console = Console::start().await;
    let worker = console.world.start_worker();
    mismatches(&console, 4).await;
    let browser = Browser::open(Look::default()).await;
    browser.go(&format!("{}/dead-letters", console.base)).await;
    browser.fill("#token", ADA).await;
    browser.press("button").await;
    browser.until("#groups", "5 letters").await;
    browser.press("#group-rows td:last-child a:last-child").await;
    browser.until("h1", "Amend prices to what was paid").await;
    browser.until("#says", "3 orders would cost what was paid; 1 stays as it is.").await;
    browser.until("#changes", "29.99 USD").await;
    browser.until("#changes", "19.99 USD").await;
    browser.until("#changes", "100 credits to acc").await;
    browser.until("#stays", "its letters tell different prices").await;
    assert_eq!(amended(&console).await, 0, "it only looked");
    browser.fill("#reason", "tax was switched on, ticket 4711").await;
    browser.press("#do").await;
    browser.until("h1", "Replay").await;
    browser.until("#says", "3 letters of 5 would do something; +300 credits in all").await;
    assert_eq!((amended(&console).await, console.world.grants().await), (3, 0));
    browser.fill("#reason", "prices amended").await;
    browser.press("#begin").await;
    browser.until("#state", "All of them were applied").await;
    assert_eq!(console.world.grants().await, 3);
    let audited = "SELECT count(DISTINCT subject) FROM audit_log WHERE action = 'order.amend' AND actor = 'ada'
                       AND NOT is_self_declared AND reason = 'tax was switched on, ticket 4711'";
    assert_eq!(console.world.count(audited).await, 3);
    console.world.settled(worker).await;
    console.world.verify().await;
}

/// The page in every dress, for who wants to see it.
#[tokio::test]
async fn the_page_fits_a_phone_and_the_dark() {
    let console = Console::start().await;
    let all = mismatches(&console, 4).await;
    for (look, dress) in [
        (Look::default(), "light"),
        (Look { is_dark: true, ..Look::default() }, "dark"),
        (Look { is_phone: true, ..Look::default() }, "phone"),
    ] {
        let browser = Browser::open(look).await;
        browser.go(&format!("{}/login?next=%2F", console.base)).await;
        browser.fill("#token", ADA).await;
        browser.press("button").await;
        browser.until(".who", "ada").await;
        let letter = format!("/dead-letters/{}", all[0].1);
        for (name, path) in [
            ("amend", "/amend?reason=amount_mismatch"),
            ("amend-none", "/amend?payment=pi_nobody"),
            ("amend-letters", "/dead-letters?reason=amount_mismatch"),
            ("amend-letter", &letter),
        ] {
            browser.go(&format!("{}{path}", console.base)).await;
            browser.until("footer", "UTC").await;
            let width = "Promise.resolve(document.documentElement.scrollWidth - window.innerWidth)";
            assert_eq!(browser.run(width).await, Value::from(0), "{path} sticks out sideways");
            browser.picture(&format!("console-{name}-{dress}")).await;
        }
    }
}

#[tokio::test]
async fn what_is_done_is_what_was_seen() {
    let console = Console::start().await;
    let all = mismatches(&console, 3).await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    assert_eq!(ada.get("/amend?reason=unknown_payment").await.status, 400);
    let page = ada.get("/amend?reason=amount_mismatch").await;
    assert_eq!(page.status, 200, "{}", page.text);
    let fields =
        |page: &super::server::Answer| ["form_token", "selection", "seen"].map(|name| (name, page.field(name)));
    let send = async |fields: &[(&str, String)], reason: &str| {
        let mut form: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        form.push(("reason", reason));
        ada.post("/amend", &form).await
    };
    // A letter that came since is not meant; one that is archived since makes it another question.
    let later = console.world.order(OrderSpec { amount_minor: 2999, ..OrderSpec::paid_by("pi_later") }).await;
    let event = event_for("pi_later", "evt_later", captured(1999));
    console.letter(&event, Reason::AmountMismatch, "later").await;
    let archive = json!({"ids": [all[0].1], "reason": "x"});
    assert_eq!(ada.call(Method::POST, "/v1/dead-letters/archive", ADA, Some(archive)).await.status, 200);
    assert_eq!(send(&fields(&page), "tax").await.status, 409);
    assert_eq!(amended(&console).await, 0, "nothing was changed");

    let page = ada.get("/amend?reason=amount_mismatch&payment=pi_1").await;
    assert_eq!(send(&fields(&page), " ").await.status, 400, "without a reason");
    let mut forged = fields(&page);
    forged[0].1 = "x".to_owned();
    assert_eq!(send(&forged, "tax").await.status, 403, "a form of somebody else's");
    let done = send(&fields(&page), "tax").await;
    assert_eq!(done.status, 303, "{}", done.text);
    assert!(
        done.header("location").starts_with("/replay?reason=amount_mismatch&payment=pi_1"),
        "{}",
        done.header("location")
    );
    assert_eq!(amended(&console).await, 1);
    // The same form again: what was seen is not so any more.
    assert_eq!(send(&fields(&page), "tax").await.status, 409);
    let of_later = format!("SELECT amount_minor FROM orders WHERE id = '{later}'");
    assert_eq!(console.world.count(&of_later).await, 2999);
}

#[tokio::test]
async fn programs_amend_by_the_same_words() {
    let console = Console::start().await;
    mismatches(&console, 3).await;
    let (visitor, contract) = (Visitor::new(&console.base), Contract::of_ops());
    let post = async |path: &str, body: Value| {
        let answer = visitor.call(Method::POST, path, ADA, Some(body)).await;
        contract.hold(&Method::POST, path, (answer.status, answer.header("content-type"), &answer.text));
        answer
    };
    let (look, act) = ("/v1/dead-letters/amend/preview", "/v1/dead-letters/amend");
    let seen = post(look, json!({"filter": {}})).await.json();
    assert_eq!((&seen["would_amend"], &seen["stays"], &seen["is_cut"]), (&json!(2), &json!(1), &json!(false)));
    for body in [
        json!({"reason": "x"}),
        json!({"reason": " ", "filter": {}}),
        json!({"reason": "x", "filter": {"reason": "unknown_payment"}}),
        json!({"reason": "x", "filter": {}, "sen": "x"}),
    ] {
        let answer = post(act, body.clone()).await;
        assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.text);
    }
    let other = post(act, json!({"reason": "x", "filter": {}, "seen": "0"})).await;
    assert_eq!((other.status, amended(&console).await), (409, 0), "{}", other.text);
    let done = post(act, json!({"reason": "tax", "filter": {}, "seen": seen["seen"]})).await.json();
    assert_eq!((&done["amended"], &done["stays"]), (&json!(2), &json!(1)), "{done}");
    assert_eq!(amended(&console).await, 2);
    let again = post(act, json!({"reason": "tax", "filter": {}})).await.json();
    assert_eq!((&again["amended"], &again["stays"]), (&json!(0), &json!(3)), "{again}");
    assert_eq!(visitor.call(Method::POST, act, "", Some(json!({"reason": "x", "filter": {}}))).await.status, 401);
}
