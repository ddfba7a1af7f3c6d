//! Every profile's keys by every source, and what a signature costs.

use super::*;
use crate::kernel::identity::profiles;

/// A key of the first algorithm that a profile signs with, as its issuer would publish it.
fn key_of(profile: &Profile) -> (Algorithm, Value) {
    let algorithm = profile.algorithms[0];
    let key = match algorithm {
        Algorithm::EdDsa => TestKey::ed25519(),
        Algorithm::Es256 => TestKey::p256(),
        Algorithm::Es384 => TestKey::p384(),
        Algorithm::Ps256 | Algorithm::Rs256 => TestKey::rsa(),
    };
    let mut jwk = key.jwk("k1");
    jwk["alg"] = json!(algorithm.as_str());
    (algorithm, jwk)
}

#[tokio::test]
async fn every_profile_has_its_keys_by_discovery_by_address_and_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("jwks.json");
    for profile in profiles::ALL {
        let (algorithm, jwk) = key_of(profile);
        let set = json!({ "keys": [jwk] });
        let server = Server::start(Answers::Keys(set.clone())).await;
        std::fs::write(&path, set.to_string()).unwrap();
        let elsewhere = "https://issuer.test".to_owned();
        for (how, url, source) in [
            ("discovery", server.url(), KeysFrom::Discovery),
            ("jwks_uri", elsewhere.clone(), KeysFrom::Uri(format!("{}/any", server.url()))),
            ("jwks_file", elsewhere, KeysFrom::File { path: path.clone(), valid_until: None }),
        ] {
            let config = IssuerKeysConfig { profile, ..config(url, source) };
            let keys = IssuerKeys::new(vec![config], TestClock::default().now()).unwrap();
            let found = keys.key(&ci(), &token("k1", algorithm.as_str())).await;
            assert_eq!(found.map(|key| key.algorithm()).ok(), Some(algorithm), "{} by {how}", profile.name);
        }
        assert_eq!(server.requests.load(Ordering::SeqCst), 3, "{}", profile.name);
    }
}
