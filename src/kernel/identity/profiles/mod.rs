//! The profiles, one file each; a new CI system is one file and one line here.

use super::profile::Profile;

/// Every profile that this version knows.
pub const ALL: &[&Profile] = &[];
