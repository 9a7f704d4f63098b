//! Handles one webhook: reads it, verifies it, translates it, publishes it, and answers.

use crate::broker::{Headers, Letter, Outgoing, PublishError, Publisher};
use crate::clock::Clock;
use crate::config::FollowedFiles;
use crate::domain::{MessageId, Reason, Refusal};
use crate::failpoint::{self, Failpoint};
use crate::followed::Followed;
use crate::http::{Problem, read_body};
use crate::message::{BODY_BYTES_MAX, WEBHOOK_TYPE_PREFIX, routing_key};
use crate::provider::certificates::{CertificateError, Certificates};
use crate::publishing::publish_in_trace;
use crate::telemetry::{Metrics, Parent, Span, SpanKind, SpanStart, Traces, WebhookEndpoint, WebhookOutcome};
use crate::webhook::{Endpoint, Keys, Rejection, Translation, Unverified};
use axum::extract::Request;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::future::try_join_all;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Semaphore;
use tracing::Instrument as _;

/// How long the body of a request may take.
const BODY_DEADLINE: Duration = Duration::from_secs(10);

/// After a 503 the provider may send again after this time.
const RETRY_AFTER: Duration = Duration::from_secs(5);

fn label(endpoint: Endpoint) -> WebhookEndpoint {
    match endpoint {
        Endpoint::Stripe => WebhookEndpoint::Stripe,
        Endpoint::Paypal => WebhookEndpoint::Paypal,
        Endpoint::Adyen => WebhookEndpoint::Adyen,
        Endpoint::Standard => WebhookEndpoint::Standard,
    }
}

/// Everything that handling a webhook needs.
pub(super) struct WebhookHandler {
    pub(super) keys: HashMap<Endpoint, Followed<Keys>>,
    /// The files that the keys were made from.
    pub(super) secret_files: FollowedFiles,
    /// `None` if no configured endpoint needs certificates.
    pub(super) certificates: Option<Certificates>,
    pub(super) is_live: bool,
    pub(super) publisher: Publisher,
    pub(super) clock: Clock,
    pub(super) metrics: Metrics,
    pub(super) traces: Traces,
    pub(super) places: Semaphore,
}

/// The answer to a webhook, with its outcome for metrics.
struct Answer {
    outcome: WebhookOutcome,
    response: Response,
}

impl Answer {
    fn ok(outcome: WebhookOutcome) -> Self {
        Self { outcome, response: StatusCode::OK.into_response() }
    }

    fn problem(outcome: WebhookOutcome, problem: Problem) -> Self {
        Self { outcome, response: problem.into_response() }
    }
}

impl WebhookHandler {
    /// Handles a webhook and answers it.
    pub(super) async fn handle(&self, path: &str, request: Request) -> Response {
        let Some((endpoint, keys)) =
            Endpoint::from_path(path).and_then(|endpoint| Some((endpoint, self.keys.get(&endpoint)?.current())))
        else {
            return Problem::not_found("no provider is configured at this path").into_response();
        };
        let mut span = self.begin_span(endpoint);
        // Log lines of every level name the trace.
        let logged =
            span.trace_id().map_or_else(tracing::Span::none, |id| tracing::error_span!("webhook", trace_id = id));
        let answer = match self.places.try_acquire() {
            Ok(_place) => self.handle_at(endpoint, &keys, request, &span).instrument(logged).await,
            Err(_full) => unavailable("too many webhooks are in hand"),
        };
        span.text("grantonce.outcome", answer.outcome.name());
        span.number("http.response.status_code", i64::from(answer.response.status().as_u16()));
        if answer.response.status().is_server_error() {
            span.fail(answer.outcome.name());
        }
        self.metrics.webhook(label(endpoint), answer.outcome);
        answer.response
    }

    /// Begins a new trace. A trace that the request names is not continued: anybody can send a request, and could then decide what is
    /// sampled and write into any trace. Providers send none.
    fn begin_span(&self, endpoint: Endpoint) -> Span {
        let (kind, parent) = (SpanKind::Server, Parent::Nothing);
        let mut span = self.traces.begin(SpanStart {
            name: "POST /webhooks/{provider}",
            kind,
            parent,
            link: None,
            began_at: None,
        });
        span.text("http.request.method", "POST");
        span.text("http.route", "/webhooks/{provider}");
        span.text("grantonce.endpoint", endpoint.path());
        span
    }

    async fn handle_at(&self, endpoint: Endpoint, keys: &Keys, mut request: Request, span: &Span) -> Answer {
        let headers = std::mem::take(request.headers_mut());
        let body = match read_body(request, BODY_BYTES_MAX, BODY_DEADLINE).await {
            Ok(body) => body,
            Err(problem) if problem.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                return Answer::problem(WebhookOutcome::TooLarge, problem);
            }
            Err(problem) => return Answer::problem(WebhookOutcome::Malformed, problem),
        };
        let unverified = Unverified { headers: &headers, body: &body, now: self.clock.now() };
        let certificates = match self.certificates(endpoint, keys, &unverified).await {
            Ok(certificates) => certificates,
            Err(answer) => return answer,
        };
        let mut verified = keys.verify_with(unverified, &certificates);
        if matches!(verified, Err(Rejection::SignatureWrong)) {
            // The operator may have put its secret into the file a moment ago.
            self.secret_files.refresh().await;
            if let Some(keys) = self.keys.get(&endpoint) {
                verified = keys.current().verify_with(unverified, &certificates);
            }
        }
        match verified {
            Ok(verified) => self.publish(endpoint, verified.translate(), &body, span).await,
            Err(rejection) => rejected(endpoint, &rejection),
        }
    }

    /// The certificates that the signature must be checked with. Empty if our keys are enough.
    async fn certificates(
        &self,
        endpoint: Endpoint,
        keys: &Keys,
        unverified: &Unverified<'_>,
    ) -> Result<Bytes, Answer> {
        let url = keys.certificate_url(unverified).map_err(|rejection| rejected(endpoint, &rejection))?;
        let Some((url, certificates)) = url.zip(self.certificates.as_ref()) else { return Ok(Bytes::new()) };
        certificates.get(url.as_str()).await.map_err(|error| match error {
            CertificateError::Refused { fault } => rejected(endpoint, &Rejection::CertificateRefused { fault }),
            CertificateError::Unavailable { .. } => {
                tracing::warn!(event = "certificate_unavailable", endpoint = endpoint.path(), cause = %error);
                unavailable("the signing certificate cannot be fetched now; send it again")
            }
        })
    }

    /// Publishes everything that a webhook says. The answer is 2xx only if RabbitMQ has confirmed every part of it.
    async fn publish(&self, endpoint: Endpoint, translations: Vec<Translation>, body: &Bytes, span: &Span) -> Answer {
        // Each part is a message, or becomes a dead letter under its id for a reason.
        let mut parts: Vec<Result<Outgoing, (MessageId, String)>> = Vec::new();
        let mut dropped = 0_usize;
        for translation in translations {
            match translation {
                Translation::Ignored { kind, why } => {
                    tracing::debug!(event = "webhook_ignored", endpoint = endpoint.path(), kind = %kind, why = why.name());
                    self.metrics.webhook_ignored(label(endpoint), why);
                }
                Translation::Hint(hint) if self.is_live && !hint.livemode => dropped += 1,
                Translation::Hint(hint) => {
                    parts.push(Outgoing::hint(&hint).map_err(|error| (hint.message_id, error.to_string())));
                }
                Translation::Untranslatable { livemode: Some(false), .. } if self.is_live => dropped += 1,
                Translation::Untranslatable { message_id, detail, .. } => parts.push(Err((message_id, detail))),
                Translation::Events(events) => {
                    for event in events {
                        if self.is_live && !event.livemode {
                            dropped += 1;
                        } else {
                            let message = Outgoing::payment_status(&event);
                            parts.push(message.map_err(|error| (event.message_id, error.to_string())));
                        }
                    }
                }
            }
        }
        let accepted = parts.iter().filter(|part| part.is_ok()).count();
        let letters = parts.len() - accepted;
        let _in_flight = self.metrics.publish_in_flight();
        let published = parts.into_iter().map(|part| {
            let message = part.unwrap_or_else(|(id, detail)| dead_letter(endpoint, id, detail, body.clone()));
            publish_in_trace(&self.publisher, message, &self.metrics, &self.traces, span)
        });
        if let Err(error) = try_join_all(published).await {
            return not_published(endpoint, &error);
        }
        for _ in 0..letters {
            self.metrics.dead_lettered(Reason::Untranslatable);
        }
        if accepted > 0 {
            failpoint::hit(Failpoint::AfterConfirm);
        }
        Answer::ok(match (accepted, letters, dropped) {
            (0, 0, 0) => WebhookOutcome::Ignored,
            (0, 0, _) => WebhookOutcome::TestEventDropped,
            (_, 0, _) => WebhookOutcome::Accepted,
            (_, _, _) => WebhookOutcome::Untranslatable,
        })
    }
}

/// A dead letter with the raw body of a genuine webhook that we do not understand, or not all of it. When it is translated anew, its
/// other parts are known already.
fn dead_letter(endpoint: Endpoint, message_id: MessageId, detail: String, body: Bytes) -> Outgoing {
    let letter = Letter {
        origin: "receiver",
        routing_key: routing_key(endpoint.provider()),
        message_id: message_id.into_string(),
        kind: format!("{WEBHOOK_TYPE_PREFIX}{}", endpoint.path()),
        headers: Headers::default(),
        body,
    };
    Outgoing::dead_letter(letter, &Refusal::new(Reason::Untranslatable, detail))
}

fn rejected(endpoint: Endpoint, rejection: &Rejection) -> Answer {
    tracing::info!(event = "webhook_rejected", endpoint = endpoint.path(), rejection = rejection.name());
    let detail = rejection.to_string();
    if rejection.is_unauthorized() {
        Answer::problem(WebhookOutcome::Unauthorized, Problem::unauthorized(detail))
    } else {
        Answer::problem(WebhookOutcome::Malformed, Problem::bad_request(detail))
    }
}

fn unavailable(detail: &str) -> Answer {
    Answer::problem(WebhookOutcome::Unavailable, Problem::unavailable(detail, RETRY_AFTER))
}

fn not_published(endpoint: Endpoint, error: &PublishError) -> Answer {
    tracing::warn!(event = "webhook_not_published", endpoint = endpoint.path(), cause = %error);
    unavailable(match error {
        PublishError::Blocked(_) => "RabbitMQ blocks publishing now; send it again",
        PublishError::Unavailable(_)
        | PublishError::Overloaded
        | PublishError::NotConfirmed(_)
        | PublishError::Refused
        | PublishError::ChannelClosed(_)
        | PublishError::Unroutable { .. }
        | PublishError::TooLong(_) => "the queue cannot take the webhook now; send it again",
    })
}
