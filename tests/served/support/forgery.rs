//! What somebody without the issuer's key can make of one good token of theirs, whoever issued it.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{
    Answer, Server,
    issuer::{Key, foreign_key, set},
    key::compact,
};

/// A token with one thing spoiled, and the code that refuses it.
pub(crate) struct Forged {
    pub(crate) what: String,
    pub(crate) token: String,
    pub(crate) code: &'static str,
}

impl Forged {
    pub(crate) fn new(what: impl Into<String>, token: String, code: &'static str) -> Self {
        Self { what: what.into(), token, code }
    }
}

/// Every forgery of a good token.
pub(crate) fn forgeries(token: &str) -> Vec<Forged> {
    let claims = claims(token);
    let seconds = |name: &str| claims[name].as_i64().unwrap();
    let payload = |changes: Value| with_payload(token, changes);
    let algorithm = |alg: &str| with_header(token, json!({ "alg": alg }));
    let unsigned = format!("{}.", algorithm("none").rsplit_once('.').unwrap().0);
    let mut all = vec![
        Forged::new("another subject", payload(json!({ "sub": "somebody-else" })), "token_signature"),
        Forged::new("a later end", payload(json!({ "exp": seconds("exp") + 60 })), "token_signature"),
        Forged::new("a claim more", payload(json!({ "admin": true })), "token_signature"),
        Forged::new("another issuer", payload(json!({ "iss": "https://evil.test" })), "token_issuer"),
        Forged::new(
            "another spelling of the issuer",
            payload(json!({ "iss": format!("{}/", claims["iss"].as_str().unwrap()) })),
            "token_issuer",
        ),
        Forged::new("no algorithm", algorithm("none"), "token_algorithm"),
        Forged::new("no algorithm and no signature", unsigned, "token_algorithm"),
        Forged::new("HMAC by the public key", algorithm("HS256"), "token_algorithm"),
        Forged::new("another key's name", with_header(token, json!({ "kid": "another" })), "token_signature"),
        Forged::new("no key's name", with_header(token, json!({ "kid": null })), "token_malformed"),
        Forged::new(
            "an empty signature",
            format!("{}.", token.rsplit_once('.').unwrap().0),
            "token_signature",
        ),
    ];
    let own = header(token)["alg"].as_str().unwrap().to_owned();
    for other in ["RS256", "ES256"].into_iter().filter(|other| *other != own) {
        // Whether an issuer of this profile may use it at all comes before whether there is such a key.
        all.push(Forged::new(
            format!("{own} said to be {other}"),
            algorithm(other),
            "token_signature|token_algorithm",
        ));
    }
    let stranger = match own.as_str() {
        "ES256" => Some(&Key::p256()).map(|key| resigned(token, key)),
        "RS256" => Some(resigned(token, foreign_key())),
        _ => None,
    };
    all.extend(stranger.map(|token| Forged::new("signed by a stranger's key", token, "token_signature")));
    // One letter in the middle of each part.
    let parts: Vec<usize> = token.match_indices('.').map(|(at, _)| at).collect();
    let [first, second] = parts[..] else { panic!("three parts") };
    all.push(Forged::new(
        "one letter of the signature",
        flipped(token, (second + token.len()) / 2),
        "token_signature",
    ));
    all.push(Forged::new(
        "one letter of the payload",
        flipped(token, (first + second) / 2),
        "token_signature|token_malformed|token_issuer",
    ));
    all
}

/// The header with members set otherwise; `null` takes one away. The signature stays as it was.
pub(crate) fn with_header(token: &str, changes: Value) -> String {
    let [_, payload, signature] = parts(token);
    let mut header = header(token);
    set(&mut header, changes);
    format!("{}.{payload}.{signature}", URL_SAFE_NO_PAD.encode(header.to_string()))
}

/// The claims with members set otherwise; `null` takes one away. The signature stays as it was.
pub(crate) fn with_payload(token: &str, changes: Value) -> String {
    let [header, _, signature] = parts(token);
    let mut claims = claims(token);
    set(&mut claims, changes);
    format!("{header}.{}.{signature}", URL_SAFE_NO_PAD.encode(claims.to_string()))
}

/// The signed claims, as a job of that issuer would read them.
pub(crate) fn claims(token: &str) -> Value {
    decode(parts(token)[1])
}

/// The header.
pub(crate) fn header(token: &str) -> Value {
    decode(parts(token)[0])
}

/// Each is refused with its code and delivers nothing, and the good token is still good afterwards, once.
#[track_caller]
pub(crate) fn refused_beside_good(server: &Server, ask: &Value, forged: Vec<Forged>, good: &str) {
    for Forged { what, token, code } in forged {
        let answer = server.public.exchange(&token, ask);
        check(&what, code, &answer);
    }
    server.public.exchange(good, ask).ok();
    server.public.exchange(good, ask).problem(409, "token_replayed");
}

#[track_caller]
fn check(what: &str, codes: &str, answer: &Answer) {
    let body = answer.json();
    let code = body["code"].as_str().unwrap_or_default();
    assert!(answer.status == 401 && codes.split('|').any(|due| due == code), "{what}: {answer:?}");
    answer.problem(401, code);
}

/// The same header and claims under another's signature.
fn resigned(token: &str, key: &Key) -> String {
    compact(&header(token).to_string(), &claims(token).to_string(), |signed| key.sign(signed))
}

fn flipped(token: &str, at: usize) -> String {
    let mut bytes = token.to_owned().into_bytes();
    bytes[at] = if bytes[at] == b'A' { b'B' } else { b'A' };
    String::from_utf8(bytes).unwrap()
}

fn parts(token: &str) -> [&str; 3] {
    token.split('.').collect::<Vec<_>>().try_into().unwrap()
}

fn decode(part: &str) -> Value {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).unwrap()).unwrap()
}
