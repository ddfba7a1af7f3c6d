//! `traceparent`, as W3C Trace Context section 3.2 says (<https://www.w3.org/TR/trace-context/>, November 2026): the
//! ids of the caller's trace, for the log line and, in builds with the feature `otel`, for the request's span. They are
//! the caller's word and nothing else depends on them; one that is not valid is as if it had not come.

use std::fmt;

use http::HeaderMap;
use tracing::{Span, field::Empty, info_span};

use crate::broker::spans;

/// An id in lower-case hexadecimal, as it came.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Hex<const N: usize>([u8; N]);

/// The caller's trace, and its span that the request belongs to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TraceParent {
    pub(super) trace: Hex<32>,
    pub(super) span: Hex<16>,
    /// Whether the caller records its part of the trace.
    is_sampled: bool,
}

impl<const N: usize> Hex<N> {
    /// Lower case only, and not all zeros (section 3.2.2.3).
    fn read(text: &[u8]) -> Option<Self> {
        let id: [u8; N] = text.try_into().ok()?;
        (id.iter().all(|digit| is_hex(*digit)) && id.iter().any(|digit| *digit != b'0')).then_some(Self(id))
    }
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|digit| fmt::Write::write_char(f, char::from(*digit)))
    }
}

impl TraceParent {
    /// The one of a request; nothing where there is none, several, or one that is not valid.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let mut values = headers.get_all(NAME).iter();
        match (values.next(), values.next()) {
            (Some(value), None) => Self::read(value.as_bytes()),
            (None | Some(_), _) => None,
        }
    }

    /// `version-trace-span-flags`. A version above ours may have more behind another dash (section 3.2.4).
    fn read(text: &[u8]) -> Option<Self> {
        let (known, rest) = text.split_at_checked(LENGTH)?;
        let mut parts = known.split(|byte| *byte == b'-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let is_byte = |text: &[u8]| text.len() == 2 && text.iter().all(|digit| is_hex(*digit));
        if parts.next().is_some() || !is_byte(version) || !is_byte(flags) || version == b"ff" {
            return None;
        }
        let fits = rest.is_empty() || (version != b"00" && rest.starts_with(b"-"));
        if !fits {
            return None;
        }
        // Of the last digit, the last bit (section 3.2.2.4); all digits were looked at.
        let is_sampled = flags.last().is_some_and(|digit| b"13579bdf".contains(digit));
        Some(Self { trace: Hex::read(trace)?, span: Hex::read(span)?, is_sampled })
    }
}

/// The span of a request, within the caller's trace where it named one. What asks for no more than a sign of life has
/// none.
pub(super) fn span(method: &'static str, route: Option<&str>, parent: Option<TraceParent>) -> Span {
    if route.is_some_and(|route| PROBES.contains(&route)) {
        return Span::none();
    }
    let span = info_span!(
        target: spans::TARGET,
        "request",
        otel.name = %format_args!("{method} {}", route.unwrap_or("none")),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method,
        http.route = route,
        http.response.status_code = Empty,
        hallpass.code = Empty,
    );
    if let Some(parent) = parent {
        adopt(&span, parent);
    }
    span
}

/// Notes on a request's span how it was answered. Only our own faults are errors of a server's span (OpenTelemetry's
/// semantic conventions for HTTP, November 2026).
pub(super) fn answered(span: &Span, status: http::StatusCode, code: Option<&'static str>) {
    span.record("http.response.status_code", status.as_u16());
    if let Some(code) = code {
        span.record("hallpass.code", code);
    }
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
}

#[cfg(feature = "otel")]
fn adopt(span: &Span, parent: TraceParent) {
    use opentelemetry::{
        Context, SpanId, TraceFlags, TraceId,
        trace::{SpanContext, TraceContextExt as _, TraceState},
    };
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    let ids = (TraceId::from_hex(&parent.trace.to_string()), SpanId::from_hex(&parent.span.to_string()));
    if let (Ok(trace), Ok(id)) = ids {
        let flags = TraceFlags::default().with_sampled(parent.is_sampled);
        let context = SpanContext::new(trace, id, flags, true, TraceState::NONE);
        // An error says that nobody records this span.
        span.set_parent(Context::new().with_remote_span_context(context)).ok();
    }
}

#[cfg(not(feature = "otel"))]
fn adopt(_: &Span, _: TraceParent) {}

fn is_hex(digit: u8) -> bool {
    digit.is_ascii_digit() || (b'a'..=b'f').contains(&digit)
}

/// What is asked every few seconds and never of interest in a trace.
const PROBES: [&str; 3] = ["/livez", "/readyz", "/metrics"];
const NAME: &str = "traceparent";
/// Of version 00: two, 32, 16 and two digits, and three dashes.
const LENGTH: usize = 55;

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn read(text: &str) -> Option<(String, String)> {
        let found = TraceParent::read(text.as_bytes())?;
        Some((found.trace.to_string(), found.span.to_string()))
    }

    #[test]
    fn reads_the_standards_example_and_later_versions() {
        let ids = ("4bf92f3577b34da6a3ce929d0e0e4736".to_owned(), "00f067aa0ba902b7".to_owned());
        assert_eq!(read(GOOD), Some(ids.clone()));
        assert_eq!(read(&GOOD.replace("00-4b", "cc-4b")), Some(ids.clone()));
        assert_eq!(read(&format!("{}-what-comes", GOOD.replace("00-4b", "cc-4b"))), Some(ids));
    }

    #[test]
    fn what_is_not_valid_is_as_if_it_had_not_come() {
        let zero = |from: &str, digits: usize| GOOD.replace(from, &"0".repeat(digits));
        for bad in [
            String::new(),
            "00".to_owned(),
            GOOD.to_ascii_uppercase(),
            format!("{GOOD}-"),
            format!("{GOOD}-more"),
            format!("{GOOD} "),
            format!(" {GOOD}"),
            GOOD.replace("00-4b", "ff-4b"),
            GOOD.replace("00-4b", "0g-4b"),
            format!("{}x", GOOD.replace("00-4b", "cc-4b")),
            GOOD.replace("-01", "-0x"),
            GOOD.replace('-', "_"),
            GOOD.replace("4736-", "473--"),
            zero("4bf92f3577b34da6a3ce929d0e0e4736", 32),
            zero("00f067aa0ba902b7", 16),
            GOOD.replace("4bf9", "4bfé"),
        ] {
            assert_eq!(read(&bad), None, "{bad}");
        }
        let mut headers = HeaderMap::new();
        headers.append(NAME, http::HeaderValue::from_static(GOOD));
        assert!(TraceParent::of(&headers).is_some());
        headers.append(NAME, http::HeaderValue::from_static(GOOD));
        assert_eq!(TraceParent::of(&headers), None, "of two, none is the caller's");
    }

    proptest::proptest! {
        #[test]
        fn never_panics_whatever_the_bytes(bytes: Vec<u8>) {
            assert!(TraceParent::read(&bytes).is_none() || bytes.len() >= LENGTH);
        }
    }
}
