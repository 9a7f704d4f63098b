//! Alarms of the broker. If it is short of memory or disk, it stops reading from every connection that publishes.

use crate::domain::tidy;
use futures_util::StreamExt as _;
use lapin::{Connection, Event};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How much of the broker's reason is kept, in bytes.
const REASON_BYTES_MAX: usize = 100;

/// The first alarm in the life of a connection. The broker reports it only to a connection that has tried to publish
/// since the alarm began.
#[derive(Debug)]
pub(super) struct Alarm {
    has_come: CancellationToken,
    reason: watch::Receiver<Option<String>>,
}

impl Alarm {
    /// Watches the connection until the connection or the watcher is gone.
    pub(super) fn watch(connection: &Connection) -> Self {
        let (tell, reason) = watch::channel(None);
        let has_come = CancellationToken::new();
        let (came, mut events) = (has_come.clone(), Box::pin(connection.events_listener()));
        tokio::spawn(async move {
            loop {
                let event = tokio::select! {
                    () = tell.closed() => return,
                    event = events.next() => event,
                };
                match event {
                    Some(Event::ConnectionBlocked(reason)) => {
                        let reason = name(&reason);
                        tracing::error!(event = "publishing_blocked", reason, "RabbitMQ takes no messages");
                        tell.send_replace(Some(reason));
                        came.cancel();
                    }
                    Some(Event::ConnectionUnblocked) => {
                        tracing::info!(event = "publishing_unblocked", "RabbitMQ takes messages again");
                        tell.send_replace(None);
                    }
                    Some(_) => {}
                    None => return,
                }
            }
        });
        Self { has_come, reason }
    }

    /// Whether there was an alarm. It may be over.
    pub(super) fn has_come(&self) -> bool {
        self.has_come.is_cancelled()
    }

    /// Waits for an answer until the alarm comes. Then there is no answer.
    pub(super) async fn cuts_short<T>(&self, answer: impl Future<Output = T>) -> Option<T> {
        self.has_come.run_until_cancelled(answer).await
    }

    /// Why publishing is blocked, now and after each change. `None` while it is not blocked.
    pub(super) fn reason(&self) -> watch::Receiver<Option<String>> {
        self.reason.clone()
    }
}

/// The broker's "low on memory" in the words of its documentation. For people only.
fn name(reason: &str) -> String {
    match (reason.contains("memory"), reason.contains("disk")) {
        (true, true) => "memory and disk alarm".to_owned(),
        (true, false) => "memory alarm".to_owned(),
        (false, true) => "disk alarm".to_owned(),
        (false, false) => tidy(reason, REASON_BYTES_MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_alarm_has_the_name_that_operators_look_for() {
        for (reason, named) in [
            ("low on memory", "memory alarm"),
            ("low on disk", "disk alarm"),
            ("low on memory & disk", "memory and disk alarm"),
            ("low on\npatience", "low on patience"),
        ] {
            assert_eq!(name(reason), named);
        }
        assert_eq!(name(&"x".repeat(1_000)).len(), REASON_BYTES_MAX);
    }
}
