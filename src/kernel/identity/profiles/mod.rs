//! The profiles, one file each; a new CI system is one file and one line here.

pub mod generic;
pub mod github_actions;

use super::profile::Profile;

/// Every profile that this version knows.
pub const ALL: &[&Profile] = &[&generic::GENERIC, &github_actions::GITHUB_ACTIONS];
