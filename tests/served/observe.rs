//! What operators see: `/metrics` against the documented families, the dashboard and the alert rules against both, and
//! the log's ids.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::Write as _,
    path::Path,
    process::{Command, Stdio},
};

use hallpass::broker::metrics::{FAMILIES, Shape};
use serde_json::{Value, json};

use super::support::{Installation, Server, authority::Authority, eventually, installation::run};

/// A sample's labels, and its value.
type Sample = (BTreeMap<String, String>, f64);

/// The samples by name, from a text that is read strictly.
fn scrape(server: &Server) -> BTreeMap<String, Vec<Sample>> {
    let answer = server.admin.get("/metrics").send();
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let mut samples: BTreeMap<String, Vec<Sample>> = BTreeMap::new();
    for line in answer.body.lines().filter(|line| !line.starts_with('#')) {
        let (name, rest) = line.split_at(line.find(['{', ' ']).unwrap());
        let (labels, value) = rest.rsplit_once(' ').unwrap();
        samples.entry(name.to_owned()).or_default().push((read_labels(labels), value.parse().unwrap()));
    }
    samples
}

fn read_labels(text: &str) -> BTreeMap<String, String> {
    let Some(inner) = text.strip_prefix('{') else { return BTreeMap::new() };
    let inner = inner.strip_suffix("\"}").unwrap();
    let pair = |pair: &str| {
        let (name, value) = pair.split_once("=\"").unwrap();
        (name.to_owned(), value.to_owned())
    };
    inner.split("\",").map(pair).collect()
}

fn value(samples: &BTreeMap<String, Vec<Sample>>, name: &str, labels: &[(&str, &str)]) -> f64 {
    let fits = |(found, _): &&Sample| {
        labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value))
    };
    samples.get(name).into_iter().flatten().filter(fits).map(|(_, value)| value).sum()
}

/// An installation that has done a little of everything.
fn busy(installation: &Installation, server: &Server) -> Vec<String> {
    let tokens: Vec<String> = (0..3).map(|_| installation.issuer.token()).collect();
    let ask = |grant: &str| json!({ "grants": [{ "name": grant, "credentials": ["npm"] }] });
    server.public.exchange(&tokens[0], &ask("deploy")).ok();
    server.public.exchange(&tokens[0], &ask("deploy")).problem(409, "token_replayed");
    server.public.exchange(&tokens[1], &ask("no-such-grant")).problem(403, "access_denied");
    let mut dry = ask("deploy");
    dry["dry_run"] = true.into();
    server.public.exchange(&tokens[2], &dry).ok();
    server.public.exchange("garbage", &ask("deploy")).problem(401, "token_malformed");
    server.public.get("/v1/secret-path-of-a-stranger").send().problem(404, "not_found");
    server.public.call("PATCH", "/v1/exchange").send().problem(405, "method_not_allowed");
    tokens
}

#[test]
fn live_server_shows_every_documented_family_and_no_other() {
    let installation = Installation::new();
    let server = installation.serve();
    busy(&installation, &server);

    let text = server.admin.get("/metrics").send().body;
    let samples = scrape(&server);

    let documented: BTreeSet<String> =
        FAMILIES.iter().map(|family| format!("{} {}", family.name, family.shape.as_str())).collect();
    let shown: BTreeSet<String> =
        text.lines().filter_map(|line| line.strip_prefix("# TYPE ")).map(str::to_owned).collect();
    assert_eq!(shown, documented);
    for family in FAMILIES {
        let suffixes: &[&str] =
            if family.shape == Shape::Histogram { &["_bucket", "_sum", "_count"] } else { &[""] };
        let labels: BTreeSet<&str> = family.labels.iter().map(|(name, _)| *name).collect();
        let mut any = false;
        for suffix in suffixes {
            for (found, _) in samples.get(&format!("{}{suffix}", family.name)).into_iter().flatten() {
                any = true;
                let found: BTreeSet<&str> =
                    found.keys().map(String::as_str).filter(|name| *name != "le").collect();
                assert_eq!(found, labels, "{}", family.name);
            }
        }
        // This server has no certificate and no backend; all else has figures.
        let is_absent = family.name == "hallpass_certificate_not_after_timestamp_seconds"
            || family.name.starts_with("hallpass_backend_");
        assert_eq!(any, !is_absent, "{}", family.name);
    }
}

#[test]
fn what_was_done_is_what_is_counted() {
    let installation = Installation::new();
    let server = installation.serve();
    let before = scrape(&server);

    let tokens = busy(&installation, &server);

    let after = scrape(&server);
    let more =
        |name: &str, labels: &[(&str, &str)]| value(&after, name, labels) - value(&before, name, labels);
    for (outcome, count) in
        [("issued", 1.0), ("dry_run", 1.0), ("token_replayed", 1.0), ("access_denied", 1.0)]
    {
        assert!((more("hallpass_exchanges_total", &[("outcome", outcome)]) - count).abs() < 0.1, "{outcome}");
    }
    let same = |found: f64, due: f64| assert!((found - due).abs() < 0.1, "{found} instead of {due}");
    same(more("hallpass_exchanges_total", &[]), 4.0);
    same(more("hallpass_exchange_duration_seconds_count", &[]), 4.0);
    same(more("hallpass_issuances_total", &[("kind", "sealed"), ("outcome", "issued")]), 1.0);
    for (step, count) in [("verify", 4.0), ("decide", 4.0), ("fetch", 2.0), ("durable", 2.0)] {
        same(more("hallpass_exchange_step_duration_seconds_count", &[("step", step)]), count);
    }
    let route = [("listener", "public"), ("method", "POST"), ("route", "/v1/exchange")];
    let answered = |status, code| {
        let labels: Vec<_> = route.into_iter().chain([("status", status), ("code", code)]).collect();
        more("hallpass_http_requests_total", &labels)
    };
    same(answered("200", "ok"), 2.0);
    same(answered("401", "token_malformed"), 1.0);
    same(answered("403", "access_denied"), 1.0);
    same(answered("409", "token_replayed"), 1.0);
    same(more("hallpass_http_requests_total", &[("method", "other"), ("status", "405")]), 1.0);
    same(more("hallpass_http_requests_total", &[("route", "none"), ("status", "404")]), 1.0);
    same(more("hallpass_http_request_duration_seconds_count", &route), 5.0);
    same(value(&after, "hallpass_http_requests_in_flight", &[("listener", "public")]), 0.0);
    same(value(&after, "hallpass_http_requests_in_flight", &[("listener", "admin")]), 1.0);
    same(value(&after, "hallpass_exchanges_in_flight", &[]), 0.0);
    same(value(&after, "hallpass_store_queue_commands", &[]), 0.0);
    assert!(more("hallpass_store_commit_duration_seconds_count", &[]) >= 4.0);
    // Reading them is an entry too.
    let listed = server.ledger("").len() as f64;
    let told = value(&scrape(&server), "hallpass_ledger_entries", &[]);
    assert!((listed..=listed + 1.0).contains(&told), "{told} instead of {listed}");
    same(value(&after, "hallpass_jwks_usable", &[("issuer", "ci")]), 1.0);
    same(value(&after, "hallpass_ready", &[("part", "ledger")]), 1.0);
    assert!(value(&after, "hallpass_process_resident_memory_bytes", &[]) > 1e6);
    let text = server.admin.get("/metrics").send().body;
    let claims = ["secret-path", "PATCH", "no-such-grant", "deploy", "acme", "garbage"];
    for told in claims.into_iter().chain(tokens.iter().map(String::as_str)) {
        assert!(!text.contains(told), "{told}:\n{text}");
    }
}

#[test]
fn refused_policy_set_is_an_alert_that_is_counted() {
    let installation = Installation::new();
    let server = installation.serve();
    let alerts = || value(&scrape(&server), "hallpass_alerts_total", &[("kind", "policy_rejected")]);
    assert!(alerts() < 0.1);

    installation.write("policies/grants/broken.yaml", "grant: [");

    eventually("the alert", || (alerts() > 0.9).then_some(()));
    let samples = scrape(&server);
    assert!(value(&samples, "hallpass_policy_loads_total", &[("outcome", "refused")]) > 0.9);
    assert!(!server.entries("ALERT_POLICY_REJECTED").is_empty());
}

#[test]
fn metrics_stand_on_the_admin_listener_only() {
    let installation = Installation::new();
    let server = installation.serve();

    server.public.get("/metrics").send().problem(404, "not_found");
    server.admin.call("POST", "/metrics").send().problem(405, "method_not_allowed");
}

#[test]
fn certificate_that_is_served_shows_when_it_ends() {
    let installation = Installation::new();
    let ends = |params: &mut rcgen::CertificateParams| params.not_after = rcgen::date_time_ymd(2031, 1, 2);
    let certified = Authority::new().certify(&["127.0.0.1"], ends);
    installation.write("tls.crt", &certified.certificate);
    installation.write("tls.key", &certified.key);
    let plain = fs::read_to_string(installation.file("hallpass.yaml")).unwrap();
    let secured = plain.replace("public: { ", "public: { tls: { certificate: tls.crt, key: tls.key }, ");
    installation.write("hallpass.yaml", &secured);

    let server = installation.serve();

    let samples = scrape(&server);
    let found = &samples["hallpass_certificate_not_after_timestamp_seconds"];
    let due: jiff::Timestamp = "2031-01-02T00:00:00Z".parse().unwrap();
    assert_eq!(
        found,
        &[(BTreeMap::from([("listener".to_owned(), "public".to_owned())]), due.as_second() as f64)]
    );
}

#[test]
fn dashboard_and_rules_name_what_a_live_server_shows() {
    let installation = Installation::new();
    let server = installation.serve();
    busy(&installation, &server);
    let samples = scrape(&server);
    // A family by its name too: texts for people say that, and this server has no certificate and no backend.
    let families = FAMILIES.iter().map(|family| family.name.to_owned());
    let buckets = FAMILIES.iter().filter(|family| family.shape == Shape::Histogram);
    let buckets = buckets.map(|family| format!("{}_bucket", family.name));
    let known: BTreeSet<String> = samples.keys().cloned().chain(families).chain(buckets).collect();

    let dashboard: Value = serde_json::from_str(&example("dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let queries: Vec<&str> = panels
        .iter()
        .flat_map(|panel| panel["targets"].as_array().into_iter().flatten())
        .map(|target| target["expr"].as_str().unwrap())
        .collect();
    assert!(queries.len() > 20, "{queries:?}");
    let rules = example("alerts.yaml");
    for text in queries.iter().copied().chain([rules.as_str()]) {
        let used = names(text);
        assert!(!used.is_empty(), "{text}");
        let unknown: Vec<_> = used.difference(&known).collect();
        assert!(unknown.is_empty(), "{unknown:?} in {text}");
    }
    // And every family is looked at somewhere, a histogram by its buckets.
    let used: BTreeSet<String> = queries.iter().flat_map(|query| names(query)).collect();
    for family in FAMILIES.iter().filter(|family| family.shape == Shape::Histogram) {
        assert!(!used.contains(family.name), "{} has no value of its own", family.name);
    }
    for family in FAMILIES {
        assert!(used.iter().any(|name| name.starts_with(family.name)), "no panel shows {}", family.name);
    }
    let ids: BTreeSet<i64> = panels.iter().map(|panel| panel["id"].as_i64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels with one id");
}

#[test]
fn promtool_reads_the_metrics_and_the_rules() {
    let installation = Installation::new();
    let server = installation.serve();
    busy(&installation, &server);
    let text = server.admin.get("/metrics").send().body;

    let mut check = promtool(&["check", "metrics"]).stdin(Stdio::piped()).spawn().unwrap();
    check.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let checked = check.wait_with_output().unwrap();
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stderr));

    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/observe/alerts.yaml");
    let told = run(promtool(&["check", "rules"]).arg(rules), "");
    assert!(told.contains("SUCCESS"), "{told}");
}

#[test]
fn log_lines_carry_the_ids_of_request_decision_and_trace() {
    let installation = Installation::new();
    let server = installation.serve_by(&mut installation.command(&["serve", "--log-format", "json"]));
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let span = "00f067aa0ba902b7";
    let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] }).to_string();
    let call = |traceparent: &str| {
        let call = server.public.call("POST", "/v1/exchange").bearer(&installation.issuer.token());
        call.header("traceparent", traceparent).json(&ask).send().ok()
    };

    let traced = call(&format!("00-{trace}-{span}-01"));
    let other = call(&format!("00-{}-{span}-01", "0".repeat(32)));

    let line = |decision: &Value| {
        eventually("the request's line in the log", || {
            let logs = server.logs();
            let mut lines = logs.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
            lines.find(|line| line["http.route"] == "/v1/exchange" && line["decision_id"] == *decision)
        })
    };
    let found = line(&traced["decision_id"]);
    assert!(found["request_id"].as_str().unwrap().starts_with("req_"), "{found}");
    assert_eq!((&found["trace_id"], &found["parent_id"]), (&json!(trace), &json!(span)), "{found}");
    let found = line(&other["decision_id"]);
    assert_eq!((found.get("trace_id"), found.get("parent_id")), (None, None), "{found}");
    let entries = json!(server.ledger("")).to_string();
    assert!(!entries.contains(trace) && !entries.contains(span), "the caller's word is in the ledger");
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/observe").join(name)).unwrap()
}

/// The metric names in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
    words.filter(|word| word.starts_with("hallpass_")).map(str::to_owned).collect()
}

fn promtool(arguments: &[&str]) -> Command {
    let mut command = Command::new("promtool");
    command.args(arguments);
    command
}
