//! Sending letters back to work, and finding out what became of them. What is to be sent stands in Postgres: whoever does it
//! may die at any time, and whoever does it next publishes at most the same messages again, which the inbox knows.

use super::letter_content::read_the_unread;
use super::prospects::{self, Terms, translate};
use crate::broker::{Confirmed, HINTS_EXCHANGE, Headers, Outgoing, PAYMENTS_EXCHANGE, PublishError, Publisher};
use crate::clock::Clock;
use crate::message::{CONTENT_TYPE, EncodeError, HINT_TYPE, REPLAY_HEADER, WEBHOOK_TYPE_PREFIX};
use crate::store::{Claimed, Replay, ReplayState, Sent, Store, StoreError};
use crate::telemetry::{Metrics, ReplayOutcome};
use crate::webhook::Translation;
use bytes::Bytes;
use futures_util::future::{join_all, try_join_all};
use std::time::Duration;

/// How long what is claimed is nobody else's: more than publishing it may take.
const LEASE: Duration = Duration::from_secs(30);

/// Letters that are looked at in one round.
const WEIGHED_AT_ONCE_MAX: u16 = 1_000;

/// How long after a letter was looked at it is looked at again, though nothing was done about it: its order may have changed.
const LOOK_AGAIN_AFTER: time::Duration = time::Duration::minutes(5);

/// How long the outcome of a replay's first letter is waited for.
const CANARY_PATIENCE: time::Duration = time::Duration::seconds(60);

/// How long the outcome of a letter is waited for: longer than the usual retry delays take altogether.
const ANSWER_PATIENCE: time::Duration = time::Duration::hours(2);

/// Runs replays. As many at once as there are processes that want to.
#[derive(Clone)]
pub struct Runner {
    /// The store with the replays and letters.
    pub store: Store,
    /// The publisher that sends the letters.
    pub publisher: Publisher,
    /// What letters are judged by.
    pub terms: Terms,
    /// The clock of the process.
    pub clock: Clock,
    /// Counts the outcomes of replays.
    pub metrics: Metrics,
}

/// What a round of a runner came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    /// There are letters to send, or to hear of.
    UnderWay,
    /// There is nothing to do.
    Idle,
}

impl Runner {
    /// Sends what is due, and looks what became of what was sent. To be called again soon while there is something under way.
    pub async fn round(&self) -> Result<Round, StoreError> {
        let under_way = self.store.replays_under_way().await?;
        for replay in &under_way {
            match replay.state {
                ReplayState::Canary | ReplayState::Running => self.send(replay).await?,
                // What they had sent is still heard of.
                ReplayState::Finished | ReplayState::Canceled | ReplayState::Stopped => {}
            }
        }
        self.look().await?;
        for replay in under_way.iter().filter(|replay| replay.state == ReplayState::Canary) {
            self.watch_canary(replay.id).await?;
        }
        let now = self.clock.now();
        let unanswered = self.store.end_replays(now - ANSWER_PATIENCE, now).await?;
        self.metrics.replays(ReplayOutcome::NoAnswer, unanswered);
        Ok(if under_way.is_empty() { Round::Idle } else { Round::UnderWay })
    }

    async fn send(&self, replay: &Replay) -> Result<(), StoreError> {
        let claimed = self.store.claim_replay(replay.id, LEASE, self.clock.now()).await?;
        if claimed.is_empty() {
            return Ok(());
        }
        let sent = join_all(claimed.into_iter().map(|letter| self.send_one(letter))).await;
        // What could not be published is claimed again when its lease is over.
        let sent: Vec<_> = sent.into_iter().flatten().collect();
        self.store.note_sent(sent, self.clock.now()).await
    }

    /// None: the broker is not known to have it.
    async fn send_one(&self, letter: Claimed) -> Option<(crate::domain::LetterId, i32, Sent)> {
        let (id, number, replay) = (letter.id, letter.number, letter.replay_id);
        let (messages, sent) = self.messages_of(letter);
        let published = try_join_all(messages.into_iter().map(|message| self.publisher.publish(message)));
        match published.await {
            Ok::<Vec<Confirmed>, _>(_confirmed) => {
                tracing::info!(event = "letter_replayed", letter = %id, replay, number);
                if sent == Sent::Resolved {
                    self.metrics.replays(ReplayOutcome::Resolved, 1);
                }
                Some((id, number, sent))
            }
            Err(error @ (PublishError::Unroutable { .. } | PublishError::TooLong(_))) => {
                tracing::warn!(event = "letter_not_replayable", letter = %id, replay, cause = %error);
                self.metrics.replays(ReplayOutcome::DeadAgain, 1);
                Some((id, number, Sent::Refused))
            }
            Err(error) => {
                tracing::warn!(event = "letter_not_sent", letter = %id, replay, cause = %error, "the dead letter was not sent, trying again");
                None
            }
        }
    }

    /// A letter's messages, as they go back to work, and what it comes to when the broker has them.
    fn messages_of(&self, letter: Claimed) -> (Vec<Outgoing>, Sent) {
        // Emptied since it was taken.
        let Some(body) = letter.body else { return (vec![], Sent::Refused) };
        if letter.kind.starts_with(WEBHOOK_TYPE_PREFIX) {
            let now = self.clock.now();
            let (kind, key) = (&letter.kind, &letter.routing_key);
            let translations = translate(kind, &letter.message_id, key, &body, self.terms.webhook, now);
            return translations.map_or((vec![], Sent::Refused), |translations| self.messages_of_webhook(translations));
        }
        let mut headers = Headers::from_json(&letter.headers).to_copy();
        headers.set_integer(REPLAY_HEADER, i64::from(letter.number));
        let is_hint = letter.kind == HINT_TYPE;
        let message = Outgoing {
            exchange: if is_hint { HINTS_EXCHANGE } else { PAYMENTS_EXCHANGE },
            routing_key: letter.routing_key,
            message_id: letter.message_id,
            kind: letter.kind,
            content_type: CONTENT_TYPE,
            headers,
            body: Bytes::from(body),
        };
        // What a hint comes to does not show at the order. Should it die again, its letter opens again.
        (vec![message], if is_hint { Sent::Resolved } else { Sent::Confirmed })
    }

    /// All that a webhook says, each a message of its own from now on. What still cannot be understood stays in the letter.
    fn messages_of_webhook(&self, translations: Vec<Translation>) -> (Vec<Outgoing>, Sent) {
        let is_live = self.terms.webhook.livemode;
        let (mut messages, mut sent) = (vec![], Sent::Resolved);
        for translation in translations {
            match translation {
                Translation::Events(events) => {
                    for event in events.iter().filter(|event| event.livemode || !is_live) {
                        match Outgoing::payment_status(event) {
                            Ok(message) => messages.push(message),
                            Err(error) => sent = unwritable(&error),
                        }
                    }
                }
                Translation::Hint(hint) if is_live && !hint.livemode => {}
                Translation::Hint(hint) => match Outgoing::hint(&hint) {
                    Ok(message) => messages.push(message),
                    Err(error) => sent = unwritable(&error),
                },
                Translation::Ignored { .. } => {}
                Translation::Untranslatable { .. } => sent = Sent::Refused,
            }
        }
        (messages, sent)
    }

    /// Looks at what was sent, and at what was not looked at for a while: what has nothing left to do is resolved.
    async fn look(&self) -> Result<(), StoreError> {
        let now = self.clock.now();
        read_the_unread(&self.store, self.terms.webhook, now).await?;
        let letters = self.store.letters_to_weigh(now - LOOK_AGAIN_AFTER, WEIGHED_AT_ONCE_MAX).await?;
        if letters.is_empty() {
            return Ok(());
        }
        let weights = prospects::weigh(&self.store, &self.terms, &letters, now).await?;
        let resolved = self.store.note_weights(weights, now).await?;
        self.metrics.replays(ReplayOutcome::Resolved, resolved);
        Ok(())
    }

    /// Ends a replay whose first letter was refused, or of which nothing is heard.
    async fn watch_canary(&self, id: i64) -> Result<(), StoreError> {
        let Some(replay) = self.store.replay(id).await? else { return Ok(()) };
        if replay.state != ReplayState::Canary || replay.counts.resolved > 0 {
            return Ok(());
        }
        let now = self.clock.now();
        let note = if replay.counts.dead_again > 0 {
            "its first letter was refused again; nothing else was sent"
        } else if replay.first_sent_at.is_some_and(|sent_at| sent_at <= now - CANARY_PATIENCE) {
            "nothing was heard of its first letter for a minute: does a worker work, does `grantonce ops` run? Nothing else was sent"
        } else {
            return Ok(());
        };
        if let Some(left) = self.store.stop_replay(id, note.to_owned(), now).await? {
            self.metrics.replays(ReplayOutcome::Canceled, left);
            tracing::warn!(event = "replay_stopped", replay = id, note);
        }
        Ok(())
    }
}

/// The letter stays, for it holds what could not be written.
fn unwritable(error: &EncodeError) -> Sent {
    tracing::error!(event = "message_not_written", cause = %error);
    Sent::Refused
}
