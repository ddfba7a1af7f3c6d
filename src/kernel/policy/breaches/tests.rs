use super::*;
use crate::kernel::policy::{Severity, load, set::Files};

const GITHUB: &str = "issuer: github\nprofile: github-actions\nurl: https://token.actions.githubusercontent.com\naudience: https://broker.test\n";
const OWN: &str = "issuer: own\nprofile: generic\nurl: https://ci.test\naudience: https://broker.test\n";
const GRANT: &str = r#"grant: team-deploy
allow:
  - name: main
    issuer: github
    match:
      repository_owner_id: "4216"
      repository_id: "701"
      event_name: [push, workflow_run]
  - name: own
    issuer: own
    match: { sub: job-1 }
credentials:
  npm: { sealed: { secret: team-npm } }
  sts: { oidc: { audience: "https://team.test/a" }, ttl: 4m }
"#;

fn set(guardrail: &str) -> PolicySet {
    let files = [
        ("issuers/github.yaml", GITHUB),
        ("issuers/own.yaml", OWN),
        ("grants/team/a.yaml", GRANT),
        ("guardrails/g.yaml", guardrail),
    ];
    let files = files.into_iter().map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
    load::load(&Files(files.collect()), None, None).unwrap_or_else(|findings| panic!("{findings:#?}")).set
}

fn found(guardrail: &str) -> Vec<(usize, Severity)> {
    let now = "2027-01-13T10:00:00Z".parse().unwrap();
    let found = breaches(&set(&format!("guardrail: g\n{guardrail}\n")), now);
    assert!(found.iter().all(|finding| finding.file == "grants/team/a.yaml" && finding.code == "guardrail"));
    found.iter().map(|finding| (finding.line, finding.severity)).collect()
}

#[test]
fn template_that_could_reach_outside_is_told_as_a_warning_and_one_that_must_as_an_error() {
    use Severity::{Error, Warning};
    for (allowed, due) in [
        ("kv/data/ci/**", None),
        ("kv/data/ci/*", None),
        ("kv/data/ci/701", Some(Warning)),
        ("kv/data/other/*", Some(Error)),
    ] {
        let grant = GRANT.replace(
            "sealed: { secret: team-npm }",
            "vault: { engine: kv2, path: \"kv/data/ci/${claims.repository_id}\" }",
        );
        let own = grant.find("  - name: own").unwrap()..grant.find("credentials:").unwrap();
        let grant = grant.replace(&grant[own], "");
        let guardrail = format!("guardrail: g\ntargets: {{ oidc: any, vault: \"{allowed}\" }}\n");
        let files = [
            ("issuers/github.yaml", GITHUB),
            ("grants/team/a.yaml", &grant),
            ("guardrails/g.yaml", &guardrail),
        ];
        let files = files.into_iter().map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
        let set = load::load(&Files(files.collect()), None, None)
            .unwrap_or_else(|findings| panic!("{findings:#?}"))
            .set;
        let told = breaches(&set, "2027-01-13T10:00:00Z".parse().unwrap());
        assert_eq!(told.first().map(|finding| finding.severity), due, "{allowed}");
        assert_eq!(told.len(), usize::from(due.is_some()), "{allowed}");
    }
}

#[test]
fn every_breach_is_told_once_at_its_place() {
    use Severity::{Error, Warning};
    for (guardrail, due) in [
        ("require: { grant_names: [\"prod-*\"] }", vec![(1, Error)]),
        ("require: { issuers: github }", vec![(9, Error)]),
        ("require: { pinned: project }", vec![(9, Error)]),
        ("require: { protected_ref: true }", vec![(9, Error)]),
        ("require: { runner: hosted }", vec![(9, Error)]),
        ("require: { lifetime: fixed }", vec![(13, Error)]),
        ("require: { lifetime: [leased] }", vec![(13, Error), (14, Error)]),
        ("require: { max_ttl: 2m }", vec![(14, Warning)]),
        ("require: { max_ttl: 30s }", vec![(14, Error)]),
        ("targets: { sealed: \"team-*\" }", vec![(14, Error)]),
        ("targets: { sealed: any, oidc: \"https://x.test\" }", vec![(14, Error)]),
        ("forbid: { triggers: workflow_run }", vec![(8, Error), (9, Error)]),
        ("applies_to: { issuer: github }\nforbid: { triggers: workflow_run }", vec![(8, Error)]),
        ("applies_to: { folder: elsewhere }\nrequire: { issuers: github }", vec![]),
        ("targets: { sealed: any, oidc: any }", vec![]),
        ("require: { issuers: [github, own], max_ttl: 4m, grant_names: [\"team-*\"] }", vec![]),
        ("require: { issuers: github }\nmode: report\nreport_until: 2027-01-13", vec![(9, Warning)]),
        ("require: { issuers: github }\nmode: report\nreport_until: 2027-01-12", vec![(9, Error)]),
    ] {
        assert_eq!(found(guardrail), due, "{guardrail}");
    }
}

#[test]
fn finding_names_the_guardrail_and_what_to_do() {
    let now = "2027-01-13T10:00:00Z".parse().unwrap();
    let found = breaches(&set("guardrail: g\nrequire:\n  issuers: github\n"), now);
    assert_eq!(
        found[0].message,
        "the guardrail `g` (guardrails/g.yaml:3) refuses this: require.issuers [github], and the rule takes tokens of `own`"
    );
    assert_eq!(found[0].remedy, "remove the rule");
}
