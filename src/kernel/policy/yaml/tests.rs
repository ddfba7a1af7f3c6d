use proptest::prelude::*;

use super::*;

fn code(text: &str) -> &'static str {
    read("x.yaml", text.as_bytes()).unwrap_err().code
}

#[test]
fn reads_a_tree_with_places() {
    let tree = read("x.yaml", b"a: 1\nb:\n  - 'x'\n  - {c: d}\n").unwrap();
    let Content::Mapping(entries) = &tree.content else { panic!("mapping") };
    assert_eq!((entries[1].0.line, entries[1].0.column), (2, 1));
    let Content::Sequence(items) = &entries[1].1.content else { panic!("sequence") };
    assert_eq!(items[0].content, Content::Quoted("x".into()));
    assert_eq!((items[1].line, items[1].column), (4, 5));
}

#[test]
fn refuses_what_two_readers_could_read_differently() {
    for (text, expected) in [
        ("a: &x 1\nb: 2", "anchor"),
        ("a: &x 1\nb: *x", "anchor"),
        ("b: *x", "anchor"),
        ("a: !!str 1", "tag"),
        ("a: 1\na: 2", "duplicate-key"),
        ("a: 1\n\"a\": 2", "duplicate-key"),
        ("<<: {a: 1}", "merge-key"),
        ("a: 1\n---\nb: 2", "second-document"),
        ("? [a]\n: 1", "key-not-text"),
        ("", "empty-file"),
        ("# only a comment\n", "empty-file"),
        ("\u{feff}a: 1", "byte-order-mark"),
        ("a: [1", "yaml-syntax"),
        ("a:\n\t- b", "tab"),
        ("a: b\n\tc: d", "tab"),
        ("a: |\n\tx", "tab"),
        ("a: ! x", "tag"),
        ("!x", "tag"),
        ("&x", "anchor"),
        ("? &x a\n: b", "anchor"),
        ("%YAML 1.1\n---\na: b", "directive"),
        ("%TAG !e! tag:e,2000:\n---\na: b", "directive"),
        ("a: b\n---\n", "second-document"),
        ("---\n---\na: b", "second-document"),
        ("\"<<\": {a: 1}", "merge-key"),
        ("a: 1\n? a\n: 2", "duplicate-key"),
        ("{\"a\": 1, \"\\x61\": 2}", "duplicate-key"),
        ("on: 1", "key-not-text"),
        ("0701: 1", "key-not-text"),
        (": 1", "key-not-text"),
        ("~: 1", "key-not-text"),
        ("# see below\rissuer: evil", "unseen-character"),
        ("a: b\u{2028}", "unseen-character"),
        ("a: b\u{202e}c", "unseen-character"),
        ("a: b\u{feff}c", "unseen-character"),
        ("a: \u{0}", "unseen-character"),
        ("a: b\u{85}c", "unseen-character"),
    ] {
        assert_eq!(code(text), expected, "{text:?}");
    }
    assert_eq!(code(&format!("{}{}", "[".repeat(40), "]".repeat(40))), "too-deep");
    assert_eq!(code(&"[".repeat(100_000)), "too-deep");
    assert_eq!(read("x", &[0xff]).unwrap_err().code, "not-utf8");
    assert_eq!(code(&format!("[{}]", "1,".repeat(30_000))), "too-many-nodes");
}

#[test]
fn duplicate_is_shown_where_it_stands() {
    let found = read("x.yaml", b"a: 1\nb: 2\na: 3\n").unwrap_err();
    assert_eq!((found.line, found.column), (3, 1));
}

#[test]
fn unknown_keys_name_the_nearest() {
    let tree = read("x.yaml", b"enviroment: x\n").unwrap();
    let mut findings = Findings::new("x.yaml");
    let mut fields = findings.fields(&tree).unwrap();
    fields.take("environment");
    fields.finish(&mut findings);
    assert_eq!(findings.list[0].remedy, "did you mean `environment`?");
}

#[test]
fn unseen_character_is_shown_where_it_stands() {
    let found = read("x.yaml", "a: 1\r\nb: é\u{202e}x\n".as_bytes()).unwrap_err();
    assert_eq!((found.line, found.column), (2, 5));
    assert!(read("x.yaml", b"a: 1\r\nb:\t2\n").is_ok());
}

#[test]
fn later_keys_are_refused_and_never_offered() {
    let tree = read("x.yaml", b"vualt: x\nzzz: y\n").unwrap();
    let mut findings = Findings::new("x.yaml");
    let mut fields = findings.fields(&tree).unwrap();
    fields.take("sealed");
    fields.not_yet(&mut findings, "vault");
    fields.finish(&mut findings);
    let remedies: Vec<&str> = findings.list.iter().map(|finding| finding.remedy.as_str()).collect();
    assert_eq!(remedies, ["did you mean `vault`?", "known here: sealed"]);
}

#[test]
fn bombs_are_refused_before_they_cost() {
    let started = std::time::Instant::now();
    let mut aliases = String::from("a: &a [x, x]\n");
    for (name, before) in ('b'..='j').zip('a'..='i') {
        aliases.push_str(&format!("{name}: &{name} [*{before}, *{before}, *{before}]\n"));
    }
    assert_eq!(code(&aliases), "anchor");
    for bomb in ["[", "{", "{a: ", "- ", "? ", "[{", "\"\\", "a:\n ", ": ", "#", "*", "&a ", "!a "] {
        assert!(read("x", bomb.repeat(MAX_FILE_BYTES / bomb.len()).as_bytes()).is_err(), "{bomb:?}");
    }
    assert_eq!(code(&"a".repeat(MAX_FILE_BYTES + 1)), "file-too-large");
    assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
}

proptest! {
    /// Whatever the bytes: an answer, at a place in the file, and never a panic.
    #[test]
    fn any_bytes_are_read_or_refused_at_a_place(text in "([ab0~<&*!%@`|>{}\\[\\],:?#'\"\\\\ \t\r\n\u{feff}-]|yes|- |: |\n  ){0,40}") {
        if let Err(found) = read("x.yaml", text.as_bytes()) {
            prop_assert!(found.line >= 1 && found.column >= 1 && found.line <= text.split(['\n', '\r']).count() + 1);
            prop_assert!(!found.message.is_empty() && !found.remedy.is_empty());
        }
    }

    /// A text is read back as itself, whatever YAML would make of it unquoted.
    #[test]
    fn quoted_texts_are_read_back(text in "[ -~é\\n]{0,30}") {
        let quoted = serde_json::to_string(&text).unwrap();
        let tree = read("x.yaml", format!("a: {quoted}").as_bytes()).unwrap();
        let Content::Mapping(entries) = tree.content else { panic!("mapping") };
        prop_assert_eq!(&entries[0].1.content, &Content::Quoted(text));
    }
}
