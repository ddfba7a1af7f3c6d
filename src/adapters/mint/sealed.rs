//! Kind `sealed`: secrets kept in our own store, opened for one job. Nothing leaves the process, and nothing is read
//! from the database: the ciphertext comes from memory, and the durable step tells whether it still stood.

use std::sync::Arc;

use serde_json::json;

use crate::{
    broker::ports::{Answer, Field, MintFault, Minted, Minter, Order, SealedRecords},
    kernel::{
        name::SecretName,
        policy::target::Target,
        sealing::{self, Keyring, PURPOSE_SECRET},
        secret::Secret,
    },
};

/// Opens sealed secrets.
pub struct Sealed {
    records: Arc<dyn SealedRecords>,
    keys: Keyring,
}

impl Sealed {
    /// Opens records of that store with those keys.
    pub fn new(records: Arc<dyn SealedRecords>, keys: impl Into<Keyring>) -> Self {
        Self { records, keys: keys.into() }
    }

    fn open(&self, name: &SecretName) -> Result<Minted, MintFault> {
        let (generation, found) = self.records.sealed(name);
        let failed = |reason| MintFault::Failed { reason, sealed_generation: Some(generation) };
        let found = found.ok_or(failed("secret-missing"))?;
        let of = sealing::Sealed { purpose: PURPOSE_SECRET, name: name.as_str(), version: found.version };
        let content = self.keys.open(of, &found.record).map_err(|_| failed("secret-unreadable"))?;
        let fields = sealing::read_fields(&content).ok_or(failed("secret-unreadable"))?;
        let fields = fields.into_iter().map(|(name, value)| Field { name, value, is_secret: true });
        Ok(Minted {
            fields: fields.collect(),
            expires_at: None,
            sealed_generation: Some(generation),
            held: None,
            // Not the secret's name: it stands in INTENT, and this in a receipt (design: section 6).
            told: json!({ "version": found.version }),
        })
    }
}

impl Minter for Sealed {
    fn fetch<'a>(
        &'a self,
        order: &'a Order,
        _token: Option<&'a Secret>,
    ) -> Answer<'a, Result<Minted, MintFault>> {
        Box::pin(async move {
            match &order.target {
                Target::Sealed { secret } => self.open(secret),
                Target::Aws(_) | Target::Oidc { .. } | Target::Vault(_) => {
                    Err(MintFault::Failed { reason: "target-of-another-kind", sealed_generation: None })
                }
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        broker::ports::{SealedSecret, Subject},
        kernel::{
            id::{DecisionId, IssuanceId},
            name::{CredentialName, GrantName},
            sealing::{RANDOM_BYTES, SealingKey},
            secret::Secret,
        },
    };

    /// A store with one secret of two fields.
    struct One(SealedSecret);

    impl SealedRecords for One {
        fn sealed(&self, name: &SecretName) -> (u64, Option<Arc<SealedSecret>>) {
            let record = self.0.record.clone();
            let found = (name.as_str() == "npm-token")
                .then(|| Arc::new(SealedSecret { version: self.0.version, record }));
            (7, found)
        }
    }

    fn key(byte: u8) -> Arc<SealingKey> {
        Arc::new(SealingKey::new(Secret::new(vec![byte; 32])).unwrap())
    }

    fn minter(version: u64, key_byte: u8) -> Sealed {
        let fields = [("user", "ci"), ("value", "hunter2")]
            .map(|(name, value)| (name.to_owned(), Secret::from_text(value.to_owned())));
        let of = sealing::Sealed { purpose: PURPOSE_SECRET, name: "npm-token", version: 2 };
        let content = sealing::write_fields(&fields).unwrap();
        let record = key(1).seal(of, &content, &Secret::new(vec![3; RANDOM_BYTES])).unwrap();
        Sealed::new(Arc::new(One(SealedSecret { version, record })), key(key_byte))
    }

    async fn fetch(minter: &Sealed, name: &str) -> Result<Minted, MintFault> {
        let order = Order {
            issuance: IssuanceId::from_bytes([1; 16]),
            decision: DecisionId::from_bytes([2; 16]),
            input: None,
            subject: Subject::default(),
            grant: GrantName::parse("demo").unwrap(),
            credential: CredentialName::parse("npm").unwrap(),
            target: Target::Sealed { secret: SecretName::parse(name).unwrap() },
            ttl: None,
            now: "2027-01-13T10:00:00Z".parse().unwrap(),
        };
        minter.fetch(&order, None).await
    }

    #[tokio::test]
    async fn delivers_every_field_as_secret_and_without_an_end() {
        let minted = fetch(&minter(2, 1), "npm-token").await.ok().unwrap();
        let shown: Vec<_> = minted
            .fields
            .iter()
            .map(|field| (field.name.as_str(), field.value.expose_text().unwrap(), field.is_secret))
            .collect();
        assert_eq!(shown, [("user", "ci", true), ("value", "hunter2", true)]);
        assert_eq!(minted.expires_at, None);
        assert_eq!(minted.sealed_generation, Some(7));
        assert_eq!(minted.told, json!({ "version": 2 }));
    }

    #[tokio::test]
    async fn says_which_generation_lacked_the_secret() {
        let fault = fetch(&minter(2, 1), "other").await.err();
        let missing = MintFault::Failed { reason: "secret-missing", sealed_generation: Some(7) };
        assert_eq!(fault, Some(missing));
    }

    #[tokio::test]
    async fn delivers_nothing_where_key_or_version_is_another() {
        for minter in [minter(2, 9), minter(3, 1)] {
            let fault = fetch(&minter, "npm-token").await.err();
            let unreadable = MintFault::Failed { reason: "secret-unreadable", sealed_generation: Some(7) };
            assert_eq!(fault, Some(unreadable));
        }
    }
}
