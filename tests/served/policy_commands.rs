//! `hallpass policy check`, `explain` and `schema` as an admin runs them: in a folder, against a configuration, and
//! about decisions that a broker made.

use std::{fs, process::Output};

use serde_json::{Value, json};

use super::support::{
    Installation,
    installation::{CANARY, binary, finish},
};

fn run(installation: &Installation, arguments: &[&str]) -> (i32, String, String) {
    told(&finish(&mut installation.command(arguments), ""))
}

fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code().unwrap(), text(&output.stdout), text(&output.stderr))
}

fn check(installation: &Installation, format: &str) -> Value {
    let (_, printed, _) = run(installation, &["policy", "check", "--format", format]);
    serde_json::from_str(&printed).unwrap()
}

/// One key mistyped, which would drop a condition.
fn spoil(installation: &Installation) {
    let file = installation.file("policies/grants/deploy.yaml");
    let right = fs::read_to_string(file).unwrap();
    let wrong = right.replace("      repository_id:", "      repositry_id:");
    assert_ne!(wrong, right);
    installation.write("policies/grants/deploy.yaml", &wrong);
}

#[test]
fn check_says_what_the_broker_would_say_and_prints_the_digest_last() {
    let installation = Installation::new();

    let (exit, printed, talk) = run(&installation, &["policy", "check"]);

    assert_eq!((exit, talk.as_str()), (0, ""), "{printed}");
    let digest = printed.lines().last().unwrap().strip_prefix("digest: ").unwrap().to_owned();
    let server = installation.serve();
    assert_eq!(server.entries("POLICY_LOADED")[0]["result"]["digest"], digest);

    spoil(&installation);
    let (exit, printed, _) = run(&installation, &["policy", "check", "policies"]);
    assert_eq!(exit, 20);
    assert!(printed.contains("error[unknown-claim]"), "{printed}");
    assert!(printed.contains("--> policies/grants/deploy.yaml:8:7"), "{printed}");
    assert!(printed.contains("= fix: did you mean `repository_id`?"), "{printed}");
}

#[test]
fn check_finds_the_set_that_a_changed_file_is_in() {
    let installation = Installation::new();
    spoil(&installation);
    for path in ["policies/grants/deploy.yaml", "policies/issuers", "policies"] {
        let (exit, printed, _) = run(&installation, &["policy", "check", path]);
        assert_eq!(exit, 20, "{path}: {printed}");
    }
    let (exit, _, talk) = run(&installation, &["policy", "check", "hallpass.yaml"]);
    assert!(exit == 2 && talk.contains("is in no policy directory"), "{talk}");
    let (exit, _, talk) = run(&installation, &["policy", "check", "nowhere"]);
    assert!(exit == 2 && talk.contains("nowhere"), "{talk}");
}

#[test]
fn every_format_names_file_line_code_and_fix() {
    let installation = Installation::new();
    spoil(&installation);
    let file = installation.file("policies/grants/deploy.yaml").canonicalize().unwrap();
    let is_file = |value: &Value| value.as_str().unwrap().ends_with("grants/deploy.yaml");

    let found = check(&installation, "json");
    let finding = &found["findings"][0];
    assert!(
        is_file(&finding["file"]) && found["ok"] == json!(false) && found["digest"].is_string(),
        "{found}"
    );
    assert_eq!((&finding["line"], &finding["column"], &finding["width"]), (&json!(8), &json!(7), &json!(12)));

    let sarif = check(&installation, "sarif");
    let place = &sarif["runs"][0]["results"][0]["locations"][0]["physicalLocation"];
    assert!(
        is_file(&place["artifactLocation"]["uri"]) && place["region"]["startLine"] == json!(8),
        "{sarif}"
    );

    let gitlab = check(&installation, "gitlab");
    assert_eq!(
        (&gitlab[0]["check_name"], &gitlab[0]["location"]["lines"]["begin"]),
        (&json!("unknown-claim"), &json!(8))
    );

    let (exit, github, _) = run(&installation, &["policy", "check", "--format", "github"]);
    assert!(
        exit == 20
            && github.starts_with("::error file=")
            && github.contains(",line=8,col=7,endColumn=19,title=unknown-claim::"),
        "{github}"
    );

    let (_, junit, _) = run(&installation, &["policy", "check", "--format", "junit"]);
    assert!(junit.contains("failures=\"1\"") && junit.contains("unknown-claim"), "{junit}");
    assert!(file.exists());
}

#[test]
fn what_could_not_be_looked_at_is_named_and_can_be_refused() {
    let installation = Installation::new();
    let elsewhere = tempfile::tempdir().unwrap();
    let policies = installation.file("policies");
    let alone = |more: &[&str]| {
        let mut command = binary();
        command.args(["policy", "check"]).args(more).arg(&policies).current_dir(elsewhere.path());
        told(&finish(&mut command, ""))
    };
    let (exit, printed, _) = alone(&[]);
    assert_eq!(exit, 0, "{printed}");
    for what in [
        "whether hallpass.yaml trusts these issuers",
        "whether hallpass.yaml has the backends",
        "whether the sealed secrets exist",
        "whether an audience is this broker's own URL or issuer",
    ] {
        assert!(printed.contains(&format!("unchecked: {what}")), "{printed}");
    }
    let (exit, _, talk) = alone(&["--require-config"]);
    assert!(exit == 2 && talk.contains("--config"), "{talk}");

    let (exit, printed, _) = run(&installation, &["policy", "check", "--require-config"]);
    assert!(exit == 0 && !printed.contains("unchecked"), "{printed}");
}

#[test]
fn issuers_and_secrets_are_checked_against_the_installation() {
    let installation = Installation::new();
    let (_, printed, _) = run(&installation, &["policy", "check"]);
    // A sample grant names a secret that nobody has set.
    assert!(
        printed.contains("warning[secret-missing]") && printed.contains("hallpass secret set"),
        "{printed}"
    );
    let (exit, _, _) = run(&installation, &["policy", "check", "--deny-warnings"]);
    assert_eq!(exit, 20);

    let issuer = fs::read_to_string(installation.file("policies/issuers/ci.yaml")).unwrap();
    installation.write("policies/issuers/ci.yaml", &issuer.replace("issuer: ci", "issuer: other"));
    let (exit, printed, _) = run(&installation, &["policy", "check"]);
    assert!(exit == 20 && printed.contains("error[untrusted-issuer]"), "{printed}");
}

#[test]
fn breach_of_a_guardrail_is_exit_23_and_no_error_of_the_set() {
    let installation = Installation::new();
    installation.write(
        "policies/guardrails/base.yaml",
        "guardrail: base\ntargets: { sealed: [\"npm-*\", \"lost\"] }\n",
    );
    let (exit, printed, _) = run(&installation, &["policy", "check"]);
    assert_eq!(exit, 23, "{printed}");
    assert!(printed.contains("the guardrail `base`") && printed.contains("grants/deploy.yaml"), "{printed}");
    let found = check(&installation, "json");
    assert_eq!((&found["ok"], &found["accepted"]), (&json!(false), &json!(true)));
}

#[test]
fn explain_shows_wanted_and_got_and_that_nobody_checked_the_signature() {
    let installation = Installation::new();
    let explain = |claims: Value, more: &[&str]| {
        installation.write("claims.json", &claims.to_string());
        let arguments =
            [&["policy", "explain", "--claims", "claims.json", "--grant", "deploy"], more].concat();
        run(&installation, &arguments)
    };
    let right = installation.issuer.valid_claims();

    let (exit, printed, talk) = explain(right.clone(), &[]);
    assert!(exit == 0 && printed.starts_with("permit\n"), "{printed}{talk}");
    assert!(talk.contains("SIGNATURE NOT CHECKED"), "{talk}");

    let mut wrong = right.clone();
    wrong["ref"] = json!("refs/heads/dev\u{1b}[2J");
    let (exit, printed, talk) = explain(wrong, &[]);
    assert!(exit == 2 && talk.contains("control-characters"), "{printed}{talk}");
    let mut wrong = right.clone();
    wrong["ref"] = json!("refs/heads/dev");
    let (exit, printed, _) = explain(wrong, &[]);
    assert_eq!(exit, 10);
    let line = printed.lines().find(|line| line.contains("NO  ref:")).unwrap_or_else(|| panic!("{printed}"));
    assert!(line.contains("wanted \"refs/heads/main\", got \"refs/heads/dev\""), "{line}");
    assert!(line.contains("grants/deploy.yaml:9"), "{line}");

    let (exit, printed, _) = explain(right, &["--output", "json"]);
    let tree: Value = serde_json::from_str(&printed).unwrap();
    assert!(exit == 0 && tree["explanation"]["permit"] == json!(true), "{tree}");
    assert!(tree["caveats"][0].as_str().unwrap().contains("SIGNATURE NOT CHECKED"));
}

#[test]
fn explain_reads_a_token_and_shows_no_part_of_it() {
    let installation = Installation::new();
    let token = installation.issuer.token();
    let mut command = installation.command(&["policy", "explain", "--token", "-", "--grant", "other-team"]);
    let (exit, printed, talk) = told(&finish(&mut command, &token));
    assert_eq!(exit, 10, "{printed}{talk}");
    assert!(printed.contains("NO  repository_id: wanted \"999\", got \"70155112\""), "{printed}");
    let signature = token.rsplit('.').next().unwrap();
    assert!(!printed.contains(signature) && !talk.contains(signature));
    let (exit, _, talk) =
        told(&finish(&mut installation.command(&["policy", "explain", "--token", "-"]), "a.b"));
    assert!(exit == 2 && talk.contains("no token"), "{talk}");
}

#[test]
fn explain_of_a_decision_agrees_with_what_the_broker_decided() {
    let installation = Installation::new();
    let server = installation.serve();
    let permitted =
        server.public.exchange(&installation.issuer.token(), &json!({ "grants": ["deploy"] })).ok();
    let token = installation.issuer.token_with(json!({ "ref": "refs/heads/dev" }));
    let denied =
        server.public.exchange(&token, &json!({ "grants": ["deploy"] })).problem(403, "access_denied");

    for (answer, exit, verdict) in [(&permitted, 0, "permit"), (&denied, 10, "deny: no-rule")] {
        let id = answer["decision_id"].as_str().unwrap();
        let (code, printed, talk) = run(&installation, &["policy", "explain", "--decision", id]);
        assert_eq!((code, printed.lines().next()), (exit, Some(verdict)), "{printed}{talk}");
        assert!(
            talk.contains("the broker had checked the token then") && !talk.contains("NOT CHECKED"),
            "{talk}"
        );
        assert!(!printed.contains(CANARY));
    }
    let reads = server.entries("READ");
    assert!(reads.iter().any(|entry| entry["result"]["what"] == json!("explain")), "{reads:?}");

    let id = permitted["decision_id"].as_str().unwrap();
    installation.write("policies/notes.txt", "another digest");
    let (_, _, talk) = run(&installation, &["policy", "explain", "--decision", id]);
    assert!(talk.contains("OTHER POLICY"), "{talk}");
    let (exit, _, talk) =
        run(&installation, &["policy", "explain", "--decision", "dec_00000000000000000000000000"]);
    assert!(exit == 2 && talk.contains("no decision"), "{talk}");
}

#[test]
fn schemas_are_written_where_no_set_sees_them() {
    let installation = Installation::new();
    let digest = |installation: &Installation| check(installation, "json")["digest"].clone();
    let before = digest(&installation);
    let (exit, _, talk) = run(&installation, &["policy", "schema", "--dir", "policies"]);
    assert_eq!(exit, 0, "{talk}");
    for kind in ["grant", "guardrail", "issuer", "test"] {
        let written =
            fs::read_to_string(installation.file(&format!("policies/.schemas/{kind}.json"))).unwrap();
        let written: Value = serde_json::from_str(&written).unwrap();
        assert_eq!(written["$schema"], "http://json-schema.org/draft-07/schema#");
        let (_, printed, _) = run(&installation, &["policy", "schema", kind]);
        assert_eq!(serde_json::from_str::<Value>(&printed).unwrap(), written);
    }
    assert_eq!(digest(&installation), before, "what has a leading dot is no part of a set");
    let (exit, _, talk) = run(&installation, &["policy", "schema", "grunt"]);
    assert!(exit == 2 && talk.contains("grant, guardrail, issuer, test"), "{talk}");
}
