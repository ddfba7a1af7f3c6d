//! JSON read strictly: what two parsers could read differently is refused (attack classes C-01, C-09, C-10).
//!
//! Whatever comes from outside and is decided upon (token headers, claims, key sets, discovery documents) is read
//! here, once. Nothing here ever keeps the last of two equal keys, rounds an integer or follows nesting without a
//! bound. Canonical writing (RFC 8785) stands beside it, since what is written so must be readable so.

use std::{cell::Cell, fmt};

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::digest::hex_pair;

/// Why a text is not strict JSON: a stable word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonFault(pub &'static str);

/// Bounds of a strict reading.
#[derive(Clone, Copy)]
pub struct Bounds {
    /// Nesting of arrays and objects.
    pub depth: usize,
    /// Members of all objects and items of all arrays together.
    pub nodes: usize,
    /// Bytes of one string.
    pub string_bytes: usize,
}

/// Reads one JSON value: refuses duplicate keys at any depth, also when spelled with escapes, lone surrogates,
/// trailing bytes, and whatever passes the bounds. Keys count as strings. Integers keep every digit; what has a
/// fraction, an exponent or does not fit 64 bits is a float.
///
/// # Errors
///
/// [`JsonFault`] with a stable word: `not-json`, `trailing-bytes`, `duplicate-key`, `too-deep`, `too-many-nodes`,
/// `string-too-long`.
pub fn read_strict(bytes: &[u8], bounds: Bounds) -> Result<Value, JsonFault> {
    let reading = Reading { bounds, nodes: Cell::new(0), fault: Cell::new("not-json") };
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = Node { reading: &reading, depth: 0 }
        .deserialize(&mut reader)
        .map_err(|_| JsonFault(reading.fault.get()))?;
    reader.end().map_err(|_| JsonFault("trailing-bytes"))?;
    Ok(value)
}

/// Reads what is bounded already, such as an entry of the ledger: as strictly, each member as it is spelled.
///
/// `serde_json` itself takes a member that begins an object for a message of its own where it has the name
/// `$serde_json::private::RawValue`, since a dependency turns that feature on; and tokens choose names.
///
/// # Errors
///
/// [`JsonFault`] as [`read_strict`], but for the bounds.
pub fn read_bounded(bytes: &[u8]) -> Result<Value, JsonFault> {
    read_strict(bytes, Bounds { depth: MOST_DEPTH, nodes: usize::MAX, string_bytes: usize::MAX })
}

/// Writes canonical JSON (RFC 8785).
///
/// # Errors
///
/// [`JsonFault`] `number-not-exact` for an integer that RFC 8785 cannot write without changing it: JSON numbers are
/// doubles there, which are exact up to 2^53 - 1 only (RFC 7493 section 2.2).
pub fn write_canonical(value: &Value) -> Result<Vec<u8>, JsonFault> {
    let mut out = Vec::new();
    append_canonical(&mut out, value)?;
    Ok(out)
}

/// The same behind what a buffer holds already; where it fails, part of the value may stand there.
///
/// # Errors
///
/// As [`write_canonical`].
pub fn append_canonical(out: &mut Vec<u8>, value: &Value) -> Result<(), JsonFault> {
    match kind(value) {
        Kind::Inexact => Err(JsonFault("number-not-exact")),
        // Measured: general canonicalisation was a sixth of an exchange's CPU, since it buffers and sorts every object.
        Kind::Plain => serde_json::to_writer(out, value).map_err(|_| JsonFault("not-canonical")),
        Kind::Other => {
            let text = serde_json_canonicalizer::to_vec(value).map_err(|_| JsonFault("not-canonical"))?;
            out.extend_from_slice(&text);
            Ok(())
        }
    }
}

/// Writes a string as RFC 8785 section 3.2.2.2 asks, behind what a buffer holds already.
pub fn append_text(out: &mut Vec<u8>, text: &str) {
    write_text(text, &mut |part| out.extend_from_slice(part));
}

/// The same in parts, to wherever they go; nothing of the string is held here.
pub fn write_text(text: &str, write: &mut (impl FnMut(&[u8]) + ?Sized)) {
    write(b"\"");
    let mut rest = text.as_bytes();
    while let Some(at) = rest.iter().position(|byte| is_escaped(*byte)) {
        let (plain, from) = rest.split_at(at);
        write(plain);
        let Some((byte, after)) = from.split_first() else { break };
        match byte {
            b'"' | b'\\' => write(&[b'\\', *byte]),
            b'\n' => write(b"\\n"),
            b'\r' => write(b"\\r"),
            b'\t' => write(b"\\t"),
            8 => write(b"\\b"),
            12 => write(b"\\f"),
            control => {
                let [high, low] = hex_pair(*control);
                write(&[b'\\', b'u', b'0', b'0', high, low]);
            }
        }
        rest = after;
    }
    write(rest);
    write(b"\"");
}

fn is_escaped(byte: u8) -> bool {
    byte < b' ' || byte == b'"' || byte == b'\\'
}

/// What canonical writing has to do about a value.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    /// `serde_json` writes it canonically as it is: its objects are sorted by bytes, which for ASCII names is the order
    /// of RFC 8785 section 3.2.3, and it writes strings and integers as section 3.2.2 asks.
    Plain,
    /// It has doubles, or names beyond ASCII.
    Other,
    /// It has an integer that RFC 8785 would change.
    Inexact,
}

fn kind(value: &Value) -> Kind {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => Kind::Plain,
        Value::Number(number) if number.is_f64() => Kind::Other,
        Value::Number(number) if is_safe_integer(number) => Kind::Plain,
        Value::Number(_) => Kind::Inexact,
        Value::Array(items) => items.iter().map(kind).max().unwrap_or(Kind::Plain),
        Value::Object(members) => {
            let of_name = |name: &str| if name.is_ascii() { Kind::Plain } else { Kind::Other };
            let all = members.iter().map(|(name, value)| kind(value).max(of_name(name)));
            all.max().unwrap_or(Kind::Plain)
        }
    }
}

/// Whether a number is an integer that doubles hold exactly: at most 2^53 - 1 on either side of zero.
pub fn is_safe_integer(number: &Number) -> bool {
    number.as_i64().is_some_and(|number| number.unsigned_abs() <= SAFE_INTEGER)
}

/// What one reading has seen; shared by all its nodes.
struct Reading {
    bounds: Bounds,
    nodes: Cell<usize>,
    fault: Cell<&'static str>,
}

impl Reading {
    /// Remembers the fault: serde's errors carry text only, and the word must not be found by searching in text.
    fn refuse<E: serde::de::Error>(&self, word: &'static str) -> E {
        self.fault.set(word);
        E::custom(word)
    }

    fn count<E: serde::de::Error>(&self) -> Result<(), E> {
        let nodes = self.nodes.get().saturating_add(1);
        self.nodes.set(nodes);
        if nodes > self.bounds.nodes { Err(self.refuse("too-many-nodes")) } else { Ok(()) }
    }

    fn text<E: serde::de::Error>(&self, text: &str) -> Result<String, E> {
        if text.len() > self.bounds.string_bytes {
            return Err(self.refuse("string-too-long"));
        }
        Ok(text.to_owned())
    }
}

/// A value at some depth.
#[derive(Clone, Copy)]
struct Node<'a> {
    reading: &'a Reading,
    depth: usize,
}

impl Node<'_> {
    fn inner<E: serde::de::Error>(self) -> Result<Self, E> {
        let depth = self.depth.saturating_add(1);
        if depth > self.reading.bounds.depth {
            return Err(self.reading.refuse("too-deep"));
        }
        Ok(Self { depth, ..self })
    }
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::from(value))
    }

    fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("not a number"))
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<Value, E> {
        self.reading.text(value).map(Value::String)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut out = Vec::new();
        while let Some(item) = items.next_element_seed(inner)? {
            self.reading.count()?;
            out.push(item);
        }
        Ok(Value::Array(out))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inner = self.inner()?;
        let mut out = Map::new();
        while let Some(key) = members.next_key_seed(Key(self.reading))? {
            self.reading.count()?;
            let value = members.next_value_seed(inner)?;
            // Keys are compared as decoded, so that an escape cannot hide a second spelling.
            if out.insert(key, value).is_some() {
                return Err(self.reading.refuse("duplicate-key"));
            }
        }
        Ok(Value::Object(out))
    }
}

/// A member's key.
struct Key<'a>(&'a Reading);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = String;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = String;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: serde::de::Error>(self, key: &str) -> Result<String, E> {
        self.0.text(key)
    }
}

/// What `serde_json` itself follows.
const MOST_DEPTH: usize = 127;

/// 2^53 - 1 (RFC 7493 section 2.2): beyond it two integers can share one double.
const SAFE_INTEGER: u64 = (1 << 53) - 1;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const BOUNDS: Bounds = Bounds { depth: 8, nodes: 256, string_bytes: 2048 };

    fn fault(text: &str) -> &'static str {
        match read_strict(text.as_bytes(), BOUNDS) {
            Ok(value) => panic!("{text} was read as {value}"),
            Err(fault) => fault.0,
        }
    }

    #[test]
    fn reads_every_kind_of_value() {
        let text = r#"{"a":[1,-2,1.5,true,null,"x"],"b":{"c":{}}}"#;
        let value = read_strict(text.as_bytes(), BOUNDS).unwrap();
        assert_eq!(value, json!({"a": [1, -2, 1.5, true, null, "x"], "b": {"c": {}}}));
    }

    #[test]
    fn refuses_duplicate_keys_however_deep_or_spelled() {
        for text in [
            r#"{"repository_id":"1","repository_id":"701"}"#,
            r#"{"a":{"b":1,"b":1}}"#,
            r#"{"a":[{"b":1,"c":2,"b":3}]}"#,
            r#"{"repository_id":"1","repository\u005fid":"701"}"#,
            r#"{"\u00e9":1,"é":2}"#,
            r#"{"":1,"":2}"#,
        ] {
            assert_eq!(fault(text), "duplicate-key", "{text}");
        }
    }

    #[test]
    fn keys_that_differ_in_case_or_normal_form_are_two_keys() {
        assert!(read_strict("{\"a\":1,\"A\":2,\"\\u00e9\":3,\"e\\u0301\":4}".as_bytes(), BOUNDS).is_ok());
    }

    /// Found by a fuzzer: for `serde_json` these are no members but messages to itself.
    #[test]
    fn names_that_mean_something_to_the_parser_are_names() {
        for name in ["$serde_json::private::RawValue", "$serde_json::private::Number"] {
            for text in ["1", "no JSON", "{\"a\":1}"] {
                let value = json!({ "claims": { name: text } });
                let bytes = write_canonical(&value).unwrap();
                assert_eq!(read_bounded(&bytes).as_ref(), Ok(&value));
                assert_eq!(read_strict(&bytes, BOUNDS), Ok(value));
            }
        }
    }

    #[test]
    fn refuses_lone_surrogates_bad_utf8_and_raw_control_characters() {
        for text in
            [r#""\ud800""#, r#""\udc00""#, r#""\ud800\ud800""#, r#"{"\ud800":1}"#, "\"a\u{1}\"", "\"a\n\""]
        {
            assert_eq!(fault(text), "not-json", "{text:?}");
        }
        assert_eq!(read_strict(b"\"\xff\"", BOUNDS), Err(JsonFault("not-json")));
        assert_eq!(read_strict(b"\"\xed\xa0\x80\"", BOUNDS), Err(JsonFault("not-json")));
        assert_eq!(read_strict(r#""\ud83d\ude00\u0000""#.as_bytes(), BOUNDS), Ok(json!("😀\0")));
    }

    #[test]
    fn refuses_trailing_bytes_and_what_is_no_json() {
        for text in ["{} {}", "{}x", "1,", "{}\0"] {
            assert_eq!(fault(text), "trailing-bytes", "{text:?}");
        }
        for text in [
            "",
            " ",
            "{",
            "NaN",
            "Infinity",
            "01",
            "1.",
            "+1",
            "'a'",
            "{a:1}",
            "[1,]",
            "{\"a\":1,}",
            "1e999",
            "\u{feff}{}",
        ] {
            assert_eq!(fault(text), "not-json", "{text:?}");
        }
    }

    #[test]
    fn refuses_what_passes_the_bounds() {
        let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        assert!(read_strict(nested(8).as_bytes(), BOUNDS).is_ok());
        assert_eq!(fault(&nested(9)), "too-deep");
        assert_eq!(fault(&"[".repeat(100_000)), "too-deep");
        assert_eq!(fault(&"{\"a\":".repeat(100_000)), "too-deep");

        let many = |count: usize| format!("[{}]", vec!["0"; count].join(","));
        assert!(read_strict(many(256).as_bytes(), BOUNDS).is_ok());
        assert_eq!(fault(&many(257)), "too-many-nodes");

        let long = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
        assert!(read_strict(long(2048).as_bytes(), BOUNDS).is_ok());
        assert_eq!(fault(&long(2049)), "string-too-long");
        assert_eq!(fault(&format!("{{{}:1}}", long(2049))), "string-too-long");
    }

    #[test]
    fn integers_keep_every_digit_and_other_spellings_are_no_integers() {
        let read = |text: &str| read_strict(text.as_bytes(), BOUNDS).unwrap();
        assert_eq!(read("9007199254740993"), json!(9_007_199_254_740_993_u64));
        assert_eq!(read("-9223372036854775808"), json!(i64::MIN));
        for text in ["1.0", "1e3", "-0", "18446744073709551616"] {
            assert!(read(text).is_f64(), "{text}");
        }
    }

    #[test]
    fn canonical_form_is_the_one_of_rfc_8785() {
        // Section 3.2.2 and 3.2.3 of the RFC, the number list shortened to what serde_json can hold.
        let value = read_strict(
            "{\"numbers\":[333333333.33333329,1E30,4.50,2e-3],\"string\":\"\\u20ac$\\u000F\\u000aA'\\u0042\\u0022\\u005c\\\\\\\"\\/\",\"literals\":[null,true,false]}".as_bytes(),
            BOUNDS,
        )
        .unwrap();
        let expected = r#"{"literals":[null,true,false],"numbers":[333333333.3333333,1e+30,4.5,0.002],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(String::from_utf8(write_canonical(&value).unwrap()).unwrap(), expected);

        let keys = json!({"\u{20ac}": "Euro", "\r": "CR", "\u{fb33}": "Dalet", "1": "One", "\u{1f600}": "Smile", "\u{80}": "Control", "\u{f6}": "O"});
        let text = String::from_utf8(write_canonical(&keys).unwrap()).unwrap();
        let order: Vec<usize> = ["CR", "One", "Control", "\"O\"", "Euro", "Smile", "Dalet"]
            .iter()
            .map(|value| text.find(value).unwrap())
            .collect();
        assert!(order.is_sorted(), "{text}");
    }

    #[test]
    fn canonical_form_refuses_integers_that_it_would_change() {
        assert_eq!(write_canonical(&json!(9_007_199_254_740_991_u64)).unwrap(), b"9007199254740991");
        for value in
            [json!([{"a": 9_007_199_254_740_993_u64}]), json!(-9_007_199_254_740_992_i64), json!(u64::MAX)]
        {
            assert_eq!(write_canonical(&value), Err(JsonFault("number-not-exact")), "{value}");
        }
    }

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            (-9_007_199_254_740_991_i64..=9_007_199_254_740_991).prop_map(Value::from),
            any::<String>().prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(any::<String>(), inner, 0..6)
                    .prop_map(|members| Value::Object(members.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn canonical_text_reads_back_as_the_same_value(value in any_value()) {
            let bounds = Bounds { depth: 16, nodes: 10_000, string_bytes: 1 << 20 };
            let text = write_canonical(&value).unwrap();
            prop_assert_eq!(read_strict(&text, bounds).unwrap(), value.clone());
            prop_assert_eq!(write_canonical(&read_strict(&text, bounds).unwrap()).unwrap(), text);
        }

        #[test]
        fn canonical_text_is_that_of_the_general_canonicaliser(
            value in any_value(),
            plain in prop::collection::btree_map("[\\x00-\\x7f]{0,4}", any_value(), 0..8),
        ) {
            for value in [value, Value::Object(plain.into_iter().collect())] {
                prop_assert_eq!(write_canonical(&value).unwrap(), serde_json_canonicalizer::to_vec(&value).unwrap());
            }
        }

        #[test]
        fn reading_agrees_with_serde_json_where_it_accepts(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(value) = read_strict(&bytes, BOUNDS) {
                prop_assert_eq!(serde_json::from_slice::<Value>(&bytes).unwrap(), value);
            }
        }

        #[test]
        fn reading_agrees_with_serde_json_on_json_like_text(text in "[\\[\\]{}\",:0-9eE.a-z\\\\u -]{0,48}") {
            match read_strict(text.as_bytes(), BOUNDS) {
                Ok(value) => prop_assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value),
                Err(JsonFault("not-json" | "trailing-bytes")) => prop_assert!(serde_json::from_str::<Value>(&text).is_err()),
                Err(_) => {}
            }
        }
    }
}
