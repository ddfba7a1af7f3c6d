//! OpenTelemetry, in a build with the feature `otel`: what an exchange tells a collector, and that a collector which is
//! slow or dead is nobody's concern. The collector is a fake (`tests/otlp/collector.py`) that reads OTLP strictly, by
//! OpenTelemetry's own definitions.

use std::{
    collections::BTreeMap,
    net::TcpListener,
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    once::{deploy, only},
    support::{
        Installation, Server,
        authority::Authority,
        component::variant,
        installation::{CANARY, binary, finish},
        npm::Script,
        python,
    },
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const CALLER: &str = "00f067aa0ba902b7";

/// A collector, and what it was sent.
struct Collector {
    script: Script,
    url: String,
}

impl Collector {
    fn start(tls: Option<[&Path; 2]>) -> Self {
        let mut command = python::program("otlp", "python");
        command.arg(python::tests().join("otlp/collector.py")).args(tls.into_iter().flatten());
        let mut script = Script::spawn(&mut command);
        let url = script.next()["url"].as_str().unwrap().to_owned();
        Self { script, url }
    }

    /// All that it took until now, by path.
    fn taken(&mut self) -> Vec<Value> {
        let mut taken = vec![self.script.ask(&json!("anything more?"))];
        while taken.last().unwrap().get("no_more").is_none() {
            taken.push(self.script.next());
        }
        taken.pop();
        let refused: Vec<&Value> = taken.iter().filter(|each| each.get("refused").is_some()).collect();
        assert!(refused.is_empty(), "{refused:?}");
        taken
    }
}

/// A span as it was sent.
#[derive(Debug)]
struct Span {
    name: String,
    trace: String,
    id: String,
    parent: String,
    kind: String,
    attributes: BTreeMap<String, String>,
}

/// The spans of all that was taken.
fn spans(taken: &[Value]) -> Vec<Span> {
    of(taken, "/v1/traces", ["resourceSpans", "scopeSpans", "spans"])
        .map(|span| Span {
            name: span["name"].as_str().unwrap().to_owned(),
            trace: hex(&span["traceId"]),
            id: hex(&span["spanId"]),
            parent: hex(&span["parentSpanId"]),
            kind: span["kind"].as_str().unwrap().to_owned(),
            attributes: attributes(span),
        })
        .collect()
}

/// The log's records of all that was taken.
fn records(taken: &[Value]) -> Vec<&Value> {
    of(taken, "/v1/logs", ["resourceLogs", "scopeLogs", "logRecords"]).collect()
}

fn of<'a>(taken: &'a [Value], path: &'a str, lists: [&'a str; 3]) -> impl Iterator<Item = &'a Value> {
    let [resources, scopes, items] = lists;
    let list = |value: &'a Value, name: &str| value[name].as_array().into_iter().flatten();
    let all = taken.iter().filter(move |each| each["path"] == path);
    all.flat_map(move |each| list(&each["body"], resources))
        .flat_map(move |each| list(each, scopes))
        .flat_map(move |each| list(each, items))
}

fn attributes(of: &Value) -> BTreeMap<String, String> {
    let pairs = of["attributes"].as_array().into_iter().flatten();
    pairs
        .map(|pair| {
            let value = pair["value"].as_object().unwrap().values().next().unwrap();
            let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            (pair["key"].as_str().unwrap().to_owned(), value)
        })
        .collect()
}

/// An id, whose bytes are base64 in JSON.
fn hex(id: &Value) -> String {
    let bytes = STANDARD.decode(id.as_str().unwrap_or_default()).unwrap();
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// `serve` of the build with the feature, told of OpenTelemetry by these variables.
fn serve_command(installation: &Installation, variables: &[(&str, &str)]) -> Command {
    let mut command = Command::new(variant("otel", "HALLPASS_TEST_OTEL"));
    for (name, _) in std::env::vars_os() {
        let name = name.to_string_lossy().into_owned();
        if name.starts_with("HALLPASS_") || name.starts_with("OTEL_") {
            command.env_remove(name);
        }
    }
    command.arg("serve").current_dir(installation.file("")).envs(variables.iter().copied());
    command
}

fn exchange(server: &Server, token: &str, flags: &str, body: &Value) -> super::support::Answer {
    let call = server.public.exchanging(token, body);
    call.header("traceparent", &format!("00-{TRACE}-{CALLER}-{flags}")).send()
}

#[test]
fn exchange_is_told_over_tls_within_the_callers_trace_and_nothing_secret_is() {
    let installation = Installation::new();
    let authority = Authority::new();
    let certified = authority.certify_loopback();
    for (name, text) in [
        ("otlp.crt", &certified.certificate),
        ("otlp.key", &certified.key),
        ("otlp-ca.crt", &authority.certificate),
    ] {
        installation.write(name, text);
    }
    let files = ["otlp.crt", "otlp.key"].map(|name| installation.file(name));
    let mut collector = Collector::start(Some(files.each_ref().map(|file| file.as_path())));
    let variables = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "otlp-ca.crt"),
    ];
    let server = installation.serve_by(&mut serve_command(&installation, &variables));
    let [used, denied] = [(); 2].map(|()| installation.issuer.token());

    let body = exchange(&server, &used, "01", &deploy()).ok();
    let refused = server.public.exchange(&denied, &json!({ "grants": ["nobody-has-this"] }));
    refused.problem(403, "access_denied");
    server.stop();

    let taken = collector.taken();
    let (ours, others): (Vec<Span>, Vec<Span>) =
        spans(&taken).into_iter().partition(|span| span.trace == TRACE);
    let named = |name: &str| {
        let found: Vec<&Span> = ours.iter().filter(|span| span.name == name).collect();
        assert!(!found.is_empty(), "{name}: {ours:?}");
        found
    };
    let request = named("POST /v1/exchange")[0];
    assert_eq!((request.parent.as_str(), request.kind.as_str()), (CALLER, "SPAN_KIND_SERVER"));
    let exchange = named("exchange")[0];
    assert_eq!((&exchange.parent, &named("verify")[0].parent), (&request.id, &request.id));
    for (step, times) in [("decide", 1), ("mint", 2), ("record", 1)] {
        let steps = named(step);
        assert!(
            steps.len() == times && steps.iter().all(|each| each.parent == exchange.id),
            "{step}: {ours:?}"
        );
    }
    assert_eq!(exchange.attributes["hallpass.outcome"], "issued");
    let mut kinds: Vec<&str> =
        named("mint").iter().map(|mint| mint.attributes["hallpass.kind"].as_str()).collect();
    kinds.sort_unstable();
    assert_eq!(kinds, ["oidc", "sealed"]);
    // The kit looks at readiness, and that is no trace.
    let roots: Vec<&str> =
        others.iter().filter(|span| span.parent.is_empty()).map(|span| span.name.as_str()).collect();
    assert_eq!(roots, ["POST /v1/exchange"], "the refused one, in a trace of its own");
    let outcome = others.iter().find(|span| span.name == "exchange").unwrap();
    assert_eq!(outcome.attributes["hallpass.outcome"], "access_denied");

    let line = records(&taken).into_iter().find(|record| {
        hex(&record["traceId"]) == TRACE && record["body"]["stringValue"] == "answered a request"
    });
    let line = line.expect("the log's line within the trace");
    assert_eq!(hex(&line["spanId"]), request.id);
    assert_eq!(attributes(line)["decision_id"], body["decision_id"].as_str().unwrap());
    let resource = attributes(&taken[0]["body"].as_object().unwrap().values().next().unwrap()[0]["resource"]);
    assert_eq!(resource["service.name"], "hallpass");

    assert_only_closed_words(ours.iter().chain(&others));
    let all = serde_json::to_string(&taken).unwrap();
    let mut secrets = vec![CANARY.to_owned(), STANDARD.encode(CANARY)];
    secrets.extend([&used, &denied].map(|token| token.rsplit('.').next().unwrap().to_owned()));
    for issuance in body["issuances"].as_array().unwrap() {
        secrets.push(issuance["handle"].as_str().unwrap().to_owned());
        secrets.extend(
            issuance["fields"].as_object().unwrap().values().filter_map(Value::as_str).map(str::to_owned),
        );
    }
    for secret in secrets {
        assert!(!all.contains(&secret), "a collector was told {secret}");
    }
}

/// No attribute but these, and none of a claim, a grant, a credential or an id.
fn assert_only_closed_words<'a>(spans: impl Iterator<Item = &'a Span>) {
    for span in spans {
        for (name, value) in &span.attributes {
            let is_closed = match name.as_str() {
                "http.request.method" => value == "POST" || value == "GET",
                "http.route" => value.starts_with("/v1/"),
                "http.response.status_code" => value.parse::<u16>().is_ok(),
                "hallpass.code" | "hallpass.outcome" => {
                    ["issued", "dry_run", "access_denied"].contains(&value.as_str())
                }
                "hallpass.kind" => ["oidc", "sealed"].contains(&value.as_str()),
                // How long it took, which the exporter's library adds; no words.
                "busy_ns" | "idle_ns" => value.parse::<u64>().is_ok(),
                _ => false,
            };
            assert!(is_closed, "{name}={value} of {}", span.name);
        }
    }
}

#[test]
fn caller_that_records_no_trace_gets_no_spans_and_the_log_is_told_all_the_same() {
    let installation = Installation::new();
    let mut collector = Collector::start(None);
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url.as_str()), ("OTEL_SERVICE_NAME", "gate")];
    let server = installation.serve_by(&mut serve_command(&installation, &variables));

    exchange(&server, &installation.issuer.token(), "00", &only("npm")).ok();
    server.stop();

    let taken = collector.taken();
    assert!(spans(&taken).is_empty(), "{taken:?}");
    assert!(records(&taken).iter().any(|record| hex(&record["traceId"]) == TRACE), "{taken:?}");
    let resource = attributes(&taken[0]["body"]["resourceLogs"][0]["resource"]);
    assert_eq!(resource["service.name"], "gate");
}

/// One that takes connections and never answers, and one that is not there. Queues hold sixteen.
#[test]
fn collector_that_is_silent_or_gone_delays_no_exchange_and_no_end() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
    let gone = address(&TcpListener::bind("127.0.0.1:0").unwrap());
    for url in [address(&silent), gone.clone()] {
        let installation = Installation::new();
        let queue = [
            ("OTEL_BSP_MAX_QUEUE_SIZE", "16"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "8"),
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BLRP_MAX_QUEUE_SIZE", "16"),
            ("OTEL_BLRP_MAX_EXPORT_BATCH_SIZE", "8"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "100"),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", &url),
        ];
        let server = installation.serve_by(&mut serve_command(&installation, &queue));

        for _ in 0..100 {
            let start = Instant::now();
            server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
            // A request to the collector may take ten.
            assert!(start.elapsed() < Duration::from_secs(3), "{url}: {:?}", start.elapsed());
        }
        let start = Instant::now();
        let logs = server.stop();

        // Two for the spans that wait, two for the log.
        assert!(start.elapsed() < Duration::from_secs(8), "{url}: {:?}", start.elapsed());
        if url == gone {
            assert_eq!(logs.matches("the collector takes no spans").count(), 1, "{logs}");
        }
    }
}

#[test]
fn without_an_endpoint_nothing_is_sent_and_an_unfit_variable_is_told() {
    let installation = Installation::new();
    let server = installation.serve_by(&mut serve_command(&installation, &[("OTEL_SERVICE_NAME", "gate")]));
    server.public.exchange(&installation.issuer.token(), &only("npm")).ok();
    let logs = server.stop();
    assert!(!logs.contains("collector"), "{logs}");

    for (name, value) in [
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "soon"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", "no-such-file"),
    ] {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1");
        let output = finish(&mut serve_command(&installation, &[endpoint, (name, value)]), "");
        assert_eq!(output.status.code(), Some(2), "{output:?}");
        assert!(String::from_utf8_lossy(&output.stderr).contains(name), "{output:?}");
    }
}

#[test]
fn ordinary_build_holds_nothing_of_it() {
    let holds = |program: &Path| {
        let grep = Command::new("grep").args(["-aqF", "OTEL_EXPORTER_OTLP"]).arg(program).status();
        grep.unwrap().success()
    };
    assert!(holds(&variant("otel", "HALLPASS_TEST_OTEL")));
    assert!(!holds(Path::new(env!("CARGO_BIN_EXE_hallpass"))));
    let listed = finish(binary().args(["version", "--verbose"]), "");
    assert!(!String::from_utf8_lossy(&listed.stdout).contains("opentelemetry"), "{listed:?}");
}
