//! What operators are given: alerts, runbook, dashboard and the page about metrics, against the metrics that there are.

use crate::readme::{anchor, anchors};
use grantonce::domain::{Provider, Reason};
use grantonce::http::Readiness;
use grantonce::role::Role;
use grantonce::telemetry::{ListenerName, LookOutcome, Metrics, QueueName, WebhookEndpoint, WebhookOutcome};
use regex::Regex;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const ALERTS: &str = include_str!("../../deploy/prometheus/alerts.yml");
const ALERT_TESTS: [&str; 2] = [
    include_str!("../../deploy/prometheus/alerts_test.yml"),
    include_str!("../../deploy/prometheus/alerts_long_test.yml"),
];
const DASHBOARD: &str = include_str!("../../deploy/grafana/grantonce.json");
const RUNBOOK: &str = include_str!("../../docs/runbook.md");
const PAGE: &str = include_str!("../../docs/metrics.md");

/// Labels that Prometheus itself gives.
const SCRAPE_LABELS: [&str; 2] = ["job", "instance"];

/// Series by name, as Prometheus knows them, with the values of each of their labels.
type Series = BTreeMap<String, BTreeMap<String, BTreeSet<String>>>;

/// The page of a process that has seen and measured everything.
fn page() -> String {
    let metrics = Metrics::new();
    metrics.webhook(WebhookEndpoint::Stripe, WebhookOutcome::Accepted);
    metrics.look(&Provider::STRIPE, LookOutcome::Heard);
    metrics.dead_letters(&[(Reason::Malformed, 1)], Some(Duration::from_secs(1)));
    metrics.grants_missing(0);
    metrics.overpaid_orders(0);
    metrics.secret_file_refused("DATABASE_URL", 1);
    metrics.secret_files_read(time::OffsetDateTime::UNIX_EPOCH);
    for queue in QueueName::ALL {
        metrics.queue(queue, 0, 1);
    }
    let readiness = Readiness::new();
    for role in Role::ALL.into_iter().filter(|role| !role.needs().is_empty()) {
        readiness.of(role, &metrics);
    }
    for listener in ListenerName::ALL {
        for status in [200, 404, 503] {
            metrics.http_request(listener, "/v1/orders", status);
        }
    }
    metrics.render()
}

fn series() -> Series {
    let label = Regex::new(r#"([a-z_]+)="([^"]*)""#).unwrap();
    let mut series = Series::from([("up".to_owned(), BTreeMap::new())]);
    for line in page().lines().filter(|line| !line.starts_with('#')) {
        let name = line.split(['{', ' ']).next().unwrap();
        let labels = series.entry(name.to_owned()).or_default();
        let labelled = line.split_once('{').map_or("", |(_, rest)| rest);
        for found in label.captures_iter(labelled) {
            labels.entry(found[1].to_owned()).or_default().insert(found[2].to_owned());
        }
    }
    series
}

/// What in a query names nothing that there is.
fn faults(query: &str, series: &Series) -> Vec<String> {
    let metric = Regex::new(r"(?-u:\b)((?:grantonce|messaging)_[a-z_]+|up)(?-u:\b)(?:\{([^}]*)\})?").unwrap();
    let matcher = Regex::new(r#"([a-z_]+) *(=~|!~|!=|=) *"([^"]*)""#).unwrap();
    let by = Regex::new(r"(?-u:\b)by \(([^)]*)\)").unwrap();
    let mut faults = vec![];
    let mut named = BTreeSet::from(SCRAPE_LABELS.map(str::to_owned));
    for found in metric.captures_iter(query) {
        let is_label = query[found.get(0).unwrap().end()..].starts_with('=');
        if is_label {
            continue;
        }
        let Some(labels) = series.get(&found[1]) else {
            faults.push(format!("there is no {}", &found[1]));
            continue;
        };
        named.extend(labels.keys().cloned());
        for of in matcher.captures_iter(found.get(2).map_or("", |selector| selector.as_str())) {
            let (label, operator, value) = (&of[1], &of[2], &of[3]);
            if SCRAPE_LABELS.contains(&label) {
                continue;
            }
            let Some(values) = labels.get(label) else {
                faults.push(format!("{} has no label {label}", &found[1]));
                continue;
            };
            let wanted: Vec<_> = if operator.ends_with('~') { value.split('|').collect() } else { vec![value] };
            for value in wanted.into_iter().filter(|value| !values.contains(*value)) {
                faults.push(format!("{label} of {} is never {value}", &found[1]));
            }
        }
    }
    for found in by.captures_iter(query) {
        for label in found[1].split(',').map(str::trim).filter(|label| !named.contains(*label)) {
            faults.push(format!("nothing in it has the label {label}: {query}"));
        }
    }
    faults
}

/// Alerts in their order: name and text.
fn alerts() -> Vec<(&'static str, &'static str)> {
    ALERTS.split("      - alert: ").skip(1).map(|text| text.split_once('\n').unwrap()).collect()
}

fn key<'a>(alert: &'a str, name: &str) -> Option<&'a str> {
    alert.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(": "))
}

fn promtool(args: &[&str]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/prometheus");
    let done = Command::new("promtool").args(args).current_dir(folder).output();
    let done = done.expect("promtool is missing (package prometheus): ./dev test installs it");
    let said = [done.stdout, done.stderr].map(|said| String::from_utf8_lossy(&said).into_owned()).concat();
    assert!(done.status.success(), "promtool {args:?}\n{said}");
}

#[test]
fn prometheus_takes_the_alerts_and_each_fires_when_it_should_and_only_then() {
    promtool(&["check", "config", "prometheus.yml"]);
    promtool(&["check", "rules", "alerts.yml"]);
    promtool(&["test", "rules", "alerts_test.yml", "alerts_long_test.yml"]);
    let tests = ALERT_TESTS.concat();
    for (name, _) in alerts() {
        assert!(tests.contains(&format!("- name: {name} fires\n")), "no test shows that {name} fires");
        assert!(tests.contains(&format!("- name: {name} does not fire ")), "no test shows when {name} does not fire");
    }
}

#[test]
fn each_alert_says_what_to_do_and_asks_for_what_there_is() {
    let (series, sections) = (series(), anchors(RUNBOOK));
    let alerts = alerts();
    assert!(alerts.len() > 20, "{alerts:?}");
    for (name, text) in &alerts {
        let found = faults(text.split("labels:").next().unwrap(), &series);
        assert!(found.is_empty(), "{name}: {found:?}");
        assert!(matches!(key(text, "severity"), Some("page" | "ticket")), "{name} has no severity");
        assert!(key(text, "summary").is_some() && key(text, "description").is_some(), "{name} does not say what it is");
        let runbook = key(text, "runbook_url").unwrap_or_default();
        assert_eq!(runbook, format!("docs/runbook.md#{}", anchor(name)), "{name}");
        assert!(sections.contains(&anchor(name)), "{name} has no section in docs/runbook.md");
        let section = RUNBOOK.split(&format!("\n## {name}\n")).nth(1).unwrap().split("\n## ").next().unwrap();
        for part in ["**Means.**", "**Look.**", "**Do.**", "**Over when**", "```sh\n"] {
            assert!(section.contains(part), "{name} has no {part} in docs/runbook.md");
        }
    }
    for heading in RUNBOOK.lines().filter_map(|line| line.strip_prefix("## Grantonce")) {
        let is_alert = alerts.iter().any(|(name, _)| name.strip_prefix("Grantonce") == Some(heading));
        assert!(is_alert, "docs/runbook.md has a section for Grantonce{heading}, which is no alert");
    }
}

#[test]
fn the_dashboard_is_whole_and_asks_for_what_there_is() {
    let series = series();
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    for key in ["uid", "title", "schemaVersion", "panels", "templating", "time"] {
        assert!(!dashboard[key].is_null(), "the dashboard has no {key}");
    }
    let panels = dashboard["panels"].as_array().unwrap();
    let rows: Vec<_> =
        panels.iter().filter(|panel| panel["type"] == "row").map(|row| row["title"].as_str().unwrap()).collect();
    assert_eq!(rows, ["Money", "Flow", "Queues", "Dead letters", "Dependencies", "Providers"]);
    let mut asked = String::new();
    let (mut ids, mut places) = (BTreeSet::new(), BTreeSet::new());
    for panel in panels {
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have one id: {}", panel["title"]);
        let place = &panel["gridPos"];
        let at = |name: &str| place[name].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{} is off the page", panel["title"]);
        for cell in (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y))) {
            assert!(places.insert(cell), "{} lies on another panel", panel["title"]);
        }
        if panel["type"] == "row" {
            continue;
        }
        let targets = panel["targets"].as_array().unwrap();
        assert!(!targets.is_empty() && panel["fieldConfig"]["defaults"]["unit"].is_string(), "{}", panel["title"]);
        for target in targets {
            let query = target["expr"].as_str().unwrap();
            let found = faults(query, &series);
            assert!(found.is_empty(), "{}: {found:?}", panel["title"]);
            asked.push_str(query);
        }
    }
    for name in names() {
        assert!(asked.contains(name.as_str()), "{name} is nowhere on the dashboard");
    }
}

/// The metrics' names as they are written about: counters with `_total`, histograms without a suffix.
fn names() -> BTreeSet<String> {
    let page = page();
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| if kind == "counter" { format!("{name}_total") } else { name.to_owned() }).collect()
}

#[test]
fn the_page_about_metrics_has_every_metric_with_its_labels_and_no_other() {
    let series = series();
    let row = Regex::new(r"(?m)^\| `((?:grantonce|messaging)_[a-z_]+)` \|([^|]*)\|").unwrap();
    let rows: BTreeMap<_, _> = row.captures_iter(PAGE).map(|row| (row[1].to_owned(), row[2].to_owned())).collect();
    let documented: BTreeSet<_> = rows.keys().cloned().collect();
    assert_eq!(documented, names());
    let told_values = Regex::new(r"`([a-z_]+)`: ((?:`[a-z._]+`(?:, )?)+)").unwrap();
    for (name, cell) in rows {
        let of = series.get(&name).or_else(|| series.get(&format!("{name}_bucket"))).unwrap();
        for label in of.keys().filter(|label| *label != "le") {
            assert!(
                cell.contains(&format!("`{label}`")),
                "{name} has the label {label}, which docs/metrics.md does not say"
            );
        }
        // Where values are told, it is all of them.
        for told in told_values.captures_iter(&cell) {
            let values: BTreeSet<_> =
                told[2].split(", ").map(|value| value.trim().trim_matches('`').to_owned()).collect();
            assert_eq!(Some(&values), of.get(&told[1]), "{} of {name}", &told[1]);
        }
    }
}

#[test]
fn a_query_for_what_there_is_not_is_found() {
    let series = series();
    for (query, fault) in [
        ("grantonce_grant_total > 0", "there is no grantonce_grant_total"),
        (r#"grantonce_webhooks_total{outcome="refused"}"#, "outcome of grantonce_webhooks_total is never refused"),
        (r#"grantonce_webhooks_total{status="x"}"#, "grantonce_webhooks_total has no label status"),
        (r#"grantonce_dead_letters_open{reason!~"malformed|x"}"#, "is never x"),
        ("sum by (queues) (grantonce_queue_messages)", "nothing in it has the label queues"),
    ] {
        let found = faults(query, &series);
        assert!(found.iter().any(|found| found.contains(fault)), "{query}: {found:?}");
    }
    assert_eq!(
        faults(r#"max by (queue) (grantonce_queue_messages{queue="fulfilment"}) or up{job=~"x.*"}"#, &series),
        [""; 0]
    );
}
