//! Whatever is in a letter shows as text, and nowhere does anything else.

use super::server::{ADA, Console, Visitor, letter_of};
use crate::support::{captured, event_for};
use grantonce::domain::Reason;
use grantonce_testkit::browser::{Browser, Look};
use serde_json::{Value, json};
use time::OffsetDateTime;

/// Markup, quotes of both kinds, what turns writing around, control characters.
const NASTY: &str = "</code></td><script>document.title='pwned'</script>\
                     <img src=x onerror=\"document.title='pwned'\">\"'`&lt;\u{202e}\u{2066}\u{1b}[31m\u{200b}";

#[tokio::test]
async fn every_field_of_a_letter_shows_as_text() {
    let console = Console::start().await;
    let mut letter = letter_of(&event_for("pi_1", "evt_1", captured(1999)), Reason::Malformed, NASTY);
    let id = letter.id;
    letter.message_id = NASTY.to_owned();
    letter.kind = NASTY.to_owned();
    letter.routing_key = NASTY.to_owned();
    letter.headers = json!({ NASTY: NASTY });
    letter.cause = NASTY.to_owned();
    letter.content.words = Some(NASTY.to_owned());
    letter.body = NASTY.as_bytes().to_vec();
    console.store.keep_letters(vec![letter], OffsetDateTime::now_utc()).await.unwrap();
    // What Postgres has is not believed either.
    let rest =
        "UPDATE dead_letters SET provider = $1, payment_id = $1, account_id = $1, state_by = $1, state_reason = $1";
    sqlx::query(rest).bind(NASTY).execute(&console.world.sql).await.unwrap();
    let audit = "INSERT INTO audit_log (at, actor, is_self_declared, action, subject, reason, before, after)
                 VALUES (now(), $1, true, $1, 'letter ' || $2, $1, to_jsonb($1::text), to_jsonb($1::text))";
    sqlx::query(audit).bind(NASTY).bind(id.to_string()).execute(&console.world.sql).await.unwrap();
    let replay =
        "INSERT INTO replays (created_at, actor, is_self_declared, reason, selection, per_s_max, state, pace, letters,
                                       busy_until, ended_at, note)
                  VALUES (now(), $1, true, $1, '{}', 1, 'stopped', 'steady', 1, now(), now(), $1)";
    sqlx::query(replay).bind(NASTY).execute(&console.world.sql).await.unwrap();
    let member = "INSERT INTO replay_letters (replay_id, position, letter_id, number, state)
                  SELECT 1, 1, id, 1, 'dead_again' FROM dead_letters";
    console.world.execute(member).await;

    let ada = Visitor::logged_in(&console.base, ADA).await;
    let encoded: String = NASTY.bytes().map(|byte| format!("%{byte:02X}")).collect();
    let letter = format!("/dead-letters/{id}");
    let filtered = format!("/dead-letters?cause={encoded}&text={encoded}&provider={encoded}&state=any");
    let story = format!("/explain/{encoded}");
    let asked = format!("/archive?id={id}");
    let lost = format!("/no/such/{encoded}");
    let misspelt = format!("/dead-letters?{encoded}=1");
    let acts = format!("/audit?actor={encoded}");
    let login = format!("/login?next={encoded}");
    let pages = [
        "/",
        "/dead-letters",
        &letter,
        &filtered,
        &asked,
        "/replay",
        "/replays",
        "/replays/1",
        "/audit",
        "/audit/1",
        &acts,
        &story,
        &lost,
        &misspelt,
        &login,
    ];
    for path in pages {
        let page = ada.get(path).await;
        for never in ["<script>doc", "<img src=x", "onerror=\"", "\u{202e}", "\u{1b}"] {
            // A field's value keeps what it was given, between its quotation marks.
            let text = page.text.replace(&field_of(NASTY), "");
            assert!(!text.contains(never), "{path} has {never:?}");
        }
    }
    let page = ada.get(&letter).await;
    assert!(page.text.contains("&lt;script&gt;document.title=&#39;pwned&#39;&lt;/script&gt;"), "{}", page.text);
    assert!(page.text.contains("[U+202E][U+2066][U+001B][31m[U+200B]"), "{}", page.text);
    // The group's address leads to its letters.
    assert_eq!(ada.get(&filtered).await.text.matches(&format!("value=\"{id}\"")).count(), 1);
    // As it came, and as nothing that a browser would show.
    let body = ada.get(&format!("{letter}/body")).await;
    assert_eq!(body.text, NASTY);
    assert_eq!(body.header("content-type"), "application/octet-stream");
    assert!(body.header("content-disposition").starts_with("attachment; "));

    let browser = Browser::open(Look::default()).await;
    browser.go(&format!("{}{letter}", console.base)).await;
    browser.fill("#token", ADA).await;
    browser.press("button").await;
    for path in [letter.as_str(), "/dead-letters", &filtered, "/replays/1", "/audit/1", &story] {
        browser.go(&format!("{}{path}", console.base)).await;
        browser.until("footer", "UTC").await;
        let title = browser.run("Promise.resolve(document.title)").await;
        assert_ne!(title, Value::from("pwned"), "{path}");
        let scripts = browser.run("Promise.resolve(document.querySelectorAll('script, img').length)").await;
        assert_eq!(scripts, Value::from(2), "{path}: the console's own script and icon");
        browser.picture("console-nasty").await;
    }
}

fn field_of(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;").replace('\'', "&#39;")
}

#[tokio::test]
async fn bodies_are_shown_as_what_they_are_and_never_too_long() {
    let console = Console::start().await;
    let ada = Visitor::logged_in(&console.base, ADA).await;
    for (body, shown) in [
        (b"{\"a\":[1,{\"b\":1e400}]}".to_vec(), "{\n  &quot;a&quot;: [\n    1,\n    {\n      &quot;b&quot;: 1e400"),
        (b"\xff\xfe\x00Az".to_vec(), "000000  ff fe 00 41 7a"),
        (vec![b'x'; 256 * 1024], "Only its beginning is shown."),
        (vec![b'['; 256 * 1024], "Only its beginning is shown."),
        (vec![], "text, 0 bytes."),
    ] {
        let mut letter =
            letter_of(&event_for("pi_1", "evt_1", captured(1999)), Reason::Malformed, "the body is no JSON");
        (letter.body_bytes, letter.body) = (body.len(), body.clone());
        let id = letter.id;
        console.store.keep_letters(vec![letter], OffsetDateTime::now_utc()).await.unwrap();
        let page = ada.get(&format!("/dead-letters/{id}")).await;
        assert_eq!(page.status, 200);
        assert!(page.text.contains(shown) && page.text.len() < 300_000, "{}", page.text.get(..2_000).unwrap());
    }
    // Emptied since.
    console.world.execute("UPDATE dead_letters SET body = NULL").await;
    let page = ada.get("/dead-letters").await;
    let id = page.text.split("/dead-letters/").nth(1).unwrap().get(..36).unwrap();
    let page = ada.get(&format!("/dead-letters/{id}")).await;
    assert!(page.text.contains("It was emptied.") && page.text.contains("it cannot be replayed"), "{}", page.text);
    assert_eq!(ada.get(&format!("/dead-letters/{id}/body")).await.status, 404);
}
