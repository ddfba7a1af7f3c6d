//! The API's description is true: the same from the command as from the server, reviewed as a snapshot, read by a
//! validator that is not ours, and held against a live server by a fuzzer that knows nothing but it.

use std::{fs, path::Path, process::Command};

use serde_json::{Value, json};

use super::support::{
    Client, Installation,
    installation::{binary, finish, run},
    python,
};

#[test]
fn command_and_server_show_one_document() {
    let installation = Installation::new();
    let server = installation.serve();

    let served = server.public.get("/v1/openapi.json").send();
    let printed: Value = serde_json::from_str(&run(binary().arg("openapi"), "")).unwrap();

    assert_eq!(served.ok(), printed);
    assert_eq!(served.header("content-type"), "application/json");
    server.admin.get("/v1/openapi.json").send().problem(404, "not_found");
}

#[test]
fn document_is_as_it_was_reviewed() {
    let document: Value = serde_json::from_str(&run(binary().arg("openapi"), "")).unwrap();
    insta::assert_snapshot!("document", serde_json::to_string_pretty(&document).unwrap());
}

#[test]
fn openapi_spec_validator_accepts_the_document() {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    fs::write(&document, run(binary().arg("openapi"), "")).unwrap();

    let validator = |file: &Path| finish(tool("openapi-spec-validator").arg(file), "");

    let told = validator(&document);
    assert!(told.status.success(), "{told:?}");
    let broken = fs::read_to_string(&document).unwrap().replacen("\"responses\"", "\"replies\"", 1);
    fs::write(&document, broken).unwrap();
    assert!(!validator(&document).status.success(), "it accepts whatever it is given");
}

#[test]
fn schemathesis_finds_no_answer_on_the_public_listener_that_is_not_described() {
    let installation = Installation::new();
    let server = installation.serve();
    fuzz(&installation, &server.public, "public");
    assert!(!server.entries("ISSUED").is_empty() && !server.entries("DENIED").is_empty());
}

#[test]
fn schemathesis_finds_no_answer_on_the_admin_listener_that_is_not_described() {
    let installation = Installation::new();
    let server = installation.serve();
    server.only(&installation.issuer.token(), "npm");
    fuzz(&installation, &server.admin, "admin");
}

/// Asks everything that stands under a tag, well and badly, in about a quarter of a minute.
fn fuzz(installation: &Installation, client: &Client, tag: &str) {
    let folder = tempfile::tempdir().unwrap();
    let document = folder.path().join("openapi.json");
    fs::write(&document, run(binary().arg("openapi"), "")).unwrap();
    let jobs: Vec<String> = (0..TOKENS).map(|_| installation.issuer.token()).collect();
    let issuance = if tag == "public" {
        let ask = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
        client.exchange(&installation.issuer.token(), &ask).ok()["issuances"][0].clone()
    } else {
        Value::Null
    };
    let given = json!({ "jobs": jobs, "issuance": issuance,
        "auditor": installation.admin_token("auditor"), "operator": installation.admin_token("operator"),
    });
    let given_file = folder.path().join("given.json");
    fs::write(&given_file, given.to_string()).unwrap();

    let mut command = tool("schemathesis");
    command
        .arg("run")
        .arg(&document)
        .args(["--url", &format!("http://{}", client.address), "--include-tag", tag])
        .args(["--checks", CHECKS, "--phases", "examples,coverage,fuzzing"])
        .args([
            "--max-examples",
            "20",
            "--seed",
            "7",
            "--workers",
            "2",
            "--no-color",
            "--continue-on-failure",
        ])
        .args(["--suppress-health-check", "all", "--warnings", "off", "--request-timeout", "10"])
        .env("SCHEMATHESIS_HOOKS", "fuzz")
        .env("PYTHONPATH", python::tests().join("openapi"))
        .env("HALLPASS_FUZZ", &given_file)
        .current_dir(folder.path());
    let mut ask = || {
        let told = finish(&mut command, "");
        let streams = [&told.stdout, &told.stderr].map(|stream| String::from_utf8_lossy(stream).into_owned());
        (told.status.success(), streams.concat())
    };
    // The seed is fixed, so what is not described is found again; a machine that stood still for seconds is not.
    let (first, before) = ask();
    let (is_described, said) = if first { (first, before) } else { ask() };
    assert!(is_described, "{said}");
    assert!(said.contains("generated"), "it asked nothing: {said}");
}

/// A program of the pinned libraries.
fn tool(name: &str) -> Command {
    python::program("openapi", name)
}

/// Without those that would take a refusal by policy for a fault of the server.
const CHECKS: &str = "not_a_server_error,status_code_conformance,content_type_conformance,\
    response_headers_conformance,response_schema_conformance,unsupported_method,allow_header_conformance,ignored_auth";
/// More than are asked for.
const TOKENS: usize = 1_500;
