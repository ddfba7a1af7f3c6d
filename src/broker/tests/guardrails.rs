//! What the ledger says of guardrails, and what the caller hears: nothing.

use super::*;

const OWNED: &str = r#"
grant: owned
disclose: owner
allow:
  - name: main-only
    issuer: github
    match: { repository_owner_id: "4216", repository_id: "701", ref: refs/heads/release, environment: production }
credentials:
  npm: { sealed: { secret: npm-token } }
"#;

/// A world with a guardrail of that text and mode.
async fn guarded(guardrail: &str) -> World {
    let world = World::new().await;
    let mut files = policy(&[GRANT, BARE, OWNED]);
    let text = format!("guardrail: base\n{guardrail}\n");
    files.0.insert("guardrails/base.yaml".to_owned(), text.into_bytes());
    world.broker.offer_policy(files, None).await.unwrap();
    world
}

#[tokio::test]
async fn a_refusal_by_a_guardrail_names_it_in_the_ledger_and_nowhere_else() {
    let world = guarded("require: { lifetime: [leased, fixed] }").await;
    let refused = world.exchange(&token("j1", &[]), ask("payments-prod")).await.err().unwrap();
    let unknown = world.exchange(&token("j2", &[]), ask("nope")).await.err().unwrap();
    assert_eq!(Refused { decision: None, ..refused }, Refused { decision: None, ..unknown });
    let denied = world.entries().await.into_iter().find(|entry| entry["code"] == "DENIED").unwrap();
    assert_eq!(denied["result"]["reason"], "guardrail");
    assert_eq!(
        denied["result"]["breaches"],
        json!([{
            "grant": "payments-prod", "credential": "npm", "guardrail": "base", "requirement": "require.lifetime",
        }])
    );
    // What the guardrail does not speak of is permitted.
    world.exchange(&token("j3", &[]), only("payments-prod", "sts")).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn a_guardrail_that_reports_lets_the_permit_stand_and_says_so_in_intent_alone() {
    let world =
        guarded("require: { lifetime: [leased, fixed] }\nmode: report\nreport_until: 2099-12-31").await;
    let issued = world.exchange(&token("j1", &[]), ask("payments-prod")).await.unwrap();
    let receipts: Vec<String> = issued
        .receipts
        .iter()
        .map(|(_, receipt)| String::from_utf8(receipt.entry.clone()).unwrap())
        .collect();
    issued.delivery.confirm();
    let intents: Vec<Value> =
        world.entries().await.into_iter().filter(|entry| entry["code"] == "INTENT").collect();
    let [npm, sts] = intents.as_slice() else { panic!("two") };
    assert_eq!(npm["request"]["credential"], "npm");
    assert_eq!(npm["policy"]["class"], "production");
    assert_eq!(npm["result"]["would_deny"][0]["guardrail"], "base");
    assert_eq!(npm["result"]["would_deny"][0]["requirement"], "require.lifetime");
    assert!(sts["result"].is_null());
    assert!(receipts.iter().all(|receipt| !receipt.contains("would_deny") && !receipt.contains("\"base\"")));

    let caller = world.identify(&token("j2", &[])).await.unwrap();
    let dry = Ask { dry_run: true, ..ask("payments-prod") };
    assert!(world.broker.exchange(caller, dry).await.is_ok());
    let dry_run = world.entries().await.pop().unwrap();
    assert_eq!(dry_run["result"]["would_issue"][0]["would_deny"][0]["guardrail"], "base");
    assert!(dry_run["result"]["would_issue"][1]["would_deny"].is_null());
}

#[tokio::test]
async fn owners_hear_which_claims_failed_and_others_hear_nothing() {
    let world = guarded("require: { max_ttl: 1h }").await;
    let own = world.exchange(&token("j1", &[]), ask("owned")).await.err().unwrap();
    let mut failed = own.failed_claims.clone().unwrap();
    failed.sort();
    assert!(failed.contains(&"ref".to_owned()), "{failed:?}");
    let other = token("j2", &[("repository_id", json!("999"))]);
    let other = world.exchange(&other, ask("owned")).await.err().unwrap();
    assert_eq!((other.failed_claims, &other.detail), (None, &own.detail));
    let silent = token("j3", &[("ref", json!("refs/heads/dev"))]);
    let silent = world.exchange(&silent, ask("payments-prod")).await.err().unwrap();
    assert_eq!(silent.failed_claims, None);
}

#[tokio::test]
async fn a_set_that_lacks_a_guardrail_is_refused_by_name() {
    let world = guarded("require: { max_ttl: 1h }").await;
    let refused = world.broker.offer_policy(policy(&[GRANT]), None).await;
    let Err(PolicyRefused::Lacking { lost, .. }) = refused else { panic!("it was taken") };
    assert_eq!(lost, ["guardrail/base"]);
    // Another file and another text under the name are the guardrail still; another name is not.
    let with = |name: &str| {
        let mut files = policy(&[GRANT]);
        let text = format!("guardrail: {name}\nrequire: {{ max_ttl: 30m }}\n");
        files.0.insert("guardrails/moved.yaml".to_owned(), text.into_bytes());
        files
    };
    assert!(world.broker.offer_policy(with("renamed"), None).await.is_err());
    assert!(world.broker.offer_policy(with("base"), None).await.is_ok());
}
