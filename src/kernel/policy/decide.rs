//! The decision: a pure function of policy, identity, request and time. Deny by default.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;

use super::{set::PolicySet, target::Target};
use crate::kernel::{
    digest::Digest,
    identity::JobIdentity,
    name::{CredentialName, GrantName, RuleName},
};

/// What a job asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// One to eight grants.
    pub grants: Vec<GrantRequest>,
}

/// One grant of a request. Names are texts as sent: one that cannot be a name is as unknown as any other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GrantRequest {
    /// The grant's name.
    pub name: String,
    /// The credentials wanted; all where absent.
    pub credentials: Option<Vec<String>>,
    /// A shorter life.
    pub ttl: Option<Duration>,
}

/// Permit or deny.
pub enum Decision {
    /// Everything asked for, or nothing.
    Deny(Denial),
    /// All of it.
    Permit(Permit),
}

/// A permit. Only [`decide`] makes one.
pub struct Permit {
    digest: Digest,
    commit: Option<String>,
    grants: Vec<PermittedGrant>,
}

/// One grant of a permit.
pub struct PermittedGrant {
    /// Its name.
    pub name: GrantName,
    /// The rule that matched.
    pub rule: RuleName,
    /// The file with the rule.
    pub file: Arc<str>,
    /// Its credentials, in the order of their names.
    pub credentials: Vec<PermittedCredential>,
}

/// One credential of a permit.
pub struct PermittedCredential {
    /// Its name.
    pub name: CredentialName,
    /// What it reaches.
    pub target: Target,
    /// Its TTL: the policy's, cut to the requested one; `None` where static.
    pub ttl: Option<Duration>,
}

/// A denial: for the ledger in full, for the caller one word.
pub struct Denial {
    /// The first reason: a stable kebab-case word (`no-such-grant`, `no-such-credential`, `no-rule`, `trigger`,
    /// `disabled`, `lapsed`).
    pub reason: &'static str,
    /// For each grant asked for, the rules tried and the claims of each that failed.
    pub trace: Vec<Tried>,
    /// Whether some rule names this tenant.
    pub tenant_named: bool,
}

/// One rule that was tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tried {
    /// The grant asked for.
    pub grant: String,
    /// The rule, where one was tried.
    pub rule: Option<RuleName>,
    /// Names of the claims that failed.
    pub failed: Vec<String>,
}

impl Permit {
    /// The digest of the set that decided.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The commit of the set that decided.
    pub fn commit(&self) -> Option<&str> {
        self.commit.as_deref()
    }

    /// What is permitted.
    pub fn grants(&self) -> &[PermittedGrant] {
        &self.grants
    }

    /// The first credential, as (grant, credential), whose TTL is below its kind's least.
    pub fn ttl_out_of_range(&self) -> Option<(&GrantName, &CredentialName)> {
        todo!()
    }
}

/// Decides.
pub fn decide(_set: &PolicySet, _identity: &JobIdentity, _request: &Request, _now: Timestamp) -> Decision {
    todo!()
}

/// What `GET /v1/grants` answers: the grants that this identity may use now, by name.
pub fn usable<'a>(
    _set: &'a PolicySet,
    _identity: &JobIdentity,
    _now: Timestamp,
) -> Vec<&'a super::set::Grant> {
    todo!()
}
