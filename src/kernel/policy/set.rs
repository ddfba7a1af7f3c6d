//! A whole policy set: immutable, named by its digest, indexed by grant.

use std::{
    borrow::Cow,
    collections::{BTreeMap, BTreeSet, HashMap},
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::Arc,
    time::Duration,
};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    class::Class,
    finding::Place,
    guardrail::{Guardrail, class_of},
    matcher::Condition,
    target::Kind,
    template::TargetTemplate,
    window::Window,
};
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

/// What the operator's configuration says and policy must agree with.
#[derive(Clone, Default)]
pub struct Trusted {
    /// The issuers.
    pub issuers: BTreeMap<IssuerName, TrustedIssuer>,
    /// The backends by name, each with the kind of credential that it makes.
    pub backends: BTreeMap<String, Kind>,
    /// The broker's own names: the `iss` of its assertions, and the URL that clients see. Nothing is asserted to them.
    pub ourselves: Vec<String>,
}

impl From<BTreeMap<IssuerName, TrustedIssuer>> for Trusted {
    /// Issuers, and nothing else.
    fn from(issuers: BTreeMap<IssuerName, TrustedIssuer>) -> Self {
        Self { issuers, ..Self::default() }
    }
}

/// What policy says of an issuer.
#[derive(Clone)]
pub struct IssuerPolicy {
    /// What the operator trusts.
    pub trusted: TrustedIssuer,
    /// The one audience that its tokens must carry.
    pub audience: String,
    /// The greatest age of a token at the exchange.
    pub max_token_age: Duration,
}

/// A grant as loaded.
#[derive(Clone)]
pub struct Grant {
    /// Its name.
    pub name: GrantName,
    /// For people.
    pub description: String,
    /// Who answers for it.
    pub owners: Vec<String>,
    /// The class that it claims for itself, and where.
    pub own_class: Option<(Class, Place)>,
    /// The highest of its own class and its targets'. Derived.
    pub class: Class,
    /// The file that holds it.
    pub file: Arc<str>,
    /// Where it is named in its file.
    pub place: Place,
    /// The folder below `grants/`, without a slash at an end; empty for a file that stands in `grants/` itself.
    pub folder: Arc<str>,
    /// Any rule that matches permits.
    pub rules: Vec<Rule>,
    /// What it yields, by name.
    pub credentials: BTreeMap<CredentialName, Credential>,
    /// How much of it at once.
    pub limits: Limits,
    /// Whether its own projects are told which claims failed.
    pub disclose_owner: bool,
    /// The first moment at which it is no longer valid: the end of `valid_until`'s day, UTC.
    pub lapses_at: Option<Timestamp>,
    /// Whether it is switched on.
    pub enabled: bool,
}

/// How much of a grant at once. They are state, not policy: the transaction that issues looks at them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Limits {
    /// Intents within an hour; one or more.
    pub issuances_per_hour: Option<u32>,
    /// Credentials that are usable at one time; one or more. Static ones do not count.
    pub live: Option<u32>,
    /// Over what both are counted.
    pub per: LimitScope,
    /// How often one token is good for one credential, 1 to 8.
    pub uses_per_token: u8,
}

/// Over what a limit is counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LimitScope {
    /// Over the whole grant.
    Grant,
    /// Over each project: the issuer and the project's immutable id.
    Project,
}

/// One entry of `allow`.
#[derive(Clone)]
pub struct Rule {
    /// Its name.
    pub name: RuleName,
    /// Where it begins.
    pub place: Place,
    /// The issuer whose tokens it speaks of.
    pub issuer: IssuerName,
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// When it holds; always where absent.
    pub window: Option<Window>,
    /// The dangerous triggers that it names by a literal. Derived.
    pub named_triggers: BTreeSet<String>,
    /// Whether it names the project's immutable id by literals only. Derived.
    pub pins_project: bool,
}

/// One credential of a grant.
#[derive(Clone)]
pub struct Credential {
    /// Where it stands.
    pub place: Place,
    /// Where it comes from; a template is filled from claims at the decision.
    pub target: TargetTemplate,
    /// Its time to live; `None` for a static one.
    pub ttl: Option<Duration>,
    /// The class of its target. Derived.
    pub class: Class,
    /// The guardrails of the set that apply, for tokens of some issuer, by their place in its list. Derived.
    pub guardrails: Vec<usize>,
}

/// A policy set that was accepted by the loader.
#[derive(Clone)]
pub struct PolicySet {
    /// SHA-256 over sorted path, length and bytes of every file.
    pub digest: Digest,
    /// The git commit, where known.
    pub commit: Option<String>,
    /// Issuers by name.
    pub issuers: HashMap<IssuerName, IssuerPolicy>,
    /// Grants by name.
    pub grants: HashMap<GrantName, Grant>,
    /// Guardrails, in the order of their files.
    pub guardrails: Vec<Guardrail>,
    /// Names of the grants, sorted. Derived.
    pub names: Vec<GrantName>,
    /// For each issuer the tenant values that some rule names as a literal. Derived.
    pub named_tenants: HashMap<IssuerName, BTreeSet<String>>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { issuances_per_hour: None, live: None, per: LimitScope::Grant, uses_per_token: 1 }
    }
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
    /// Computes anew all that is derived from the rest: classes, which guardrails apply, what rules name. The loader
    /// calls it last; whoever changes a part of a set calls it again, as mutation tests do.
    pub fn derive(&mut self) {
        self.names = self.grants.keys().cloned().collect();
        self.names.sort();
        for grant in self.grants.values_mut() {
            for rule in &mut grant.rules {
                let Some(issuer) = self.issuers.get(&rule.issuer) else { continue };
                rule.derive(issuer.trusted.profile);
            }
            grant.derive(&self.guardrails);
        }
        self.named_tenants = self.literal_tenants();
    }

    /// Computes what is derived of one grant, as it would be in this set: for asking what if a grant were otherwise.
    pub(super) fn derive_grant(&self, grant: &mut Grant) {
        for rule in &mut grant.rules {
            let Some(issuer) = self.issuers.get(&rule.issuer) else { continue };
            rule.derive(issuer.trusted.profile);
        }
        grant.derive(&self.guardrails);
    }

    fn literal_tenants(&self) -> HashMap<IssuerName, BTreeSet<String>> {
        let mut named: HashMap<IssuerName, BTreeSet<String>> = HashMap::new();
        for rule in self.grants.values().flat_map(|grant| &grant.rules) {
            let Some(issuer) = self.issuers.get(&rule.issuer) else { continue };
            let pins = issuer.trusted.profile.tenant_pins;
            let tenants = named.entry(rule.issuer.clone()).or_default();
            for condition in rule.conditions.iter().filter(|each| pins.contains(&each.claim.as_str())) {
                tenants.extend(condition.matcher.literals().into_iter().filter_map(literal_text));
            }
        }
        named
    }

    /// A grant with the templates of its targets filled in for a job, and with the classes and guardrails of what came
    /// out of it. One that cannot be filled in stays open, and nobody can get it.
    pub(super) fn expanded<'g>(&self, grant: &'g Grant, identity: &JobIdentity) -> Cow<'g, Grant> {
        if !grant.credentials.values().any(|credential| credential.target.is_open()) {
            return Cow::Borrowed(grant);
        }
        let mut grant = grant.clone();
        for credential in grant.credentials.values_mut() {
            if let Some(target) = credential.target.expand(identity) {
                credential.target = target;
            }
        }
        grant.derive(&self.guardrails);
        Cow::Owned(grant)
    }

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

impl Grant {
    /// Classes before guardrails, since those select by class.
    fn derive(&mut self, guardrails: &[Guardrail]) {
        for credential in self.credentials.values_mut() {
            credential.class = class_of(guardrails, &credential.target.0);
        }
        let own = self.own_class.map(|(class, _)| class);
        let targets = self.credentials.values().map(|credential| credential.class);
        self.class = targets.chain(own).max().unwrap_or(Class::Production);
        let applying = |credential: &Credential| {
            let fits = |(_, guardrail): &(usize, &Guardrail)| guardrail.applies_to.fits(self, credential);
            guardrails.iter().enumerate().filter(fits).map(|(at, _)| at).collect()
        };
        let lists: Vec<Vec<usize>> = self.credentials.values().map(applying).collect();
        for (credential, list) in self.credentials.values_mut().zip(lists) {
            credential.guardrails = list;
        }
    }
}

impl Rule {
    fn derive(&mut self, profile: &Profile) {
        self.named_triggers = self.names_triggers(profile);
        self.pins_project = self.names_project(profile);
    }

    /// Every literal of the claim with the trigger, and the dangerous ones that other claims name.
    fn names_triggers(&self, profile: &Profile) -> BTreeSet<String> {
        let mut named = BTreeSet::new();
        for condition in &self.conditions {
            let is_trigger = Some(condition.claim.as_str()) == profile.view.trigger;
            for literal in condition.matcher.literals() {
                named.extend(literal_text(literal).filter(|_| is_trigger));
                named.extend(profile.trigger_named(&condition.claim, literal).map(str::to_owned));
            }
        }
        named
    }
}

fn literal_text(literal: &Value) -> Option<String> {
    literal.as_str().map(str::to_owned)
}
