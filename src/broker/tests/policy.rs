//! Taking a policy set: what is recorded, what stays, and that exchanges go on under the set that they began with.

use super::*;
use crate::kernel::lifetime::after;

/// A set without the issuer `own`, whose rules nobody needs.
fn without_own() -> Files {
    let mut files = policy(&[GRANT, BARE]);
    files.0.remove("issuers/own.yaml");
    files
}

async fn let_in(world: &World, digest: Digest) {
    let entry = world.broker.entry(EntryCode::PolicyAccepted, json!({})).unwrap();
    let until = after(now(), Duration::from_secs(86_400));
    world.store.let_policy_in(LettingIn { digest, until, entry }).await.unwrap();
}

#[tokio::test]
async fn a_set_that_lacks_an_issuer_is_refused_with_the_command_that_lets_it_in() {
    let world = World::new().await;
    let before = world.broker.policy().unwrap().digest;
    let commit = Some("9f31".to_owned());
    let Err(PolicyRefused::Lacking { digest, lost }) = world.broker.offer_policy(without_own(), commit).await
    else {
        panic!("it was taken")
    };
    assert_eq!((digest, lost), (without_own().digest(), vec!["issuer/own".to_owned()]));
    assert_eq!(world.broker.policy().unwrap().digest, before);
    assert_eq!(world.codes().await, ["POLICY_REJECTED", "ALERT_POLICY_REJECTED"]);
    let result = world.entries().await.pop().unwrap()["result"].clone();
    assert_eq!(result["command"], format!("hallpass policy accept {digest}"));
    assert_eq!((&result["digest"], &result["commit"]), (&json!(digest.to_string()), &json!("9f31")));
    assert_eq!(result["lost"], json!(["issuer/own"]));
}

#[tokio::test]
async fn a_set_that_is_let_in_is_taken_and_its_entry_says_what_it_lacks() {
    let world = World::new().await;
    let_in(&world, without_own().digest()).await;
    assert_eq!(world.broker.offer_policy(without_own(), None).await.unwrap(), without_own().digest());
    let loaded = world.entries().await.pop().unwrap();
    assert_eq!(
        (&loaded["code"], &loaded["result"]["lost"]),
        (&json!("POLICY_LOADED"), &json!(["issuer/own"]))
    );
    // From now on it is the set that others must not lack.
    world.broker.offer_policy(without_own(), None).await.unwrap();
    assert!(world.entries().await.pop().unwrap()["result"]["lost"].is_null());
}

#[tokio::test]
async fn letting_in_is_no_bypass_of_mistakes() {
    let world = World::new().await;
    let mut files = without_own();
    files.0.insert("grants/bad.yaml".to_owned(), b"grant: x\n".to_vec());
    let_in(&world, files.digest()).await;
    assert!(matches!(world.broker.offer_policy(files, None).await, Err(PolicyRefused::Findings(_))));
}

#[tokio::test]
async fn a_set_whose_acceptance_cannot_be_recorded_does_not_decide() {
    let world = World::new().await;
    let before = world.broker.policy().unwrap().digest;
    world.store.close().await;
    let refused = world.broker.offer_policy(policy(&[GRANT]), None).await;
    assert!(matches!(refused, Err(PolicyRefused::Unrecorded(_))));
    assert_eq!(world.broker.policy().unwrap().digest, before);
}

#[tokio::test]
async fn a_request_that_began_before_a_swap_ends_under_the_set_that_it_began_with() {
    let world = World::new().await;
    let before = world.broker.policy().unwrap().digest;
    let caller = world.identify(&token("j1", &[])).await.unwrap();
    let denied = world.identify(&token("j2", &[("ref", json!("refs/heads/dev"))])).await.unwrap();
    let next = GRANT.replace("deploy-from-main", "another-rule").replace("npm-token", "not-there");
    let after = world.broker.offer_policy(policy(&[&next]), None).await.unwrap();

    let Ok(Outcome::Issued(issued)) = world.broker.exchange(caller, ask("payments-prod")).await else {
        panic!("the set that it began with permits it")
    };
    issued.delivery.confirm();
    assert!(world.broker.exchange(denied, ask("payments-prod")).await.is_err());

    let mut seen = 0;
    for entry in world.entries().await {
        if ["INTENT", "ISSUED", "DENIED"].contains(&entry["code"].as_str().unwrap()) {
            assert_eq!(entry["policy"]["digest"], before.to_string(), "{entry}");
            seen += 1;
        }
        if entry["code"] == "INTENT" {
            assert_eq!(entry["policy"]["rule"], "deploy-from-main");
            assert_ne!(entry["request"]["target"], "not-there");
        }
    }
    assert_eq!(seen, 5);
    assert_eq!(world.refused(&token("j3", &[]), ask("payments-prod")).await, Code::BackendFailed);
    let failed = world.entries().await.pop().unwrap();
    assert_eq!(failed["policy"]["digest"], after.to_string());
}

/// One thread runs everything here: were a set read on it, its entry would stand before all that was asked for later.
#[tokio::test]
async fn exchanges_are_answered_while_a_large_set_is_read() {
    let world = World::new().await;
    let many: Vec<String> =
        (0..2_000).map(|n| BARE.replace("grant: bare", &format!("grant: g{n}"))).collect();
    let mut grants = vec![GRANT, BARE];
    grants.extend(many.iter().map(String::as_str));
    let files = policy(&grants);
    let token = token("j1", &[]);

    let broker = Arc::clone(&world.broker);
    let reading = tokio::spawn(async move { broker.offer_policy(files, None).await });
    tokio::task::yield_now().await;
    world.exchange(&token, only("payments-prod", "npm")).await.unwrap().delivery.confirm();
    reading.await.unwrap().unwrap();

    let codes: Vec<Value> = world.entries().await.into_iter().map(|entry| entry["code"].clone()).collect();
    assert_eq!(codes, ["SECRET_SET", "POLICY_LOADED", "INTENT", "ISSUED", "POLICY_LOADED"]);
    assert_eq!(world.broker.policy().unwrap().grants.len(), 2_002);
}
