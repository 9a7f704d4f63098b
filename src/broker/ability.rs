//! Whether a publisher can publish now. The states of its lanes and the answers to its last messages decide.

use super::publisher::{Outgoing, PublishError};
use std::collections::BTreeMap;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How long a failed publish counts if nothing is published after it. Only the next message shows whether publishing
/// works again, and a receiver that is not ready may get none.
pub(super) const DOUBT_LASTS: Duration = Duration::from_secs(60);

/// A routing key without a binding. A message under it is returned, which shows that publishing works.
pub(super) const PROBE_KEY: &str = "grantonce.probe";

/// Whether messages can be published, and why not.
#[derive(Debug, Clone)]
pub struct Ability {
    /// For each lane: why it cannot publish, or why it is in doubt.
    lanes: Vec<Result<(), PublishError>>,
    /// The exchanges that refused their last message, and when.
    refusals: BTreeMap<&'static str, (Instant, PublishError)>,
}

impl Ability {
    /// The ability of a publisher that has not connected yet.
    pub(super) fn none(lanes: usize) -> Self {
        let not_yet = PublishError::Unavailable("not connected yet".to_owned());
        Self { lanes: vec![Err(not_yet); lanes], refusals: BTreeMap::new() }
    }

    /// Whether messages can be published, as far as anybody knows.
    pub fn check(&self) -> Result<(), &PublishError> {
        self.connected().and_then(|()| self.unblocked()).and_then(|()| self.accepted())
    }

    /// Whether there is a connection.
    pub fn connected(&self) -> Result<(), &PublishError> {
        let is_lost = |lane: &&Result<(), PublishError>| matches!(lane, Err(PublishError::Unavailable(_)));
        if self.lanes.iter().all(|lane| is_lost(&lane)) { self.first_fault() } else { Ok(()) }
    }

    /// Whether no alarm of the broker blocks publishing. An alarm blocks all lanes, so one lane that knows of it is
    /// enough.
    pub fn unblocked(&self) -> Result<(), &PublishError> {
        let blocked = self.lanes.iter().find(|lane| matches!(lane, Err(PublishError::Blocked(_))));
        blocked.map_or(Ok(()), |lane| lane.as_ref().map(|&()| ()))
    }

    /// Whether the last messages were accepted, by every exchange and by at least one lane.
    pub fn accepted(&self) -> Result<(), &PublishError> {
        self.accepted_at(Instant::now())
    }

    fn accepted_at(&self, now: Instant) -> Result<(), &PublishError> {
        if let Some((_, error)) = self.refusals.values().find(|(at, _)| now.duration_since(*at) < DOUBT_LASTS) {
            return Err(error);
        }
        let doubted = self.lanes.iter().find(|lane| match lane {
            Ok(()) | Err(PublishError::Unavailable(_) | PublishError::Blocked(_)) => false,
            Err(
                PublishError::NotConfirmed(_)
                | PublishError::ChannelClosed(_)
                | PublishError::Overloaded
                | PublishError::Refused
                | PublishError::Unroutable { .. }
                | PublishError::TooLong(_),
            ) => true,
        });
        match doubted {
            Some(Err(error)) if !self.lanes.iter().any(Result::is_ok) => Err(error),
            Some(_) | None => Ok(()),
        }
    }

    /// Whether this lane is preferred.
    pub(super) fn is_able(&self, lane: usize) -> bool {
        self.lanes.get(lane).is_some_and(Result::is_ok)
    }

    fn first_fault(&self) -> Result<(), &PublishError> {
        self.lanes.iter().find_map(|lane| lane.as_ref().err()).map_or(Ok(()), Err)
    }
}

/// Reports to callers and readiness what one lane can do.
#[derive(Debug, Clone)]
pub(super) struct AbilityReporter {
    lane: usize,
    ability: watch::Sender<Ability>,
}

impl AbilityReporter {
    /// A reporter for this lane.
    pub(super) fn of(lane: usize, ability: &watch::Sender<Ability>) -> Self {
        Self { lane, ability: ability.clone() }
    }

    /// Notes whether the lane can publish.
    pub(super) fn set_lane(&self, now: Result<(), PublishError>) {
        self.ability.send_if_modified(|ability| match ability.lanes.get_mut(self.lane) {
            Some(lane) if *lane != now => {
                *lane = now;
                true
            }
            Some(_) | None => false,
        });
    }

    /// Notes how the broker answered a message.
    pub(super) fn note_answer(&self, message: &Outgoing, refused: Option<&PublishError>) {
        let (exchange, is_probe) = (message.exchange, message.routing_key == PROBE_KEY);
        match refused {
            Some(PublishError::Unroutable { .. }) if is_probe => self.note_accepted(exchange),
            None => self.note_accepted(exchange),
            Some(
                error @ (PublishError::Refused | PublishError::ChannelClosed(_) | PublishError::Unroutable { .. }),
            ) => {
                let refusal = (Instant::now(), error.clone());
                self.ability.send_if_modified(|ability| ability.refusals.insert(exchange, refusal).is_none());
            }
            // These errors are about the message, or about the lane, which reports them itself.
            Some(
                PublishError::Unavailable(_)
                | PublishError::Overloaded
                | PublishError::Blocked(_)
                | PublishError::NotConfirmed(_)
                | PublishError::TooLong(_),
            ) => {}
        }
    }

    fn note_accepted(&self, exchange: &str) {
        if !self.ability.borrow().refusals.is_empty() {
            self.ability.send_if_modified(|ability| ability.refusals.remove(exchange).is_some());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(lanes: Vec<Result<(), PublishError>>) -> Ability {
        Ability { lanes, refusals: BTreeMap::new() }
    }

    #[test]
    fn one_lane_is_enough_but_an_alarm_is_everybodys() {
        let lost = || Err(PublishError::Unavailable("gone".to_owned()));
        let blocked = || Err(PublishError::Blocked("memory alarm".to_owned()));
        let doubted = || Err(PublishError::NotConfirmed(DOUBT_LASTS));
        for (lanes, connected, unblocked, accepted) in [
            (vec![Ok(()), Ok(())], true, true, true),
            (vec![lost(), Ok(())], true, true, true),
            (vec![lost(), lost()], false, true, true),
            (vec![Ok(()), blocked()], true, false, true),
            (vec![doubted(), Ok(())], true, true, true),
            (vec![doubted(), lost()], true, true, false),
            (vec![doubted(), doubted()], true, true, false),
        ] {
            let ability = of(lanes);
            let found = (ability.connected().is_ok(), ability.unblocked().is_ok(), ability.accepted().is_ok());
            assert_eq!(found, (connected, unblocked, accepted), "{ability:?}");
            assert_eq!(ability.check().is_ok(), connected && unblocked && accepted, "{ability:?}");
        }
    }

    #[test]
    fn an_exchange_that_refused_its_last_message_speaks_against_publishing_until_it_takes_one_or_for_a_while() {
        let (tell, ability) = watch::channel(of(vec![Ok(())]));
        let reporter = AbilityReporter::of(0, &tell);
        let message = |exchange, routing_key: &str| Outgoing {
            exchange,
            routing_key: routing_key.to_owned(),
            message_id: String::new(),
            kind: String::new(),
            content_type: "text/plain",
            headers: super::super::Headers::default(),
            body: bytes::Bytes::new(),
        };
        let returned = PublishError::Unroutable { exchange: "a", routing_key: PROBE_KEY.to_owned() };
        reporter.note_answer(&message("a", PROBE_KEY), Some(&returned));
        assert!(ability.borrow().check().is_ok(), "a probe is to come back");
        reporter.note_answer(&message("a", "x"), Some(&PublishError::Refused));
        reporter.note_answer(&message("b", "x"), None);
        assert_eq!(ability.borrow().check(), Err(&PublishError::Refused));
        reporter.note_answer(&message("a", "x"), None);
        assert_eq!(ability.borrow().check(), Ok(()));
        reporter.note_answer(&message("a", "x"), Some(&PublishError::Refused));
        assert_eq!(ability.borrow().accepted_at(Instant::now() + DOUBT_LASTS), Ok(()));
    }
}
