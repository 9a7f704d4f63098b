use super::*;

#[track_caller]
fn has(metrics: &Metrics, line: &str) {
    let page = metrics.render();
    assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
}

#[test]
fn each_happening_is_one_line() {
    let metrics = Metrics::new();
    metrics.webhook(WebhookEndpoint::Stripe, WebhookOutcome::TestEventDropped);
    metrics.webhook_ignored(WebhookEndpoint::Adyen, IgnoredWhy::RequestFailed);
    metrics.messages(MessageOutcome::Duplicate, 3);
    metrics.message(MessageOutcome::PutOff);
    metrics.grants(2);
    metrics.dead_lettered(Reason::AmountMismatch);
    metrics.batch(120, Duration::from_millis(30));
    metrics.given_back(GivenBack::DatabaseOutage, 250);
    metrics.dependency(Dependency::Postgres, true);
    metrics.dependency(Dependency::Rabbitmq, false);
    metrics.http_request(ListenerName::Api, "/v1/orders/{id}", 404);
    metrics.queue_wait(Duration::from_secs(4));
    metrics.published(PublishDestination::PaymentsHints, Duration::from_millis(60));
    metrics.inbox_maintenance(InboxMaintenance::Failed);
    metrics.letters_collected(7);
    metrics.replays(ReplayOutcome::DeadAgain, 1);
    for line in [
        "grantonce_webhooks_total{endpoint=\"stripe\",outcome=\"test_event_dropped\"} 1",
        "grantonce_webhooks_ignored_total{endpoint=\"adyen\",why=\"request_failed\"} 1",
        "grantonce_messages_total{outcome=\"duplicate\"} 3",
        "grantonce_messages_total{outcome=\"put_off\"} 1",
        "grantonce_inbox_duplicates_total 3",
        "grantonce_grants_total 2",
        "grantonce_dead_lettered_total{reason=\"amount_mismatch\"} 1",
        "grantonce_batch_messages_bucket{le=\"100.0\"} 0",
        "grantonce_batch_messages_bucket{le=\"250.0\"} 1",
        "grantonce_batch_seconds_bucket{le=\"0.05\"} 1",
        "grantonce_batch_seconds_count 1",
        "grantonce_deliveries_given_back_total{cause=\"database_outage\"} 250",
        "grantonce_dependency_up{dependency=\"postgres\"} 1",
        "grantonce_dependency_up{dependency=\"rabbitmq\"} 0",
        "grantonce_http_requests_total{listener=\"api\",route=\"/v1/orders/{id}\",status_class=\"4xx\"} 1",
        "grantonce_queue_wait_seconds_bucket{le=\"2.0\"} 0",
        "grantonce_queue_wait_seconds_bucket{le=\"5.0\"} 1",
        "messaging_client_operation_duration_seconds_bucket{le=\"0.075\",messaging_system=\"rabbitmq\",\
         messaging_operation_name=\"publish\",messaging_destination_name=\"payments.hints\"} 1",
        "grantonce_inbox_maintenance_total{outcome=\"failed\"} 1",
        "grantonce_letters_collected_total 7",
        "grantonce_replays_total{outcome=\"dead_again\"} 1",
        "# EOF",
    ] {
        has(&metrics, line);
    }
}

#[test]
fn every_series_is_there_before_anything_happened() {
    let page = Metrics::new().render();
    let zeros = |name: &str| page.lines().filter(|l| l.starts_with(name) && l.ends_with(" 0")).count();
    assert_eq!(zeros("grantonce_webhooks_total{"), 4 * 8);
    assert_eq!(zeros("grantonce_webhooks_ignored_total{"), 4 * IgnoredWhy::ALL.len());
    assert_eq!(zeros("grantonce_messages_total{"), 6);
    assert_eq!(zeros("grantonce_dead_lettered_total{"), Reason::ALL.len());
    assert_eq!(zeros("grantonce_provider_looks_total{"), 2 * 4);
    assert_eq!(zeros("grantonce_hints_total{"), 2);
    assert_eq!(zeros("grantonce_deliveries_given_back_total{"), 6);
    assert!(!page.contains("grantonce_dependency_up"), "a role that needs no Postgres does not call it down");
    assert_eq!(zeros("grantonce_replays_total{"), 4);
    assert_eq!(zeros("grantonce_inbox_maintenance_total{"), 2);
    assert_eq!(zeros("messaging_client_operation_duration_seconds_count{"), 4);
}

#[test]
fn a_guard_counts_while_it_lives() {
    let metrics = Metrics::new();
    let one = metrics.publish_in_flight();
    let two = metrics.clone().publish_in_flight();
    has(&metrics, "grantonce_publishes_in_flight 2");
    drop((one, two));
    has(&metrics, "grantonce_publishes_in_flight 0");
    let poll = metrics.long_poll();
    has(&metrics, "grantonce_long_polls 1");
    drop(poll);
    has(&metrics, "grantonce_long_polls 0");
}

#[test]
fn what_was_not_measured_is_not_claimed() {
    const MEASURED: [&str; 5] = [
        "grantonce_dead_letters_open",
        "grantonce_oldest_dead_letter_age_seconds",
        "grantonce_grants_missing",
        "grantonce_queue_messages",
        "grantonce_queue_consumers",
    ];
    let metrics = Metrics::new();
    let named = |metrics: &Metrics| {
        let page = metrics.render();
        MEASURED.into_iter().filter(|name| page.contains(name)).collect::<Vec<_>>()
    };
    assert_eq!(named(&metrics), [""; 0], "nothing is measured yet");

    metrics.dead_letters(&[(Reason::AmountMismatch, 3)], Some(Duration::from_secs(90)));
    metrics.grants_missing(2);
    metrics.queue(QueueName::FulfilmentDead, 4, 0);
    for line in [
        "grantonce_dead_letters_open{reason=\"amount_mismatch\"} 3",
        "grantonce_dead_letters_open{reason=\"untranslatable\"} 0",
        "grantonce_oldest_dead_letter_age_seconds 90.0",
        "grantonce_grants_missing 2.0",
        "grantonce_queue_messages{queue=\"fulfilment.dead\"} 4",
        "grantonce_queue_consumers{queue=\"fulfilment.dead\"} 0",
    ] {
        has(&metrics, line);
    }
    assert!(!metrics.render().contains("queue=\"fulfilment\""), "one queue's length says nothing of another's");

    metrics.dead_letters(&[], None);
    has(&metrics, "grantonce_dead_letters_open{reason=\"amount_mismatch\"} 0");
    has(&metrics, "grantonce_oldest_dead_letter_age_seconds 0.0");

    metrics.ledger_unknown();
    assert_eq!(named(&metrics), ["grantonce_queue_messages", "grantonce_queue_consumers"]);
    metrics.queues_unknown();
    assert_eq!(named(&metrics), [""; 0]);
}
