//! Spans and log to an OpenTelemetry collector, by OTLP over HTTP in protobuf: `cargo build --release --features otel`.
//! The ordinary build holds none of it.
//!
//! Where `OTEL_EXPORTER_OTLP_ENDPOINT` names a collector, `serve` sends it the lines of its log and these spans. Without
//! that, or with `OTEL_SDK_DISABLED=true`, nothing leaves. The variables are those that OpenTelemetry defines for every
//! program: `OTEL_EXPORTER_OTLP_HEADERS`, `_TIMEOUT` (milliseconds), `_CERTIFICATE` (authorities in PEM, instead of the
//! system's), `OTEL_SERVICE_NAME` (`hallpass` where absent), `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_TRACES_SAMPLER`, and
//! `OTEL_BSP_*` and `OTEL_BLRP_*` for the queues of spans and log. `OTEL_EXPORTER_OTLP_PROTOCOL` may be `http/protobuf` only.
//!
//! | span | within | what it lasts for | attributes |
//! |---|---|---|---|
//! | method and route, such as `POST /v1/exchange` | the caller's span, where its `traceparent` is valid | a request; `/livez`, `/readyz` and `/metrics` have none | `http.request.method`, `http.route`, `http.response.status_code`, `hallpass.code` of a refusal |
//! | `verify` | the request | the token, a wait for its issuer's keys included | |
//! | `exchange` | the request, which it may outlive | from who asks to what it came to | `hallpass.outcome`: `issued`, `dry_run` or the refusal's code |
//! | `decide` | the exchange | the policy's verdict | |
//! | `intent` | the exchange | INTENT made durable, where that is a step of its own | |
//! | `mint` | the exchange | one credential's making | `hallpass.kind` |
//! | `record` | the exchange | ISSUED or FAILED made durable, with INTENT where there is one step | |
//!
//! Attributes come from closed sets, as labels of metrics do: no token, secret, claim, grant or id. The log's line of a
//! request belongs to its span and has `decision_id`, under which the ledger knows the rest. Whether a caller's trace is
//! recorded is the caller's word (`traceparent`'s flag) unless `OTEL_TRACES_SAMPLER` says otherwise; the ledger depends
//! on nobody's.
//!
//! Nothing waits for a collector. Queues are bounded (2,048 spans and as many lines) and lose what does not fit; one that
//! cannot be reached is a line in the log, and another one when it is back. At its end a broker spends at most two seconds
//! each on the spans and on the lines that wait.
