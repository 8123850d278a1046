//! Traces by OTLP: what an admission, a reconcile and each of its writes are told as.
//!
//! They are on where OpenTelemetry's own variables name an endpoint. Spans wait in a bounded queue for a thread of their
//! own: whatever becomes of the collector, nobody waits for it.

use crate::crd::is_traceparent;
use futures::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::{Client, connect::HttpConnector};
use hyper_util::rt::TokioExecutor;
use k8s_openapi::jiff::Timestamp;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, Status, TraceContextExt, TraceFlags, TraceId, TraceState, Tracer, TracerProvider,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{Bytes, HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{self as sdk, SdkTracer, SdkTracerProvider, SpanData};
use rustls::{ClientConfig, RootCertStore};
use std::env;
use std::error::Error;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// The longest that one request to the collector may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest that the last spans are waited for at the end.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(2);
/// Most bytes of its answer.
const MAX_ANSWER: usize = 64 * 1024;

/// Absent where nobody wants traces.
static TRACER: OnceLock<SdkTracer> = OnceLock::new();

/// Sends spans until stopped.
pub struct Traces(Option<SdkTracerProvider>);

impl Traces {
    /// Begins where an endpoint is set.
    ///
    /// # Errors
    /// If a variable cannot be carried out.
    pub fn start() -> Result<Self, Box<dyn Error>> {
        let names = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];
        let is_disabled = set("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
        let endpoint = names.into_iter().find_map(|name| Some((name, set(name)?)));
        let Some((name, endpoint)) = endpoint.filter(|_| !is_disabled) else { return Ok(Self(None)) };
        let is_https = endpoint.starts_with("https://");
        if !is_https && !endpoint.starts_with("http://") {
            return Err(format!("{name}: must begin with http:// or https://").into());
        }
        for name in ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"] {
            if set(name).is_some_and(|protocol| protocol != "http/protobuf") {
                return Err(format!("{name}: must be http/protobuf or left out; its port is mostly 4318").into());
            }
        }
        let otlp = SpanExporter::builder().with_http().with_http_client(Collector::new(is_https)?).build()?;
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(Exporter { otlp, runtime, lost: AtomicUsize::new(0) })
            .with_resource(resource())
            .build();
        let _ = TRACER.set(provider.tracer("taskrun-operator"));
        Ok(Self(Some(provider)))
    }

    /// Sends what waits, within a bounded time.
    pub async fn stop(self) {
        let Some(provider) = self.0 else { return };
        // the thread that sends is waited for, which must not stop this one
        let _ = tokio::task::spawn_blocking(move || provider.shutdown_with_timeout(FLUSH_TIMEOUT)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "OpenTelemetry's own variables, which its SDK reads as well")]
fn set(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn resource() -> Resource {
    let is_named = set("OTEL_SERVICE_NAME").is_some()
        || set("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|attributes| attributes.contains("service.name="));
    let resource = Resource::builder().with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")));
    if is_named { resource.build() } else { resource.with_service_name("taskrun-operator").build() }
}

/// What spans and log lines are about; the same words name it in both.
pub struct Task<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its uid, empty where it has none yet.
    pub uid: &'a str,
    /// Its `contextVersion`.
    pub version: Option<i64>,
}

/// Something that happens, told when dropped. Nothing where traces are off.
pub struct Span(Option<sdk::Span>);

impl Span {
    /// The `traceparent` of a request, where somebody wants it and it is one.
    pub fn parent<'a>(header: impl FnOnce(&str) -> Option<&'a str>) -> Option<String> {
        TRACER.get()?;
        header("traceparent").filter(|text| is_traceparent(text)).map(str::to_owned)
    }

    /// Begins one under the span of this `traceparent`, or a new trace.
    pub fn begin(name: &'static str, parent: Option<&str>, began: Timestamp) -> Self {
        let parent =
            || parent.and_then(remote).map_or_else(Context::new, |span| Context::new().with_remote_span_context(span));
        let begin =
            |tracer: &SdkTracer| tracer.build_with_context(tracer.span_builder(name).with_start_time(began), &parent());
        Self(TRACER.get().map(begin))
    }

    /// Begins one below, with the object that it is about.
    #[must_use]
    pub fn child(&self, (name, object): (&'static str, Option<&str>)) -> Self {
        let Some((tracer, span)) = TRACER.get().zip(self.0.as_ref()) else { return Self(None) };
        let parent = Context::new().with_remote_span_context(span.span_context().clone());
        let mut child = tracer.build_with_context(tracer.span_builder(name), &parent);
        child.set_attributes(object.map(|object| KeyValue::new("object", object.to_owned())));
        Self(Some(child))
    }

    /// The header by which others go on with it.
    pub fn traceparent(&self) -> Option<String> {
        let span = self.0.as_ref()?.span_context();
        Some(format!("00-{}-{}-{:02x}", span.trace_id(), span.span_id(), span.trace_flags().to_u8()))
    }

    /// Says what it is about, and more that is as short.
    pub fn describe(&mut self, task: &Task<'_>, more: impl FnOnce() -> Vec<(&'static str, String)>) {
        let Some(span) = self.0.as_mut().filter(|span| span.is_recording()) else { return };
        let texts = [("namespace", task.namespace), ("task_run", task.name), ("uid", task.uid)];
        let texts = texts.map(|(key, text)| (key, text.to_owned())).into_iter().chain(more());
        span.set_attributes(texts.map(|(key, text)| KeyValue::new(key, text)));
        span.set_attributes(task.version.map(|version| KeyValue::new("version", version)));
    }

    /// It came to nothing.
    pub fn fail(&mut self, why: &'static str) {
        if let Some(span) = &mut self.0 {
            span.set_status(Status::error(why));
        }
    }

    /// What log lines stand in that are written meanwhile: they have the object and, where traces are on, the ids.
    pub fn logs(&self, task: &Task<'_>) -> tracing::Span {
        let span = self.0.as_ref().map(opentelemetry::trace::Span::span_context);
        let (trace_id, span_id) = span.map(|span| (span.trace_id().to_string(), span.span_id().to_string())).unzip();
        let &Task { namespace, name, uid, version } = task;
        tracing::info_span!("task", namespace, task_run = name, uid, version, trace_id, span_id)
    }
}

/// What a `traceparent` names.
fn remote(traceparent: &str) -> Option<SpanContext> {
    let text = Some(traceparent).filter(|text| is_traceparent(text))?;
    let (trace, span) = (TraceId::from_hex(&text[3..35]).ok()?, SpanId::from_hex(&text[36..52]).ok()?);
    let flags = TraceFlags::new(u8::from_str_radix(&text[53..], 16).ok()?);
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}

/// Sends spans from the thread that has collected them, and says once when that fails and once when it works again.
#[derive(Debug)]
struct Exporter {
    otlp: SpanExporter,
    runtime: Runtime,
    /// Spans that could not be sent, since it worked.
    lost: AtomicUsize,
}

impl sdk::SpanExporter for Exporter {
    async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
        let count = batch.len();
        let sent = self.runtime.block_on(self.otlp.export(batch));
        let lost = if sent.is_ok() {
            self.lost.swap(0, Ordering::Relaxed)
        } else {
            self.lost.fetch_add(count, Ordering::Relaxed)
        };
        match sent {
            Ok(()) if lost > 0 => tracing::info!(lost, "spans are sent again"),
            Err(error) if lost == 0 => {
                tracing::warn!(%error, "failed to send spans: they are dropped until that works");
            }
            _ => {}
        }
        Ok(())
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.otlp.set_resource(resource);
    }
}

/// The collector, by HTTP, or by HTTPS with the CAs of the system.
#[derive(Debug)]
struct Collector(Client<HttpsConnector<HttpConnector>, Full<Bytes>>);

impl Collector {
    fn new(is_https: bool) -> Result<Self, String> {
        let no_roots = |error| format!("HTTPS to the collector needs CAs: set SSL_CERT_FILE ({error})");
        let connector = HttpsConnectorBuilder::new();
        let connector = if is_https {
            connector.with_native_roots().map_err(no_roots)?.https_only()
        } else {
            let nobody = ClientConfig::builder().with_root_certificates(RootCertStore::empty());
            connector.with_tls_config(nobody.with_no_client_auth()).https_or_http()
        };
        // nobody looks after an idle connection
        let client =
            Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector.enable_http1().build());
        Ok(Self(client))
    }
}

impl HttpClient for Collector {
    fn send_bytes<'a, 'b>(&'a self, request: Request<Bytes>) -> BoxFuture<'b, Result<Response<Bytes>, HttpError>>
    where
        'a: 'b,
    {
        let sent = async {
            let (head, body) = self.0.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        Box::pin(async { tokio::time::timeout(SEND_TIMEOUT, sent).await? })
    }
}
