//! The needs of roles in `/readyz` and in the metrics.

use super::*;
use crate::role::Role;
use crate::telemetry::{Dependency, Metrics};
use time::format_description::well_known::Rfc3339;

#[tokio::test]
async fn a_process_is_ready_when_every_role_has_every_need() {
    let (readiness, metrics) = (Readiness::new(), Metrics::new());
    let router = metrics_router(readiness.clone(), "application/openmetrics-text", || "page".to_owned());
    let server = Server::start(router, Limits::default()).await;
    assert_eq!(server.ask(&get_line("/healthz")).await.status, 200);
    assert_eq!(server.ask(&get_line("/readyz")).await.status, 200, "nothing is needed");
    let flags: Vec<_> = [Role::Api, Role::Worker]
        .into_iter()
        .flat_map(|role| role.needs().iter().map(move |need| (role, *need)))
        .map(|(role, need)| (role, need, readiness.of(role, &metrics).flag(need)))
        .collect();
    let answer = server.ask(&get_line("/readyz")).await;
    assert_eq!((answer.status, &answer.json()["missing"]), (503, &serde_json::json!(["postgres", "rabbitmq"])));
    assert_eq!(
        answer.json()["details"].as_array().unwrap().len(),
        flags.len(),
        "a need that was not checked is missing"
    );
    flags.iter().for_each(|(_, _, flag)| flag.met());
    let answer = server.ask(&get_line("/readyz")).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json(), serde_json::json!({"status": "ready", "missing": []}));

    // Each need alone is missing. The same need of another role does not hide it.
    for (role, need, flag) in &flags {
        flag.missing("because of amqp://user:secret@host/v and postgres://x\nso");
        let answer = server.ask(&get_line("/readyz")).await;
        let (status, body) = (answer.status, answer.json());
        assert_eq!((status, &body["status"]), (503, &serde_json::json!("not_ready")), "{role:?} {need:?}");
        assert_eq!(body["missing"], serde_json::json!([need.dependency().name()]));
        let [detail] = &body["details"].as_array().unwrap()[..] else { panic!("{body}") };
        assert_eq!((&detail["role"], &detail["need"]), (&role.name().into(), &need.name().into()));
        assert_eq!(detail["cause"], "because of … and … so", "the cause shows no address and no secret");
        assert!(detail["for_s"].as_u64().unwrap() < 60);
        let since = time::OffsetDateTime::parse(detail["since"].as_str().unwrap(), &Rfc3339).unwrap();
        assert!((time::OffsetDateTime::now_utc() - since).whole_seconds().abs() < 60);
        let page = metrics.render();
        let labels = format!("role=\"{}\",need=\"{}\"", role.name(), need.name());
        for line in [
            format!("grantonce_ready{{role=\"{}\"}} 0", role.name()),
            format!("grantonce_need_up{{{labels}}} 0"),
            format!("grantonce_need_changed_timestamp_seconds{{{labels}}} {}", since.unix_timestamp()),
            format!("grantonce_dependency_up{{dependency=\"{}\"}} 0", need.dependency().name()),
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        // Another cause does not change the beginning. A need that fails because of another server names that server.
        flag.missing_for_want_of(Dependency::Rabbitmq, "x".repeat(1_000));
        let again = server.ask(&get_line("/readyz")).await.json();
        assert_eq!(
            (&again["missing"], &again["details"][0]["since"]),
            (&serde_json::json!(["rabbitmq"]), &detail["since"])
        );
        assert_eq!(again["details"][0]["cause"].as_str().unwrap().len(), 200);
        flag.met();
        assert_eq!(server.ask(&get_line("/readyz")).await.status, 200);
    }
    let page = metrics.render();
    assert!(page.contains("grantonce_ready{role=\"api\"} 1") && page.contains("grantonce_ready{role=\"worker\"} 1"));
    let answer = server.ask(&get_line("/metrics")).await;
    assert!(answer.body == "page" && answer.head.contains("content-type: application/openmetrics-text\r\n"));
}
