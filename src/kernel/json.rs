//! JSON read strictly: what two parsers could read differently is refused (attack classes C-01, C-09, C-10).

use serde_json::Value;

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
/// trailing bytes, and whatever passes the bounds.
///
/// # Errors
///
/// [`JsonFault`] with a stable word.
pub fn read_strict(_bytes: &[u8], _bounds: Bounds) -> Result<Value, JsonFault> {
    todo!()
}

/// Writes canonical JSON (RFC 8785).
///
/// # Errors
///
/// [`JsonFault`] for a number that RFC 8785 cannot write.
pub fn write_canonical(_value: &Value) -> Result<Vec<u8>, JsonFault> {
    todo!()
}
