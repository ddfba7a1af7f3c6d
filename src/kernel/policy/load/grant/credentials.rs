//! Credentials of a grant: one kind each, with a TTL that the kind can honour.

use std::{collections::BTreeMap, time::Duration};

use super::{Known, backend::untemplated};
use crate::kernel::{
    name::{CredentialName, SecretName},
    policy::{
        class::Class,
        set::Credential,
        target::{Kind, LATER_KINDS, Target},
        template::TargetTemplate,
        yaml::{Findings, Key, Node},
    },
};

pub(super) fn read_all(
    findings: &mut Findings<'_>,
    node: &Node,
    known: &Known<'_>,
) -> Option<BTreeMap<CredentialName, Credential>> {
    let fields = findings.fields(node)?;
    let before = findings.list.len();
    let mut credentials = BTreeMap::new();
    for (key, node) in fields.rest() {
        let Some(name) = CredentialName::parse(&key.text) else {
            let message = format!("`{}` is no name", key.text);
            findings.at_key(key, "name", message, "write 1 to 63 of a-z, 0-9 and -, no - at an end");
            continue;
        };
        if let Some(credential) = read(findings, key, node, known) {
            credentials.insert(name, credential);
        }
    }
    if credentials.is_empty() && findings.list.len() == before {
        findings.at(node, "empty", "the grant yields nothing", "add a credential");
    }
    if credentials.len() > 16 {
        findings.at(node, "too-many", "a grant has at most 16 credentials", "split the grant");
    }
    (findings.list.len() == before).then_some(credentials)
}

fn read(findings: &mut Findings<'_>, key: &Key, node: &Node, known: &Known<'_>) -> Option<Credential> {
    let mut fields = findings.fields(node)?;
    let named: Vec<(Kind, &Node)> =
        Kind::ALL.into_iter().filter_map(|kind| Some((kind, fields.take(kind.as_str())?))).collect();
    let ttl_node = fields.take("ttl");
    let before = findings.list.len();
    for later in LATER_KINDS {
        fields.not_yet(findings, later);
    }
    let is_later = findings.list.len() > before;
    fields.finish(findings);
    let target = match named.as_slice() {
        [(Kind::Aws, node)] => super::aws::read(findings, node, known)?,
        [(Kind::Oidc, node)] => read_oidc(findings, node, known)?,
        [(Kind::Sealed, node)] => read_sealed(findings, node)?,
        [(Kind::Vault, node)] => super::vault::read(findings, node, known)?,
        [] if is_later => return None,
        [] | [_, _, ..] => {
            let message = format!("the credential `{}` must be of exactly one kind", key.text);
            let remedy = "write one of sealed, oidc, vault, aws, such as `sealed: { secret: NAME }`";
            findings.at_key(key, "kind", message, remedy);
            return None;
        }
    };
    let ttl = ttl(findings, &target, (key, ttl_node))?;
    Some(Credential {
        place: key.place(),
        target: TargetTemplate(target),
        ttl,
        class: Class::Production,
        guardrails: Vec::new(),
    })
}

fn read_sealed(findings: &mut Findings<'_>, node: &Node) -> Option<Target> {
    let mut fields = findings.fields(node)?;
    let secret = fields.require(findings, "secret");
    fields.finish(findings);
    let secret = secret?;
    let text = untemplated(findings, secret, "a secret's name")?;
    let name = SecretName::parse(text);
    if name.is_none() {
        findings.at(
            secret,
            "name",
            format!("`{text}` is no name"),
            "write 1 to 63 of a-z, 0-9 and -, no - at an end",
        );
    }
    Some(Target::Sealed { secret: name? })
}

fn read_oidc(findings: &mut Findings<'_>, node: &Node, known: &Known<'_>) -> Option<Target> {
    let mut fields = findings.fields(node)?;
    let audience = fields.require(findings, "audience");
    fields.finish(findings);
    let node = audience?;
    let audience = untemplated(findings, node, "an audience")?;
    if known.issuers.values().any(|issuer| is_same_place(&issuer.audience, audience)) {
        let message = "this is the audience of tokens for this broker; an assertion for it could come back as a CI token";
        findings.at(node, "audience-ourselves", message, "name the service that the assertion is for");
        return None;
    }
    if known.ourselves.iter().any(|ours| is_same_place(ours, audience)) {
        let message = "this broker is called that (`assertions.issuer` or `public.url`); an assertion for it could come back as a \
                       CI token, and is never signed";
        findings.at(node, "audience-ourselves", message, "name the service that the assertion is for");
        return None;
    }
    if is_federated(audience) {
        let message = "a cloud takes assertions for this audience in exchange for its own credentials";
        let remedy = "use the kind of that cloud: `aws`, or one that comes with a later version";
        findings.at(node, "audience-federated", message, remedy);
        return None;
    }
    if audience.len() > 256 || audience.chars().any(|letter| letter.is_control() || letter.is_whitespace()) {
        findings.at(
            node,
            "audience",
            "an audience has 1 to 256 characters and no spaces",
            "write the exact audience",
        );
        return None;
    }
    Some(Target::Oidc { audience: audience.to_owned() })
}

fn is_same_place(ours: &str, theirs: &str) -> bool {
    ours.trim_end_matches('/').eq_ignore_ascii_case(theirs.trim_end_matches('/'))
}

/// The usual audiences of AWS, Entra ID and Google Cloud (reference: cloud backends): an assertion for one of them is
/// a credential of the kind `aws`, `azure` or `gcp`, and would pass by whatever limits those.
///
/// Known hole: each of them lets its owner choose another audience, which nobody can tell from here.
fn is_federated(audience: &str) -> bool {
    let audience = audience.to_ascii_lowercase();
    let place = audience.strip_prefix("https:").unwrap_or(&audience);
    let host = place.strip_prefix("//").unwrap_or(place).trim_end_matches('/');
    let is_sts = host.starts_with("sts.") || host.starts_with("sts-fips.");
    (is_sts && [".amazonaws.com", ".amazonaws.com.cn", ".api.aws"].iter().any(|end| host.ends_with(end)))
        || audience.starts_with("api://azureadtokenexchange")
        || place.starts_with("//iam.googleapis.com/")
}

/// `Some(None)`: the kind has no TTL.
#[expect(clippy::option_option, reason = "the outer level is a finding, the inner one a kind without TTL")]
fn ttl(
    findings: &mut Findings<'_>,
    target: &Target,
    (key, node): (&Key, Option<&Node>),
) -> Option<Option<Duration>> {
    let Some((least, greatest)) = target.ttl_bounds() else {
        if let Some(node) = node {
            let message = format!("a `{}` credential is static: nobody can end it", target.kind().as_str());
            findings.at(node, "ttl-on-static", message, "remove the ttl");
            return None;
        }
        return Some(None);
    };
    let Some(node) = node else {
        // The greatest of an assertion of our own is minutes, that of another system's credential half a day and more.
        if target.kind() == Kind::Oidc {
            return Some(Some(greatest));
        }
        let message = format!("`{}` does not say how long it lives", key.text);
        findings.at_key(key, "missing-key", message, "add `ttl: 15m`, or as long as the job needs");
        return None;
    };
    let ttl = findings.duration(node)?;
    if ttl < least || ttl > greatest {
        let message = format!("a credential of kind `{}` cannot live for that long", target.kind().as_str());
        findings.at(node, "ttl", message, format!("write {}s to {}s", least.as_secs(), greatest.as_secs()));
        return None;
    }
    Some(Some(ttl))
}
