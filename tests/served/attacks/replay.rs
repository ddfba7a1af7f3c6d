//! R: replay, races and lifetimes. The race itself (R-02) and restarts are in `once`, the end of a replay's row (R-03)
//! and clocks that step (C-07) in the broker's own tests, which have a clock to set.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    Arena, Case,
    arena::{header, signed_as, signed_text},
    jose::{P256_ORDER, any_claims, claimed, key, open_to_any},
};
use crate::{
    exchange::members,
    once::only,
    support::{
        Answer,
        installation::{CANARY, finish},
        issuer::{KID, now, own_key},
        key::compact,
    },
};

#[test]
fn r01_a_used_token_is_replayed_whatever_comes_with_it() {
    let mut arena = Arena::new();
    let token = arena.token_with(json!({}));
    arena.permitted("deploy", &[Case::new("the first use", token.clone())]);
    let again = Case::new("the second use", token.clone());
    let body = json!({ "grants": [{ "name": "deploy", "credentials": ["npm"] }] });
    let client = arena.server().public.clone();
    let keyed = |key: &str| client.exchanging(&token, &body).header("idempotency-key", key).send();
    let answers = [client.exchange(&token, &body), keyed("0123456789abcdef"), keyed("another-0123456789")];

    for answer in answers {
        let told = arena.refused(&again, &answer, 409, "token_replayed");
        let entries = arena.server().entries("DENIED");
        let entry = entries.iter().find(|entry| entry["decision"] == told["decision_id"]).unwrap();
        assert_eq!(entry["result"], json!({ "code": "token_replayed", "reason": "replayed" }));
    }
    arena.permitted("deploy", &[Case::new("another token of the job", arena.token_with(json!({})))]);
}

#[test]
fn r04_token_ids_are_of_one_issuer() {
    let mut arena = open_to_any();
    let ids = r#"{ repository_owner_id: "4216", repository_id: "70155112" }"#;
    arena.grant("shared", &[("ci", ids), ("other", ids), ("any", r#"{ sub: "pipeline:nightly" }"#)]);
    let of_any = |jti: Value, number: u8| {
        let mut claims = any_claims(&arena.any);
        claims["number"] = json!(number);
        claims["jti"] = jti;
        claimed("EdDSA", "ed25519", &claims, |signed| key("ed25519").sign(signed))
    };
    let same = json!({ "jti": "one-and-the-same" });
    let of_ci = arena.token_with(same.clone());
    let three = [
        Case::new("of ci", of_ci.clone()),
        Case::new("of other", arena.other.token_with(same)),
        Case::new("of any", of_any(json!("one-and-the-same"), 0)),
    ];
    let again = [
        Case::new(
            "of ci, minted anew",
            arena.token_with(json!({ "jti": "one-and-the-same", "iat": now() - 1 })),
        ),
        Case::new("of any, with other claims", of_any(json!("one-and-the-same"), 1)),
    ];
    let empty = of_any(json!(""), 2);
    let other_empty = of_any(json!(""), 3);
    let long = [json!("j".repeat(257)), json!("j".repeat(300)), json!(7), Value::Null];
    let long = long.map(|jti| Case::new(format!("jti {jti:.20}"), of_any(jti, 4)));

    arena.permitted("shared", &three);
    for case in &again {
        let answer = arena.exchange(&case.token, "shared");
        arena.refused(case, &answer, 409, "token_replayed");
    }
    // Empty is absent: then the signed bytes are the token's id.
    arena.permitted("shared", &[Case::new("an empty jti", empty.clone()), Case::new("another", other_empty)]);
    let answer = arena.exchange(&empty, "shared");
    arena.refused(&Case::new("an empty jti again", empty), &answer, 409, "token_replayed");
    arena.restart();
    arena.forget_summaries();
    arena.counted(Some("any"), "token_malformed", "claim-type:jti", &long);
}

#[test]
fn r04_one_issuer_spends_no_token_of_another() {
    let mut arena = Arena::new();
    let same = json!({ "jti": "one-and-the-same" });
    let (of_other, of_ci) = (arena.other.token_with(same.clone()), arena.token_with(same));
    for grant in ["a", "b", "c", "d", "e"] {
        let answer = arena.exchange(&of_other, grant);
        arena.refused(&Case::new(grant, of_other.clone()), &answer, 403, "access_denied");
    }

    let answer = arena.exchange(&of_other, "deploy");
    arena.refused(&Case::new("spent", of_other), &answer, 429, "rate_limited");
    arena.permitted("deploy", &[Case::new("of ci, with the same id", of_ci)]);
}

#[test]
fn r05_another_signature_over_the_same_bytes_is_the_same_token() {
    let mut arena = open_to_any();
    let claims = any_claims(&arena.any);
    for (kid, algorithm) in [("p256", "ES256"), ("p384", "ES384")] {
        let token = claimed(algorithm, kid, &claims, |signed| key(kid).sign(signed));
        let resigned = claimed(algorithm, kid, &claims, |signed| key(kid).sign(signed));
        assert_ne!(token, resigned, "ECDSA draws a number for each signature");
        let mut again = vec![Case::new("the same text", token.clone()), Case::new("signed again", resigned)];
        if kid == "p256" {
            again.push(Case::new("n - s", with_other_s(&token)));
        }

        arena.permitted("pipeline", &[Case::new("the first use", token)]);
        for case in &again {
            let answer = arena.exchange(&case.token, "pipeline");
            arena.refused(case, &answer, 409, "token_replayed");
        }
    }
    // The other form is as good a signature as the first: it is refused as a replay and for nothing else.
    let mut fresh = any_claims(&arena.any);
    fresh["number"] = json!(1);
    let token = claimed("ES256", "p256", &fresh, |signed| key("p256").sign(signed));
    arena.permitted("pipeline", &[Case::new("n - s first", with_other_s(&token))]);
    let answer = arena.exchange(&token, "pipeline");
    arena.refused(&Case::new("then s", token), &answer, 409, "token_replayed");
    let pss = |claims: &Value| claimed("PS256", "pss", claims, |signed| key("pss").sign_pss(signed));
    fresh["number"] = json!(2);
    let (token, resigned) = (pss(&fresh), pss(&fresh));
    assert_ne!(token, resigned, "PSS draws a salt for each signature");
    arena.permitted("pipeline", &[Case::new("PS256", token)]);
    let answer = arena.exchange(&resigned, "pipeline");
    arena.refused(&Case::new("PS256 signed again", resigned), &answer, 409, "token_replayed");
}

#[test]
fn r06_a_second_server_on_one_database_is_refused() {
    let mut arena = Arena::new();
    arena.server();

    let second = finish(&mut arena.installation.command(&["serve"]), "");

    assert!(!second.status.success(), "{second:?}");
    let said = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(said.contains("another `hallpass serve` has this database open"), "{said}");
    arena.permitted("deploy", &[Case::new("the first one lives", arena.token_with(json!({})))]);
}

#[test]
fn r08_o04_five_denials_spend_a_token_and_fewer_burn_nothing() {
    let mut arena = Arena::new();
    let (patient, probing) = (arena.token_with(json!({})), arena.token_with(json!({})));
    let probe =
        |token: &str| ["other-team", "admin", "root", "prod"].map(|grant| (grant, Case::new(grant, token)));
    for (grant, case) in probe(&patient).into_iter().chain(probe(&probing)) {
        let answer = arena.exchange(&case.token, grant);
        arena.refused(&case, &answer, 403, "access_denied");
    }
    arena.permitted("deploy", &[Case::new("four denials used up nothing", patient)]);
    let fifth = arena.exchange(&probing, "other-team");
    arena.refused(&Case::new("the fifth", probing.clone()), &fifth, 403, "access_denied");
    let spent = Case::new("the sixth, of what it could have had", probing.clone());

    let answer = arena.exchange(&probing, "deploy");
    let told = arena.refused(&spent, &answer, 429, "rate_limited");

    let left = told["retry_after_seconds"].as_u64().unwrap();
    assert!((60..=330).contains(&left), "for its remaining life: {told}");
    for path in ["/v1/whoami", "/v1/grants"] {
        arena.server().public.get(path).bearer(&probing).send().problem(429, "rate_limited");
    }
    arena.restart();
    let answer = arena.exchange(&probing, "deploy");
    arena.refused(&spent, &answer, 429, "rate_limited");
    assert_eq!(arena.server().entries("ISSUED").len(), 1, "only the patient one got something");
    arena.permitted("deploy", &[Case::new("another token of the job", arena.token_with(json!({})))]);
}

#[test]
fn r09_lifetimes_that_mean_nothing_are_refused() {
    let mut arena = Arena::new();
    let token = arena.token_with(json!({}));
    let nonsense = [
        "0",
        "-1",
        "-0",
        "18446744073709551615",
        "18446744073709551616",
        "9223372036854775807",
        "9223372036854775808",
        "1000000001",
        "1.5",
        "60.0",
        "1e9",
        "6e1",
        "\"60\"",
        "\"1e9\"",
        "\"5m\"",
        "true",
        "null",
        "[60]",
        "{}",
    ];
    let no_json = ["NaN", "Infinity", "1e999", "0x3c", "060", "+60", "60s", ""];
    let ask = |seconds: &str| {
        format!(r#"{{"grants":[{{"name":"deploy","credentials":["cloud"],"ttl_seconds":{seconds}}}]}}"#)
    };
    for (cases, told) in [(&nonsense[..], "ttl_seconds"), (&no_json[..], "not strict JSON")] {
        for seconds in cases {
            let call = arena.server().public.call("POST", "/v1/exchange").bearer(&token).json(&ask(seconds));
            let body = call.send().problem(400, "request_malformed");
            assert!(body["detail"].as_str().unwrap().contains(told), "{seconds}: {body}");
        }
    }
    let short = arena.server().public.call("POST", "/v1/exchange").bearer(&token).json(&ask("59")).send();
    short.problem(422, "ttl_out_of_range");
    for (asked, given) in [("60", 60), ("301", 300), ("1000000000", 300)] {
        let token = arena.token_with(json!({}));
        let body =
            arena.server().public.call("POST", "/v1/exchange").bearer(&token).json(&ask(asked)).send().ok();
        assert_eq!(body["issuances"][0]["ttl_seconds"], given, "{asked}");
    }
    // None of the refused used the token up.
    arena.server().public.exchange(&token, &only("cloud")).ok();
}

#[test]
fn r10_what_we_gave_out_is_no_token() {
    let mut arena = Arena::new();
    let (cloud, npm) = {
        let (first, second) = (arena.token_with(json!({})), arena.token_with(json!({})));
        let server = arena.server();
        (server.only(&first, "cloud"), server.only(&second, "npm"))
    };
    let assertion = cloud["fields"][cloud["secret_fields"][0].as_str().unwrap()].as_str().unwrap().to_owned();
    let parts: Vec<&str> = assertion.split('.').collect();
    let resigned = {
        let claims = crate::exchange::payload(&assertion);
        compact(&header().to_string(), &claims.to_string(), |signed| own_key().sign(signed))
    };
    arena.restart();
    arena.forget_summaries();

    let ours = [
        Case::new("an assertion of ours", assertion.clone()),
        Case::new("the same, signed by ci", resigned),
        Case::new("the same, unsigned", format!("{}.{}.", parts[0], parts[1])),
    ];
    let other = [
        Case::new("a handle", cloud["handle"].as_str().unwrap()),
        Case::new("a secret", npm["fields"]["value"].as_str().unwrap()),
        Case::new("an admin's token", arena.installation.admin_token("operator")),
        Case::new("an issuance's id", npm["id"].as_str().unwrap()),
    ];
    arena.counted(None, "token_issuer", "unknown-issuer", &ours);
    arena.counted(None, "token_malformed", "parts", &other);
}

#[test]
fn r12_answers_are_kept_by_nobody_and_tokens_stand_in_one_place() {
    let mut arena = Arena::new();
    let token = arena.token_with(json!({}));
    let body = only("npm").to_string();
    let server = arena.server();
    for method in ["GET", "HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "QUERY"] {
        let answer = server.public.call(method, "/v1/exchange").bearer(&token).json(&body).send();
        assert_eq!((answer.status, answer.header("allow")), (405, "POST"), "{method}: {answer:?}");
        assert_eq!(answer.header("cache-control"), "no-store", "{method}");
        if method != "HEAD" {
            answer.problem(405, "method_not_allowed");
        }
    }
    for parameter in ["access_token", "token", "jwt", "id_token", "subject_token", "ACCESS_TOKEN", "x"] {
        let path = format!("/v1/exchange?{parameter}={token}");
        for call in [server.public.call("POST", &path), server.public.call("POST", &path).bearer(&token)] {
            let answer = call.json(&body).send();
            answer.problem(400, "request_malformed");
            assert!(!answer.body.contains(&token), "{answer:?}");
        }
    }
    let twice = server.public.call("POST", "/v1/exchange").bearer(&token).bearer(&token).json(&body).send();
    twice.problem(400, "request_malformed");
    let in_the_body = format!(r#"{{"access_token":"{token}","grants":["deploy"]}}"#);
    let answer = server.public.call("POST", "/v1/exchange").json(&in_the_body).send();
    answer.problem(401, "token_missing");
    assert_eq!(answer.header("www-authenticate"), "Bearer");
    let both = server.public.call("POST", "/v1/exchange").bearer(&token).json(&in_the_body).send();
    both.problem(400, "request_malformed");
    for scheme in ["Basic", "JWT", "Token", "DPoP", "Negotiate"] {
        let call =
            server.public.call("POST", "/v1/exchange").header("authorization", &format!("{scheme} {token}"));
        call.json(&body).send().problem(401, "token_missing");
    }

    let answer = server.public.exchange(&token, &only("npm"));
    assert_eq!(answer.ok()["issuances"][0]["fields"]["value"], CANARY, "none of them used the token up");
    let expected = [
        ("cache-control", "no-store"),
        ("content-type", "application/json"),
        ("pragma", "no-cache"),
        ("vary", "Authorization"),
        ("x-content-type-options", "nosniff"),
    ];
    assert_eq!(headers(&answer), BTreeMap::from(expected), "no ETag, no Last-Modified, no cookie");
    assert_eq!(members(&answer.json()), ["decision_id", "issuances", "receipts"]);
    assert!(!arena.stop().contains(&token), "a token of a URL is in the log");
}

#[test]
fn t06_c11_nothing_that_a_stranger_chooses_names_a_log_line() {
    let mut arena = Arena::new();
    let marker = "chosen-by-a-stranger";
    let kid = json!({ "alg": "RS256", "kid": marker });
    let spoilt = [
        signed_as(&kid, &arena.claims()),
        arena.token_with(json!({ "iss": format!("https://{marker}.test") })),
        arena.token_with(json!({ "aud": marker })),
        arena.token_with(json!({ "workflow": marker, marker: marker, "ref": marker })),
        signed_text(&json!({ "alg": marker, "kid": KID }).to_string(), &arena.claims().to_string()),
    ];
    for token in &spoilt {
        let answer = arena.exchange(token, "deploy");
        assert!([401, 403].contains(&answer.status) && !answer.body.contains(marker), "{answer:?}");
    }

    let logs = arena.stop();

    assert!(logs.contains("answered a request"), "the positive control: requests are logged\n{logs}");
    assert!(!logs.contains(marker), "{logs}");
}

fn headers(answer: &Answer) -> BTreeMap<&str, &str> {
    let changing = ["connection", "content-length", "date"];
    let names = answer.headers.keys().map(|name| name.as_str()).filter(|name| !changing.contains(name));
    names.map(|name| (name, answer.header(name))).collect()
}

/// The same token with the other `s` that satisfies ECDSA's equation: no key is needed for it.
fn with_other_s(token: &str) -> String {
    use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let signature = URL_SAFE_NO_PAD.decode(signature).unwrap();
    let (r, s) = signature.split_at(32);
    let mut borrow = 0_i16;
    let mut other: Vec<u8> = P256_ORDER
        .iter()
        .zip(s)
        .rev()
        .map(|(order, digit)| {
            let rest = i16::from(*order) - i16::from(*digit) - borrow;
            borrow = i16::from(rest < 0);
            u8::try_from(rest.rem_euclid(256)).unwrap()
        })
        .collect();
    other.reverse();
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode([r, &other].concat()))
}
