//! The console as JSON: what programs call, held against its contract.

use super::server::{ADA, Answer, BOB, Console, Visitor};
use crate::api::contract::Contract;
use crate::support::{captured, event_for, eventually};
use grantonce::domain::Reason;
use reqwest::Method;
use serde_json::{Value, json};

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
async fn letters_are_listed_by_the_same_words_as_on_the_pages() {
    let console = Console::start().await;
    let ids = console.ten_unknown().await;
    let caller = Caller::new(&console);
    let first = caller.get("/v1/dead-letters?reason=unknown_payment&limit=4").await.json();
    assert_eq!(first["letters"].as_array().unwrap().len(), 4);
    assert_eq!(first["letters"][0]["id"], json!(ids[9]));
    let mut seen = 4;
    let mut next = first["next"].as_str().map(str::to_owned);
    while let Some(after) = next {
        let page = caller.get(&format!("/v1/dead-letters?reason=unknown_payment&limit=4&after={after}")).await.json();
        seen += page["letters"].as_array().unwrap().len();
        next = page["next"].as_str().map(str::to_owned);
    }
    assert_eq!(seen, 10, "each once");
    let groups = caller.get("/v1/dead-letters/groups").await.json();
    assert_eq!((&groups["groups"][0]["letters"], groups["groups"].as_array().unwrap().len()), (&json!(10), 1));
    let letter = caller.get(&format!("/v1/dead-letters/{}", ids[0])).await.json();
    assert_eq!((letter["verdict"].as_str(), letter["account_id"].as_str()), (Some("would_grant"), Some("acc")));
    assert!(letter["body_text"].as_str().unwrap().contains("pi_0"));
    assert_eq!(letter["body_base64"], Value::Null);

    let story = caller.get("/v1/explain/pi_3").await.json();
    assert_eq!((&story["subject"]["kind"], &story["summary"]["needs_attention"]), (&json!("payment"), &json!(true)));
    assert_eq!(caller.get("/v1/explain/stripe::evt_0").await.json()["subject"]["id"], json!("stripe::evt_0"));

    for (path, status) in [
        ("/v1/explain/pi_nobody_has", 404),
        ("/v1/dead-letters?reasn=x", 400),
        ("/v1/dead-letters?reason=x", 400),
        ("/v1/dead-letters?limit=501", 400),
        ("/v1/dead-letters?after=x", 400),
        ("/v1/dead-letters/x", 404),
        ("/v1/dead-letters/5d1c9d4e-8f2a-8c3b-9e44-0a1b2c3d4e5f", 404),
        ("/v1/replays/7", 404),
        ("/v1/replays/x", 404),
        ("/v1/nothing", 404),
    ] {
        let answer = caller.get(path).await;
        assert_eq!((answer.status, answer.header("content-type")), (status, "application/problem+json"), "{path}");
    }
}

#[tokio::test]
async fn a_replay_is_weighed_begun_watched_and_ended() {
    let console = Console::start().await;
    let worker = console.world.start_worker();
    let ids = console.ten_unknown().await;
    let caller = Caller::new(&console);
    let preview =
        caller.post("/v1/dead-letters/preview", json!({"filter": {"reason": "unknown_payment"}})).await.json();
    assert_eq!((&preview["letters"], &preview["helpful"], &preview["credits"]), (&json!(10), &json!(1), &json!(100)));
    assert_eq!(preview["by_verdict"], json!({"would_grant": 1, "order_unknown": 9}));

    let refused = |field: &str, body: Value| (field.to_owned(), body);
    for (field, body) in [
        refused("filter", json!({"reason": "x"})),
        refused("filter", json!({"reason": "x", "filter": {}, "ids": [ids[0]]})),
        refused("ids", json!({"reason": "x", "ids": []})),
        refused("per_s", json!({"reason": "x", "filter": {}, "per_s": 501})),
        refused("reason", json!({"reason": " ", "filter": {}})),
        refused("filter.reasn", json!({"reason": "x", "filter": {"reasn": "malformed"}})),
    ] {
        let answer = caller.post("/v1/dead-letters/replay", body.clone()).await;
        assert!(matches!(answer.status, 400 | 422), "{body}: {}", answer.text);
        assert_eq!(answer.json()["fields"][0]["field"], json!(field), "{body}");
    }
    assert_eq!(console.world.count("SELECT count(*) FROM replays").await, 0);

    let hopeless = json!({"ids": [ids[1]], "reason": "to see"});
    assert_eq!(caller.post("/v1/dead-letters/replay", hopeless).await.status, 409);
    let wish = json!({"filter": {"reason": "unknown_payment"}, "reason": "ordered since", "per_s": 5});
    let begun = caller.post("/v1/dead-letters/replay", wish).await;
    assert_eq!((begun.status, &begun.json()["letters"]), (201, &json!(1)), "{}", begun.text);
    let place = begun.header("location").to_owned();
    eventually("it has ended", async || caller.get(&place).await.json()["ended_at"] != Value::Null).await;
    let replay = caller.get(&place).await.json();
    assert_eq!((&replay["state"], &replay["counts"]["resolved"]), (&json!("finished"), &json!(1)));
    assert_eq!((&replay["actor"], &replay["is_self_declared"]), (&json!("ada"), &json!(false)));
    assert_eq!(console.world.grants().await, 1);
    assert_eq!(caller.get("/v1/replays").await.json()["replays"].as_array().unwrap().len(), 1);
    // One that takes its time, and is ended.
    let slow = json!({"filter": {}, "reason": "slowly", "per_s": 1, "canary": false, "include_hopeless": true});
    let place = caller.post("/v1/dead-letters/replay", slow).await.header("location").to_owned();
    let cancel = format!("{place}/cancel");
    assert_eq!(caller.post(&cancel, json!({"reason": "enough"})).await.json()["is_canceled"], json!(true));
    assert_eq!(caller.post(&cancel, json!({"reason": "enough"})).await.json()["is_canceled"], json!(false));
    console.world.settled(worker).await;
}

#[tokio::test]
async fn archiving_and_restoring_name_who_did_it() {
    let console = Console::start().await;
    let ids = console.ten_unknown().await;
    let caller = Caller::new(&console);
    let done =
        caller.post("/v1/dead-letters/archive", json!({"ids": ids[1..4], "reason": "another shop's"})).await.json();
    assert_eq!(done["letters"], json!(3));
    assert!(done["audit_id"].is_i64());
    let again = caller.post("/v1/dead-letters/archive", json!({"ids": ids[1..4], "reason": "once more"})).await.json();
    assert_eq!((&again["letters"], &again["audit_id"]), (&json!(0), &Value::Null));
    let done = caller.post("/v1/dead-letters/restore", json!({"filter": {}, "reason": "no, ours"})).await.json();
    assert_eq!(done["letters"], json!(3));
    let by = Visitor::logged_in(&console.base, BOB).await.get("/audit").await;
    assert!(by.text.contains("letters.archive") && by.text.contains("letters.restore") && by.text.contains("ada"));
}

/// A letter that is archived after it was chosen for a restore, by somebody else and for another reason, stays where it
/// is.
#[tokio::test]
async fn an_undo_takes_back_what_was_done_and_nothing_else() {
    let console = Console::start().await;
    let ids = console.ten_unknown().await;
    let caller = Caller::new(&console);
    caller.post("/v1/dead-letters/archive", json!({"ids": [ids[9]], "reason": "long ago"})).await;
    let filter = json!({"filter": {"reason": "unknown_payment"}, "reason": "all of them"});
    let done = caller.post("/v1/dead-letters/archive", filter).await.json();
    assert_eq!(done["letters"], json!(9));
    let ada = Visitor::logged_in(&console.base, ADA).await;
    let page = ada.get(&format!("/audit/{}", done["audit_id"])).await;
    let form =
        [("form_token", page.field("form_token")), ("of_act", page.field("of_act")), ("reason", "no".to_owned())];
    let form: Vec<(&str, &str)> = form.iter().map(|(name, value)| (*name, value.as_str())).collect();
    assert_eq!(ada.post("/restore", &form).await.status, 303);
    assert_eq!(console.world.count("SELECT count(*) FROM dead_letters WHERE state = 'open'").await, 9);
    assert_eq!(ada.post("/restore", &form).await.status, 409, "there is nothing left to be taken back");
}

#[tokio::test]
async fn every_path_of_the_contract_is_served_and_the_other_way_round() {
    let console = Console::start().await;
    let letter = console.letter(&event_for("pi_1", "evt_1", captured(1999)), Reason::UnknownPayment, "no order").await;
    let caller = Caller::new(&console);
    let served = caller.get("/openapi.json").await.json();
    let written: Value = serde_json::from_str(include_str!("../../../contract/openapi-ops.json")).unwrap();
    assert_eq!(served, written);
    for (path, method) in caller.contract.operations() {
        let place = path.replace("dead-letters/{id}", &format!("dead-letters/{letter}")).replace("{id}", "1");
        let method = Method::from_bytes(method.to_ascii_uppercase().as_bytes()).unwrap();
        let answer = caller.visitor.call(method.clone(), &place, ADA, Some(json!({}))).await;
        assert!(!answer.text.contains("there is nothing at this path") && answer.status != 405, "{method} {path}");
        let other = if method == Method::GET { Method::POST } else { Method::DELETE };
        if !path.contains("{id}") || method == Method::POST {
            assert_eq!(caller.visitor.call(other.clone(), &place, ADA, None).await.status, 405, "{other} {path}");
        }
    }
    let source = include_str!("../../../src/ops/console/v1.rs");
    let routes = source.split("fn routes()").nth(1).unwrap().split("\n}").next().unwrap();
    let paths: Vec<&str> =
        routes.lines().filter_map(|line| line.trim().strip_prefix("(\"")?.split('"').next()).collect();
    assert!(paths.len() > 10, "{paths:?}");
    for path in paths.into_iter().map(|path| path.replace("{*id}", "{id}")) {
        assert!(written["paths"].get(&path).is_some(), "{path} is served and not told");
    }
}
