//! Secrets in the files.

use super::*;
use crate::kernel::{name::SecretName, secret::Secret};

/// Sets a secret of one field; answers its version.
pub(super) async fn set(store: &Sqlite, name: &str, value: &str) -> u64 {
    let fields = [("value".to_owned(), Secret::from_text(value.to_owned()))];
    store.set_secret(&secret(name), &fields, change(EntryCode::SecretSet)).await.unwrap()
}

fn secret(name: &str) -> SecretName {
    SecretName::parse(name).unwrap()
}

fn change(code: EntryCode) -> Change<'static> {
    let make = Box::new(move |version| Some(told(code, version)));
    Change { now: now(), random: &random, entry: Box::leak(make) }
}

fn told(code: EntryCode, version: u64) -> Entry {
    sealed(Draft { code: Some(code), result: Some(json!({ "version": version })), ..Draft::default() })
}

#[tokio::test]
async fn no_value_stands_in_the_files() {
    let bench = Bench::new();
    set(&bench.store, "npm-token", "a-very-secret-value").await;
    for suffix in ["", "-wal"] {
        let bytes = std::fs::read(schema::beside(&bench.path, suffix)).unwrap_or_default();
        assert!(!bytes.windows(12).any(|window| window == b"secret-value"), "{suffix}");
    }
}
