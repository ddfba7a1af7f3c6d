//! Spans and log to an OpenTelemetry collector (feature `otel`), by the variables that OpenTelemetry defines for every
//! program: <https://opentelemetry.io/docs/specs/otel/protocol/exporter/> (November 2026). Without an endpoint nothing
//! leaves.
//!
//! Queues are bounded and lose what does not fit; a collector that is slow, dead or lying delays no request. What is sent
//! is what stands in the log, and spans of closed words.

use std::time::Duration;

use opentelemetry::trace::TracerProvider as _;
use opentelemetry_appender_tracing::layer::OpenTelemetryTracingBridge;
use opentelemetry_otlp::{LogExporter, SpanExporter, WithHttpConfig as _};
use opentelemetry_sdk::{Resource, logs::SdkLoggerProvider, trace::SdkTracerProvider};
use tokio::runtime::Handle;
use tracing_subscriber::{
    EnvFilter, Layer as _,
    filter::{LevelFilter, Targets},
    fmt,
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

use super::LogFormat;
use crate::{
    adapters::collector::Collector,
    broker::spans,
    cli::exit::{Exit, Failure},
};

/// What is on its way to a collector.
pub(crate) struct Exporting {
    spans: SdkTracerProvider,
    log: SdkLoggerProvider,
}

impl Exporting {
    /// Sends what waits, for a short time only.
    pub(crate) fn stop(self) {
        // What cannot be sent now is lost, as it is while a broker runs.
        self.spans.shutdown_with_timeout(LAST_WORDS).ok();
        self.log.shutdown_with_timeout(LAST_WORDS).ok();
    }
}

/// Starts log and export, where the environment names a collector; nothing where it does not.
///
/// # Errors
///
/// [`Exit::Usage`] for a variable that cannot be heeded.
pub(super) fn start(format: LogFormat, level: &str, runtime: &Handle) -> Result<Option<Exporting>, Failure> {
    let Some(exporting) = exporters(runtime)? else { return Ok(None) };
    let own = || EnvFilter::new(format!("off,hallpass={level}"));
    let bridge = OpenTelemetryTracingBridge::new(&exporting.log).with_filter(own());
    let spans = tracing_opentelemetry::layer()
        .with_tracer(exporting.spans.tracer("hallpass"))
        .with_location(false)
        .with_threads(false)
        .with_tracked_inactivity(false)
        .with_level(false)
        .with_target(false)
        .with_filter(Targets::new().with_target(spans::TARGET, LevelFilter::INFO));
    let log = fmt::layer().with_writer(std::io::stderr).log_internal_errors(false);
    let log = match format {
        LogFormat::Human => log.with_target(false).boxed(),
        LogFormat::Json => log.json().flatten_event(true).boxed(),
    };
    let log = log.with_filter(EnvFilter::new(format!("error,hallpass={level}")));
    let started = tracing_subscriber::registry().with(spans).with(bridge).with(log).try_init();
    started.map_err(|fault| Failure::new(Exit::Internal, format!("no log: {fault}")))?;
    tracing::info!("spans and log go to the collector that the environment names");
    Ok(Some(exporting))
}

fn exporters(runtime: &Handle) -> Result<Option<Exporting>, Failure> {
    let said = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let is_off = said("OTEL_SDK_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"));
    let is_named = ENDPOINTS.into_iter().any(|name| said(name).is_some());
    if is_off || !is_named {
        return Ok(None);
    }
    for name in PROTOCOLS {
        if said(name).is_some_and(|protocol| protocol != "http/protobuf") {
            return Err(Failure::usage(format!("{name}: write http/protobuf; this build speaks no other")));
        }
    }
    let deadline = match said("OTEL_EXPORTER_OTLP_TIMEOUT") {
        None => DEADLINE,
        Some(ms) => ms.parse().map(Duration::from_millis).map_err(|_| {
            Failure::usage("OTEL_EXPORTER_OTLP_TIMEOUT: write milliseconds as a whole number")
        })?,
    };
    let authorities = said("OTEL_EXPORTER_OTLP_CERTIFICATE").map(|file| {
        std::fs::read(&file)
            .map_err(|fault| Failure::usage(format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {file}: {fault}")))
    });
    let authorities = authorities.transpose()?;
    let collector = |what| {
        Collector::new(what, runtime.clone(), authorities.as_deref(), deadline)
            .map_err(|fault| Failure::usage(format!("OTEL_EXPORTER_OTLP_CERTIFICATE: {fault}")))
    };
    let unfit = |fault| Failure::usage(format!("OTEL_EXPORTER_OTLP_ENDPOINT: {fault}"));
    let spans =
        SpanExporter::builder().with_http().with_http_client(collector("spans")?).build().map_err(unfit)?;
    let log =
        LogExporter::builder().with_http().with_http_client(collector("log")?).build().map_err(unfit)?;
    let has_name = said("OTEL_SERVICE_NAME").is_some()
        || said("OTEL_RESOURCE_ATTRIBUTES").is_some_and(|all| all.contains("service.name="));
    let resource = Resource::builder();
    let resource = if has_name { resource } else { resource.with_service_name("hallpass") };
    let version = opentelemetry::KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
    let resource = resource.with_attribute(version).build();
    Ok(Some(Exporting {
        spans: SdkTracerProvider::builder()
            .with_batch_exporter(spans)
            .with_resource(resource.clone())
            .build(),
        log: SdkLoggerProvider::builder().with_batch_exporter(log).with_resource(resource).build(),
    }))
}

const ENDPOINTS: [&str; 3] =
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT"];
const PROTOCOLS: [&str; 3] =
    ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL"];
/// The specification's default.
const DEADLINE: Duration = Duration::from_secs(10);
/// For what waits at the end, spans and log each; whoever stops a broker must not wait for a collector.
const LAST_WORDS: Duration = Duration::from_secs(2);
