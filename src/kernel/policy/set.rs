//! A whole policy set: immutable, named by its digest, indexed by grant.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;

use super::{matcher::Condition, template::TargetTemplate};
use crate::kernel::{
    digest::Digest,
    identity::{JobIdentity, profile::Profile},
    name::{CredentialName, GrantName, IssuerName, RuleName},
};

/// The files of one read, by path relative to the root, sorted. Names with a leading dot are not in it.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Files(pub BTreeMap<String, Vec<u8>>);

/// What the operator's configuration says of an issuer; policy must agree with it.
#[derive(Clone)]
pub struct TrustedIssuer {
    /// Its name.
    pub name: IssuerName,
    /// Its URL, byte for byte the `iss` of its tokens.
    pub url: String,
    /// Its profile.
    pub profile: &'static Profile,
}

/// What policy says of an issuer.
pub struct IssuerPolicy {
    /// What the operator trusts.
    pub trusted: TrustedIssuer,
    /// The one audience that its tokens must carry.
    pub audience: String,
    /// The greatest age of a token at the exchange.
    pub max_token_age: Duration,
}

/// A grant as loaded.
pub struct Grant {
    /// Its name.
    pub name: GrantName,
    /// For people.
    pub description: String,
    /// Who answers for it.
    pub owners: Vec<String>,
    /// `read`, `write`, `production` or `signing`.
    pub class: Option<&'static str>,
    /// The file that holds it.
    pub file: Arc<str>,
    /// Any rule that matches permits.
    pub rules: Vec<Rule>,
    /// What it yields, by name.
    pub credentials: BTreeMap<CredentialName, Credential>,
    /// The first moment at which it is no longer valid: the end of `valid_until`'s day, UTC.
    pub lapses_at: Option<Timestamp>,
    /// Whether it is switched on.
    pub enabled: bool,
}

/// One entry of `allow`.
pub struct Rule {
    /// Its name.
    pub name: RuleName,
    /// The issuer whose tokens it speaks of.
    pub issuer: IssuerName,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// The dangerous triggers that it names by a literal.
    pub named_triggers: BTreeSet<String>,
}

/// One credential of a grant.
pub struct Credential {
    /// Where it comes from; a template is filled from claims at the decision.
    pub target: TargetTemplate,
    /// Its time to live; `None` for a static one.
    pub ttl: Option<Duration>,
}

/// A policy set that was accepted by the loader.
pub struct PolicySet {
    /// SHA-256 over sorted path, length and bytes of every file.
    pub digest: Digest,
    /// The git commit, where known.
    pub commit: Option<String>,
    /// Issuers by name.
    pub issuers: HashMap<IssuerName, IssuerPolicy>,
    /// Grants by name.
    pub grants: HashMap<GrantName, Grant>,
    /// Names of the grants, sorted.
    pub names: Vec<GrantName>,
    /// For each issuer the tenant values that some rule names as a literal.
    pub named_tenants: HashMap<IssuerName, BTreeSet<String>>,
}

impl Files {
    /// The digest that names the set: SHA-256 over every file in byte order of its path, each as the path's length
    /// (u64, big-endian), the path, the content's length (likewise) and the content. What names with a leading dot
    /// hide is not in it; a README is.
    pub fn digest(&self) -> Digest {
        let parts: Vec<&[u8]> =
            self.0.iter().flat_map(|(path, bytes)| [path.as_bytes(), bytes.as_slice()]).collect();
        Digest::of_parts(&parts)
    }
}

impl PolicySet {
    /// Some grant, always the same for the same text: what a name that no grant has is evaluated against, so that it
    /// costs what a known one costs (promise P8). `None` where there are no grants.
    pub(super) fn decoy(&self, asked: &str) -> Option<&Grant> {
        let mut hasher = DefaultHasher::new();
        asked.hash(&mut hasher);
        let at = usize::try_from(hasher.finish() % u64::try_from(self.names.len().max(1)).ok()?).ok()?;
        self.grants.get(self.names.get(at)?)
    }

    /// Whether some rule names this identity's tenant as a literal. Where the issuer is one tenant's, policy names it by
    /// naming the issuer.
    pub fn names_tenant(&self, identity: &JobIdentity) -> bool {
        let profile = identity.profile();
        let issuer = self.issuers.get(identity.issuer());
        if issuer.is_some_and(|issuer| !(profile.is_shared)(&issuer.trusted.url)) {
            return true;
        }
        let pins = profile.tenant_pins.iter().filter_map(|pin| identity.claims().get(*pin)?.as_str());
        let named = self.named_tenants.get(identity.issuer());
        profile.tenant_pins.is_empty()
            || named.is_some_and(|named| pins.into_iter().any(|pin| named.contains(pin)))
    }
}
