//! How spans are posted to the collector: with our own HTTP client, on our own runtime.

use crate::http::{client, system_roots};
use crate::telemetry::causes;
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use std::fmt;
use std::pin::Pin;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::runtime::Handle;
use tokio::time::Instant;

/// How long one post may take.
const POST_DEADLINE: Duration = Duration::from_secs(5);

/// Between two log lines about a collector that does not take spans.
const SAY_EVERY: Duration = Duration::from_secs(60);

/// Most of an answer that is read, in bytes. It says which spans were refused, in a few words.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// Posts spans. A collector that is away costs a log line now and then.
pub(super) struct Poster {
    client: reqwest::Client,
    /// The exporter has a thread of its own, and no runtime in it.
    runtime: Handle,
    trouble: Mutex<Trouble>,
}

#[derive(Default)]
struct Trouble {
    failures: u64,
    said_at: Option<Instant>,
}

/// Why a post failed.
#[derive(Debug, thiserror::Error)]
enum PostError {
    #[error("posting spans")]
    Http(#[source] reqwest::Error),
    #[error("the answer is longer than {ANSWER_BYTES_MAX} bytes")]
    AnswerTooLong,
}

impl From<reqwest::Error> for PostError {
    fn from(error: reqwest::Error) -> Self {
        // The address may hold a password.
        Self::Http(error.without_url())
    }
}

impl Poster {
    /// Must be called inside a tokio runtime, which its requests will run on.
    pub(super) fn new() -> Result<Self, reqwest::Error> {
        let client = client(system_roots())
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(POST_DEADLINE)
            .timeout(POST_DEADLINE)
            .build()?;
        Ok(Self { client, runtime: Handle::current(), trouble: Mutex::default() })
    }

    async fn post(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (client, request) = (self.client.clone(), reqwest::Request::try_from(request)?);
        let answered = self.runtime.spawn(async move { send(&client, request).await }).await?;
        let cause = match &answered {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("it answered {}", answer.status().as_u16())),
            Err(error) => Some(causes(error)),
        };
        self.say(cause.as_deref());
        Ok(answered?)
    }

    fn say(&self, cause: Option<&str>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        match cause {
            None if trouble.said_at.is_some() => {
                tracing::info!(event = "traces_exported_again", failures = trouble.failures);
                *trouble = Trouble::default();
            }
            None => {}
            Some(cause) => {
                trouble.failures = trouble.failures.saturating_add(1);
                if trouble.said_at.is_none_or(|said_at| said_at.elapsed() > SAY_EVERY) {
                    trouble.said_at = Some(Instant::now());
                    tracing::warn!(
                        event = "traces_not_exported",
                        failures = trouble.failures,
                        cause,
                        "the collector does not take spans; they are dropped, and nothing else is held up"
                    );
                }
            }
        }
    }
}

async fn send(client: &reqwest::Client, request: reqwest::Request) -> Result<Response<Bytes>, PostError> {
    let mut answer = client.execute(request).await?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await? {
        if body.len() + chunk.len() > ANSWER_BYTES_MAX {
            return Err(PostError::AnswerTooLong);
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = Response::new(Bytes::from(body));
    *response.status_mut() = answer.status();
    *response.headers_mut() = std::mem::take(answer.headers_mut());
    Ok(response)
}

impl HttpClient for Poster {
    // What `async fn` in this trait is expanded to.
    fn send_bytes<'a, 'b>(
        &'a self,
        request: Request<Bytes>,
    ) -> Pin<Box<dyn Future<Output = Result<Response<Bytes>, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(self.post(request))
    }
}

impl fmt::Debug for Poster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Poster")
    }
}
