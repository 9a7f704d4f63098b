//! Traces: spans from a webhook to the commit of what it says, sent to an OpenTelemetry collector.
//!
//! Without a collector there is no tracer, and nothing is made, copied or counted: [`Traces::is_on`] is one branch. Spans are
//! told the collector in the background; what it does not take in time is dropped, and nothing ever waits for it but the
//! end of the process, for [`SHUTDOWN_DEADLINE`].
//!
//! Names are those of OpenTelemetry's conventions for messaging where one fits
//! (<https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/>), else they begin with `grantonce.`. Values are ids
//! and names from bounded sets, never a body or a secret.

mod client;

use super::labels::PublishDestination;
use super::metrics::Metrics;
use client::Poster;
use opentelemetry::propagation::{Extractor, TextMapPropagator as _};
use opentelemetry::trace::{
    Link, Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceFlags, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, Key, KeyValue};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider};
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use time::OffsetDateTime;
use tokio::time::Instant;

/// How long the process waits at its end for the collector to take the last spans.
pub const SHUTDOWN_DEADLINE: Duration = Duration::from_secs(2);

/// Below [`SHUTDOWN_DEADLINE`], so that the thread that waits ends by itself.
const FLUSH_DEADLINE: Duration = Duration::from_millis(1_800);

/// Longest text in an attribute, in bytes. Ids are shorter.
const TEXT_BYTES_MAX: usize = 255;

/// Where the collector takes traces, below its address.
const TRACES_PATH: &str = "/v1/traces";

/// The spans cannot be exported: `OTEL_EXPORTER_OTLP_ENDPOINT` or a variable beside it cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TracesError {
    /// The HTTP client cannot be made.
    #[error("the HTTP client for traces")]
    Client(#[source] reqwest::Error),
    /// The exporter refuses its settings.
    #[error("the exporter of traces: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Where spans go. Cheap to clone; all clones are one.
#[derive(Debug, Clone, Default)]
pub struct Traces(Option<Arc<Exporting>>);

#[derive(Debug)]
struct Exporting {
    tracer: SdkTracer,
    provider: SdkTracerProvider,
}

/// What a span begins with.
#[derive(Debug)]
pub struct SpanStart<'a> {
    /// What kind of work; of a bounded set. About messages: what is done, and with which queue or exchange.
    pub name: &'a str,
    /// Which end of a conversation.
    pub kind: SpanKind,
    /// What it is a part of.
    pub parent: Parent<'a>,
    /// What else it belongs to.
    pub link: Option<&'a Span>,
    /// When it began, if not now.
    pub began_at: Option<OffsetDateTime>,
}

/// What a span is a part of.
#[derive(Debug, Clone, Copy)]
pub enum Parent<'a> {
    /// Of nothing: a new trace.
    Nothing,
    /// Of another span of this process.
    Span(&'a Span),
    /// Of a trace that came with a message.
    Carried(&'a Carried),
}

impl Traces {
    /// A handle that makes no spans.
    pub fn off() -> Self {
        Self(None)
    }

    /// Exports to the collector at `endpoint`, by OTLP over HTTP, as protobuf. `role` tells the process's part. Sampling,
    /// queue and headers can be set by OpenTelemetry's own variables (`OTEL_TRACES_SAMPLER`, `OTEL_BSP_…`,
    /// `OTEL_EXPORTER_OTLP_HEADERS`). Must be called inside a tokio runtime.
    pub fn export(endpoint: &str, role: &'static str) -> Result<Self, TracesError> {
        let client = Poster::new().map_err(TracesError::Client)?;
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(client)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}{TRACES_PATH}", endpoint.trim_end_matches('/')))
            .build()?;
        let mut resource = Resource::builder().build();
        // Where nobody has named the service, by OTEL_SERVICE_NAME for instance.
        let named =
            resource.get(&Key::from_static_str("service.name")).map(|name| name.to_string()).unwrap_or_default();
        if named.is_empty() || named.starts_with("unknown_service") {
            resource = Resource::builder().with_service_name(env!("CARGO_PKG_NAME")).build();
        }
        let ours = [KeyValue::new("service.version", env!("CARGO_PKG_VERSION")), KeyValue::new("grantonce.role", role)];
        let known = resource.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone()));
        let resource = Resource::builder_empty().with_attributes(known).with_attributes(ours).build();
        let provider = SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build();
        let tracer = provider.tracer(env!("CARGO_PKG_NAME"));
        Ok(Self(Some(Arc::new(Exporting { tracer, provider }))))
    }

    /// Whether spans are made at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Begins a span, which ends when it is dropped.
    pub fn begin(&self, start: SpanStart<'_>) -> Span {
        let Some(exporting) = &self.0 else { return Span(None) };
        let context = |of: &SpanContext| Context::new().with_remote_span_context(of.clone());
        let parent = match start.parent {
            Parent::Nothing => Context::new(),
            Parent::Span(span) => span.0.as_ref().map_or_else(Context::new, |span| context(span.span_context())),
            Parent::Carried(carried) => context(&carried.0),
        };
        let mut builder = exporting.tracer.span_builder(start.name.to_owned()).with_kind(start.kind);
        builder.start_time = start.began_at.map(SystemTime::from);
        builder.links = start
            .link
            .and_then(|link| link.0.as_ref())
            .map(|link| vec![Link::with_context(link.span_context().clone())]);
        Span(Some(builder.start_with_context(&exporting.tracer, &parent)))
    }

    /// Times the publishing of a message, and begins its span where traces are on. `routing_key` and `message_id` are those
    /// that it is published with.
    pub fn publishing(
        &self,
        metrics: &Metrics,
        exchange: &str,
        routing_key: &str,
        message_id: &str,
        parent: Parent<'_>,
    ) -> Publishing {
        let mut publishing = Publishing::untraced(metrics, exchange);
        if self.is_on() {
            let (kind, name) = (SpanKind::Producer, &*format!("publish {exchange}"));
            let mut span = self.begin(SpanStart { name, kind, parent, link: None, began_at: None });
            span.messaging("send", "publish", &format!("{exchange}:{routing_key}"));
            span.text("messaging.rabbitmq.destination.routing_key", routing_key);
            span.text("messaging.message.id", message_id);
            publishing.span = span;
        }
        publishing
    }

    /// Sends what is left, for at most [`SHUTDOWN_DEADLINE`]. Nothing is made afterwards.
    pub async fn shutdown(self) {
        let Some(exporting) = self.0 else { return };
        // The exporter waits in its own thread and ours; its requests need the runtime.
        let flushed = tokio::task::spawn_blocking(move || exporting.provider.shutdown_with_timeout(FLUSH_DEADLINE));
        match tokio::time::timeout(SHUTDOWN_DEADLINE, flushed).await {
            Ok(Ok(Ok(()))) => {}
            Ok(Ok(Err(_)) | Err(_)) | Err(_) => {
                tracing::warn!(event = "traces_lost", "the collector did not take the last spans in time");
            }
        }
    }
}

/// A span, or none where traces are off. Ends when it is dropped.
#[derive(Debug)]
pub struct Span(Option<opentelemetry_sdk::trace::Span>);

impl Span {
    /// Sets a text, cut to 255 bytes.
    pub fn text(&mut self, key: &'static str, text: &str) {
        let Some(span) = &mut self.0 else { return };
        let end = text.floor_char_boundary(TEXT_BYTES_MAX);
        span.set_attribute(KeyValue::new(key, text.get(..end).unwrap_or_default().to_owned()));
    }

    /// Sets an attribute to a number.
    pub fn number(&mut self, key: &'static str, number: i64) {
        if let Some(span) = &mut self.0 {
            span.set_attribute(KeyValue::new(key, number));
        }
    }

    /// Sets what every span about RabbitMQ has: the type and name of what is done, and with which queue or exchange.
    pub fn messaging(&mut self, operation_type: &'static str, operation_name: &'static str, destination: &str) {
        self.text("messaging.system", "rabbitmq");
        self.text("messaging.operation.type", operation_type);
        self.text("messaging.operation.name", operation_name);
        self.text("messaging.destination.name", destination);
    }

    /// It did not succeed; `error_type` is of a bounded set.
    pub fn fail(&mut self, error_type: &'static str) {
        self.text("error.type", error_type);
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(error_type));
        }
    }

    /// For a message's header `traceparent`: who consumes it goes on with this trace. `None` where traces are off.
    pub fn traceparent(&self) -> Option<String> {
        let context = self.0.as_ref()?.span_context();
        let flags = context.trace_flags() & TraceFlags::SAMPLED;
        Some(format!("00-{}-{}-{:02x}", context.trace_id(), context.span_id(), flags.to_u8()))
    }

    /// For log lines. `None` where traces are off.
    pub fn trace_id(&self) -> Option<String> {
        Some(self.0.as_ref()?.span_context().trace_id().to_string())
    }
}

/// A message that is being published.
#[derive(Debug)]
pub struct Publishing {
    span: Span,
    metrics: Metrics,
    destination: Option<PublishDestination>,
    began: Instant,
}

impl Publishing {
    /// Times the publishing of a message to an exchange, without a span.
    pub fn untraced(metrics: &Metrics, exchange: &str) -> Self {
        let destination = PublishDestination::from_name(exchange);
        Self { span: Span(None), metrics: metrics.clone(), destination, began: Instant::now() }
    }

    /// For the message's header; `None` where traces are off.
    pub fn traceparent(&self) -> Option<String> {
        self.span.traceparent()
    }

    /// It is confirmed, or failed for a reason of a bounded set. Only what is confirmed has a duration: what is given up has a
    /// deadline.
    pub fn end(mut self, failed: Option<&'static str>) {
        match failed {
            Some(error_type) => self.span.fail(error_type),
            None => {
                if let Some(destination) = self.destination {
                    self.metrics.published(destination, self.began.elapsed());
                }
            }
        }
    }
}

/// The trace that a message carries.
#[derive(Debug, Clone)]
pub struct Carried(SpanContext);

impl Carried {
    /// Reads a `traceparent` (<https://www.w3.org/TR/trace-context/>). `None` for what is none.
    pub fn read(traceparent: &str) -> Option<Self> {
        let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &OneHeader(traceparent));
        let context = context.span().span_context().clone();
        context.is_valid().then_some(Self(context))
    }
}

/// Only `traceparent` is carried: `tracestate` is for vendors, and its size is theirs.
struct OneHeader<'a>(&'a str);

impl Extractor for OneHeader<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        (key == "traceparent").then_some(self.0)
    }

    fn keys(&self) -> Vec<&str> {
        vec!["traceparent"]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACEPARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    #[test]
    fn only_a_traceparent_is_carried() {
        let carried = Carried::read(TRACEPARENT).unwrap();
        assert_eq!(carried.0.trace_id().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!(carried.0.span_id().to_string(), "b7ad6b7169203331");
        assert!(carried.0.is_sampled() && carried.0.is_remote());
        let unsampled = TRACEPARENT.replace("-01", "-00");
        assert!(!Carried::read(&unsampled).unwrap().0.is_sampled());
        for bad in ["", "00-1", &TRACEPARENT.replace("0af7", "zzzz"), &format!("00-{:032}-{:016}-01", 0, 0), "💥"] {
            assert!(Carried::read(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn off_means_nothing() {
        let traces = Traces::off();
        let parent = Carried::read(TRACEPARENT).unwrap();
        let (kind, parent) = (SpanKind::Server, Parent::Carried(&parent));
        let mut span = traces.begin(SpanStart { name: "x", kind, parent, link: None, began_at: None });
        span.text("a", "b");
        span.fail("bad");
        assert_eq!((traces.is_on(), span.traceparent(), span.trace_id()), (false, None, None));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn nobody_waits_for_a_collector_that_is_not_there() {
        let refuses = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for address in [refuses, silent.local_addr().unwrap()] {
            let traces = Traces::export(&format!("http://{address}"), "worker").unwrap();
            for _ in 0..5_000 {
                let (kind, parent) = (SpanKind::Consumer, Parent::Nothing);
                drop(traces.begin(SpanStart { name: "process", kind, parent, link: None, began_at: None }));
            }
            let began = Instant::now();
            traces.shutdown().await;
            assert!(began.elapsed() < Duration::from_millis(2_500), "{:?}", began.elapsed());
        }
    }
}
