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
    /// The shapes of its issuers' URLs, for the manual.
    pub issuers: &'static [&'static str],
    /// The signature algorithms that it signs with; nothing else is accepted.
    pub algorithms: &'static [Algorithm],
    /// Its claims beside the registered ones (`sub` is among them); others are kept out of policy.
    pub claims: &'static [ClaimSpec],
    /// Claims whose names only begin in a known way; the name of each is the beginning.
    pub prefixes: &'static [ClaimSpec],
    /// Whether claims beyond `claims` may be used in policy, as JSON of any scalar type (`generic` only).
    pub open: bool,
    /// Whether tokens of more than one tenant come from the issuer of that URL, so that each rule must pin one by
    /// `tenant_pins`.
    pub is_shared: fn(&str) -> bool,
    /// Immutable claims, any one of which pins the tenant.
    pub tenant_pins: &'static [&'static str],
    /// Claims, any one of which a rule must name by literals, whatever the issuer: without one it would stand on names
    /// that somebody else can have tomorrow.
    pub anchors: &'static [&'static str],
    /// What each rule must speak of besides.
    pub demands: &'static [Demand],
    /// Whose job it is, for identity.
    pub tenant: Tenant,
    /// The claims with the project's immutable id and its readable name.
    pub project: Option<(&'static str, Option<&'static str>)>,
    /// Whether `jti` is always there; then its absence is `token_malformed`, else the signed bytes are the token id.
    pub jti_always: bool,
    /// Claims that together name one job; all must be present.
    pub job_key: &'static [&'static str],
    /// Claims for the identity's view.
    pub view: View,
    /// Whether policy must not use this audience for an issuer of this URL (URL first), since the vendor gives it to
    /// everybody who asks for none (attack class F-11).
    pub refuses_audience: fn(&str, &str) -> bool,
    /// The one audience that the vendor signs, where a job cannot choose: shared with every other relying party, so
    /// that policy opts in by writing it out.
    pub fixed_audience: Option<&'static str>,
    /// Whether a `sub` holds a login or an e-mail address, so that the ledger keeps a commitment only.
    pub is_personal_subject: fn(&str) -> bool,
    /// Whether authentic claims are of another kind of token, or contradict each other: the claim that shows it.
    pub foreign: fn(&Map<String, Value>) -> Option<&'static str>,
    /// Reads the trigger off the payload.
    pub trigger: fn(&Map<String, Value>) -> Trigger,
    /// What the claim with the trigger says of the ordinary ones.
    pub ordinary: &'static [&'static str],
    /// The dangerous triggers that `trigger` can answer, and how a rule names each.
    pub dangers: &'static [Danger],
    /// What the caller of a token without a required claim can do about it, where that is up to the job.
    pub advice: Option<&'static str>,
}

/// Where the tenant stands.
#[derive(Clone, Copy)]
pub enum Tenant {
    /// In a claim.
    Claim(&'static str),
    /// Nowhere: the issuer is one tenant's.
    Issuer,
    /// In a part of a claim.
    Part {
        /// The claim.
        of: &'static str,
        /// What the part is, for the manual.
        what: &'static str,
        /// Cuts it out.
        cut: fn(&str) -> Option<&str>,
    },
}

/// What each rule of a profile must speak of.
pub struct Demand {
    /// The claim.
    pub claim: &'static str,
    /// Whether a pattern will do, or only literals.
    pub by: DemandedBy,
    /// Why, as the end of a message.
    pub why: &'static str,
}

/// How a rule meets a [`Demand`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DemandedBy {
    /// By literals only.
    Literals,
    /// By anything that a value must match.
    Match,
}

/// A dangerous trigger of a profile: denied unless a rule names it by a literal or a list item (attack classes F-03,
/// F-04, F-06).
pub struct Danger {
    /// The word in guardrails and in the ledger.
    pub word: &'static str,
    /// The claim in whose condition a rule names it.
    pub claim: &'static str,
    /// The literal there.
    pub named_by: NamedBy,
}

/// The literal that names a [`Danger`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NamedBy {
    /// Any text that begins so.
    Beginning(&'static str),
    /// `true`.
    True,
    /// The danger's word.
    Word,
}

/// Where the identity's view finds its members.
#[derive(Clone, Copy)]
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
    /// What that claim says of a runner that the vendor runs.
    pub hosted: Option<&'static str>,
    /// Who set it off (a readable name; personal).
    pub actor: Option<&'static str>,
    /// The run's id.
    pub run: Option<&'static str>,
}

/// One claim of a profile.
#[derive(Clone, Copy)]
pub struct ClaimSpec {
    /// Its name, or how its name begins. With a slash in front it is a JSON Pointer (RFC 6901) to a value inside an
    /// object; no claim of a CI system has a name that begins so.
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
    /// Whether it is the path of a file, `@` and a ref or digest.
    pub file_at_ref: bool,
    /// Whether it is a UUID in braces.
    pub braced: bool,
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

    /// What the profile says of a claim, or of a JSON Pointer; for one that is known by the beginning of its name, that
    /// row.
    pub fn claim(&self, name: &str) -> Option<&'static ClaimSpec> {
        let begins = |claim: &&ClaimSpec| name.len() > claim.name.len() && name.starts_with(claim.name);
        self.claims.iter().find(|claim| claim.name == name).or_else(|| self.prefixes.iter().find(begins))
    }

    /// The values that policy may use inside the object of that name; none where it is no such object.
    pub fn inside(&self, object: &str) -> impl Iterator<Item = &'static ClaimSpec> {
        self.claims.iter().filter(move |claim| claim.path().next() == Some(object) && claim.is_nested())
    }

    /// The claims that a token must have, in the order of the table: the registered ones first.
    pub fn required(&self) -> impl Iterator<Item = &'static str> {
        let registered = ["iss", "aud", "exp", "iat"].into_iter().chain(self.jti_always.then_some("jti"));
        registered.chain(self.claims.iter().filter(|claim| claim.required).map(|claim| claim.name))
    }

    /// Whether it knows a trigger by that word, as ordinary or as dangerous.
    pub fn has_trigger(&self, word: &str) -> bool {
        self.ordinary.contains(&word) || self.dangers.iter().any(|danger| danger.word == word)
    }

    /// The trigger that a literal in a condition on a claim names, if it names one.
    pub fn trigger_named(&self, claim: &str, literal: &Value) -> Option<&'static str> {
        let is_named = |danger: &&Danger| danger.claim == claim && danger.is_named_by(literal);
        self.dangers.iter().find(is_named).map(|danger| danger.word)
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
        hosted: None,
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
            file_at_ref: false,
            braced: false,
        }
    }

    /// An optional value of another type.
    pub const fn of(kind: ClaimKind, name: &'static str) -> Self {
        Self { kind, ..Self::text(name) }
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

    /// The same, a file at a ref.
    pub const fn file_at_ref(self) -> Self {
        Self { file_at_ref: true, ..self }
    }

    /// The same, a UUID in braces.
    pub const fn braced(self) -> Self {
        Self { braced: true, ..self }
    }

    /// Whether it stands inside an object.
    pub fn is_nested(&self) -> bool {
        self.name.starts_with('/')
    }

    /// Where it stands: a claim's name, then the members below it. The names in use need no escapes.
    pub fn path(&self) -> impl Iterator<Item = &'static str> {
        let (first, rest) = match self.name.strip_prefix('/') {
            None => (self.name, None),
            Some(pointer) => {
                pointer.split_once('/').map_or((pointer, None), |(first, rest)| (first, Some(rest)))
            }
        };
        std::iter::once(first).chain(rest.into_iter().flat_map(|rest| rest.split('/')))
    }

    /// The value in claims.
    pub fn find<'c>(&self, claims: &'c Map<String, Value>) -> Option<&'c Value> {
        let mut path = self.path();
        let first = claims.get(path.next()?)?;
        path.try_fold(first, |value, part| value.as_object()?.get(part))
    }
}

impl Danger {
    /// One that the trigger's own claim spells as its word.
    pub const fn word(word: &'static str, claim: &'static str) -> Self {
        Self { word, claim, named_by: NamedBy::Word }
    }

    fn is_named_by(&self, literal: &Value) -> bool {
        match self.named_by {
            NamedBy::Beginning(beginning) => literal.as_str().is_some_and(|text| text.starts_with(beginning)),
            NamedBy::True => literal.as_bool() == Some(true),
            NamedBy::Word => literal.as_str() == Some(self.word),
        }
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
