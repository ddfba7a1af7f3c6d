//! Kind `oidc`: assertions that Hallpass signs itself, for one audience and at most 300 seconds, so that the embedded
//! default yields a credential that truly ends. Never for ourselves: such an assertion could be sent back to us as
//! somebody's token.

use std::sync::Arc;

use serde_json::json;

use super::assertions::{AssertionFault, Assertions};
use crate::{
    broker::ports::{Answer, Field, MintFault, Minted, Minter, Order},
    kernel::{
        assertion::{Claims, MAX_LIFE},
        policy::target::Target,
        secret::Secret,
    },
};

/// Makes assertions.
pub struct Oidc {
    assertions: Arc<Assertions>,
}

impl Oidc {
    /// Signs with that.
    pub fn new(assertions: Arc<Assertions>) -> Self {
        Self { assertions }
    }

    fn assert(&self, order: &Order, audience: &str) -> Result<Minted, AssertionFault> {
        let assertion = self.assertions.sign(&Claims {
            audience,
            grant: &order.grant,
            issuance: order.issuance,
            now: order.now,
            life: order.ttl.unwrap_or(MAX_LIFE),
            aws: None,
        })?;
        Ok(Minted {
            fields: vec![Field { name: "token".to_owned(), value: assertion.token, is_secret: true }],
            expires_at: Some(assertion.expires_at),
            sealed_generation: None,
            held: None,
            told: json!({ "audience": audience, "kid": assertion.kid }),
        })
    }
}

impl Minter for Oidc {
    fn fetch<'a>(
        &'a self,
        order: &'a Order,
        _token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        Box::pin(async move {
            let failed = |reason| MintFault::Failed { reason, sealed_generation: None };
            match &order.target {
                Target::Oidc { audience } => {
                    self.assert(order, audience).map_err(|fault| failed(fault.reason()))
                }
                Target::Aws(_) | Target::Sealed { .. } | Target::Vault(_) => {
                    Err(failed("target-of-another-kind"))
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        adapters::mint::assertions::generate,
        broker::ports::Subject,
        kernel::{
            assertion::Algorithm,
            id::{DecisionId, IssuanceId},
            name::{CredentialName, GrantName, SecretName},
        },
    };

    const ISSUER: &str = "https://hallpass.example.com";

    fn order(target: Target) -> Order {
        Order {
            issuance: IssuanceId::from_bytes([1; 16]),
            decision: DecisionId::from_bytes([2; 16]),
            input: None,
            subject: Subject::default(),
            grant: GrantName::parse("payments-prod").unwrap(),
            credential: CredentialName::parse("fulcio").unwrap(),
            target,
            ttl: Some(Duration::from_secs(120)),
            now: "2027-01-13T10:00:00.75Z".parse().unwrap(),
        }
    }

    fn minter() -> Oidc {
        Oidc::new(Arc::new(Assertions::new(ISSUER, &generate(Algorithm::Rs256).unwrap()).unwrap()))
    }

    #[tokio::test]
    async fn one_secret_field_and_its_end_and_the_entry_names_key_and_audience() {
        let minter = minter();
        let order = order(Target::Oidc { audience: "sigstore".to_owned() });

        let minted = minter.fetch(&order, None).await.ok().unwrap();

        assert_eq!(minted.expires_at, Some("2027-01-13T10:02:00Z".parse().unwrap()));
        assert_eq!(minted.fields.len(), 1);
        assert_eq!((minted.fields[0].name.as_str(), minted.fields[0].is_secret), ("token", true));
        let kid = minter.assertions.kid(Algorithm::Rs256, order.now).unwrap();
        assert_eq!(minted.told, json!({ "audience": "sigstore", "kid": kid }));
    }

    #[tokio::test]
    async fn is_never_made_for_ourselves_or_for_another_kind() {
        let minter = minter();
        let ourselves = Target::Oidc { audience: format!("{}/", ISSUER.to_uppercase()) };
        let other = Target::Sealed { secret: SecretName::parse("npm-token").unwrap() };
        for target in [ourselves, other] {
            assert!(minter.fetch(&order(target), None).await.is_err());
        }
    }
}
