//! The shapes in which a secret may stand in a child's output: as it is, line by line, and as common tools encode it.
//!
//! An accident guard, not a boundary: a child that wants to tell a secret can spell it in a way that is not listed here.
//! Callers: [`super::masks`], which looks for them in output.

use base64::{
    Engine as _,
    engine::general_purpose::{GeneralPurpose, STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};

use crate::kernel::secret::Secret;

/// The shortest text that is masked: shorter ones stand everywhere, and masking them would make a log unreadable.
pub(super) const SHORTEST: usize = 4;
/// Where tools break long lines: PEM and `xxd -p`, PEM's base64, `base64`.
const WIDTHS: [usize; 3] = [60, 64, 76];

/// Adds every shape of a value.
pub(super) fn add(value: &Secret, shapes: &mut Vec<Secret>) {
    // White space around it is how a file is stored, and the shell takes it away: the secret is what stands between. One
    // that began with a newline would also hold every line's end back.
    let whole = value.expose().trim_ascii();
    add_text(whole, shapes);
    if whole.contains(&b'\n') {
        // Runners and tools print line by line. A line of brackets or dashes alone says nothing.
        let lines = whole.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
        for line in lines.filter(|line| line.iter().any(u8::is_ascii_alphanumeric)) {
            add_text(line, shapes);
        }
    }
}

fn add_text(text: &[u8], shapes: &mut Vec<Secret>) {
    if text.len() < SHORTEST {
        return;
    }
    let mut add = |shape: Vec<u8>| {
        if shape.len() >= SHORTEST {
            shapes.push(Secret::new(shape));
        }
    };
    add(text.to_vec());
    // As the shell shows it in a trace, within single quotes.
    add(text.split(|byte| *byte == b'\'').collect::<Vec<_>>().join(br"'\''".as_slice()));
    for (padded, unpadded) in [(&STANDARD, &STANDARD_NO_PAD), (&URL_SAFE, &URL_SAFE_NO_PAD)] {
        add(padded.encode(text).into_bytes());
        add(unpadded.encode(text).into_bytes());
        for offset in 0..3 {
            let aligned = aligned(unpadded, text, offset);
            if offset == 0 {
                wrapped(&aligned, &mut add);
            }
            add(aligned);
        }
    }
    for digits in [LOWER, UPPER] {
        let hex = hex(text, digits);
        wrapped(&hex, &mut add);
        add(hex);
        for kept in [UNRESERVED, PATH, COMPONENT] {
            add(percent(text, kept, digits, b"%20"));
        }
        add(percent(text, FORM, digits, b"+"));
    }
    if let Ok(text) = std::str::from_utf8(text) {
        json(text, &mut add);
    }
}

/// What is sure of a text's base64 where `offset` bytes of something else stand before it, and anything after it.
fn aligned(engine: &GeneralPurpose, text: &[u8], offset: usize) -> Vec<u8> {
    let mut padded = vec![0; offset];
    padded.extend_from_slice(text);
    let mut encoded = engine.encode(&padded).into_bytes();
    // A character holds six bits; those that hold bits of a neighbour are not sure.
    encoded.truncate(padded.len() * 8 / 6);
    encoded.split_off((offset * 8).div_ceil(6).min(encoded.len()))
}

fn wrapped(encoded: &[u8], add: &mut impl FnMut(Vec<u8>)) {
    for width in WIDTHS.into_iter().filter(|width| encoded.len() > *width) {
        encoded.chunks(width).for_each(|line| add(line.to_vec()));
    }
}

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

fn hex(text: &[u8], digits: &[u8; 16]) -> Vec<u8> {
    text.iter().flat_map(|byte| hex_byte(*byte, digits)).collect()
}

fn hex_byte(byte: u8, digits: &[u8; 16]) -> [u8; 2] {
    let digit = |nibble: u8| digits.get(usize::from(nibble & 15)).copied().unwrap_or_default();
    [digit(byte >> 4), digit(byte)]
}

/// RFC 3986, section 2.3: what never needs an escape.
const UNRESERVED: &[u8] = b"-._~";
/// What Python's `quote` leaves alone, too.
const PATH: &[u8] = b"-._~/";
/// What JavaScript's `encodeURIComponent` leaves alone.
const COMPONENT: &[u8] = b"-._~!*'()";
/// What HTML forms leave alone (WHATWG URL, application/x-www-form-urlencoded); a space is a plus.
const FORM: &[u8] = b"-._*";

fn percent(text: &[u8], kept: &[u8], digits: &[u8; 16], space: &[u8]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(text.len() * 3);
    for byte in text {
        if byte.is_ascii_alphanumeric() || kept.contains(byte) {
            encoded.push(*byte);
        } else if *byte == b' ' {
            encoded.extend_from_slice(space);
        } else {
            encoded.push(b'%');
            encoded.extend_from_slice(&hex_byte(*byte, digits));
        }
    }
    encoded
}

/// As the inside of a JSON string: plain, with slashes escaped (PHP), for HTML (Go), in ASCII (Python).
fn json(text: &str, add: &mut impl FnMut(Vec<u8>)) {
    let Ok(quoted) = serde_json::to_string(text) else { return };
    let quoted = Secret::from_text(quoted);
    let Some(plain) = quoted.expose_text().and_then(|text| text.strip_prefix('"')?.strip_suffix('"')) else {
        return;
    };
    let html = plain.replace('<', "\\u003c").replace('>', "\\u003e").replace('&', "\\u0026");
    for written in [plain.to_owned(), plain.replace('/', "\\/"), html] {
        if !written.is_ascii() {
            add(ascii(&written));
        }
        add(written.into_bytes());
    }
}

fn ascii(written: &str) -> Vec<u8> {
    let mut escaped = String::with_capacity(written.len() * 2);
    let mut units = [0; 2];
    for letter in written.chars() {
        if letter.is_ascii() {
            escaped.push(letter);
        } else {
            for unit in letter.encode_utf16(&mut units) {
                escaped.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    escaped.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shapes(value: &str) -> Vec<String> {
        let mut shapes = Vec::new();
        add(&Secret::from_text(value.to_owned()), &mut shapes);
        shapes.iter().map(|shape| shape.expose_text().unwrap().to_owned()).collect()
    }

    #[track_caller]
    fn holds(value: &str, expected: &[&str]) {
        let shapes = shapes(value);
        for shape in expected {
            assert!(shapes.iter().any(|each| each == shape), "{value:?} has no {shape:?}: {shapes:?}");
        }
    }

    /// Written down by hand with coreutils' base64, Python's urllib and json, Go's encoding/json.
    #[test]
    fn shapes_are_those_of_common_tools() {
        holds(
            "p@ss w/rd?",
            &[
                "p@ss w/rd?",
                "cEBzcyB3L3JkPw==",
                "cEBzcyB3L3JkPw",
                "p%40ss%20w%2Frd%3F",
                "p%40ss%20w%2frd%3f",
                "p%40ss%20w/rd%3F",
                "p%40ss+w%2Frd%3F",
                "p@ss w\\/rd?",
                "7040737320772f72643f",
                "7040737320772F72643F",
            ],
        );
        holds(
            "a<\"é\"&",
            &["a<\\\"é\\\"&", "a\\u003c\\\"é\\\"\\u0026", "a<\\\"\\u00e9\\\"&", "a%3C%22%C3%A9%22%26"],
        );
    }

    #[test]
    fn a_trace_of_the_shell_shows_no_quote() {
        holds("it's secret", &[r"it'\''s secret"]);
    }

    #[test]
    fn base64_is_found_at_every_alignment() {
        for offset in 0..6 {
            for tail in 0..4 {
                let text = format!("{}topsecret-value{}", "x".repeat(offset), "y".repeat(tail));
                let encoded = STANDARD.encode(text);
                let found = shapes("topsecret-value").into_iter().filter(|shape| encoded.contains(shape));
                // All but the characters that a neighbour shares.
                assert!(found.map(|shape| shape.len()).max().unwrap() >= 18, "{offset} {tail}: {encoded}");
            }
        }
    }

    #[test]
    fn lines_count_by_themselves_and_what_says_nothing_does_not() {
        let shapes = shapes("first line\n  second line\r\n{}[]---\nab\n");
        assert!(shapes.contains(&"first line".to_owned()) && shapes.contains(&"second line".to_owned()));
        assert!(!shapes.iter().any(|shape| shape == "{}[]---" || shape == "ab"));
        assert!(
            shapes.contains(&"first line\n  second line\r\n{}[]---\nab".to_owned()),
            "without the last newline"
        );
    }

    #[test]
    fn values_under_four_characters_have_no_shape() {
        for short in ["", "a", "abc", "abc\n", "\n\n\n\n\n"] {
            assert_eq!(shapes(short), Vec::<String>::new(), "{short:?}");
        }
    }
}
