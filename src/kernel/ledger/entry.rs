//! Entries: canonical JSON of at most 16 KiB, hashed as stored, each with its own salt; personal values stand
//! outside, bound by commitments.
//!
//! The broker drafts, [`Draft::seal`] makes the bytes, and nobody ever writes them again: they are stored, proven and
//! exported as they are. The salt keeps whoever sees only a leaf hash (a proof, a tile) from guessing the entry. A
//! personal value never stands in the bytes; its commitment does, with 32 random bytes of its own, so that erasing
//! value and bytes together makes it unknowable and breaks no proof. Contract: section 6; RFC 8785 for the bytes.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::Value;

use super::{
    subject::{Subject, append_commitment},
    tree::leaf_hash,
};
use crate::kernel::{
    digest::{Digest, hex},
    id::{DecisionId, IssuanceId, ReplicaId},
    json::{append_canonical, append_text},
};

/// The greatest entry. The tile format would carry 64 KiB; a quarter of it is the contract's.
pub const MAX_ENTRY_BYTES: usize = 16 * 1024;

/// The version of entries, their member `v`.
pub const ENTRY_VERSION: u64 = 1;

/// Codes of entries (design: section 6), those that this version writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[expect(missing_docs, reason = "the manual's table of entries explains each")]
pub enum EntryCode {
    AlertPolicyRejected,
    AlertPolicySkew,
    AlertRevocation,
    AlertRollback,
    ConfigLoaded,
    Denied,
    DryRun,
    Exported,
    Failed,
    Frozen,
    Intent,
    Issued,
    KeyRotated,
    PolicyAccepted,
    PolicyLoaded,
    PolicyRejected,
    Read,
    Released,
    Restored,
    Revoked,
    Revoking,
    SecretRemoved,
    SecretSet,
    Started,
    Stopped,
    Summary,
    Thawed,
    Undelivered,
    Unresolved,
}

/// An entry to be: what happened, before it is given salt and blinding.
#[derive(Default, Clone)]
pub struct Draft {
    /// Its code; an entry without one is refused.
    pub code: Option<EntryCode>,
    /// The decision.
    pub decision: Option<DecisionId>,
    /// The issuance.
    pub issuance: Option<IssuanceId>,
    /// `subject`: `{issuer, profile, tenant, project, …, claims}`, with the personal claims.
    pub subject: Option<Arc<Subject>>,
    /// `policy`.
    pub policy: Option<Value>,
    /// `request`.
    pub request: Option<Value>,
    /// `result`.
    pub result: Option<Value>,
    /// `token`.
    pub token: Option<Arc<Value>>,
    /// Personal values that are no claims. Their commitments stand in `commitments`.
    pub personal: Vec<Personal>,
}

/// A personal value that is no claim.
#[derive(Clone)]
pub struct Personal {
    /// `address`, `reason` or `query`.
    pub field: &'static str,
    /// The value.
    pub value: String,
}

/// A finished entry.
#[derive(Clone)]
pub struct Entry {
    /// Its bytes, as they will be hashed and stored.
    pub bytes: Vec<u8>,
    /// RFC 6962 leaf hash.
    pub leaf: Digest,
    /// Its code.
    pub code: EntryCode,
    /// Its time, whole milliseconds, as its bytes say it.
    pub at: Timestamp,
    /// The decision.
    pub decision: Option<DecisionId>,
    /// The issuance.
    pub issuance: Option<IssuanceId>,
    /// For the erasable table: field, 32 blinding bytes, value.
    pub personal: Vec<(String, [u8; 32], String)>,
    /// The issuer that it speaks of.
    pub issuer: Option<String>,
    /// The grants that it speaks of, each once.
    pub grants: Vec<String>,
}

/// Why a draft cannot be an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryFault {
    /// It has more than 16 KiB even after what may be cut was cut.
    #[error("the entry would have {0} bytes, over 16384")]
    TooLarge(usize),
    /// There were no random bytes.
    #[error("no random bytes")]
    NoEntropy,
    /// It has no code.
    #[error("the draft has no code")]
    Unfinished,
    /// A number that RFC 8785 cannot write.
    #[error("a number that canonical JSON cannot write")]
    Unwritable,
}

/// Whatever fills a slice with random bytes, and says whether it did.
pub type Random<'a> = &'a dyn Fn(&mut [u8]) -> bool;

impl EntryCode {
    /// Every code, in the order of their words.
    pub const ALL: [Self; 29] = [
        Self::AlertPolicyRejected,
        Self::AlertPolicySkew,
        Self::AlertRevocation,
        Self::AlertRollback,
        Self::ConfigLoaded,
        Self::Denied,
        Self::DryRun,
        Self::Exported,
        Self::Failed,
        Self::Frozen,
        Self::Intent,
        Self::Issued,
        Self::KeyRotated,
        Self::PolicyAccepted,
        Self::PolicyLoaded,
        Self::PolicyRejected,
        Self::Read,
        Self::Released,
        Self::Restored,
        Self::Revoked,
        Self::Revoking,
        Self::SecretRemoved,
        Self::SecretSet,
        Self::Started,
        Self::Stopped,
        Self::Summary,
        Self::Thawed,
        Self::Undelivered,
        Self::Unresolved,
    ];

    /// The code's text, as in the contract: `DENIED`, `ALERT_ROLLBACK`, …
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AlertPolicyRejected => "ALERT_POLICY_REJECTED",
            Self::AlertPolicySkew => "ALERT_POLICY_SKEW",
            Self::AlertRevocation => "ALERT_REVOCATION",
            Self::AlertRollback => "ALERT_ROLLBACK",
            Self::ConfigLoaded => "CONFIG_LOADED",
            Self::Denied => "DENIED",
            Self::DryRun => "DRY_RUN",
            Self::Exported => "EXPORTED",
            Self::Failed => "FAILED",
            Self::Frozen => "FROZEN",
            Self::Intent => "INTENT",
            Self::Issued => "ISSUED",
            Self::KeyRotated => "KEY_ROTATED",
            Self::PolicyAccepted => "POLICY_ACCEPTED",
            Self::PolicyLoaded => "POLICY_LOADED",
            Self::PolicyRejected => "POLICY_REJECTED",
            Self::Read => "READ",
            Self::Released => "RELEASED",
            Self::Restored => "RESTORED",
            Self::Revoked => "REVOKED",
            Self::Revoking => "REVOKING",
            Self::SecretRemoved => "SECRET_REMOVED",
            Self::SecretSet => "SECRET_SET",
            Self::Started => "STARTED",
            Self::Stopped => "STOPPED",
            Self::Summary => "SUMMARY",
            Self::Thawed => "THAWED",
            Self::Undelivered => "UNDELIVERED",
            Self::Unresolved => "UNRESOLVED",
        }
    }

    /// Reads a code; `None` for one that this version does not write.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|each| each.as_str() == text)
    }
}

impl std::fmt::Display for EntryCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Draft {
    /// A draft of that code, with nothing else in it.
    pub fn of(code: EntryCode) -> Self {
        Self { code: Some(code), ..Self::default() }
    }

    /// Makes the entry. `random` fills a slice with random bytes, and is asked once for the salt (16) and once a
    /// personal value (32).
    ///
    /// # Errors
    ///
    /// [`EntryFault`].
    pub fn seal(&self, at: Timestamp, replica: ReplicaId, random: Random<'_>) -> Result<Entry, EntryFault> {
        if self.subject.as_ref().is_some_and(|subject| !subject.has_claims()) {
            return Err(EntryFault::Unwritable);
        }
        let (blinded, salt) = self.draw(random)?;
        let bytes = self.write((at, replica, salt), &blinded, false)?;
        self.finish(at, bytes, blinded)
    }

    /// Makes the entry, without the job's claims where they are what does not fit or cannot be written: `subject` keeps
    /// its other members, gets `claims_cut: true`, and personal claims keep their commitments. What happened can then
    /// be recorded whatever a CI system put into a token; only replay and `explain` answer `unknown` for it.
    ///
    /// # Errors
    ///
    /// [`EntryFault`].
    pub fn seal_or_slim(
        &self,
        at: Timestamp,
        replica: ReplicaId,
        random: Random<'_>,
    ) -> Result<Entry, EntryFault> {
        let (blinded, salt) = self.draw(random)?;
        let bytes = match self.write((at, replica, salt), &blinded, false) {
            Err(EntryFault::TooLarge(_)) => self.write((at, replica, salt), &blinded, true)?,
            written => written?,
        };
        self.finish(at, bytes, blinded)
    }

    /// Blinds the personal values, claims first, and draws the salt.
    fn draw(&self, random: Random<'_>) -> Result<(Vec<Blinded>, [u8; 16]), EntryFault> {
        let claims = self.subject.as_ref().map(|subject| subject.personal()).unwrap_or_default();
        let claims = claims.iter().map(|(field, value)| (field.as_str(), value));
        let own = self.personal.iter().map(|Personal { field, value }| (*field, value));
        let mut blinded = Vec::with_capacity(claims.len() + own.len());
        for (field, value) in claims.chain(own) {
            let blind: [u8; 32] = fresh(random)?;
            let commitment = commitment(&blind, field, value);
            blinded.push(Blinded { field: field.to_owned(), blind, value: value.clone(), commitment });
        }
        Ok((blinded, fresh(random)?))
    }

    /// Writes the members in the order of RFC 8785.
    fn write(
        &self,
        (at, replica, salt): (Timestamp, ReplicaId, [u8; 16]),
        blinded: &[Blinded],
        slim: bool,
    ) -> Result<Vec<u8>, EntryFault> {
        let code = self.code.ok_or(EntryFault::Unfinished)?;
        let own = blinded.len().saturating_sub(self.personal.len());
        let (of_claims, others) = blinded.split_at_checked(own).unwrap_or((blinded, &[]));
        let mut out = Vec::with_capacity(ROOM);
        out.extend_from_slice(format!("{{\"at\":\"{:.3}\",\"code\":\"{code}\"", whole(at)?).as_bytes());
        append_commitments(&mut out, others);
        append_id(&mut out, "decision", self.decision.map(|id| id.to_string()));
        append_id(&mut out, "issuance", self.issuance.map(|id| id.to_string()));
        append_value(&mut out, "policy", self.policy.as_ref())?;
        append_id(&mut out, "replica", Some(replica.to_string()));
        append_value(&mut out, "request", self.request.as_ref())?;
        append_value(&mut out, "result", self.result.as_ref())?;
        append_id(&mut out, "salt", Some(hex(&salt)));
        if let Some(subject) = &self.subject {
            out.extend_from_slice(b",\"subject\":");
            let commitments: Vec<Digest> = of_claims.iter().map(|each| each.commitment).collect();
            if slim {
                subject.append_slim(&mut out, &commitments);
            } else {
                subject.append(&mut out, &commitments);
            }
        }
        append_value(&mut out, "token", self.token.as_deref())?;
        out.extend_from_slice(format!(",\"v\":{ENTRY_VERSION}}}").as_bytes());
        if out.len() > MAX_ENTRY_BYTES { Err(EntryFault::TooLarge(out.len())) } else { Ok(out) }
    }

    fn finish(&self, at: Timestamp, bytes: Vec<u8>, blinded: Vec<Blinded>) -> Result<Entry, EntryFault> {
        Ok(Entry {
            leaf: leaf_hash(&bytes),
            bytes,
            code: self.code.ok_or(EntryFault::Unfinished)?,
            at: whole(at)?,
            decision: self.decision,
            issuance: self.issuance,
            personal: blinded.into_iter().map(|each| (each.field, each.blind, each.value)).collect(),
            issuer: self.issuer().map(str::to_owned),
            grants: self.grants(),
        })
    }

    /// The issuer that it speaks of: of its subject, its token or its result.
    fn issuer(&self) -> Option<&str> {
        let subject = self.subject.as_ref().and_then(|subject| subject.issuer());
        let told = [self.token.as_deref(), self.result.as_ref()].into_iter().flatten();
        subject.or_else(|| told.filter_map(|value| value.get("issuer")?.as_str()).next())
    }

    /// The grants that it speaks of: of its policy, its result, its request, and of what a dry run would issue.
    fn grants(&self) -> Vec<String> {
        let [policy, result, request] = [&self.policy, &self.result, &self.request].map(Option::as_ref);
        let named = [policy, result].into_iter().filter_map(|value| value?.get("grant")?.as_str());
        let lists = [(request, "grants"), (result, "would_issue")];
        let listed = lists.into_iter().filter_map(|(value, list)| value?.get(list)?.as_array()).flatten();
        let listed = listed.filter_map(|each| each.get("name").or_else(|| each.get("grant"))?.as_str());
        let mut grants: Vec<String> = Vec::new();
        for grant in named.chain(listed) {
            if !grants.iter().any(|known| known == grant) {
                grants.push(grant.to_owned());
            }
        }
        grants
    }
}

/// A personal value with what blinds its commitment.
struct Blinded {
    field: String,
    blind: [u8; 32],
    value: String,
    commitment: Digest,
}

/// Entries tell time in whole milliseconds.
fn whole(at: Timestamp) -> Result<Timestamp, EntryFault> {
    Timestamp::from_millisecond(at.as_millisecond()).map_err(|_| EntryFault::Unwritable)
}

fn append_commitments(out: &mut Vec<u8>, blinded: &[Blinded]) {
    let mut sorted: Vec<&Blinded> = blinded.iter().collect();
    sorted.sort_unstable_by(|left, right| left.field.cmp(&right.field));
    for (number, each) in sorted.iter().enumerate() {
        out.extend_from_slice(if number == 0 { b",\"commitments\":{" } else { b"," });
        append_text(out, &each.field);
        out.push(b':');
        append_commitment(out, &each.commitment);
    }
    if !sorted.is_empty() {
        out.push(b'}');
    }
}

/// A member whose text needs no escape.
fn append_id(out: &mut Vec<u8>, name: &str, text: Option<String>) {
    let Some(text) = text else { return };
    for part in [",\"", name, "\":\"", &text, "\""] {
        out.extend_from_slice(part.as_bytes());
    }
}

fn append_value(out: &mut Vec<u8>, name: &str, value: Option<&Value>) -> Result<(), EntryFault> {
    let Some(value) = value else { return Ok(()) };
    for part in [",\"", name, "\":"] {
        out.extend_from_slice(part.as_bytes());
    }
    append_canonical(out, value).map_err(|_| EntryFault::Unwritable)
}

/// The commitment to a personal value: SHA-256(32 random bytes || field || value).
pub fn commitment(blind: &[u8; 32], field: &str, value: &str) -> Digest {
    Digest::of(&[blind.as_slice(), field.as_bytes(), value.as_bytes()].concat())
}

fn fresh<const N: usize>(random: Random<'_>) -> Result<[u8; N], EntryFault> {
    let mut bytes = [0; N];
    if !random(&mut bytes) {
        return Err(EntryFault::NoEntropy);
    }
    Ok(bytes)
}

/// What an ordinary entry needs, so that its buffer does not grow.
const ROOM: usize = 3 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use serde_json::{Map, json};

    use super::*;
    use crate::kernel::json::{read_bounded, write_canonical};

    fn subject(claims: &Value) -> Option<Arc<Subject>> {
        let mut members = [("issuer", "github".into()), ("project", "701".into())];
        let is_personal = |name: &str| name == "actor";
        Some(Arc::new(Subject::new(&mut members, claims.as_object().unwrap(), is_personal).unwrap()))
    }

    fn at() -> Timestamp {
        "2026-11-23T10:20:30.4567891Z".parse().unwrap()
    }

    fn replica() -> ReplicaId {
        ReplicaId::from_bytes([1; 16])
    }

    fn draft() -> Draft {
        Draft {
            subject: subject(&json!({ "ref": "refs/heads/main", "n": 7, "actor": "octocat" })),
            result: Some(json!({ "failed": ["environment"] })),
            personal: vec![Personal { field: "address", value: "192.0.2.7".to_owned() }],
            decision: Some(DecisionId::from_bytes([2; 16])),
            ..Draft::of(EntryCode::Denied)
        }
    }

    fn counting() -> impl Fn(&mut [u8]) -> bool {
        let next = Cell::new(0_u8);
        move |out| {
            next.set(next.get() + 1);
            out.fill(next.get());
            true
        }
    }

    fn seal(draft: Draft) -> Result<Entry, EntryFault> {
        draft.seal(at(), replica(), &counting())
    }

    #[test]
    fn the_bytes_are_the_canonical_json_that_the_manual_promises() {
        let entry = seal(draft()).unwrap();
        let actor = commitment(&[1; 32], "actor", "octocat");
        let address = commitment(&[2; 32], "address", "192.0.2.7");
        let expected = format!(
            "{{\"at\":\"2026-11-23T10:20:30.456Z\",\"code\":\"DENIED\",\
             \"commitments\":{{\"address\":{{\"commitment\":\"{address}\"}}}},\
             \"decision\":\"dec_0208420g81040g2081040g2081\",\"replica\":\"rep_0108420g81040g2081040g2081\",\
             \"result\":{{\"failed\":[\"environment\"]}},\"salt\":\"{}\",\
             \"subject\":{{\"claims\":{{\"actor\":{{\"commitment\":\"{actor}\"}},\"n\":7,\"ref\":\"refs/heads/main\"}},\
             \"issuer\":\"github\",\"project\":\"701\"}},\"v\":1}}",
            "03".repeat(16),
        );
        let decision = DecisionId::from_bytes([2; 16]).to_string();
        let expected = expected
            .replace("dec_0208420g81040g2081040g2081", &decision)
            .replace("rep_0108420g81040g2081040g2081", &replica().to_string());
        assert_eq!(String::from_utf8(entry.bytes.clone()).unwrap(), expected);
        assert_eq!(entry.leaf, Digest::of(&[&[0], entry.bytes.as_slice()].concat()));
        assert_eq!(entry.at.to_string(), "2026-11-23T10:20:30.456Z");
    }

    #[test]
    fn members_are_in_canonical_order_whatever_is_there() {
        let member = || Some(json!({ "b": 1, "a": "\u{7f}\"" }));
        let whole = Draft {
            issuance: Some(IssuanceId::from_bytes([3; 16])),
            policy: member(),
            request: member(),
            token: member().map(Arc::new),
            personal: ["reason", "query", "address"]
                .map(|field| Personal { field, value: "x".to_owned() })
                .into(),
            ..draft()
        };
        for draft in [whole, draft(), Draft::of(EntryCode::Started)] {
            let bytes = seal(draft).unwrap().bytes;
            assert_eq!(write_canonical(&read_bounded(&bytes).unwrap()).unwrap(), bytes);
        }
    }

    #[test]
    fn a_commitment_is_the_plain_hash_of_bytes_field_and_value() {
        let hash = Digest::of(&[[9; 32].as_slice(), b"actoroctocat"].concat());
        assert_eq!(commitment(&[9; 32], "actor", "octocat"), hash);
    }

    #[test]
    fn personal_values_stand_outside_the_bytes() {
        let entry = seal(draft()).unwrap();
        let text = String::from_utf8(entry.bytes).unwrap();
        assert!(!text.contains("octocat") && !text.contains("192.0.2.7"), "{text}");
        let kept: Vec<&str> = entry.personal.iter().map(|(_, _, value)| value.as_str()).collect();
        assert_eq!(kept, ["octocat", "192.0.2.7"]);
    }

    #[test]
    fn whole_seconds_have_three_digits_too() {
        let entry = Draft::of(EntryCode::Started)
            .seal("2026-11-23T10:20:30Z".parse().unwrap(), replica(), &counting())
            .unwrap();
        assert!(String::from_utf8(entry.bytes).unwrap().contains("\"at\":\"2026-11-23T10:20:30.000Z\""));
    }

    #[test]
    fn an_entry_over_16_kib_is_refused_and_its_slim_form_is_not() {
        let mut large = draft();
        let mut claims: Map<String, Value> =
            (0..9).map(|n| (format!("claim-{n}"), "x".repeat(2048).into())).collect();
        claims.insert("actor".to_owned(), "octocat".into());
        large.subject = subject(&claims.into());
        assert!(matches!(seal(large.clone()), Err(EntryFault::TooLarge(18_000..))));
        let slim = large.seal_or_slim(at(), replica(), &counting()).unwrap();
        let value: Value = serde_json::from_slice(&slim.bytes).unwrap();
        assert_eq!(value["subject"]["project"], "701");
        assert_eq!(value["subject"]["claims_cut"], true);
        assert_eq!(value["subject"]["claims"].as_object().unwrap().keys().collect::<Vec<_>>(), ["actor"]);
        assert_eq!(slim.personal.len(), 2);
    }

    #[test]
    fn numbers_that_a_double_would_change_are_refused_or_cut_with_the_claims() {
        for (number, fits) in
            [(json!((1_i64 << 53) - 1), true), (json!(1_i64 << 53), false), (json!(i64::MIN), false)]
        {
            let mut draft = draft();
            draft.subject = subject(&json!({ "n": [number] }));
            assert_eq!(seal(draft.clone()).err(), (!fits).then_some(EntryFault::Unwritable));
            let slim = draft.seal_or_slim(at(), replica(), &counting()).unwrap();
            assert_eq!(read_bounded(&slim.bytes).unwrap()["subject"].get("claims_cut").is_some(), !fits);
        }
    }

    #[test]
    fn nothing_is_sealed_without_entropy_or_a_code() {
        assert_eq!(draft().seal(at(), replica(), &|_| false).err(), Some(EntryFault::NoEntropy));
        assert_eq!(seal(Draft { code: None, ..draft() }).err(), Some(EntryFault::Unfinished));
    }

    #[test]
    fn codes_are_told_apart_and_read_back() {
        for code in EntryCode::ALL {
            assert_eq!(EntryCode::parse(code.as_str()), Some(code));
        }
        assert!(EntryCode::ALL.windows(2).all(|pair| pair[0].as_str() < pair[1].as_str()));
        assert_eq!(EntryCode::parse("denied"), None);
    }
}
