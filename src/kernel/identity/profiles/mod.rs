//! The profiles, one file each; a new CI system is one file and two lines here.

mod address;
pub mod azure_devops;
pub mod bitbucket;
pub mod buildkite;
pub mod circleci;
pub mod forgejo;
pub mod generic;
pub mod github_actions;
pub mod gitlab;
pub mod google;
pub mod hcp_terraform;
pub mod kubernetes;
pub mod spiffe;

use super::profile::Profile;

/// Every profile that this version knows, in the contract's order.
pub const ALL: &[&Profile] = &[
    &github_actions::GITHUB_ACTIONS,
    &gitlab::GITLAB,
    &buildkite::BUILDKITE,
    &circleci::CIRCLECI,
    &kubernetes::KUBERNETES,
    &azure_devops::AZURE_DEVOPS,
    &bitbucket::BITBUCKET,
    &hcp_terraform::HCP_TERRAFORM,
    &google::GOOGLE,
    &spiffe::SPIFFE,
    &forgejo::FORGEJO,
    &generic::GENERIC,
];

#[cfg(test)]
mod tests;
