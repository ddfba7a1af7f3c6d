//! A profile: what one CI system's tokens look like, as data. One file each under `profiles/`.

use serde_json::{Map, Value};

use super::job::Trigger;

/// A CI system's kind of token.
pub struct Profile {
    /// The word in configuration and policy.
    pub name: &'static str,
    /// The signature algorithms that it signs with; nothing else is accepted.
    pub algorithms: &'static [Algorithm],
    /// Its claims; others are kept out of policy.
    pub claims: &'static [ClaimSpec],
    /// Whether claims beyond `claims` may be used in policy, as JSON of any scalar type (`generic` only).
    pub open: bool,
    /// Whether everybody's tokens come from one issuer, so that each rule must pin a tenant by one of `tenant_pins`.
    pub shared: bool,
    /// Immutable claims, any one of which pins the tenant.
    pub tenant_pins: &'static [&'static str],
    /// The claim with the tenant, for identity.
    pub tenant: Option<&'static str>,
    /// The claims with the project's immutable id and its readable name.
    pub project: Option<(&'static str, Option<&'static str>)>,
    /// Whether `jti` is always there; then its absence is `token_malformed`, else the signed bytes are the token id.
    pub jti_always: bool,
    /// Claims that together name one job; all must be present.
    pub job_key: &'static [&'static str],
    /// Claims for the identity's view.
    pub view: View,
    /// Default audiences of the vendor, which policy must not use.
    pub is_default_audience: fn(&str) -> bool,
    /// Reads the trigger.
    pub trigger: fn(&Map<String, Value>) -> Trigger,
    /// The claims that a rule must name by a literal, at least one of, beside the tenant pin (`generic`: `sub`).
    pub must_name: &'static [&'static str],
}

/// Where the identity's view finds its members.
pub struct View {
    /// The ref.
    pub git_ref: Option<&'static str>,
    /// Whether the ref is protected (`"true"`/`"false"` or a boolean).
    pub ref_protected: Option<&'static str>,
    /// The claim that names the trigger.
    pub trigger: Option<&'static str>,
    /// The file that defines the job.
    pub definition: Option<&'static str>,
    /// The environment.
    pub environment: Option<&'static str>,
    /// The kind of runner.
    pub runner: Option<&'static str>,
    /// Who set it off (a readable name; personal).
    pub actor: Option<&'static str>,
    /// The run's id.
    pub run: Option<&'static str>,
}

/// One claim of a profile.
pub struct ClaimSpec {
    /// Its name.
    pub name: &'static str,
    /// Its JSON type.
    pub kind: ClaimKind,
    /// Whether a token without it is `token_malformed`.
    pub required: bool,
    /// Whether it never changes and is never given to another.
    pub immutable: bool,
    /// Whether somebody without rights on the project can choose it.
    pub attacker_controlled: bool,
    /// Whether it says who somebody is, so that globs on it are refused.
    pub identity: bool,
    /// Whether it holds personal data, so that the ledger keeps a commitment only.
    pub personal: bool,
    /// Whether it compares without ASCII case.
    pub case_insensitive: bool,
}

/// A claim's JSON type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ClaimKind {
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer,
    /// A string.
    Text,
    /// An array of strings.
    TextList,
}

/// A signature algorithm (RFC 7518 section 3.1, RFC 8037).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Algorithm {
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// Ed25519.
    EdDsa,
    /// RSASSA-PSS with SHA-256.
    Ps256,
    /// RSASSA-PKCS1-v1_5 with SHA-256.
    Rs256,
}

impl Profile {
    /// The profile of that name.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        super::profiles::ALL.iter().copied().find(|profile| profile.name == name)
    }

    /// What the profile says of a claim.
    pub fn claim(&self, name: &str) -> Option<&'static ClaimSpec> {
        self.claims.iter().find(|claim| claim.name == name)
    }
}
