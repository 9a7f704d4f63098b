//! The test's own OpenTelemetry collector. It receives spans over HTTP as protobuf, and stores them.

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::routing::post;
use grantonce_testkit::wait::eventually;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use prost::Message as _;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use tokio::task::JoinHandle;

/// A span, with the attributes of its process.
#[derive(Debug, Clone)]
pub struct Told {
    pub name: String,
    pub kind: SpanKind,
    pub trace: String,
    pub id: String,
    /// The id of the parent span. Empty if the span begins its trace.
    pub parent: String,
    pub links: Vec<String>,
    pub is_error: bool,
    pub attributes: BTreeMap<String, String>,
    pub process: BTreeMap<String, String>,
}

impl Told {
    /// Returns an attribute, or an empty text if there is none.
    pub fn get(&self, name: &str) -> &str {
        self.attributes.get(name).map_or("", String::as_str)
    }
}

/// A collector that ends with the test.
pub struct Collector {
    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub endpoint: String,
    spans: Arc<Mutex<Vec<Told>>>,
    serving: JoinHandle<()>,
}

impl Collector {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let spans = Arc::<Mutex<Vec<Told>>>::default();
        let router = Router::new().route("/v1/traces", post(take)).with_state(Arc::clone(&spans));
        let serving = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { endpoint, spans, serving }
    }

    /// All spans that have arrived.
    pub fn spans(&self) -> Vec<Told> {
        self.spans.lock().unwrap().clone()
    }

    /// Waits for `count` spans that fit, and returns them.
    pub async fn wait_for(&self, what: &str, count: usize, fits: impl Fn(&Told) -> bool) -> Vec<Told> {
        let mut found = vec![];
        eventually(&format!("{count} spans came: {what}"), async || {
            found = self.spans().into_iter().filter(|span| fits(span)).collect();
            found.len() >= count
        })
        .await;
        found
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(State(spans): State<Arc<Mutex<Vec<Told>>>>, body: Bytes) {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    for resource in request.resource_spans {
        let process = attributes(resource.resource.map(|resource| resource.attributes).unwrap_or_default());
        for span in resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
            spans.lock().unwrap().push(Told {
                kind: span.kind(),
                trace: hex::encode(&span.trace_id),
                id: hex::encode(&span.span_id),
                parent: hex::encode(&span.parent_span_id),
                links: span.links.iter().map(|link| hex::encode(&link.span_id)).collect(),
                is_error: span.status.is_some_and(|status| status.code == 2),
                attributes: attributes(span.attributes),
                process: process.clone(),
                name: span.name,
            });
        }
    }
}

fn attributes(all: Vec<KeyValue>) -> BTreeMap<String, String> {
    let text = |value: Option<AnyValue>| match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    };
    all.into_iter().map(|attribute| (attribute.key, text(attribute.value))).collect()
}
