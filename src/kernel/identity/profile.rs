//! A profile: what one CI system's tokens look like, as data. One file each under `profiles/`.
//!
//! A profile holds no decision of policy: it says which claims there are, of which type, and how far each can be
//! trusted. Verification, the loader of policies, the ledger and the generated table of profiles all read the same
//! rows, so that they cannot disagree.

use serde_json::{Map, Value};

use super::job::Trigger;

/// A CI system's kind of token.
pub struct Profile {
    /// The word in configuration and policy.
    pub name: &'static str,
    /// The signature algorithms that it signs with; nothing else is accepted.
    pub algorithms: &'static [Algorithm],
    /// Its claims beside the registered ones (`sub` is among them); others are kept out of policy.
    pub claims: &'static [ClaimSpec],
    /// Claims whose names only begin in a known way; the name of each is the beginning.
    pub prefixes: &'static [ClaimSpec],
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
    /// Default audiences of the vendor, which policy must not use, as far as the audience alone tells; see
    /// [`Profile::refuses_audience`].
    pub is_default_audience: fn(&str) -> bool,
    /// The site whose addresses a self-managed instance with this issuer URL uses as default audiences, such as
    /// `https://ghe.example.com`.
    pub instance_site: fn(&str) -> Option<String>,
    /// Whether a `sub` holds a login or an e-mail address, so that the ledger keeps a commitment only.
    pub is_personal_subject: fn(&str) -> bool,
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
#[derive(Clone, Copy)]
pub struct ClaimSpec {
    /// Its name, or how its name begins.
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
    /// A whole number, at most 2^53 - 1 on either side of zero.
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

    /// What the profile says of a claim; for one that is known by the beginning of its name, that row.
    pub fn claim(&self, name: &str) -> Option<&'static ClaimSpec> {
        let begins = |claim: &&ClaimSpec| name.len() > claim.name.len() && name.starts_with(claim.name);
        self.claims.iter().find(|claim| claim.name == name).or_else(|| self.prefixes.iter().find(begins))
    }

    /// The claims that a token must have, in the order of the table: the registered ones first.
    pub fn required(&self) -> impl Iterator<Item = &'static str> {
        let registered = ["iss", "aud", "exp", "iat"].into_iter().chain(self.jti_always.then_some("jti"));
        registered.chain(self.claims.iter().filter(|claim| claim.required).map(|claim| claim.name))
    }

    /// Whether policy must not use this audience for an issuer of this URL, since the vendor gives it to everybody
    /// who asks for none (attack class F-11).
    pub fn refuses_audience(&self, url: &str, audience: &str) -> bool {
        let of_instance = || {
            (self.instance_site)(url).is_some_and(|site| {
                let audience = audience.to_ascii_lowercase();
                audience
                    .strip_prefix(&site.to_ascii_lowercase())
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            })
        };
        (self.is_default_audience)(audience) || of_instance()
    }
}

/// The claims that every token carries about itself (RFC 7519 section 4.1), `sub` apart: verification alone reads
/// them, policy never does.
pub const REGISTERED: &[&str] = &["aud", "exp", "iat", "iss", "jti", "nbf"];

impl View {
    /// A view without members.
    pub const EMPTY: Self = Self {
        git_ref: None,
        ref_protected: None,
        trigger: None,
        definition: None,
        environment: None,
        runner: None,
        actor: None,
        run: None,
    };

    /// The claims that it reads.
    pub fn claims(&self) -> impl Iterator<Item = &'static str> {
        [
            self.git_ref,
            self.ref_protected,
            self.trigger,
            self.definition,
            self.environment,
            self.runner,
            self.actor,
            self.run,
        ]
        .into_iter()
        .flatten()
    }
}

impl ClaimSpec {
    /// An optional string of which nothing more is known.
    pub const fn text(name: &'static str) -> Self {
        Self {
            name,
            kind: ClaimKind::Text,
            required: false,
            immutable: false,
            attacker_controlled: false,
            identity: false,
            personal: false,
            case_insensitive: false,
        }
    }

    /// The same, required.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same, immutable.
    pub const fn immutable(self) -> Self {
        Self { immutable: true, ..self }
    }

    /// The same, under an attacker's control.
    pub const fn attacker_controlled(self) -> Self {
        Self { attacker_controlled: true, ..self }
    }

    /// The same, saying who somebody is.
    pub const fn identity(self) -> Self {
        Self { identity: true, ..self }
    }

    /// The same, personal.
    pub const fn personal(self) -> Self {
        Self { personal: true, ..self }
    }

    /// The same, compared without ASCII case.
    pub const fn case_insensitive(self) -> Self {
        Self { case_insensitive: true, ..self }
    }
}

impl ClaimKind {
    /// Whether a value is of this type.
    pub fn fits(self, value: &Value) -> bool {
        match self {
            Self::Boolean => value.is_boolean(),
            Self::Integer => value.as_number().is_some_and(crate::kernel::json::is_safe_integer),
            Self::Text => value.is_string(),
            Self::TextList => value.as_array().is_some_and(|items| items.iter().all(Value::is_string)),
        }
    }
}

impl Algorithm {
    /// The name in a JWS header or a JWK.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::EdDsa => "EdDSA",
            Self::Ps256 => "PS256",
            Self::Rs256 => "RS256",
        }
    }

    /// Reads the name, byte for byte; `None` for any other, `none` and every HMAC among them.
    pub fn parse(name: &str) -> Option<Self> {
        [Self::Es256, Self::Es384, Self::EdDsa, Self::Ps256, Self::Rs256]
            .into_iter()
            .find(|each| each.as_str() == name)
    }
}
