//! How a role knows whether it has what it needs: it looks at Postgres and at its publisher again and again.

use crate::broker::{Ability, PublishError, Publisher};
use crate::clock::Clock;
use crate::http::{NeedFlag, Needs};
use crate::role::Role;
use crate::store::{Class, Probed, Store, StoreError};
use crate::telemetry::Need;
use std::convert::Infallible;
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio::time::{Interval, MissedTickBehavior, interval};

/// How often a role looks.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);

/// An answer that takes longer than this counts as missing, even before it comes.
const SLOW: Duration = Duration::from_secs(3);

/// How far our clock may be from the clock of Postgres. A clock that is a day behind refuses genuine messages; this
/// bound is much smaller.
const CLOCKS_APART_MAX: time::Duration = time::Duration::minutes(5);

/// How many missing rights are named. The others are counted.
const LACKS_NAMED: usize = 3;

/// Ticks at once, and then at the times of the looks.
pub fn looks() -> Interval {
    let mut every = interval(LOOK_EVERY);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    every
}

/// What a role needs of Postgres.
#[derive(Debug)]
pub struct PostgresNeeds {
    role: Role,
    writes: NeedFlag,
    schema: NeedFlag,
    clocks: NeedFlag,
}

impl PostgresNeeds {
    /// The needs of a role.
    pub fn of(needs: &Needs) -> Self {
        let flag = |need| needs.flag(need);
        Self {
            role: needs.role(),
            writes: flag(Need::PostgresWrites),
            schema: flag(Need::SchemaAndRights),
            clocks: flag(Need::ClockAgrees),
        }
    }

    /// Looks once and sets the flags. An error means that nothing can be committed.
    pub async fn look(&self, store: &Store, clock: &Clock) -> Result<(), StoreError> {
        let mut probe = Box::pin(store.probe(self.role));
        let probed = match tokio::time::timeout(SLOW, &mut probe).await {
            Ok(probed) => probed,
            Err(_slow) => {
                let slow_s = SLOW.as_secs();
                self.writes.missing(format!("Postgres did not answer, or not commit, within {slow_s} s"));
                probe.await
            }
        };
        match probed {
            Ok(Probed { lacks, server_time }) => {
                self.writes.met();
                self.schema.set(lacking(&lacks));
                self.clocks.set(agreeing(clock.now() - server_time));
                Ok(())
            }
            Err(error) => {
                self.failed(&error);
                Err(error)
            }
        }
    }

    /// Sets the flags after an error in the role's own work.
    pub fn failed(&self, error: &StoreError) {
        let flag = match error.class() {
            Class::Bug => &self.schema,
            Class::Transient | Class::Contended | Class::Data => &self.writes,
        };
        flag.missing(error.in_short());
    }

    /// Looks again and again in a task, until the task is aborted.
    pub fn follow(self, store: &Store, clock: &Clock) -> JoinHandle<()> {
        let (store, clock) = (store.clone(), clock.clone());
        tokio::spawn(async move { match self.watch(&store, &clock).await {} })
    }

    /// Looks again and again. The flags show every failure.
    pub async fn watch(&self, store: &Store, clock: &Clock) -> Infallible {
        let mut every = looks();
        loop {
            every.tick().await;
            drop(self.look(store, clock).await);
        }
    }
}

fn lacking(lacks: &[String]) -> Result<(), String> {
    if lacks.is_empty() {
        return Ok(());
    }
    let (named, others) = lacks.split_at(lacks.len().min(LACKS_NAMED));
    let more = if others.is_empty() { String::new() } else { format!(" and {} more", others.len()) };
    Err(format!("this database user lacks {}{more}, or the tables are missing", named.join(", ")))
}

fn agreeing(ahead: time::Duration) -> Result<(), String> {
    if ahead.abs() <= CLOCKS_APART_MAX {
        return Ok(());
    }
    let direction = if ahead.is_negative() { "behind" } else { "ahead of" };
    Err(format!("this machine's clock is {} s {direction} that of Postgres", ahead.whole_seconds().abs()))
}

/// What a role needs to publish.
#[derive(Debug)]
pub struct PublisherNeeds {
    connected: NeedFlag,
    unblocked: NeedFlag,
    accepted: NeedFlag,
}

impl PublisherNeeds {
    /// The needs of this role.
    pub fn of(needs: &Needs) -> Self {
        let flag = |need| needs.flag(need);
        Self {
            connected: flag(Need::BrokerConnected),
            unblocked: flag(Need::PublishingUnblocked),
            accepted: flag(Need::MayPublish),
        }
    }

    fn tell(&self, ability: &Ability) {
        let in_short = |error: &PublishError| match error {
            PublishError::Unavailable(_) => "RabbitMQ is out of reach".to_owned(),
            PublishError::Blocked(_)
            | PublishError::Overloaded
            | PublishError::NotConfirmed(_)
            | PublishError::Refused
            | PublishError::ChannelClosed(_)
            | PublishError::Unroutable { .. }
            | PublishError::TooLong(_) => error.to_string(),
        };
        self.connected.set(ability.connected().map_err(in_short));
        self.unblocked.set(ability.unblocked().map_err(in_short));
        self.accepted.set(ability.connected().and_then(|()| ability.accepted()).map_err(in_short));
    }

    /// Follows the publisher in a task, until the task is aborted or the publisher is gone.
    pub fn follow(self, publisher: &Publisher, probe: Option<&'static str>) -> JoinHandle<()> {
        tokio::spawn(self.watch(publisher.clone(), probe))
    }

    /// Follows the publisher until it is gone. With a `probe`, it publishes something to that exchange each time. So a
    /// role with nothing to publish also learns whether it could.
    async fn watch(self, publisher: Publisher, probe: Option<&'static str>) {
        let mut ability = publisher.ability();
        let probing = async {
            let mut every = looks();
            loop {
                every.tick().await;
                if let Some(exchange) = probe {
                    // The publisher's ability shows the result.
                    drop(publisher.probe(exchange).await);
                }
            }
        };
        let telling = async {
            // A doubt ends after a while without a notification.
            let mut every = looks();
            loop {
                self.tell(&ability.borrow_and_update().clone());
                tokio::select! {
                    changed = ability.changed() => if changed.is_err() { return },
                    _ = every.tick() => {}
                }
            }
        };
        tokio::select! {
            () = probing => {}
            () = telling => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lacking_is_named_and_bounded() {
        let lacks: Vec<_> = (0..9).map(|n| format!("INSERT on table{n}")).collect();
        assert_eq!(lacking(&[]), Ok(()));
        let few = lacking(&lacks[..1]).unwrap_err();
        assert_eq!(few, "this database user lacks INSERT on table0, or the tables are missing");
        assert!(lacking(&lacks).unwrap_err().contains("table2 and 6 more"));
    }

    #[test]
    fn clocks_agree_within_minutes() {
        assert_eq!(agreeing(CLOCKS_APART_MAX), Ok(()));
        assert_eq!(agreeing(-CLOCKS_APART_MAX), Ok(()));
        let ahead = agreeing(time::Duration::hours(1)).unwrap_err();
        assert_eq!(ahead, "this machine's clock is 3600 s ahead of that of Postgres");
        let behind = agreeing(time::Duration::hours(-48)).unwrap_err();
        assert_eq!(behind, "this machine's clock is 172800 s behind that of Postgres");
    }
}
