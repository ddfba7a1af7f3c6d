//! The Prometheus text format, version 0.0.4
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>, November 2026).

use std::{
    fmt::{Display, Write as _},
    sync::atomic::Ordering,
};

use super::{Durations, Family, Histogram};

/// A text under way: a family's head, then its values.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    family: &'static str,
}

impl Exposition {
    /// The media type of the text.
    pub const MEDIA_TYPE: &'static str = "text/plain; version=0.0.4; charset=utf-8";

    /// Begins a family; the values after it are its own.
    pub fn family(&mut self, family: &'static Family) {
        let Family { name, help, shape, .. } = family;
        self.family = name;
        self.push(format_args!("# HELP {name} {help}\n# TYPE {name} {}\n", shape.as_str()));
    }

    /// A value of the family.
    pub fn value(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.line("", labels, None, &value);
    }

    /// A histogram of durations, in seconds.
    pub fn durations(&mut self, labels: &[(&str, &str)], times: &Durations) {
        self.histogram(labels, times, 1e-6);
    }

    /// A histogram of sizes.
    pub fn sizes<const N: usize>(&mut self, labels: &[(&str, &str)], sizes: &Histogram<N>) {
        self.histogram(labels, sizes, 1.0);
    }

    /// The whole text.
    pub fn into_text(self) -> String {
        self.text
    }

    #[expect(clippy::cast_precision_loss, reason = "sums of microseconds stay below 2^53 for 285 years")]
    fn histogram<const N: usize>(&mut self, labels: &[(&str, &str)], found: &Histogram<N>, unit: f64) {
        let mut below = 0;
        for (bound, bucket) in found.bounds.iter().zip(&found.buckets) {
            below += bucket.load(Ordering::Relaxed);
            self.line("_bucket", labels, Some(&shown(*bound as f64 * unit)), &below);
        }
        below += found.beyond.load(Ordering::Relaxed);
        self.line("_bucket", labels, Some("+Inf"), &below);
        self.line("_sum", labels, None, &shown(found.sum.load(Ordering::Relaxed) as f64 * unit));
        self.line("_count", labels, None, &below);
    }

    fn line(&mut self, suffix: &str, labels: &[(&str, &str)], bound: Option<&str>, value: &dyn Display) {
        self.text.push_str(self.family);
        self.text.push_str(suffix);
        let mut opening = '{';
        for (name, value) in labels.iter().copied().chain(bound.map(|bound| ("le", bound))) {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            self.push(format_args!("{opening}{name}=\"{value}\""));
            opening = ',';
        }
        if opening == ',' {
            self.text.push('}');
        }
        self.push(format_args!(" {value}\n"));
    }

    fn push(&mut self, text: std::fmt::Arguments<'_>) {
        // A String takes whatever is written.
        self.text.write_fmt(text).ok();
    }
}

/// Microseconds have six digits after the point; what binary fractions add is cut.
fn shown(seconds: f64) -> String {
    let text = format!("{seconds:.6}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text.is_empty() { "0".to_owned() } else { text.to_owned() }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::broker::metrics::families::STEP_SECONDS;

    #[test]
    fn a_histogram_is_cumulative_and_in_seconds() {
        let times = Durations::empty();
        times.took(Duration::from_micros(300));
        times.took(Duration::from_secs(20));
        let mut text = Exposition::default();
        text.family(&STEP_SECONDS);
        text.durations(&[("step", "a\"b\\c\nd")], &times);
        let text = text.into_text();
        let label = r#"step="a\"b\\c\nd""#;
        for (line, value) in [
            (format!(r#"_bucket{{{label},le="0.00025"}}"#), "0"),
            (format!(r#"_bucket{{{label},le="0.0005"}}"#), "1"),
            (format!(r#"_bucket{{{label},le="15"}}"#), "1"),
            (format!(r#"_bucket{{{label},le="+Inf"}}"#), "2"),
            (format!("_sum{{{label}}}"), "20.0003"),
            (format!("_count{{{label}}}"), "2"),
        ] {
            assert!(text.contains(&format!("{}{line} {value}\n", STEP_SECONDS.name)), "{line}: {text}");
        }
    }
}
