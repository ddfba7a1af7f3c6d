//! # Metrics
//!
//! `GET /metrics` on the admin listener, in Prometheus' text format 0.0.4; it needs no token, so let that listener be
//! reached by those alone who may see it. Every figure is of one process: sum over replicas, but not
//! `hallpass_ledger_entries`, which all replicas of one ledger tell alike. Every family stands there from the start,
//! with `HELP` and `TYPE`.
//!
//! Values of labels come from closed sets: words of the API, the two listeners, the issuers of `hallpass.yaml`, and
//! the digest of the one policy set that decides. Never a claim, an id, a path as it was sent, or the name of a grant:
//! an installation may have ten thousand grants, and what happened under each is for the ledger to answer.
//!
//! What `token_*` codes are refused with stands in `hallpass_http_requests_total`, since no exchange begins then.
//! `examples/observe/` holds a dashboard for Grafana and alert rules for Prometheus that use these names.
//!
//! This table is written from [`FAMILIES`](crate::broker::metrics::FAMILIES):
#![doc = include_str!("metrics.md")]
//!
//! `cargo test --lib manual::metrics -- --ignored` writes it anew.

#[cfg(test)]
mod tests {
    use std::{fmt::Write as _, fs};

    use crate::broker::metrics::FAMILIES;

    const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/src/manual/metrics.md");

    #[test]
    fn table_is_what_the_families_say() {
        let page = fs::read_to_string(PAGE).unwrap();
        assert!(page == table(), "run `cargo test --lib manual::metrics -- --ignored`");
    }

    #[test]
    #[ignore = "writes the page"]
    fn write() {
        fs::write(PAGE, table()).unwrap();
    }

    fn table() -> String {
        let mut page = "| name | type | labels | says |\n|---|---|---|---|\n".to_owned();
        for family in FAMILIES {
            let label = |(name, values): &(&str, &str)| format!("`{name}`: {values}");
            let labels: Vec<String> = family.labels.iter().map(label).collect();
            let shape = family.shape.as_str();
            writeln!(page, "| `{}` | {shape} | {} | {} |", family.name, labels.join("<br>"), family.help)
                .unwrap();
        }
        page
    }

    #[test]
    fn names_are_sorted_and_end_as_prometheus_wants_them() {
        assert!(FAMILIES.windows(2).all(|pair| pair[0].name < pair[1].name));
        for family in FAMILIES {
            let is_counter = family.shape.as_str() == "counter";
            assert_eq!(family.name.ends_with("_total"), is_counter, "{}", family.name);
            assert!(family.name.starts_with("hallpass_") && !family.help.contains('\n'), "{}", family.name);
        }
    }
}
