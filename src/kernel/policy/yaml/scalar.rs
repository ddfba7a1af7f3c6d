//! Plain scalars: what a YAML reader takes for a number, a boolean, a date or nothing is no text (attack class P-03:
//! `repository_id: 0701`, `event_name: on`).
//!
//! Sources: YAML 1.2.2 section 10.3.2 (core schema), the YAML 1.1 types bool, float, int, null and timestamp.

/// Decimal digits without a leading zero, an optional minus in front.
pub fn plain_integer(text: &str) -> Option<i64> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let is_plain = is_all(digits, |byte| byte.is_ascii_digit())
        && (digits == "0" || !digits.starts_with('0'))
        && text != "-0";
    is_plain.then(|| text.parse().ok()).flatten()
}

/// Whether YAML 1.1 or 1.2 reads a plain scalar as null, boolean, number or time.
pub fn reads_as_something_else(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    let unsigned = lower.strip_prefix(['-', '+']).unwrap_or(&lower);
    WORDS.contains(&lower.as_str())
        || matches!(unsigned, ".inf" | ".nan")
        || is_based(unsigned)
        || is_decimal(unsigned)
        || is_date(&lower)
}

fn is_based(text: &str) -> bool {
    let digits = |prefix| text.strip_prefix(prefix);
    digits("0x").is_some_and(|rest| is_all(rest, |byte| byte.is_ascii_hexdigit() || byte == b'_'))
        || digits("0o").is_some_and(|rest| is_all(rest, |byte| matches!(byte, b'0'..=b'7' | b'_')))
        || digits("0b").is_some_and(|rest| is_all(rest, |byte| matches!(byte, b'0' | b'1' | b'_')))
}

/// `7`, `0701`, `1_000`, `1.5`, `.5`, `1.`, `1e3`, `12:30:00`, `12:30:00.5`; not `1.2.3`, nor `127.0.0.1:80`.
fn is_decimal(text: &str) -> bool {
    let (whole, rest) = split_digits(text);
    if !whole.is_empty() && !whole.starts_with('_') {
        if rest.is_empty() {
            return true;
        }
        if rest.starts_with(':') {
            let (clock, fraction) = rest.split_once('.').unwrap_or((rest, ""));
            let is_sixtieth = |part: &str| part.len() <= 2 && is_all(part, |byte| byte.is_ascii_digit());
            return clock.split(':').skip(1).all(is_sixtieth) && split_digits(fraction).1.is_empty();
        }
        if let Some(exponent) = rest.strip_prefix('e') {
            return is_exponent(exponent);
        }
    }
    let Some(rest) = rest.strip_prefix('.') else { return false };
    let (fraction, rest) = split_digits(rest);
    let has_digit = [whole, fraction].iter().any(|part| part.bytes().any(|byte| byte.is_ascii_digit()));
    has_digit && (rest.is_empty() || rest.strip_prefix('e').is_some_and(is_exponent))
}

fn is_exponent(text: &str) -> bool {
    is_all(text.strip_prefix(['-', '+']).unwrap_or(text), |byte| byte.is_ascii_digit())
}

/// `2027-01-13`, alone or with a time after `t` or a space.
fn is_date(text: &str) -> bool {
    let day = text.split(['t', ' ', '\t']).next().unwrap_or(text);
    let mut parts = day.split('-');
    let mut digits = |lengths: std::ops::RangeInclusive<usize>| {
        parts
            .next()
            .is_some_and(|part| lengths.contains(&part.len()) && is_all(part, |byte| byte.is_ascii_digit()))
    };
    digits(4..=4) && digits(1..=2) && digits(1..=2) && parts.next().is_none()
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|letter: char| !letter.is_ascii_digit() && letter != '_').unwrap_or(text.len());
    text.split_at(end)
}

fn is_all(text: &str, is_one: impl Fn(u8) -> bool) -> bool {
    !text.is_empty() && text.bytes().all(is_one)
}

const WORDS: [&str; 11] = ["", "~", "null", "true", "false", "yes", "no", "on", "off", "y", "n"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_booleans_nulls_and_dates_are_no_texts() {
        for text in [
            "",
            "~",
            "null",
            "NULL",
            "true",
            "False",
            "yes",
            "No",
            "on",
            "OFF",
            "y",
            "N",
            "0",
            "7",
            "-7",
            "+7",
            "0701",
            "1_000",
            "0x1f",
            "0o17",
            "0b1_0",
            "1.5",
            "-.5",
            "1.",
            ".inf",
            "-.INF",
            ".NaN",
            "1e3",
            "1.5E-3",
            "12345e7",
            "12:30",
            "12:30:00",
            "190:20:30.15",
            "2027-01-13",
            "2027-1-3",
            "2027-01-13T10:00:00Z",
            "2027-01-13 10:00:00",
        ] {
            assert!(reads_as_something_else(text), "{text:?}");
        }
    }

    #[test]
    fn names_versions_and_addresses_are_texts() {
        for text in [
            "acme/payments",
            "refs/heads/main",
            "push",
            "a1",
            "10m",
            "v1.2",
            "https://x.test",
            "e",
            "-",
            "+",
            ".",
            "..",
            "e5",
            "1.2.3",
            "10.0.0.1",
            "127.0.0.1:8440",
            "0.0.0.0:80",
            "::1",
            "0xg",
            "0o8",
            "0b2",
            "1e",
            "1_a",
            "1-2",
            "9f3182061f1e2cca",
            "2027-01",
            "2027-01-13-x",
            "7 apples",
            "none",
            "nope",
        ] {
            assert!(!reads_as_something_else(text), "{text:?}");
        }
    }

    #[test]
    fn integers_are_written_in_one_way() {
        for (text, number) in [("0", 0), ("7", 7), ("-7", -7), ("9223372036854775807", i64::MAX)] {
            assert_eq!(plain_integer(text), Some(number));
        }
        for text in ["", "-", "-0", "00", "07", "+7", "1_0", "1.0", "1e3", "0x1", "9223372036854775808", " 7"]
        {
            assert_eq!(plain_integer(text), None, "{text:?}");
        }
    }
}
