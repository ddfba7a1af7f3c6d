use proptest::prelude::*;
use serde_json::json;

use super::*;

fn claims() -> Claims {
    json!({"ref": "refs/heads/main", "n": 7, "yes": true, "repository": "Acme/App", "list": ["a", null, "c"],
           "deep": {"in/side": "x", "nothing": null, "": "empty", "~": "tilde", "0": "zero"},
           "oidc.example/org": "flat"})
    .as_object()
    .unwrap()
    .clone()
}

fn condition(claim: &str, matcher: Matcher) -> Condition {
    let path = Path::parse(claim).unwrap();
    Condition { claim: claim.into(), path, matcher, case_insensitive: false, place: Place::default() }
}

fn holds(claim: &str, matcher: Matcher) -> bool {
    condition(claim, matcher).holds(&claims(), &["mistyped".to_owned()])
}

fn glob(pattern: &str) -> Matcher {
    Matcher::Glob(Glob::parse(pattern).unwrap())
}

fn matches(pattern: &str, text: &str) -> bool {
    Glob::parse(pattern).unwrap().matches(text, false)
}

fn not(matcher: Matcher) -> Matcher {
    Matcher::Not(Box::new(matcher))
}

/// One of each kind; whatever a claim is, some of them would hold of it.
fn one_of_each() -> [Matcher; 9] {
    [
        Matcher::Equals(json!("")),
        Matcher::Equals(json!("x")),
        Matcher::AnyOf(vec![Matcher::Equals(json!("x")), glob("**")]),
        glob("**"),
        not(Matcher::Equals(json!("x"))),
        not(Matcher::AnyOf(vec![Matcher::Equals(json!("x"))])),
        not(Matcher::Present(true)),
        not(Matcher::Present(false)),
        Matcher::Present(true),
    ]
}

#[test]
fn missing_claim_satisfies_nothing_but_present_false() {
    for claim in ["absent", "/absent/x", "/deep/absent", "/list/3", "deep/in"] {
        for matcher in one_of_each() {
            assert!(!holds(claim, matcher.clone()), "{claim} {matcher:?}");
        }
        assert!(holds(claim, Matcher::Present(false)), "{claim}");
        let or_main = Matcher::AnyOf(vec![Matcher::Equals(json!("main")), Matcher::Present(false)]);
        assert!(holds(claim, or_main), "{claim}");
    }
    assert!(!holds("ref", Matcher::Present(false)));
}

#[test]
fn unusable_claim_satisfies_nothing_at_all() {
    for claim in [
        "mistyped",
        "/mistyped/x",
        "/deep/nothing",
        "/list/1",
        "/ref/0",
        "/n/x",
        "/list/x",
        "/list/01",
        "/list/-1",
    ] {
        for matcher in one_of_each().into_iter().chain([Matcher::Present(false)]) {
            assert!(!holds(claim, matcher.clone()), "{claim} {matcher:?}");
        }
    }
}

#[test]
fn literals_keep_their_json_type() {
    assert!(holds("n", Matcher::Equals(json!(7))));
    for wrong in [json!("7"), json!(7.0), json!([7]), json!(true)] {
        assert!(!holds("n", Matcher::Equals(wrong.clone())), "{wrong}");
    }
    assert!(holds("yes", Matcher::Equals(json!(true))));
    assert!(!holds("yes", Matcher::Equals(json!("true"))));
    assert!(!holds("list", Matcher::Equals(json!("a"))));
    assert!(!holds("list", glob("**")));
    assert!(!holds("n", glob("**")));
}

#[test]
fn pointers_reach_inside_and_flat_names_do_not() {
    for (claim, value) in [
        ("/deep/in~1side", "x"),
        ("/deep/", "empty"),
        ("/deep/~0", "tilde"),
        ("/deep/0", "zero"),
        ("/list/0", "a"),
        ("/oidc.example~1org", "flat"),
        ("oidc.example/org", "flat"),
    ] {
        assert!(holds(claim, Matcher::Equals(json!(value))), "{claim}");
    }
    for bad in ["/~", "/a~2", "/a/~x", "/a~"] {
        assert_eq!(Path::parse(bad), None, "{bad}");
    }
}

#[test]
fn globs_stop_at_slashes_and_cover_the_whole_string() {
    for (pattern, text, due) in [
        ("refs/heads/release/*", "refs/heads/release/1", true),
        ("refs/heads/release/*", "refs/heads/release/1/evil", false),
        ("refs/heads/**", "refs/heads/a/b", true),
        ("refs/tags/v*", "refs/tags/v1\nrefs/heads/main", false),
        ("main", "main-evil", false),
        ("*", "", true),
        ("**", "a/b", true),
        ("a*c", "abbbc", true),
        ("a.c", "abc", false),
        ("[ab]", "a", false),
        ("a?", "ab", false),
        ("\\*", "*", false),
        ("é*", "éé", true),
        (
            "acme/ci/.github/workflows/d.yml@refs/tags/v*",
            "acme/ci/.github/workflows/d.yml@refs/heads/x/.github/workflows/d.yml@refs/tags/v4",
            false,
        ),
    ] {
        assert_eq!(matches(pattern, text), due, "{pattern} {text:?}");
    }
}

#[test]
fn patterns_without_a_meaning_are_none() {
    for bad in ["", "***", "a/****", &"a".repeat(MAX_GLOB_CHARACTERS + 1)] {
        assert_eq!(Glob::parse(bad), None, "{bad}");
    }
}

#[test]
fn case_folds_in_ascii_only_and_where_it_shall() {
    let mut folding = condition("repository", Matcher::Equals(json!("acme/app")));
    assert!(!folding.holds(&claims(), &[]));
    folding.case_insensitive = true;
    assert!(folding.holds(&claims(), &[]));
    folding.matcher = glob("ACME/a*P");
    assert!(folding.holds(&claims(), &[]));
    folding.matcher = not(Matcher::Equals(json!("ACME/APP")));
    assert!(!folding.holds(&claims(), &[]));
    assert!(!Glob::parse("\u{212a}ube").unwrap().matches("kube", true));
    assert!(!Glob::parse("É").unwrap().matches("é", true));
}

#[test]
fn no_pattern_is_slow() {
    let stars = "*a".repeat(MAX_GLOB_CHARACTERS / 2);
    let across = "**a".repeat(MAX_GLOB_CHARACTERS / 3);
    let text = format!("{}b", "a".repeat(2_000));
    let started = std::time::Instant::now();
    assert!(!matches(&stars, &text) && !matches(&across, &text));
    // A backtracking matcher would still be at it when the sun goes out.
    assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
}

fn naive(pattern: &[char], text: &[char]) -> bool {
    match pattern {
        [] => text.is_empty(),
        ['*', '*', rest @ ..] => (0..=text.len()).any(|at| naive(rest, &text[at..])),
        ['*', rest @ ..] => {
            let end = text.iter().position(|letter| *letter == '/').unwrap_or(text.len());
            (0..=end).any(|at| naive(rest, &text[at..]))
        }
        [letter, rest @ ..] => text.first() == Some(letter) && naive(rest, &text[1..]),
    }
}

/// What stands where a condition looks, for the reference.
#[derive(Clone, Debug)]
enum There {
    Nothing,
    SomethingElse,
    This(serde_json::Value),
}

/// The language's rules on matchers, one by one, as a reader would apply them.
fn reference(matcher: &Matcher, there: &There) -> bool {
    let value = match there {
        There::SomethingElse => return false,
        There::Nothing => None,
        There::This(value) => Some(value),
    };
    match (matcher, value) {
        (Matcher::AnyOf(any), _) => any.iter().filter(|each| reference(each, there)).count() > 0,
        (Matcher::Present(due), value) => *due == value.is_some(),
        (_, None) => false,
        (Matcher::Equals(literal), Some(value)) => literal == value,
        (Matcher::Glob(glob), Some(serde_json::Value::String(text))) => {
            naive(&glob.as_str().chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
        }
        (Matcher::Glob(_), Some(_)) => false,
        (Matcher::Not(inner), Some(_)) => !reference(inner, there),
    }
}

fn any_value() -> impl Strategy<Value = serde_json::Value> {
    prop_oneof![
        "[ab/]{0,3}".prop_map(serde_json::Value::from),
        (0_i64..3).prop_map(serde_json::Value::from),
        any::<bool>().prop_map(serde_json::Value::from),
    ]
}

fn any_matcher() -> impl Strategy<Value = Matcher> {
    let leaf = prop_oneof![
        any_value().prop_map(Matcher::Equals),
        "[ab/*]{1,4}".prop_filter("three stars", |text| !text.contains("***")).prop_map(|text| glob(&text)),
        any::<bool>().prop_map(Matcher::Present),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 1..4).prop_map(Matcher::AnyOf),
            inner.prop_filter("as the loader", |inner| !speaks_of_presence(inner)).prop_map(not),
        ]
    })
}

/// The loader refuses `not` around `present`.
fn speaks_of_presence(matcher: &Matcher) -> bool {
    match matcher {
        Matcher::AnyOf(any) => any.iter().any(speaks_of_presence),
        Matcher::Not(inner) => speaks_of_presence(inner),
        Matcher::Present(_) => true,
        Matcher::Equals(_) | Matcher::Glob(_) => false,
    }
}

proptest! {
    #[test]
    fn matchers_agree_with_a_reference(matcher in any_matcher(), value in prop::option::of(any_value()), usable: bool) {
        let (mut claims, mut unusable) = (Claims::new(), Vec::new());
        let there = match value {
            _ if !usable => {
                unusable.push("x".to_owned());
                There::SomethingElse
            }
            None => There::Nothing,
            Some(value) => {
                claims.insert("x".into(), value.clone());
                There::This(value)
            }
        };
        prop_assert_eq!(condition("x", matcher.clone()).holds(&claims, &unusable), reference(&matcher, &there), "{}", matcher);
    }

    #[test]
    fn agrees_with_a_naive_reference(pattern in "[ab/*]{1,8}", text in "[ab/]{0,10}") {
        prop_assume!(!pattern.contains("***"));
        let letters: Vec<char> = pattern.chars().collect();
        let due = naive(&letters, &text.chars().collect::<Vec<_>>());
        prop_assert_eq!(matches(&pattern, &text), due);
    }

    /// What a condition says of a value, its negation denies, and neither holds of what is not there.
    #[test]
    fn negation_is_the_opposite_of_values_only(pattern in "[ab/*]{1,6}", text in "[ab/]{0,6}") {
        prop_assume!(!pattern.contains("***"));
        let mut claims = Claims::new();
        let [plain, negated] = [condition("x", glob(&pattern)), condition("x", not(glob(&pattern)))];
        prop_assert!(!plain.holds(&claims, &[]) && !negated.holds(&claims, &[]));
        claims.insert("x".into(), text.into());
        prop_assert_ne!(plain.holds(&claims, &[]), negated.holds(&claims, &[]));
    }
}
