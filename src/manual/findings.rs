//! # Findings
//!
//! What the loader says of policy files, by code: what it means, the smallest mistake that earns it, and the same
//! mended. Codes are stable. `policy check` has more, of its lints and of tests.
//!
//! An error refuses the whole set; the one before stays. A breach of a guardrail is no error: it denies at the exchange,
//! and `policy check` ends with 23.
//!
//! `cargo test --lib manual::findings -- --ignored` writes the table anew from
//! [`kernel::policy::catalogue`](crate::kernel::policy::catalogue).
//!
#![doc = include_str!("findings.md")]

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use crate::kernel::policy::{
        catalogue::{EXAMPLES, Example},
        finding::CODES,
    };

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual/findings.md");

    #[test]
    fn the_table_is_what_the_catalogue_says() {
        let page = std::fs::read_to_string(PAGE).unwrap();
        assert!(page == table(), "run `cargo test --lib manual::findings -- --ignored`");
    }

    #[test]
    #[ignore = "writes the page"]
    fn write_the_table() {
        std::fs::write(PAGE, table()).unwrap();
    }

    fn table() -> String {
        let mut page = "| code | means | so not | but |\n|---|---|---|---|\n".to_owned();
        for (code, means) in CODES {
            let example = EXAMPLES.iter().find(|example| example.code == *code);
            let (bad, good) =
                example.map(|Example { bad, good, .. }| (cell(bad), cell(good))).unwrap_or_default();
            writeln!(page, "| `{code}` | {means} | {bad} | {good} |").unwrap();
        }
        page
    }

    /// A snippet on one line, with marks that nobody sees written out.
    fn cell(snippet: &str) -> String {
        if snippet.is_empty() {
            return "(left out)".to_owned();
        }
        let lines = snippet.trim_end().lines().map(str::trim_start);
        let shown: Vec<String> =
            lines.map(|line| format!("`{}`", unseen(line).replace('|', "\\|"))).collect();
        shown.join("<br>")
    }

    fn unseen(text: &str) -> String {
        let shown = |letter: char| match letter {
            '\t' | '\u{202e}' | '\u{feff}' => format!("U+{:04X} ", u32::from(letter)),
            letter => letter.to_string(),
        };
        text.chars().map(shown).collect()
    }
}
