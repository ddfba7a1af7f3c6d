//! Identity tokens of a real Vault. They carry no `jti` and no `nbf`, one audience as a string, and the entity as
//! `sub`; the signed bytes are the token's id, so that a token is good once all the same.

use serde_json::{Value, json};

use super::support::{
    eventually,
    forgery::{Forged, claims, forgeries, header, refused_beside_good},
    installation::CANARY,
    trust::{Broker, Trust, release},
    vault::Vault,
};

#[test]
fn entity_gets_its_credential_once_by_a_token_of_each_algorithm() {
    let ours = Trusted::new();
    for algorithm in ["ES256", "ES384", "EdDSA", "RS256"] {
        let token = ours.vault.identity(algorithm);
        assert_eq!(header(&token)["alg"], algorithm);
        assert_eq!(claims(&token)["jti"], Value::Null, "Vault's tokens have an id of their own now");

        let body = ours.broker.server.public.exchange(&token, &release()).ok();

        assert_eq!(body["issuances"][0]["fields"]["value"], CANARY, "{algorithm}");
        ours.broker.server.public.exchange(&token, &release()).problem(409, "token_replayed");
    }
}

#[test]
fn what_nobody_but_vault_can_sign_is_refused() {
    let ours = Trusted::new();
    for algorithm in ["ES256", "RS256"] {
        let good = ours.vault.identity(algorithm);
        refused_beside_good(&ours.broker.server, &release(), forgeries(&good), &good);
    }
}

#[test]
fn what_vault_signs_for_others_is_refused() {
    let ours = Trusted::new();
    ours.vault.spoiled_role("elsewhere", "https://another.test", "5m");
    let [good, elsewhere] = ["ES256", "elsewhere"].map(|role| ours.vault.identity(role));
    let forged = vec![Forged::new("another audience", elsewhere, "token_audience")];

    refused_beside_good(&ours.broker.server, &release(), forged, &good);
}

#[test]
fn token_that_is_over_is_refused() {
    let ours = Trusted::new();
    ours.vault.spoiled_role("brief", super::support::AUDIENCE, "1s");
    let brief = ours.vault.identity("brief");
    // It grants nothing: a token that was good a moment ago has not been used by this.
    let ask = json!({ "grants": ["nothing-of-that-name"] });

    eventually("the token's end", || {
        let answer = ours.broker.server.public.exchange(&brief, &ask);
        (answer.json()["code"] == "token_expired").then_some(())
    });

    ours.broker.server.public.exchange(&brief, &release()).problem(401, "token_expired");
    ours.broker.server.public.exchange(&ours.vault.identity("ES256"), &release()).ok();
}

#[test]
fn another_entity_is_denied() {
    let ours = Trusted::demanding("4f9e2a10-0000-4000-8000-000000000000", "payments");

    ours.broker
        .server
        .public
        .exchange(&ours.vault.identity("ES256"), &release())
        .problem(403, "access_denied");
}

#[test]
fn entity_with_other_metadata_is_denied() {
    let vault = Vault::start();
    let entity = vault.entity.clone();
    let ours = Trusted::of(vault, &entity, "shop");

    ours.broker
        .server
        .public
        .exchange(&ours.vault.identity("ES256"), &release())
        .problem(403, "access_denied");
}

/// Vault, and a broker that trusts it.
struct Trusted {
    broker: Broker,
    vault: Vault,
}

impl Trusted {
    fn new() -> Self {
        let vault = Vault::start();
        let entity = vault.entity.clone();
        Self::of(vault, &entity, "payments")
    }

    fn demanding(entity: &str, project: &str) -> Self {
        Self::of(Vault::start(), entity, project)
    }

    fn of(vault: Vault, entity: &str, project: &str) -> Self {
        let conditions = [format!("sub: \"{entity}\""), format!("project: {project}")];
        let trust =
            Trust { url: &vault.issuer, profile: "generic", authority: None, conditions: &conditions };
        // Vault's tokens can be over after a second, and a test cannot wait for the usual leeway to pass.
        Self { broker: Broker::with_limits(&trust, "clock_leeway: 1s, "), vault }
    }
}
