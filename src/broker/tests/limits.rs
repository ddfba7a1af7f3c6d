//! What an exchange takes of what there is only so much of, and what it is told where nothing is left.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::broker::ports::Field;

/// A fake backend at the other end of a network: what counts is how often it was asked.
#[derive(Default)]
struct Remote(AtomicUsize);

impl Minter for Remote {
    fn fetch<'a>(&'a self, _order: &'a Order) -> Answer<'a, Result<Minted, MintFault>> {
        self.0.fetch_add(1, Ordering::SeqCst);
        let value = Secret::from_text("from-afar".to_owned());
        let fields = vec![Field { name: "value".to_owned(), value, is_secret: true }];
        let minted = Minted { fields, expires_at: None, sealed_generation: None, told: json!({}) };
        Box::pin(async move { Ok(minted) })
    }

    fn leaves_process(&self) -> bool {
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
