//! The secrets engines of Vault as the language knows them: what is done at a path, what the job gives, how long what
//! comes out of it lives, and what of it is secret. Data, so that loader, exchange, minter and manual cannot disagree.
//!
//! Source: `reference` pages of Vault 1.21 and OpenBao 2.6, November 2026. `generic` reaches what is not here.

use super::target::{Engine, Input, Leasing, Secrecy};
use crate::kernel::lifetime::Lifetime;

/// An engine with what the loader asks of its credentials.
pub struct EngineSpec {
    /// What a credential takes along; for `generic` the policy fills in the rest.
    pub engine: Engine,
    /// What its paths can do; any path where empty.
    pub operations: &'static [Operation],
    /// The names that `parameters` may have; any where the engine is `generic`.
    pub parameters: &'static [&'static str],
    /// Those of them that must be there.
    pub required: &'static [&'static str],
    /// For the manual.
    pub about: &'static str,
}

/// What a path does, by the segment that says so.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    /// The segment, such as `creds`.
    pub word: &'static str,
    /// What the job gives to it.
    pub input: Option<Input>,
    /// How many segments may follow at least and at most.
    pub after: (usize, usize),
}

impl Operation {
    /// Its path, as people write it.
    pub fn shown(&self) -> String {
        match self.after {
            (_, 0) => format!("MOUNT/…/{}", self.word),
            (_, 1) => format!("MOUNT/{}/NAME", self.word),
            (_, _) => format!("MOUNT/{}/NAME…", self.word),
        }
    }
}

impl EngineSpec {
    /// The engine of that word.
    pub fn by_name(name: &str) -> Option<&'static Self> {
        ENGINES.iter().find(|spec| spec.engine.name == name)
    }

    /// What a path does, where it is one of this engine: mount, operation, name. The mount may have several segments.
    pub fn operation(&self, path: &str) -> Option<Operation> {
        let segments: Vec<&str> = path.split('/').collect();
        let fits = |operation: &&Operation| {
            let (least, most) = operation.after;
            let follows = |at: usize| segments.len() - at - 1;
            // The mount comes first, so the operation is never the first segment; the last place that fits counts.
            segments
                .iter()
                .enumerate()
                .skip(1)
                .any(|(at, segment)| *segment == operation.word && (least..=most).contains(&follows(at)))
        };
        self.operations.iter().find(fits).copied()
    }

    /// Whether it is the one whose properties stand in the policy.
    pub fn is_generic(&self) -> bool {
        self.engine.name == GENERIC
    }
}

/// The word of the engine that states everything itself.
pub const GENERIC: &str = "generic";

/// Every engine, sorted by name.
pub static ENGINES: &[EngineSpec] = &[
    leased("aws", CREDS, &["access_key", "arn"], "an IAM user of its own"),
    EngineSpec {
        engine: Engine {
            leasing: Leasing::Useless,
            ttl_seconds: (900, 43_200),
            ..fixed("aws-sts", true, &["access_key", "arn", "ttl"])
        },
        operations: &[operation("sts"), operation("creds")],
        parameters: &["role_arn"],
        required: &[],
        about: "a session of AWS, which nobody can end",
    },
    leased("azure", CREDS, &["client_id"], "a service principal of its own"),
    leased("consul", CREDS, &["accessor", "consul_namespace", "partition", "local"], "a token of Consul"),
    leased("database", CREDS, &["username"], "a role of its own in a database"),
    fetched(
        "database-static",
        STATIC_CREDS,
        &["username", "last_vault_rotation", "rotation_period", "ttl"],
        "a role whose password Vault rotates",
    ),
    EngineSpec {
        // Google gives one hour, and nobody shortens it.
        engine: Engine {
            ttl_seconds: (3_600, 86_400),
            ..fixed("gcp-token", false, &["expires_at_seconds", "token_ttl"])
        },
        // MOUNT/roleset/NAME/token and its like.
        operations: &[Operation { word: "token", input: None, after: (0, 0) }],
        parameters: &[],
        required: &[],
        about: "an access token of Google Cloud, which lives for an hour",
    },
    EngineSpec {
        engine: Engine {
            name: GENERIC,
            lifetime: Lifetime::Static,
            posts: false,
            secrecy: Secrecy::Declared,
            input: None,
            leasing: Leasing::Refused,
            ttl_seconds: VAULT_SECONDS,
        },
        operations: &[],
        parameters: &[],
        required: &[],
        about: "any path; the policy says lifetime, method and secret fields",
    },
    EngineSpec {
        engine: Engine {
            ttl_seconds: (600, 86_400),
            posts: true,
            ..lease("kubernetes", &["service_account_name", "service_account_namespace"])
        },
        operations: CREDS,
        parameters: &["kubernetes_namespace", "cluster_role_binding", "audiences"],
        required: &["kubernetes_namespace"],
        about: "a token of a service account; it lives until its end, whatever is revoked",
    },
    fetched("kv1", &[], &[], "a secret of KV version 1"),
    fetched("kv2", DATA, &[], "a secret of KV version 2"),
    leased("ldap", CREDS, &["username", "distinguished_names"], "an entry of its own in a directory"),
    fetched(
        "ldap-static",
        STATIC_CRED,
        &["username", "dn", "last_vault_rotation", "rotation_period", "ttl"],
        "an entry whose password Vault rotates",
    ),
    leased("nomad", CREDS, &["accessor_id"], "a token of Nomad"),
    EngineSpec {
        engine: fixed("pki", true, PKI_PUBLIC),
        operations: &[Operation { word: "sign", input: Some(Input::Csr), after: (1, 1) }, operation("issue")],
        parameters: &[
            "common_name",
            "alt_names",
            "ip_sans",
            "uri_sans",
            "other_sans",
            "user_ids",
            "exclude_cn_from_sans",
            "remove_roots_from_chain",
        ],
        required: &["common_name"],
        about: "a certificate: `sign` of the job's request, `issue` with a key that Vault makes",
    },
    leased("rabbitmq", CREDS, &["username"], "a user of its own in RabbitMQ"),
    EngineSpec {
        engine: fixed("ssh", true, &["serial_number", "signed_key", "private_key_type"]),
        operations: &[
            Operation { word: "sign", input: Some(Input::PublicKey), after: (1, 1) },
            operation("issue"),
        ],
        parameters: &[
            "valid_principals",
            "cert_type",
            "critical_options",
            "extensions",
            "key_type",
            "key_bits",
        ],
        // Without principals a certificate is good for every account (CVE-2024-7594).
        required: &["valid_principals"],
        about: "an SSH certificate: `sign` of the job's key, `issue` with a key that Vault makes",
    },
    EngineSpec {
        engine: Engine {
            name: "transit",
            lifetime: Lifetime::Static,
            posts: true,
            secrecy: Secrecy::Nothing,
            input: Some(Input::Digest),
            leasing: Leasing::Refused,
            ttl_seconds: VAULT_SECONDS,
        },
        operations: &[Operation { word: "sign", input: Some(Input::Digest), after: (1, 2) }],
        parameters: &[
            "hash_algorithm",
            "signature_algorithm",
            "marshaling_algorithm",
            "key_version",
            "prehashed",
            "salt_length",
        ],
        required: &[],
        about: "a signature over a digest that the job gives",
    },
];

const CREDS: &[Operation] = &[operation("creds")];
const STATIC_CREDS: &[Operation] = &[operation("static-creds")];
const STATIC_CRED: &[Operation] = &[operation("static-cred")];
const DATA: &[Operation] = &[Operation { word: "data", input: None, after: (1, 64) }];

const PKI_PUBLIC: &[&str] =
    &["certificate", "issuing_ca", "ca_chain", "private_key_type", "serial_number", "expiration"];

/// A job token of Vault: a CI job needs no less than a minute, and no more than a day.
const VAULT_SECONDS: (u64, u64) = (60, 86_400);

const fn operation(word: &'static str) -> Operation {
    Operation { word, input: None, after: (1, 1) }
}

const fn lease(name: &'static str, public: &'static [&'static str]) -> Engine {
    Engine {
        name,
        lifetime: Lifetime::Leased,
        posts: false,
        secrecy: Secrecy::AllBut(public),
        input: None,
        leasing: Leasing::Due,
        ttl_seconds: VAULT_SECONDS,
    }
}

const fn fixed(name: &'static str, posts: bool, public: &'static [&'static str]) -> Engine {
    Engine { lifetime: Lifetime::Fixed, posts, leasing: Leasing::Refused, ..lease(name, public) }
}

const fn leased(
    name: &'static str,
    operations: &'static [Operation],
    public: &'static [&'static str],
    about: &'static str,
) -> EngineSpec {
    EngineSpec { engine: lease(name, public), operations, parameters: &[], required: &[], about }
}

/// A static engine that is read.
const fn fetched(
    name: &'static str,
    operations: &'static [Operation],
    public: &'static [&'static str],
    about: &'static str,
) -> EngineSpec {
    EngineSpec {
        engine: Engine { lifetime: Lifetime::Static, leasing: Leasing::Refused, ..lease(name, public) },
        operations,
        parameters: &[],
        required: &[],
        about,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_are_sorted_and_found_by_their_words() {
        assert!(ENGINES.is_sorted_by(|left, right| left.engine.name < right.engine.name));
        for spec in ENGINES {
            assert!(std::ptr::eq(EngineSpec::by_name(spec.engine.name).unwrap(), spec));
            assert!(spec.required.iter().all(|name| spec.parameters.contains(name)));
        }
    }

    #[test]
    fn a_lease_is_due_of_what_is_leased_and_of_nothing_else() {
        for EngineSpec { engine, .. } in ENGINES {
            assert_eq!(
                engine.leasing == Leasing::Due,
                engine.lifetime == Lifetime::Leased,
                "{}",
                engine.name
            );
        }
    }

    #[test]
    fn what_a_path_does_is_told_by_its_operation() {
        let input = |engine: &str, path: &str| {
            EngineSpec::by_name(engine).unwrap().operation(path).map(|operation| operation.input)
        };
        assert_eq!(input("pki", "pki/sign/ci"), Some(Some(Input::Csr)));
        assert_eq!(input("pki", "pki/issuer/intermediate/sign/ci"), Some(Some(Input::Csr)));
        assert_eq!(input("pki", "team/pki/issue/ci"), Some(None));
        assert_eq!(input("pki", "pki/sign"), None);
        // A mount may be called like an operation.
        assert_eq!(input("pki", "sign/issue/ci"), Some(None));
        assert_eq!(input("transit", "transit/sign/release/sha2-512"), Some(Some(Input::Digest)));
        assert_eq!(input("transit", "transit/decrypt/release"), None);
        assert_eq!(input("kv2", "kv/data/ci/npm"), Some(None));
        assert_eq!(input("kv2", "kv/ci/npm"), None);
        assert_eq!(input("database", "database/static-creds/x"), None);
    }
}
