//! To be written.

/// Keyed calls that are running in this process.
pub struct Running;
