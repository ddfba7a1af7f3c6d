//! Kinds of credentials and their expanded targets: capabilities as data, one variant a kind.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::kernel::{lifetime::Lifetime, name::SecretName};

/// What a credential reaches, with every template filled in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Target {
    /// A session of an AWS role.
    Aws(Arc<AwsTarget>),
    /// An assertion signed by Hallpass for one audience.
    Oidc {
        /// The `aud` of the assertion.
        audience: String,
    },
    /// A secret of the sealed store.
    Sealed {
        /// Its name.
        secret: SecretName,
    },
    /// A path of Vault.
    Vault(Arc<VaultTarget>),
}

/// A session of an AWS role, by `AssumeRoleWithWebIdentity` or `AssumeRole`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AwsTarget {
    /// The connection.
    pub backend: Backend,
    /// The role's ARN.
    pub role_arn: String,
    /// Session tags, expanded.
    pub tags: BTreeMap<String, String>,
    /// The session policy, a JSON document.
    pub session_policy: Option<String>,
    /// ARNs of managed session policies.
    pub managed_policies: Vec<String>,
}

/// A path of Vault and what is done there.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct VaultTarget {
    /// The connection.
    pub backend: Backend,
    /// What stands behind the path.
    pub engine: Engine,
    /// The path below `/v1/`, expanded, without leading slash.
    pub path: String,
    /// The version of a `kv2` secret; the newest where none is pinned.
    pub version: Option<u64>,
    /// The chosen fields of the answer; all where none is chosen.
    pub fields: Option<Vec<String>>,
    /// What the engine is sent beside path and TTL, such as `common_name`; fixed by the policy.
    pub parameters: BTreeMap<String, Value>,
    /// The fields that the policy declares secret, where its engine leaves that to it.
    pub secret_fields: Vec<String>,
}

impl VaultTarget {
    /// Whether a field of the answer is secret.
    pub fn is_secret(&self, field: &str) -> bool {
        match self.engine.secrecy {
            Secrecy::AllBut(public) => !public.contains(&field),
            Secrecy::Declared => self.secret_fields.iter().any(|each| each == field),
            Secrecy::Nothing => false,
        }
    }
}

/// A secrets engine as the language knows it: what is done at its path, and what that yields. The known ones stand in
/// [`super::engines`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Engine {
    /// Its word in policies.
    pub name: &'static str,
    /// What bounds the life of what it yields.
    pub lifetime: Lifetime,
    /// Whether it is asked by POST instead of GET.
    pub posts: bool,
    /// Which fields of its answer are secret.
    pub secrecy: Secrecy,
    /// What the job gives to it.
    pub input: Option<Input>,
    /// What a lease in its answer means.
    pub leasing: Leasing,
    /// Least and greatest TTL that it can honour; nothing to a static one.
    pub ttl_seconds: (u64, u64),
}

/// Which fields of an answer are secret: known or declared, never guessed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Secrecy {
    /// All but these: what a later version of an engine adds is secret until somebody says otherwise.
    AllBut(&'static [&'static str]),
    /// Those that the policy declares.
    Declared,
    /// None: what comes is made to be shown.
    Nothing,
}

/// What a lease in an engine's answer means.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Leasing {
    /// It must be there: it is how the credential ends.
    Due,
    /// It must not be there: then the engine is not what the policy says.
    Refused,
    /// It is there, and revoking it ends nothing.
    Useless,
}

/// What a job gives to the making of a credential (design: section 3, `inputs`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Input {
    /// A PKCS#10 request, PEM.
    Csr,
    /// A digest in base64.
    Digest,
    /// An OpenSSH public key.
    PublicKey,
}

impl Input {
    /// The member of `inputs`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Csr => "csr",
            Self::Digest => "input",
            Self::PublicKey => "public_key",
        }
    }

    /// Whether a text has the shape of it; the backend reads it in earnest.
    pub fn fits(self, text: &str) -> bool {
        match self {
            Self::Csr => {
                let text = text.trim_ascii();
                text.starts_with("-----BEGIN CERTIFICATE REQUEST-----")
                    && text.ends_with("-----END CERTIFICATE REQUEST-----")
            }
            // Of SHA-224 to SHA-512.
            Self::Digest => STANDARD.decode(text).is_ok_and(|digest| (28..=64).contains(&digest.len())),
            Self::PublicKey => {
                let mut words = text.trim_ascii().split_ascii_whitespace();
                let is_type = words.next().is_some_and(|word| {
                    word.starts_with("ssh-") || word.starts_with("ecdsa-") || word.starts_with("sk-")
                });
                is_type
                    && words.next().is_some_and(|key| STANDARD.decode(key).is_ok())
                    && !text.trim_ascii().contains('\n')
            }
        }
    }
}

/// What making a credential changes elsewhere; it decides the order and the number of durable steps (design: section 2,
/// "Cost").
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Making {
    /// Nothing: one durable step, after the fetch.
    Harmless,
    /// Something that can be revoked.
    Revocable,
    /// Something that nobody can take back.
    Irrevocable,
}

impl Making {
    /// The word in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Harmless => "harmless",
            Self::Revocable => "revocable",
            Self::Irrevocable => "irrevocable",
        }
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Harmless, Self::Revocable, Self::Irrevocable].into_iter().find(|each| each.as_str() == text)
    }
}

/// A kind of credential.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
pub enum Kind {
    /// See [`Target::Aws`].
    Aws,
    /// See [`Target::Oidc`].
    Oidc,
    /// See [`Target::Sealed`].
    Sealed,
    /// See [`Target::Vault`].
    Vault,
}

/// The backend that a credential comes from.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Backend {
    /// A part of Hallpass itself, which no configuration names.
    BuiltIn,
    /// The configured connection of that name.
    Named(Arc<str>),
    /// Left out by the policy, and no configuration says which one is meant.
    Unnamed,
}

/// Kinds of later versions (design: section 5). Nothing can be granted of them yet; guardrails may fence them already,
/// so that a kind is fenced on the day on which it comes.
pub const LATER_KINDS: [&str; 6] = ["azure", "gcp", "github", "kubernetes", "sops", "ssh"];

impl Kind {
    /// Every kind that this version mints.
    pub const ALL: [Self; 4] = [Self::Aws, Self::Oidc, Self::Sealed, Self::Vault];

    /// The words of every kind of the language, also of those that this version cannot mint.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(Self::as_str).chain(LATER_KINDS)
    }

    /// Reads the word back.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == text)
    }

    /// The word in policy, API and ledger.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Aws => "aws",
            Self::Oidc => "oidc",
            Self::Sealed => "sealed",
            Self::Vault => "vault",
        }
    }
}

impl Kind {
    /// What an operator can do about a credential that nobody can revoke, in one sentence; told when it is given back.
    pub fn remedy(self) -> Option<&'static str> {
        match self {
            Self::Aws => Some(
                "to cut the session off before its end, attach to the role a policy that denies everything where \
                 aws:SourceIdentity is the issuance's id, or where aws:TokenIssueTime is earlier than now",
            ),
            Self::Vault => Some(
                "at Vault, revoke a certificate by its serial number, or rotate a static secret; all else ends by itself",
            ),
            Self::Oidc | Self::Sealed => None,
        }
    }
}

impl Target {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match self {
            Self::Aws(_) => Kind::Aws,
            Self::Oidc { .. } => Kind::Oidc,
            Self::Sealed { .. } => Kind::Sealed,
            Self::Vault(_) => Kind::Vault,
        }
    }

    /// Where it comes from.
    pub fn backend(&self) -> Backend {
        match self {
            Self::Aws(aws) => aws.backend.clone(),
            Self::Oidc { .. } | Self::Sealed { .. } => Backend::BuiltIn,
            Self::Vault(vault) => vault.backend.clone(),
        }
    }

    /// The target as the language names it: an audience, a secret's name, a role's ARN, a path.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Aws(aws) => &aws.role_arn,
            Self::Oidc { audience } => audience,
            Self::Sealed { secret } => secret.as_str(),
            Self::Vault(vault) => &vault.path,
        }
    }

    /// What bounds the life of its credentials.
    pub fn lifetime(&self) -> Lifetime {
        match self {
            Self::Aws(_) | Self::Oidc { .. } => Lifetime::Fixed,
            Self::Sealed { .. } => Lifetime::Static,
            Self::Vault(vault) => vault.engine.lifetime,
        }
    }

    /// Least and greatest TTL it can honour; `None` where it has none.
    pub fn ttl_bounds(&self) -> Option<(Duration, Duration)> {
        let (least, greatest) = match self {
            Self::Aws(_) => AWS_SECONDS,
            Self::Oidc { .. } => ASSERTION_SECONDS,
            Self::Sealed { .. } => return None,
            Self::Vault(vault) if vault.engine.lifetime == Lifetime::Static => return None,
            Self::Vault(vault) => vault.engine.ttl_seconds,
        };
        Some((Duration::from_secs(least), Duration::from_secs(greatest)))
    }

    /// What making one changes elsewhere.
    pub fn making(&self) -> Making {
        match self {
            Self::Aws(_) => Making::Irrevocable,
            Self::Oidc { .. } | Self::Sealed { .. } => Making::Harmless,
            Self::Vault(vault) => match vault.engine.lifetime {
                Lifetime::Leased => Making::Revocable,
                Lifetime::Fixed => Making::Irrevocable,
                Lifetime::Static if vault.engine.input.is_some() => Making::Irrevocable,
                Lifetime::Static => Making::Harmless,
            },
        }
    }

    /// Whether somebody can end a credential before its time.
    pub fn is_revocable(&self) -> bool {
        self.making() == Making::Revocable
    }

    /// Whether what a job gives has the shape that its making takes, and asks for no name that the policy does not say.
    pub fn takes(&self, wanted: Input, given: &str) -> bool {
        wanted.fits(given)
            && match (self, wanted) {
                (Self::Vault(vault), Input::Csr) => super::csr::asks_only_for(given, &vault.parameters),
                (_, Input::Csr | Input::Digest | Input::PublicKey) => true,
            }
    }

    /// What the job gives to its making.
    pub fn input(&self) -> Option<Input> {
        match self {
            Self::Aws(_) | Self::Oidc { .. } | Self::Sealed { .. } => None,
            Self::Vault(vault) => vault.engine.input,
        }
    }
}

/// `DurationSeconds` of AWS STS: 15 minutes to 12 hours.
const AWS_SECONDS: (u64, u64) = (900, 43_200);
/// An assertion of our own (design: section 5).
const ASSERTION_SECONDS: (u64, u64) = (60, 300);
