//! Our assertion in the eyes of a JOSE library that is not ours (npm `jose`), keys by discovery and JWKS from the
//! public listener.

use serde_json::{Value, json};

use super::support::{AUDIENCE, Installation, npm::Script};

#[test]
fn assertion_is_accepted_for_its_audience() {
    let (mut verifier, assertion) = verifier_and_assertion();

    let answer = verifier.ask(&json!({ "token": assertion, "audience": "https://cloud.test" }));

    assert_eq!(answer["payload"]["sub"], "grant:deploy", "{answer}");
    assert_eq!(answer["payload"]["iss"], AUDIENCE);
    assert_eq!(answer["header"]["alg"], "RS256");
}

#[test]
fn assertion_is_refused_for_another_audience() {
    let (mut verifier, assertion) = verifier_and_assertion();

    let answer = verifier.ask(&json!({ "token": assertion, "audience": AUDIENCE }));

    assert_eq!(answer, json!({ "refused": "ERR_JWT_CLAIM_VALIDATION_FAILED" }));
}

#[test]
fn assertion_is_refused_after_one_flipped_byte() {
    let (mut verifier, assertion) = verifier_and_assertion();
    // One letter within the header, the payload and the signature.
    let parts: Vec<usize> = assertion.match_indices('.').map(|(at, _)| at).collect();
    for at in [parts[0] - 4, parts[0] + 30, parts[1] + 40] {
        let mut bytes = assertion.clone().into_bytes();
        bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
        let spoiled = String::from_utf8(bytes).unwrap();

        let answer = verifier.ask(&json!({ "token": spoiled, "audience": "https://cloud.test" }));

        assert!(answer["refused"].is_string(), "at {at}: {answer}");
    }
}

#[test]
fn our_own_assertion_is_no_token_to_us() {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "cloud");

    let answer = server.public.exchange(&secret(&issuance), &json!({ "grants": ["deploy"] }));

    answer.problem(401, "token_issuer");
}

fn verifier_and_assertion() -> (Verifier, String) {
    let installation = Installation::new();
    let server = installation.serve();
    let issuance = server.only(&installation.issuer.token(), "cloud");
    let listener = format!("http://{}", server.public.address);
    let script = Script::start("verify.mjs", &[&listener, AUDIENCE], &[]);
    (Verifier { script, _server: server, _installation: installation }, secret(&issuance))
}

/// The library, and the broker whose keys it fetches.
struct Verifier {
    script: Script,
    _server: super::support::Server,
    _installation: Installation,
}

impl Verifier {
    fn ask(&mut self, question: &Value) -> Value {
        self.script.ask(question)
    }
}

fn secret(issuance: &Value) -> String {
    let field = issuance["secret_fields"][0].as_str().unwrap();
    issuance["fields"][field].as_str().unwrap().to_owned()
}
