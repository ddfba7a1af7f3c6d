//! Tokens signed by JOSE libraries that are not ours, npm `jose` (over Node's OpenSSL) and PyPI `joserfc` (over its
//! own): each algorithm that Hallpass knows, keys as the library writes them, the `generic` profile. What the library
//! signs rightly is exchanged once; what it signs of a spoiled token is refused.

use serde_json::{Value, json};

use super::support::{
    AUDIENCE,
    forgery::{Forged, forgeries, refused_beside_good},
    installation::CANARY,
    issuer::{fresh_id, now, set},
    npm::Script,
    python,
    trust::{Broker, Trust, release},
};

#[test]
fn job_whose_token_npm_jose_signed_gets_its_credential_once() {
    delivers_once(&mut Signed::by(Script::start("sign.mjs", &[], &[])));
}

#[test]
fn spoiled_token_that_npm_jose_signed_is_refused() {
    refuses_spoiled(&mut Signed::by(Script::start("sign.mjs", &[], &[])));
}

#[test]
fn job_whose_token_joserfc_signed_gets_its_credential_once() {
    delivers_once(&mut Signed::by(python::start("joserfc/sign.py")));
}

#[test]
fn spoiled_token_that_joserfc_signed_is_refused() {
    refuses_spoiled(&mut Signed::by(python::start("joserfc/sign.py")));
}

/// What Hallpass accepts of the `generic` profile, each with a key of its own.
const ALGORITHMS: &[&str] = &["ES256", "ES384", "EdDSA", "PS256", "RS256"];

fn delivers_once(signed: &mut Signed) {
    for algorithm in ALGORITHMS {
        let token = signed.token(algorithm, &json!({}));

        let body = signed.broker.server.public.exchange(&token, &release()).ok();

        assert_eq!(body["issuances"][0]["fields"]["value"], CANARY, "{algorithm}");
        signed.broker.server.public.exchange(&token, &release()).problem(409, "token_replayed");
    }
}

fn refuses_spoiled(signed: &mut Signed) {
    for algorithm in ALGORITHMS {
        let good = signed.token(algorithm, &json!({}));
        let mut forged = forgeries(&good);
        forged.extend(signed.spoiled(algorithm));
        refused_beside_good(&signed.broker.server, &release(), forged, &good);
    }
}

/// A library as a CI system, and a broker that trusts it.
struct Signed {
    library: Script,
    url: String,
    broker: Broker,
}

impl Signed {
    fn by(mut library: Script) -> Self {
        let url = library.next()["url"].as_str().unwrap().to_owned();
        let conditions = ["sub: \"project:70155112:ref:main\"".to_owned(), "project_id: 70155112".to_owned()];
        let trust = Trust { url: &url, profile: "generic", authority: None, conditions: &conditions };
        Self { library, broker: Broker::trusting(&trust), url }
    }

    /// A good token with some claims set otherwise; `null` takes one away.
    fn token(&mut self, algorithm: &str, spoiled: &Value) -> String {
        self.ask(algorithm, spoiled, json!({}))
    }

    fn ask(&mut self, algorithm: &str, spoiled: &Value, more: Value) -> String {
        let now = now();
        let mut claims = json!({
            "iss": self.url, "aud": AUDIENCE, "sub": "project:70155112:ref:main", "jti": fresh_id(),
            "iat": now, "nbf": now, "exp": now + 300, "project_id": 70_155_112, "ref": "refs/heads/main",
        });
        set(&mut claims, spoiled.clone());
        let mut question = json!({ "alg": algorithm, "claims": claims });
        set(&mut question, more);
        self.library.ask(&question)["token"].as_str().unwrap().to_owned()
    }

    /// What only the library can make: spoiled tokens under its own good signature, and a good one under a bad one.
    fn spoiled(&mut self, algorithm: &str) -> Vec<Forged> {
        let now = now();
        let claims = [
            ("another audience", json!({ "aud": "https://another.test" }), "token_audience"),
            ("two audiences", json!({ "aud": [AUDIENCE, "https://another.test"] }), "token_audience"),
            ("no audience", json!({ "aud": null }), "token_malformed"),
            ("over", json!({ "iat": now - 400, "nbf": now - 400, "exp": now - 60 }), "token_expired"),
            ("no end", json!({ "exp": null }), "token_malformed"),
            ("an end with a fraction", json!({ "exp": now as f64 + 300.5 }), "token_malformed"),
            ("not begun", json!({ "nbf": now + 120 }), "token_not_yet_valid"),
            ("made in the future", json!({ "iat": now + 120 }), "token_not_yet_valid"),
            ("too old", json!({ "iat": now - 700, "nbf": now - 700 }), "token_too_old"),
            ("another issuer", json!({ "iss": "https://another.test" }), "token_issuer"),
            ("no subject", json!({ "sub": null }), "token_malformed"),
        ];
        let mut forged: Vec<Forged> = claims
            .into_iter()
            .map(|(what, claims, code)| {
                Forged::new(format!("{algorithm}: {what}"), self.token(algorithm, &claims), code)
            })
            .collect();
        let other = if algorithm == "RS256" { "PS256" } else { "RS256" };
        let headers = [
            ("a stranger's key", json!({ "stranger": true }), "token_signature"),
            ("the name of another key", json!({ "kid": other }), "token_signature"),
            ("the name of no key", json!({ "kid": "unpublished" }), "token_signature"),
            ("an access token", json!({ "header": { "typ": "at+jwt" } }), "token_malformed"),
            ("something critical", json!({ "header": { "crit": ["exp2"], "exp2": 1 } }), "token_malformed"),
        ];
        for (what, more, code) in headers {
            let token = self.ask(algorithm, &json!({}), more);
            forged.push(Forged::new(format!("{algorithm}: {what}"), token, code));
        }
        forged
    }
}
