//! C: claims, JSON, time, text. What a signature covers may still be nonsense, said twice, of the wrong type, too much,
//! or look like something else.

use serde_json::{Value, json};

use super::{
    Arena, Case,
    arena::{header, signed_as, signed_text},
    jose::{any_claims, claimed, key, open_to_any},
};
use crate::support::{
    AUDIENCE,
    issuer::{now, own_key, set},
    key::{compact, compact_bytes},
};

#[test]
fn c01_claims_that_are_said_twice_are_refused_at_any_depth() {
    let mut arena = Arena::new();
    let claims = arena.claims().to_string();
    let first = |name: &str, more: &str| {
        Case::new(name, signed_text(&header().to_string(), &claims.replacen('{', &format!("{{{more},"), 1)))
    };
    let cases = [
        first("another project first", r#""repository_id":"1""#),
        first("the same project first", r#""repository_id":"70155112""#),
        first("by an escape", r#""repository\u005fid":"1""#),
        first("by other escapes", r#""\u0072\u0065pository_id":"1""#),
        first("the audience", r#""aud":"https://other.test""#),
        first("the issuer", r#""iss":"https://evil.test""#),
        first("exp", r#""exp":99999999999"#),
        first("jti", r#""jti":"another""#),
        first("a claim that nobody knows", r#""x":1,"x":1"#),
        first("within an object", r#""x":{"y":1,"y":2}"#),
        first("within an object in an array", r#""x":[[{"y":1,"z":2,"\u0079":3}]]"#),
        first("an empty name", r#""":1,"":2"#),
        first("an astral name by its surrogates", r#""😀":1,"\ud83d\ude00":2"#),
    ];

    arena.counted(None, "token_malformed", "claims:duplicate-key", &cases);
    // Names that differ are two names, however alike they look.
    let alike = r#""Repository_id":"1","repository_id ":"1","repоsitory_id":"1","é":1,"e\u0301":2"#;
    arena.permitted("deploy", &[first("names that only look alike", alike)]);
}

#[test]
fn c01_claims_are_one_strict_object() {
    let mut arena = Arena::new();
    let claims = arena.claims().to_string();
    let raw = |name: &str, payload: &[u8]| {
        Case::new(
            name,
            compact_bytes(header().to_string().as_bytes(), payload, |signed| own_key().sign(signed)),
        )
    };
    let text = |name: &str, payload: String| raw(name, payload.as_bytes());
    let inner = claims.trim_start_matches('{');
    let wide: Vec<u8> = claims.encode_utf16().flat_map(u16::to_le_bytes).collect();
    // Some values have an @, which becomes something that is no UTF-8.
    let spelt = |bytes: &'static [u8]| -> Vec<u8> {
        claims.bytes().flat_map(|byte| if byte == b'@' { bytes.to_vec() } else { vec![byte] }).collect()
    };
    let no_json = [
        raw("nothing", b""),
        raw("Latin-1", &spelt(b"\xe9")),
        raw("an overlong form", &spelt(b"\xc1\x80")),
        raw("a surrogate in UTF-8", &spelt(b"\xed\xa0\x80")),
        raw("half a letter", &spelt(b"\xc3")),
        raw("UTF-16", &wide),
        text("a byte order mark", format!("\u{feff}{claims}")),
        text("a comment", format!("{{/**/{inner}")),
        text("a name without quotes", format!("{{x:1,{inner}")),
        text("single quotes", claims.replace('"', "'")),
        text("a comma too many", format!("{{,{inner}")),
        text("cut", claims[..claims.len() - 1].to_owned()),
    ];
    let no_object = ["[]", "null", "true", "7", "\"text\""].map(|payload| text(payload, payload.to_owned()));
    let in_an_array = text("in an array", format!("[{claims}]"));
    let more = [
        text("a second object", format!("{claims}{{}}")),
        text("a NUL", format!("{claims}\u{0}")),
        text("a bracket", format!("{claims}}}")),
    ];

    arena.counted(None, "token_malformed", "claims:not-json", &no_json);
    arena.counted(None, "token_malformed", "claims:not-object", &no_object);
    arena.counted(None, "token_malformed", "claims:not-object", &[in_an_array]);
    arena.counted(None, "token_malformed", "claims:trailing-bytes", &more);
    arena.permitted("deploy", &[text("spaces and line breaks", format!("\r\n\t {claims} \n"))]);
}

#[test]
fn c02_claims_of_another_type_are_malformed_where_required_and_match_nothing_elsewhere() {
    let mut arena = Arena::new();
    arena.grant("by-workflow", &[("ci", GRANTED_BY_WORKFLOW)]);
    let required = [
        "sub",
        "repository",
        "repository_id",
        "repository_owner",
        "repository_owner_id",
        "run_attempt",
        "run_id",
    ];
    let wrong = |value: &Value| {
        let text = value.as_str().map_or(value.clone(), |text| json!(text));
        [json!(701), json!([text]), json!({ "": text }), json!(true), Value::Null]
    };
    for name in required {
        let claims = arena.claims();
        let cases = wrong(&claims[name])
            .map(|value| Case::new(format!("{name} is {value}"), arena.minted(name, value)));
        arena.counted(Some("ci"), "token_malformed", &format!("claim-type:{name}"), &cases);
    }
    let absent =
        required.map(|name| (name, Case::new(format!("no {name}"), arena.token_with(json!({ name: null })))));
    for (name, case) in absent {
        arena.counted(Some("ci"), "token_malformed", &format!("missing-claim:{name}"), &[case]);
    }
    let empty = ["repository_id", "sub"]
        .map(|name| (name, Case::new(format!("empty {name}"), arena.minted(name, json!("")))));
    for (name, case) in empty {
        arena.counted(Some("ci"), "token_malformed", &format!("empty-claim:{name}"), &[case]);
    }
    for (grant, name) in [("deploy", "ref"), ("deploy", "event_name"), ("by-workflow", "workflow")] {
        let claims = arena.claims();
        let cases = wrong(&claims[name])
            .map(|value| Case::new(format!("{name} is {value}"), arena.minted(name, value)));
        for entry in arena.denied(grant, "no-rule", &cases) {
            assert_eq!(entry["subject"]["unusable"], json!([name]), "{entry}");
            assert_eq!(entry["subject"]["claims"].get(name), None, "{entry}");
            assert_eq!(entry["result"]["tried"][0]["failed"], json!([name]), "{entry}");
        }
    }
    // A claim that no rule speaks of decides nothing, whatever its type.
    arena.permitted("deploy", &[Case::new("workflow is 7", arena.minted("workflow", json!(7)))]);
    assert_eq!(arena.server().entries("INTENT")[0]["subject"]["unusable"], json!(["workflow"]));
    arena.permitted("by-workflow", &[Case::new("unspoiled", arena.token_with(json!({})))]);
}

#[test]
fn c03_numbers_are_compared_as_they_are_written() {
    let mut arena = open_to_any();
    let rule = |condition: &str| format!("{{ sub: \"pipeline:nightly\", {condition} }}");
    for (grant, condition) in [
        ("largest", "build: 9007199254740991"),
        ("one", "build: 1"),
        ("thousand", "build: 1000"),
        ("zero", "build: 0"),
        ("text", "build: \"1\""),
        ("truth", "build: true"),
        ("not-one", "build: { not: 1 }"),
        ("absent", "build: { present: false }"),
    ] {
        arena.grant(grant, &[("any", &rule(condition))]);
    }
    let mint = |arena: &Arena, build: &str| {
        let claims = any_claims(&arena.any).to_string().replacen('{', &format!("{{\"build\":{build},"), 1);
        let header = r#"{"alg":"EdDSA","kid":"ed25519"}"#;
        compact(header, &claims, |signed| key("ed25519").sign(signed))
    };
    let refused = [
        ("largest", "9007199254740993"),
        ("largest", "9007199254740992"),
        ("largest", "9007199254740991.0"),
        ("largest", "\"9007199254740991\""),
        ("one", "1.0"),
        ("one", "1.0000000000000000001"),
        ("one", "1e0"),
        ("one", "0.9999999999999999999"),
        ("one", "\"1\""),
        ("one", "true"),
        ("one", "[1]"),
        ("one", "18446744073709551617"),
        ("one", "4294967297"),
        ("thousand", "1e3"),
        ("thousand", "1E+3"),
        ("zero", "-0"),
        ("zero", "-0.0"),
        ("zero", "0e1"),
        ("zero", "null"),
        ("text", "1"),
        ("truth", "1"),
        ("truth", "\"true\""),
        ("not-one", "1.0"),
        ("not-one", "null"),
        ("absent", "1.0"),
        ("absent", "null"),
        ("absent", "9007199254740993"),
    ];
    for (grant, build) in refused {
        let token = mint(&arena, build);
        arena.denied(grant, "no-rule", &[Case::new(format!("{grant}: {build}"), token)]);
    }
    let permitted = [
        ("largest", "9007199254740991"),
        ("one", "1"),
        ("thousand", "1000"),
        ("zero", "0"),
        ("text", "\"1\""),
        ("truth", "true"),
        ("not-one", "2"),
        ("not-one", "\"1\""),
    ];
    for (grant, build) in permitted {
        let token = mint(&arena, build);
        arena.permitted(grant, &[Case::new(format!("{grant}: {build}"), token)]);
    }
}

#[test]
fn c04_t12_times_are_whole_numbers_that_can_be() {
    let mut arena = Arena::new();
    for name in ["exp", "iat", "nbf"] {
        let literal = |arena: &Arena, value: &str| {
            let claims = arena.claims_with(json!({ name: null })).to_string();
            let claims = claims.replacen('{', &format!("{{\"{name}\":{value},"), 1);
            Case::new(format!("{name} is {value}"), signed_text(&header().to_string(), &claims))
        };
        let at = now() + if name == "exp" { 300 } else { 0 };
        let no_json =
            ["NaN", "Infinity", "-Infinity", "0x6a", "1_790_000_000", "01790000000", "+1", "1e999", ".5"];
        let no_json = no_json.map(|value| literal(&arena, value));
        let fraction = format!("{at}.9");
        let whole_fraction = format!("{at}.0");
        let text = format!("\"{at}\"");
        let list = format!("[{at}]");
        let types = [
            "1e308",
            "1.7e9",
            "1e10",
            "-0",
            "true",
            "false",
            "null",
            "\"never\"",
            "\"\"",
            "{}",
            "[]",
            "18446744073709551616",
            "18446744073709551615",
            "9223372036854775808",
            "-9223372036854775809",
            "\"99999999999\"",
            &fraction,
            &whole_fraction,
            &text,
            &list,
        ];
        let types = types.map(|value| literal(&arena, value));
        let ranges = ["9223372036854775807", "-9223372036854775808", "253402300800", "4611686018427387904"];
        let ranges = ranges.map(|value| literal(&arena, value));

        arena.counted(None, "token_malformed", "claims:not-json", &no_json);
        arena.counted(Some("ci"), "token_malformed", &format!("claim-type:{name}"), &types);
        arena.counted(Some("ci"), "token_malformed", &format!("time-out-of-range:{name}"), &ranges);
    }
    for name in ["exp", "iat"] {
        let case = Case::new(format!("no {name}"), arena.token_with(json!({ name: null })));
        arena.counted(Some("ci"), "token_malformed", &format!("missing-claim:{name}"), &[case]);
    }
    arena.permitted("deploy", &[Case::new("no nbf", arena.token_with(json!({ "nbf": null })))]);
}

#[test]
fn c04_t12_registered_claims_have_one_type() {
    let mut arena = Arena::new();
    let url = arena.installation.issuer.url.clone();
    let no_issuer = [
        json!(["https://evil.test", url]),
        json!([url]),
        json!({ "": url }),
        json!(7),
        json!(true),
        Value::Null,
    ];
    let no_issuer = no_issuer.map(|value| Case::new(format!("iss is {value}"), arena.minted("iss", value)));
    let absent = Case::new("no iss", arena.token_with(json!({ "iss": null })));
    let jti = [
        json!(7),
        json!(["a"]),
        json!({}),
        json!(true),
        Value::Null,
        json!("j".repeat(257)),
        json!("j".repeat(300)),
    ];
    let jti = jti.map(|value| Case::new(format!("jti is {value:.30}"), arena.minted("jti", value)));
    let no_jti = [
        Case::new("no jti", arena.token_with(json!({ "jti": null }))),
        Case::new("empty jti", arena.minted("jti", json!(""))),
    ];
    let control =
        ["j\u{0}", "j\r\nX: 1", "j\u{85}"].map(|jti| Case::new(jti, arena.minted("jti", json!(jti))));

    arena.counted(None, "token_malformed", "issuer-not-text", &no_issuer);
    arena.counted(None, "token_malformed", "issuer-not-text", &[absent]);
    arena.counted(Some("ci"), "token_malformed", "claim-type:jti", &jti);
    arena.counted(Some("ci"), "token_malformed", "missing-claim:jti", &no_jti);
    arena.counted(Some("ci"), "token_malformed", "control-characters:jti", &control);
    arena.permitted("deploy", &[Case::new("the longest jti", arena.minted("jti", json!("j".repeat(256))))]);
}

#[test]
fn c04_c05_c06_tokens_hold_within_their_times_and_the_leeway() {
    let mut arena = Arena::new();
    let at = now();
    // Whoever is slow makes tokens older: edges that a slow machine would cross have some seconds of room.
    let with = |arena: &Arena, spoiled: Value| Case::new(spoiled.to_string(), arena.token_with(spoiled));
    let each = |arena: &Arena, all: &[Value]| {
        all.iter().map(|spoiled| with(arena, spoiled.clone())).collect::<Vec<_>>()
    };
    let expired = [
        json!({ "iat": at - 200, "exp": at - 31 }),
        json!({ "iat": at - 200, "exp": at - 3600 }),
        json!({ "iat": -1, "exp": -1, "nbf": -1 }),
        json!({ "exp": -1 }),
        json!({ "exp": 0 }),
        json!({ "exp": 1 }),
        json!({ "exp": at - 60, "iat": at }),
        json!({ "exp": -62_135_596_800_i64 }),
    ];
    let too_early =
        [json!({ "nbf": at + 120 }), json!({ "nbf": at + 86_400 }), json!({ "nbf": 99_999_999_999_i64 })];
    let from_the_future = [json!({ "iat": at + 120 }), json!({ "iat": at + 10_000, "exp": at + 10_300 })];
    let long_lived = [
        json!({ "exp": at + 31_536_000 }),
        json!({ "exp": at + 86_400 + 60 }),
        json!({ "iat": at - 500, "exp": at + 86_400 }),
        json!({ "exp": 253_000_000_000_i64 }),
    ];
    let old = [
        json!({ "iat": at - 1200, "exp": at + 2400 }),
        json!({ "iat": at - 640 }),
        json!({ "iat": 0 }),
        json!({ "iat": -1 }),
    ];
    let expired = each(&arena, &expired);
    let too_early = each(&arena, &too_early);
    let from_the_future = each(&arena, &from_the_future);
    let long_lived = each(&arena, &long_lived);
    let old = each(&arena, &old);

    arena.recorded("token_expired", "expired", &expired);
    arena.recorded("token_not_yet_valid", "nbf", &too_early);
    arena.recorded("token_not_yet_valid", "iat", &from_the_future);
    arena.recorded("token_too_old", "life-over-24h", &long_lived);
    arena.recorded("token_too_old", "age", &old);
    let entries = arena.recorded("token_expired", "expired", &each(&arena, &[json!({ "exp": at - 100 })]));
    assert_eq!(
        entries[0]["subject"]["project"], "70155112",
        "an authentic token's job is named: {}",
        entries[0]
    );
    // Seconds from now, since this one's edges must not be crossed while it waits for its turn.
    let permitted: [fn(i64) -> Value; 8] = [
        |at| json!({ "iat": at - 200, "exp": at - 10 }),
        |at| json!({ "iat": at + 5 }),
        |at| json!({ "iat": at + 25 }),
        |at| json!({ "nbf": at + 25 }),
        |at| json!({ "nbf": at - 600 }),
        |_| json!({ "nbf": 0 }),
        |at| json!({ "iat": at - 560 }),
        |at| json!({ "exp": at + 86_400 - 60 }),
    ];
    for times in permitted {
        let case = with(&arena, times(now()));
        arena.permitted("deploy", &[case]);
    }
}

#[test]
fn c05_no_profile_takes_a_year_long_token() {
    let mut arena = open_to_any();
    let mut claims = any_claims(&arena.any);
    let right = claimed("ES256", "p256", &claims, |signed| key("p256").sign(signed));
    set(&mut claims, json!({ "exp": now() + 31_536_000 }));
    let token = claimed("ES256", "p256", &claims, |signed| key("p256").sign(signed));

    arena.recorded("token_too_old", "life-over-24h", &[Case::new("a year", token)]);
    arena.permitted("pipeline", &[Case::new("unspoiled", right)]);
}

#[test]
fn c08_text_is_compared_byte_for_byte() {
    let mut arena = Arena::new();
    arena.grant(
        "named",
        &[("ci", r#"{ repository_owner_id: "4216", repository_id: "70155112", repository: acme/payments }"#)],
    );
    arena.grant(
        "kube",
        &[("ci", r#"{ repository_owner_id: "4216", repository_id: "70155112", environment: kube }"#)],
    );
    arena.grant(
        "cafe",
        &[(
            "ci",
            "{ repository_owner_id: \"4216\", repository_id: \"70155112\", environment: \"caf\u{e9}\" }",
        )],
    );
    let with = |name: &str, value: &str| {
        Case::new(format!("{name} is {value:?}"), arena.token_with(json!({ name: value })))
    };
    let rows = [
        (
            "named",
            "repository",
            vec![
                "acme/p\u{430}yments",
                "acme/payments ",
                " acme/payments",
                "acme/payments/",
                "acme//payments",
                "acme\u{2215}payments",
                "acme%2fpayments",
                "acme/payments\u{200b}",
                "acme/payment\u{17f}",
                "acme/\u{202e}stnemyap",
                "\u{ff41}cme/payments",
                "acme/payments2",
            ],
            vec!["ACME/Payments", "acme/PAYMENTS"],
        ),
        (
            "kube",
            "environment",
            vec!["\u{212a}ube", "kube\u{0301}", "ku\u{202e}be", "kube.", "k"],
            vec!["KUBE", "Kube"],
        ),
        (
            "cafe",
            "environment",
            vec!["cafe\u{301}", "caf\u{c9}", "cafe", "caf\u{e9}\u{fe0f}"],
            vec!["caf\u{e9}", "CAF\u{e9}"],
        ),
        (
            "deploy",
            "ref",
            vec![
                "refs/heads/Main",
                "REFS/heads/main",
                "refs/heads/m\u{430}in",
                "refs/heads/main/",
                "refs/heads/main/x",
                "refs/heads/mainx",
                "main",
                "refs/tags/main",
                "refs/heads/ma\u{131}n",
                "refs/heads/main\u{200b}",
            ],
            vec!["refs/heads/main"],
        ),
        ("deploy", "event_name", vec!["PUSH", "pu\u{17f}h", "push "], vec!["push"]),
    ];
    let rows = rows.map(|(grant, name, refused, permitted)| {
        let cases = |values: Vec<&str>| values.into_iter().map(|value| with(name, value)).collect::<Vec<_>>();
        (grant, cases(refused), cases(permitted))
    });
    for (grant, refused, permitted) in rows {
        arena.denied(grant, "no-rule", &refused);
        arena.permitted(grant, &permitted);
    }
}

#[test]
fn c09_control_characters_are_refused_where_they_matter_and_escaped_where_not() {
    let mut arena = Arena::new();
    for name in ["ref", "environment", "repository", "run_id", "actor"] {
        let value = arena.claims()[name].as_str().unwrap().to_owned();
        let spoilt = ["\r\n", "\u{0}", "\u{1b}[2J", "\u{7f}", "\u{85}", "\u{9b}", "\t"];
        let cases = spoilt.map(|spoil| {
            Case::new(
                format!("{name} with {spoil:?}"),
                arena.token_with(json!({ name: format!("{value}{spoil}x") })),
            )
        });
        arena.counted(Some("ci"), "token_malformed", &format!("control-characters:{name}"), &cases);
    }
    let aud = ["\u{0}", "\r\n"].map(|spoil| {
        Case::new(
            format!("aud with {spoil:?}"),
            arena.token_with(json!({ "aud": format!("{AUDIENCE}{spoil}") })),
        )
    });
    arena.counted(Some("ci"), "token_malformed", "control-characters:aud", &aud);
    let raw = |name: &str, member: &str| {
        let claims = arena.claims().to_string().replacen('{', &format!("{{{member},"), 1);
        Case::new(name, signed_text(&header().to_string(), &claims))
    };
    let no_text = [
        raw("a lone high surrogate", r#""x":"\ud800""#),
        raw("a lone low surrogate", r#""x":"\udc00""#),
        raw("two high surrogates", r#""x":"\ud800\ud800""#),
        raw("a surrogate in a name", r#""\ud800":1"#),
        raw("a raw line break", "\"x\":\"a\nb\""),
        raw("a raw NUL", "\"x\":\"a\u{0}b\""),
        raw("an unknown escape", r#""x":"\x41""#),
    ];
    arena.counted(None, "token_malformed", "claims:not-json", &no_text);

    // Nobody asks for it, so it decides nothing; the ledger keeps it, as one escaped text.
    let odd = "x\u{0}y\r\n{\"code\":\"ISSUED\"}\u{1b}[2J\u{202e}z";
    arena.permitted(
        "deploy",
        &[Case::new("control characters in an unused claim", arena.token_with(json!({ "workflow": odd })))],
    );
    assert_eq!(arena.server().entries("INTENT")[0]["subject"]["claims"]["workflow"], odd);
    let stored: String = {
        let store = rusqlite::Connection::open(arena.installation.file("hallpass.db")).unwrap();
        let newest = "SELECT CAST(bytes AS TEXT) FROM entry WHERE code = 'INTENT' ORDER BY idx DESC LIMIT 1";
        store.query_row(newest, [], |row| row.get(0)).unwrap()
    };
    assert!(stored.contains(r#"x\u0000y\r\n{\"code\":\"ISSUED\"}\u001b[2J"#), "{stored}");
    arena.permitted(
        "deploy",
        &[Case::new("marks of direction", arena.token_with(json!({ "environment": "pro\u{202e}d" })))],
    );
}

#[test]
fn c10_too_deep_too_many_too_long() {
    let mut arena = Arena::new();
    let with = |name: &str, member: String| {
        let claims = arena.claims().to_string().replacen('{', &format!("{{{member},"), 1);
        Case::new(name, signed_text(&header().to_string(), &claims))
    };
    let nested = |open: &str, depth: usize, close: &str| {
        format!("\"x\":{}0{}", open.repeat(depth), close.repeat(depth))
    };
    let numbered = |many: usize| (0..many).map(|at| format!("\"{at:x}\":0")).collect::<Vec<_>>().join(",");
    let deep = [
        with("200 arrays", nested("[", 200, "]")),
        with("200 objects", nested("{\"a\":", 200, "}")),
        with("8 arrays within the claims", nested("[", 8, "]")),
        with("1,500 arrays that never close", format!("\"x\":{}", "[".repeat(1500))),
    ];
    let own = arena.claims().as_object().unwrap().len();
    let many = [
        with("257 claims", numbered(257 - own)),
        with("450 claims", numbered(450 - own)),
        with("1,100 items", format!("\"x\":[{}0]", "0,".repeat(1099))),
        with("1,100 empty arrays", format!("\"x\":[{}[]]", "[],".repeat(1099))),
    ];
    let long = [
        with("a text of 3 KiB", format!("\"x\":\"{}\"", "x".repeat(3072))),
        with("a text of 2,049 bytes", format!("\"x\":\"{}\"", "x".repeat(2049))),
        with("a name of 3 KiB", format!("\"{}\":0", "x".repeat(3072))),
        with(
            "a text of 3 KiB by escapes",
            format!("\"x\":\"{}\"", "\\u00e9".repeat(1025 - 200) + &"é".repeat(250)),
        ),
    ];
    let long_enough = long.into_iter().filter(|case| case.token.len() <= 8192).collect::<Vec<_>>();
    let most = [
        with("256 claims", numbered(256 - own)),
        with("7 arrays within the claims", nested("[", 7, "]")),
        with("a text of 2 KiB", format!("\"x\":\"{}\"", "x".repeat(2048))),
    ];

    arena.counted(None, "token_malformed", "claims:too-deep", &deep);
    arena.counted(None, "token_malformed", "claims:too-many-nodes", &many);
    arena.counted(None, "token_malformed", "claims:string-too-long", &long_enough);
    arena.permitted("deploy", &most);
}

#[test]
fn c11_claims_that_nobody_knows_change_nothing() {
    let mut arena = Arena::new();
    let new = json!({
        "foo": "bar", "nested": { "repository_id": "1" }, "list": [1, null, { "a": true }], "check_run_ID": "7",
        "repo_property_new": "x", "https://acme.test/claim": 1.5, "": "empty", "__proto__": { "admin": true },
    });
    let token = arena.token_with(new);

    arena.permitted("deploy", &[Case::new("claims of next year", token)]);
    let claims = &arena.server().entries("INTENT")[0]["subject"]["claims"];
    assert_eq!(claims["repo_property_new"], "x", "{claims}");
    for name in ["foo", "nested", "list", "check_run_ID", "https://acme.test/claim", "", "__proto__"] {
        assert_eq!(claims.get(name), None, "{name} is no claim of the profile: {claims}");
    }
}

#[test]
fn c12_absent_claims_satisfy_nothing() {
    let mut arena = open_to_any();
    let pins = r#"repository_owner_id: "4216", repository_id: "70155112""#;
    arena.grant("not-pr", &[("ci", &format!("{{ {pins}, head_ref: {{ not: evil }} }}"))]);
    arena.grant("none-of", &[("ci", &format!("{{ {pins}, head_ref: {{ not: [evil, worse] }} }}"))]);
    arena.grant("some", &[("ci", &format!("{{ {pins}, environment: {{ present: true }} }}"))]);
    arena.grant("globbed", &[("ci", &format!("{{ {pins}, job_workflow_ref: {{ glob: \"**\" }} }}"))]);
    let without = |name: &str| [Case::new(format!("no {name}"), arena.token_with(json!({ name: null })))];
    let rows = [
        ("not-pr", without("head_ref")),
        ("none-of", without("head_ref")),
        ("some", without("environment")),
        ("globbed", without("job_workflow_ref")),
        ("deploy", without("ref")),
        ("deploy", without("event_name")),
    ];
    for (grant, cases) in rows {
        arena.denied(grant, "no-rule", &cases);
    }
    for grant in ["not-pr", "none-of", "some", "globbed"] {
        let token = arena.token_with(json!({}));
        arena.permitted(grant, &[Case::new(grant, token)]);
    }
}

#[test]
fn c13_names_with_separators_are_names_and_pointers_are_pointers() {
    let mut arena = open_to_any();
    let own = "sub: \"pipeline:nightly\"";
    arena.grant("flat", &[("any", &format!("{{ {own}, \"oidc.circleci.com/org-id\": x }}"))]);
    arena.grant("pointed", &[("any", &format!("{{ {own}, \"/queue/a~1b\": x }}"))]);
    arena.grant("below", &[("any", &format!("{{ {own}, \"/queue/name\": x }}"))]);
    arena.grant("listed", &[("any", &format!("{{ {own}, \"/labels/0\": x }}"))]);
    arena.grant("tilde", &[("any", &format!("{{ {own}, \"/queue/a~0b\": x }}"))]);
    let nested = json!({ "oidc.circleci.com": { "org-id": "x" } });
    let slashed = json!({ "oidc.circleci.com/org-id": "x" });
    let refused = [
        ("flat", nested),
        ("flat", json!({ "oidc": { "circleci.com/org-id": "x" } })),
        ("flat", json!({ "oidc.circleci.com~1org-id": "x" })),
        ("flat", json!({ "/oidc.circleci.com/org-id": "x" })),
        ("pointed", json!({ "queue": { "a": { "b": "x" } } })),
        ("pointed", json!({ "queue": { "a~1b": "x" } })),
        ("below", json!({ "queue/name": "x" })),
        ("below", json!({ "/queue/name": "x" })),
        ("below", json!({ "queue": "x" })),
        ("below", json!({ "queue": ["name", "x"] })),
        ("below", json!({ "queue": { "name": { "": "x" } } })),
        ("below", json!({ "queue": { "Name": "x" } })),
        ("listed", json!({ "labels": { "1": "x" } })),
        ("listed", json!({ "labels": ["y", "x"] })),
        ("listed", json!({ "labels": [] })),
        ("listed", json!({ "labels": "x" })),
        ("tilde", json!({ "queue": { "a~0b": "x" } })),
        ("tilde", json!({ "queue": { "a": { "0b": "x" } } })),
    ];
    let permitted = [
        ("flat", slashed),
        ("pointed", json!({ "queue": { "a/b": "x" } })),
        ("below", json!({ "queue": { "name": "x" } })),
        ("listed", json!({ "labels": ["x"] })),
        ("tilde", json!({ "queue": { "a~b": "x" } })),
    ];
    let mint = |arena: &Arena, more: &Value| {
        let mut claims = any_claims(&arena.any);
        set(&mut claims, more.clone());
        claimed("EdDSA", "ed25519", &claims, |signed| key("ed25519").sign(signed))
    };
    for (grant, more) in refused {
        let token = mint(&arena, &more);
        arena.denied(grant, "no-rule", &[Case::new(format!("{grant}: {more}"), token)]);
    }
    for (grant, more) in permitted {
        let token = mint(&arena, &more);
        arena.permitted(grant, &[Case::new(format!("{grant}: {more}"), token)]);
    }
}

impl Arena {
    /// A token of `ci` with one claim set, `null` too.
    fn minted(&self, name: &str, value: Value) -> String {
        let mut claims = self.claims();
        claims[name] = value;
        signed_as(&header(), &claims)
    }
}

const GRANTED_BY_WORKFLOW: &str =
    r#"{ repository_owner_id: "4216", repository_id: "70155112", workflow: Deploy }"#;
