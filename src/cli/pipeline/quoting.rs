//! Values as a shell and as readers of dotenv files give them back: every byte, or not at all.

use super::{super::exit::Failure, names::Named};
use crate::kernel::secret::Secret;

/// Lines for `eval` or `.` of a POSIX shell (IEEE 1003.1 section 2.2.2: within single quotes nothing has a meaning).
///
/// # Errors
///
/// A usage failure for a value that no variable can hold.
pub(super) fn for_shell(named: &[Named<'_>]) -> Result<Secret, Failure> {
    lines(named, |text| Some(format!("'{}'", text.replace('\'', "'\\''"))), "export ")
}

/// A dotenv file. Its readers agree on little: see [`dotenv`].
///
/// # Errors
///
/// A usage failure for a value that some reader would change.
pub(super) fn for_dotenv(named: &[Named<'_>]) -> Result<Secret, Failure> {
    lines(named, dotenv, "")
}

fn lines(named: &[Named<'_>], quoted: fn(&str) -> Option<String>, before: &str) -> Result<Secret, Failure> {
    let mut text = String::new();
    for Named { variable, field } in named {
        let value = field.value.expose_text().filter(|value| !value.contains('\0')).and_then(quoted);
        let value = value.ok_or_else(|| {
            Failure::usage(format!(
                "the value of {variable} cannot be written so that every reader gives it back; use --output json, or \
                 --field {} for it alone",
                field.name
            ))
        })?;
        text.push_str(&format!("{before}{variable}={value}\n"));
    }
    Ok(Secret::from_text(text))
}

/// A value as python-dotenv, Node's dotenv, Docker Compose and the readers of Ruby and Go give it back; `None` where no
/// quotes do. What each of them does within quotes:
///
/// - single quotes: python-dotenv takes a backslash away before `\` and `'`, the others take nothing away, nobody knows
///   a quote within. python-dotenv puts variables in for `${…}` even there, and a backslash at the end hides the quote.
/// - double quotes: `\` and `$` mean something to most. Without these and without `"`, all agree.
/// - Node turns CR and CR LF into LF, wherever they stand; so does Python where it reads text.
fn dotenv(text: &str) -> Option<String> {
    if text.contains('\r') || text.contains("${") {
        return None;
    }
    if !text.contains('\'') && !text.contains("\\\\") && !text.ends_with('\\') {
        return Some(format!("'{text}'"));
    }
    (!text.contains(['"', '\\', '$'])).then(|| format!("\"{text}\""))
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{super::exchanged::Field, *};

    const PEM: &str = "-----BEGIN PRIVATE KEY-----\nMIIB+/=\n\n-----END PRIVATE KEY-----\n";
    /// Values that naive quoting spoils.
    const HARD: [&str; 16] = [
        "",
        "plain",
        PEM,
        "it's",
        "''",
        "'\\''",
        "a\\nb",
        "a\\\\b",
        "ends\\",
        "$HOME `id` $(id) !x",
        "${HOME}",
        "say \"no\"",
        "it's \"both\" \\ and $x",
        " spaces\tand # no comment ",
        "line\nnext=1\n",
        "\u{fc}n\u{ef}c\u{f6}d\u{e9} \u{1f511}",
    ];

    fn written(value: &str, write: fn(&[Named<'_>]) -> Result<Secret, Failure>) -> Option<String> {
        let field =
            Field { name: "f".to_owned(), value: Secret::from_text(value.to_owned()), is_secret: true };
        let named = [Named { variable: "V".to_owned(), field: &field }];
        write(&named).ok().map(|text| text.expose_text().unwrap().to_owned())
    }

    #[test]
    fn a_real_shell_gives_every_value_back() {
        for value in HARD {
            let script = written(value, for_shell).unwrap();
            for shell in ["sh", "bash"] {
                let output = Command::new(shell)
                    .arg("-c")
                    .arg(format!("{script}printf %s \"$V\"; test -z \"$NOTHING\""))
                    .output()
                    .unwrap();
                assert!(output.status.success(), "{output:?}");
                assert_eq!(String::from_utf8(output.stdout).unwrap(), value, "{shell}: {script}");
            }
        }
        assert_eq!(written("a\0b", for_shell), None, "no variable holds a zero byte");
    }

    #[test]
    fn every_reader_of_dotenv_gives_back_what_was_written() {
        let mut refused = Vec::new();
        for value in HARD {
            let Some(text) = written(value, for_dotenv) else {
                refused.push(value);
                continue;
            };
            for reader in [python_dotenv, node_dotenv] {
                assert_eq!(reader(&text).as_deref(), Some(value), "{text}");
            }
        }
        assert_eq!(refused, ["'\\''", "a\\\\b", "ends\\", "${HOME}", "it's \"both\" \\ and $x"]);
        assert_eq!(written("a\r\nb", for_dotenv), None);
    }

    proptest::proptest! {
        #[test]
        fn what_is_written_is_read_back_whatever_it_is(value in "[a-z'\"\\\\$ {}#\n\r=`\u{e4}\u{1f511}]{0,12}") {
            if let Some(text) = written(&value, for_dotenv) {
                for reader in [python_dotenv, node_dotenv] {
                    proptest::prop_assert_eq!(reader(&text), Some(value.clone()), "{}", text);
                }
            }
            let script = written(&value, for_shell).unwrap();
            proptest::prop_assert_eq!(shell_word(&script), Some(value), "{}", script);
        }
    }

    /// What a shell reads after `V=`: single quotes and escaped quotes are all that is ever written.
    fn shell_word(text: &str) -> Option<String> {
        let mut rest = text.strip_prefix("export V=")?.strip_suffix('\n')?;
        let mut value = String::new();
        while !rest.is_empty() {
            if let Some(after) = rest.strip_prefix("\\'") {
                value.push('\'');
                rest = after;
                continue;
            }
            let (quoted, after) = rest.strip_prefix('\'')?.split_once('\'')?;
            value.push_str(quoted);
            rest = after;
        }
        Some(value)
    }

    /// What python-dotenv 1.x does with one line `V=…`: `parser.py` (`_single_quoted_value`, `_double_quoted_value`,
    /// `decode_escapes`) and `variables.py` (`_posix_variable`), for values without CR.
    fn python_dotenv(text: &str) -> Option<String> {
        let rest = text.strip_prefix("V=")?;
        let quote = rest.chars().next()?;
        let mut letters = rest.char_indices().skip(1);
        let mut value = String::new();
        let escapes = if quote == '\'' { "\\'" } else { "\\'\"abfnrtv" };
        let end = loop {
            let (at, letter) = letters.next()?;
            let next = rest[at + letter.len_utf8()..].chars().next();
            match (letter, next) {
                ('\\', Some(escaped)) if escapes.contains(escaped) => {
                    letters.next();
                    value.push(match escaped {
                        'n' => '\n',
                        't' => '\t',
                        'r' => '\r',
                        other => other,
                    });
                }
                (letter, _) if letter == quote => break at,
                (letter, _) => value.push(letter),
            }
        };
        (rest[end + 1..] == *"\n" && !value.contains("${")).then_some(value)
    }

    /// What Node's dotenv 16 does: the `LINE` expression and what follows it in `lib/main.js`.
    fn node_dotenv(text: &str) -> Option<String> {
        let rest = text.strip_prefix("V=")?;
        let quote = rest.chars().next()?;
        // (\\'|[^'])* : a quote after a backslash does not end the value.
        let mut end = None;
        let bytes = rest.as_bytes();
        let mut at = 1;
        while at < bytes.len() {
            if bytes[at] == b'\\' && bytes.get(at + 1) == Some(&(quote as u8)) {
                at += 2;
                continue;
            }
            if bytes[at] == quote as u8 {
                end = Some(at);
                break;
            }
            at += 1;
        }
        let value = &rest[1..end?];
        let value =
            if quote == '"' { value.replace("\\n", "\n").replace("\\r", "\r") } else { value.to_owned() };
        (rest[end? + 1..] == *"\n").then_some(value)
    }
}
