//! What an exchange takes of what there is only so much of, and what it is told where nothing is left.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::{broker::ports::Field, kernel::policy::target::Target};

/// A fake backend at the other end of a network: what counts is how often it was asked.
#[derive(Default)]
struct Remote(AtomicUsize);

impl Minter for Remote {
    fn fetch<'a>(
        &'a self,
        _order: &'a Order,
        _token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let value = Secret::from_text("from-afar".to_owned());
        let fields = vec![Field { name: "value".to_owned(), value, is_secret: true }];
        let minted =
            Minted { fields, expires_at: None, sealed_generation: None, held: None, told: json!({}) };
        Box::pin(async move { Ok(minted) })
    }

    fn leaves_process(&self, _target: &Target) -> bool {
        true
    }
}

#[tokio::test]
async fn a_replay_is_told_before_a_fetch_that_leaves_the_process() {
    let remote = Arc::new(Remote::default());
    let minter = Arc::clone(&remote);
    let world = World::new()
        .await
        .reopened(
            |mut minters| {
                minters.insert(Kind::Sealed, minter);
                minters
            },
            Duration::from_secs(15),
        )
        .await;
    let token = token("j1", &[]);
    world.exchange(&token, only("payments-prod", "npm")).await.unwrap().delivery.confirm();
    assert_eq!(world.refused(&token, only("payments-prod", "npm")).await, Code::TokenReplayed);
    assert_eq!(remote.0.load(Ordering::SeqCst), 1);
    assert_eq!(world.codes().await, ["INTENT", "ISSUED", "DENIED"]);
}

const LIMITED: &str = r#"
grant: limited
allow:
  - name: all
    issuer: github
    match: { repository_owner_id: "4216", repository_id: { present: true } }
credentials:
  npm: { sealed: { secret: npm-token } }
  sts: { oidc: { audience: https://sts.test }, ttl: 4m }
"#;

/// A world whose grant `limited` has those limits.
async fn limited(limits: &str) -> World {
    let world = World::new().await;
    let grant = format!("{LIMITED}limits: {limits}\n");
    world.broker.offer_policy(policy(&[GRANT, BARE, &grant]), None).await.unwrap();
    world
}

async fn issued(world: &World, jti: &str, ask: Ask) {
    world.exchange(&token(jti, &[]), ask).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn the_hour_rolls_on_by_the_minute_and_the_answer_says_when() {
    let world = limited("{ issuances_per_hour: 2 }").await;
    // 13:33:30, so the first minute ends in half of one.
    issued(&world, "j1", only("limited", "npm")).await;
    world.set_clock(100);
    issued(&world, "j2", only("limited", "npm")).await;
    let refused = world.exchange(&token("j3", &[]), only("limited", "npm")).await.err().unwrap();
    let seconds = refused.retry_after_seconds.unwrap();
    assert_eq!((refused.code, refused.decision.is_some()), (Code::QuotaExceeded, true));
    assert_eq!(refused.failed_claims, None);
    let denied = world.entries().await.pop().unwrap();
    assert_eq!(
        denied["result"]["limit"]["room_at"],
        (now() + Duration::from_secs(100 + u64::from(seconds))).to_string()
    );

    let later = |seconds: i64, jti: &str| {
        world.set_clock(seconds);
        let exp = json!(NOW + seconds + 290);
        let iat = json!(NOW + seconds - 10);
        token(jti, &[("iat", iat.clone()), ("nbf", iat), ("exp", exp)])
    };
    let early = later(100 + i64::from(seconds) - 1, "j4");
    assert_eq!(world.refused(&early, only("limited", "npm")).await, Code::QuotaExceeded);
    let due = later(100 + i64::from(seconds), "j5");
    world.exchange(&due, only("limited", "npm")).await.unwrap().delivery.confirm();
}

#[tokio::test]
async fn a_limit_per_project_is_of_the_immutable_id() {
    let world = limited("{ live: 1, per: project }").await;
    issued(&world, "j1", only("limited", "sts")).await;
    let renamed = token("j2", &[("repository", json!("acme/another-name"))]);
    assert_eq!(world.refused(&renamed, only("limited", "sts")).await, Code::QuotaExceeded);
    let other = token("j3", &[("repository_id", json!("702"))]);
    world.exchange(&other, only("limited", "sts")).await.unwrap().delivery.confirm();
    let limit = world.entries().await.into_iter().find(|entry| entry["code"] == "DENIED").unwrap();
    assert_eq!(limit["result"]["reason"], "limit-live");
    assert_eq!(limit["result"]["limit"]["per"], "project");
}

#[tokio::test]
async fn room_comes_when_the_first_living_one_ends() {
    let world = limited("{ live: 1 }").await;
    issued(&world, "j1", only("limited", "sts")).await;
    world.set_clock(40);
    let refused = world.exchange(&token("j2", &[]), only("limited", "sts")).await.err().unwrap();
    assert_eq!((refused.code, refused.retry_after_seconds), (Code::QuotaExceeded, Some(200)));
    world.set_clock(239);
    assert_eq!(world.refused(&token("j3", &[]), only("limited", "sts")).await, Code::QuotaExceeded);
    world.set_clock(240);
    issued(&world, "j4", only("limited", "sts")).await;
}

#[tokio::test]
async fn uses_are_of_each_grant_and_credential() {
    let world = limited("{ uses_per_token: 2 }").await;
    issued(&world, "j1", only("limited", "npm")).await;
    issued(&world, "j1", ask("limited")).await;
    assert_eq!(world.refused(&token("j1", &[]), ask("limited")).await, Code::TokenReplayed);
    issued(&world, "j1", only("limited", "sts")).await;
    issued(&world, "j1", only("payments-prod", "npm")).await;
    assert_eq!(world.refused(&token("j1", &[]), only("payments-prod", "npm")).await, Code::TokenReplayed);
}
