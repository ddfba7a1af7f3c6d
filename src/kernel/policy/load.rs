//! Loading: files in, a [`PolicySet`] or every finding out. Strict: what is not understood is refused, never
//! ignored, since a typo must not drop a condition (attack classes P-03, P-04).

use std::collections::BTreeMap;

use super::{
    finding::Finding,
    set::{Files, PolicySet, TrustedIssuer},
};
use crate::kernel::name::IssuerName;

/// Loads a set. `trusted` is what `hallpass.yaml` says; `None` checks files alone.
///
/// # Errors
///
/// Every finding, sorted by file and place.
pub fn load(
    _files: &Files,
    _commit: Option<String>,
    _trusted: Option<&BTreeMap<IssuerName, TrustedIssuer>>,
) -> Result<PolicySet, Vec<Finding>> {
    todo!()
}
