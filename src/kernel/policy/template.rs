//! Templates: `${claims.x}` in a target, filled at the decision or refused, never encoded or cut.

use super::target::Target;

/// A target as written. Audiences and secrets' names take no template, so for the kinds of this version it is the
/// target itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TargetTemplate(pub Target);
